package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStats(t *testing.T) {
	number := func(n uint64) *uint64 { return &n }
	percent := func(n float64) *float64 { return &n }
	full := map[string]string{
		"memory.current": "4096\n", "memory.high": "6144\n", "memory.max": "8192\n",
		"cpu.stat": "usage_usec 7\nuser_usec 1\n", "cpu.max": "150000 100000\n",
		"pids.current": "3\n", "pids.max": "9\n", "pids.events": "max 4\n",
		"memory.events":   "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n",
		"io.stat":         "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n254:0 \n259:1 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=99 dios=1\n",
		"cpu.pressure":    "some avg10=1.50 avg60=0.87 avg300=0.28 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"io.pressure":     "some avg10=99.99 avg60=0.00 avg300=0.00 total=0\n",
	}
	tests := []struct {
		name  string
		files map[string]string
		want  Stats
	}{
		{"no controllers", map[string]string{"cpu.stat": "usage_usec 1234\nuser_usec 1\n"}, Stats{CPUMicroseconds: number(1234)}},
		{"all", full, Stats{
			CPUMicroseconds: number(7), CPUQuotaPercent: percent(150),
			MemoryCurrent: number(4096), MemoryHigh: number(6144), MemoryMax: number(8192),
			Tasks: number(3), TasksMax: number(9), ReadBytes: number(11), WrittenBytes: number(22),
			CPUPressure: percent(1.5), MemoryPressure: percent(0), IOPressure: percent(99.99),
			OOMKills: number(1), TasksRefused: number(4),
		}},
		{"no limit", map[string]string{
			"memory.max": "max\n", "memory.high": "max\n", "memory.current": "1\n",
			"pids.max": "max\n", "pids.current": "2\n", "cpu.max": "max 100000\n",
		}, Stats{MemoryCurrent: number(1), Tasks: number(2)}},
		{"nonsense", map[string]string{
			"memory.current": "-1\n", "cpu.stat": "", "pids.current": "x", "cpu.max": "1 0\n", "io.stat": "x=y z\n", "cpu.pressure": "full avg10=1\n", "io.pressure": "some total=1\n",
		}, Stats{ReadBytes: number(0), WrittenBytes: number(0)}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := &Group{path: Path{Payload: tree(t, test.files)}}
			if d := cmp.Diff(test.want, g.Stats()); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// Without controllers the processes are counted, those of cgroups below, too.
func TestStatsOfProcesses(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	dir := tree(t, map[string]string{
		"cgroup.threads":                      "",
		"cgroup.procs":                        "",
		"a.slice/b.service/cgroup.threads":    own + "\n" + own + "1\n",
		"a.slice/b.service/cgroup.procs":      own + "\n4194304\n",
		"a.slice/b.service/in/cgroup.threads": own + "2\n",
		"a.slice/b.service/in/cgroup.procs":   "",
	})
	before := anonymous(os.Getpid())
	s := StatsOf(dir)
	if s.Tasks == nil || *s.Tasks != 3 {
		t.Errorf("tasks: %v", s.Tasks)
	}
	if !s.MemoryOfProcesses || s.MemoryCurrent == nil || *s.MemoryCurrent < before/2 || before == 0 {
		t.Errorf("memory: %+v; this process has %d", s, before)
	}
}

func TestUnits(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"init.scope", "system.slice/nginx.service/worker", "system.slice/system-getty.slice/getty@tty1.service",
		"user.slice", "exec", strings.Repeat("d.slice/", 60) + "deep.service",
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	for _, u := range Units(dir) {
		names = append(names, u.Name)
		if _, err := os.Stat(u.Path); err != nil || filepath.Base(u.Path) != u.Name {
			t.Errorf("%+v, %v", u, err)
		}
	}
	slices.Sort(names)
	if d := cmp.Diff([]string{"exec", "getty@tty1.service", "init.scope", "nginx.service"}, names); d != "" {
		t.Error(d)
	}
	if units := Units(filepath.Join(dir, "gone")); len(units) > 1 {
		t.Errorf("%q", units)
	}
}

func TestLacking(t *testing.T) {
	dir := tree(t, map[string]string{
		"x/cgroup.controllers":                         "cpu pids",
		"x/cgroup.procs":                               "1\n",
		"x/nuc-web/cgroup.controllers":                 "",
		"x/nuc-web/payload/cgroup.controllers":         "pids",
		"u/nuc-web.service/cgroup.controllers":         "pids memory",
		"u/nuc-web.service/payload/cgroup.controllers": "pids",
		"proc/mountinfo":                               "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
	})
	k := kernel{proc: filepath.Join(dir, "proc")}
	shared, unit := filepath.Join(dir, "x/nuc-web/payload"), filepath.Join(dir, "u/nuc-web.service/payload")
	if text := k.lacking(shared, "web", "pids"); text != "" {
		t.Errorf("it has pids: %s", text)
	}
	oneLine(t, k.lacking(shared, "web", "cpu"), "controller cpu", "other processes are in "+filepath.Join(dir, "x"))
	oneLine(t, k.lacking(shared, "web", "memory"), "controller memory", "version 1")
	oneLine(t, k.lacking(unit, "web", "memory"), "echo +memory >"+filepath.Join(dir, "u/nuc-web.service/cgroup.subtree_control"))
}

func TestEvents(t *testing.T) {
	dir := tree(t, map[string]string{
		"memory.events": "oom 0\noom_kill 0\n", "pids.events": "max 0\n",
		"system.slice/db.service/memory.events":  "oom_kill 2\n",
		"system.slice/web.service/memory.events": "oom_kill 0\n",
	})
	g := &Group{path: Path{Payload: dir}}
	changed := make(chan Events, 16)
	stop, err := g.Watch(func() { changed <- g.Events() })
	if err != nil {
		t.Fatal(err)
	}
	await := func(want Events) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for {
			select {
			case got := <-changed:
				if got == want {
					return
				}
			case <-timeout:
				t.Fatalf("was not told of %+v", want)
			}
		}
	}
	set := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set("memory.events", "oom 2\noom_kill 2\n")
	await(Events{OOMKills: 2})
	set("pids.events", "max 7\n")
	await(Events{OOMKills: 2, TasksRefused: 7})
	if units := g.OOMUnits(); !slices.Equal(units, []string{"db.service"}) {
		t.Errorf("units: %q", units)
	}
	stop()
	set("pids.events", "max 8\n")
	for len(changed) > 0 {
		if got := <-changed; got.TasksRefused == 8 {
			t.Error("told after stop")
		}
	}
	none := &Group{path: Path{Payload: t.TempDir()}}
	if stop, err = none.Watch(func() {}); err != nil {
		t.Error(err)
	}
	stop()
}

// TestOOMKill has the kernel kill, where there is a memory controller to.
func TestOOMKill(t *testing.T) {
	top, err := running().own()
	if err != nil || os.Geteuid() != 0 || !slices.Contains(words(top, "cgroup.controllers"), "memory") {
		t.Skip("needs root, and the memory controller in cgroup v2")
	}
	if enable(top, "memory") != nil || enable(top, "pids") != nil {
		t.Skip("the controllers can't be handed down here")
	}
	dir := filepath.Join(top, "nuc-test-oom")
	if err := mkdir(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = removeUntil(dir, time.Now().Add(5*time.Second)) })
	for name, text := range map[string]string{"memory.max": "16777216", "memory.swap.max": "0"} {
		if err := write(filepath.Join(dir, name), text); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	g := &Group{path: Path{Payload: dir}}
	changed := make(chan struct{}, 64)
	stop, err := g.Watch(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	bomb := exec.Command("sh", "-c", "echo 0 >"+dir+"/cgroup.procs && exec tail /dev/zero")
	if err := bomb.Run(); err == nil {
		t.Fatal("the bomb did not go off")
	}
	for timeout := time.After(10 * time.Second); g.Events().OOMKills == 0; {
		select {
		case <-changed:
		case <-timeout:
			t.Fatal("the kernel did not tell of an OOM kill")
		}
	}
}
