package cgroup

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

func TestFind(t *testing.T) {
	const (
		hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
			"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw\n"
		pure    = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
		partial = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
		blank   = "30 23 0:26 / /sys/fs/c\\040group rw - cgroup2 cgroup rw\n"
	)
	tests := []struct {
		name, membership, mounts, want, err string
	}{
		{"hybrid", "9:name=systemd:/\n1:cpu:/other\n0::/a\n", hybrid, "/sys/fs/cgroup/unified/a", ""},
		{"pure", "0::/user.slice/user-1000.slice/session-2.scope\n", pure, "/sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope", ""},
		{"at the top", "0::/\n", pure, "/sys/fs/cgroup", ""},
		{"part is mounted", "0::/docker/abc/x\n", partial, "/sys/fs/cgroup/x", ""},
		{"just the part", "0::/docker/abc\n", partial, "/sys/fs/cgroup", ""},
		{"another part", "0::/docker/abcd\n", partial, "", "outside"},
		{"above the namespace", "0::/../x\n", pure, "", "outside"},
		{"blank in the path", "0::/a b\n", blank, "/sys/fs/c group/a b", ""},
		{"version 1 only", "1:cpu:/\n", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", "", "no cgroup2"},
		{"nothing", "", "", "", "no cgroup2"},
		{"broken lines", "0::/\n", "x\n - cgroup2 x\n" + pure, "/sys/fs/cgroup", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := find([]byte(test.membership), []byte(test.mounts))
			if got != test.want || (err == nil) != (test.err == "") {
				t.Fatalf("%q, %v", got, err)
			}
			if err != nil {
				oneLine(t, err.Error(), test.err)
			}
		})
	}
}

func oneLine(t *testing.T, text string, want ...string) {
	t.Helper()
	if text == "" || strings.Contains(text, "\n") {
		t.Errorf("want one line: %q", text)
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("doesn't say %q: %s", w, text)
		}
	}
}

// tree makes a folder that looks like a cgroup.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
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

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestApply(t *testing.T) {
	all := &descriptor.Resources{MemoryMax: 1 << 30, MemoryHigh: 1 << 29, CPUQuotaPercent: 250, CPUWeight: 50, TasksMax: 4096, IOWeight: 200}
	tests := []struct {
		name     string
		has      []string // files of the payload
		ask      *descriptor.Resources
		optional bool
		want     map[string]string
		err      []string
		warnings int
	}{
		{
			name: "all", has: []string{"memory.max", "memory.high", "cpu.max", "cpu.weight", "pids.max", "io.weight"}, ask: all,
			want: map[string]string{"memory.max": "1073741824", "memory.high": "536870912", "cpu.max": "250000 100000", "cpu.weight": "50", "pids.max": "4096", "io.weight": "200"},
		},
		{name: "nothing asked", ask: &descriptor.Resources{}, want: map[string]string{}},
		{name: "no resources", ask: nil, want: map[string]string{}},
		{
			name: "bfq", has: []string{"io.bfq.weight"}, ask: &descriptor.Resources{IOWeight: 10000},
			want: map[string]string{"io.bfq.weight": "1000"},
		},
		{
			name: "one missing: none applied", has: []string{"memory.max", "memory.high", "cpu.max", "cpu.weight", "io.weight"}, ask: all,
			want: map[string]string{"memory.max": "", "cpu.max": ""},
			err:  []string{"resources.tasksMax", "controller pids", "payload", "resources.optional"},
		},
		{
			name: "one missing but optional", has: []string{"memory.max", "memory.high", "cpu.max", "cpu.weight", "io.weight"}, ask: all, optional: true,
			want:     map[string]string{"memory.max": "1073741824", "cpu.max": "250000 100000"},
			warnings: 1,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := map[string]string{"payload/cgroup.controllers": "", "cgroup.controllers": ""}
			for _, f := range test.has {
				files["payload/"+f] = ""
			}
			dir := tree(t, files)
			g := &Group{path: Path{X: dir, Inner: dir, Payload: filepath.Join(dir, "payload")}, kernel: kernel{proc: dir}}
			ask := test.ask
			if ask != nil {
				copied := *ask
				copied.Optional = test.optional
				ask = &copied
			}
			for _, f := range []func(*descriptor.Resources) ([]string, error){g.Check, g.Apply} {
				warnings, err := f(ask)
				if (err == nil) != (test.err == nil) || len(warnings) != test.warnings {
					t.Fatalf("%q, %v", warnings, err)
				}
				if err != nil {
					oneLine(t, err.Error(), test.err...)
				}
				for _, w := range warnings {
					oneLine(t, w, "resources.", "controller")
				}
			}
			for name, want := range test.want {
				if got := read(t, filepath.Join(dir, "payload", name)); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestRemedy(t *testing.T) {
	v1 := "32 31 0:29 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n"
	tests := []struct {
		name            string
		x, payload      string // their controllers
		shared, systemd bool
		mountinfo       string
		want            string
	}{
		{"the kernel lacks the file", "io", "io", false, true, "", "IOCOST"},
		{"a shell is in X", "io", "", true, true, "", "systemd-run --user --scope -p Delegate=yes"},
		{"a shell is in X, without systemd", "io", "", true, false, "", "chown"},
		{"enabling failed", "io", "", false, true, "", "cgroup.subtree_control"},
		{"version 1 has it", "", "", false, true, v1, "cgroup_no_v1"},
		{"systemd does not delegate it", "", "", false, true, "", "user@.service.d"},
		{"nobody delegates it", "", "", false, false, "", "echo +io | sudo tee"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := tree(t, map[string]string{"cgroup.controllers": test.x, "payload/cgroup.controllers": test.payload, "mountinfo": test.mountinfo})
			g := &Group{path: Path{X: dir, Payload: filepath.Join(dir, "payload")}, shared: test.shared, kernel: kernel{proc: dir, systemd: test.systemd}}
			_, err := g.Check(&descriptor.Resources{IOWeight: 100})
			if err == nil {
				t.Fatal("no error")
			}
			oneLine(t, err.Error(), "resources.ioWeight", test.want)
		})
	}
}

func TestBFQ(t *testing.T) {
	for weight, want := range map[int]int{1: 1, 50: 50, 100: 100, 101: 100, 5000: 545, 10000: 1000} {
		if got := bfq(weight); got != want {
			t.Errorf("bfq(%d) is %d, want %d", weight, got, want)
		}
	}
}

// TestNothing holds that a Group without a cgroup does nothing.
func TestNothing(t *testing.T) {
	dir := tree(t, map[string]string{"proc/cgroup": "0::/\n", "proc/mountinfo": ""})
	g, err := open(kernel{proc: filepath.Join(dir, "proc"), pid: os.Getpid()}, "web", nil)
	if err != nil {
		t.Fatal(err)
	}
	oneLine(t, g.Missing(), "no cgroup2", "systemd.unified_cgroup_hierarchy=1")
	if g.Payload() != nil || g.Path() != "" || g.Events() != (Events{}) || g.Stats() != (Stats{}) {
		t.Errorf("%+v", g)
	}
	for name, err := range map[string]error{"Kill": g.Kill(), "Chown": g.Chown(1, 1), "Remove": g.Remove(), "Sweep": Sweep(g.Description())} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := g.Apply(nil); err != nil {
		t.Error(err)
	}
	_, err = g.Apply(&descriptor.Resources{MemoryMax: 1})
	if err == nil {
		t.Fatal("a limit without a cgroup was accepted")
	}
	oneLine(t, err.Error(), "resources.memoryMax", "memory", "no cgroup2")
	warnings, err := g.Apply(&descriptor.Resources{MemoryMax: 1, TasksMax: 1, Optional: true})
	if err != nil || len(warnings) != 2 {
		t.Errorf("%q, %v", warnings, err)
	}
}

// A limit that the kernel refuses takes those before it back.
func TestApplyAllOrNone(t *testing.T) {
	dir := tree(t, map[string]string{
		"payload/cgroup.controllers": "", "cgroup.controllers": "",
		"payload/memory.max": "max\n", "payload/cpu.weight": "100\n", "payload/pids.max": "max\n",
		"payload/io.weight/a-folder-takes-no-value": "",
	})
	g := &Group{path: Path{X: dir, Inner: dir, Payload: filepath.Join(dir, "payload")}, kernel: kernel{proc: dir}}
	old := &descriptor.Resources{TasksMax: 7}
	ask := &descriptor.Resources{MemoryMax: 1 << 30, CPUWeight: 500, IOWeight: 200}
	for name, set := range map[string]func() ([]string, error){
		"Apply":  func() ([]string, error) { return g.Apply(ask) },
		"Update": func() ([]string, error) { return g.Update(old, ask) },
	} {
		_, err := set()
		if err == nil {
			t.Fatalf("%s: a refused limit was no error", name)
		}
		oneLine(t, err.Error(), "resources.ioWeight")
		for file, want := range map[string]string{"memory.max": "max", "cpu.weight": "100", "pids.max": "max"} {
			// An ordinary file keeps what a shorter text does not cover.
			if got := read(t, filepath.Join(dir, "payload", file)); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is left at %q, it was %q", name, file, got, want)
			}
		}
	}
}

func TestFormerly(t *testing.T) {
	for text, want := range map[string]string{"max\n": "max", "100000 100000\n": "100000 100000", "default 100\n8:0 200\n": "100"} {
		if got := formerly(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestBadName(t *testing.T) {
	for _, name := range []string{"", "..", "a/b", "a\x00", "a.b"} {
		if _, err := Open(name, nil); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestPathJSON(t *testing.T) {
	want := Path{X: "/x", Inner: "/x/nuc-a", Supervisor: "/x/nuc-a/supervisor", Payload: "/x/nuc-a/payload", Enabled: []string{"cpu"}}
	var got Path
	if err := json.Unmarshal([]byte(want.String()), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestRemoveTreeOfFolders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "top")
	deep := dir
	for range 30 {
		deep = filepath.Join(deep, "d")
	}
	for _, d := range []string{deep, dir + "/a/1", dir + "/a/2/3", dir + "/b", dir + "/c/x/y"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
	if err := removeTree(dir); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	// A file is no cgroup, so it must stay.
	if err := os.MkdirAll(dir+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/a/b/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(dir); err == nil {
		t.Error("removed a folder with a file")
	}
}
