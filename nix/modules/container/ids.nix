# nobody and nogroup stay 65534 for any range, as the launcher maps that id even
# when a short range doesn't reach it. Only a single id leaves it unmapped: it is
# then what the kernel shows for every file of the host, and can be nobody's.
{ config, lib, ... }:
let
  inherit (config.nuc.ids) count;
  mapped = id: id == null || id < count || (id == 65534 && count > 1);

  # Builds run on the host; NixOS declares their group in any case.
  builds = entry: entry.name == "nixbld" || (entry.group or "") == "nixbld";

  # The ids that a configuration or a module chose; what activation chooses is
  # below 1000, or counts up from there.
  strangers =
    name: key: entries:
    map (entry: "${name}.${entry.name}.${key} = ${toString entry.${key}}") (
      lib.filter (entry: !mapped entry.${key} && !builds entry) (lib.attrValues entries)
    );
  found =
    strangers "users.users" "uid" config.users.users
    ++ strangers "users.groups" "gid" config.users.groups;
in
{
  assertions = [
    {
      assertion = found == [ ];
      message = "nuc: ids that nuc.ids.count = ${toString count} doesn't map: ${lib.concatStringsSep ", " found}: raise nuc.ids.count, or choose smaller ids.";
    }
  ];
}
