package supervisor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
)

// Shortage is what the kernel refused the container in this run for want of
// resources.
type Shortage struct {
	// OOMKills counts processes killed for want of memory.
	OOMKills uint64 `json:"oomKills,omitempty"`
	// OOMUnits are the units that they were of, as far as that could be seen:
	// systemd removes the cgroup of a unit that is all gone.
	OOMUnits []string `json:"oomUnits,omitempty"`
	// TasksRefused counts processes and threads that could not be started for
	// resources.tasksMax.
	TasksRefused uint64 `json:"tasksRefused,omitempty"`
}

// Killed says in words what was killed, "" if nothing was.
func (s Shortage) Killed() string {
	if s.OOMKills == 0 {
		return ""
	}
	text := "1 process was killed for want of memory"
	if s.OOMKills > 1 {
		text = fmt.Sprintf("%d processes were killed for want of memory", s.OOMKills)
	}
	if len(s.OOMUnits) > 0 {
		text += " (" + strings.Join(s.OOMUnits, ", ") + ")"
	}
	return text
}

// maxOOMUnits bounds what a container's own names take in a status.
const maxOOMUnits = 16

// add takes the counts of now and the units that were found.
func (s *Shortage) add(e cgroup.Events, units []string) {
	s.OOMKills, s.TasksRefused = max(s.OOMKills, e.OOMKills), max(s.TasksRefused, e.TasksRefused)
	for _, u := range units {
		if !slices.Contains(s.OOMUnits, u) && len(s.OOMUnits) < maxOOMUnits {
			s.OOMUnits = append(s.OOMUnits, u)
		}
	}
}

// watchShortage keeps the status at what the kernel counts.
func (s *Supervisor) watchShortage() {
	stop, err := s.group.Watch(s.readShortage)
	if err != nil {
		s.log.Warn("the status does not tell of processes killed for want of memory until the end", "error", err)
	}
	s.unwatch = stop
}

func (s *Supervisor) readShortage() {
	if s.group == nil {
		return
	}
	e := s.group.Events()
	s.mu.Lock()
	before := s.status.Shortage
	s.mu.Unlock()
	if e.OOMKills == before.OOMKills && e.TasksRefused == before.TasksRefused {
		return
	}
	var units []string
	if e.OOMKills > before.OOMKills {
		units = s.group.OOMUnits()
		s.log.Warn("processes were killed for want of memory", "count", e.OOMKills, "units", units)
	}
	s.change(func(st *Status) {
		// What others hold of the status must not change below them.
		st.OOMUnits = slices.Clone(st.OOMUnits)
		st.add(e, units)
	})
}
