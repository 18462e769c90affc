# What a NixOS configuration needs to run in a user namespace, one weird bit a
# file. A configuration that imports this works nowhere else.
{
  imports = [
    ./options.nix
    ./descriptor.nix
    ./assertions.nix
    ./firewall.nix
    ./hand-over.nix
    ./hostname.nix
    ./hosts.nix
    ./ids.nix
    ./journal.nix
    ./login.nix
    ./nix.nix
    ./own-sandboxes.nix
    ./profile.nix
    ./realtime.nix
    ./resolvconf.nix
    ./sandbox-fallback.nix
    ./special-file-systems.nix
    ./store-ownership.nix
    ./switch.nix
    ./wrappers.nix
  ];

  _module.args.nucLib = import ../../lib { };
}
