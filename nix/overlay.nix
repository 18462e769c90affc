final: _: {
  nuc = final.callPackage ./package.nix { };
}
