# nuc's functions without a flake: `import ./nix { }` gives what the flake's
# `lib` has. nixpkgs is only looked for when a function needs it: the one given,
# that of NIX_PATH, or the one that flake.lock names.
{
  nixpkgs ?
    let
      found = builtins.tryEval <nixpkgs>;
    in
    if found.success then found.value else locked,
  locked ? (
    let
      node = (builtins.fromJSON (builtins.readFile ../flake.lock)).nodes.nixpkgs.locked;
    in
    fetchTarball {
      url = "https://github.com/${node.owner}/${node.repo}/archive/${node.rev}.tar.gz";
      sha256 = node.narHash;
    }
  ),
}:
import ./lib { inherit nixpkgs; }
