package cgroup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

// period of a CPU quota, in microseconds: the kernel's default.
const period = 100000

// limit is a value to write into a file of the payload's cgroup.
type limit struct {
	key        string // of the descriptor
	controller string
	file       string
	value      string
}

func limits(r *descriptor.Resources) []limit {
	if r == nil {
		return nil
	}
	var ls []limit
	add := func(value int64, key, controller, file, text string) {
		if value != 0 {
			ls = append(ls, limit{key, controller, file, text})
		}
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	// The soft limit first: the hard one may be below what is in use by then.
	add(r.MemoryHigh, "memoryHigh", "memory", "memory.high", number(r.MemoryHigh))
	add(r.MemoryMax, "memoryMax", "memory", "memory.max", number(r.MemoryMax))
	add(int64(r.CPUQuotaPercent), "cpuQuotaPercent", "cpu", "cpu.max", fmt.Sprintf("%d %d", int64(r.CPUQuotaPercent)*(period/100), period))
	add(int64(r.CPUWeight), "cpuWeight", "cpu", "cpu.weight", number(int64(r.CPUWeight)))
	add(r.TasksMax, "tasksMax", "pids", "pids.max", number(r.TasksMax))
	add(int64(r.IOWeight), "ioWeight", "io", "io.weight", number(int64(r.IOWeight)))
	return ls
}

// bfq turns a weight of 1 to 10000 around 100 into BFQ's 1 to 1000 around 100,
// as systemd does.
func bfq(weight int) int {
	if weight <= 100 {
		return max(weight, 1)
	}
	return min(100+(weight-100)*900/9900, 1000)
}

// Check tells whether Apply can apply every limit. What it can't is an error
// that names limit, controller, cgroup and remedy, or a warning if the limits
// are optional.
func (g *Group) Check(r *descriptor.Resources) (warnings []string, err error) {
	_, warnings, err = g.check(r)
	return warnings, err
}

// Apply sets the limits on the payload, all or, if one can't be, none; optional
// ones as far as possible. It returns what Check returns.
func (g *Group) Apply(r *descriptor.Resources) (warnings []string, err error) {
	return g.apply(r, new(undoing))
}

func (g *Group) apply(r *descriptor.Resources, undo *undoing) (warnings []string, err error) {
	todo, warnings, err := g.check(r)
	if err != nil {
		return warnings, err
	}
	for _, l := range todo {
		if err := undo.write(filepath.Join(g.path.Payload, l.file), l.value); err != nil {
			text := fmt.Sprintf("resources.%s: %s: %q was refused by the kernel: choose another value", l.key, err, l.value)
			if !r.Optional {
				undo.undo()
				return warnings, fmt.Errorf("%s", text)
			}
			warnings = append(warnings, text)
		}
	}
	return warnings, nil
}

// undoing are the files of a cgroup that were written, with what they had.
type undoing []struct{ path, had string }

func (u *undoing) write(path, text string) error {
	had, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := write(path, text); err != nil {
		return err
	}
	*u = append(*u, struct{ path, had string }{path, formerly(string(had))})
	return nil
}

func (u *undoing) undo() {
	for _, w := range slices.Backward(*u) {
		_ = write(w.path, w.had)
	}
}

// formerly is what a file of a cgroup said, as it takes it: those of weights by
// device begin with the word default (io.weight).
func formerly(text string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimPrefix(first, "default ")
}

// Update is Apply for a payload that has the limits of old: those that r does
// not name are lifted, to the kernel's defaults.
func (g *Group) Update(old, r *descriptor.Resources) (warnings []string, err error) {
	if r == nil {
		r = &descriptor.Resources{}
	}
	var undo undoing
	if warnings, err = g.apply(r, &undo); err != nil {
		return warnings, err
	}
	named := map[string]bool{}
	for _, l := range limits(r) {
		named[l.key] = true
	}
	for _, l := range limits(old) {
		if named[l.key] || g.unable(&l, old) != "" {
			continue
		}
		unlimited := "max"
		if strings.HasSuffix(l.file, "weight") {
			unlimited = "100"
		}
		if err := undo.write(filepath.Join(g.path.Payload, l.file), unlimited); err != nil {
			undo.undo()
			return warnings, fmt.Errorf("resources.%s: lifting it: %w", l.key, err)
		}
	}
	return warnings, nil
}

func (g *Group) check(r *descriptor.Resources) (todo []limit, warnings []string, err error) {
	for _, l := range limits(r) {
		text := g.unable(&l, r)
		switch {
		case text == "":
			todo = append(todo, l)
		case r.Optional:
			warnings = append(warnings, text)
		default:
			return nil, nil, fmt.Errorf("%s; or set resources.optional to start without it", text)
		}
	}
	return todo, warnings, nil
}

// unable says why a limit can't be set, and chooses the file that can.
func (g *Group) unable(l *limit, r *descriptor.Resources) string {
	if g.path.Payload == "" {
		return fmt.Sprintf("resources.%s needs the cgroup controller %s: %s", l.key, l.controller, g.missing)
	}
	if has(g.path.Payload, l.file) {
		return ""
	}
	if l.file == "io.weight" && has(g.path.Payload, "io.bfq.weight") {
		l.file, l.value = "io.bfq.weight", strconv.Itoa(bfq(r.IOWeight))
		return ""
	}
	return fmt.Sprintf("resources.%s needs the cgroup controller %s, which cgroup %s does not have: %s",
		l.key, l.controller, g.path.Payload, g.remedy(l.controller))
}

func has(dir, file string) bool {
	_, err := os.Lstat(filepath.Join(dir, file))
	return err == nil
}

// remedy is how the payload gets a controller.
func (g *Group) remedy(controller string) string {
	if slices.Contains(words(g.path.Payload, "cgroup.controllers"), controller) {
		return "this kernel's " + controller + " controller has no such limit (for ioWeight: CONFIG_BLK_CGROUP_IOCOST, or the bfq scheduler)"
	}
	if slices.Contains(words(g.path.X, "cgroup.controllers"), controller) {
		if g.shared && g.kernel.systemd {
			return fmt.Sprintf("other processes are in %s, so it can't be handed down: start with systemd-run --user --scope -p Delegate=yes nuc …", g.path.X)
		}
		if g.shared {
			return fmt.Sprintf("other processes are in %s, so it can't be handed down: start nuc alone in a cgroup: %s", g.path.X, g.kernel.delegation(g.path.X))
		}
		return fmt.Sprintf("enabling it in %s failed: echo +%s >%s", g.path.X, controller, filepath.Join(g.path.X, "cgroup.subtree_control"))
	}
	if g.kernel.inVersion1(controller) {
		return "this host has it in a version 1 hierarchy: boot with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all"
	}
	if g.kernel.systemd {
		return "sudo sh -c 'mkdir -p /etc/systemd/system/user@.service.d && printf \"[Service]\\nDelegate=cpu cpuset io memory pids\\n\" >/etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload', then log in anew"
	}
	return fmt.Sprintf("echo +%s | sudo tee %s, and in each cgroup above it", controller, filepath.Join(filepath.Dir(g.path.X), "cgroup.subtree_control"))
}

// inVersion1 tells whether a controller is taken by cgroup v1.
func (k kernel) inVersion1(controller string) bool {
	if controller == "io" {
		controller = "blkio"
	}
	mounts, err := os.ReadFile(filepath.Join(k.proc, "mountinfo"))
	if err != nil {
		return false
	}
	for line := range bytes.Lines(mounts) {
		_, after, _ := strings.Cut(string(line), " - ")
		if f := strings.Fields(after); len(f) == 3 && f[0] == "cgroup" && slices.Contains(strings.Split(f[2], ","), controller) {
			return true
		}
	}
	return false
}
