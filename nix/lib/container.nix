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
# closure holds all that the container needs), env (what clients need), nuc (the
# package), apps, and mkApps for apps of another prefix.
defaults:
let
  # Not there in a flake's pure evaluation.
  currentSystem =
    builtins.currentSystem
      or (throw "nuc: mkContainer: on which platform? give it { pkgs = …; } or { system = …; }");
in
{
  name,
  modules,
  pkgs ? null,
  nixpkgs ? if pkgs != null then pkgs.path else defaults.nixpkgs,
  system ? if pkgs != null then pkgs.stdenv.hostPlatform.system else currentSystem,
  specialArgs ? { },
  nuc ? null,
}:
let
  # Here, as NixOS' own options would complain of it first, as of something else.
  goodName =
    let
      expected = if builtins.isString name then (import ./rules.nix).name name else "a string";
    in
    if expected == null then
      name
    else
      throw "nuc: mkContainer: name: ${builtins.toJSON name}: expected ${expected}";

  # Releases before 22.11 know a system's name only.
  release = builtins.readFile (nixpkgs + "/.version");
  hasHostPlatform = builtins.compareVersions release "22.11" >= 0;

  platform =
    { lib, options, ... }:
    {
      _file = ./container.nix;
      nuc.name = lib.mkDefault goodName;
      nixpkgs =
        if pkgs != null then
          { pkgs = lib.mkDefault pkgs; }
        else
          lib.optionalAttrs (options.nixpkgs ? hostPlatform) {
            hostPlatform = lib.mkDefault system;
          };
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

  inherit (evaluated) config options;
  inherit (config.system.build) toplevel;
  descriptor = config.system.build.nucDescriptor;
  package = if nuc != null then nuc else defaults.nuc evaluated.pkgs;
  mkApps =
    arguments:
    defaults.mkApps (
      {
        inherit (config.nuc) name;
        inherit (evaluated) pkgs;
        inherit descriptor;
        nuc = package;
      }
      // arguments
    );
in
{
  inherit
    config
    descriptor
    options
    toplevel
    ;
  inherit (config.nuc) env name;
  inherit (evaluated) pkgs;
  nuc = package;

  apps = mkApps { };
  inherit mkApps;
}
