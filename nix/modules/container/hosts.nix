# The launcher writes /etc/hosts where there is no NixOS: here it is a link to
# the store. Each container that this one is linked to, or depends on, has a
# loopback address of its own, so that two of them can have the same port.
{ config, lib, ... }:
let
  cfg = config.nuc;
  peers = lib.unique (map (link: link.to) cfg.links ++ cfg.dependsOn);
  names = lib.mapAttrsToList (name: address: { ${address} = name; }) (
    cfg.network.hosts // lib.genAttrs peers (import ../../lib/peer.nix)
  );
in
{
  networking.hosts = lib.zipAttrs names;
}
