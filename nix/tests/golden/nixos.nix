# As nix/modules/container/descriptor.nix writes it.
let
  toplevel = "/nix/store/1kc7qyr6pfb3wj1gqd5z5g5k2yx1gnqv-nixos-system-web-26.05";
in
{
  name = "web";
  system = {
    init = "${toplevel}/init";
    inherit toplevel;
    switch = [
      "${toplevel}/bin/switch-to-configuration"
      "switch"
    ];
    ttyGroup = 3;
    stop = {
      signal = "SIGRTMIN+3";
      timeoutSeconds = 30;
    };
  };
  root = {
    tree = null;
    ephemeral = true;
    sizeBytes = 1073741824;
  };
  mounts = [
    {
      source = "/nix/store";
      target = "/nix/store";
      readOnly = true;
    }
    {
      kind = "tmpfs";
      source = null;
      target = "/var/cache/nginx";
      sizeBytes = 67108864;
    }
  ];
  rootOwned = [ "/nix/store/4yzd4kvvzs5wsjcjjsvdgdpzlmfyngp3-sudo-1.8.22" ];
  devices = [ "/dev/fuse" ];
  ids.count = 65536;
  network = {
    mode = "private";
    ports = [
      {
        host = 15432;
        container = 5432;
      }
      {
        host = 8080;
        container = 80;
        address = "::1";
      }
    ];
  };
  resources = {
    memoryMax = 2147483648;
    cpuQuotaPercent = 150;
    optional = true;
  };
  ready = {
    units = [
      "nginx.service"
      "postgresql.service"
    ];
    timeoutSeconds = 120;
  };
}
