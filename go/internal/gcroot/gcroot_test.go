package gcroot

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPaths(t *testing.T) {
	const a, b = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nginx-1.2", "/nix/store/zyxwvsrqpnmlkjihgfdcba9876543210-etc"
	tests := map[string][]string{
		``:                               {},
		`{"init":"` + b + `/init"}`:      {b},
		`"` + b + `" "` + a + `/x" ` + a: {a, b},
		`/nix/store/short-name /nix/store/0123456789abcdfghijklmnpqrsvwxye-bad`: {},
	}
	for text, want := range tests {
		if got := Paths([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestAddWithoutNix(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Add("/none", nil); err != nil {
		t.Errorf("no paths: %v", err)
	}
	if err := Add("/none", []string{"/nix/store/x"}); err == nil {
		t.Error("without nix-store a path was kept alive")
	}
}

func TestRemove(t *testing.T) {
	// No pattern for names, but a folder's own one.
	link := filepath.Join(t.TempDir(), "a[b]*", "1.root")
	if err := os.Mkdir(filepath.Dir(link), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{link, link + "-2", link + "-3", filepath.Dir(link) + "/11.root"} {
		if err := os.Symlink("/nix/store/x", name); err != nil {
			t.Fatal(err)
		}
	}
	if err := Remove(link); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(filepath.Dir(link))
	if len(left) != 1 || left[0].Name() != "11.root" {
		t.Errorf("left: %v", left)
	}
	if err := Remove(link); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}
