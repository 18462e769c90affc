# mkContainer evaluates NixOS with nuc's modules and those of the caller.
#
#   name         the container's name
#   modules      NixOS modules, as for nixosSystem
#   pkgs         a package set to use; its own nixpkgs then gives the modules
#   nixpkgs      nixpkgs as a flake or a path, where there is no pkgs
#   system       the platform, where there is no pkgs
#   specialArgs  further arguments of the modules
#   nuc          the nuc package that the apps use
#
# and gives config, options, pkgs, name, toplevel, descriptor (a file whose
# closure holds all that the container needs) and apps.
{
  nixpkgs ? null,
  nuc ? null,
}@defaults:
{
  name,
  modules,
  pkgs ? null,
  nixpkgs ? if pkgs != null then pkgs.path else defaults.nixpkgs,
  system ? if pkgs != null then pkgs.stdenv.hostPlatform.system else builtins.currentSystem,
  specialArgs ? { },
  nuc ? defaults.nuc or null,
}:
let
  # Releases before 22.11 know a system's name only.
  hasHostPlatform = builtins.pathExists (nixpkgs + "/nixos/modules/misc/nixpkgs-flake.nix");

  platform =
    { lib, options, ... }:
    {
      _file = ./container.nix;
      nuc.name = lib.mkDefault name;
      nixpkgs =
        if pkgs != null then
          { pkgs = lib.mkDefault pkgs; }
        else
          lib.optionalAttrs (options.nixpkgs ? hostPlatform) { hostPlatform = lib.mkDefault system; };
    };

  evaluated = import (nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit specialArgs;
    system = if hasHostPlatform then null else system;
    modules = [
      ../modules/container
      platform
    ]
    ++ modules;
  };

  inherit (evaluated.config.system) build;
in
{
  inherit name;
  inherit (evaluated) config options pkgs;
  inherit (build) toplevel;
  descriptor = build.nucDescriptor;
}
