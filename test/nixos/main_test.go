// Package nixos evaluates nuc's modules on a whole NixOS tree and, on the old
// release that can be built without a binary cache, boots a system of them as
// an unprivileged user. test/nixos/run prepares it and runs it.
package nixos

import (
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
	"github.com/nix-user-containers/nuc/test/nixpkgs"
)

func TestMain(m *testing.M) { harness.Main(m) }

// place is the tree, for tests that end where it fails.
type place struct{ nixpkgs.Tree }

func prepared(t *testing.T) place {
	t.Helper()
	tree, err := nixpkgs.Prepared(t)
	if err != nil {
		t.Fatalf("%v; run test/nixos/run", err)
	}
	return place{tree}
}

// booted is prepared for tests that boot what they build.
func booted(t *testing.T) place {
	t.Helper()
	p := prepared(t)
	if p.Debian == "" {
		t.Skipf("%v, see checks.vm of the flake", nixpkgs.ErrNotBuilt)
	}
	return p
}

func (p place) evaluate(t *testing.T, attribute string, into any) {
	t.Helper()
	if err := p.Evaluate(attribute, into); err != nil {
		t.Fatal(err)
	}
}

func (p place) build(t *testing.T, attribute string) string {
	t.Helper()
	path, err := p.Build(attribute)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (p place) fromStore(t testing.TB, d map[string]any, storePath string) {
	t.Helper()
	if err := p.FromStore(d, storePath); err != nil {
		t.Fatal(err)
	}
}
