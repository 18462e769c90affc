# The launcher owns the network namespace: nothing to configure, and nobody
# but the launcher's ports reaches it. Turned on, nftables works in there.
{ lib, options, ... }:
let
  known = import ./known.nix { inherit lib options; };
in
{
  config = lib.mkMerge [
    {
      networking.firewall.enable = lib.mkDefault false;
      networking.useDHCP = lib.mkDefault false;
    }
    # A user namespace can't load ip_tables; nftables' modules load by themselves
    # at their first use. 18.03 has the option but not a firewall made with it.
    (lib.optionalAttrs (options.networking ? nftables && options.networking.nftables ? tables) (
      known "networking.nftables.enable" (lib.mkDefault true)
    ))
  ];
}
