# Opt-in. Most sandboxes work in a container; what needs a fresh procfs or a
# mount for credentials and doesn't get it ends with status 226/NAMESPACE.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (config.nuc.sandboxFallback) units;
  # systemd brings many of its own that no option declares.
  declared = name: config.systemd.services ? ${name} || lib.hasPrefix "systemd-" name;
  withoutSuffix = lib.removeSuffix ".service";
in
{
  # Not systemd.services.NAME, which would make a service of a mistyped name.
  systemd.packages = lib.optional (units != [ ]) (
    import ./drop-ins.nix { inherit lib pkgs; } "nuc-sandbox-fallback" (
      lib.genAttrs units (_: [
        "LoadCredential="
        "ProcSubset=all"
        "ProtectControlGroups=no"
        "ProtectKernelTunables=no"
        "ProtectProc=default"
      ])
    )
  );
  assertions = map (
    name:
    if lib.hasSuffix ".service" name then
      {
        assertion = false;
        message = "nuc: nuc.sandboxFallback.units: ${name}: names are without their suffix: write ${withoutSuffix name}.";
      }
    else
      {
        assertion = declared name;
        message = "nuc: nuc.sandboxFallback.units: ${name}: nothing else declares systemd.services.${name}: correct the name, or declare it as { } if a package of systemd.packages brings it.";
      }
  ) units;
}
