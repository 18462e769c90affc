# nginx behind NixOS' firewall, with one of its two ports opened.
{ pkgs, ... }:
{
  networking.firewall = {
    enable = true;
    allowedTCPPorts = [ 8080 ];
    rejectPackets = true;
  };
  services.nginx = {
    enable = true;
    virtualHosts.localhost = {
      listen =
        map
          (port: {
            addr = "0.0.0.0";
            inherit port;
          })
          [
            8080
            8081
          ];
      root = pkgs.writeTextDir "index.html" "served from the store";
    };
  };
  nuc.ready.units = [
    "firewall.service"
    "nginx.service"
  ];
}
