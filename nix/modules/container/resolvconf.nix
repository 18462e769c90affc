# The launcher supplies /etc/resolv.conf; openresolv and stage 2 would both
# write over it.
{ lib, options, ... }:
let
  known = import ./known.nix { inherit lib options; };
in
{
  config = lib.mkMerge [
    # container-config.nix sets it, without mkDefault in older releases.
    { networking.useHostResolvConf = lib.mkForce false; }
    (known "networking.resolvconf.enable" (lib.mkDefault false))
  ];
}
