// Package nixpkgs evaluates and builds what nix/tests/nixos has, on a whole tree
// of nixpkgs, in a Nix store of the tests' own. test/nixpkgs/prepare makes the
// store and names both to the programs that it runs.
package nixpkgs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// Tree is a tree of nixpkgs and where it is built.
type Tree struct {
	Nixpkgs string // folder of the tree
	Store   string // root folder of the store
	Debian  string // store path of the Debian tree, "" where nothing can be built

	repository string
	key        string // a public key that may log in
}

// Prepared is the tree that test/nixpkgs/prepare named. Its error is why there
// is none.
func Prepared(t testing.TB) (Tree, error) {
	t.Helper()
	if why := os.Getenv("NUC_NO_NIXPKGS"); why != "" {
		return Tree{}, errors.New(why)
	}
	tree := Tree{
		Nixpkgs: os.Getenv("NUC_NIXPKGS"), Store: os.Getenv("NUC_STORE"), Debian: os.Getenv("NUC_DEBIAN"),
		repository: harness.Repository(t),
	}
	if tree.Nixpkgs == "" || tree.Store == "" {
		return Tree{}, errors.New("no nixpkgs: test/nixpkgs/prepare names one to what it runs")
	}
	key, err := os.ReadFile(filepath.Join(tree.Store, "key.pub"))
	tree.key = strings.TrimSpace(string(key))
	return tree, err
}

// ErrNotBuilt is that of a tree whose packages only a binary cache has.
var ErrNotBuilt = errors.New("only nixos-18.03 is built here: other trees need a binary cache")

// Path is where a store path is on the host.
func (tree Tree) Path(storePath string) string { return tree.Store + storePath }

// Expression is Nix's for an attribute of nix/tests/nixos.
func (tree Tree) Expression(attribute string) string {
	debian := "null"
	if tree.Debian != "" {
		debian = fmt.Sprintf("%q", tree.Debian)
	}
	// Any path is a string to Nix, not every one a path of its own syntax.
	return fmt.Sprintf("(import (/. + %q) { nixpkgs = /. + %q; debian = %s; key = %q; }).%s",
		filepath.Join(tree.repository, "nix/tests/nixos"), tree.Nixpkgs, debian, tree.key, attribute)
}

// Command is one of Nix's on the store.
func (tree Tree) Command(name string, args ...string) *exec.Cmd {
	return exec.Command(name, append([]string{"--store", tree.Store}, args...)...)
}

// Run runs a command and returns standard output.
func (tree Tree) Run(name string, args ...string) ([]byte, error) {
	cmd := tree.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		said := stderr.String()
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, said[max(0, len(said)-8000):])
	}
	return out, nil
}

// Evaluate reads an attribute.
func (tree Tree) Evaluate(attribute string, into any) error {
	out, err := tree.Run("nix-instantiate", "--eval", "--strict", "--json", "-E", tree.Expression(attribute))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("%s: %w", attribute, err)
	}
	return nil
}

// Build builds an attribute, keeps it from being collected and returns its
// store path.
func (tree Tree) Build(attribute string) (string, error) {
	if tree.Debian == "" {
		return "", ErrNotBuilt
	}
	link := filepath.Join(tree.Store, "root-"+attribute)
	out, err := tree.Run("nix-build", "-E", tree.Expression(attribute), "-o", link)
	return strings.TrimSpace(string(out)), err
}

// Read returns a descriptor of the store.
func (tree Tree) Read(descriptor string) (map[string]any, error) {
	content, err := os.ReadFile(tree.Path(descriptor))
	if err != nil {
		return nil, err
	}
	var d map[string]any
	if err := json.Unmarshal(content, &d); err != nil {
		return nil, fmt.Errorf("%s: %w", descriptor, err)
	}
	return d, nil
}

// FromStore makes a descriptor one of the store's, as it is but for its paths:
// the tests' store is not at /nix/store on the host.
func (tree Tree) FromStore(d map[string]any, storePath string) error {
	read, err := tree.Read(storePath)
	if err != nil {
		return err
	}
	for key, value := range read {
		d[key] = value
	}
	if os.Getenv("NUC_STORE_AT_NIX") == "" {
		delete(d, "rootOwned") // is copied from where it says
	}
	rebase := func(holder map[string]any, key string) {
		if source, ok := holder[key].(string); ok && strings.HasPrefix(source, "/nix/store") {
			holder[key] = tree.Path(source)
		}
	}
	rebase(harness.Section(d, "root"), "tree")
	mounts, _ := d["mounts"].([]any)
	for _, m := range mounts {
		rebase(m.(map[string]any), "source")
	}
	return nil
}
