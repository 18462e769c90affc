# A project without a flake: the container of a folder's configuration.nix. For
# the command line, and for `nix-build nix/project.nix --argstr folder $PWD -A descriptor`.
{
  folder,
  nixpkgs ? null,
  system ? builtins.currentSystem,
}:
let
  nuc = import ./. (if nixpkgs == null then { } else { inherit nixpkgs; });
in
nuc.mkContainer {
  inherit system;
  name = nuc.nameOf folder;
  modules = [ (folder + "/configuration.nix") ];
}
