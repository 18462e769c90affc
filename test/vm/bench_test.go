package vm

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBench measures what can't be measured on every host (test/bench/in-machine
// runs it): as a user who has logged in, beside a podman that runs.
func TestBench(t *testing.T) {
	arguments := os.Getenv("NUC_MACHINE_BENCH")
	if arguments == "" {
		t.Skip("test/bench/in-machine runs it")
	}
	m := taken(t)
	m.processors = 2
	m.up(t)
	m.root.must(t, "chmod 644 /dev/disk/by-id/virtio-tree")
	ana := m.login(t, "ana")
	for _, name := range []string{"go.mod", "bin/nuc", "scripts/tree", "build/bench.test"} {
		content, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		ana.put(t, "nuc/"+name, string(content))
	}
	// A tarball that is there need not be made.
	ana.must(t, `cd nuc && chmod 755 bin/nuc scripts/tree build/bench.test && mkdir -p ~/.cache/nuc &&
		ln -s /dev/disk/by-id/virtio-tree ~/.cache/nuc/`+filepath.Base(m.tree))
	// It says what it is at, and takes its time.
	bench := ana.ssh("cd nuc/build && ./bench.test -test.run=TestBench -test.timeout=60m -login -out bench.json " + arguments)
	bench.Stdout, bench.Stderr = os.Stdout, os.Stderr
	if err := bench.Run(); err != nil {
		t.Errorf("the bench in the machine: %v", err)
	}
	out := ana.must(t, "cat nuc/build/bench.json")
	if err := os.WriteFile("../../build/bench-machine.json", []byte(out+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
