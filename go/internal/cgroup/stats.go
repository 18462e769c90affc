package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats are numbers of a cgroup and all below it; nil is what the kernel does
// not say, for want of a controller (Lacking says why) or of a limit.
type Stats struct {
	// CPUMicroseconds is the time used on all CPUs since the start. The kernel
	// counts it without the cpu controller as well.
	CPUMicroseconds *uint64 `json:"cpuMicroseconds,omitempty"`
	// CPUQuotaPercent is the limit, of one CPU.
	CPUQuotaPercent *float64 `json:"cpuQuotaPercent,omitempty"`
	// MemoryCurrent, MemoryHigh and MemoryMax are in bytes.
	MemoryCurrent *uint64 `json:"memoryCurrent,omitempty"`
	// MemoryOfProcesses: there is no memory controller, and MemoryCurrent is the
	// anonymous memory of the processes (RssAnon, proc_pid_status(5)): without
	// files in the page cache, tmpfs and the kernel's own.
	MemoryOfProcesses bool    `json:"memoryOfProcesses,omitempty"`
	MemoryHigh        *uint64 `json:"memoryHigh,omitempty"`
	MemoryMax         *uint64 `json:"memoryMax,omitempty"`
	// Tasks counts processes and threads.
	Tasks    *uint64 `json:"tasks,omitempty"`
	TasksMax *uint64 `json:"tasksMax,omitempty"`
	// ReadBytes and WrittenBytes are what went to and from disks since the start.
	ReadBytes    *uint64 `json:"readBytes,omitempty"`
	WrittenBytes *uint64 `json:"writtenBytes,omitempty"`
	// Pressure is how much of the last ten seconds some task waited for the
	// resource, in percent (Documentation/accounting/psi.rst).
	CPUPressure    *float64 `json:"cpuPressure,omitempty"`
	MemoryPressure *float64 `json:"memoryPressure,omitempty"`
	IOPressure     *float64 `json:"ioPressure,omitempty"`
	// OOMKills counts processes killed for want of memory, TasksRefused those
	// that could not be started because of TasksMax.
	OOMKills     *uint64 `json:"oomKills,omitempty"`
	TasksRefused *uint64 `json:"tasksRefused,omitempty"`
}

// Stats reads the numbers of now.
func (g *Group) Stats() Stats {
	if g.path.Payload == "" {
		return Stats{}
	}
	return StatsOf(g.path.Payload)
}

// StatsOf reads the numbers of a cgroup by its path (Group.Path, Unit.Path).
func StatsOf(dir string) Stats {
	s := Stats{
		CPUMicroseconds: value(dir, "cpu.stat", "usage_usec"),
		CPUQuotaPercent: quota(dir),
		MemoryCurrent:   value(dir, "memory.current", ""),
		MemoryHigh:      value(dir, "memory.high", ""),
		MemoryMax:       value(dir, "memory.max", ""),
		Tasks:           value(dir, "pids.current", ""),
		TasksMax:        value(dir, "pids.max", ""),
		CPUPressure:     pressure(dir, "cpu.pressure"),
		MemoryPressure:  pressure(dir, "memory.pressure"),
		IOPressure:      pressure(dir, "io.pressure"),
		OOMKills:        value(dir, "memory.events", "oom_kill"),
		TasksRefused:    value(dir, "pids.events", "max"),
	}
	s.ReadBytes, s.WrittenBytes = disks(dir)
	if s.MemoryCurrent == nil || s.Tasks == nil {
		s.count(dir)
	}
	return s
}

// count fills in what the processes themselves tell where a controller is
// missing. Their io is not to be had: /proc/PID/io is for who may trace them.
func (s *Stats) count(dir string) {
	var memory, tasks uint64
	told := false
	walk(dir, func(path string) bool {
		threads, err := os.ReadFile(filepath.Join(path, "cgroup.threads"))
		if err != nil {
			return true
		}
		told = true
		tasks += uint64(strings.Count(string(threads), "\n"))
		if s.MemoryCurrent == nil {
			for _, pid := range processes(path) {
				memory += anonymous(pid)
			}
		}
		return true
	})
	if !told {
		return
	}
	if s.Tasks == nil {
		s.Tasks = &tasks
	}
	if s.MemoryCurrent == nil {
		s.MemoryCurrent, s.MemoryOfProcesses = &memory, true
	}
}

// anonymous is the RssAnon of a process in bytes, 0 of one that is gone.
func anonymous(pid int) uint64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// Unit is a unit of the systemd in a container, by its cgroup.
type Unit struct {
	// Name is the cgroup's, nginx.service; a container chooses it.
	Name string
	Path string
}

// Units lists the units that have a cgroup below a payload: what is no slice,
// and not what is inside of such a unit.
func Units(payload string) []Unit {
	var units []Unit
	walk(payload, func(path string) bool {
		if path == payload || strings.HasSuffix(path, ".slice") {
			return true
		}
		units = append(units, Unit{Name: filepath.Base(path), Path: path})
		return false
	})
	return units
}

// A container can make as many cgroups as it likes, however deep; more than
// these are not looked at.
const (
	maxWalked = 8192
	maxDepth  = 32
)

// walk visits a cgroup and, where visit says so, those below it.
func walk(dir string, visit func(path string) (below bool)) {
	left := maxWalked
	var down func(path string, depth int)
	down = func(path string, depth int) {
		if left--; left < 0 || depth > maxDepth || !visit(path) {
			return
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return // it just went
		}
		for _, e := range entries {
			if e.IsDir() {
				down(filepath.Join(path, e.Name()), depth+1)
			}
		}
	}
	down(dir, 0)
}

// value reads a file that is one number, or lines of a key and a number.
func value(dir, name, key string) *uint64 {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		text := strings.TrimSpace(line)
		if key != "" {
			k, v, _ := strings.Cut(text, " ")
			if k != key {
				continue
			}
			text = v
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil // max
		}
		return &n
	}
	return nil
}

// quota reads cpu.max: a quota and a period in microseconds.
func quota(dir string) *float64 {
	data, err := os.ReadFile(filepath.Join(dir, "cpu.max"))
	if err != nil {
		return nil
	}
	f := strings.Fields(string(data))
	if len(f) != 2 {
		return nil
	}
	quota, err := strconv.ParseFloat(f[0], 64)
	period, perr := strconv.ParseFloat(f[1], 64)
	if err != nil || perr != nil || period <= 0 {
		return nil // max
	}
	percent := quota / period * 100
	return &percent
}

// disks adds io.stat's lines up, one for each device:
// "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func disks(dir string) (read, written *uint64) {
	data, err := os.ReadFile(filepath.Join(dir, "io.stat"))
	if err != nil {
		return nil, nil
	}
	var r, w uint64
	for _, f := range strings.Fields(string(data)) {
		name, text, _ := strings.Cut(f, "=")
		n, err := strconv.ParseUint(text, 10, 64)
		switch {
		case err != nil:
		case name == "rbytes":
			r += n
		case name == "wbytes":
			w += n
		}
	}
	return &r, &w
}

// pressure reads the first line of a file of psi.rst:
// "some avg10=1.50 avg60=0.87 avg300=0.28 total=123".
func pressure(dir, name string) *float64 {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil // EOPNOTSUPP where the kernel was booted with psi=0
	}
	f := strings.Fields(string(data))
	if len(f) < 2 || f[0] != "some" {
		return nil
	}
	text, ok := strings.CutPrefix(f[1], "avg10=")
	percent, err := strconv.ParseFloat(text, 64)
	if !ok || err != nil {
		return nil
	}
	return &percent
}

// Lacking says in one line why the payload of the container of that name has
// nothing of a controller, and how it gets it; "" if it has the controller.
func Lacking(payload, name, controller string) string {
	return running().lacking(payload, name, controller)
}

func (k kernel) lacking(payload, name, controller string) string {
	have := words(payload, "cgroup.controllers")
	for _, c := range have {
		if c == controller {
			return ""
		}
	}
	x := filepath.Dir(payload)
	if inner := "nuc-" + name; filepath.Base(x) == inner || strings.HasPrefix(filepath.Base(x), inner+".") && !strings.HasSuffix(x, ".service") {
		x = filepath.Dir(x)
	}
	g := &Group{path: Path{X: x, Payload: payload}, kernel: k, shared: len(processes(x)) > 0}
	return "no cgroup controller " + controller + ": " + g.remedy(controller)
}
