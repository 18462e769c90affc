# nginx with a page that says what the other container's PostgreSQL says:
#   curl http://127.0.0.1:8080
{
  config,
  nucLib,
  pkgs,
  ...
}:
{
  services.nginx = {
    enable = true;
    virtualHosts.localhost.root = "/var/lib/page";
  };

  systemd.services.page = {
    description = "Page from the database";
    startAt = "*:*:0/10";
    path = [ pkgs.postgresql ];
    # The link is at the name of the other container.
    script = ''
      psql -h db -U web -Atc "select 'PostgreSQL says that it is ' || now()" web >$STATE_DIRECTORY/new
      mv $STATE_DIRECTORY/new $STATE_DIRECTORY/index.html
    '';
    serviceConfig = {
      Type = "oneshot";
      StateDirectory = "page";
    };
  };

  nuc.links = [
    {
      listen = 5432;
      to = "db";
    }
  ];
  nuc.dependsOn = [ "db" ];
  nuc.ports = nucLib.ports.forward 8000 (nucLib.ports.nginx config);
  nuc.ready.units = [ "nginx.service" ];

  system.stateVersion = "26.05";
}
