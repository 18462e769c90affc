# Containers of ordinary NixOS configurations on a whole NixOS tree, for
# `make test-nixos`.
{
  # A tree of nixpkgs.
  nixpkgs,
  # The Debian tree in the store, for a tree of nixpkgs that can't be had built.
  debian ? null,
  # A public key that may log in.
  key ? "",
}:
let
  nuc = import ../../. { inherit nixpkgs; };

  pkgs =
    if debian == null then
      import nixpkgs { config = { }; }
    else
      import ../debian-packages.nix {
        inherit nixpkgs;
        tree = builtins.storePath debian;
      };
  inherit (import ./backing.nix { inherit debian pkgs; }) module mounts root;
  backing = if debian == null then [ ] else [ module ];

  inherit (pkgs) lib;

  configurations = {
    postgresql = ./postgresql.nix;
    nginx = ./nginx.nix;
    sshd = ./sshd.nix;
    redis = ./redis.nix;
    hardened = ./hardened.nix;
    fallback = ./fallback.nix;
    realtime = ./realtime.nix;
    immutable = ./immutable.nix;
  };

  failed = c: map (a: a.message) (builtins.filter (a: !a.assertion) c.config.assertions);

  container =
    name: modules:
    nuc.mkContainer {
      inherit name pkgs;
      modules = backing ++ modules;
    };

  web = builtins.attrValues (removeAttrs configurations [ "immutable" ]) ++ [ (import ./web.nix { inherit key; }) ];
in
{
  names = builtins.attrNames configurations;

  evaluated = builtins.mapAttrs (
    name: file:
    let
      c = container name [ file ];
    in
    {
      toplevel = c.toplevel.drvPath;
      descriptor = c.config.nuc.descriptor;
      failed = failed c;
    }
  ) configurations;

  modules = import ../modules.nix {
    inherit nixpkgs;
    inherit (pkgs) system;
  };

  # What `nix flake init` writes, with this nuc and this nixpkgs.
  templates =
    builtins.mapAttrs
      (
        name: attribute:
        let
          flake = import (../../../templates + "/${name}/flake.nix");
          outputs = flake.outputs {
            nixpkgs.legacyPackages.${pkgs.system} = pkgs // {
              mkShell = arguments: arguments;
            };
            nuc = {
              lib = nuc // {
                mkContainer = arguments: nuc.mkContainer (arguments // { modules = backing ++ arguments.modules; });
              };
              packages.${pkgs.system}.nuc = "nuc";
            };
          };
        in
        outputs.nucContainers.${pkgs.system}.${attribute}.descriptor.drvPath
      )
      {
        default = "web";
        devshell = "db";
      };

  # The virtual machine's test, as far as it can be had without one: its script,
  # with both containers' descriptors.
  vm = (import ../vm.nix { nuc = "/nuc"; } { inherit lib pkgs; }).testScript;

  # A machine of its own that has the host's module.
  host =
    let
      machine = import (nixpkgs + "/nixos/lib/eval-config.nix") {
        inherit (pkgs) system;
        modules = [
          ../../modules/host/nixos.nix
          ./host.nix
          { nixpkgs.pkgs = pkgs; }
        ];
      };
      inherit (machine) config;
    in
    {
      toplevel = config.system.build.toplevel.drvPath;
      packages = map (p: p.name) config.environment.systemPackages;
      delegated = config.systemd.services."user@".serviceConfig.Delegate;
      ranges = builtins.mapAttrs (_: user: user.autoSubUidGidRange) {
        inherit (config.users.users) ana ben;
      };
    };

  # Every option of nuc's, by its name.
  options =
    let
      list = lib.optionAttrSetToDocList { inherit ((container "options" [ ]).options) nuc; };
    in
    builtins.listToAttrs (
      map (option: {
        inherit (option) name;
        value = option.description or "";
      }) list
    );

  # What make bench measures.
  bench = import ./bench.nix {
    inherit
      container
      nixpkgs
      nuc
      pkgs
      ;
    # Of a container that nuc's modules know nothing of.
    backing = if debian == null then [ ] else [ ../debian-backing.nix ];
    root = if debian == null then null else root;
    mounts = if debian == null then [ ] else mounts;
    # That one has nothing of nuc's modules in it either.
    services = builtins.attrValues (removeAttrs configurations [ "fallback" ]);
  };

  # What is booted, and what it is switched to.
  first = (container "web" web).descriptor;
  second = (container "web" (web ++ [ ./second.nix ])).descriptor;
  broken = (container "web" (web ++ [ ./broken.nix ])).descriptor;
  back = (container "back" [ (import ./back.nix { inherit key; }) ]).descriptor;
  front = (container "front" [ ./front.nix ]).descriptor;
  walled =
    (container "walled" [
      ./walled.nix
      ./immutable.nix
    ]).descriptor;
  short =
    (container "short" [
      ./postgresql.nix
      ./nginx.nix
      { nuc.ids.count = 4096; }
    ]).descriptor;
}
