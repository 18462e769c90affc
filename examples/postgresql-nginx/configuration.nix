# Ordinary NixOS, and what of it the host reaches:
#   psql -h 127.0.0.1 -p 15432 -U postgres
#   curl http://127.0.0.1:8080
{
  config,
  nucLib,
  pkgs,
  ...
}:
{
  services.postgresql = {
    enable = true;
    # nuc's port connects from the container's own loopback.
    authentication = "host all all 127.0.0.1/32 trust";
  };

  services.nginx = {
    enable = true;
    virtualHosts.localhost.root = pkgs.writeTextDir "index.html" ''
      <!doctype html><title>nuc</title><p>It works.
    '';
  };

  nuc.ports =
    nucLib.ports.forward 10000 (nucLib.ports.postgresql config)
    ++ nucLib.ports.forward 8000 (nucLib.ports.nginx config);
  nuc.ready.units = [
    "nginx.service"
    "postgresql.service"
  ];

  system.stateVersion = "26.05";
}
