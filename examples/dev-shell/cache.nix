# Redis, which forgets everything when it stops.
{ config, nucLib, ... }:
{
  services.redis.servers."" = {
    enable = true;
    save = [ ];
  };

  nuc.ephemeral = true;
  nuc.ports = nucLib.ports.forward 10000 (nucLib.ports.redis config);
  nuc.env = nucLib.env.redis config;
  nuc.ready.units = [ "redis.service" ];

  system.stateVersion = "26.05";
}
