package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/process"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// A container that was started with a lease runs as long as one of the leased
// processes lives, and a while longer:
//
//	            the last process ends             keepSeconds
//	held ───────────────────────────▶ lingering ─────────────▶ stopping
//	  ▲            another lease          │
//	  ├───────────────────────────────────┘
//	  └──▶ kept: somebody has started it without a lease, and stops it as well
//
// Leases of a container that is kept are counted all the same: they are shown.

// Lease is a process that a container runs for.
type Lease struct {
	Process int    `json:"pid"`
	Command string `json:"command"`
	// KeepSeconds is how long the container runs on if this is the last one.
	KeepSeconds int `json:"keepSeconds"`
}

// Leases says for whom a container runs.
type Leases struct {
	Leases []Lease `json:"leases,omitempty"`
	// Leased containers are stopped when the last lease has ended.
	Leased bool `json:"leased,omitempty"`
	// StopsAt is when one is stopped that has no lease any more.
	StopsAt time.Time `json:"stopsAt,omitzero"`
}

// LeaseOrder asks for leases on the processes whose pidfds come with it, or,
// with Keep, that the container is kept without any.
type LeaseOrder struct {
	KeepSeconds int  `json:"keepSeconds,omitempty"`
	Keep        bool `json:"keep,omitempty"`
}

// leases are guarded by the Supervisor's mu.
type leases struct {
	held   []*heldLease
	leased bool
	// linger runs between the end of the last lease and the stop; epoch tells it
	// from one that was cancelled too late.
	linger *time.Timer
	epoch  int
	// expired is set once the container stops for want of a lease.
	expired bool
}

type heldLease struct {
	Lease
	pidfd *os.File
}

// maxHeld is how many leases there are at most: a restart takes all of them along
// in one message.
const maxHeld = seqpacket.MaxFDs

// ErrStopping is returned for a lease on a container that stops for good.
var ErrStopping = errors.New("it is just stopping")

// Lease holds leases on processes, whose pidfds it takes over, or keeps the
// container without. A process that has ended already counts as ended.
func (s *Supervisor) Lease(order LeaseOrder, pidfds ...*os.File) error {
	var added []*heldLease
	for i, f := range pidfds {
		pidfd, err := process.New(f)
		if err != nil {
			for _, l := range added {
				l.pidfd.Close()
			}
			for _, f := range pidfds[i+1:] {
				f.Close()
			}
			return err
		}
		pid, _ := process.ID(pidfd)
		added = append(added, &heldLease{Lease{pid, process.Command(pidfd), order.KeepSeconds}, pidfd})
	}
	s.mu.Lock()
	if s.wholly {
		s.mu.Unlock()
		for _, l := range added {
			l.pidfd.Close()
		}
		return ErrStopping
	}
	if len(s.held)+len(added) > maxHeld {
		s.mu.Unlock()
		for _, l := range added {
			l.pidfd.Close()
		}
		return fmt.Errorf("it has %d leases already, and %d are the most", len(s.held), maxHeld)
	}
	if order.Keep {
		s.leased = false
	}
	s.stayUp()
	defer s.showLeases()
	var double []*heldLease
	for _, l := range added {
		// A number is one process's as long as that process lives.
		same := slices.IndexFunc(s.held, func(h *heldLease) bool {
			pid, _ := process.ID(h.pidfd)
			return pid != 0 && pid == l.Process
		})
		if same >= 0 {
			s.held[same].KeepSeconds = l.KeepSeconds
			double = append(double, l)
			continue
		}
		s.held = append(s.held, l)
		go s.awaitLease(l)
	}
	s.lingerOn(order.KeepSeconds)
	s.mu.Unlock()
	for _, l := range double {
		l.pidfd.Close()
	}
	return nil
}

// begin holds the leases that the container is started with.
func (s *Supervisor) begin() {
	if s.o.Lease == nil {
		return
	}
	s.mu.Lock()
	s.leased = !s.o.Lease.Keep
	s.mu.Unlock()
	if err := s.Lease(*s.o.Lease, s.o.LeasedTo...); err != nil && !errors.Is(err, ErrStopping) {
		s.warn("no lease: " + err.Error())
		s.mu.Lock()
		s.leased = false
		s.mu.Unlock()
	}
}

// stayUp takes back that the container is going to be stopped.
func (s *Supervisor) stayUp() {
	if s.linger != nil {
		s.linger.Stop()
		s.linger = nil
	}
	s.epoch++
}

// awaitLease ends a lease with its process.
func (s *Supervisor) awaitLease(l *heldLease) {
	if process.Wait(l.pidfd) != nil {
		return // the container has ended
	}
	s.mu.Lock()
	i := slices.Index(s.held, l)
	if i < 0 {
		s.mu.Unlock()
		return
	}
	s.held = slices.Delete(s.held, i, i+1)
	l.pidfd.Close()
	s.lingerOn(l.KeepSeconds)
	s.mu.Unlock()
	s.showLeases()
}

// lingerOn has a leased container without leases stopped in a while.
func (s *Supervisor) lingerOn(seconds int) {
	if len(s.held) > 0 || !s.leased {
		return
	}
	s.epoch++
	epoch, left := s.epoch, time.Duration(seconds)*time.Second
	s.linger = time.AfterFunc(left, func() { s.expire(epoch) })
	s.status.StopsAt = time.Now().Add(left)
}

// expire stops the container unless somebody wants it again.
func (s *Supervisor) expire(epoch int) {
	s.mu.Lock()
	if s.epoch != epoch || s.wholly {
		s.mu.Unlock()
		return
	}
	s.expired, s.wholly = true, true // from now on nobody gets a lease
	s.linger = nil
	s.mu.Unlock()
	s.showLeases()
	s.log.Info("stopping as the last lease has ended", "container", s.o.Container.Name)
	s.Stop(false, 0)
}

// showLeases puts the leases into the status.
func (s *Supervisor) showLeases() {
	s.change(func(st *Status) {
		st.Leases.Leases, st.Leased = nil, s.leased
		for _, l := range s.held {
			st.Leases.Leases = append(st.Leases.Leases, l.Lease)
		}
		if s.linger == nil {
			st.StopsAt = time.Time{}
		}
	})
}

// endLeases lets go of all, when the container has ended.
func (s *Supervisor) endLeases() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wholly = true
	s.stayUp()
	for _, l := range s.held {
		l.pidfd.Close()
	}
	s.held = nil
}

// answerLease serves OpLease.
func (s *Supervisor) answerLease(m *seqpacket.Message, c *Command) keeper.Reply {
	pidfds := m.TakeAll()
	var order LeaseOrder
	if c.Lease != nil {
		order = *c.Lease
	}
	if err := s.Lease(order, pidfds...); err != nil {
		return keeper.Reply{Kind: keeper.Failed, Error: err.Error(), Status: 125}
	}
	return keeper.Reply{Kind: keeper.Started}
}

// answerLeases serves OpLeases.
func (s *Supervisor) answerLeases(conn *seqpacket.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := LeaseOrder{Keep: !s.leased}
	var pidfds []*os.File
	for _, l := range s.held {
		order.KeepSeconds = max(order.KeepSeconds, l.KeepSeconds)
		pidfds = append(pidfds, l.pidfd)
	}
	_ = conn.Send(order, pidfds...)
}

// HeldLeases returns the leases of a running container, for its next start: a
// container that does not run is one that is kept.
func HeldLeases(c state.Container) (LeaseOrder, []*os.File) {
	kept := LeaseOrder{Keep: true}
	conn, err := Connect(c)
	if err != nil {
		return kept, nil
	}
	defer conn.Close()
	_ = conn.Net().SetDeadline(time.Now().Add(2 * time.Second))
	if conn.Send(Command{Request: keeper.Request{Op: OpLeases}}) != nil {
		return kept, nil
	}
	m, err := conn.Receive()
	if err != nil {
		return kept, nil
	}
	defer m.Close()
	var order LeaseOrder
	if m.Decode(&order) != nil {
		return kept, nil
	}
	return order, m.TakeAll()
}

// AddLease asks a running container's supervisor for leases. It is ErrStopping
// where it stops for good, ErrNotRunning where it has none.
func AddLease(c state.Container, order LeaseOrder, pidfds ...*os.File) error {
	conn, err := Connect(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.Net().SetDeadline(time.Now().Add(2 * time.Second))
	if err := conn.Send(Command{Request: keeper.Request{Op: OpLease}, Lease: &order}, pidfds...); err != nil {
		return gone(err)
	}
	m, err := conn.Receive()
	if err != nil {
		return gone(err)
	}
	defer m.Close()
	var r keeper.Reply
	switch err := m.Decode(&r); {
	case err != nil:
		return err
	case r.Kind == keeper.Started:
		return nil
	case r.Error == ErrStopping.Error():
		return ErrStopping
	}
	return errors.New(r.Error)
}
