// Package relay carries TCP connections between two places: what one side
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
	"time"

	"golang.org/x/sys/unix"
)

// pause is how long no connection is accepted when the process or the machine
// has no file descriptors left: the connections there are may end meanwhile.
const pause = 100 * time.Millisecond

// Server relays what a listener accepts.
type Server struct {
	// Listener is closed by Close.
	Listener *net.TCPListener
	// Dial opens the other end of a connection.
	Dial func() (*net.TCPConn, error)
	// Warn, if not nil, is told of what could not be relayed.
	Warn func(what string, err error)

	mu     sync.Mutex
	open   map[*net.TCPConn]bool
	closed bool
	all    sync.WaitGroup
}

// Serve relays until Close is called.
func (s *Server) Serve() {
	for {
		client, err := s.Listener.AcceptTCP()
		switch {
		case err == nil:
			s.begin(client)
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
	s.Listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.all.Wait()
}

func (s *Server) warn(what string, err error) {
	if s.Warn != nil {
		s.Warn(what, err)
	}
}

// begin relays a connection in the background, unless Close was called: it may
// be waiting already, and would miss this one.
func (s *Server) begin(client *net.TCPConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		client.Close()
		return
	}
	s.all.Go(func() { s.relay(client) })
}

// relay carries one connection to its end.
func (s *Server) relay(client *net.TCPConn) {
	defer s.forget(client)
	if !s.remember(client) {
		return
	}
	service, err := s.Dial()
	if err != nil {
		s.warn("reaching the service", err)
		// What a client sees of a port that nobody listens on.
		_ = client.SetLinger(0)
		return
	}
	defer s.forget(service)
	if !s.remember(service) {
		return
	}
	Pair(client, service)
}

func (s *Server) remember(c *net.TCPConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*net.TCPConn]bool{}
	}
	s.open[c] = true
	return !s.closed
}

func (s *Server) forget(c *net.TCPConn) {
	c.Close()
	s.mu.Lock()
	delete(s.open, c)
	s.mu.Unlock()
}

// Pair carries bytes both ways until both directions have ended, or one has
// broken off. It closes neither.
func Pair(a, b *net.TCPConn) {
	there, back := make(chan struct{}), make(chan struct{})
	go carry(b, a, there, back)
	carry(a, b, back, there)
	<-there
}

// carry copies until from ends. Its end is the end of to's input; an error is
// the end of both connections, a reset where that is what from or to got. It
// closes done when it has, as the other direction does with other.
func carry(to, from *net.TCPConn, done chan<- struct{}, other <-chan struct{}) {
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
		_ = to.SetLinger(0)
		_ = from.SetLinger(0)
	}
	to.Close()
	from.Close()
}

// brokenOff tells whether a connection that seems to have ended was broken off,
// and the direction that writes to it was told: the kernel reports an error
// once, and then an end (tcp_recvmsg in net/ipv4/tcp.c). A connection that has
// ended is not in state 7 (TCP_CLOSE) before the other direction has as well.
func brokenOff(c *net.TCPConn) bool {
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

// batch is how many sockets a Stock asks for at a time.
const batch = 16

// Stock keeps a few unconnected sockets of another network namespace, so that a
// connection rarely waits for whoever makes them.
type Stock struct {
	// Make returns n unconnected, non-blocking sockets.
	Make func(n int) ([]*os.File, error)

	mu      sync.Mutex
	free    []*os.File
	filling sync.WaitGroup
	refill  bool
	closed  bool
}

// Take returns a socket.
func (s *Stock) Take() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if len(s.free) == 0 {
		files, err := s.Make(batch)
		if err != nil {
			return nil, err
		}
		s.free = files
	}
	f := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	if len(s.free) < batch/4 && !s.refill {
		s.refill = true
		s.filling.Go(s.fill)
	}
	return f, nil
}

func (s *Stock) fill() {
	files, err := s.Make(batch)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refill = false
	if err == nil {
		s.free = append(s.free, files...)
	}
	if s.closed {
		s.empty()
	}
}

// Close closes the sockets that are left, and those that are being made.
func (s *Stock) Close() {
	s.mu.Lock()
	s.closed = true
	s.empty()
	s.mu.Unlock()
	s.filling.Wait()
}

func (s *Stock) empty() {
	for _, f := range s.free {
		f.Close()
	}
	s.free = nil
}

// connectTimeout is for a service in another namespace of this machine: either
// it has room in its backlog at once, or it is overloaded.
const connectTimeout = 10 * time.Second

// Connect connects an unconnected, non-blocking socket, which it takes over.
func Connect(socket *os.File, address unix.Sockaddr) (*net.TCPConn, error) {
	defer socket.Close()
	// Not Fd, which makes the socket a blocking one.
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		if failure = unix.Connect(int(fd), address); failure == unix.EINPROGRESS {
			failure = connected(int(fd))
		}
	})
	if err != nil {
		return nil, err
	}
	if failure != nil {
		return nil, os.NewSyscallError("connect", failure)
	}
	c, err := net.FileConn(socket)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("%T is no TCP connection", c)
	}
	return tcp, nil
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
