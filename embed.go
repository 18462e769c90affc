// Package nuc holds nuc's own Nix files, so that the program works on projects
// that don't have them as a flake input.
package nuc

import "embed"

// Sources are the files that `import ./nix { }` reads.
//
//go:embed flake.lock nix/default.nix nix/lib nix/modules nix/package.nix
var Sources embed.FS
