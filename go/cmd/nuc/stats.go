package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type statsCommand struct {
	Names    []string      `arg:"" name:"name|project" optional:"" help:"Containers, or projects' folders for all of theirs. Without one, all that run."`
	Units    bool          `help:"The units in each container, too."`
	Watch    bool          `help:"Show it again and again until interrupted."`
	Interval time.Duration `default:"1s" help:"The time over which CPU is measured (500ms, 10s)."`
	JSON     bool          `name:"json" help:"As JSON; with --watch, one array a line."`
}

func (statsCommand) Help() string {
	return `CPU is in percent of one CPU, over the interval; PRESSURE is how much of the last
ten seconds something waited for CPU, memory and disks, in percent. A - stands for
what this host can't tell, with the reason below the table.

Examples:
  nuc stats
  nuc stats web --units
  nuc stats --watch --interval 5s`
}

func (s *statsCommand) Run(c *context) error {
	if s.Interval < 10*time.Millisecond {
		return exitStatus{statusUsage, fmt.Errorf("--interval %s: at least 10ms expected: less is not measured", s.Interval)}
	}
	if s.Watch && !s.JSON {
		var measured meter
		return c.redraw(s.Interval, func(on *context) error { return s.show(on, &measured) })
	}
	var measured meter
	if _, err := s.sample(c, &measured); err != nil {
		return err
	}
	for {
		time.Sleep(s.Interval)
		if err := s.show(c, &measured); err != nil || !s.Watch {
			return err
		}
	}
}

func (s *statsCommand) show(c *context, measured *meter) error {
	list, err := s.sample(c, measured)
	if err != nil {
		return err
	}
	switch {
	case s.JSON && s.Watch:
		return writeJSONLine(c.stdout, list)
	case s.JSON:
		return writeJSON(c.stdout, list)
	}
	return printUsage(c, list)
}

// usage is what a container or a unit uses.
type usage struct {
	Name string `json:"name"`
	// CPUPercent is of one CPU; nil where it was not yet measured twice.
	CPUPercent *float64 `json:"cpuPercent,omitempty"`
	cgroup.Stats
	// Missing says why there is no figure, by what it is a figure of.
	Missing map[string]string `json:"missing,omitempty"`
	Units   []usage           `json:"units,omitempty"`
}

// sample measures the containers that are asked for.
func (s *statsCommand) sample(c *context, measured *meter) ([]usage, error) {
	list, err := c.runningOnes(s.Names)
	if err != nil {
		return nil, err
	}
	return measured.all(list, s.Units), nil
}

// runningOnes are the containers of a list of names and projects that run: a
// name that does not is an error, one of a project is left out. Without
// arguments they are all.
func (c *context) runningOnes(given []string) ([]supervisor.Status, error) {
	containers, err := c.everyOr(given)
	if err != nil {
		return nil, err
	}
	found := make([]*supervisor.Status, len(containers))
	errs := make([]error, len(containers))
	var all sync.WaitGroup
	for i, container := range containers {
		all.Go(func() {
			if found[i], errs[i] = supervisor.Query(container); errs[i] == nil && found[i].State == supervisor.Listening {
				found[i], errs[i] = nil, supervisor.ErrNotRunning
			}
		})
	}
	all.Wait()
	list := []supervisor.Status{}
	for i, st := range found {
		name := containers[i].Name
		switch {
		case st != nil && errs[i] == nil:
			list = append(list, *st)
		case slices.Contains(given, name) && errors.Is(errs[i], supervisor.ErrNotRunning):
			return nil, notRunning(name, errs[i])
		case slices.Contains(given, name):
			return nil, fmt.Errorf("container %s: %w", name, errs[i])
		}
	}
	return list, nil
}

// meter turns two readings of CPU time into a percentage.
type meter struct {
	last map[string]reading // by cgroup
}

type reading struct {
	used uint64
	at   time.Time
}

func (m *meter) all(list []supervisor.Status, units bool) []usage {
	used := make([]usage, 0, len(list))
	next := map[string]reading{}
	for _, st := range list {
		u := m.one(st.Name, st.Cgroup, next)
		u.Missing = missing(&u, st.Cgroup)
		if units && st.Cgroup != "" {
			for _, unit := range cgroup.Units(st.Cgroup) {
				u.Units = append(u.Units, m.one(unit.Name, unit.Path, next))
			}
			slices.SortFunc(u.Units, func(a, b usage) int { return strings.Compare(a.Name, b.Name) })
		}
		used = append(used, u)
	}
	m.last = next
	return used
}

func (m *meter) one(name, dir string, next map[string]reading) usage {
	u := usage{Name: name}
	if dir == "" {
		return u
	}
	u.Stats = cgroup.StatsOf(dir)
	if u.CPUMicroseconds == nil {
		return u
	}
	now := reading{*u.CPUMicroseconds, time.Now()}
	next[dir] = now
	// Less than before is another cgroup of the same name.
	if was, ok := m.last[dir]; ok && now.used >= was.used {
		percent := float64(now.used-was.used) / float64(now.at.Sub(was.at).Microseconds()) * 100
		u.CPUPercent = &percent
	}
	return u
}

// missing says why figures are not there.
func missing(u *usage, dir string) map[string]string {
	why := map[string]string{}
	if dir == "" {
		const no = "the container has no cgroup: `nuc status` says why"
		return map[string]string{"cpu": no, "memory": no, "tasks": no, "io": no, "pressure": no}
	}
	note := func(figure, controller string, there bool) {
		if !there {
			if why[figure] = cgroup.Lacking(dir, u.Name, controller); why[figure] == "" {
				why[figure] = "the kernel does not tell"
			}
		}
	}
	note("cpu", "cpu", u.CPUMicroseconds != nil)
	note("memory", "memory", u.MemoryCurrent != nil && !u.MemoryOfProcesses)
	note("tasks", "pids", u.Tasks != nil)
	note("io", "io", u.ReadBytes != nil)
	if u.CPUPressure == nil || u.MemoryPressure == nil || u.IOPressure == nil {
		why["pressure"] = "the kernel does not count it: boot with psi=1 (CONFIG_PSI)"
	}
	if len(why) == 0 {
		return nil
	}
	return why
}

func printUsage(c *context, list []usage) error {
	rows := [][]string{{"NAME", "CPU", "CPU TIME", "MEMORY", "LIMIT", "TASKS", "LIMIT", "READ", "WRITTEN", "PRESSURE"}}
	for _, u := range list {
		rows = append(rows, u.row(""))
		for _, unit := range u.Units {
			rows = append(rows, unit.row("  "))
		}
	}
	if err := table(c.stdout, rows); err != nil {
		return err
	}
	for _, line := range reasons(list) {
		fmt.Fprintln(c.stderr, printable(line))
	}
	return nil
}

func (u *usage) row(indent string) []string {
	memory, limit, tasks := size(u.MemoryCurrent), size(u.MemoryMax), count(u.TasksMax)
	if limit == "" {
		limit = size(u.MemoryHigh)
	}
	// Without a limit, which can be told from without a controller.
	if limit == "" && u.MemoryCurrent != nil && !u.MemoryOfProcesses {
		limit = "none"
	}
	if tasks == "" && u.TasksRefused != nil {
		tasks = "none"
	}
	if u.MemoryOfProcesses {
		memory = "~" + memory
	}
	return []string{
		indent + u.Name, percent(u.CPUPercent), seconds(u.CPUMicroseconds), memory, limit,
		count(u.Tasks), tasks, size(u.ReadBytes), size(u.WrittenBytes), pressures(u.CPUPressure, u.MemoryPressure, u.IOPressure),
	}
}

// reasons are the lines below the table: each once, with whom it is about
// unless it is about all.
func reasons(list []usage) []string {
	type reason struct{ figure, why string }
	about := map[reason][]string{}
	var order []reason
	for _, u := range list {
		for _, figure := range []string{"cpu", "memory", "tasks", "io", "pressure"} {
			why := u.Missing[figure]
			if why == "" {
				continue
			}
			if figure == "memory" && u.MemoryOfProcesses {
				figure, why = "~", "the processes' own memory (RssAnon) only: "+why
			}
			r := reason{figure, why}
			if about[r] == nil {
				order = append(order, r)
			}
			about[r] = append(about[r], u.Name)
		}
	}
	var lines []string
	for _, r := range order {
		line := r.figure + ": " + r.why
		if len(about[r]) < len(list) {
			line = strings.Join(about[r], ", ") + ": " + line
		}
		lines = append(lines, line)
	}
	return lines
}

func percent(p *float64) string {
	if p == nil {
		return ""
	}
	return strconv.FormatFloat(*p, 'f', 1, 64) + "%"
}

func seconds(microseconds *uint64) string {
	if microseconds == nil {
		return ""
	}
	return strconv.FormatFloat(float64(*microseconds)/1e6, 'f', 1, 64) + "s"
}

func count(n *uint64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatUint(*n, 10)
}

func pressures(cpu, memory, io *float64) string {
	if cpu == nil && memory == nil && io == nil {
		return ""
	}
	var parts []string
	for _, p := range []struct {
		name  string
		value *float64
	}{{"cpu", cpu}, {"mem", memory}, {"io", io}} {
		text := "-"
		if p.value != nil {
			text = strconv.FormatFloat(*p.value, 'f', 0, 64)
		}
		parts = append(parts, p.name+" "+text)
	}
	return strings.Join(parts, " ")
}

// size is a number of bytes as `nuc update` takes it, rounded: 1.5G.
func size(n *uint64) string {
	if n == nil {
		return ""
	}
	value, unit := float64(*n), ""
	for _, u := range []string{"K", "M", "G", "T"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, u
	}
	if unit == "" || value >= 100 {
		return strconv.FormatFloat(value, 'f', 0, 64) + unit
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + unit
}
