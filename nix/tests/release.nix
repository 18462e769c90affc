# What the container's modules set where a release has the option, with options
# declared as nixos-26.05 names them: no whole tree of that release is at hand
# in the tests. On a nixpkgs' lib of 22.11 or later.
{ lib }:
let
  inherit (lib) mkOption types;
  expect = expected: got: if expected == got then null else { inherit expected got; };

  # An option for each name, with a default that a module here would change.
  declared =
    names: type: default:
    lib.foldl' lib.recursiveUpdate { } (
      map (name: lib.setAttrByPath (lib.splitString "." name) (mkOption { inherit type default; })) names
    );
  switches = [
    "boot.isContainer"
    "boot.isNspawnContainer"
    "documentation.enable"
    "networking.firewall.enable"
    "networking.nftables.enable"
    "networking.nftables.flattenRulesetFile"
    "networking.resolvconf.enable"
    "networking.useDHCP"
    "networking.useHostResolvConf"
    "nix.enable"
    "programs.fuse.enable"
    "programs.command-not-found.enable"
    "security.sudo.enable"
    "services.logrotate.enable"
    "system.etc.overlay.enable"
    "system.nixos-init.enable"
    "systemd.enableEmergencyMode"
    "systemd.oomd.enable"
    "xdg.mime.enable"
  ];
  surroundings = {
    options = lib.foldl' lib.recursiveUpdate { } [
      (declared switches types.bool true)
      (declared [ "users.allowNoPasswordLogin" ] types.bool false)
      (declared
        [
          "boot.extraModulePackages"
          "environment.defaultPackages"
          "swapDevices"
          "systemd.packages"
          "warnings"
        ]
        (types.listOf types.raw)
        [ ]
      )
      (declared
        [
          "environment.variables"
          "fileSystems"
          "networking.hosts"
          "systemd.sockets"
          "users.groups"
          "users.users"
        ]
        (types.attrsOf types.anything)
        { }
      )
      {
        assertions = mkOption { type = types.listOf types.raw; };
        boot = {
          # As kernel.nix and sysctl.nix declare them.
          kernelModules = mkOption {
            type = types.coercedTo (types.listOf types.str) (list: lib.genAttrs list (_: true)) (
              types.attrsOf types.bool
            );
            default = { };
            apply = modules: lib.attrNames (lib.filterAttrs (_: on: on) modules);
          };
          kernel.sysctl = mkOption {
            type = types.submodule {
              freeformType = types.attrsOf (
                types.nullOr (
                  types.oneOf [
                    types.bool
                    types.int
                    types.str
                  ]
                )
              );
              options."vm.max_map_count" = mkOption {
                type = types.nullOr types.ints.unsigned;
                default = null;
              };
            };
            default = { };
          };
          specialFileSystems = mkOption {
            type = types.attrsOf types.raw;
            default = { };
            apply = lib.filterAttrs (_: fs: fs.enable);
          };
          nixStoreMountOpts = mkOption {
            type = types.listOf types.str;
            default = [ "ro" ];
          };
        };
        ids.gids.tty = mkOption { default = 3; };
        networking.hostName = mkOption { default = "nixos"; };
        nix.nrBuildUsers = mkOption { default = 32; };
        programs.less.lessopen = mkOption { default = "less"; };
        security.pam.services = mkOption {
          type = types.attrsOf (
            types.submodule {
              options.enable = mkOption {
                type = types.bool;
                default = true;
              };
            }
          );
        };
        security.sudo.package = mkOption { };
        security.wrappers = mkOption {
          type = types.attrsOf (
            types.submodule {
              options = {
                enable = mkOption {
                  type = types.bool;
                  default = true;
                };
                source = mkOption { };
              };
            }
          );
          default = { };
        };
        services.journald.console = mkOption { default = ""; };
        services.logrotate.configFile = mkOption { };
        system.activationScripts = mkOption {
          type = types.attrsOf types.lines;
          default = { };
        };
        system.build = mkOption { type = types.attrsOf types.raw; };
        system.switch.enable = mkOption { default = false; };
        systemd.generators = mkOption {
          type = types.attrsOf types.path;
          default = { };
        };
        systemd.services = mkOption {
          type = types.attrsOf (
            types.submodule {
              options = {
                enable = mkOption { default = true; };
                serviceConfig = mkOption {
                  type = types.attrsOf types.anything;
                  default = { };
                };
              };
            }
          );
        };
        # Renamed in 22.11 and removed in 24.11: to define them would fail.
        nix.readOnlyStore = mkOption {
          visible = false;
          apply = _: throw "renamed";
        };
        sound.enable = mkOption {
          visible = false;
          apply = _: throw "removed";
        };
      }
    ];
    config = {
      _module.args = {
        modulesPath = "/nixpkgs/nixos/modules";
        pkgs = {
          writeText = name: _: name;
          runCommand = name: _: _: name;
        };
      };
      nuc.name = "web";
      security.sudo.package = package "sudo" "1.9.17p2";
      services.logrotate.configFile = "/nix/store/00000000000000000000000000000000-logrotate.conf";
      system.build.toplevel = "/nix/store/00000000000000000000000000000000-nixos-system-web";
    };
  };
  package = name: version: {
    type = "derivation";
    inherit name version;
    outPath = "/nix/store/00000000000000000000000000000000-${name}-${version}";
  };
  user = {
    name = "ana";
    uid = 1000;
    subUidRanges = [ ];
    subGidRanges = [ ];
  };
  evaluate =
    module:
    lib.evalModules {
      modules = [
        ../modules/container
        surroundings
        module
      ];
    };
  config = module: (evaluate module).config;
  plain = config { };
  # What an assertion's message names between two of its words.
  refused =
    before: after: module:
    let
      messages = map (a: a.message) (lib.filter (a: !a.assertion) (config module).assertions);
      named = map (lib.removePrefix "nuc: ${before}") (lib.filter (lib.hasPrefix "nuc: ${before}") messages);
    in
    lib.concatMap (text: lib.splitString ", " (lib.head (lib.splitString after text))) named;
  rootOwned = module: map (p: "${p}") (config module).nuc.rootOwnedPackages;
in
{
  containers = expect [
    true
    true
  ] [
    plain.boot.isContainer
    plain.boot.isNspawnContainer
  ];
  store = expect [ ] plain.boot.nixStoreMountOpts;
  overlays = expect [
    false
    false
  ] [
    plain.system.etc.overlay.enable
    plain.system.nixos-init.enable
  ];
  off = expect [ ] (
    lib.filter (name: lib.getAttrFromPath (lib.splitString "." name) plain) [
      "documentation.enable"
      "networking.firewall.enable"
      "networking.resolvconf.enable"
      "networking.useDHCP"
      "networking.useHostResolvConf"
      "nix.enable"
      "programs.command-not-found.enable"
      "services.logrotate.enable"
      "systemd.enableEmergencyMode"
      "systemd.oomd.enable"
      "xdg.mime.enable"
    ]
  );
  on = expect [
    true
    true
  ] [
    plain.system.switch.enable
    plain.users.allowNoPasswordLogin
  ];
  values = expect [
    null
    0
    "web"
    "/dev/console"
  ] [
    plain.programs.less.lessopen
    plain.nix.nrBuildUsers
    plain.networking.hostName
    plain.services.journald.console
  ];
  renamedAndRemoved = expect [
    false
    false
  ] [
    (evaluate { }).options.sound.enable.isDefined
    (evaluate { }).options.nix.readOnlyStore.isDefined
  ];

  pam = expect {
    login = false;
    sshd = true;
  } (lib.mapAttrs (_: service: service.enable) (config { security.pam.services.sshd = { }; }).security.pam.services);
  fuse = expect [
    false
    true
  ] [
    plain.programs.fuse.enable
    (config { nuc.devices = [ "/dev/fuse" ]; }).programs.fuse.enable
  ];
  specialFileSystems =
    expect [ "/run/keys" ] (
      lib.attrNames
        (config {
          boot.specialFileSystems."/run/keys".enable = true;
          boot.specialFileSystems."/proc".enable = false;
        }).boot.specialFileSystems
    );
  generators = expect "/dev/null" plain.systemd.generators.systemd-gpt-auto-generator;
  # Who is asked for a range, or for mounts of users, has the programs for it.
  wrappers =
    expect
      {
        plain = [ "su" ];
        elsewhere = [ "su" ];
        ranges = [
          "newgidmap"
          "newuidmap"
          "su"
        ];
        automatic = [
          "newgidmap"
          "newuidmap"
          "su"
        ];
        mounts = [
          "mount"
          "su"
          "umount"
        ];
        fuse = [
          "mount"
          "su"
          "umount"
        ];
        wanted = [
          "mount"
          "su"
        ];
      }
      (
        lib.mapAttrs
          (
            _: module:
            let
              programs = [
                "mount"
                "newgidmap"
                "newuidmap"
                "su"
                "umount"
              ];
              inherit (declaring.security) wrappers;
              declaring = config {
                imports = [ module ];
                security.wrappers = lib.genAttrs programs (name: {
                  source = "/bin/${name}";
                });
              };
            in
            lib.filter (name: wrappers.${name}.enable) (lib.attrNames wrappers)
          )
          {
            plain = { };
            elsewhere.users.users.ana = user // {
              subUidRanges = [
                {
                  startUid = 100000;
                  count = 65536;
                }
              ];
            };
            ranges.users.users.ana = user // {
              subGidRanges = [
                {
                  startGid = 30000;
                  count = 1000;
                }
              ];
            };
            automatic = {
              users.users.ana = user // {
                autoSubUidGidRange = true;
              };
              nuc.ids.count = 1000000;
            };
            mounts.fileSystems."/mnt" = {
              mountPoint = "/mnt";
              fsType = "tmpfs";
              options = [ "user" ];
            };
            fuse.nuc.devices = [ "/dev/fuse" ];
            wanted.security.wrappers.mount.enable = true;
          }
      );
  journal =
    expect
      [
        false
        true
      ]
      (
        map (module: (config module).systemd.services.systemd-journal-flush.enable or true) [
          { }
          {
            fileSystems."/var/log" = {
              mountPoint = "/var/log";
              fsType = "tmpfs";
              options = [ ];
            };
          }
        ]
      );
  networkSetup = expect false plain.systemd.services.network-setup.enable;

  nftables = expect true (config { networking.firewall.enable = true; }).networking.nftables.enable;
  configurationWins = expect [
    true
    "other"
  ] (
    let
      c = config {
        networking.firewall.enable = true;
        networking.hostName = "other";
      };
    in
    [
      c.networking.firewall.enable
      c.networking.hostName
    ]
  );

  sudoOfToday = expect [ ] (rootOwned { });
  sudoBefore =
    expect [ "/nix/store/00000000000000000000000000000000-sudo-1.9.12p2" ]
      (rootOwned { security.sudo.package = lib.mkForce (package "sudo" "1.9.12p2"); });
  logrotate =
    expect [ "/nix/store/00000000000000000000000000000000-logrotate.conf" ]
      (rootOwned { services.logrotate.enable = true; });

  hosts =
    expect
      {
        "127.123.220.37" = [ "db" ];
        "127.94.30.206" = [ "cache" ];
        "192.0.2.25" = [
          "imap"
          "mail"
        ];
      }
      (config {
        nuc.links = map (listen: {
          inherit listen;
          to = "db";
        }) [
          5432
          5433
        ];
        nuc.dependsOn = [
          "db"
          "cache"
        ];
        nuc.network.hosts = {
          mail = "192.0.2.25";
          imap = "192.0.2.25";
        };
      }).networking.hosts;
  handOver =
    let
      handed = config {
        nuc.handOver = [ "web" ];
        nuc.ports = [
          {
            host = 8080;
            container = 80;
          }
        ];
        systemd.sockets.web.listenStreams = [ "127.0.0.1:80" ];
      };
    in
    expect
      {
        host = 80;
        container = 80;
        protocol = "tcp";
        address = "127.0.0.1";
        handOver = true;
      }
      (builtins.elemAt (builtins.fromJSON handed.nuc.descriptor).network.ports 1);
  handOverOfNone =
    expect
      [
        "nuc: nuc.handOver: there is no systemd.sockets.web."
      ]
      (map (a: a.message) (lib.filter (a: !a.assertion) (config { nuc.handOver = [ "web" ]; }).assertions));

  kernelModules =
    expect
      {
        list = [ "wireguard" ];
        set = [ "wireguard" ];
        off = [ ];
        forcedOff = [ ];
        ofTheHost = [ ];
        onUse = [ ];
      }
      (
        lib.mapAttrs
          (_: module: refused "boot.kernelModules can't be loaded in a container: " ": load them" module)
          {
            list.boot.kernelModules = [
              "wireguard"
              "tun"
            ];
            set.boot.kernelModules = {
              wireguard = true;
              dummy = false;
            };
            off.boot.kernelModules.wireguard = false;
            forcedOff.imports = [
              { boot.kernelModules = [ "wireguard" ]; }
              { boot.kernelModules.wireguard = lib.mkForce false; }
            ];
            ofTheHost = {
              boot.kernelModules.wireguard = true;
              nuc.host.kernelModules = [ "wireguard" ];
            };
            onUse.boot.kernelModules.overlay = true;
          }
      );
  sysctls =
    expect
      {
        plain = [ "vm.swappiness" ];
        none = [ ];
        forcedOff = [ ];
        declared = [ ];
        declaredAndSet = [ "vm.max_map_count" ];
        own = [ ];
      }
      (
        lib.mapAttrs (_: module: refused "boot.kernel.sysctl can't be set in a container: " ": set them" module)
          {
            plain.boot.kernel.sysctl."vm.swappiness" = 10;
            none.boot.kernel.sysctl."vm.swappiness" = null;
            forcedOff.imports = [
              { boot.kernel.sysctl."vm.swappiness" = 10; }
              { boot.kernel.sysctl."vm.swappiness" = lib.mkForce null; }
            ];
            declared.boot.kernel.sysctl."vm.max_map_count" = null;
            declaredAndSet.boot.kernel.sysctl."vm.max_map_count" = 262144;
            own.boot.kernel.sysctl."net.core.somaxconn" = 512;
          }
      );

  descriptor = expect "web" (builtins.fromJSON plain.nuc.descriptor).name;
  assertions = expect [ ] (map (a: a.message) (lib.filter (a: !a.assertion) plain.assertions));
}
