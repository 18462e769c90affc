package supervisor

import (
	"errors"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

func TestRestarts(t *testing.T) {
	clean, died := state.Exit{Clean: true}, state.Exit{}
	refused := errors.New("no such file")
	tests := []struct {
		name, restart string
		exit          state.Exit
		err           error
		change        func(*Supervisor)
		want          bool
	}{
		{"no", descriptor.RestartNo, died, nil, nil, false},
		{"failed", descriptor.RestartOnFailure, died, nil, nil, true},
		{"refused", descriptor.RestartOnFailure, state.Exit{}, refused, nil, true},
		{"powered off", descriptor.RestartOnFailure, clean, nil, nil, false},
		{"always", descriptor.RestartAlways, clean, nil, nil, true},
		{"stopped", descriptor.RestartAlways, clean, nil, func(s *Supervisor) { s.Stop(false, 0) }, false},
		{"in the foreground", descriptor.RestartAlways, died, nil, func(s *Supervisor) { s.o.Restart = false }, false},
		{"never up, and somebody is told", descriptor.RestartAlways, died, nil, func(s *Supervisor) { s.everUp = false }, false},
		{"never up, and nobody is told", descriptor.RestartAlways, died, nil, func(s *Supervisor) { s.everUp, s.o.Report = false, nil }, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := idle(t)
			s.o.Restart, s.everUp, s.o.Report = true, true, &seqpacket.Conn{}
			s.o.Descriptor.Restart = test.restart
			if test.change != nil {
				test.change(s)
			}
			if got := s.restarts(test.exit, test.err); got != test.want {
				t.Errorf("%t", got)
			}
		})
	}
}

func TestRestartPause(t *testing.T) {
	for short, want := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 1000: time.Minute} {
		if got := restartPause(short); got != want {
			t.Errorf("after %d: %s, want %s", short, got, want)
		}
	}
}

func TestRestIsStopped(t *testing.T) {
	s := idle(t)
	s.short = 6
	s.Stop(false, 0)
	if s.rest(0) {
		t.Error("it is started though it was stopped")
	}
	if st := s.Status(); st.State != Starting || st.Restarts != 1 {
		t.Errorf("%+v", st)
	}
}
