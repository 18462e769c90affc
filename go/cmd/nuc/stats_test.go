package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0", 1023: "1023", 1024: "1.0K", 1536: "1.5K", 102400: "100K", 1<<20 - 1: "1024K", 1 << 20: "1.0M", 5 << 30: "5.0G", 3 << 40: "3.0T", 5000 << 40: "5000T",
	} {
		if got := size(&n); got != want {
			t.Errorf("size(%d) is %s, want %s", n, got, want)
		}
	}
	if size(nil) != "" {
		t.Error("a size that is not known is shown")
	}
}

// cgroupTree makes a folder that looks like a payload.
func cgroupTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "payload")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestMeter(t *testing.T) {
	dir := cgroupTree(t, map[string]string{
		"cgroup.controllers": "memory pids io cpu\n", "cpu.stat": "usage_usec 1000\n", "cgroup.threads": "1\n", "memory.current": "5\n",
		"system.slice/web.service/cpu.stat": "usage_usec 10\n", "system.slice/a.service/cpu.stat": "usage_usec 0\n",
	})
	var m meter
	list := []supervisor.Status{{Name: "web", Cgroup: dir}, {Name: "bare"}}
	first := m.all(list, true)
	if len(first) != 2 || first[0].CPUPercent != nil || len(first[0].Units) != 2 || first[0].Units[0].Name != "a.service" {
		t.Fatalf("%+v", first)
	}
	if err := os.WriteFile(filepath.Join(dir, "cpu.stat"), []byte("usage_usec 1500\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// A unit that was started anew counts from 0 again.
	if err := os.WriteFile(filepath.Join(dir, "system.slice/web.service/cpu.stat"), []byte("usage_usec 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	was := m.last[dir]
	was.at = was.at.Add(-1e9)
	m.last[dir] = was
	second := m.all(list, true)
	if p := second[0].CPUPercent; p == nil || *p < 0.01 || *p > 0.05 { // 500 µs in a second and what this test takes
		t.Errorf("CPU: %v", p)
	}
	if p := second[0].Units[1].CPUPercent; p != nil {
		t.Errorf("CPU of a unit that began anew: %f", *p)
	}
	var out, notes bytes.Buffer
	if err := printUsage(&context{stdout: &out, stderr: &notes}, second); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\n  a.service ") || !strings.Contains(notes.String(), "bare: cpu: the container has no cgroup") {
		t.Errorf("%s%s", &out, &notes)
	}
}

func TestReasons(t *testing.T) {
	all, one := map[string]string{"io": "no io"}, map[string]string{"io": "no io", "memory": "no memory"}
	got := reasons([]usage{{Name: "a", Missing: all}, {Name: "b", Missing: one, Stats: cgroup.Stats{MemoryOfProcesses: true}}})
	want := []string{"b: ~: the processes' own memory (RssAnon) only: no memory", "io: no io"}
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
