package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type updateCommand struct {
	Name       string  `arg:"" help:"Container."`
	MemoryMax  *string `placeholder:"SIZE" help:"Memory beyond which processes are killed: 512M, 2G."`
	MemoryHigh *string `placeholder:"SIZE" help:"Memory beyond which processes are slowed down."`
	CPUQuota   *string `name:"cpu-quota" placeholder:"PERCENT" help:"CPU time, in percent of one CPU: 150%."`
	CPUWeight  *string `name:"cpu-weight" placeholder:"N" help:"Share of the CPU when it is short, 1 to 10000; 100 is the kernel's default."`
	TasksMax   *string `placeholder:"N" help:"Processes and threads at one time."`
	IOWeight   *string `name:"io-weight" placeholder:"N" help:"Share of the disks when they are busy, 1 to 10000; 100 is the kernel's default."`
}

func (updateCommand) Help() string {
	return `Sizes are in bytes, or with K, M, G or T (of 1024); none takes a limit away.
A running container has its new limits at once. They are kept as a new generation,
so they hold after a restart, and nuc rollback takes them back.

Examples:
  nuc update web --memory-max 512M --cpu-quota 150%
  nuc update web --tasks-max none`
}

// resource is a limit as the command line has it.
type resource struct {
	flag       string
	controller string
	given      *string
	parse      func(string) (int64, error)
	set        func(r *descriptor.Resources, value int64)
}

func (u *updateCommand) resources() []resource {
	return []resource{
		{"memory-max", "memory", u.MemoryMax, parseSize, func(r *descriptor.Resources, v int64) { r.MemoryMax = v }},
		{"memory-high", "memory", u.MemoryHigh, parseSize, func(r *descriptor.Resources, v int64) { r.MemoryHigh = v }},
		{"cpu-quota", "cpu", u.CPUQuota, parsePercent, func(r *descriptor.Resources, v int64) { r.CPUQuotaPercent = int(v) }},
		{"cpu-weight", "cpu", u.CPUWeight, parseNumber, func(r *descriptor.Resources, v int64) { r.CPUWeight = int(v) }},
		{"tasks-max", "pids", u.TasksMax, parseNumber, func(r *descriptor.Resources, v int64) { r.TasksMax = v }},
		{"io-weight", "io", u.IOWeight, parseNumber, func(r *descriptor.Resources, v int64) { r.IOWeight = int(v) }},
	}
}

func (u *updateCommand) Run(c *context) error {
	var asked []resource
	values := map[string]int64{}
	var flags []string
	for _, r := range u.resources() {
		flags = append(flags, "--"+r.flag)
		if r.given == nil {
			continue
		}
		value, err := r.parse(*r.given)
		if err != nil {
			return exitStatus{statusUsage, fmt.Errorf("--%s %q: %w", r.flag, *r.given, err)}
		}
		asked, values[r.flag] = append(asked, r), value
	}
	if len(asked) == 0 {
		return exitStatus{statusUsage, fmt.Errorf("nothing to change: give %s; see `nuc update --help`", strings.Join(flags, ", "))}
	}
	t, err := c.kept(u.Name)
	if err != nil {
		return err
	}
	var resources descriptor.Resources
	if t.descriptor.Resources != nil {
		resources = *t.descriptor.Resources
	}
	before := resources
	for _, r := range asked {
		r.set(&resources, values[r.flag])
	}
	changed := *t.descriptor
	changed.Resources = &resources
	if resources == (descriptor.Resources{}) {
		changed.Resources = nil
	}
	t.source = changed.Marshal()
	// The limits have their bounds in the descriptor's rules.
	if t.descriptor, err = descriptor.Read(t.source); err != nil {
		return exitStatus{statusUsage, fmt.Errorf("container %s: %w", t.container.Name, err)}
	}
	number, err := c.changeable(t, asked, values)
	if err != nil {
		return err
	}
	if resources == before {
		fmt.Fprintf(c.stdout, "%s: nothing changed, generation %d\n", t.descriptor.Name, number)
		return nil
	}
	change := &switching{c: c, t: t, limits: true}
	return change.run()
}

// changeable tells why the limits can't be set live, or returns the current
// generation.
func (c *context) changeable(t *target, asked []resource, values map[string]int64) (int, error) {
	name := t.container.Name
	number, _, err := t.container.Current()
	if err != nil {
		return 0, fmt.Errorf("container %s: %w", name, err)
	}
	st, err := supervisor.Query(t.container)
	switch {
	case errors.Is(err, supervisor.ErrNotRunning):
		return number, nil
	case err != nil:
		return 0, fmt.Errorf("container %s: %w", name, err)
	case st.Generation != number:
		return 0, fmt.Errorf("container %s: runs with generation %d, and generation %d is to come up at its next start: `nuc restart %s` or `nuc rollback %s --to %d` first",
			name, st.Generation, number, name, name, st.Generation)
	case st.State == supervisor.Listening: // a client will start it
		return number, nil
	case st.Cgroup == "":
		return 0, fmt.Errorf("container %s: has no cgroup, so no limits: `nuc status %s` says why", name, name)
	}
	for _, r := range asked {
		if values[r.flag] == 0 {
			continue
		}
		if why := cgroup.Lacking(st.Cgroup, name, r.controller); why != "" {
			return 0, fmt.Errorf("container %s: --%s: %s", name, r.flag, why)
		}
	}
	return number, nil
}

// unlimited tells the words that take a limit away.
func unlimited(text string) bool { return text == "none" || text == "max" }

// parseSize reads a size in bytes; 0 is no limit.
func parseSize(text string) (int64, error) {
	if unlimited(text) {
		return 0, nil
	}
	const expected = "expected a size as 512M, 2G or 1073741824 (bytes), or none"
	digits := strings.TrimRight(text, "KMGT")
	shift, known := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange) || err == nil && known && n > math.MaxInt64>>shift:
		return 0, errors.New("is more than any memory: " + expected)
	case err != nil || !known || digits[0] == '+':
		if better := strings.ToUpper(strings.TrimSuffix(strings.TrimSuffix(strings.ReplaceAll(strings.ToLower(text), " ", ""), "b"), "i")); better != text && isSize(better) {
			return 0, errors.New(expected + ": write " + better)
		}
		return 0, errors.New(expected)
	case n == 0:
		return 0, errors.New("a limit of nothing: none takes the limit away")
	}
	return int64(n) << shift, nil
}

func isSize(text string) bool {
	n, err := parseSize(text)
	return err == nil && n > 0
}

// parsePercent reads a percentage; 0 is no limit.
func parsePercent(text string) (int64, error) {
	if unlimited(text) {
		return 0, nil
	}
	digits, found := strings.CutSuffix(text, "%")
	n, err := parseNumber(digits)
	if err == nil && n > 0 && found {
		return n, nil
	}
	const expected = "expected a whole percentage of one CPU as 50% or 150%, or none"
	if err == nil && n > 0 {
		return 0, errors.New(expected + ": write " + text + "%")
	}
	return 0, errors.New(expected)
}

// parseNumber reads a positive number; 0 is no limit.
func parseNumber(text string) (int64, error) {
	if unlimited(text) {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 || text[0] == '+' {
		return 0, errors.New("expected a whole number from 1 on, or none")
	}
	return int64(n), nil
}
