package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/state"
)

// activatable is a supervisor whose one port starts the container. It is not
// served yet.
func activatable(t *testing.T) (s *Supervisor, address string) {
	t.Helper()
	s = idle(t)
	p := tcp(0, 80, 1)
	p.SocketActivation = true
	s.o.Descriptor.Network.Ports = append(s.o.Descriptor.Network.Ports, p)
	if err := s.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, p := range s.ports() {
			p.close()
		}
	})
	return s, fmt.Sprint("127.0.0.1:", s.ports()[0].number)
}

// awaiting calls awaitClient and returns what comes of it.
func awaiting(t *testing.T, s *Supervisor) <-chan bool {
	t.Helper()
	changes, cancel := s.subscribe()
	defer cancel()
	done := make(chan bool, 1)
	go func() { done <- s.awaitClient() }()
	for s.Status().State != Listening {
		<-changes
	}
	return done
}

func hears(t *testing.T, done <-chan bool, want bool) {
	t.Helper()
	select {
	case got := <-done:
		if got != want {
			t.Errorf("it goes on: %t, want %t", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits on")
	}
}

func connectTo(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// asked connects, and reads for a moment. A reset may come before it is seen that
// there is a connection.
func asked(address string) error {
	c, err := net.Dial("tcp4", address)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestAwaitClient(t *testing.T) {
	t.Run("client", func(t *testing.T) {
		s, address := activatable(t)
		done := awaiting(t, s)
		connectTo(t, address)
		hears(t, done, true)
		// It is in the backlog still, and is seen again.
		hears(t, awaiting(t, s), true)
	})
	t.Run("command", func(t *testing.T) {
		s, _ := activatable(t)
		done := awaiting(t, s)
		poke(s.demand)
		hears(t, done, true)
	})
	t.Run("stop", func(t *testing.T) {
		s, _ := activatable(t)
		done := awaiting(t, s)
		s.Stop(false, 0)
		hears(t, done, false)
		if !s.final() {
			t.Error("after a stop, another run may follow")
		}
	})
	t.Run("no such port any more", func(t *testing.T) {
		s, _ := activatable(t)
		done := awaiting(t, s)
		s.mu.Lock()
		d := *s.o.Descriptor
		d.Network.Ports = nil
		s.o.Descriptor = &d
		s.mu.Unlock()
		s.stir()
		hears(t, done, true)
	})
}

// TestPause: after a run that failed, clients are refused for a time, and a
// command is not.
func TestPause(t *testing.T) {
	s, address := activatable(t)
	s.noteRun(state.Exit{}, errors.New("no such tree"))
	done := awaiting(t, s)
	if st := s.Status(); st.Reason != "the last start failed: no such tree" {
		t.Errorf("%+v", st)
	}
	if err := asked(address); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a client in the pause: %v, want ECONNRESET", err)
	}
	select {
	case <-done:
		t.Error("a client that was refused started it")
	default:
	}
	poke(s.demand)
	hears(t, done, true)

	// Once it is over, a client is heard.
	done = awaiting(t, s)
	deadline := time.Now().Add(10 * time.Second)
	for {
		_ = asked(address)
		select {
		case <-done:
			return
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the pause does not end")
		}
	}
}

func TestNoteRun(t *testing.T) {
	tests := []struct {
		name     string
		exit     state.Exit
		err      error
		up, idle bool
		failures int
		reason   string
	}{
		{name: "never started", err: errors.New("no tree"), failures: 1, reason: "the last start failed: no tree"},
		{name: "ended before it was up", exit: state.Exit{Clean: true, Reason: "init exited"}, failures: 1, reason: "the last start failed: init exited"},
		{name: "crashed", exit: state.Exit{Reason: "init was killed by SIGSEGV"}, up: true, failures: 1, reason: "the last run failed: init was killed by SIGSEGV"},
		{name: "powered off inside", exit: state.Exit{Clean: true, Reason: "powered off"}, up: true, reason: "powered off"},
		{name: "idle", exit: state.Exit{Clean: true, Reason: "powered off"}, up: true, idle: true, reason: "stopped as nobody used it"},
		{name: "idle, but did not stop in time", exit: state.Exit{Reason: "killed: it did not stop in time"}, up: true, idle: true, reason: "killed: it did not stop in time"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, _ := activatable(t)
			s.wasUp, s.idle = test.up, test.idle
			s.noteRun(test.exit, test.err)
			if s.failures != test.failures || s.Status().Reason != test.reason || s.runs != 1 {
				t.Errorf("%d failures, %d runs, %q", s.failures, s.runs, s.Status().Reason)
			}
		})
	}
}

// TestWake: who wants the container waits for its start, and learns how it failed.
func TestWake(t *testing.T) {
	s, _ := activatable(t)
	done := awaiting(t, s)
	woken := make(chan error, 1)
	wake := func() { go func() { woken <- s.wake() }() }
	wake()
	hears(t, done, true)
	s.beginRun()
	s.noteRun(state.Exit{}, errors.New("no such tree"))
	done = awaiting(t, s)
	if err := <-woken; err == nil || !strings.Contains(err.Error(), "no such tree") {
		t.Errorf("%v", err)
	}
	wake()
	hears(t, done, true)
	s.beginRun()
	s.enter(phaseUp)
	s.change(func(st *Status) { st.State = Ready })
	if err := <-woken; err != nil {
		t.Error(err)
	}
	// The token of a start that has come is not left for the next wait.
	select {
	case <-s.demand:
		t.Error("a second start is asked for")
	default:
	}
	if s.failures != 0 {
		t.Errorf("%d failures are remembered of a container that came up", s.failures)
	}
}

// TestWatchIdle: a use holds the container, and a time without any ends the run.
func TestWatchIdle(t *testing.T) {
	s, address := activatable(t)
	s.o.Descriptor.Network.IdleStopSeconds = 1
	done := s.use()
	s.enter(phaseUp)
	stopped, idle := make(chan struct{}), make(chan struct{})
	over := make(chan struct{})
	go func() {
		s.watchIdle(stopped, idle)
		close(over)
	}()
	select {
	case <-idle:
		t.Fatal("idle while it is used")
	case <-time.After(1500 * time.Millisecond):
	}
	began := time.Now()
	done()
	select {
	case <-idle:
	case <-time.After(10 * time.Second):
		t.Fatal("never idle")
	}
	<-over
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("idle after %s, want 1 s", took)
	}
	// Clients wait for the next run from then on.
	c := connectTo(t, address)
	_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client that comes after that: %v, want it to wait", err)
	}
}
