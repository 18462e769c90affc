package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// grace is how long the kernel has to take a killed container down: the time
// in which nuc promises that nothing is left.
const grace = 2 * time.Second

// settle waits until nothing of the test is left, at most grace, and names
// what is left then.
func (h *H) settle() []string {
	leftovers := h.Leftovers()
	for deadline := time.Now().Add(grace); len(leftovers) > 0 && time.Now().Before(deadline); leftovers = h.Leftovers() {
		time.Sleep(20 * time.Millisecond)
	}
	return leftovers
}

// Leftovers names everything of the test's that exists outside its state
// folder: processes, mounts, cgroups, entries of the runtime folder. There is
// none while no container runs.
func (h *H) Leftovers() []string {
	var left []string
	for _, pid := range h.processes() {
		left = append(left, fmt.Sprintf("process %d: %s", pid, describe(pid)))
	}
	left = append(left, h.mounts()...)
	if h.cgroup != nil {
		for _, path := range h.cgroup.left() {
			left = append(left, "cgroup "+path)
		}
	}
	entries, err := os.ReadDir(filepath.Join(h.Runtime, "nuc"))
	if err != nil && !os.IsNotExist(err) {
		left = append(left, err.Error())
	}
	for _, entry := range entries {
		left = append(left, "runtime folder entry "+filepath.Join(h.Runtime, "nuc", entry.Name()))
	}
	return left
}

// processes lists those of the test: all that is in its cgroup, which nothing
// unprivileged can leave, or else all that has its state folder in the
// environment, and their descendants.
func (h *H) processes() []int {
	if h.cgroup != nil {
		return h.cgroup.processes()
	}
	parents := map[int]int{}
	ours := map[int]bool{}
	for _, pid := range pids() {
		parents[pid] = parent(pid)
		environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && strings.Contains("\x00"+string(environment), "\x00XDG_STATE_HOME="+h.State+"\x00") {
			ours[pid] = true
		}
	}
	var found []int
	for pid := range parents {
		for ancestor := pid; ancestor > 1; ancestor = parents[ancestor] {
			if ours[ancestor] {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// mounts lists those below the test's folders, in any mount namespace.
func (h *H) mounts() []string {
	// A login's is a mount itself.
	runtime := filepath.Join(h.Runtime, "nuc")
	var left []string
	seen := map[string]bool{}
	for _, pid := range pids() {
		namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
		if err != nil || seen[namespace] {
			continue
		}
		seen[namespace] = true
		content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
		for _, line := range strings.Split(string(content), "\n") {
			if strings.Contains(line, h.Dir) || strings.Contains(line, runtime) {
				left = append(left, fmt.Sprintf("mount seen by process %d (%s): %s", pid, describe(pid), line))
			}
		}
	}
	return left
}

func pids() []int {
	entries, _ := os.ReadDir("/proc")
	var found []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// parent reads a process's parent from proc(5)'s stat, behind the name, which
// may hold anything.
func parent(pid int) int {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	text := string(content)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	number, _ := strconv.Atoi(fields[1])
	return number
}

func describe(pid int) string {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if text := strings.TrimSpace(strings.ReplaceAll(string(content), "\x00", " ")); err == nil && text != "" {
		return text
	}
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return "[" + strings.TrimSpace(string(name)) + "]"
}

// NothingLeft fails the test if anything outside the state folder is left after
// the time that nuc promises, but what begins with one of the prefixes.
func (h *H) NothingLeft(but ...string) {
	h.Helper()
	for _, what := range h.settle() {
		if !slices.ContainsFunc(but, func(prefix string) bool { return strings.HasPrefix(what, prefix) }) {
			h.Errorf("left %s later: %s", grace, what)
		}
	}
}
