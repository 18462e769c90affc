package integration

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// used is an element of `nuc stats --json`.
type used struct {
	Name              string            `json:"name"`
	CPUPercent        *float64          `json:"cpuPercent"`
	CPUMicroseconds   *uint64           `json:"cpuMicroseconds"`
	MemoryCurrent     *uint64           `json:"memoryCurrent"`
	MemoryOfProcesses bool              `json:"memoryOfProcesses"`
	Tasks             *uint64           `json:"tasks"`
	ReadBytes         *uint64           `json:"readBytes"`
	CPUPressure       *float64          `json:"cpuPressure"`
	Missing           map[string]string `json:"missing"`
	Units             []used            `json:"units"`
}

func stats(h *harness.H, args ...string) []used {
	h.Helper()
	var list []used
	text := h.Must(append([]string{"stats", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		h.Fatalf("nuc stats --json: %v\n%s", err, text)
	}
	return list
}

func TestStats(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		h.Up("idle", tree, func(d map[string]any) {
			d["system"] = map[string]any{"init": "/bin/sleep", "arguments": []string{"600"}}
			d["ready"] = map[string]any{"notify": false}
		})
		// A unit of known size: one busy process that holds 64 MiB at least.
		h.Must("exec", "web", "systemd-run", "--unit=busy", "--", "perl", "-e", `my $x = "x" x (64 << 20); print "ready\n"; 1 while 1`)
		var web, busy used
		harness.Eventually(h, patience, "busy uses CPU and memory", func() bool {
			list := stats(h, "--units", "--interval", "500ms")
			if len(list) != 2 || list[0].Name != "idle" || list[1].Name != "web" {
				h.Fatalf("stats of: %+v", list)
			}
			web = list[1]
			i := slices.IndexFunc(web.Units, func(u used) bool { return u.Name == "busy.service" })
			if i < 0 {
				h.Fatalf("no busy.service among the units: %+v", web.Units)
			}
			busy = web.Units[i]
			return busy.CPUPercent != nil && *busy.CPUPercent > 5 && busy.MemoryCurrent != nil && *busy.MemoryCurrent > 64<<20
		})
		if *busy.CPUPercent > 120 || *busy.MemoryCurrent > 300<<20 || *busy.Tasks != 1 {
			h.Errorf("one busy process with 64 MiB, or a copy or two of them: %.1f%%, %d bytes, %d tasks", *busy.CPUPercent, *busy.MemoryCurrent, *busy.Tasks)
		}
		if *web.CPUMicroseconds < *busy.CPUMicroseconds || *web.MemoryCurrent < *busy.MemoryCurrent || *web.Tasks <= *busy.Tasks {
			h.Errorf("the container uses less than one of its units: %+v, %+v", web, busy)
		}
		if !slices.ContainsFunc(web.Units, func(u used) bool { return u.Name == "nginx.service" }) {
			h.Errorf("no nginx.service among the units: %+v", web.Units)
		}
		// The container's own count, but for the process that counts.
		inside := h.Must("exec", "web", "sh", "-c", "ls -d /proc/[0-9]*/task/[0-9]* | wc -l")
		if n, err := strconv.Atoi(inside); err != nil || n < int(*web.Tasks)-10 || n > int(*web.Tasks)+10 {
			h.Errorf("%s tasks inside, %d by stats", inside, *web.Tasks)
		}
		memory := slices.Contains(controllers(h), "memory")
		if web.MemoryOfProcesses == memory || (web.Missing["memory"] == "") != memory {
			h.Errorf("memory controller: %t; memory: %+v", memory, web)
		}
		if io := slices.Contains(controllers(h), "io"); (web.ReadBytes != nil) != io || (web.Missing["io"] == "") != io {
			h.Errorf("io controller: %t; io: %+v", io, web)
		}
		if _, err := os.Stat("/proc/pressure/cpu"); err == nil && web.CPUPressure == nil {
			h.Errorf("no pressure: %+v", web)
		}

		r := h.Nuc("stats", "web", "--units", "--interval", "100ms")
		if r.Code != 0 || !strings.Contains(r.Stdout, "\n  busy.service ") {
			h.Errorf("%s", r)
		}
		if !memory && (!strings.Contains(r.Stdout, "~") || !strings.Contains(r.Stderr, "~: the processes' own memory (RssAnon) only: no cgroup controller memory: ")) {
			h.Errorf("what the figure of memory is isn't said:\n%s", r)
		}
		h.Must("kill", "idle") // pid 1 ignores what it has no handler for
		if r := h.Nuc("stats", "idle"); r.Code != 1 || !strings.Contains(r.Stderr, "nuc up idle") {
			h.Errorf("stats of a stopped container:\n%s", r)
		}
		if list := stats(h, "--interval", "10ms"); len(list) != 1 {
			h.Errorf("stats without a name: %+v", list)
		}
		if r := h.Nuc("stats", "wbe"); r.Code != 1 || !strings.Contains(r.Stderr, "did you mean web?") {
			h.Errorf("stats of a mistyped name:\n%s", r)
		}
	})
}

// The screen follows the terminal's size and gives the terminal back.
func TestStatsWatch(t *testing.T) {
	h := harness.New(t)
	h.Up("web", "trixie", nil)
	p, terminal := h.StartTerminal(5, 60, "stats", "--watch", "--units", "--interval", "100ms")
	p.WaitOutput("\x1b[?1049h", patience)
	p.WaitOutput("lines more", patience)
	terminal.Resize(200, 160)
	p.WaitOutput("nginx.service", patience)
	terminal.Type("q")
	if r := p.Wait(patience); r.Code != 0 {
		h.Errorf("%s", r)
	}
	harness.Eventually(h, patience, "the alternate screen is left", func() bool { return strings.HasSuffix(p.Output(), "\x1b[?1049l") })
	// In a pipe there is no screen.
	p = h.Start("stats", "--watch", "--json", "--interval", "100ms")
	harness.Eventually(h, patience, "three measurements, one a line", func() bool {
		return strings.Count(p.Output(), "\n") >= 3
	})
	p.Signal(unix.SIGINT)
	p.Wait(patience)
	for line := range strings.Lines(p.Output()) {
		var list []used
		if err := json.Unmarshal([]byte(line), &list); err != nil && strings.HasSuffix(line, "\n") {
			h.Errorf("%v: %q", err, line)
		}
	}
	started := time.Now()
	if r := h.Nuc("stats", "--interval", "1ms"); r.Code != 2 || time.Since(started) > 5*time.Second {
		h.Errorf("an interval of 1ms:\n%s", r)
	}
}
