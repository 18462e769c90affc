# PostgreSQL, for the shell's user without a password.
{ config, nucLib, ... }:
{
  services.postgresql = {
    enable = true;
    # nuc's port connects from the container's own loopback.
    authentication = "host all all 127.0.0.1/32 trust";
  };

  nuc.ports = nucLib.ports.forward 10000 (nucLib.ports.postgresql config);
  nuc.env = nucLib.env.postgresql config // {
    PGUSER = "postgres";
  };
  nuc.ready.units = [ "postgresql.service" ];

  system.stateVersion = "26.05";
}
