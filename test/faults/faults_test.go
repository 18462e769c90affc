// Package faults kills each process of nuc at each step of a start, a command, a
// switch, a stop, a reboot and a removal. The steps are named points at which the
// nuc that it runs stands still (package fault), so no test has to meet a moment.
// So do others have starts that meet there.
package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// What package fault calls them.
const (
	variable = "NUC_FAULT"
	prefix   = "nuc@"
)

// patience is for what takes no time but on a busy machine.
const patience = time.Minute

// What is killed.
const (
	client     = "client"
	supervisor = "supervisor"
	starter    = "starter"
	keeper     = "keeper"
	first      = "init" // of the container, what is to become it included
)

// steps are all points of the package's, by what nuc is doing, and who is there
// to be killed then.
var steps = []struct {
	point   string
	doing   string
	victims []string
}{
	{"spawning", "up", []string{client}},
	{"locked", "up", []string{client, supervisor}},
	{"ordered", "up", []string{client, supervisor}},
	{"claimed", "up", []string{client, supervisor}},
	{"leaves", "up", []string{client, supervisor}},
	{"group", "up", []string{client, supervisor}},
	{"recorded", "up", []string{client, supervisor}},
	{"guarding", "up", []string{client, supervisor, keeper}},
	{"prepared", "up", []string{client, supervisor, keeper}},
	{"cloned", "up", []string{client, supervisor, keeper, first}},
	{"opened", "up", []string{client, supervisor, keeper, first}},
	{"built", "up", []string{client, supervisor, keeper, first}},
	{"execve", "up", []string{client, supervisor, keeper, first}},
	{"started", "up", []string{client, supervisor, keeper, first}},
	{"entered", "exec", []string{client, supervisor, starter, keeper, first}},
	{"forked", "exec", []string{client, supervisor, starter, keeper, first}},
	{"appended", "switch", []string{client, supervisor, starter, keeper, first}},
	{"updating", "switch", []string{client, supervisor, starter, keeper, first}},
	{"taken", "switch", []string{client, supervisor, starter, keeper, first}},
	{"activated", "switch", []string{client, supervisor, starter, keeper, first}},
	{"stopping", "stop", []string{client, supervisor, starter, keeper, first}},
	{"ended", "stop", []string{client, supervisor, starter, keeper}},
	{"leaving", "stop", []string{client, supervisor, starter, keeper}},
	{"dismissed", "stop", []string{client, supervisor, starter}},
	{"noted", "stop", []string{client, supervisor, starter}},
	{"tearing", "stop", []string{client, supervisor, starter}},
	{"aside", "rm", []string{client}},
}

// TestEachPoint fails if a point is added to nuc and not to the steps.
func TestEachPoint(t *testing.T) {
	known := map[string]bool{}
	for _, s := range steps {
		known[s.point] = true
	}
	found := 0
	err := filepath.WalkDir(filepath.Join(harness.Repository(t), "go"), func(path string, e os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, after := range strings.Split(string(text), "fault.At(\"")[1:] {
			point, _, _ := strings.Cut(after, `"`)
			found++
			if !known[point] || len(prefix+point) > 15 {
				t.Errorf("%s: point %q is in no step, or its name is too long", path, point)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found != len(steps) {
		t.Errorf("%d points in nuc, %d steps", found, len(steps))
	}
}

// describe writes a container that is up at once: a shell as init, which powers
// off when it is asked to. Generation makes it differ.
func describe(h *harness.H, generation int) string {
	return h.OnTree("web", "trixie", func(d map[string]any) {
		d["system"] = map[string]any{
			"init": "/bin/sh", "arguments": []string{"-c", `trap 'exit 0' TERM; systemd-notify --ready; echo up; while :; do sleep 0.05; done`},
			"stop": map[string]any{"signal": "SIGTERM"}, "switch": []string{"/bin/echo", fmt.Sprint(generation)},
		}
		d["network"] = map[string]any{"outbound": false, "ports": []any{map[string]any{"host": harness.FreePort(h), "container": 80}}}
	})
}

// still waits for a process of the test's to stand still at a point.
func still(h *harness.H, point string) int {
	h.Helper()
	pid := 0
	harness.Eventually(h, patience, "a process stands still at "+point, func() bool {
		for _, p := range h.Processes() {
			threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/comm", p.Pid))
			for _, comm := range threads {
				if name, err := os.ReadFile(comm); err == nil && strings.TrimSpace(string(name)) == prefix+point {
					pid = p.Pid
					return true
				}
			}
		}
		return false
	})
	return pid
}

// find is the pid of a victim.
func find(h *harness.H, called *harness.Process, victim string) int {
	h.Helper()
	if victim == client {
		return called.Pid()
	}
	for _, p := range h.Processes() {
		if victim == first && p.Init || strings.HasPrefix(p.Command, "nuc-"+victim) {
			return p.Pid
		}
	}
	h.Fatalf("no %s is there to be killed: %+v", victim, h.Processes())
	return 0
}

func TestKilled(t *testing.T) {
	for _, step := range steps {
		for _, victim := range step.victims {
			t.Run(step.doing+"/"+step.point+"/"+victim, func(t *testing.T) {
				t.Parallel()
				h := harness.New(t)
				path := describe(h, 1)
				h.Setenv(variable, step.point)
				command := []string{"up", path}
				if step.doing != "up" {
					h.Must(command...)
				}
				switch step.doing {
				case "exec":
					command = []string{"exec", "web", "sleep", "0.2"}
				case "switch":
					command = []string{"switch", describe(h, 2)}
				case "stop":
					command = []string{"stop", "web"}
				case "rm":
					h.Must("stop", "web")
					command = []string{"rm", "--state", "--yes", "web"}
				}
				called := h.Start(command...)
				at := still(h, step.point)
				h.Setenv(variable, "")
				killed := find(h, called, victim)
				if err := unix.Kill(killed, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if at != killed {
					// It may have gone with the other.
					_ = unix.Kill(at, unix.SIGCONT)
				}
				called.Wait(patience)
				if victim == client || victim == starter {
					// What it began goes on, or was never begun; a container does without its
					// starter. A supervisor may be on its way that nothing is known of yet.
					goes := step.point != "spawning" && step.doing != "stop" && step.doing != "rm"
					harness.Eventually(h, patience, fmt.Sprintf("the container is where it was going (up: %t)", goes), func() bool {
						if goes {
							return h.Status("web") == "ready"
						}
						return len(h.Processes()) == 0
					})
					if goes {
						if r := h.Exec("web", "true"); r.Code != 0 {
							t.Errorf("%s", r)
						}
						h.Must("kill", "web")
					}
				}
				// Whoever looks clears up what supervisor and keeper left, who had
				// both gone; an empty cgroup goes with the next start.
				h.Must("ps", "-a")
				h.NothingLeft("cgroup ")
				if r := h.Nuc("inspect", "web"); r.Code != 0 && !strings.Contains(r.Stderr, "not known") && !strings.Contains(r.Stderr, "never kept") {
					t.Errorf("its state can't be read: %s", r)
				}
				h.Must("up", path)
				h.Must("exec", "web", "true")
				h.Must("stop", "web")
				h.NothingLeft()
				h.Must("rm", "--state", "--yes", "web")
				if left, _ := os.ReadDir(filepath.Join(h.State, "nuc")); len(left) > 0 {
					t.Errorf("rm left %v", left)
				}
			})
		}
	}
}
