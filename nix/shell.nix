# For work on nuc.
{
  mkShell,
  deadnix,
  go,
  gofumpt,
  gnumake,
  nixfmt-tree,
  shellcheck,
  statix,
}:
mkShell {
  packages = [
    deadnix
    go
    gofumpt
    gnumake
    nixfmt-tree
    shellcheck
    statix
  ];
}
