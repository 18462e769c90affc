# The seam between Nix and the launcher: attribute sets to descriptors, with
# builtins only, so that it needs no nixpkgs.
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    isInt
    isList
    listToAttrs
    match
    substring
    toJSON
    typeOf
    ;

  # An option that isn't set is null; a descriptor says nothing then.
  withoutNull =
    v:
    if isList v then
      map withoutNull v
    else if typeOf v == "set" && !(v ? outPath) then
      listToAttrs (
        concatMap (
          name:
          if v.${name} == null then
            [ ]
          else
            [
              {
                inherit name;
                value = withoutNull v.${name};
              }
            ]
        ) (attrNames v)
      )
    else
      v;
in
rec {
  # dotted [ "network" "ports" 0 "host" ] is network.ports[0].host, as the
  # launcher writes it.
  dotted =
    path:
    let
      part =
        key:
        if isInt key then
          "[${toString key}]"
        else if match "[0-9A-Za-z_-]+" key != null then
          ".${key}"
        else
          "[${toJSON key}]";
      joined = concatStringsSep "" (map part path);
    in
    if path == [ ] then
      "descriptor"
    else if match "[.].*" joined != null then
      substring 1 (-1) joined
    else
      joined;

  # problems says what is wrong with a descriptor: a list of lines, empty if
  # nothing that Nix can see is.
  problems = problemsAt dotted;
  problemsAt = at: import ./check.nix { inherit at; };

  # mkDescriptor turns an attribute set, as docs/descriptor.md has it, into the
  # descriptor's text. `version` may be left out, and what is null is left out.
  # All that is wrong is told at once, each with its path.
  mkDescriptor = mkDescriptorAt dotted;

  # mkDescriptorAt lets the caller name the paths: the module names its options.
  mkDescriptorAt =
    at: attributes:
    let
      descriptor =
        if typeOf attributes == "set" then { version = 1; } // withoutNull attributes else attributes;
      found = problemsAt at descriptor;
    in
    if found == [ ] then
      toJSON descriptor
    else
      throw (concatStringsSep "\n" (map (line: "nuc: ${line}") found));
}
