package supervisor

import (
	"fmt"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// A container that has ended by itself is started again by its supervisor, as
// the descriptor's restart says: it is held meanwhile, can be stopped, and says
// what it waits for. For the supervisor itself, its service manager does that.

// restarts tells whether another run is to follow one that has ended.
func (s *Supervisor) restarts(exit state.Exit, err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.o.Restart || s.wholly {
		return false
	}
	if !s.everUp && s.o.Report != nil {
		return false // somebody waits, and is told that it can't be started
	}
	switch s.o.Descriptor.Restart {
	case descriptor.RestartAlways:
		return true
	case descriptor.RestartOnFailure:
		return err != nil || !exit.Clean
	}
	return false
}

// restartPause is how long to wait after so many runs in a row that were short.
func restartPause(short int) time.Duration {
	return min(time.Second<<min(short, 10), longestPause)
}

// rest waits until a container is to be started again. It returns false when it
// is to be stopped instead.
func (s *Supervisor) rest(lasted time.Duration) bool {
	if lasted >= longestPause {
		s.short = 0
	}
	pause := restartPause(s.short)
	s.short++
	s.enter(phaseRefusing)
	s.change(func(st *Status) {
		st.State, st.Doing, st.Init, st.Seccomp = Starting, "", 0, ""
		st.Waiting = fmt.Sprintf("%s to pass before it is started again", pause)
		st.Restarts++
	})
	s.log.Warn("starting again", "container", s.o.Container.Name, "after", pause)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.halt:
		return false
	}
}
