package supervisor

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/process"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// client is a process that a test leases a container to.
type client struct {
	cmd   *exec.Cmd
	input io.Closer
}

func newClient(t *testing.T) *client {
	t.Helper()
	cmd := exec.Command("cat")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &client{cmd, input}
	t.Cleanup(c.end)
	return c
}

func (c *client) end() {
	c.input.Close()
	_ = c.cmd.Wait()
}

func (c *client) pidfd(t *testing.T) *os.File {
	t.Helper()
	f, err := process.Open(c.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// leased is a supervisor of a container that was started with a lease.
func leased(t *testing.T, keepSeconds int, clients ...*client) *Supervisor {
	t.Helper()
	s := idle(t)
	s.o.Lease = &LeaseOrder{KeepSeconds: keepSeconds}
	for _, c := range clients {
		s.o.LeasedTo = append(s.o.LeasedTo, c.pidfd(t))
	}
	s.begin()
	t.Cleanup(s.endLeases)
	return s
}

func stopped(s *Supervisor, within time.Duration) bool {
	select {
	case <-s.halt:
		return true
	case <-time.After(within):
		return false
	}
}

func await(t *testing.T, s *Supervisor, what string, holds func(*Status) bool) {
	t.Helper()
	changes, cancel := s.subscribe()
	defer cancel()
	for deadline := time.After(10 * time.Second); ; {
		if st := s.Status(); holds(&st) {
			return
		}
		select {
		case <-changes:
		case <-deadline:
			t.Fatalf("not within 10 s: %s: %+v", what, s.Status().Leases)
		}
	}
}

func TestLeases(t *testing.T) {
	a, b := newClient(t), newClient(t)
	s := leased(t, 0, a)
	if err := s.Lease(LeaseOrder{}, b.pidfd(t)); err != nil {
		t.Fatal(err)
	}
	// The same process again is the same lease.
	if err := s.Lease(LeaseOrder{KeepSeconds: 1}, b.pidfd(t)); err != nil {
		t.Fatal(err)
	}
	st := s.Status()
	if len(st.Leases.Leases) != 2 || !st.Leased || !st.StopsAt.IsZero() {
		t.Fatalf("%+v", st.Leases)
	}
	if l := st.Leases.Leases[1]; l.Process != b.cmd.Process.Pid || l.Command != "cat" || l.KeepSeconds != 1 {
		t.Errorf("%+v", l)
	}
	a.end()
	await(t, s, "one lease", func(st *Status) bool { return len(st.Leases.Leases) == 1 })
	if stopped(s, 50*time.Millisecond) {
		t.Fatal("stopped with a lease left")
	}
	begun := time.Now()
	b.end()
	await(t, s, "no lease", func(st *Status) bool { return len(st.Leases.Leases) == 0 && !st.StopsAt.IsZero() })
	if !stopped(s, 10*time.Second) || time.Since(begun) < time.Second {
		t.Errorf("stopped after %s, want the second that the last lease says", time.Since(begun))
	}
	c := newClient(t)
	if err := s.Lease(LeaseOrder{}, c.pidfd(t)); !errors.Is(err, ErrStopping) {
		t.Errorf("a lease on what stops: %v", err)
	}
	if st := s.Status(); !st.StopsAt.IsZero() {
		t.Errorf("%+v", st.Leases)
	}
}

func TestLeaseComesInTime(t *testing.T) {
	a, b := newClient(t), newClient(t)
	s := leased(t, 1, a)
	a.end()
	await(t, s, "it is going to stop", func(st *Status) bool { return !st.StopsAt.IsZero() })
	if err := s.Lease(LeaseOrder{}, b.pidfd(t)); err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); !st.StopsAt.IsZero() || stopped(s, 1200*time.Millisecond) {
		t.Errorf("stopped though it was leased again: %+v", st.Leases)
	}
	// What comes too late to cancel the timer does not find it.
	s.expire(0)
	if stopped(s, 10*time.Millisecond) {
		t.Error("an old timer stopped it")
	}
}

func TestKept(t *testing.T) {
	for name, start := range map[string]func() *Supervisor{
		"started without a lease": func() *Supervisor { return idle(t) },
		"taken over": func() *Supervisor {
			s := leased(t, 0, newClient(t))
			if err := s.Lease(LeaseOrder{Keep: true}); err != nil {
				t.Error(err)
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start()
			defer s.endLeases()
			a := newClient(t)
			if err := s.Lease(LeaseOrder{}, a.pidfd(t)); err != nil {
				t.Fatal(err)
			}
			n := len(s.Status().Leases.Leases)
			if s.Status().Leased {
				t.Error("not kept")
			}
			a.end()
			await(t, s, "the lease ends", func(st *Status) bool { return len(st.Leases.Leases) == n-1 })
			if stopped(s, 50*time.Millisecond) {
				t.Error("stopped by a lease")
			}
		})
	}
}

// A process that has ended before is a lease that has.
func TestLeaseOfEnded(t *testing.T) {
	a := newClient(t)
	pidfd := a.pidfd(t)
	a.end()
	s := idle(t)
	s.o.Lease, s.o.LeasedTo = &LeaseOrder{}, []*os.File{pidfd}
	s.begin()
	defer s.endLeases()
	if !stopped(s, 10*time.Second) {
		t.Error("runs on for a process that had ended")
	}
	s.end(state.Exit{Clean: true, Reason: "powered off"}, nil)
	if st := s.Status(); st.State != Stopped || !strings.Contains(st.Reason, "last lease") {
		t.Errorf("%+v", st)
	}
}

func TestLeaseOfNoProcess(t *testing.T) {
	s := idle(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	a := newClient(t)
	if err := s.Lease(LeaseOrder{}, a.pidfd(t), null, a.pidfd(t)); err == nil || len(s.Status().Leases.Leases) > 0 {
		t.Errorf("%v, %+v", err, s.Status().Leases)
	}
}

func TestLeaseCommand(t *testing.T) {
	s := idle(t)
	defer s.endLeases()
	if err := AddLease(s.o.Container, LeaseOrder{}); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	serve(t, s)
	a := newClient(t)
	pidfd := a.pidfd(t)
	if err := AddLease(s.o.Container, LeaseOrder{KeepSeconds: 3}, pidfd); err != nil {
		t.Fatal(err)
	}
	pidfd.Close()
	st, err := Query(s.o.Container)
	if err != nil || len(st.Leases.Leases) != 1 || st.Leases.Leases[0].Process != a.cmd.Process.Pid {
		t.Errorf("%+v, %v", st, err)
	}
	order, held := HeldLeases(s.o.Container)
	if !order.Keep || order.KeepSeconds != 3 || len(held) != 1 {
		t.Fatalf("%+v, %d pidfds", order, len(held))
	}
	if pid, ok := process.ID(held[0]); pid != a.cmd.Process.Pid || !ok {
		t.Errorf("process %d", pid)
	}
	held[0].Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := AddLease(s.o.Container, LeaseOrder{}, null); err == nil || !strings.Contains(err.Error(), "no pidfd") {
		t.Errorf("a file that is no pidfd: %v", err)
	}
	s.Stop(false, 0)
	if err := AddLease(s.o.Container, LeaseOrder{}); !errors.Is(err, ErrStopping) {
		t.Errorf("%v, want ErrStopping", err)
	}
}

// Who waits for the end of a supervisor that has refused a lease is told of that
// one's, and at once by one that does not stop.
func TestOutlast(t *testing.T) {
	s := idle(t)
	serve(t, s)
	outlast := func() *seqpacket.Conn {
		conn, err := Connect(s.o.Container)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.Send(op(OpOutlast)); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	ends := func(conn *seqpacket.Conn, within time.Duration) error {
		_ = conn.Net().SetReadDeadline(time.Now().Add(within))
		_, err := conn.Receive()
		return err
	}
	if err := ends(outlast(), answerTime); !errors.Is(err, io.EOF) {
		t.Errorf("it does not stop: %v", err)
	}
	s.change(func(st *Status) { st.State = Stopping })
	reboots := outlast()
	if err := ends(reboots, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("init is ending: %v", err)
	}
	s.change(func(st *Status) { st.State = Starting })
	if err := ends(reboots, answerTime); !errors.Is(err, io.EOF) {
		t.Errorf("it has rebooted: %v", err)
	}
	s.Stop(false, 0)
	stops := outlast()
	if err := ends(stops, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it stops for good: %v", err)
	}
	close(s.ended)
	if err := ends(stops, answerTime); !errors.Is(err, io.EOF) {
		t.Errorf("it has ended: %v", err)
	}
}
