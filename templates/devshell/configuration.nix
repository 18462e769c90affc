{ config, nucLib, ... }:
{
  services.postgresql = {
    enable = true;
    # nuc's port connects from the container's own loopback.
    authentication = "host all all 127.0.0.1/32 trust";
  };

  # 5432 on port 15432 of the host
  nuc.ports = nucLib.ports.forward 10000 (nucLib.ports.postgresql config);
  # PGHOST, PGPORT and PGUSER in the shell
  nuc.env = nucLib.env.postgresql config // {
    PGUSER = "postgres";
  };
  nuc.ready.units = [ "postgresql.service" ];

  system.stateVersion = "26.05";
}
