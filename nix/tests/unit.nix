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

  apps = nuc.mkApps {
    name = "web";
    descriptor = "/nix/store/xxx-nuc-web.json";
    nuc = "/nix/store/yyy-nuc";
    pkgs = {
      runtimeShell = "/bin/sh";
      writeScript = name: text: text;
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
  } "network.ports[0].host: 70000: expected an integer from 1 to 65535";
  unknownKey =
    refused { colour = "red"; }
      "colour: \"red\": expected a known key: one of devices, ids, mounts, name, network, ready, resources, root, rootOwned, system, version";
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

  postgresqlPort = expect [ 5433 ] (nuc.ports.postgresql config);
  nginxPorts = expect [ 443 8081 80 ] (nuc.ports.nginx config);
  redisPorts = expect [ 6379 ] (nuc.ports.redis config);
  opensshPorts = expect [ 22 2222 ] (nuc.ports.openssh config);
  forward = expect [
    {
      host = 8080;
      container = 80;
    }
  ] (nuc.ports.forward 8000 [ 80 ]);

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

  nameOfFolder =
    expect
      [
        "cont1"
        "my-project-2"
        "123456789-123456789-123456789-123456789-123456789-123456789-123"
        "a23456789-123456789-123456789-123456789-123456789-123456789-12"
      ]
      (
        map nuc.nameOf [
          "/home/ana/cont1"
          "/home/ana/_My Project (2)"
          "/srv/123456789-123456789-123456789-123456789-123456789-123456789-12345"
          "/srv/a23456789-123456789-123456789-123456789-123456789-123456789-12-45"
        ]
      );
  noNameOfFolder = expect true (throws (nuc.nameOf "/srv/---"));

  # Without nixpkgs, mkContainer says what it lacks, and only when it is called.
  noNixpkgs = expect true (
    throws (nuc.mkContainer {
      name = "web";
      modules = [ ];
      system = "x86_64-linux";
    })
  );
}
