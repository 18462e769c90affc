// Package gcroot keeps store paths alive that a container's generations need:
// as indirect roots of the Nix garbage collector, links of nuc's own that Nix
// knows of (nix-store(1), --add-root).
package gcroot

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// storePath is a path right below the store: a hash in Nix' base 32, and a name.
var storePath = `/nix/store/[0-9a-df-np-sv-z]{32}-[0-9A-Za-z+._?=-]+`

// Paths lists the store paths that a text names, each once.
func Paths(text []byte) []string {
	found := regexp.MustCompile(storePath).FindAllString(string(text), -1)
	slices.Sort(found)
	return slices.Compact(found)
}

// Add makes link, and link-2 and so on, roots for paths. Without Nix, or where
// they are no paths of its store, it returns an error and nothing is lost but
// the protection.
func Add(link string, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	program, err := exec.LookPath("nix-store")
	if err != nil {
		return errors.New("nix-store is not on PATH: nothing keeps the container's store paths from being collected")
	}
	command := exec.Command(program, append([]string{"--add-root", link, "--indirect", "--realise"}, paths...)...)
	out, err := command.CombinedOutput()
	if err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("keeping the container's store paths from being collected: nix-store: %s", first)
	}
	return nil
}

// Remove removes the links that Add made; Nix forgets them at its next
// collection.
func Remove(link string) error {
	folder, name := filepath.Split(link)
	entries, err := os.ReadDir(filepath.Clean(folder))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() != name && !strings.HasPrefix(e.Name(), name+"-") {
			continue
		}
		if err := os.Remove(filepath.Join(folder, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
