# The name of the option that a part of a descriptor comes from.
#
#   credentials  names of nuc.credentials, in their order
#   ports        those of nuc.ports
#   handedOver   those of nuc.handOver, which stand after them, each with its unit
#   path         of the part: a list of keys and indices
{
  credentials,
  ports,
  handedOver,
}:
path:
let
  inherit (builtins)
    elemAt
    genList
    head
    length
    ;
  inherit (import ./descriptor.nix) dotted;
  drop = n: list: genList (i: elemAt list (n + i)) (length list - n);

  renamed = {
    network.ports = [ "ports" ];
    root.tree = [ "tree" ];
    root.ephemeral = [ "ephemeral" ];
    root.sizeBytes = [ "ephemeralSizeBytes" ];
    system.environment = [ "environment" ];
    system.stop = [ "stop" ];
  };
  section = head path;
  key = elemAt path 1;
  # The store's mount stands before the user's.
  own =
    if section == "mounts" then
      [
        section
        (key - 1)
      ]
    else
      null;
  to = if length path > 1 then renamed.${section}.${toString key} or own else null;
  handed =
    if section == "network" && length path > 2 && key == "ports" then
      elemAt path 2 - length ports
    else
      -1;
in
if path == [ ] then
  "nuc"
else if section == "rootOwned" then
  # Without an index: modules' packages stand between the user's, and what is
  # there twice is left out.
  "nuc.rootOwnedPackages"
else if section == "credentials" && length path > 1 then
  dotted (
    [
      "nuc"
      section
      (elemAt credentials key)
    ]
    ++ drop 2 path
  )
else if handed >= 0 then
  "nuc.handOver: ${(elemAt handedOver handed).unit}.socket: ${elemAt path (length path - 1)}"
else if to == null then
  dotted ([ "nuc" ] ++ path)
else
  dotted ([ "nuc" ] ++ to ++ drop 2 path)
