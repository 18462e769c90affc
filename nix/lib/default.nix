# nuc's functions. They need builtins only: nixpkgs is looked at when a
# container is evaluated, not before.
#
#   nixpkgs  the one that mkContainer takes where its caller gives none
#   nuc      pkgs: the nuc package for the apps
{
  nixpkgs ? throw "nuc: mkContainer: no nixpkgs: give it { pkgs = …; } or { nixpkgs = …; }",
  nuc ? pkgs: pkgs.callPackage ../package.nix { },
}:
let
  descriptor = import ./descriptor.nix;
in
rec {
  inherit (descriptor) mkDescriptor problems;
  inherit (import ./shell.nix) mkShell shellHook;
  env = import ./env.nix;
  mkApps = import ./apps.nix;
  mkContainer = import ./container.nix { inherit mkApps nixpkgs nuc; };
  ports = import ./ports.nix;
}
