# A Debian tree and odd but good values.
{
  version = 1;
  name = "0-tree";
  system = {
    init = "/usr/lib/systemd/systemd";
    arguments = [ "--log-level=debug" ];
    environment = {
      LANG = "C.UTF-8";
      "WITH SPACE" = "é\n";
    };
    ttyGroup = 5;
    stop.signal = "SIGRTMIN+4";
  };
  root.tree = "/srv/trees/debian-13";
  mounts = [
    {
      source = "/";
      target = "/srv/..hidden";
      recursive = true;
      optional = true;
    }
  ];
  credentials = [
    {
      name = "db password";
      file = "/home/ana/.secrets/db";
    }
    {
      name = "tls.key";
      command = [
        "pass"
        "show"
        "tls/key"
      ];
      optional = true;
    }
    {
      name = "token";
      environment = "API_TOKEN";
    }
  ];
  network.ports = [
    {
      host = 80;
      container = 80;
      address = "0.0.0.0";
    }
    {
      host = 80;
      container = 80;
      address = "::";
    }
    {
      host = 81;
      container = 80;
      address = "2001:db8::1";
    }
    {
      host = 8080;
      container = 8080;
      handOver = true;
    }
  ];
  security.seccomp = "off";
  ready = {
    notify = false;
    units = [ "dev-disk-by\\x2dlabel-data.device" ];
    timeoutSeconds = 86400;
  };
}
