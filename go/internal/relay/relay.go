// Package relay carries connections and datagrams between two places: what one side
// sends, ends or breaks off reaches the other side as just that. The bytes stay
// in the kernel (splice(2), which net.TCPConn.ReadFrom uses between two of its
// kind).
package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pause is how long no connection is accepted when the process or the machine
// has no file descriptors left: the connections there are may end meanwhile.
const pause = 100 * time.Millisecond

// End is one way to reach a target.
type End struct {
	// Take returns a non-blocking socket: an unconnected one of the right network
	// namespace, or a connected one where Address is nil. It may block for a
	// moment.
	Take    func() (*os.File, error)
	Address unix.Sockaddr
}

// Server relays what a stream listener accepts.
type Server struct {
	// Listener is a listening socket (TCP or Unix), which Serve takes over.
	Listener *os.File
	// Target is asked for each connection. Its ends are tried in order, the next
	// where one refuses.
	Target func() []End
	// ProxyProtocol tells the target who the client is, in a header that precedes
	// what the client says (the PROXY protocol, version 2).
	ProxyProtocol bool
	// Warn, if not nil, is told of what could not be relayed.
	Warn func(what string, err error)
	// Changed, if not nil, is told when the number of open connections changes
	// between 0 and not 0.
	Changed func(open int)

	mu       sync.Mutex
	listener net.Listener
	open     map[net.Conn]bool
	count    int
	closed   bool
	all      sync.WaitGroup
}

// duplex is a *net.TCPConn or a *net.UnixConn.
type duplex interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

func unlinger(c duplex) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// Serve relays until Close is called.
func (s *Server) Serve() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	listener, err := net.FileListener(s.Listener)
	s.Listener.Close()
	s.listener = listener
	s.mu.Unlock()
	if err != nil {
		s.warn("listening", err)
		return
	}
	if l, ok := listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false)
	}
	for {
		client, err := listener.Accept()
		switch {
		case err == nil:
			s.begin(client.(duplex))
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// ENFILE, EMFILE, ENOBUFS; or a client that left before (ECONNABORTED).
			s.warn("accepting a connection", err)
			time.Sleep(pause)
		}
	}
}

// Close stops listening, ends all connections and waits for their ends.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	if s.listener != nil {
		s.listener.Close()
	} else {
		s.Listener.Close()
	}
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.all.Wait()
}

// Open is the number of connections that are being relayed.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

func (s *Server) warn(what string, err error) {
	if s.Warn != nil {
		s.Warn(what, err)
	}
}

// begin relays a connection in the background, unless Close was called: it may
// be waiting already, and would miss this one.
func (s *Server) begin(client duplex) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		client.Close()
		return
	}
	s.changed(1)
	s.all.Go(func() { s.relay(client) })
}

func (s *Server) changed(by int) {
	s.count += by
	if s.Changed != nil && (s.count == 0 || s.count == by) {
		s.Changed(s.count)
	}
}

// relay carries one connection to its end.
func (s *Server) relay(client duplex) {
	defer func() {
		s.forget(client)
		s.mu.Lock()
		s.changed(-1)
		s.mu.Unlock()
	}()
	if !s.remember(client) {
		return
	}
	service, err := reach(s.Target())
	if err != nil {
		s.warn("reaching the service", err)
		// What a client sees of a port that nobody listens on.
		unlinger(client)
		return
	}
	defer s.forget(service)
	if !s.remember(service) {
		return
	}
	pair(client, service)
}

// reach connects to the first end that can be reached.
func reach(ends []End) (duplex, error) {
	failure := errors.New("there is no way to it")
	for i, end := range ends {
		socket, err := end.Take()
		if err == nil {
			var c duplex
			if c, err = connect(socket, end.Address); err == nil {
				return c, nil
			}
		}
		if i == 0 {
			failure = err
		}
	}
	return nil, failure
}

func (s *Server) remember(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[net.Conn]bool{}
	}
	s.open[c] = true
	return !s.closed
}

func (s *Server) forget(c net.Conn) {
	c.Close()
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
}

// pair carries bytes both ways until both directions have ended, or one has
// broken off. It closes neither.
func pair(a, b duplex) {
	there, back := make(chan struct{}), make(chan struct{})
	go carry(b, a, there, back)
	carry(a, b, back, there)
	<-there
}

// carry copies until from ends. Its end is the end of to's input; an error is
// the end of both connections, a reset where that is what from or to got. It
// closes done when it has, as the other direction does with other.
func carry(to, from duplex, done chan<- struct{}, other <-chan struct{}) {
	defer close(done)
	_, err := io.Copy(to, from)
	if err == nil {
		if brokenOff(from) {
			<-other
		}
		err = to.CloseWrite()
	}
	// Of a reset, one direction gets the word for it (ECONNRESET), the other an
	// end or this; what is to be done is for the first to do.
	if err == nil || errors.Is(err, unix.EPIPE) {
		return
	}
	if errors.Is(err, unix.ECONNRESET) {
		unlinger(to)
		unlinger(from)
	}
	to.Close()
	from.Close()
}

// brokenOff tells whether a connection that seems to have ended was broken off,
// and the direction that writes to it was told: the kernel reports an error
// once, and then an end (tcp_recvmsg in net/ipv4/tcp.c). A connection that has
// ended is not in state 7 (TCP_CLOSE) before the other direction has as well.
func brokenOff(c duplex) bool {
	if _, ok := c.(*net.TCPConn); !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	told := false
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.State != 7 {
			return
		}
		left, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		told = err == nil && left == 0
	})
	return told || err != nil // closed by the other direction, or by Close
}

// connectTimeout is for a service in another namespace of this machine: either
// it has room in its backlog at once, or it is overloaded.
const connectTimeout = 10 * time.Second

// connect connects an unconnected, non-blocking socket, which it takes over;
// without an address it is connected already.
func connect(socket *os.File, address unix.Sockaddr) (duplex, error) {
	defer socket.Close()
	if address != nil {
		if err := begin(socket, address); err != nil {
			return nil, err
		}
	}
	c, err := net.FileConn(socket)
	if err != nil {
		return nil, err
	}
	d, ok := c.(duplex)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%T is no stream", c)
	}
	return d, nil
}

func begin(socket *os.File, address unix.Sockaddr) error {
	// Not Fd, which makes the socket a blocking one.
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		if failure = unix.Connect(int(fd), address); failure == unix.EINPROGRESS {
			failure = connected(int(fd))
		}
	})
	if err != nil {
		return err
	}
	return os.NewSyscallError("connect", failure)
}

// connected waits for a connection under way (connect(2), EINPROGRESS).
func connected(fd int) error {
	deadline := time.Now().Add(connectTimeout)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return unix.ETIMEDOUT
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(left/time.Millisecond)+1)
		if err != nil && err != unix.EINTR {
			return err
		}
		if n == 0 {
			continue
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			return err
		}
		if code != 0 {
			return unix.Errno(code)
		}
		return nil
	}
}
