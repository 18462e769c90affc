package supervisor

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/process"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// killed is why init was killed if that was asked for.
const killed = "killed"

// classify says how init ended.
func (s *Supervisor) classify(status syscall.WaitStatus) state.Exit {
	exit := state.Exit{Time: time.Now()}
	forced := s.why()
	switch {
	case forced != "":
		exit.Asked, exit.Reason = forced == killed, forced
	case status.Signaled() && status.Signal() == unix.SIGINT:
		exit.Clean, exit.Reason = true, "powered off"
	case status.Exited() && status.ExitStatus() == 0:
		exit.Clean, exit.Reason = true, "init exited"
	case status.Exited():
		exit.Reason = fmt.Sprintf("init exited with status %d", status.ExitStatus())
	default:
		exit.Reason = fmt.Sprintf("init was killed by %s", unix.SignalName(status.Signal()))
	}
	s.readShortage()
	if victims := s.Status().Killed(); victims != "" {
		exit.Reason += "; " + victims
	}
	return exit
}

func (s *Supervisor) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forced
}

// boot starts init once and waits for its end.
func (s *Supervisor) boot(b keeper.Boot) (syscall.WaitStatus, error) {
	reply, peer, err := seqpacket.Pair()
	if err != nil {
		return 0, err
	}
	defer reply.Close()
	fds := []*os.File{peer}
	if payload := s.group.Payload(); payload != nil {
		fds = append(fds, payload)
	}
	for _, p := range s.handedOver()[:b.Listeners] {
		fds = append(fds, p.socket)
	}
	s.enter(phaseStarting)
	s.forgetUnclaimed()
	select { // an earlier init's word
	case <-s.announced:
	default:
	}
	begun := time.Now()
	err = s.ask(keeper.Request{Op: keeper.OpBoot, Boot: &b}, fds...)
	peer.Close()
	if err != nil {
		return 0, fmt.Errorf("keeper: %w", err)
	}
	m, r, err := receive(reply)
	if err != nil {
		return 0, err
	}
	if r.Kind != keeper.Started || len(m.FDs) != 3 {
		m.Close()
		return 0, errors.New(r.Error)
	}
	pidfd, slave := m.Take(0), m.Take(2)
	// Held open so that the console outlives every process that has it open.
	defer slave.Close()
	terminal, err := console.Pollable(m.Take(1))
	if err != nil {
		return 0, err
	}
	fault.At("started")
	s.adopt(pidfd)
	s.change(func(st *Status) { st.Seccomp = filterName(b.Unfiltered) })
	pumped := make(chan struct{})
	go func() {
		_ = console.Pump(&s.console, terminal)
		close(pumped)
	}()
	stopped := make(chan struct{})
	idle := make(chan struct{})
	go s.serveStop(pidfd, stopped, idle)
	go s.watchHandedOver(stopped)
	ready := make(chan struct{})
	go func() {
		s.awaitReady(begun, stopped)
		s.watchIdle(stopped, idle)
		close(ready)
	}()

	m, r, err = receive(reply)
	fault.At("ended")
	close(stopped)
	s.adopt(nil)
	<-ready
	// What init printed last is still in the terminal.
	slave.Close()
	select {
	case <-pumped:
	case <-time.After(time.Second):
	}
	terminal.Close()
	<-pumped
	if err != nil {
		// The keeper is gone, and with it the pid that could be waited for.
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
		pidfd.Close()
		s.setForced("its keeper was killed")
		return 0, nil
	}
	m.Close()
	pidfd.Close()
	if r.Kind != keeper.Exited {
		return 0, errors.New(r.Error)
	}
	return syscall.WaitStatus(r.Status), nil
}

// receive waits for a keeper's reply.
func receive(conn *seqpacket.Conn) (*seqpacket.Message, keeper.Reply, error) {
	var r keeper.Reply
	m, err := conn.Receive()
	if err != nil {
		return nil, r, errors.New("its keeper was killed")
	}
	if err := m.Decode(&r); err != nil {
		m.Close()
		return nil, r, fmt.Errorf("keeper: %w", err)
	}
	return m, r, nil
}

func (s *Supervisor) adopt(pidfd *os.File) {
	s.mu.Lock()
	s.init = pidfd
	s.mu.Unlock()
	if pidfd != nil {
		pid, _ := process.ID(pidfd)
		s.change(func(st *Status) { st.Init = pid })
		s.way().begin()
	}
}

// filterName is what security.seccomp says of an init with or without the filter.
func filterName(unfiltered bool) string {
	if unfiltered {
		return descriptor.SeccompOff
	}
	return descriptor.SeccompDefault
}

// setForced notes why init had to be killed; the first reason stands.
func (s *Supervisor) setForced(reason string) {
	s.mu.Lock()
	if s.forced == "" {
		s.forced = reason
	}
	s.mu.Unlock()
}

// stopRequest is what Stop asks for.
type stopRequest struct {
	kill    bool
	timeout time.Duration
}

// Stop ends the container for good: it asks init to power off, and kills it when timeout (0: the descriptor's)
// has passed, or at once. It returns immediately; a second call with kill set
// does not wait for the first one's timeout.
func (s *Supervisor) Stop(kill bool, timeout time.Duration) {
	if timeout == 0 {
		timeout = time.Duration(s.descriptor().System.Stop.TimeoutSeconds) * time.Second
	}
	s.mu.Lock()
	s.wholly = true
	s.mu.Unlock()
	select {
	case s.halt <- stopRequest{kill, timeout}:
	default: // two are waiting already
	}
}

// askAgain is how often systemd is asked to power off.
const askAgain = time.Second

// serveStop carries stop requests out while one init lives. Idle asks to end
// this run only.
//
// Systemd is asked again until it has ended: one that has not set its signals up
// yet, or is just executing itself anew, loses the signal, as the kernel keeps
// none for a pid 1 without a handler (pid_namespaces(7)). Another init might take
// a second signal for haste.
func (s *Supervisor) serveStop(pidfd *os.File, stopped, idle <-chan struct{}) {
	signal, err := descriptor.ParseSignal(s.descriptor().System.Stop.Signal)
	if err != nil {
		signal = unix.SIGTERM
	}
	var deadline, again <-chan time.Time
	for {
		var request stopRequest
		select {
		case <-stopped:
			return
		case request = <-s.halt:
		case <-idle:
			idle = nil
			request.timeout = time.Duration(s.descriptor().System.Stop.TimeoutSeconds) * time.Second
		case <-again:
			_ = unix.PidfdSendSignal(int(pidfd.Fd()), signal, nil, 0)
			again = time.After(askAgain)
			continue
		case <-deadline:
			request.kill = true
		}
		s.change(func(st *Status) { st.State = Stopping })
		fault.At("stopping")
		if request.kill {
			reason := killed
			if deadline != nil {
				reason = "killed: it did not stop in time"
			}
			s.setForced(reason)
			_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
			continue
		}
		if deadline == nil {
			_ = unix.PidfdSendSignal(int(pidfd.Fd()), signal, nil, 0)
			deadline = time.After(request.timeout)
			if descriptor.RealTime(signal) {
				again = time.After(askAgain)
			}
		}
	}
}
