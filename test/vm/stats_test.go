package vm

import (
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"
)

// used is an element of `nuc stats --json`.
type used struct {
	Name              string
	CPUPercent        *float64
	CPUMicroseconds   *uint64
	MemoryCurrent     *uint64
	MemoryMax         *uint64
	MemoryOfProcesses bool
	Tasks, TasksMax   *uint64
	ReadBytes         *uint64
	WrittenBytes      *uint64
	CPUPressure       *float64
	Missing           map[string]string
	Units             []used
}

func (s *session) stats(t testing.TB, args string) []used {
	t.Helper()
	var list []used
	text := s.must(t, "nuc stats --json "+args)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return list
}

// TestStats holds figures against those of systemd-cgtop and systemctl, which
// read the same cgroups.
func TestStats(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, web("web", 8080).with("resources", map[string]any{"memoryMax": 600 << 20, "tasksMax": 900}))
	st := ana.status(t, "web")
	ana.must(t, `nuc exec web systemd-run --unit=busy -p CPUQuota=40% -- sh -c 'while :; do :; done'`)
	ana.must(t, `nuc exec web systemd-run --unit=hold -p MemoryMax=300M -- sh -c '(head -c 100M /dev/zero; sleep 1000) | tail'`)
	ana.eventually(t, patience, "test $(cat "+st.Cgroup+"/system.slice/hold.service/memory.current) -ge 104857600 && ! pgrep -x head")
	list := ana.stats(t, "--units --interval 5s")
	if len(list) != 1 || list[0].Name != "web" {
		t.Fatalf("%+v", list)
	}
	web, units := list[0], map[string]used{}
	for _, u := range web.Units {
		units[u.Name] = u
	}
	// Debian's systemd hands a user cpu, memory and pids.
	if len(web.Missing) != 1 || !strings.Contains(web.Missing["io"], "delegate.conf") || web.MemoryOfProcesses || *web.MemoryMax != 600<<20 || *web.TasksMax != 900 {
		t.Errorf("%+v", web)
	}
	if busy := units["busy.service"]; busy.CPUPercent == nil || math.Abs(*busy.CPUPercent-40) > 8 {
		t.Errorf("a unit that gets 40%%: %v", busy.CPUPercent)
	}
	hold := units["hold.service"]
	if hold.MemoryCurrent == nil || *hold.MemoryCurrent < 100<<20 || *hold.MemoryMax != 300<<20 {
		t.Fatalf("a unit that holds 100 MiB: %+v", hold)
	}

	// systemd-cgtop's second table: path, tasks, %CPU, memory.
	top := ana.must(t, "systemd-cgtop --batch --raw --iterations=2 --delay=5 --depth=20 --order=path "+strings.TrimPrefix(st.Cgroup, "/sys/fs/cgroup"))
	// What just started still takes memory: systemd-cgtop's figure is between ours.
	later := map[string]used{}
	now := ana.stats(t, "--units")[0]
	for _, u := range append(now.Units, now) {
		later[u.Name] = u
	}
	tables := strings.Split(strings.TrimSpace(top), "\n\n")
	found := 0
	for line := range strings.Lines(tables[len(tables)-1]) {
		f := strings.Fields(line)
		if len(f) < 4 {
			continue
		}
		var mine used
		switch {
		case strings.HasSuffix(f[0], "/payload"):
			mine = web
		case strings.HasSuffix(f[0], "/busy.service"):
			mine = units["busy.service"]
		case strings.HasSuffix(f[0], "/hold.service"):
			mine = units["hold.service"]
		default:
			continue
		}
		found++
		tasks, _ := strconv.ParseFloat(f[1], 64)
		cpu, _ := strconv.ParseFloat(f[2], 64)
		memory, _ := strconv.ParseFloat(f[3], 64)
		if math.Abs(tasks-float64(*mine.Tasks)) > 3 {
			t.Errorf("%s: %d tasks, systemd-cgtop: %s", mine.Name, *mine.Tasks, f[1])
		}
		if math.Abs(cpu-*mine.CPUPercent) > 12 {
			t.Errorf("%s: %.1f%% CPU, systemd-cgtop: %s", mine.Name, *mine.CPUPercent, f[2])
		}
		before, after := float64(*mine.MemoryCurrent), float64(*later[mine.Name].MemoryCurrent)
		if memory < min(before, after)-16<<20 || memory > max(before, after)+16<<20 {
			t.Errorf("%s: %.0f bytes, and %.0f later; systemd-cgtop: %s", mine.Name, before, after, f[3])
		}
	}
	if found != 3 {
		t.Errorf("systemd-cgtop has %d of the container and two units:\n%s", found, top)
	}
}

// TestLimitsLive gives a running container limits, has it meet them, which is
// told at once and when it has stopped, and takes them back.
func TestLimitsLive(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("web"))
	limits := func() string {
		t.Helper()
		dir := ana.status(t, "web").Cgroup
		return strings.ReplaceAll(ana.must(t, "cd "+dir+" && cat memory.max memory.high pids.max cpu.max cpu.weight"), "\n", " ")
	}
	const none = "max max max max 100000 100"
	if got := limits(); got != none {
		t.Errorf("without limits: %s", got)
	}
	if got := ana.must(t, "nuc update web --memory-max 200M --memory-high 190M --tasks-max 100 --cpu-quota 150% --cpu-weight 50"); got != "web: generation 2" {
		t.Errorf("%q", got)
	}
	const all = "209715200 199229440 100 150000 100000 50"
	if got := limits(); got != all {
		t.Errorf("limits: %s, want %s", got, all)
	}
	ana.must(t, "nuc update web --memory-high none --cpu-quota max --cpu-weight none")
	const some = "209715200 max 100 max 100000 100"
	if got := limits(); got != some {
		t.Errorf("limits: %s, want %s", got, some)
	}

	if text := ana.run(t, "nuc status web").stdout; strings.Contains(text, "shortage") {
		t.Errorf("before anything happened:\n%s", text)
	}
	ana.run(t, `nuc exec web systemd-run --unit=bomb --wait -- sh -c 'sleep 1; dd if=/dev/zero of=/dev/null bs=400M count=1'`)
	ana.eventually(t, patience, `nuc status web | grep -q 'shortage .*want of memory'`)
	if r := ana.run(t, "nuc ps"); !strings.Contains(r.stderr, "web: 1 process was killed for want of memory") || !strings.Contains(r.stdout, "degraded") {
		t.Errorf("%s", r)
	}
	ana.must(t, `nuc exec web systemd-run --unit=fork -p TasksMax=infinity -- sh -c 'for i in $(seq 200); do sleep 100 & done; wait'`)
	ana.eventually(t, patience, `nuc status web | grep -q 'shortage .*resources.tasksMax'`)
	ana.must(t, "nuc stop web")
	if st := ana.status(t, "web"); st.State != "stopped" || !strings.HasPrefix(st.Reason, "powered off; 1 process was killed for want of memory") {
		t.Errorf("%+v", st)
	}

	ana.must(t, "nuc up web")
	if got := limits(); got != some {
		t.Errorf("limits after a new start: %s, want %s", got, some)
	}
	if r := ana.run(t, "nuc status web"); strings.Contains(r.stdout, "shortage") {
		t.Errorf("of a run before: %s", r)
	}
	ana.must(t, "nuc rollback web --to 1")
	if got := limits(); got != none {
		t.Errorf("after a rollback: %s", got)
	}

	// pid 1 itself.
	ana.up(t, descriptor{
		"version": 1, "name": "greedy", "resources": map[string]any{"memoryMax": 64 << 20},
		"system": map[string]any{"init": "/bin/sh", "arguments": []string{"-c", "sleep 2; exec dd if=/dev/zero of=/dev/null bs=400M count=1"}},
		"ready":  map[string]any{"notify": false},
	})
	ana.eventually(t, patience, `nuc ps -a --json greedy | grep -q '"state": "failed"'`)
	if st := ana.status(t, "greedy"); st.Reason != "init was killed by SIGKILL; 1 process was killed for want of memory" {
		t.Errorf("%+v", st)
	}
}
