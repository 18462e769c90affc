# What of nuc.handOver can't be handed over is said when the configuration is
# evaluated; descriptor.nix makes ports of the rest.
{ config, ... }:
{
  assertions = map (problem: {
    assertion = false;
    message = "nuc: nuc.handOver: ${problem}.";
  }) (import ../../lib/sockets.nix config.systemd.sockets config.nuc.handOver).problems;
}
