package integration

import (
	"slices"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// limitsOf are the kept limits of a container, as JSON without blanks.
func limitsOf(h *harness.H, name string) string {
	h.Helper()
	r := h.Nuc("inspect", name, "--query", "resources")
	return strings.Join(strings.Fields(r.Stdout), "")
}

func TestUpdate(t *testing.T) {
	h := harness.New(t)
	limited := slices.Contains(controllers(h), "memory")
	path := h.Up("web", "trixie", func(d map[string]any) {
		d["resources"] = map[string]any{"tasksMax": 4000, "optional": true}
	})

	// What is wrong is one line, and changes nothing.
	for _, test := range []struct {
		args string
		code int
		want string
	}{
		{"web", 2, "--memory-max"},
		{"web --memory-max 512MB", 2, "write 512M"},
		{"web --memory-max 4K", 2, "resources.memoryMax: 4096"},
		{"web --cpu-quota 150", 2, "write 150%"},
		{"web --cpu-weight 0", 2, "--cpu-weight"},
		{"web --cpu-weight 20000", 2, "resources.cpuWeight: 20000"},
		{"web --tasks-max lots", 2, "--tasks-max"},
		{"web --io-weight -1", 2, "--io-weight"},
		{"wbe --memory-max 1G", 1, "did you mean web?"},
	} {
		r := h.Nuc(append([]string{"update"}, strings.Fields(test.args)...)...)
		if r.Code != test.code || !strings.Contains(r.Stderr, test.want) || strings.Count(r.Stderr, "\n") != 1 {
			h.Errorf("want status %d and one line with %q:\n%s", test.code, test.want, r)
		}
	}
	if got := limitsOf(h, "web"); got != `{"tasksMax":4000,"optional":true}` {
		h.Errorf("the limits are %s", got)
	}

	r := h.Nuc("update", "web", "--memory-max", "512M", "--tasks-max", "none")
	if limited {
		if r.Code != 0 || r.Stdout != "web: generation 2\n" {
			h.Fatalf("%s", r)
		}
		if got := h.Must("exec", "web", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"); got != "536870912\nmax" {
			h.Errorf("memory.max and pids.max are %q", got)
		}
		h.Must("rollback", "web")
		if got := h.Must("exec", "web", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"); got != "max\n4000" {
			h.Errorf("after a rollback, memory.max and pids.max are %q", got)
		}
	} else {
		// Though the container's limits are optional: this one was asked for.
		if r.Code != 1 || !strings.Contains(r.Stderr, "--memory-max: no cgroup controller memory: ") || limitsOf(h, "web") != `{"tasksMax":4000,"optional":true}` {
			h.Errorf("a limit without its controller:\n%s\n%s", r, limitsOf(h, "web"))
		}
	}
	// Taking a limit away needs no controller.
	if got := h.Must("update", "web", "--tasks-max", "none"); !strings.HasPrefix(got, "web: generation ") {
		h.Errorf("%s", got)
	}
	if got := h.Must("update", "web", "--tasks-max", "max"); !strings.HasPrefix(got, "web: nothing changed") {
		h.Errorf("%s", got)
	}

	// Of a container that does not run, the next start has them.
	h.Must("stop", "web")
	if got := h.Must("update", "web", "--memory-max", "1G", "--cpu-quota", "150%", "--cpu-weight", "50", "--memory-high", "900M", "--io-weight", "200"); !strings.Contains(got, "comes up with `nuc up web`") {
		h.Errorf("%s", got)
	}
	if got, want := limitsOf(h, "web"), `{"memoryMax":1073741824,"memoryHigh":943718400,"cpuQuotaPercent":150,"cpuWeight":50,"ioWeight":200,"optional":true}`; got != want {
		h.Errorf("the limits are %s, want %s", got, want)
	}
	h.Must("up", "web")
	if limited {
		if got := h.Must("exec", "web", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max"); got != "1073741824\n150000 100000" {
			h.Errorf("memory.max and cpu.max are %q", got)
		}
	}
	// A reboot inside and a restart keep them.
	h.Must("restart", "web")
	if got := limitsOf(h, "web"); !strings.Contains(got, `"memoryMax":1073741824`) {
		h.Errorf("after a restart the limits are %s", got)
	}

	// What is only set for the next start does not come up with an update.
	h.Must("stop", "web")
	h.Must("up", path)
	h.Descriptor("web", func(d map[string]any) {
		d["root"] = map[string]any{"tree": h.Tree("trixie")}
		d["resources"] = map[string]any{"cpuWeight": 70, "optional": true}
	})
	h.Must("switch", "--boot", "web")
	if r := h.Nuc("update", "web", "--tasks-max", "none"); r.Code != 1 || !strings.Contains(r.Stderr, "nuc restart web") {
		h.Errorf("an update between two generations:\n%s", r)
	}
}

// Limits that were updated hold on when the same descriptor is named again, as
// every entry into a shell does; and a container that was rolled back is joined.
func TestUpAfterUpdate(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", lite)
	h.Must("up", path)
	h.Must("stop", "web")
	// What no controller is here for can be set of a container that is down.
	h.Must("update", "web", "--tasks-max", "500")
	h.Must("update", "web", "--tasks-max", "600")
	r := h.Nuc("up", path)
	if got := limitsOf(h, "web"); got != `{"tasksMax":600}` || r.Code != 0 && !strings.Contains(r.Stderr, "resources.tasksMax") {
		h.Errorf("the limits are %s after\n%s", got, r)
	}
	h.Must("stop", "web")
	h.Must("update", "web", "--tasks-max", "none")
	h.Must("up", path)
	if r := h.Nuc("up", path); r.Code != 0 || r.Stderr != "" {
		h.Errorf("up of a container whose limits were updated: %s", r)
	}
	second := h.OnTree("web", "trixie", func(d map[string]any) {
		lite(d)
		d["network"] = map[string]any{"dns": []string{"127.0.0.1"}}
	})
	h.Must("switch", second)
	h.Must("rollback", "web")
	if r := h.Nuc("up", second); r.Code != 0 || !strings.Contains(r.Stderr, "rolled back") || strings.Count(r.Stderr, "\n") != 1 {
		h.Errorf("up of what was rolled back: %s", r)
	}
	third := h.OnTree("web", "trixie", func(d map[string]any) {
		lite(d)
		d["network"] = map[string]any{"dns": []string{"127.0.0.2"}}
	})
	if r := h.Nuc("up", third); r.Code != 1 || !strings.Contains(r.Stderr, "another descriptor") {
		h.Errorf("up of another descriptor: %s", r)
	}
}
