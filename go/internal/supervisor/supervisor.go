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
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/credential"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/notify"
	"github.com/nix-user-containers/nuc/go/internal/relay"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/starter"
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
	// Starter starts what the supervisor needs; it is closed with it.
	Starter *starter.Client
	// Confine has the supervisor confine itself, the whole process, once its
	// container is up.
	Confine bool
	// Output gets init's console as it comes; nil keeps its end only.
	Output io.Writer
	// Rows and Columns are the console's size, 0 if it has none.
	Rows, Columns uint16
	Log           hclog.Logger
	// Report, if not nil, gets a Status at each change until the start is over.
	Report *seqpacket.Conn
	// Manager, if not nil, is the service manager that runs the supervisor.
	Manager *notify.Manager
	// Links, if not nil, makes the links that a descriptor declares, in the
	// background, and ends others that it made. Nil ends all, before it returns.
	Links func(*descriptor.Descriptor)
	// Credentials, if not nil, gathers the descriptor's credentials. It is called
	// once, before anything is started.
	Credentials func() (*credential.Set, error)
	// Restart has the descriptor's restart count.
	Restart bool
	// Lease, if not nil, has the container stopped when the processes of LeasedTo
	// have ended, pidfds that Start takes over.
	Lease    *LeaseOrder
	LeasedTo []*os.File
}

// Supervisor is a container that is up: it runs, or it listens for the first
// client that it is to run for.
type Supervisor struct {
	o       Options
	log     hclog.Logger
	lock    *state.Lock
	ids     idmap.Map
	starter *starter.Client
	control *net.UnixListener
	serving bool // the control socket is
	uuid    string
	short   int // runs in a row that were short
	// credentials are the same from the first boot to the last.
	credentials *credential.Set
	// updating is held while another descriptor is taken over, and while a run
	// begins or ends.
	updating sync.Mutex
	// confined is held while the supervisor confines itself, once.
	confined   sync.WaitGroup
	confinable sync.Once
	activation
	leases
	folder watchedFolder

	// What one run of the container has: there is none of it while the container
	// only listens.
	group   *cgroup.Group
	unwatch func() // ends watchShortage
	notify  *notify.Socket
	// sockets and packets are unconnected ones of the container's network.
	sockets4, sockets6, packets4, packets6 relay.Stock
	// announced holds a token once init has said READY=1.
	announced chan struct{}
	console   console.Log

	// publishing is held while /run/host/hosts is written; published tells that the
	// run has one.
	publishing sync.Mutex
	published  bool

	ended chan struct{}
	halt  chan stopRequest

	mu          sync.Mutex
	status      Status
	keeper      *userns.Child // nil while there is none
	init        *os.File      // pidfd of the running init
	wayOut      *wayOut       // nil for a run without
	forced      string        // why init was killed, if it was
	subscribers map[chan struct{}]bool
	peers       map[string]int // how many links made by hand lead to each
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

// newSupervisor has started nothing yet.
func newSupervisor(o Options) *Supervisor {
	s := &Supervisor{
		o: o, log: o.Log, starter: o.Starter, ended: make(chan struct{}), halt: make(chan stopRequest, 2), announced: make(chan struct{}, 1),
		subscribers: map[chan struct{}]bool{}, peers: map[string]int{}, activation: newActivation(),
		status: Status{Name: o.Descriptor.Name, State: Starting, Started: time.Now(), Supervisor: os.Getpid()},
	}
	for i, network := range []string{socket.TCP4, socket.TCP6, socket.UDP4, socket.UDP6} {
		s.stocks()[i].Make = func(n int) ([]*os.File, error) { return s.Sockets(network, n) }
	}
	s.console.SetOutput(o.Output)
	return s
}

// Start starts the container and returns when it has ended. An error means that
// it could not be started, and that nothing is left of the attempt.
func Start(o Options, started func(*Supervisor)) (state.Exit, error) {
	s := newSupervisor(o)
	lock, err := o.Container.Acquire()
	if errors.Is(err, state.ErrHeld) {
		return state.Exit{}, HeldError{Name: o.Descriptor.Name, PID: o.Container.Holder()}
	}
	if err != nil {
		return state.Exit{}, fmt.Errorf("container %s: %w", o.Descriptor.Name, err)
	}
	s.lock = lock
	fault.At("locked")
	s.starter.Prepare()
	s.starter.Gone = s.withoutStarter
	if started != nil {
		started(s)
	}
	s.begin()
	var reports sync.WaitGroup
	if o.Report != nil {
		reports.Go(func() { s.stream(o.Report) })
	}
	if o.Manager != nil {
		reports.Go(s.tellManager)
		if o.Manager.Watchdog > 0 {
			reports.Go(s.sayAlive)
		}
	}
	exit, err := s.supervise()
	if o.Manager != nil && err == nil {
		s.leaveManager()
	}
	left := s.dismissKeeper()
	s.endLeases()
	fault.At("dismissed")
	s.end(exit, err)
	fault.At("noted")
	s.tearDown(left)
	close(s.ended)
	reports.Wait()
	return exit, err
}

// supervise runs the container once, or, where clients start it, each time that
// there is one, until it is to end for good.
func (s *Supervisor) supervise() (state.Exit, error) {
	failed := func(err error) (state.Exit, error) {
		return state.Exit{}, fmt.Errorf("container %s: %w", s.o.Container.Name, err)
	}
	for err := s.claim(); err != nil; err = s.claim() {
		// systemd starts it as soon as there is a user's session: a port may be
		// another's for a moment.
		if !s.restarts(state.Exit{}, err) {
			return failed(err)
		}
		if cerr := s.openControl(); cerr != nil {
			return failed(cerr)
		}
		s.serveControl()
		s.change(func(st *Status) { st.Reason = err.Error() })
		if !s.rest(0) {
			return state.Exit{Time: time.Now(), Clean: true, Reason: "stopped before it could be started: " + err.Error()}, nil
		}
	}
	fault.At("claimed")
	if err := s.gather(); err != nil {
		return failed(err)
	}
	if s.activated() {
		if err := s.rehearse(); err != nil {
			return failed(err)
		}
		s.serveControl()
	}
	for {
		if s.activated() && !s.awaitClient() {
			return state.Exit{Time: time.Now(), Clean: true, Reason: "stopped while it listened"}, nil
		}
		begun := time.Now()
		exit, err := s.run()
		lost := errors.Is(err, starter.ErrGone)
		again := !s.activated() && !lost && s.restarts(exit, err)
		if (s.final() || lost) && !again {
			if err != nil {
				return failed(err)
			}
			return exit, nil
		}
		s.clearRun(s.dismissKeeper())
		s.noteRun(exit, err)
		if again && !s.rest(time.Since(begun)) {
			return state.Exit{Time: time.Now(), Clean: true, Reason: "stopped before it was started again"}, nil
		}
	}
}

// run prepares, boots, and boots again after each reboot.
func (s *Supervisor) run() (state.Exit, error) {
	s.beginRun()
	s.openWayOut()
	defer s.closeWayOut()
	if err := s.prepare(); err != nil {
		return state.Exit{}, err
	}
	fault.At("prepared")
	if err := s.fixNetwork(); err != nil {
		return state.Exit{}, err
	}
	go s.readNotifications(s.notify)
	s.serveControl()
	s.links(s.descriptor())
	defer s.links(nil)
	s.enter(phaseStarting)
	for {
		boot, err := s.bootRequest()
		if err != nil {
			return state.Exit{}, err
		}
		status, err := s.boot(boot)
		if err != nil {
			return state.Exit{}, err
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

// links has the links of a descriptor, nil for none. They are those of a run:
// their processes are in its cgroup where there is no systemd to run them.
func (s *Supervisor) links(d *descriptor.Descriptor) {
	if s.o.Links != nil {
		s.o.Links(d)
	}
}

// beginRun forgets what an earlier run came to.
func (s *Supervisor) beginRun() {
	select { // who asked for it gets this one
	case <-s.demand:
	default:
	}
	s.mu.Lock()
	s.forced, s.idle, s.wasUp = "", false, false
	s.mu.Unlock()
	s.change(func(st *Status) {
		st.State, st.Started = Starting, time.Now()
		st.Doing, st.Waiting, st.Reason, st.Output, st.ReadySeconds, st.Reboots = "", "", "", nil, 0, 0
		st.Shortage = Shortage{}
	})
}

// lastLines is how much of a failed start's console is worth showing.
const lastLines = 8

// end notes the outcome, for clients that wait and for later ones.
func (s *Supervisor) end(exit state.Exit, err error) {
	if err != nil {
		exit = state.Exit{Time: time.Now(), Reason: err.Error()}
	}
	s.mu.Lock()
	if s.expired && exit.Clean {
		exit.Reason = "stopped as the last lease had ended"
	}
	s.mu.Unlock()
	if s.o.Container.Exists() {
		if rerr := s.o.Container.RecordExit(exit); rerr != nil {
			s.log.Warn("could not record how the container ended", "error", rerr)
		}
	}
	s.change(func(st *Status) {
		st.State, st.Reason, st.Init, st.Seccomp = Failed, exit.Reason, 0, ""
		if exit.Clean || exit.Asked {
			st.State = Stopped
		} else if st.ReadySeconds == 0 {
			st.Output = console.Plain(s.console.Tail(), lastLines)
		}
	})
}

// ask sends a request to the keeper. It is an error while there is none.
func (s *Supervisor) ask(r keeper.Request, files ...*os.File) error {
	s.mu.Lock()
	k := s.keeper
	s.mu.Unlock()
	if k == nil {
		return errNotUp
	}
	if err := k.Conn.Send(r, files...); err != nil {
		return errors.New("the container is just stopping")
	}
	return nil
}

// errNotUp is what there is to be said of a container without keeper.
var errNotUp = errors.New("the container is not up")

// dismissKeeper lets the keeper end beside what else there is to undo; the
// channel is closed when it has.
func (s *Supervisor) dismissKeeper() <-chan struct{} {
	s.mu.Lock()
	k := s.keeper
	s.keeper = nil
	s.mu.Unlock()
	left := make(chan struct{})
	if k == nil {
		close(left)
		return left
	}
	_ = k.Conn.Send(keeper.Request{Op: keeper.OpLeave})
	go func() {
		_, _ = k.Wait()
		k.Close()
		close(left)
	}()
	return left
}

// clearRun undoes what a run made, as far as it came, once its keeper has left.
func (s *Supervisor) clearRun(left <-chan struct{}) {
	s.updating.Lock()
	defer s.updating.Unlock()
	s.closePeers()
	for _, stock := range s.stocks() {
		stock.Flush()
	}
	for _, p := range s.ports() {
		p.forget()
	}
	if s.notify != nil {
		s.notify.Close()
		s.notify = nil
	}
	<-left // it may be in one of the cgroups to be removed, and removes others
	if s.unwatch != nil {
		s.unwatch()
		s.unwatch = nil
	}
	if s.group != nil {
		if err := s.group.Remove(s.starter.Processes()...); err != nil {
			s.log.Warn("could not remove the container's cgroup", "error", err)
		}
		s.group = nil
	}
	s.change(func(st *Status) { st.Cgroup, st.Init, st.Seccomp = "", 0, "" })
}

// tearDown undoes the rest. The keeper held the lock as well.
func (s *Supervisor) tearDown(left <-chan struct{}) {
	s.unwatchFolder()
	s.updating.Lock()
	for _, p := range s.ports() {
		p.close()
	}
	s.updating.Unlock()
	if s.control != nil {
		s.control.Close()
	}
	s.confined.Wait()
	s.clearRun(left)
	for _, stock := range s.stocks() {
		stock.Close()
	}
	fault.At("tearing")
	if err := s.starter.Tidy(s.lock); err != nil {
		s.log.Warn("could not clear the runtime folder", "error", err)
	}
	s.starter.Close()
	s.lock.Close()
	_ = os.Remove(s.o.Container.State) // of a first start that came to nothing
}

// Status returns the container's present status.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	if !st.Started.IsZero() {
		st.UpSeconds = time.Since(st.Started).Seconds()
	}
	return st
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
