package main

import (
	gocontext "context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// unitState is a unit's state and the run that it is in.
type unitState struct{ active, invocation string }

// unitStates asks systemd for its units.
func unitStates(container state.Container) map[string]unitState {
	ctx, cancel := gocontext.WithTimeout(gocontext.Background(), 10*time.Second)
	defer cancel()
	out, _, err := supervisor.Run(ctx, container, keeper.Exec{Arguments: []string{
		"systemctl", "show", "--property=Id,ActiveState,InvocationID", "*.service", "*.socket", "*.timer", "*.path", "*.mount", "*.target",
	}})
	if err != nil {
		return nil
	}
	return parseUnits(out)
}

// parseUnits reads blocks of NAME=value lines with a blank line between them.
func parseUnits(out string) map[string]unitState {
	units := map[string]unitState{}
	for _, block := range strings.Split(out, "\n\n") {
		var id string
		var u unitState
		for line := range strings.Lines(block) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			switch name {
			case "Id":
				id = value
			case "ActiveState":
				u.active = value
			case "InvocationID":
				u.invocation = value
			}
		}
		if id != "" {
			units[id] = u
		}
	}
	return units
}

// report says what became of the units.
func (s *switching) report(before, after map[string]unitState) {
	for _, list := range becameOf(before, after) {
		if len(list.units) > 0 {
			fmt.Fprintf(s.c.stdout, "%s: %s: %s\n", s.t.descriptor.Name, list.what, printable(strings.Join(list.units, ", ")))
		}
	}
}

// unitList is units of which one thing is to be said.
type unitList struct {
	what  string
	units []string
}

// isUpOrComing tells a unit that does its work, or is about to.
func (u unitState) isUpOrComing() bool {
	return u.active == "active" || u.active == "activating" || u.active == "reloading"
}

func becameOf(before, after map[string]unitState) []unitList {
	var started, stopped, restarted, failed []string
	for id, now := range after {
		was := before[id]
		up, wasUp := now.isUpOrComing(), was.isUpOrComing()
		switch {
		case now.active == "failed" && was != now:
			failed = append(failed, id)
		case up && !wasUp:
			started = append(started, id)
		case up && was.invocation != now.invocation:
			restarted = append(restarted, id)
		case !up && wasUp:
			stopped = append(stopped, id)
		}
	}
	for id, was := range before {
		if _, there := after[id]; !there && was.isUpOrComing() {
			stopped = append(stopped, id)
		}
	}
	lists := []unitList{{"started", started}, {"restarted", restarted}, {"stopped", stopped}, {"failed", failed}}
	for _, list := range lists {
		slices.Sort(list.units)
	}
	return lists
}
