// Package supervisor runs one container: it takes the container's lock, makes
// what the container needs of the host, starts its keeper, and stays until
// init has ended. All of it goes when the supervisor goes, however it goes.
package supervisor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/notify"
	"github.com/nix-user-containers/nuc/go/internal/relay"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// Options of a run.
type Options struct {
	Descriptor *descriptor.Descriptor
	// Source is the descriptor's text, to be kept as a generation.
	Source []byte
	// StorePath is the descriptor's own in the Nix store, "" elsewhere.
	StorePath string
	// Origin says where the descriptor comes from; nil leaves what is known.
	Origin    []byte
	Container state.Container
	Cache     string
	// Output gets init's console as it comes; nil keeps its end only.
	Output io.Writer
	// Rows and Columns are the console's size, 0 if it has none.
	Rows, Columns uint16
	Log           hclog.Logger
	// Copying, if not nil, is told of rootOwned copies under way.
	Copying func(path string, files int)
	// Report, if not nil, gets a Status at each change until the start is over.
	Report *seqpacket.Conn
	// Program is the sealed copy of nuc that the caller executes, if it does.
	Program *userns.Program
}

// Supervisor is a running container.
type Supervisor struct {
	o       Options
	log     hclog.Logger
	lock    *state.Lock
	ids     idmap.Map
	group   *cgroup.Group
	keeper  *userns.Child
	program *userns.Program // the keeper's, until it is started
	notify  *notify.Socket
	control *net.UnixListener
	uuid    string
	unwatch func() // ends watchShortage
	// updating is held while another descriptor is taken over.
	updating sync.Mutex
	ports    []*port
	// sockets are unconnected ones of the container's network.
	sockets4, sockets6 relay.Stock

	console console.Log
	ended   chan struct{}
	halt    chan stopRequest
	// announced holds a token once init has said READY=1.
	announced chan struct{}

	mu          sync.Mutex
	status      Status
	init        *os.File // pidfd of the running init
	forced      string   // why init was killed, if it was
	subscribers map[chan struct{}]bool
}

type stopRequest struct {
	kill    bool
	timeout time.Duration
}

// HeldError says that another supervisor runs the container.
type HeldError struct {
	Name string
	PID  int
}

func (e HeldError) Error() string {
	holder := "another process"
	if e.PID > 0 {
		holder = fmt.Sprintf("process %d", e.PID)
	}
	return fmt.Sprintf("container %s: is running already, held by %s: see `nuc status %s`, or stop it with `nuc stop %s`", e.Name, holder, e.Name, e.Name)
}

// Start starts the container and returns when it has ended. An error means that
// it could not be started, and that nothing is left of the attempt.
func Start(o Options, started func(*Supervisor)) (state.Exit, error) {
	s := &Supervisor{
		o: o, log: o.Log, ended: make(chan struct{}), halt: make(chan stopRequest, 2), announced: make(chan struct{}, 1),
		subscribers: map[chan struct{}]bool{},
		status:      Status{Name: o.Descriptor.Name, State: Starting, Started: time.Now(), Supervisor: os.Getpid()},
	}
	s.sockets4.Make = func(n int) ([]*os.File, error) { return s.Sockets(socket.TCP4, n) }
	s.sockets6.Make = func(n int) ([]*os.File, error) { return s.Sockets(socket.TCP6, n) }
	s.console.SetOutput(o.Output)
	lock, err := o.Container.Acquire()
	if errors.Is(err, state.ErrHeld) {
		return state.Exit{}, HeldError{Name: o.Descriptor.Name, PID: o.Container.Holder()}
	}
	if err != nil {
		return state.Exit{}, fmt.Errorf("container %s: %w", o.Descriptor.Name, err)
	}
	s.lock = lock
	if s.program = o.Program; s.program == nil {
		s.program = userns.CopyProgram()
	}
	if started != nil {
		started(s)
	}
	var reports sync.WaitGroup
	if o.Report != nil {
		reports.Go(func() { s.stream(o.Report) })
	}
	exit, err := s.run()
	left := s.dismissKeeper()
	s.end(exit, err)
	s.tearDown(left)
	close(s.ended)
	reports.Wait()
	return exit, err
}

// run prepares, boots, and boots again after each reboot.
func (s *Supervisor) run() (state.Exit, error) {
	if err := s.prepare(); err != nil {
		return state.Exit{}, fmt.Errorf("container %s: %w", s.o.Container.Name, err)
	}
	s.o.Container.ForgetExit()
	go s.serveControl()
	go s.readNotifications()
	for _, p := range s.ports {
		p.serve(s)
	}
	for {
		boot, err := s.bootRequest()
		if err != nil {
			return state.Exit{}, fmt.Errorf("container %s: %w", s.o.Container.Name, err)
		}
		status, err := s.boot(boot)
		if err != nil {
			return state.Exit{}, fmt.Errorf("container %s: %w", s.o.Container.Name, err)
		}
		// reboot(2) in a pid namespace ends init with SIGHUP for a restart and
		// SIGINT for a halt or poweroff (Linux 3.4).
		if s.why() == "" && status.Signaled() && status.Signal() == unix.SIGHUP {
			s.log.Info("init rebooted", "container", s.o.Container.Name)
			s.change(func(st *Status) { st.Reboots++; st.State, st.Doing, st.ReadySeconds = Starting, "", 0 })
			continue
		}
		return s.classify(status), nil
	}
}

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
	select { // an earlier init's word
	case <-s.announced:
	default:
	}
	begun := time.Now()
	err = s.keeper.Conn.Send(keeper.Request{Op: keeper.OpBoot, Boot: &b}, fds...)
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
	s.adopt(pidfd)
	pumped := make(chan struct{})
	go func() {
		_ = console.Pump(&s.console, terminal)
		close(pumped)
	}()
	stopped := make(chan struct{})
	go s.serveStop(pidfd, stopped)
	ready := make(chan struct{})
	go func() {
		s.awaitReady(begun, stopped)
		close(ready)
	}()

	m, r, err = receive(reply)
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
		pid := pidOf(pidfd)
		s.change(func(st *Status) { st.Init = pid })
	}
}

// setForced notes why init had to be killed; the first reason stands.
func (s *Supervisor) setForced(reason string) {
	s.mu.Lock()
	if s.forced == "" {
		s.forced = reason
	}
	s.mu.Unlock()
}

// Stop asks init to power off, and kills it when timeout (0: the descriptor's)
// has passed, or at once. It returns immediately; a second call with kill set
// does not wait for the first one's timeout.
func (s *Supervisor) Stop(kill bool, timeout time.Duration) {
	if timeout == 0 {
		timeout = time.Duration(s.descriptor().System.Stop.TimeoutSeconds) * time.Second
	}
	select {
	case s.halt <- stopRequest{kill, timeout}:
	default: // two are waiting already
	}
}

// serveStop carries stop requests out while one init lives.
func (s *Supervisor) serveStop(pidfd *os.File, stopped <-chan struct{}) {
	signal, err := descriptor.ParseSignal(s.descriptor().System.Stop.Signal)
	if err != nil {
		signal = unix.SIGTERM
	}
	var deadline <-chan time.Time
	for {
		var request stopRequest
		select {
		case <-stopped:
			return
		case request = <-s.halt:
		case <-deadline:
			request.kill = true
		}
		s.change(func(st *Status) { st.State = Stopping })
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
		}
	}
}

// lastLines is how much of a failed start's console is worth showing.
const lastLines = 8

// end notes the outcome, for clients that wait and for later ones.
func (s *Supervisor) end(exit state.Exit, err error) {
	if err != nil {
		exit = state.Exit{Time: time.Now(), Reason: err.Error()}
	}
	if s.o.Container.Exists() {
		if rerr := s.o.Container.RecordExit(exit); rerr != nil {
			s.log.Warn("could not record how the container ended", "error", rerr)
		}
	}
	s.change(func(st *Status) {
		st.State, st.Reason, st.Init = Failed, exit.Reason, 0
		if exit.Clean || exit.Asked {
			st.State = Stopped
		} else if st.ReadySeconds == 0 {
			st.Output = console.Plain(s.console.Tail(), lastLines)
		}
	})
}

// dismissKeeper lets the keeper end beside the rest of the tear-down; the
// channel is closed when it has.
func (s *Supervisor) dismissKeeper() <-chan struct{} {
	left := make(chan struct{})
	if s.keeper == nil {
		close(left)
		return left
	}
	_ = s.keeper.Conn.Send(keeper.Request{Op: keeper.OpLeave})
	go func() {
		_, _ = s.keeper.Wait()
		close(left)
	}()
	return left
}

// tearDown undoes what prepare did, as far as it came.
func (s *Supervisor) tearDown(left <-chan struct{}) {
	s.updating.Lock()
	defer s.updating.Unlock()
	if s.program != nil {
		s.program.Close()
	}
	for _, p := range s.ports {
		p.close()
	}
	s.sockets4.Close()
	s.sockets6.Close()
	if s.control != nil {
		s.control.Close()
	}
	if s.notify != nil {
		s.notify.Close()
	}
	if s.group != nil && s.group.Description().Supervisor != "" {
		<-left // it is in one of the cgroups to be removed
	}
	if s.unwatch != nil {
		s.unwatch()
	}
	if s.group != nil {
		if err := s.group.Remove(); err != nil {
			s.log.Warn("could not remove the container's cgroup", "error", err)
		}
	}
	// It holds the lock as well.
	<-left
	if s.keeper != nil {
		s.keeper.Close()
	}
	if err := s.lock.Tidy(); err != nil {
		s.log.Warn("could not clear the runtime folder", "error", err)
	}
	s.lock.Close()
}

// Status returns the container's present status.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// change changes the status and tells those who wait.
func (s *Supervisor) change(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
	for c := range s.subscribers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (s *Supervisor) subscribe() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.subscribers[c] = true
	s.mu.Unlock()
	return c, func() {
		s.mu.Lock()
		delete(s.subscribers, c)
		s.mu.Unlock()
	}
}
