{
  services.nginx = {
    enable = true;
    virtualHosts.localhost.locations."/".return = "200 'It works.\n'";
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
