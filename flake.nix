{
  description = "NixOS configurations as rootless containers";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # Not nixpkgs.lib's: whoever asks for .#lib has Nix look whether packages
      # has an attribute of that name, and would fetch nixpkgs for it.
      genAttrs =
        names: value:
        builtins.listToAttrs (
          map (name: {
            inherit name;
            value = value name;
          }) names
        );
      perSystem = output: genAttrs systems (system: output nixpkgs.legacyPackages.${system});
      packagesOf = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system};
      # The host's nixpkgs may be too old to build nuc.
      ofHost =
        module:
        { lib, pkgs, ... }:
        {
          _file = toString module;
          imports = [ module ];
          programs.nuc.package = lib.mkDefault (packagesOf pkgs).nuc;
        };
    in
    {
      lib = import ./nix/lib {
        inherit nixpkgs;
        nuc = pkgs: (packagesOf pkgs).nuc;
      };

      nixosModules = {
        container = ./nix/modules/container;
        host = ofHost ./nix/modules/host/nixos.nix;
        default = self.nixosModules.host;
      };
      homeModules.default = ofHost ./nix/modules/host/home-manager.nix;
      homeManagerModules = self.homeModules;
      flakeModules.default = import ./nix/flake-module.nix { nuc = self.lib; };

      overlays.default = import ./nix/overlay.nix;

      templates = import ./templates;

      packages = perSystem (pkgs: {
        nuc = pkgs.callPackage ./nix/package.nix { version = self.shortRev or "dirty"; };
        default = (packagesOf pkgs).nuc;
        docs = pkgs.callPackage ./nix/docs { };
      });

      nucContainers = perSystem (pkgs: {
        example = self.lib.mkContainer {
          name = "example";
          inherit pkgs;
          modules = [ ./examples/postgresql-nginx/configuration.nix ];
        };
      });

      apps = perSystem (pkgs: self.nucContainers.${pkgs.stdenv.hostPlatform.system}.example.apps);

      devShells = perSystem (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { };
      });

      checks = perSystem (
        pkgs:
        pkgs.callPackage ./nix/tests/checks.nix {
          inherit (packagesOf pkgs) nuc;
          src = self;
        }
      );

      formatter = perSystem (pkgs: pkgs.nixfmt-tree);
    };
}
