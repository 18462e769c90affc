# The launcher owns the network namespace: nothing to configure, and nobody
# but the launcher's ports reaches it. Turned on, the firewall works in there.
{
  config,
  lib,
  options,
  ...
}:
{
  config = lib.mkMerge [
    {
      networking.firewall.enable = lib.mkDefault false;
      networking.useDHCP = lib.mkDefault false;
    }
    # iptables' modules can't be loaded from a user namespace; nftables' load by
    # themselves at their first use. Releases before 22.11 have the option, but
    # their firewall doesn't use it.
    (lib.optionalAttrs (options.networking.nftables ? flattenRulesetFile) {
      networking.nftables.enable = lib.mkIf config.networking.firewall.enable (lib.mkDefault true);
    })
  ];
}
