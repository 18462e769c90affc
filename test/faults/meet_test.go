package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// opens waits until a process has a file of a kind open for a while, or has ended.
func opens(h *harness.H, p *harness.Process, kind string) {
	h.Helper()
	find := func() string {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid()))
		for _, file := range files {
			if target, err := os.Readlink(file); err == nil && strings.HasPrefix(target, kind) {
				return target
			}
		}
		return ""
	}
	harness.Eventually(h, patience, "it waits with a "+kind, func() bool {
		found := find()
		time.Sleep(100 * time.Millisecond)
		return !p.Running() || found != "" && find() == found
	})
}

// pause has a process stand still, when it does so: of its threads, those that are
// not told go on for a while.
func pause(h *harness.H, p *harness.Process) {
	h.Helper()
	p.Signal(unix.SIGSTOP)
	harness.Eventually(h, patience, "it stands still", func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Pid()))
		for _, thread := range threads {
			if text, err := os.ReadFile(thread); err == nil && !strings.Contains(string(text), "State:\tT") {
				return false
			}
		}
		return true
	})
}

// TestStopMeetsStarts: one that has waited for the end of what stops, and sees it
// late, joins the next start.
func TestStopMeetsStarts(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := describe(h, 1)
	h.Setenv(variable, "ended")
	h.Must("up", path)
	h.Setenv(variable, "")
	stop := h.Start("stop", "web")
	stopping := still(h, "ended")
	up := h.Start("up", path)
	opens(h, up, "socket:")
	for _, p := range []*harness.Process{stop, up} {
		pause(h, p)
	}
	if err := unix.Kill(stopping, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.Must("up", path)
	for _, p := range []*harness.Process{stop, up} {
		p.Signal(unix.SIGCONT)
		if r := p.Wait(patience); r.Code != 0 || r.Duration > patience/2 {
			t.Errorf("%s", r)
		}
	}
	if got := h.Status("web"); got != "ready" {
		t.Errorf("web is %q", got)
	}
}

// TestChangedMeetsStarts: what has another descriptor than at its last start can
// be started twice at once.
func TestChangedMeetsStarts(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	h.Must("up", describe(h, 1))
	h.Must("stop", "web")
	path := describe(h, 2)
	h.Setenv(variable, "claimed")
	starts := []*harness.Process{h.Start("up", path)}
	starting := still(h, "claimed")
	h.Setenv(variable, "")
	starts = append(starts, h.Start("up", path))
	opens(h, starts[1], "anon_inode:inotify")
	// Nor does who comes to stop it have to come again.
	stop := h.Start("stop", "web")
	opens(h, stop, "anon_inode:inotify")
	pause(h, stop)
	if err := unix.Kill(starting, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, p := range starts {
		if r := p.Wait(patience); r.Code != 0 {
			t.Errorf("%s", r)
		}
	}
	stop.Signal(unix.SIGCONT)
	if r := stop.Wait(patience); r.Code != 0 {
		t.Errorf("%s", r)
	}
	if got := h.Status("web"); got != "stopped" {
		t.Errorf("web is %q", got)
	}
}
