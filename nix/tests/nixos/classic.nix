# What the configuration.nix of a classic project imports where packages are
# Debian's.
{ nixpkgs, debian }:
let
  pkgs = import ../debian-packages.nix {
    inherit nixpkgs;
    tree = builtins.storePath debian;
  };
in
{
  imports = [ (import ./backing.nix { inherit debian pkgs; }).module ];
  nixpkgs.pkgs = pkgs;
}
