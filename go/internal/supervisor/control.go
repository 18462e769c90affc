package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// ControlSocket is the supervisor's socket in the runtime folder. Clients send
// one Command, in JSON over SOCK_SEQPACKET; the peer must be the same user.
//
// exec and what opens sockets are the keeper's: the command and the connection itself are
// handed on, and the keeper answers the client directly. So there is one
// socket and one check, made with the host's ids; the keeper, in a user
// namespace, could not tell two host users apart that it has no id for.
const ControlSocket = "control"

// Operations of a Command, beside the keeper's OpExec, OpSockets, OpListen,
// OpDial and OpForget.
const (
	OpStatus  = "status"  // answered by one Status
	OpWait    = "wait"    // answered by a Status at each change, until ready or ended
	OpFollow  = "follow"  // answered by a Status at each change, until the container has ended
	OpStop    = "stop"    // the connection ends when the container has
	OpOutlast = "outlast" // the connection ends when the container has, or is not stopping (any more)
	OpConsole = "console" // answered by a Console
	OpUpdate  = "update"  // answered by a keeper.Reply
	// OpUse starts a container that only listens, and keeps it from being stopped
	// as idle until the connection ends. Answered by a keeper.Reply when it is up.
	OpUse = "use"
	// OpLease has the container run as long as processes live, whose pidfds come
	// with it. Answered by a keeper.Reply.
	OpLease = "lease"
	// OpPeer has the container know another one by its name until the connection
	// ends. Answered by a keeper.Reply.
	OpPeer = "peer"
	// OpLeases is answered by a LeaseOrder with the pidfds of all leases.
	OpLeases = "leases"
)

// Command is what a client asks for.
type Command struct {
	keeper.Request
	// Kill skips the stop signal (OpStop).
	Kill bool `json:"kill,omitempty"`
	// TimeoutSeconds replaces the descriptor's stop timeout if it is not 0.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
	// Descriptor is to be in force from now on, Generation its number (OpUpdate).
	Descriptor []byte `json:"descriptor,omitempty"`
	Generation int    `json:"generation,omitempty"`
	StorePath  string `json:"storePath,omitempty"`
	// Passive does not start a container that only listens, and does not keep it
	// from being stopped as idle (keeper.OpExec; OpSockets and OpDial only start).
	Passive bool `json:"passive,omitempty"`
	// Peer is another container's name (OpPeer).
	Peer string `json:"peer,omitempty"`
	// Lease says how leases are meant (OpLease).
	Lease *LeaseOrder `json:"lease,omitempty"`
}

// Console is the end of what init printed.
type Console struct {
	Tail []byte `json:"tail"`
}

// State is what a container is doing.
type State string

// States of a container. Stopped and Failed are those of a container without
// supervisor; Listening one that a client will start.
const (
	Listening State = "listening"
	Starting  State = "starting"
	Running   State = "running"
	Ready     State = "ready"
	Degraded  State = "degraded"
	Stopping  State = "stopping"
	Stopped   State = "stopped"
	Failed    State = "failed"
)

// Status is a supervisor's account of its container.
type Status struct {
	Name       string `json:"name"`
	State      State  `json:"state"`
	Generation int    `json:"generation"`
	// Started is told in terms of the clock as it is now, which may have been set
	// since: UpSeconds, by a clock that is never set, is what is known.
	Started   time.Time `json:"started,omitzero"`
	UpSeconds float64   `json:"upSeconds,omitempty"`
	// ReadySeconds is how long the start took, 0 before it is ready.
	ReadySeconds float64 `json:"readySeconds,omitempty"`
	Supervisor   int     `json:"supervisorPid,omitempty"`
	Init         int     `json:"initPid,omitempty"`
	Ports        []Port  `json:"ports,omitempty"`
	Cgroup       string  `json:"cgroup,omitempty"`
	// Credentials are the names of those that the container has.
	Credentials []string `json:"credentials,omitempty"`
	// Outbound is the way out, nil for a container without or with the host's
	// network.
	Outbound *outbound.State `json:"outbound,omitempty"`
	// Seccomp is the filter that init is under, "default" or "off"; "" while there
	// is no init.
	Seccomp string `json:"seccomp,omitempty"`
	// Confinement is nil until the first start is over.
	Confinement *Confinement `json:"confinement,omitempty"`
	// Doing is init's own word for what it does (STATUS= of sd_notify).
	Doing string `json:"doing,omitempty"`
	// Waiting is what readiness still lacks.
	Waiting string `json:"waiting,omitempty"`
	// Warnings are the things that this host does not allow.
	Warnings []string `json:"warnings,omitempty"`
	// Reason says how the last run ended (stopped, failed, listening), or why a
	// start failed.
	Reason string `json:"reason,omitempty"`
	// Output is what init printed last, of a start that failed.
	Output []string `json:"output,omitempty"`
	Shortage
	Leases
	// Held is said by a start that found the container held by another one.
	Held bool `json:"held,omitempty"`
	// Reboots counts init's reboots in this run.
	Reboots int `json:"reboots,omitempty"`
	// Restarts counts how often it was started again after it had ended by itself.
	Restarts int `json:"restarts,omitempty"`
}

// Port is a declared port, or a range of them, as it is in force.
type Port struct {
	Protocol string `json:"protocol"`
	Address  string `json:"address"`
	// Host is the number on the host, also where the kernel chose it.
	Host      int `json:"host"`
	Container int `json:"container"`
	// Count is how many consecutive ports it is, left out where it is one.
	Count            int  `json:"count,omitempty"`
	ProxyProtocol    bool `json:"proxyProtocol,omitempty"`
	HandOver         bool `json:"handOver,omitempty"`
	SocketActivation bool `json:"socketActivation,omitempty"`
	// Unclaimed tells of a port whose socket was handed over and that nobody in
	// the container has: clients are refused.
	Unclaimed bool `json:"unclaimed,omitempty"`
}

// ErrNotRunning is returned by Connect for a container without supervisor.
var ErrNotRunning = errors.New("not running")

// Connect opens a control connection to a container's supervisor.
func Connect(c state.Container) (*seqpacket.Conn, error) {
	dir, err := os.OpenFile(c.Runtime, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotRunning
		}
		return nil, err
	}
	defer dir.Close()
	conn, err := seqpacket.Dial(dir, ControlSocket)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, ErrNotRunning
	}
	return nil, fmt.Errorf("container %s: control socket: %w", c.Name, err)
}

// Query asks a running container for its status. It gives a hanging supervisor
// two seconds.
func Query(c state.Container) (*Status, error) {
	conn, err := Connect(c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.Net().SetDeadline(time.Now().Add(2 * time.Second))
	if err := conn.Send(Command{Request: keeper.Request{Op: OpStatus}}); err != nil {
		return nil, gone(err)
	}
	m, err := conn.Receive()
	if err != nil {
		return nil, gone(err)
	}
	defer m.Close()
	var s Status
	if err := m.Decode(&s); err != nil {
		return nil, err
	}
	if s.UpSeconds > 0 {
		s.Started = time.Now().Add(-time.Duration(s.UpSeconds * float64(time.Second)))
	}
	return &s, nil
}

// gone turns the end of a connection into what it means.
func gone(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("its supervisor does not answer (is it stopped?)")
	}
	return ErrNotRunning
}

// serveControl accepts clients, from its first call until the listener is closed.
func (s *Supervisor) serveControl() {
	if s.serving {
		return
	}
	s.serving = true
	go s.acceptClients(s.control)
	s.watchFolder()
}

func (s *Supervisor) acceptClients(control *net.UnixListener) {
	for {
		conn, err := seqpacket.Accept(control)
		if err != nil {
			return
		}
		go s.serveClient(conn)
	}
}

func (s *Supervisor) serveClient(conn *seqpacket.Conn) {
	defer conn.Close()
	_ = conn.Net().SetReadDeadline(time.Now().Add(patience)) // who says nothing isn't waited for
	m, err := conn.Receive()
	if err != nil {
		return
	}
	_ = conn.Net().SetReadDeadline(time.Time{})
	defer m.Close()
	var c Command
	if err := m.Decode(&c); err != nil {
		return
	}
	switch c.Op {
	case OpStatus:
		s.checkHandedOver(false)
		_ = conn.Send(s.Status())
	case OpWait:
		s.stream(conn)
	case OpFollow:
		s.follow(conn)
	case OpConsole:
		_ = conn.Send(Console{Tail: s.console.Tail()})
	case OpUpdate:
		_ = conn.Send(s.answerUpdate(&c))
	case OpStop:
		timeout := time.Duration(c.TimeoutSeconds) * time.Second
		s.Stop(c.Kill, timeout)
		<-s.ended
	case OpOutlast:
		s.outlast(conn)
	case OpLease:
		_ = conn.Send(s.answerLease(m, &c))
	case OpLeases:
		s.answerLeases(conn)
	case OpUse:
		s.answerUse(conn)
	case OpPeer:
		s.answerPeer(conn, c.Peer)
	case keeper.OpExec, keeper.OpSockets, keeper.OpListen, keeper.OpDial, keeper.OpForget:
		s.handOn(conn, m, &c)
	default:
		refuse(conn, fmt.Sprintf("command %q is not understood: the container was started by another version of nuc; restart it", c.Op))
	}
}

func refuse(conn *seqpacket.Conn, why string) {
	_ = conn.Send(keeper.Reply{Kind: keeper.Failed, Error: why, Status: 125})
}

// answerUse has the container up for as long as the client wants.
func (s *Supervisor) answerUse(conn *seqpacket.Conn) {
	defer s.use()()
	if err := s.wake(); err != nil {
		refuse(conn, err.Error())
		return
	}
	if conn.Send(keeper.Reply{Kind: keeper.Started}) == nil {
		_, _ = conn.Receive()
	}
}

// handOn gives a client's connection to the keeper. A command that is not
// passive keeps the container in use until it has ended: the keeper has one end
// of a pipe meanwhile.
func (s *Supervisor) handOn(conn *seqpacket.Conn, m *seqpacket.Message, c *Command) {
	f, err := conn.File()
	if err != nil {
		return
	}
	defer f.Close()
	files := append([]*os.File{f}, m.FDs...)
	if wakes := c.Op == keeper.OpExec || c.Op == keeper.OpSockets || c.Op == keeper.OpDial; wakes && !c.Passive {
		done := s.use()
		if err := s.wake(); err != nil {
			done()
			refuse(conn, err.Error())
			return
		}
		if c.Op != keeper.OpExec || len(m.FDs) != 3 {
			defer done()
		} else {
			r, w, err := os.Pipe()
			if err != nil {
				done()
				refuse(conn, err.Error())
				return
			}
			defer w.Close()
			go func() {
				_, _ = r.Read(make([]byte, 1))
				r.Close()
				done()
			}()
			files = append(files, w)
		}
	}
	err = s.ask(c.Request, files...)
	if s.Status().State == Listening && errors.Is(err, errNotUp) {
		err = errors.New("it only listens: a client of its ports starts it, and so do `nuc exec` and `nuc login`")
	}
	if err != nil {
		refuse(conn, err.Error())
	}
}

// stream sends the status at each change until the start is over.
func (s *Supervisor) stream(conn *seqpacket.Conn) {
	gone := left(conn)
	changes, cancel := s.subscribe()
	defer cancel()
	for {
		st := s.Status()
		if conn.Send(st) != nil || st.State != Starting {
			return
		}
		select {
		case <-changes:
		case <-gone:
			return
		case <-s.ended:
			_ = conn.Send(s.Status())
			return
		}
	}
}

// left closes the channel when the client has left, and then the connection.
func left(conn *seqpacket.Conn) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if m, err := conn.Receive(); err == nil {
			m.Close()
		}
		conn.Close()
	}()
	return gone
}

// follow streams until the client leaves or the container has ended.
func (s *Supervisor) follow(conn *seqpacket.Conn) {
	s.atChanges(conn, func() bool { return conn.Send(s.Status()) == nil })
}

// outlast returns when the client leaves, or the container has ended or is not
// about to.
func (s *Supervisor) outlast(conn *seqpacket.Conn) {
	s.atChanges(conn, s.stopping)
}

// atChanges calls a function at once and at each change, until it is false, the
// client leaves or the container has ended.
func (s *Supervisor) atChanges(conn *seqpacket.Conn, goesOn func() bool) {
	gone := left(conn)
	changes, cancel := s.subscribe()
	defer cancel()
	for goesOn() {
		select {
		case <-changes:
		case <-gone:
			return
		case <-s.ended:
			return
		}
	}
}

// stopping tells whether this run, or all of it, is about to end.
func (s *Supervisor) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wholly || s.status.State == Stopping
}
