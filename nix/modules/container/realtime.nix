# An unprivileged user may not give real-time scheduling, and systemd then fails
# the service (status 211 or 214). Limits beyond the host's, negative Nice and
# OOMScoreAdjust are capped silently and need nothing.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  # Values as systemd.exec(5) has them; 1 is the number of "realtime".
  refused = {
    CPUSchedulingPolicy = [
      "fifo"
      "rr"
    ];
    IOSchedulingClass = [
      "1"
      "realtime"
    ];
  };
  ordinary = {
    CPUSchedulingPolicy = "other";
    IOSchedulingClass = "best-effort";
  };
  found = lib.concatMap (
    name:
    let
      service = config.systemd.services.${name};
      asks = key: lib.elem (toString (service.serviceConfig.${key} or "")) refused.${key};
      keys = lib.filter asks (lib.attrNames refused);
    in
    lib.optional (service.enable && keys != [ ]) { inherit name keys; }
  ) (lib.attrNames config.systemd.services);

  # Drop-ins, since an option can't be defined by its own value.
  dropIns = import ./drop-ins.nix { inherit lib pkgs; } "nuc-ordinary-scheduling" (
    lib.listToAttrs (
      map (
        { name, keys }: lib.nameValuePair name (map (key: "${key}=${ordinary.${key}}") keys)
      ) found
    )
  );
in
lib.mkIf (config.nuc.realtime == "neutralise") {
  systemd.packages = lib.optional (found != [ ]) dropIns;
  warnings = map (
    { name, keys }:
    "nuc: systemd.services.${name}: ${lib.concatStringsSep " and " keys} needs a right that an unprivileged user lacks: the service runs with ordinary scheduling (nuc.realtime)."
  ) found;
}
