package sources

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUnpack(t *testing.T) {
	cache := t.TempDir()
	folder, err := Unpack(cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"flake.lock", "nix/default.nix", "nix/lib/default.nix", "nix/modules/container/default.nix"} {
		if st, err := os.Stat(filepath.Join(folder, name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	again, err := Unpack(cache)
	if err != nil || again != folder {
		t.Errorf("the second time it is %s, %v", again, err)
	}
	if entries, _ := os.ReadDir(cache); len(entries) != 1 {
		t.Errorf("left in the cache: %v", entries)
	}
}
