package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// cycles is how often a container is started and stopped.
const cycles = 1000

// held counts what the kernel holds for the test's user and folders, and what is in
// these.
func held(h *harness.H) map[string]int {
	h.Helper()
	counts := map[string]int{}
	lines := func(path string, of func(line string) bool) int {
		text, err := os.ReadFile(path)
		if err != nil {
			h.Fatal(err)
		}
		n := 0
		for line := range strings.Lines(string(text)) {
			if of(line) {
				n++
			}
		}
		return n
	}
	mine := func(line string) bool {
		return strings.Contains(line, h.Runtime) || strings.Contains(line, h.State) || strings.Contains(line, h.Dir)
	}
	counts["mounts"] = lines("/proc/self/mountinfo", mine)
	counts["sockets"] = lines("/proc/net/unix", mine)
	inodes := map[string]bool{}
	for _, folder := range []string{h.State, h.Runtime, h.Cache} {
		err := filepath.WalkDir(folder, func(path string, e os.DirEntry, err error) error {
			if err == nil {
				counts["files"]++
				if info, err := e.Info(); err == nil {
					inodes[strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)] = true
				}
			}
			return nil
		})
		if err != nil {
			h.Fatal(err)
		}
	}
	counts["locks"] = lines("/proc/locks", func(line string) bool {
		f := strings.Fields(line)
		return len(f) > 5 && inodes[f[5][strings.LastIndexByte(f[5], ':')+1:]]
	})
	counts["processes"] = len(h.Processes())
	folders := 0
	if h.Cgroup != "" {
		_ = filepath.WalkDir(h.Cgroup, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() && !strings.Contains(filepath.Base(path), "command-") { // the tests' own
				folders++
			}
			return nil
		})
	}
	counts["cgroups"] = folders
	return counts
}

// TestCycles starts and stops a container a thousand times: nothing of a cycle may
// be left.
func TestCycles(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", func(d map[string]any) {
		lite(d)
		d["network"] = map[string]any{"outbound": false, "ports": []any{port(harness.FreePort(t), 80)}}
	})
	// The script is one command of the test's, so that it has one cgroup for all.
	script := `i=0; while [ $i -lt "$2" ]; do i=$((i+1)); "$0" up "$1" && "$0" exec web true && "$0" stop web || exit; done`
	run := func(n int) {
		t.Helper()
		if r := h.Host("sh", "-c", script, h.Binary(), path, strconv.Itoa(n)); r.Code != 0 {
			t.Fatalf("%.2000s", r.Stderr)
		}
	}
	run(10)
	before := held(h)
	for done := 0; done < cycles; done += 20 { // each within a command's time
		run(20)
	}
	if after := held(h); !maps.Equal(before, after) {
		t.Errorf("before %d cycles there were %v, and after them %v", cycles, before, after)
	}
}

// own is what the processes of one container hold.
type own struct {
	Files, Threads int
	KiB            int // proportional set size
}

// holds looks at supervisor, keeper and starter.
func holds(h *harness.H, name string) map[string]own {
	h.Helper()
	found := map[string]own{}
	for _, p := range h.Processes() {
		role, of, _ := strings.Cut(p.Command, " ")
		if !strings.HasPrefix(role, "nuc-") || of != name {
			continue
		}
		var o own
		files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.Pid))
		o.Files, o.Threads = len(files), len(threads)
		rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.Pid))
		for line := range strings.Lines(string(rollup)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
				o.KiB, _ = strconv.Atoi(f[1])
			}
		}
		// One that has just gone has none, and a child that is about to execute has the
		// name of its parent.
		if o.Threads > found[role].Threads {
			found[role] = o
		}
	}
	return found
}

// TestReboots has one supervisor and keeper go through a thousand boots.
func TestReboots(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	program := h.Compile("reboot", `#include <unistd.h>
#include <sys/reboot.h>
int main(void) { usleep(1000); return reboot(RB_AUTOBOOT); }`)
	path := h.OnTree("web", "trixie", func(d map[string]any) {
		d["system"] = map[string]any{"init": "/reboot"}
		d["ready"] = map[string]any{"notify": false}
		d["network"] = map[string]any{"outbound": false}
		d["mounts"] = []any{map[string]any{"source": program, "target": "/reboot", "readOnly": true}}
	})
	h.Must("up", "--no-wait", path)
	count := func() int {
		var st struct {
			Reboots int `json:"reboots"`
		}
		if r := h.Nuc("status", "web", "--json"); json.Unmarshal([]byte(r.Stdout), &st) != nil {
			t.Fatalf("%s", r)
		}
		return st.Reboots
	}
	after := func(reboots int) map[string]own {
		t.Helper()
		harness.Eventually(h, 5*time.Minute, fmt.Sprintf("it has rebooted %d times", reboots), func() bool { return count() >= reboots })
		// Some files are open for the boot that is under way: the least is what stays.
		least := holds(h, "web")
		for end := count() + 20; count() < end; {
			for range 10 {
				for role, o := range holds(h, "web") {
					if l, there := least[role]; there && o.Files > 0 {
						least[role] = own{min(l.Files, o.Files), min(l.Threads, o.Threads), min(l.KiB, o.KiB)}
					}
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		return least
	}
	before, late := after(100), after(cycles)
	h.Must("kill", "web")
	for role, b := range before {
		l := late[role]
		if l.Files > b.Files+4 || l.Threads > b.Threads+4 || l.KiB > b.KiB+b.KiB/4+1024 {
			t.Errorf("%s: %+v after 100 reboots, %+v after %d", role, b, l, cycles)
		}
	}
	if len(before) < 2 || len(late) < 2 {
		t.Errorf("supervisor and keeper were not found: %+v, %+v", before, late)
	}
}

// stock is how many sockets a supervisor may have made ahead of connections, more
// or less at any moment.
const stock = 64

// TestSoak has a container used in every way for a time: what its supervisor and
// keeper hold may not grow. `make soak` takes half an hour of it, NUC_SOAK_MEMORY sets the
// time.
func TestSoak(t *testing.T) {
	t.Parallel()
	duration := time.Minute
	if text := os.Getenv("NUC_SOAK_MEMORY"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("NUC_SOAK_MEMORY: %v", err)
		}
	}
	h := harness.New(t)
	number := harness.FreePort(t)
	describe := func(dns string) string {
		return h.OnTree("web", "trixie", func(d map[string]any) {
			d["network"] = map[string]any{"dns": []string{dns}, "ports": []any{port(number, 80)}}
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
			harness.Section(d, "root")["ephemeral"] = true
		})
	}
	h.Must("up", describe("127.0.0.1"))
	var samples []map[string]own
	for begun, round := time.Now(), 0; time.Since(begun) < duration; round++ {
		h.Must("exec", "web", "true")
		h.Must("logs", "-n", "5", "web")
		h.Must("ps", "--json")
		h.Must("stats", "--json", "web")
		h.Must("status", "web")
		for range 20 {
			if r := h.Host("curl", "-fsS", "-o", "/dev/null", "--max-time", "30", fmt.Sprintf("http://127.0.0.1:%d/", number)); r.Code != 0 {
				t.Fatalf("%s", r)
			}
		}
		h.Must("switch", describe(fmt.Sprintf("127.0.0.%d", 1+round%2)))
		one := someone(h)
		h.Must("up", "web", "--lease", pidOf(one))
		one.Signal(9)
		awaitLeases(h, "web", 0)
		if round == 2 {
			h.Reboot("web", patience)
		}
		samples = append(samples, holds(h, "web"))
	}
	if len(samples) < 6 {
		t.Skipf("%d rounds in %s: the machine is too busy to tell", len(samples), duration)
	}
	third := len(samples) / 3
	for role := range samples[0] {
		second, last := median(samples[third:2*third], role), median(samples[2*third:], role)
		t.Logf("%s, %d rounds: %+v, at last %+v", role, len(samples), second, last)
		if last.KiB > second.KiB+second.KiB/10+1024 || last.Files > second.Files+stock+2 || last.Threads > second.Threads+3 {
			t.Errorf("%s holds %+v in the middle and %+v at last", role, second, last)
		}
	}
}

func median(samples []map[string]own, role string) own {
	middle := func(of func(own) int) int {
		var values []int
		for _, s := range samples {
			values = append(values, of(s[role]))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return own{
		middle(func(o own) int { return o.Files }),
		middle(func(o own) int { return o.Threads }),
		middle(func(o own) int { return o.KiB }),
	}
}
