package supervisor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/listener"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// A container with socketActivation runs when somebody wants it:
//
//	            client, exec            ready
//	listening ───────────────▶ starting ─────▶ ready
//	   ▲                          │              │ idleStopSeconds without a client
//	   │  paused ◀────────────────┘              ▼
//	   └────┴─────────────────────────────── stopping
//
// Nobody accepts from its ports but while it is ready: until then clients wait
// in the backlog, and the kernel keeps what they send. A start that failed
// refuses them, and those who come within a pause that grows with each failure.

// phase is how far a run is, as the ports see it.
type phase int

const (
	phaseDown      phase = iota // nothing is served yet
	phaseListening              // no run
	phaseRefusing               // no run, as the last one failed just now
	phaseStarting
	phaseUp
)

// activation is what a supervisor knows of those who want its container.
type activation struct {
	// demand holds a token when somebody other than a port's client wants it.
	demand chan struct{}
	// stirred holds a token when the ports, or who uses them, have changed.
	stirred   chan struct{}
	arranging sync.Mutex

	// The rest is guarded by the Supervisor's mu.
	phase     phase
	entries   []*entry
	unclaimed map[*port]bool
	missing   map[*port]time.Time // since when that is suspected
	uses      int                 // commands that run inside, and others who hold the container
	wholly    bool                // it was asked to end, not only this run
	idle      bool                // this run ends as nobody uses it
	wasUp     bool                // this run has been up
	everUp    bool                // one of them has
	runs      int                 // that have ended
	failures  int                 // of these, since one was up
}

func newActivation() activation {
	return activation{demand: make(chan struct{}, 1), stirred: make(chan struct{}, 1), unclaimed: map[*port]bool{}, missing: map[*port]time.Time{}}
}

// poke puts a token into a channel that has room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *Supervisor) stir() { poke(s.stirred) }

// activated tells whether clients start the container.
func (s *Supervisor) activated() bool {
	return slices.ContainsFunc(s.descriptor().Network.Ports, func(p descriptor.Port) bool { return p.SocketActivation })
}

// final tells, after a run, that no other one is to follow.
func (s *Supervisor) final() bool {
	s.mu.Lock()
	wholly := s.wholly
	s.mu.Unlock()
	return wholly || !s.activated()
}

func (s *Supervisor) enter(p phase) {
	s.mu.Lock()
	s.phase = p
	if p == phaseUp {
		s.wasUp, s.everUp, s.failures = true, true, 0
	}
	s.mu.Unlock()
	s.arrange()
	if p == phaseUp {
		s.confine()
	}
}

// rehearse finds out, without starting anything, what would make a start fail,
// so that `nuc up` and not the first client is told.
func (s *Supervisor) rehearse() error {
	if err := s.settle(); err != nil {
		return err
	}
	_, err := s.plan(s.descriptor())
	return err
}

// awaitClient returns when somebody wants the container, or false when it is to
// end instead.
func (s *Supervisor) awaitClient() bool {
	s.change(func(st *Status) {
		st.State, st.Started = Listening, time.Now()
		st.Doing, st.Waiting, st.Init, st.Seccomp = "", "", 0, ""
	})
	if wanted, over := s.pause(); over || wanted {
		return wanted
	}
	s.enter(phaseListening)
	for s.activated() {
		client, cancel := s.watch()
		var over, wanted bool
		select {
		case <-client:
			wanted = true
		case <-s.demand:
			wanted = true
		case <-s.stirred:
		case <-s.halt:
			over = true
		}
		cancel()
		if over || wanted {
			return wanted
		}
	}
	return true // a switch has made it one that just runs
}

// longestPause is where the pause after failures ends to grow.
const longestPause = time.Minute

// pause refuses clients for a while after a run that failed. Somebody with a
// command is not kept waiting.
func (s *Supervisor) pause() (wanted, over bool) {
	s.mu.Lock()
	failures := s.failures
	s.mu.Unlock()
	if failures == 0 {
		return false, false
	}
	pause := min(time.Second<<min(failures-1, 10), longestPause)
	s.enter(phaseRefusing)
	s.change(func(st *Status) { st.Waiting = fmt.Sprintf("%s to pass before it is tried again", pause) })
	defer s.change(func(st *Status) { st.Waiting = "" })
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return false, false
		case <-s.demand:
			return true, false
		case <-s.stirred:
			if !s.activated() {
				return true, false
			}
		case <-s.halt:
			return false, true
		}
	}
}

// watch tells of a client at one of the ports that start the container, or are
// handed to it. The client is not accepted.
func (s *Supervisor) watch() (client <-chan struct{}, cancel func()) {
	arrived := make(chan struct{}, 1)
	var watching []*os.File
	var all sync.WaitGroup
	for _, p := range s.ports() {
		d := p.target.Load().declared
		if !d.SocketActivation && !d.HandOver {
			continue
		}
		watching = append(watching, p.socket)
		all.Go(func() {
			if readable(p.socket) {
				poke(arrived)
			}
		})
	}
	return arrived, func() {
		for _, f := range watching {
			_ = f.SetReadDeadline(time.Unix(1, 0))
		}
		all.Wait()
		for _, f := range watching {
			_ = f.SetReadDeadline(time.Time{})
		}
	}
}

// readable waits until something can be accepted or received, and leaves it
// there. It returns false when the file is closed or its deadline has passed.
func readable(file *os.File) bool {
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	}) == nil
}

// noteRun remembers how a run ended that another one may follow.
func (s *Supervisor) noteRun(exit state.Exit, err error) {
	s.mu.Lock()
	failed := err != nil || !s.wasUp || !exit.Clean && !s.idle
	reason := exit.Reason
	switch {
	case err != nil:
		reason = err.Error()
	case s.idle && exit.Clean:
		reason = "stopped as nobody used it"
	}
	if failed {
		s.failures++
		reason = "the last start failed: " + reason
		if s.wasUp {
			reason = "the last run failed: " + exit.Reason
		}
	}
	up := s.wasUp
	s.runs++
	s.mu.Unlock()
	if failed {
		s.log.Warn(reason, "container", s.o.Container.Name)
	}
	s.change(func(st *Status) {
		st.Reason = reason
		if failed && !up {
			st.Output = console.Plain(s.console.Tail(), lastLines)
		}
	})
}

// wake starts a container that clients start, and waits until it is up. Others
// are left as they are.
func (s *Supervisor) wake() error {
	if !s.activated() {
		return nil
	}
	changes, cancel := s.subscribe()
	defer cancel()
	asked, before := false, 0
	for {
		s.mu.Lock()
		st, runs, up := s.status, s.runs, s.phase == phaseUp
		s.mu.Unlock()
		switch {
		case up && st.State != Stopping:
			return nil
		case st.State == Listening && !asked:
			asked, before = true, runs
			poke(s.demand)
		case st.State == Listening && runs != before:
			return errors.New(st.Reason)
		}
		select {
		case <-changes:
		case <-s.ended:
			return errNotUp
		}
	}
}

// use keeps the container from being stopped as idle, until done.
func (s *Supervisor) use() (done func()) {
	count := func(by int) {
		s.mu.Lock()
		s.uses += by
		s.mu.Unlock()
		s.stir()
	}
	count(1)
	return func() { count(-1) }
}

// watchIdle stops a container that clients start once nobody has used it for a
// time.
func (s *Supervisor) watchIdle(stopped <-chan struct{}, idle chan<- struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var over <-chan time.Time
		limit := time.Duration(s.descriptor().Network.IdleStopSeconds) * time.Second
		if limit > 0 && s.activated() && !s.used() {
			timer.Reset(limit)
			over = timer.C
		}
		select {
		case <-stopped:
			return
		case <-s.stirred:
			continue
		case <-over:
		}
		if s.used() || s.handedOverUsed() || !s.retire() {
			continue
		}
		s.log.Info("stopping as nobody uses it", "container", s.o.Container.Name)
		close(idle)
		return
	}
}

// retire has all who come from now on wait for the next run, unless there is
// somebody who has come meanwhile; it tells whether.
func (s *Supervisor) retire() bool {
	s.arranging.Lock()
	idle := true
	for _, p := range s.ports() {
		idle = idle && p.restIfIdle()
	}
	s.mu.Lock()
	if idle = idle && s.uses == 0; idle {
		s.idle, s.phase = true, phaseStarting
	}
	s.mu.Unlock()
	s.arranging.Unlock()
	s.arrange()
	return idle
}

// used tells whether anybody is connected to a port or has a command running.
func (s *Supervisor) used() bool {
	s.mu.Lock()
	uses := s.uses
	s.mu.Unlock()
	return uses > 0 || slices.ContainsFunc(s.ports(), func(p *port) bool { return p.open() > 0 })
}

// handedOverUsed asks the kernel for connections that the supervisor has no
// part in.
func (s *Supervisor) handedOverUsed() bool {
	return slices.ContainsFunc(s.handedOver(), func(p *port) bool {
		return listener.Connected(address(p.target.Load().declared, p.number))
	})
}
