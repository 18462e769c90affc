package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats are numbers of the payload; nil is what the kernel does not say, for
// want of a controller.
type Stats struct {
	// MemoryCurrent and MemoryMax are in bytes; MemoryMax is nil without limit.
	MemoryCurrent *uint64 `json:"memoryCurrent,omitempty"`
	MemoryMax     *uint64 `json:"memoryMax,omitempty"`
	// CPUMicroseconds is the time used on all CPUs since the start.
	CPUMicroseconds *uint64 `json:"cpuMicroseconds,omitempty"`
	// Tasks counts processes and threads.
	Tasks *uint64 `json:"tasks,omitempty"`
	// OOMKills counts processes killed for want of memory.
	OOMKills *uint64 `json:"oomKills,omitempty"`
}

// Stats reads the numbers of now.
func (g *Group) Stats() Stats {
	if g.path.Payload == "" {
		return Stats{}
	}
	return StatsOf(g.path.Payload)
}

// StatsOf reads the numbers of a payload by its path (Group.Path).
func StatsOf(payload string) Stats {
	return Stats{
		MemoryCurrent:   value(payload, "memory.current", ""),
		MemoryMax:       value(payload, "memory.max", ""),
		CPUMicroseconds: value(payload, "cpu.stat", "usage_usec"),
		Tasks:           value(payload, "pids.current", ""),
		OOMKills:        value(payload, "memory.events", "oom_kill"),
	}
}

// OOMKills counts the payload's processes that were killed for want of memory;
// 0 without the memory controller.
func (g *Group) OOMKills() uint64 {
	if n := g.Stats().OOMKills; n != nil {
		return *n
	}
	return 0
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
