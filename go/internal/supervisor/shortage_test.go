package supervisor

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
)

func TestShortage(t *testing.T) {
	var s Shortage
	if s.Killed() != "" {
		t.Errorf("nothing was killed: %s", s.Killed())
	}
	s.add(cgroup.Events{OOMKills: 1}, nil)
	if want := "1 process was killed for want of memory"; s.Killed() != want {
		t.Errorf("%q, want %q", s.Killed(), want)
	}
	s.add(cgroup.Events{OOMKills: 3, TasksRefused: 2}, []string{"db.service"})
	s.add(cgroup.Events{OOMKills: 2}, []string{"db.service", "web.service"}) // read before the other
	if want := "3 processes were killed for want of memory (db.service, web.service)"; s.Killed() != want || s.TasksRefused != 2 {
		t.Errorf("%q, want %q; %+v", s.Killed(), want, s)
	}
	for i := range 100 {
		s.add(cgroup.Events{}, []string{fmt.Sprintf("hostile-%d.service", i)})
	}
	if len(s.OOMUnits) != maxOOMUnits || !slices.Contains(s.OOMUnits, "web.service") {
		t.Errorf("%d units: %q", len(s.OOMUnits), s.OOMUnits)
	}
}

func TestClassifyShortage(t *testing.T) {
	s := idle(t)
	s.change(func(st *Status) { st.OOMKills, st.OOMUnits = 2, []string{"db.service"} })
	const words = "; 2 processes were killed for want of memory (db.service)"
	if got := s.classify(syscall.WaitStatus(unix.SIGKILL)); got.Clean || got.Reason != "init was killed by SIGKILL"+words {
		t.Errorf("%+v", got)
	}
	if got := s.classify(syscall.WaitStatus(unix.SIGINT)); !got.Clean || got.Reason != "powered off"+words {
		t.Errorf("%+v", got)
	}
}
