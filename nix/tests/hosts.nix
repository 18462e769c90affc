# The modules of hosts and of flake-parts, on a nixpkgs' lib (22.11 or later)
# with as much of their surroundings as they touch.
{ lib }:
let
  expect = expected: got: if expected == got then null else { inherit expected got; };

  package = name: {
    type = "derivation";
    inherit name;
    outPath = "/nix/store/yyy-${name}";
  };
  pkgs = {
    callPackage = _: _: package "nuc";
    stdenv.hostPlatform = { inherit system; };
  };
  system = "x86_64-linux";

  # nuc's own flake, whose nixpkgs is newer than the host's.
  self = (import ../../flake.nix).outputs {
    inherit self;
    nixpkgs.legacyPackages.${system} = pkgs // {
      callPackage = _: _: package "nuc-of-the-flake";
    };
  };
  isOfTheFlake = p: expect "/nix/store/yyy-nuc-of-the-flake" "${p}";
  anything = lib.mkOption { type = lib.types.attrsOf lib.types.anything; };
  evaluate =
    modules:
    (lib.evalModules {
      modules = modules ++ [ { _module.args = { inherit pkgs; }; } ];
    }).config;

  nixos =
    module:
    evaluate [
      ../modules/host/nixos.nix
      hostOptions
      module
    ];
  hostOptions.options = {
    environment.systemPackages = lib.mkOption { type = lib.types.listOf lib.types.raw; };
    systemd.services = anything;
    users.users = lib.mkOption {
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            autoSubUidGidRange = lib.mkOption { };
            linger = lib.mkOption { };
            subUidRanges = lib.mkOption { default = [ ]; };
          };
        }
      );
    };
  };
  host = nixos {
    programs.nuc = {
      enable = true;
      users = [
        "ana"
        "ben"
      ];
    };
    users.users.ben.subUidRanges = [
      {
        startUid = 500000;
        count = 65536;
      }
    ];
  };

  homeOptions.options = {
    home.packages = lib.mkOption { type = lib.types.listOf lib.types.raw; };
    systemd.user.services = anything;
  };
  home = evaluate [
    ../modules/host/home-manager.nix
    homeOptions
    {
      programs.nuc = {
        enable = true;
        containers.web.descriptor = "/nix/store/xxx-nuc-web.json";
        containers.db = {
          descriptor = "/srv/my \"100%\" $db\\/db.json";
          autoStart = false;
        };
      };
    }
  ];
  service = name: home.systemd.user.services.${name};

  # flake-parts evaluates perSystem's modules once for each system.
  flakeParts =
    module:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
    in
    (lib.evalModules {
      specialArgs.flake-parts-lib.mkPerSystemOption =
        module:
        lib.mkOption { type = lib.types.deferredModuleWith { staticModules = [ module ]; }; };
      modules = [
        module
        (
          { config, ... }:
          {
            options.allSystems = lib.mkOption { };
            config.allSystems = lib.genAttrs systems (
              _:
              evaluate [
                config.perSystem
                { options.apps = lib.mkOption { type = lib.types.lazyAttrsOf lib.types.raw; }; }
              ]
            );
          }
        )
        {
          perSystem.nuc.containers = {
            web.modules = [ { } ];
            db = { };
          };
        }
      ];
    }).config;
  flake = flakeParts (import ../flake-module.nix { nuc = import ../lib { }; });
in
{
  subordinateIds = expect {
    ana = true;
    ben = false;
  } (lib.mapAttrs (_: user: user.autoSubUidGidRange) host.users.users);
  linger = expect true host.users.users.ana.linger;
  delegation = expect "cpu cpuset io memory pids" host.systemd.services."user@".serviceConfig.Delegate;
  package = expect 1 (lib.length host.environment.systemPackages);
  off = expect { } (nixos { programs.nuc.users = [ "ana" ]; }).users.users or { };

  packageOfHost = isOfTheFlake (evaluate [
    self.nixosModules.default
    hostOptions
    { programs.nuc.enable = true; }
  ]).programs.nuc.package;
  packageOfHome = isOfTheFlake (evaluate [
    self.homeModules.default
    homeOptions
    { programs.nuc.enable = true; }
  ]).programs.nuc.package;
  packageChosen = expect "/nix/store/yyy-own" "${
    (evaluate [
      self.nixosModules.host
      hostOptions
      { programs.nuc.package = package "own"; }
    ]).programs.nuc.package
  }";
  functionsOfTheFlake =
    let
      inherit
        (
          (import ../../flake.nix).outputs {
            self = self // {
              lib.mkContainer = _: {
                from = "the flake";
                mkApps = _: { };
              };
            };
            nixpkgs = { };
          }
        )
        flakeModules
        ;
    in
    expect "the flake" (flakeParts flakeModules.default).flake.nucContainers.${system}.web.from;

  units = expect [
    "nuc-db"
    "nuc-web"
  ] (lib.attrNames home.systemd.user.services);
  start =
    expect ''"/nix/store/yyy-nuc/bin/nuc" start "/nix/store/xxx-nuc-web.json"''
      (service "nuc-web").Service.ExecStart;
  startOfAnOddPath =
    expect ''"/nix/store/yyy-nuc/bin/nuc" start "/srv/my \"100%%\" $$db\\/db.json"''
      (service "nuc-db").Service.ExecStart;
  findsNix = expect true (
    lib.elem "/nix/var/nix/profiles/default/bin" (
      lib.splitString ":" (lib.removePrefix "PATH=" (service "nuc-web").Service.Environment)
    )
  );
  autoStart = expect [ "default.target" ] (service "nuc-web").Install.WantedBy;
  noAutoStart = expect [ ] (service "nuc-db").Install.WantedBy;

  flakeContainers = expect {
    aarch64-linux = [
      "db"
      "web"
    ];
    x86_64-linux = [
      "db"
      "web"
    ];
  } (lib.mapAttrs (_: lib.attrNames) flake.flake.nucContainers);
  flakeApps = expect true (
    flake.allSystems.x86_64-linux.apps ? web-start && flake.allSystems.x86_64-linux.apps ? db-logs
  );
}
