# All of the network: links, ranges, the way out.
{
  name = "linked";
  system.init = "/sbin/init";
  root.tree = "/srv/trees/debian-13";
  network = {
    mode = "private";
    outbound = true;
    hostLoopback = true;
    allow = [
      "10.0.0.0/8"
      "192.0.2.1:53/udp"
      "[2001:db8::/32]:443"
      "example.org:443/tcp"
    ];
    mtu = 1500;
    dns = [
      "9.9.9.9"
      "2620:fe::fe"
    ];
    hosts."mail.example.org" = "192.0.2.25";
    ports = [
      {
        host = 0;
        container = 80;
      }
      {
        host = 8000;
        container = 9000;
        count = 11;
        protocol = "udp";
      }
      {
        host = 0;
        container = 8080;
        count = 2;
      }
      {
        host = 8443;
        container = 443;
        proxyProtocol = true;
        socketActivation = true;
      }
    ];
    idleStopSeconds = 600;
  };
  links = [
    {
      listen = 5432;
      to = "db";
    }
    {
      listen = 5432;
      to = "archive";
      port = 5433;
      count = 2;
      protocol = "tcp";
      address = null;
    }
    {
      listen = 53;
      to = "dns";
      protocol = "udp";
      address = "127.0.0.53";
    }
  ];
  restart = "on-failure";
  watchdogSeconds = 30;
  dependsOn = [
    "db"
    "mail"
  ];
}
