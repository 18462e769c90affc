package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// upSystem brings a system up for a row, and lets its start calm down.
func upSystem(name string, calm time.Duration) func(*session) error {
	return func(s *session) error {
		s.H.Up(name, debian, func(d map[string]any) { d["root"].(map[string]any)["ephemeral"] = true })
		time.Sleep(calm)
		return nil
	}
}

// execTrue runs a command in a running container, from the shell's view.
func execTrue() *row {
	const name = "bench-exec"
	return &row{
		Name: "exec-true", Unit: "ms", About: "nuc exec NAME /bin/true, beside a start of nuc that does nothing",
		Subjects: []*subject{
			{Name: "nuc", run: nuc("exec", name, "/bin/true")},
			{Name: "nuc version", run: nuc("version")},
		},
		Wanted: []wanted{{AtMost: 3, Of: "nuc version"}},
		runs:   101, warmUps: 3,
		setUp: upSystem(name, 2*time.Second),
	}
}

// idlePSS is the memory that belongs to nuc while a container idles.
func idlePSS() *row {
	const name = "bench-pss"
	return &row{
		Name: "idle-pss", Unit: "MiB", About: "supervisor, starter and keeper of an idle container, proportional set size",
		Subjects: []*subject{
			{Name: "nuc", run: func(s *session) (float64, error) {
				time.Sleep(500 * time.Millisecond)
				return s.each(pss)
			}},
			{Name: "supervisor", part: true, run: func(s *session) (float64, error) { return pss(s.H.Roles().Supervisor) }},
			{Name: "starter", part: true, run: func(s *session) (float64, error) { return pss(s.H.Roles().Starter) }},
			{Name: "keeper", part: true, run: func(s *session) (float64, error) { return pss(s.H.Roles().Keeper) }},
		},
		Wanted: []wanted{{AtMost: 12}},
		runs:   5,
		setUp:  upSystem(name, 8*time.Second),
	}
}

// idleWakeups is how often the two run while there is nothing to do.
func idleWakeups() *row {
	const name = "bench-wakeups"
	const watched = 10 * time.Second
	return &row{
		Name: "idle-wakeups", Unit: "/s", About: "context switches of the supervisor, starter and keeper of an idle container",
		Subjects: []*subject{{Name: "nuc", run: func(s *session) (float64, error) {
			before, err := s.each(contextSwitches)
			if err != nil {
				return 0, err
			}
			time.Sleep(watched)
			after, err := s.each(contextSwitches)
			return (after - before) / watched.Seconds(), err
		}}},
		Wanted: []wanted{{AtMost: 0}},
		runs:   3,
		setUp:  upSystem(name, 8*time.Second),
	}
}

// each sums a figure of the supervisor, the starter and the keeper.
func (s *session) each(figure func(pid int) (float64, error)) (float64, error) {
	roles := s.H.Roles()
	sum := 0.0
	for _, pid := range []int{roles.Supervisor, roles.Starter, roles.Keeper} {
		if pid == 0 {
			continue // as for pss
		}
		one, err := figure(pid)
		if err != nil {
			return 0, err
		}
		sum += one
	}
	return sum, nil
}

// pss reads smaps_rollup (proc(5)), in MiB. The keeper's is root's to read. There
// is no starter where the kernel has no Landlock.
func pss(pid int) (float64, error) {
	if pid == 0 {
		return 0, nil
	}
	kB, err := field(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"), "Pss:")
	return kB / 1024, err
}

// contextSwitches counts what the scheduler did for all threads of a process.
func contextSwitches(pid int) (float64, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("process %d is gone", pid)
	}
	sum := 0.0
	for _, thread := range threads {
		for _, kind := range []string{"voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"} {
			n, err := field(thread, kind)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

// field reads a number from a file of lines "name: number unit".
func field(path, name string) (float64, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
