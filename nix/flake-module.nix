# For flake-parts: containers declared per system become the flake output that
# `nuc up .#NAME` reads, and apps.
#
#   nuc  nuc's functions
{ nuc }:
{
  config,
  flake-parts-lib,
  lib,
  ...
}:
{
  _file = ./flake-module.nix;

  options = {
    flake.nucContainers = lib.mkOption {
      type = lib.types.lazyAttrsOf (lib.types.lazyAttrsOf lib.types.raw);
      default = { };
      description = "Containers by system and name, as `mkContainer` gives them.";
    };

    perSystem = flake-parts-lib.mkPerSystemOption (
      { config, pkgs, ... }:
      {
        options.nuc.containers = lib.mkOption {
          default = { };
          description = "Containers of this flake.";
          type = lib.types.lazyAttrsOf (
            lib.types.submodule {
              options = {
                modules = lib.mkOption {
                  type = lib.types.listOf lib.types.deferredModule;
                  default = [ ];
                  description = "NixOS modules of the container.";
                };
                specialArgs = lib.mkOption {
                  type = lib.types.attrsOf lib.types.raw;
                  default = { };
                  description = "Further arguments of the modules.";
                };
              };
            }
          );
        };
        options.nuc.evaluated = lib.mkOption {
          type = lib.types.lazyAttrsOf lib.types.raw;
          internal = true;
          readOnly = true;
          description = "The containers, evaluated.";
        };

        config.nuc.evaluated = lib.mapAttrs (
          name: container:
          nuc.mkContainer {
            inherit name pkgs;
            inherit (container) modules specialArgs;
          }
        ) config.nuc.containers;

        # NAME-start and so on: a flake may have several containers.
        config.apps = lib.concatMapAttrs (
          name: container: container.mkApps { prefix = name; }
        ) config.nuc.evaluated;
      }
    );
  };

  config.flake.nucContainers = lib.mapAttrs (_: system: system.nuc.evaluated) config.allSystems;
}
