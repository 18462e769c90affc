package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// However small the screen and however much there is, no more lines are drawn
// than fit, and logs have their part.
func TestBoard(t *testing.T) {
	half := 50.0
	b := &board{
		at: time.Now(), colour: map[string]string{"c1": "36"}, news: make(chan struct{}, 1),
		used: map[string]usage{"c1": {CPUPercent: &half, Stats: cgroup.Stats{MemoryCurrent: number(1 << 30), MemoryMax: number(2 << 30)}}},
	}
	for i := range 30 {
		b.list = append(b.list, supervisor.Status{Name: fmt.Sprintf("c%d", i), State: supervisor.Ready, Supervisor: 1, Started: time.Now()})
	}
	b.list[2].State, b.list[2].Waiting = supervisor.Starting, "evil\x1b[2J.service"
	for i := range 3 * watchLines {
		fmt.Fprintf(entry{b, "c1", new(bool)}, "line\t%d\n", i)
	}
	if n := len(b.log); n < watchLines || n > 2*watchLines {
		t.Errorf("%d lines are kept", n)
	}
	last := fmt.Sprintf("c1 | \x1b[0mline    %d", 3*watchLines-1)
	for rows := 1; rows < 60; rows++ {
		lines := b.draw(rows, 80)
		if len(lines) > max(rows, 3) {
			t.Errorf("%d lines for %d rows", len(lines), rows)
		}
		text := strings.Join(lines, "\n")
		if rows > 6 && !strings.HasSuffix(text, last) {
			t.Errorf("%d rows do not end in the newest line:\n%s", rows, text)
		}
		if strings.Contains(text, "\x1b[2J") {
			t.Errorf("a container commands the terminal:\n%q", text)
		}
	}
	text := strings.Join(b.draw(60, 100), "\n")
	for _, want := range []string{"30 running of 30", "c1    \x1b[32mready\x1b[0m", "50.0%", "1.0G of 2.0G", "\x1b[33mstarting\x1b[0m", `waiting for evil\x1b[2J.service`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if few := strings.Join(b.draw(20, 100), "\n"); !strings.Contains(few, "… ") {
		t.Errorf("what has no place is not told:\n%s", few)
	}
}

func number(n uint64) *uint64 { return &n }
