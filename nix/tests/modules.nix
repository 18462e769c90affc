# The modules on a nixpkgs: ordinary configurations evaluate to a descriptor,
# and what can't work is refused with its remedy. Each attribute is what differs
# from what is expected, null where nothing does.
#
#   shims  further modules that an old release needs for today's names
{
  nixpkgs,
  system ? builtins.currentSystem,
  shims ? [ ],
}:
let
  nuc = import ../lib { inherit nixpkgs; };
  lib = import (nixpkgs + "/lib");

  containerOf =
    modules:
    nuc.mkContainer {
      name = "web";
      inherit system;
      modules = shims ++ modules;
    };
  base = {
    # Releases before 20.09 take no newer word than their own.
    system.stateVersion = lib.mkDefault (lib.trivial.release or "18.03");
  };
  # 19.09 and 20.03 run nscd with DynamicUser, and ordinary users' ids since.
  short = {
    nuc.ids.count = 4096;
    systemd.services.nscd.serviceConfig.DynamicUser = lib.mkForce false;
  };
  descriptorOf = module: builtins.fromJSON (discard (config module).nuc.descriptor);
  contains = word: s: lib.length (lib.splitString word s) > 1;
  discard = builtins.unsafeDiscardStringContext;

  expect = expected: got: if expected == got then null else { inherit expected got; };
  # A whole configuration: its toplevel's derivation and its descriptor.
  evaluates =
    module:
    let
      container = containerOf [
        base
        module
      ];
    in
    expect true (
      lib.hasSuffix ".drv" (discard container.toplevel.drvPath)
      && lib.hasSuffix "nuc-web.json.drv" (discard container.descriptor.drvPath)
    );
  config =
    module:
    (containerOf [
      base
      module
    ]).config;
  failed = module: map (a: a.message) (lib.filter (a: !a.assertion) (config module).assertions);
  # Refused by exactly one of nuc's assertions, whose message has these words.
  refused =
    words: module:
    let
      messages = lib.filter (lib.hasPrefix "nuc: ") (failed module);
    in
    if lib.length messages == 1 && lib.all (word: contains word (lib.head messages)) words then
      null
    else
      {
        expected = words;
        got = messages;
      };
in
{
  empty = evaluates { };
  postgresql = evaluates { services.postgresql.enable = true; };
  nginx = evaluates {
    services.nginx = {
      enable = true;
      virtualHosts.localhost.root = "/var/www";
    };
  };
  openssh = evaluates { services.openssh.enable = true; };
  redis = evaluates (
    if lib.versionAtLeast (lib.trivial.release or "18.03") "22.05" then
      { services.redis.servers."".enable = true; }
    else
      { services.redis.enable = true; }
  );
  hardened = evaluates {
    systemd.services.hardened = {
      wantedBy = [ "multi-user.target" ];
      script = "exec sleep infinity";
      serviceConfig = {
        DynamicUser = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProtectKernelTunables = true;
        ProtectSystem = "strict";
        SystemCallFilter = "@system-service";
      };
    };
  };
  firewall = evaluates { networking.firewall.enable = true; };
  sudo = evaluates {
    security.sudo.enable = true;
    users.users.ana = {
      isNormalUser = true;
      extraGroups = [ "wheel" ];
    };
  };
  nix = evaluates { nuc.nix.enable = true; };
  immutableUsers = evaluates (
    { options, ... }:
    {
      config = lib.mkMerge [
        { users.mutableUsers = false; }
        # 18.03 has no word for a system that nobody is locked out of.
        (lib.optionalAttrs (!(options.users ? allowNoPasswordLogin)) {
          users.users.root.hashedPassword = "$6$nuc$not.a.hash.of.any.password";
        })
      ];
    }
  );
  userborn = evaluates (
    { options, ... }:
    {
      config = lib.optionalAttrs (options.services ? userborn) { services.userborn.enable = true; };
    }
  );
  # Sockets have no port since 23.05.
  nginxOnASocket =
    let
      c = config {
        services.nginx = {
          enable = true;
          virtualHosts.localhost.listen = [
            { addr = "unix:/run/nginx/nginx.sock"; }
            {
              addr = "127.0.0.1";
              port = 8080;
            }
          ];
        };
      };
    in
    if lib.versionOlder (lib.trivial.release or "18.03") "23.05" then
      null
    else
      expect [ 8080 ] (nuc.ports.nginx c);
  example = evaluates ../../examples/postgresql-nginx/configuration.nix;
  templateDefault = evaluates ../../templates/default/configuration.nix;
  templateDevshell = evaluates ../../templates/devshell/configuration.nix;
  exampleOfTwoDb = evaluates ../../examples/two-containers/db.nix;
  exampleOfTwoWeb = evaluates ../../examples/two-containers/web.nix;
  exampleOfTwoLinks =
    let
      c = config ../../examples/two-containers/web.nix;
      d = builtins.fromJSON (discard c.nuc.descriptor);
    in
    expect
      {
        links = [
          {
            listen = 5432;
            to = "db";
            count = 1;
            protocol = "tcp";
          }
        ];
        dependsOn = [ "db" ];
        db = [ "db" ];
      }
      {
        inherit (d) dependsOn links;
        db = c.networking.hosts."127.123.220.37";
      };
  examplePorts = expect [
    15432
    8080
  ] (
    map (port: port.host) (descriptorOf ../../examples/postgresql-nginx/configuration.nix).network.ports
  );

  profile =
    let
      c = config { };
      unit = name: c.systemd.services.${name}.enable;
    in
    expect
      {
        hostName = "web";
        firewall = false;
        dhcp = false;
        console = "/dev/console";
        getty = [
          false
          false
          false
        ];
        container = true;
      }
      {
        inherit (c.networking) hostName;
        firewall = c.networking.firewall.enable;
        dhcp = c.networking.useDHCP;
        inherit (c.services.journald) console;
        getty = map unit [
          "console-getty"
          "container-getty@"
          "getty@"
        ];
        container = c.boot.isContainer;
      };
  # A profile gives way to the configuration.
  configurationWins = expect "other" (config {
    networking.hostName = "other";
    networking.firewall.enable = true;
  }).networking.hostName;

  descriptor =
    let
      d = descriptorOf {
        nuc = {
          ports = [
            {
              host = 8080;
              container = 80;
            }
          ];
          mounts = [
            {
              source = "/home/ana/project";
              target = "/srv/project";
            }
          ];
          devices = [ "/dev/fuse" ];
          resources.memoryMax = 1073741824;
          ready.units = [ "nginx.service" ];
          ephemeral = true;
          environment.LANG = "C.UTF-8";
        };
      };
    in
    expect
      {
        name = "web";
        ttyGroup = 3;
        environment.LANG = "C.UTF-8";
        init = "${d.system.toplevel}/init";
        root.ephemeral = true;
        mounts = [
          {
            source = "/nix/store";
            target = "/nix/store";
            readOnly = true;
          }
          {
            kind = "bind";
            source = "/home/ana/project";
            target = "/srv/project";
            readOnly = false;
            recursive = false;
            optional = false;
          }
        ];
        ports = [
          {
            host = 8080;
            container = 80;
            count = 1;
            protocol = "tcp";
            address = "127.0.0.1";
            proxyProtocol = false;
            handOver = false;
            socketActivation = false;
          }
        ];
        resources = {
          memoryMax = 1073741824;
          optional = false;
        };
        devices = [ "/dev/fuse" ];
        units = [ "nginx.service" ];
      }
      {
        inherit (d)
          devices
          mounts
          name
          resources
          root
          ;
        inherit (d.system) environment init ttyGroup;
        inherit (d.network) ports;
        inherit (d.ready) units;
      };
  network = expect {
    mode = "private";
    outbound = true;
    hostLoopback = true;
    allow = [ "10.0.0.0/8" ];
    mtu = 1500;
    dns = [ "9.9.9.9" ];
    hosts.mail = "192.0.2.25";
  } (descriptorOf {
    nuc.network = {
      outbound = true;
      hostLoopback = true;
      allow = [ "10.0.0.0/8" ];
      mtu = 1500;
      dns = [ "9.9.9.9" ];
      hosts.mail = "192.0.2.25";
    };
  }).network;
  hostNetwork = expect { mode = "host"; } (descriptorOf { nuc.network.mode = "host"; }).network;
  seccomp =
    expect
      [
        { seccomp = "off"; }
        false
      ]
      [
        (descriptorOf { nuc.security.seccomp = "off"; }).security
        ((descriptorOf { }) ? security)
      ];
  handOver =
    expect
      [
        [
          "127.0.0.1"
          8080
        ]
        [
          "::1"
          8080
        ]
      ]
      (
        map
          (port: [
            port.address
            port.host
          ])
          (descriptorOf {
            nuc.handOver = [ "echo" ];
            systemd.sockets.echo = {
              wantedBy = [ "sockets.target" ];
              listenStreams = [
                "127.0.0.1:8080"
                "[::1]:8080"
              ];
            };
          }).network.ports
      );
  # As docs/nix.md has it. The socket unit of older releases listens at every
  # address whatever is said.
  handOverOfSshd = expect [ 2222 ] (
    if lib.versionOlder (lib.trivial.release or "18.03") "20.03" then
      [ 2222 ]
    else
      map (port: port.host)
        (descriptorOf {
          services.openssh = {
            enable = true;
            startWhenNeeded = true;
            listenAddresses = [
              {
                addr = "127.0.0.1";
                port = 2222;
              }
            ];
          };
          nuc.handOver = [ "sshd" ];
        }).network.ports
  );
  handOverAtEveryAddress = refused [ "echo.socket" "8080" "127.0.0.1:8080" ] {
    nuc.handOver = [ "echo" ];
    systemd.sockets.echo.listenStreams = [ "8080" ];
  };

  # The launcher's checks, named by option.
  problem =
    let
      message = (containerOf [
        base
        {
          nuc.mounts = [
            {
              source = "/a";
              target = "/proc/a";
            }
          ];
        }
      ]).config.nuc.descriptor;
    in
    expect false (builtins.tryEval message).success;

  kernelModules = refused [
    "wireguard"
    "nuc.host.kernelModules"
  ] {
    boot.kernelModules = [ "wireguard" ];
  };
  kernelModulesOfTheHost = expect [ ] (failed {
    boot.kernelModules = [ "wireguard" ];
    nuc.host.kernelModules = [ "wireguard" ];
  });
  sysctl = refused [
    "vm.overcommit_memory"
    "nuc.host.sysctls"
  ] {
    boot.kernel.sysctl = {
      "vm.overcommit_memory" = 1;
      "net.core.somaxconn" = 512;
    };
  };
  swap = refused [
    "/swapfile"
    "remove"
  ] { swapDevices = [ { device = "/swapfile"; } ]; };
  blockDevice = refused [
    "/data"
    "nuc.mounts"
  ] {
    fileSystems."/data" = {
      device = "/dev/sdb1";
      fsType = "ext4";
    };
  };
  tmpfsIsFine = expect [ ] (failed {
    fileSystems."/data" = {
      device = "tmpfs";
      fsType = "tmpfs";
    };
  });
  # Releases disagree on whether it is a swap device besides.
  zram = expect true (
    lib.any (contains "zramSwap.enable can't be used") (failed { zramSwap.enable = true; })
  );
  extraModulePackages = refused [ "boot.extraModulePackages" "hello" ] (
    { pkgs, ... }:
    {
      boot.extraModulePackages = [ pkgs.hello ];
    }
  );
  sysctlOfTheHost = expect [ ] (failed {
    boot.kernel.sysctl."vm.overcommit_memory" = 1;
    nuc.host.sysctls = [ "vm.overcommit_memory" ];
  });
  # A failed assertion ends an evaluation, and is not only listed.
  refusedIsNotBuilt = expect false (
    builtins.tryEval (containerOf [
      base
      { swapDevices = [ { device = "/swapfile"; } ]; }
    ]).toplevel.drvPath
  ).success;
  dynamicUser = refused [ "DynamicUser" "nuc.ids.count" "worker" ] {
    imports = [ short ];
    systemd.services.worker = {
      script = "true";
      serviceConfig.DynamicUser = true;
    };
  };
  shortRange = expect [ ] (failed short);
  idBeyondTheRange = refused [
    "users.users.ana.uid = 5000"
    "nuc.ids.count"
  ] {
    imports = [ short ];
    users.users.ana = {
      isNormalUser = true;
      uid = 5000;
    };
  };

  realtimeIsSaid =
    let
      module = {
        systemd.services.audio = {
          script = "true";
          serviceConfig.CPUSchedulingPolicy = "rr";
        };
      };
      said = c: lib.any (contains "systemd.services.audio: CPUSchedulingPolicy") c.warnings;
    in
    expect
      {
        neutralised = true;
        kept = false;
        packages = true;
      }
      {
        neutralised = said (config module);
        kept = said (config {
          imports = [ module ];
          nuc.realtime = "keep";
        });
        packages = lib.any (p: contains "nuc-ordinary-scheduling" (discard "${p}")) (
          config module
        ).systemd.packages;
      };

  sandboxFallback =
    let
      c = config {
        nuc.sandboxFallback.units = [
          "worker"
          "systemd-networkd"
        ];
        systemd.services.worker = {
          script = "true";
          serviceConfig.ProtectProc = "invisible";
        };
      };
    in
    expect
      {
        failed = [ ];
        packages = true;
      }
      {
        failed = map (a: a.message) (lib.filter (a: !a.assertion) c.assertions);
        packages = lib.any (p: contains "nuc-sandbox-fallback" (discard "${p}")) c.systemd.packages;
      };
  sandboxFallbackOfASuffix = refused [ "worker.service" "write worker" ] {
    nuc.sandboxFallback.units = [ "worker.service" ];
    systemd.services.worker.script = "true";
  };
  sandboxFallbackOfNone = refused [ "wroker" "correct the name" ] {
    nuc.sandboxFallback.units = [ "wroker" ];
    systemd.services.worker.script = "true";
  };

  credentials =
    expect
      [
        {
          name = "a";
          environment = "API_TOKEN";
        }
        {
          name = "db-password";
          command = [
            "pass"
            "show"
            "db"
          ];
          optional = true;
        }
        {
          name = "key";
          file = "/home/ana/key";
        }
        {
          name = "path";
          file = "/home/ana/path";
        }
      ]
      (descriptorOf {
        nuc.credentials = {
          key.file = "/home/ana/key";
          path.file = /home/ana/path;
          db-password = {
            command = [
              "pass"
              "show"
              "db"
            ];
            optional = true;
          };
          a.environment = "API_TOKEN";
        };
      }).credentials;
  credentialInTheStore =
    refused
      [ "nuc.credentials.<name>.file is in the Nix store" "key, other:" "name a file outside, in quotes" ]
      (
        { pkgs, ... }:
        {
          nuc.credentials = {
            key.file = "${builtins.storeDir}/00000000000000000000000000000000-source/key";
            other.file = pkgs.hello;
            good.file = "/etc/nix/storeroom";
          };
        }
      );
  credentialFromTwoPlaces = expect false (builtins.tryEval (descriptorOf {
    nuc.credentials.db = {
      file = "/home/ana/key";
      environment = "A";
    };
  })).success;

  nixInside =
    let
      d = descriptorOf { nuc.nix.enable = true; };
    in
    expect true (lib.any (m: m.target == "/nix/var/nix/daemon-socket") d.mounts);

  rootOwned =
    let
      old = lib.versionOlder (lib.getVersion (containerOf [ base ]).pkgs.sudo) "1.9.13";
    in
    expect old (lib.any (contains "-sudo-") ((descriptorOf { }).rootOwned or [ ]));

  # mkShell of nixpkgs itself, with a hook that has the descriptor built.
  shell =
    let
      container = containerOf [
        base
        (
          { config, nucLib, ... }:
          {
            services.postgresql.enable = true;
            nuc.ports = nucLib.ports.forward 10000 (nucLib.ports.postgresql config);
            nuc.env = nucLib.env.postgresql config;
          }
        )
      ];
      shell = nuc.mkShell {
        containers = [ container ];
        nuc = container.pkgs.hello;
        PGUSER = "ana";
      };
    in
    expect
      {
        env = {
          PGHOST = "127.0.0.1";
          PGPORT = "15432";
        };
        derivation = true;
        exports = true;
        builds = true;
        user = "ana";
      }
      {
        inherit (container) env;
        derivation = lib.hasSuffix ".drv" (discard shell.drvPath);
        exports = lib.hasPrefix "export PGHOST=127.0.0.1\nexport PGPORT=15432\n" (discard shell.shellHook);
        builds = lib.any (lib.hasSuffix "-nuc-web.json.drv") (
          builtins.attrNames (builtins.getContext shell.shellHook)
        );
        user = shell.PGUSER;
      };
}
