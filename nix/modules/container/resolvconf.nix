# The launcher supplies /etc/resolv.conf; openresolv and stage 2 would both
# write over it.
{
  config,
  lib,
  options,
  ...
}:
let
  known = import ./known.nix { inherit lib options; };
in
{
  config = lib.mkMerge [
    # container-config.nix sets it, without mkDefault in older releases.
    { networking.useHostResolvConf = lib.mkForce false; }
    (known "networking.resolvconf.enable" (lib.mkDefault false))
    # Before 19.09 activation runs openresolv in any case.
    (lib.optionalAttrs (!(options.networking ? resolvconf)) {
      system.activationScripts.resolvconf = lib.mkIf (!config.services.resolved.enable) (lib.mkForce "");
    })
  ];
}
