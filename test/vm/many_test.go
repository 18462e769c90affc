package vm

import (
	"fmt"
	"testing"
)

// TestFifty brings fifty containers of a folder up with one command, and down
// with another.
func TestFifty(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	const many = 50
	path := ana.describe(t, light("one", 1))
	ana.must(t, fmt.Sprintf(`rm -rf fifty && mkdir fifty && for i in $(seq %d); do sed "s/\"name\":\"one\"/\"name\":\"many-$i\"/" %s >fifty/many-$i.json; done`, many, path))
	t.Cleanup(func() { ana.run(t, "rm -rf fifty") })
	if r := ana.run(t, "cd fifty && nuc up ."); r.code != 0 {
		t.Errorf("%s", r)
	}
	running := func(want string) {
		t.Helper()
		if got := ana.must(t, "nuc ps -q | wc -l"); got != want {
			t.Errorf("%s containers run, want %s", got, want)
		}
	}
	running(fmt.Sprint(many))
	ana.must(t, "for i in $(seq 7 7 49); do nuc exec many-$i true || exit; done")
	ana.must(t, "cd fifty && nuc down")
	running("0")
	m.nothingLeft(t)
}
