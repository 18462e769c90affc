package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// RefusedError is a socket that could not be had in a container. Errno is the
// kernel's reason, 0 where it was not the kernel that refused.
type RefusedError struct {
	Text  string
	Errno unix.Errno
	// Port is the one of several that it is about, Holder the program that listens
	// there already, where that is known.
	Port   int
	Holder string
}

func (e RefusedError) Error() string { return e.Text }

// Unwrap gives errors.Is the kernel's reason.
func (e RefusedError) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// Sockets returns unconnected, non-blocking sockets of a running container's
// network: tcp4, tcp6, udp4 or udp6, at most keeper.MaxSockets. Like the functions
// below, it gives up when the context ends.
func Sockets(ctx context.Context, c state.Container, network string, n int) ([]*os.File, error) {
	return socketsBy(ctx, asClient(c), network, n)
}

// Listen returns bound sockets of a running container for n consecutive ports, at
// most keeper.MaxSockets, or none; streams listen.
func Listen(ctx context.Context, c state.Container, l keeper.Listen, n int) ([]*os.File, error) {
	return listenBy(ctx, asClient(c), l, n)
}

// DialUnix returns a connection to a Unix stream socket of a running container.
func DialUnix(ctx context.Context, c state.Container, path string) (*os.File, error) {
	return dialBy(ctx, asClient(c), path)
}

// Use has a running container that its clients start up, and keeps it from being
// stopped as idle until the connection is closed. It waits for a start, until the
// context ends.
func Use(ctx context.Context, c state.Container) (*seqpacket.Conn, error) {
	conn, err := Connect(c)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err = conn.Send(Command{Request: keeper.Request{Op: OpUse}}); err == nil {
		var m *seqpacket.Message
		var r keeper.Reply
		if m, r, err = receive(conn); err == nil {
			m.Close()
			if r.Kind == keeper.Started {
				return conn, nil
			}
			err = errors.New(r.Error)
		}
	}
	conn.Close()
	return nil, err
}

// Peer has a running container know another one by its name, until the connection
// is closed.
func Peer(c state.Container, name string) (*seqpacket.Conn, error) {
	conn, err := Connect(c)
	if err != nil {
		return nil, err
	}
	if err := conn.Send(Command{Request: keeper.Request{Op: OpPeer}, Peer: name}); err != nil {
		conn.Close()
		return nil, ErrNotRunning
	}
	return conn, nil
}

// Forget removes a Unix socket in a running container that nobody listens on
// any more.
func Forget(ctx context.Context, c state.Container, path string) error {
	return forgetBy(ctx, asClient(c), path)
}

// Sockets is the function of that name, for the supervisor's own container.
func (s *Supervisor) Sockets(network string, n int) ([]*os.File, error) {
	return socketsBy(context.Background(), s.asKeeper, network, n)
}

// Listen is the function of that name, for the supervisor's own container.
func (s *Supervisor) Listen(l keeper.Listen) (*os.File, error) {
	return one(listenBy(context.Background(), s.asKeeper, l, 1))
}

// DialUnix is the function of that name, for the supervisor's own container.
func (s *Supervisor) DialUnix(path string) (*os.File, error) {
	return dialBy(context.Background(), s.asKeeper, path)
}

// patience is how long a supervisor and a keeper may take to answer.
const patience = 10 * time.Second

// ask sends a request to a keeper and returns where the answer comes.
type ask func(keeper.Request) (*seqpacket.Conn, error)

func asClient(c state.Container) ask {
	return func(r keeper.Request) (*seqpacket.Conn, error) {
		conn, err := Connect(c)
		if err != nil {
			return nil, err
		}
		if err := conn.Send(Command{Request: r}); err != nil {
			conn.Close()
			return nil, ErrNotRunning
		}
		return conn, nil
	}
}

func (s *Supervisor) asKeeper(r keeper.Request) (*seqpacket.Conn, error) {
	reply, peer, err := seqpacket.Pair()
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	if err := s.ask(r, peer); err != nil {
		reply.Close()
		return nil, err
	}
	return reply, nil
}

func socketsBy(ctx context.Context, ask ask, network string, n int) ([]*os.File, error) {
	return receiveSockets(ctx, ask, keeper.Request{Op: keeper.OpSockets, Sockets: &keeper.Sockets{Network: network, Count: n}}, n, network, false)
}

func listenBy(ctx context.Context, ask ask, l keeper.Listen, n int) ([]*os.File, error) {
	return receiveSockets(ctx, ask, keeper.Request{Op: keeper.OpListen, Listen: &l, Count: n}, n, l.Network, true)
}

func dialBy(ctx context.Context, ask ask, path string) (*os.File, error) {
	return one(receiveSockets(ctx, ask, keeper.Request{Op: keeper.OpDial, Dial: &keeper.Dial{Path: path}}, 1, socket.Unix, false))
}

func forgetBy(ctx context.Context, ask ask, path string) error {
	_, err := receiveSockets(ctx, ask, keeper.Request{Op: keeper.OpForget, Dial: &keeper.Dial{Path: path}}, 0, "", false)
	return err
}

func one(f []*os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	return f[0], nil
}

// receiveSockets asks for sockets, and takes what was asked for and nothing else.
func receiveSockets(ctx context.Context, ask ask, r keeper.Request, n int, network string, listening bool) ([]*os.File, error) {
	conn, err := ask(r)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	_ = conn.Net().SetReadDeadline(time.Now().Add(patience))
	m, err := conn.Receive()
	if ctx.Err() != nil {
		if err == nil {
			m.Close()
		}
		return nil, ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, gone(err)
	}
	if err != nil {
		return nil, ErrNotRunning // its supervisor or keeper went before it answered
	}
	var reply keeper.Reply
	if err := m.Decode(&reply); err != nil {
		m.Close()
		return nil, fmt.Errorf("keeper: %w", err)
	}
	if reply.Kind != keeper.Started {
		m.Close()
		return nil, RefusedError{Text: reply.Error, Errno: unix.Errno(reply.Errno), Port: reply.Port, Holder: reply.Holder}
	}
	err = nil
	if len(m.FDs) != n {
		err = fmt.Errorf("keeper: %d descriptors came, and %d were asked for", len(m.FDs), n)
	}
	for _, f := range m.FDs {
		err = errors.Join(err, socket.Is(f, network, listening))
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m.FDs, nil
}
