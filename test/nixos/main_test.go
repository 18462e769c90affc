// Package nixos evaluates nuc's modules on a whole NixOS tree and, on the old
// release that can be built without a binary cache, boots a system of them as
// an unprivileged user. test/nixos/run prepares it and runs it.
package nixos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// place is what test/nixos/run prepared.
type place struct {
	nixpkgs string // a tree of nixpkgs
	store   string // root folder of a Nix store of the test's own
	debian  string // store path of the Debian tree, "" where nothing is built
}

func prepared(t *testing.T) place {
	t.Helper()
	p := place{os.Getenv("NUC_NIXPKGS"), os.Getenv("NUC_STORE"), os.Getenv("NUC_DEBIAN")}
	if p.nixpkgs == "" || p.store == "" {
		t.Fatal("run test/nixos/run: it prepares a store and names the NixOS tree")
	}
	return p
}

// path is where a store path is on the host.
func (p place) path(storePath string) string { return p.store + storePath }

// expression calls nix/tests/nixos.
func (p place) expression(t *testing.T, attribute string) string {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(p.store, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	debian := "null"
	if p.debian != "" {
		debian = fmt.Sprintf("%q", p.debian)
	}
	// Any path is a string to Nix, not every one a path of its own syntax.
	return fmt.Sprintf("(import (/. + %q) { nixpkgs = /. + %q; debian = %s; key = %q; }).%s",
		filepath.Join(harness.Repository(t), "nix/tests/nixos"), p.nixpkgs, debian,
		strings.TrimSpace(string(key)), attribute)
}

// nix runs one of Nix's commands on the store and returns standard output.
func (p place) nix(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, append([]string{"--store", p.store}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		said := stderr.String()
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, said[max(0, len(said)-8000):])
	}
	return out
}

// evaluate reads an attribute of nix/tests/nixos.
func (p place) evaluate(t *testing.T, attribute string, into any) {
	t.Helper()
	out := p.nix(t, "nix-instantiate", "--eval", "--strict", "--json", "-E", p.expression(t, attribute))
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("%s: %v", attribute, err)
	}
}

// build builds an attribute, keeps it from being collected and returns its
// store path.
func (p place) build(t *testing.T, attribute string) string {
	t.Helper()
	link := filepath.Join(p.store, "root-"+attribute)
	out := p.nix(t, "nix-build", "-E", p.expression(t, attribute), "-o", link)
	return strings.TrimSpace(string(out))
}

// read returns a descriptor of the store.
func (p place) read(t testing.TB, descriptor string) map[string]any {
	t.Helper()
	content, err := os.ReadFile(p.path(descriptor))
	if err != nil {
		t.Fatal(err)
	}
	var d map[string]any
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatalf("%s: %v", descriptor, err)
	}
	return d
}

// fromStore makes a descriptor one of the store's, as it is but for its paths:
// the test's store is not at /nix/store on the host.
func (p place) fromStore(t testing.TB, d map[string]any, storePath string) {
	t.Helper()
	for key, value := range p.read(t, storePath) {
		d[key] = value
	}
	rebase := func(holder map[string]any, key string) {
		if source, ok := holder[key].(string); ok && strings.HasPrefix(source, "/nix/store") {
			holder[key] = p.path(source)
		}
	}
	rebase(harness.Section(d, "root"), "tree")
	mounts, _ := d["mounts"].([]any)
	for _, m := range mounts {
		rebase(m.(map[string]any), "source")
	}
}
