# Tests of nix/lib without nixpkgs: each attribute is what differs from what is
# expected, null where nothing does.
let
  nuc = import ../lib { };
  expect = expected: got: if expected == got then null else { inherit expected got; };
  throws = value: !(builtins.tryEval (builtins.deepSeq value value)).success;

  base = {
    name = "web";
    system.init = "/init";
  };
  # The only problem of a descriptor with this in it.
  refused = attributes: line: expect [ line ] (nuc.problems ({ version = 1; } // base // attributes));

  taken =
    rule:
    { good, bad }:
    expect good (builtins.filter (s: rules.${rule} s == null) (good ++ bad));
  rules = import ../lib/rules.nix;

  # As a NixOS configuration looks to the functions of ports.
  config.services = {
    postgresql.settings.port = 5433;
    nginx = {
      defaultHTTPListenPort = 80;
      defaultSSLListenPort = 443;
      virtualHosts = {
        plain = { };
        secure.forceSSL = true;
        onlySecure.onlySSL = true;
        other.listen = [
          {
            addr = "0.0.0.0";
            port = 8081;
          }
        ];
      };
    };
    openssh.ports = [
      22
      2222
    ];
    redis.servers = {
      "" = {
        enable = true;
        port = 6379;
      };
      socket = {
        enable = true;
        port = 0;
      };
      off = {
        enable = false;
        port = 6380;
      };
    };
  };

  outputs =
    folder:
    let
      pkgs = {
        postgresql = "postgresql";
        redis = "redis";
        mkShell = arguments: arguments;
      };
    in
    (import (folder + "/flake.nix")).outputs {
      nixpkgs = {
        legacyPackages.x86_64-linux = pkgs;
        legacyPackages.aarch64-linux = pkgs;
        lib.genAttrs =
          names: value:
          builtins.listToAttrs (
            map (name: {
              inherit name;
              value = value name;
            }) names
          );
      };
      nuc = {
        lib = nuc // {
          mkContainer =
            arguments: arguments // shellOf arguments.name (head arguments.modules) // { apps = { }; };
        };
        packages.x86_64-linux.nuc = "nuc";
        flakeModules.default = { };
      };
      flake-parts.lib.mkFlake = _: module: module;
    };

  # What a shell takes of a container, with the variables that its file says.
  shellOf =
    name: module:
    let
      services = config.services // {
        postgresql = { };
      };
      nothing = throw "a package was asked for";
      said = import module {
        nucLib = nuc;
        lib.mkForce = text: text;
        pkgs = nothing;
        config = {
          inherit services;
          inherit (said) nuc;
        };
      };
    in
    {
      descriptor = "/nix/store/xxx-nuc-${name}.json";
      nuc = "/nix/store/yyy-nuc";
      env = said.nuc.env or { };
    };
  a = {
    name = "a";
    descriptor = "/nix/store/xxx-a.json";
    nuc = "/nix/store/yyy-nuc";
    env = {
      PGHOST = "127.0.0.1";
      WORDS = "it's $HOME \"1\"";
    };
  };
  b = {
    name = "b";
    descriptor = "/nix/store/with a space.json";
    nuc = "/nix/store/zzz-nuc";
    env.PGHOST = "127.0.0.1";
  };
  up =
    flags:
    "HOME=\${HOME-~} PATH=$PATH:/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/bin:/usr/bin:/bin /nix/store/yyy-nuc/bin/nuc up${flags} </dev/null >&2 || :\n";
  inherit (builtins) head;
  envOf =
    ports:
    nuc.env.postgresql {
      inherit (config) services;
      nuc.ports = ports;
    };

  apps = nuc.mkApps {
    name = "web";
    descriptor = "/nix/store/xxx-nuc-web.json";
    nuc = "/nix/store/yyy-nuc";
    pkgs = {
      runtimeShell = "/bin/sh";
      writeScript = _: text: text;
    };
  };
  command = app: builtins.elemAt (builtins.split "\n" app.program) 2;
in
{
  versionIsAdded =
    expect
      {
        version = 1;
        name = "web";
        system.init = "/init";
      }
      (builtins.fromJSON (nuc.mkDescriptor base));
  nullIsLeftOut = expect (nuc.mkDescriptor base) (
    nuc.mkDescriptor (
      base
      // {
        root = null;
      }
    )
  );
  derivationIsItsPath =
    expect [ "/nix/store/00000000000000000000000000000000-x" ]
      (builtins.fromJSON (
        nuc.mkDescriptor (
          base
          // {
            rootOwned = [
              {
                type = "derivation";
                outPath = "/nix/store/00000000000000000000000000000000-x";
              }
            ];
          }
        )
      )).rootOwned;

  port = refused {
    network.ports = [
      {
        host = 70000;
        container = 80;
      }
    ];
  } "network.ports[0].host: 70000: expected an integer from 0 to 65535";
  unknownKey =
    refused { colour = "red"; }
      "colour: \"red\": expected a known key: one of credentials, dependsOn, devices, ids, links, mounts, name, network, ready, resources, restart, root, rootOwned, security, system, version, watchdogSeconds";
  wrongType = refused { ready.units = "nginx.service"; } "ready.units: \"nginx.service\": expected a list";
  function = refused { devices = [ (x: x) ]; } "devices[0]: a lambda: expected a string";
  suffix = refused {
    ready.units = [ "nginx" ];
  } "ready.units[0]: \"nginx\": expected a unit's name with its suffix: write nginx.service";
  newerVersion = refused { version = 2; } "version: 2: expected 1";
  notAnAttributeSet = expect [ "descriptor: 1: expected an attribute set" ] (nuc.problems 1);
  everyAddress =
    refused
      {
        network.ports = [
          {
            host = 80;
            container = 80;
          }
          {
            host = 80;
            container = 81;
            address = "0.0.0.0";
          }
        ];
      }
      "network.ports[1].host: 80: expected a port that is declared once at its address: choose another port, or another address";
  allAtOnce = expect 3 (
    builtins.length (
      nuc.problems {
        version = 1;
        name = "A";
        system.init = "init";
        devices = [ "sda" ];
      }
    )
  );
  badDescriptorThrows = expect true (throws (nuc.mkDescriptor { name = "web"; }));

  # What of a list the rule takes.
  addresses = taken "address" {
    good = [
      "0.0.0.0"
      "127.0.0.1"
      "255.255.255.255"
      "::"
      "::1"
      "1::"
      "2001:db8:1:2:3:4:5:6"
      "fe80::1:2"
      "::ffff:192.0.2.1"
      "1:2:3:4:5:6:192.0.2.1"
    ];
    bad = [
      ""
      "1.2.3"
      "1.2.3.4.5"
      "256.0.0.1"
      "01.2.3.4"
      ":::"
      "1::2::3"
      "1:2:3:4:5:6:7"
      "1:2:3:4:5:6:7:8:9"
      "1:2:3:4:5:6:7::8"
      "12345::"
      ":1"
      "1:"
      "::1.2.3.4:5"
      "localhost"
      "fe80::1%eth0"
    ];
  };
  devices = taken "device" {
    good = [
      "/dev/fuse"
      "/dev/net/tun"
      "/dev/consoles"
    ];
    bad = map (name: "/dev/${name}") [
      "console"
      "kmsg"
      "mqueue"
      "ptmx"
      "pts/0"
      "shm"
      ""
    ];
  };
  paths = taken "path" {
    good = [
      "/"
      "/a"
      "/a/..b/.c/d..."
    ];
    bad = [
      ""
      "a"
      "/a/"
      "//a"
      "/a//b"
      "/."
      "/.."
      "/a/../b"
      "/a/./b"
    ];
  };

  hostNames = taken "hostName" {
    good = [
      "db"
      "3com"
      "a_b.example-1.org"
    ];
    bad = [
      ""
      "."
      "a."
      "-a"
      "a-.b"
      "a b"
      "Db"
      "10.0.0.1"
      "a.1"
      "localhost"
    ];
  };
  allowed = taken "allow" {
    good = [
      "192.0.2.1"
      "10.0.0.0/8"
      "0.0.0.0/0"
      "192.0.2.1/32"
      "10.0.0.0/8:443"
      "192.0.2.1:53/udp"
      "2001:DB8::1"
      "2001:db8::/32"
      "[2001:db8::1]:65535"
      "[::/0]:443/tcp"
      "example.org:443"
      "_srv.example-1.org:1/udp"
    ];
    bad = [
      ""
      " 10.0.0.1"
      "example.org"
      "10.0.0.256"
      "10.0.0.256:80"
      "*.example.org:443"
      "Example.org:443"
      "https://example.org"
      "example.org:"
      "example.org:https"
      "10.0.0.1:0"
      "10.0.0.1:65536"
      "10.0.0.1:080"
      "10.0.0.1:80-90"
      "10.0.0.1:80/sctp"
      "10.0.0.1:80/"
      "10.0.0.1/tcp"
      "10.0.0.1/8"
      "10.0.0.1/8:443"
      "10.0.0.0/33"
      "10.0.0.0/"
      "10.0.0.0/08"
      "2001:db8::/32:443"
      "2001:db8::/129"
      "fe80::1%eth0"
      "::ffff:192.0.2.1"
      "[2001:db8::1"
      "[2001:db8::1]"
      "[2001:db8::1]443"
      "[10.0.0.1]:443"
      "[example.org]:443"
      "[]:443"
      "localhost:5432"
      "127.0.0.0/8:80"
      "[::1]:80"
    ];
  };
  # The launcher's tests hold it against the same file.
  peers =
    let
      addresses = builtins.fromJSON (
        builtins.readFile ../../go/internal/descriptor/testdata/peers.json
      );
    in
    expect addresses (builtins.mapAttrs (name: _: import ../lib/peer.nix name) addresses);

  # All that is wrong with links is told with its path.
  links =
    expect
      [
        "links[1].listen: 80: expected a port that is listened on once at its address: choose another port, or another address"
        "links[2].to: \"web\": expected another container, as this one is web"
        "dependsOn[0]: \"web\": expected another container, as this one is web"
        "network.hosts.db: \"db\": expected no container of links or dependsOn: such a name has its address already: remove it"
      ]
      (
        nuc.problems (
          base
          // {
            version = 1;
            network.hosts.db = "192.0.2.1";
            links = [
              {
                listen = 80;
                to = "db";
                count = 3;
              }
              {
                listen = 80;
                to = "db";
                port = 8080;
              }
              {
                listen = 80;
                to = "web";
              }
            ];
            dependsOn = [ "web" ];
          }
        )
      );
  # What is of a wrong type is told, and breaks nothing.
  linksOfWrongTypes =
    expect
      [
        "links[0].listen: \"80\": expected an integer from 1 to 65535"
        "links[0].to: missing: expected a name of at most 63 lower-case letters, digits and dashes, the first no dash"
        "links[1]: 1: expected an attribute set"
        "network.ports[0].count: \"2\": expected an integer from 1 to 65535"
        "network.ports[0].host: null: expected an integer from 0 to 65535"
        "network.ports[1].address: 1: expected a string"
      ]
      (
        nuc.problems (
          base
          // {
            version = 1;
            links = [
              { listen = "80"; }
              1
            ];
            network.ports = [
              {
                host = null;
                container = 80;
                count = "2";
              }
              {
                host = 80;
                container = 80;
                address = 1;
              }
              {
                host = 80;
                container = 80;
              }
            ];
          }
        )
      );

  optionOfAPart =
    let
      name = import ../lib/option.nix {
        credentials = [ "password" ];
        ports = [
          { }
          { }
        ];
        handedOver = [ { unit = "sshd"; } ];
      };
    in
    expect
      [
        "nuc"
        "nuc.name"
        "nuc.ports[1].host"
        "nuc.handOver: sshd.socket: host"
        "nuc.mounts[0].source"
        "nuc.rootOwnedPackages"
        "nuc.network.mode"
        "nuc.tree"
        "nuc.ephemeralSizeBytes"
        "nuc.environment.LANG"
        "nuc.stop.signal"
        "nuc.links[0].to"
        "nuc.credentials.password.file"
      ]
      (
        map name [
          [ ]
          [ "name" ]
          [
            "network"
            "ports"
            1
            "host"
          ]
          [
            "network"
            "ports"
            2
            "host"
          ]
          [
            "mounts"
            1
            "source"
          ]
          [
            "rootOwned"
            3
          ]
          [
            "network"
            "mode"
          ]
          [
            "root"
            "tree"
          ]
          [
            "root"
            "sizeBytes"
          ]
          [
            "system"
            "environment"
            "LANG"
          ]
          [
            "system"
            "stop"
            "signal"
          ]
          [
            "links"
            0
            "to"
          ]
          [
            "credentials"
            0
            "file"
          ]
        ]
      );
  sockets =
    expect
      {
        ports =
          let
            port = unit: protocol: address: number: {
              inherit address protocol unit;
              host = number;
              container = number;
              handOver = true;
            };
          in
          [
            (port "web" "tcp" "127.0.0.1" 80)
            (port "web" "tcp" "::1" 80)
            (port "dns" "tcp" "127.0.0.1" 53)
            (port "dns" "udp" "127.0.0.1" 53)
          ];
        problems = [
          "sshd.socket listens on port 22 of every address: write 127.0.0.1:22, or [::]:22 if every one is meant"
          "local.socket listens on no port"
          "there is no systemd.sockets.wbe"
        ];
      }
      (
        import ../lib/sockets.nix
          {
            web.listenStreams = [
              "127.0.0.1:80"
              "/run/web.sock"
              "[::1]:080"
            ];
            dns = {
              listenStreams = [ ];
              listenDatagrams = [ "127.0.0.1:53" ];
              socketConfig.ListenStream = [
                9999
                ""
                "127.0.0.1:53"
              ];
            };
            sshd.socketConfig.ListenStream = 22;
            local.listenStreams = [
              "/run/local.sock"
              "@local"
              "vsock:2:80"
            ];
          }
          [
            "web"
            "web.socket"
            "dns"
            "sshd"
            "local"
            "wbe"
          ]
      );

  postgresqlPort = expect [ 5433 ] (nuc.ports.postgresql config);
  nginxPorts = expect [
    443
    8081
    80
  ] (nuc.ports.nginx config);
  nginxPortsLikeTheModule =
    let
      of = nginx: nuc.ports.nginx { services = { inherit nginx; }; };
      one = host: of { virtualHosts.a = host; };
      unix = {
        addr = "unix:/run/a.sock";
        port = null;
      };
      bare = {
        addr = "127.0.0.1";
        port = null;
      };
    in
    expect
      {
        none = [ ];
        unix = [ ];
        unixOfAll = [ ];
        unixAddress = [ ];
        beside = [
          80
          8443
        ];
        bareOfListen = [ 80 ];
        rejected = [
          443
          80
        ];
        onlyRejected = [ 443 ];
        defaultListen = [
          8443
          8080
        ];
        bothOfDefaultListen = [
          4443
          8080
        ];
        sslOfNoSSL = [ ];
        status = [ 8080 ];
        disabledPort = [ 8081 ];
      }
      {
        none = of { virtualHosts = { }; };
        unix = one { listen = [ unix ]; };
        unixOfAll = of {
          virtualHosts.a = { };
          defaultListen = [ unix ];
        };
        unixAddress = one { listenAddresses = [ "unix:/run/a.sock" ]; };
        beside = one {
          listen = [
            unix
            bare
            {
              addr = "[::]";
              port = 8443;
              ssl = true;
            }
          ];
        };
        # nginx itself knows nothing of the module's default.
        bareOfListen = of {
          defaultHTTPListenPort = 8080;
          virtualHosts.a.listen = [ bare ];
        };
        rejected = one { rejectSSL = true; };
        onlyRejected = one {
          onlySSL = true;
          rejectSSL = true;
        };
        defaultListen = of {
          virtualHosts.a.addSSL = true;
          defaultListen = [
            {
              addr = "0.0.0.0";
              port = 8443;
              ssl = true;
            }
            {
              addr = "0.0.0.0";
              port = 8080;
              ssl = false;
            }
          ];
        };
        bothOfDefaultListen = of {
          defaultHTTPListenPort = 8080;
          defaultSSLListenPort = 4443;
          virtualHosts.a.forceSSL = true;
          defaultListen = [
            {
              addr = "0.0.0.0";
              port = null;
              ssl = null;
            }
          ];
        };
        sslOfNoSSL = of {
          virtualHosts.a = { };
          defaultListen = [
            {
              addr = "0.0.0.0";
              ssl = true;
            }
          ];
        };
        status = of {
          statusPage = true;
          defaultHTTPListenPort = 8080;
          virtualHosts = { };
        };
        disabledPort = of {
          defaultHTTPListenPort = 8081;
          virtualHosts.a.listenAddresses = [ "127.0.0.1" ];
        };
      };
  redisPorts = expect [ 6379 ] (nuc.ports.redis config);
  opensshPorts = expect [
    22
    2222
  ] (nuc.ports.openssh config);
  forward = expect [
    {
      host = 8080;
      container = 80;
    }
  ] (nuc.ports.forward 8000 [ 80 ]);

  envPostgresql =
    expect
      {
        PGHOST = "127.0.0.1";
        PGPORT = "15433";
      }
      (
        envOf [
          {
            host = 8080;
            container = 80;
          }
          {
            host = 15433;
            container = 5433;
          }
        ]
      );
  # In a range, and on every address.
  envOfRange =
    expect
      {
        PGHOST = "::1";
        PGPORT = "7003";
      }
      (
        envOf [
          {
            host = 7000;
            container = 5430;
            count = 10;
            address = "::";
            protocol = "tcp";
          }
        ]
      );
  envRedis = expect { REDIS_URL = "redis://[::1]:16379"; } (
    nuc.env.redis {
      inherit (config) services;
      nuc.ports = [
        {
          host = 16379;
          container = 6379;
          address = "::1";
        }
      ];
    }
  );
  envWithoutPort = expect true (throws (envOf [ ]));
  envOfOtherProtocol = expect true (
    throws (envOf [
      {
        host = 1;
        container = 5433;
        protocol = "udp";
      }
    ])
  );
  envOfChosenPort = expect true (
    throws (envOf [
      {
        host = 0;
        container = 5433;
      }
    ])
  );

  hook = expect (
    "export PGHOST=127.0.0.1\nexport WORDS='it'\\''s $HOME \"1\"'\n"
    + up " --detach --lease shell /nix/store/xxx-a.json '/nix/store/with a space.json'"
  ) (nuc.shellHook [ a b ]);
  hookOfSet = expect (nuc.shellHook [ a b ]) (nuc.shellHook { inherit a b; });
  hookWaits =
    expect (up " --lease shell --keep 60s /nix/store/xxx-a.json")
      (nuc.shellHook {
        containers = [ (removeAttrs a [ "env" ]) ];
        wait = true;
        keepSeconds = 60;
      });
  hookKeepsAlive = expect (up " --detach /nix/store/xxx-a.json") (
    nuc.shellHook {
      containers = [ (a // { env = { }; }) ];
      keepAlive = true;
    }
  );
  hookRefuses = expect [ ] (
    builtins.filter (given: !throws (nuc.shellHook given)) [
      [ ]
      { }
      a
      "a"
      [ "a" ]
      [ (removeAttrs a [ "nuc" ]) ]
      [ (a // { env."A-B" = "c"; }) ]
      [ (a // { env.A = 1; }) ]
      [
        a
        (b // { env.PGHOST = "::1"; })
      ]
      {
        containers = [ a ];
        weit = true;
      }
      {
        containers = [ a ];
        keepSeconds = -1;
      }
      {
        containers = [ a ];
        keepSeconds = 1;
        keepAlive = true;
      }
    ]
  );
  shell =
    expect
      {
        nativeBuildInputs = [
          "psql"
          "/nix/store/yyy-nuc"
        ];
        PGHOST = "db";
        env.WORDS = "mine";
        shellHook = up " --detach --lease shell /nix/store/xxx-a.json" + "echo hello";
      }
      (
        nuc.mkShell {
          pkgs.mkShell = arguments: arguments;
          containers = [ a ];
          packages = [ "psql" ];
          PGHOST = "db";
          env.WORDS = "mine";
          shellHook = "echo hello";
        }
      );

  appNames = expect (map (name: "container-${name}") [
    "build"
    "link"
    "login"
    "logs"
    "rollback"
    "start"
    "status"
    "stop"
    "switch"
  ]) (builtins.attrNames apps);
  appStart = expect ''exec /nix/store/yyy-nuc/bin/nuc start /nix/store/xxx-nuc-web.json "$@"'' (
    command apps.container-start
  );
  appLogin = expect ''exec /nix/store/yyy-nuc/bin/nuc login web "$@"'' (command apps.container-login);
  appBuild = expect "echo /nix/store/xxx-nuc-web.json" (command apps.container-build);
  appType = expect "app" apps.container-start.type;
  appPrefix = expect true (
    nuc.mkApps {
      name = "web";
      descriptor = "";
      nuc = "";
      pkgs.stdenv.shell = "";
      prefix = "web";
    } ? web-start
  );

  # A template's outputs, with the functions of a nuc that evaluates nothing.
  templateDefault = expect "web" (outputs ../../templates/default).nucContainers.x86_64-linux.web.name;
  templateDevshell = expect (
    "export PGHOST=127.0.0.1\nexport PGPORT=15432\nexport PGUSER=postgres\n"
    + up " --detach --lease shell /nix/store/xxx-nuc-db.json"
  ) (outputs ../../templates/devshell).devShells.x86_64-linux.default.shellHook;
  templateFlakeParts =
    expect [ "web" ]
      (builtins.attrNames (outputs ../../templates/flake-parts).perSystem.nuc.containers);
  example =
    expect "example"
      (outputs ../../examples/postgresql-nginx).nucContainers.aarch64-linux.example.name;
  exampleOfTwo = expect [ "db" "web" ] (
    map (c: c.name) (
      builtins.attrValues (outputs ../../examples/two-containers).nucContainers.x86_64-linux
    )
  );
  exampleShell = expect (
    "export PGHOST=127.0.0.1\nexport PGPORT=15432\nexport PGUSER=postgres\nexport REDIS_URL=redis://127.0.0.1:16379\n"
    + up " --lease shell --keep 60s /nix/store/xxx-nuc-cache.json /nix/store/xxx-nuc-db.json"
  ) (outputs ../../examples/dev-shell).devShells.aarch64-linux.default.shellHook;
  templatesAreThere = expect [
    true
    true
    true
  ] (
    map (t: builtins.pathExists (t.path + "/flake.nix")) (builtins.attrValues (import ../../templates))
  );

  # Without nixpkgs, mkContainer says what it lacks, and only when it is called.
  noNixpkgs = expect true (
    throws (nuc.mkContainer {
      name = "web";
      modules = [ ];
      system = "x86_64-linux";
    })
  );
}
