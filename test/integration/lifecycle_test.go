package integration

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestReady(t *testing.T) {
	for _, tree := range trees {
		t.Run(tree.name, func(t *testing.T) {
			t.Parallel()
			h := harness.New(t)
			h.Up("web", tree.name, nil)
			if status := h.Status("web"); status != "ready" {
				t.Errorf("after up, web is %q, want ready", status)
			}
			if version := h.Must("exec", "web", "systemctl", "--version"); !strings.HasPrefix(version, "systemd "+tree.systemd) {
				t.Errorf("not the systemd of %s: %s", tree.name, version)
			}
			if r := h.Exec("web", "systemctl", "is-system-running"); r.Stdout != "running\n" {
				failed := h.Exec("web", "systemctl", "list-units", "--failed", "--plain", "--no-legend")
				t.Errorf("the system is %q, want running; failed units:\n%s", r.Stdout, failed.Stdout)
			}
			if name := h.Must("exec", "web", "hostname"); name != "web" {
				t.Errorf("the hostname is %q, want web", name)
			}
			if kind := h.Must("exec", "web", "sh", "-c", "tr '\\0' '\\n' </proc/1/environ"); !slices.Contains(strings.Split(kind, "\n"), "container=nuc") {
				t.Errorf("init's environment has no container=nuc:\n%s", kind)
			}
		})
	}
}

func TestReadyUnits(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, func(d map[string]any) {
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
		})
		if r := h.Exec("web", "systemctl", "is-active", "nginx.service"); r.Code != 0 {
			h.Errorf("web is ready, but nginx.service is %s", r.Stdout)
		}
	})
}

// A unit that never comes is named, in the time that was given.
func TestReadyTimeout(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		path := h.OnTree("web", tree, func(d map[string]any) {
			d["ready"] = map[string]any{"units": []string{"absent.service"}, "timeoutSeconds": 10}
		})
		r := h.Nuc("up", path)
		if r.Code == 0 || !strings.Contains(r.Stderr, "absent.service") {
			h.Errorf("up with a unit that isn't there: want a failure that names absent.service:\n%s", r)
		}
		if r.Duration > patience {
			h.Errorf("up took %s of the 10 s it had", r.Duration)
		}
	})
}

func TestConsole(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		p := h.Start("start", h.OnTree("web", tree, nil))
		p.WaitOutput("Welcome to", 2*patience)
		p.WaitOutput("Multi-User System", 2*patience)
		h.WaitState("web", patience, "ready")
		p.Signal(unix.SIGINT)
		if r := p.Wait(patience); r.Code != 0 {
			h.Errorf("after one Ctrl-C: want status 0\n%s", r)
		}
		h.NothingLeft()
	})
}

func TestSecondInterruptKills(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		p := h.Start("start", h.OnTree("web", tree, nil))
		h.WaitState("web", 2*patience, "ready")
		stubborn(h, "web")
		p.Signal(unix.SIGINT)
		h.WaitState("web", patience, "stopping")
		p.Signal(unix.SIGINT)
		if r := p.Wait(patience); r.Code != 3 {
			h.Errorf("after a second Ctrl-C: want status 3\n%s", r)
		}
		h.NothingLeft()
	})
}

func TestPowerOffInside(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		p := h.Start("start", h.OnTree("web", tree, nil))
		h.WaitState("web", 2*patience, "ready")
		h.Exec("web", "systemctl", "poweroff")
		if r := p.Wait(patience); r.Code != 0 {
			h.Errorf("after a poweroff inside: want status 0\n%s", r)
		}
	})
}

func TestStop(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		r := h.Nuc("stop", "web")
		if r.Code != 0 || r.Duration > 20*time.Second {
			h.Errorf("a stop in time:\n%s", r)
		}
		if status := h.Status("web"); status != "stopped" {
			h.Errorf("after stop, web is %q, want stopped", status)
		}
		h.NothingLeft()
	})
}

// A systemd that has just been executed has no handlers yet, and loses a signal.
func TestStopAtOnce(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		path := h.OnTree("web", tree, nil)
		for range 3 {
			h.Must("up", "--no-wait", path)
			if r := h.Nuc("stop", "web"); r.Code != 0 || r.Duration > 20*time.Second {
				h.Errorf("stopped while it was starting: %s", r)
			}
			if status := h.Status("web"); status != "stopped" {
				h.Errorf("after stop, web is %q", status)
			}
		}
	})
}

func TestStopTimeout(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, func(d map[string]any) {
			harness.Section(d, "system")["stop"] = map[string]any{"timeoutSeconds": 3}
		})
		stubborn(h, "web")
		r := h.Nuc("stop", "web")
		if r.Duration < 3*time.Second || r.Duration > 15*time.Second {
			h.Errorf("a stop with a timeout of 3 s:\n%s", r)
		}
		if status := h.Status("web"); status != "failed" {
			h.Errorf("after the timeout, web is %q, want failed", status)
		}
		h.Must("up", "web")
		stubborn(h, "web")
		if r := h.Nuc("restart", "web"); r.Code != 0 || !strings.Contains(r.Stderr, "did not stop in time") || h.Status("web") != "ready" {
			h.Errorf("a restart of what doesn't stop: want it up again, and told\n%s", r)
		}
		h.Must("kill", "web")
		h.NothingLeft()
	})
}

func TestRebootInside(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		before := h.Roles()
		h.Must("exec", "web", "touch", "/run/before", "/var/lib/before")
		h.Exec("web", "systemctl", "reboot")
		harness.Eventually(h, 2*patience, "the container comes back", func() bool {
			return h.Exec("web", "test", "!", "-e", "/run/before").Code == 0
		})
		h.WaitState("web", 2*patience, "ready")
		if r := h.Exec("web", "test", "-e", "/var/lib/before"); r.Code != 0 {
			h.Errorf("the reboot lost a file of the root:\n%s", r)
		}
		after := h.Roles()
		if after.Supervisor != before.Supervisor || after.Init == before.Init {
			h.Errorf("a reboot keeps the supervisor and has a new init: before %+v, after %+v", before, after)
		}
	})
}

func TestKilled(t *testing.T) {
	victims := map[string]func(harness.Roles) int{
		"supervisor": func(r harness.Roles) int { return r.Supervisor },
		"keeper":     func(r harness.Roles) int { return r.Keeper },
		"init":       func(r harness.Roles) int { return r.Init },
	}
	for name, victim := range victims {
		t.Run(name, func(t *testing.T) {
			onTrees(t, func(h *harness.H, tree string) {
				h.Up("web", tree, nil)
				if err := unix.Kill(victim(h.Roles()), unix.SIGKILL); err != nil {
					h.Fatal(err)
				}
				h.NothingLeft()
				if status := h.Status("web"); status != "failed" {
					h.Errorf("web is %q, want failed", status)
				}
				h.Must("up", "web")
				h.Must("exec", "web", "true")
			})
		})
	}
}

func TestStartReportsInitDeath(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		p := h.Start("start", h.OnTree("web", tree, nil))
		h.WaitState("web", 2*patience, "ready")
		if err := unix.Kill(h.Roles().Init, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
		if r := p.Wait(patience); r.Code != 3 {
			h.Errorf("start, after init was killed: want status 3\n%s", r)
		}
	})
}

func TestTwoContainers(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		one, two := h.OnTree("one", tree, nil), h.OnTree("two", tree, nil)
		h.Must("up", one, two)
		for _, name := range []string{"one", "two"} {
			if got := h.Must("exec", name, "hostname"); got != name {
				h.Errorf("the hostname of %s is %q", name, got)
			}
		}
		h.Must("exec", "one", "touch", "/var/lib/one")
		if r := h.Exec("two", "test", "!", "-e", "/var/lib/one"); r.Code != 0 {
			h.Error("two sees a file that one wrote")
		}
		h.Must("stop", "one")
		if one, two := h.Status("one"), h.Status("two"); one != "stopped" || two != "ready" {
			h.Errorf("after stop one: one is %q, two is %q", one, two)
		}
	})
}

func TestTwentyStartsOfOneName(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		path := h.OnTree("web", tree, nil)
		starts := make([]*harness.Process, 20)
		for i := range starts {
			starts[i] = h.Start("start", path)
		}
		h.WaitState("web", 2*patience, "ready")
		running := func() (n int) {
			for _, p := range starts {
				if p.Running() {
					n++
				}
			}
			return n
		}
		harness.Eventually(h, patience, "one of 20 starts is left", func() bool { return running() <= 1 })
		if running() != 1 {
			h.Fatal("none of 20 starts runs")
		}
		h.Roles() // fails if there are two inits
		holder := 0
		for _, p := range starts {
			if p.Running() {
				holder = p.Pid()
			}
		}
		for _, p := range starts {
			if p.Running() {
				continue
			}
			r := p.Wait(0)
			if r.Code == 0 || !strings.Contains(r.Stdout, strconv.Itoa(holder)) {
				h.Errorf("a start that lost must fail and name the holder, process %d:\n%s", holder, r)
			}
		}
	})
}
