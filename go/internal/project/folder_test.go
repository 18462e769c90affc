package project

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDescriptors(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"some/b.json", "some/a.json", "some/.hidden.json", "some/notes.txt", "some/deep/c.json", "some/folder.json/x",
		"flake/flake.nix", "flake/a.json", "classic/configuration.nix", "classic/a.json", "none/x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../some/a.json", filepath.Join(dir, "none/link.json")); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string][]string{
		"some":             {"a.json", "b.json"},
		"none":             {"link.json"},
		"flake":            nil,
		"classic":          nil,
		"some#a":           nil,
		"some/folder.json": nil,
	} {
		files, err := Descriptors(filepath.Join(dir, arg))
		var names []string
		for _, f := range files {
			names = append(names, filepath.Base(f))
		}
		if err != nil || !slices.Equal(names, want) {
			t.Errorf("%s: %q, %v, want %q", arg, names, err, want)
		}
	}
	if files, err := Descriptors(filepath.Join(dir, "gone")); err == nil {
		t.Errorf("a folder that isn't there: %q", files)
	}
}
