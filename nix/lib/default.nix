# Everything here needs builtins only; what needs nixpkgs takes it as an argument.
{
  nixpkgs ? throw "nuc: no nixpkgs: give mkContainer { nixpkgs = …; } or { pkgs = …; }",

}:
let
  descriptor = import ./descriptor.nix;
in
{
  inherit (descriptor) mkDescriptor problems;
  mkContainer = import ./container.nix { inherit nixpkgs; };
}
