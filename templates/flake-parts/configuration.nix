{ pkgs, ... }:
{
  services.nginx = {
    enable = true;
    virtualHosts.localhost.root = pkgs.writeTextDir "index.html" ''
      <!doctype html><title>nuc</title><p>It works.
    '';
  };

  # http://127.0.0.1:8080
  nuc.ports = [
    {
      host = 8080;
      container = 80;
    }
  ];
  nuc.ready.units = [ "nginx.service" ];

  system.stateVersion = "26.05";
}
