// Package relay carries connections and datagrams between two places: what one
// side sends, ends or breaks off reaches the other side as just that.
//
// A relay has no goroutine for a connection. One or two threads, which all
// relays of a process share, wait for what can be moved (epoll(7)) and move it:
// small messages through a buffer, streams within the kernel (splice(2)). A
// connection at rest is a few hundred bytes and two sockets.
package relay

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pause is how long no connection is accepted when the process or the machine
	// has no file descriptors or memory left: the connections there are may end
	// meanwhile.
	pause = 100 * time.Millisecond
	// quiet is how long after a warning the same is not said again.
	quiet = time.Minute
	// burst is how many connections are accepted at a time.
	burst = 32
	// spare is how many descriptors are left to others: a pipe or a new socket for
	// a connection that there is already. checked is how many can't be used up
	// between two looks at how many there are.
	spare, checked = 16, 256
	// imbalance is how many connections more than another loop one has before it
	// gives some away.
	imbalance = 2
)

// Server relays what a stream listener accepts.
type Server struct {
	// Listener is a listening socket (TCP or Unix), which Serve takes over.
	Listener *os.File
	// Target is asked for each connection. Its ends are tried in order, the next
	// where one can't be had or refuses.
	Target func() []End
	// ProxyProtocol tells the target who the client is, in a header before what
	// the client says (the PROXY protocol, version 2).
	ProxyProtocol bool
	// Warn, if not nil, is told of what could not be relayed.
	Warn func(what string, err error)
	// Changed, if not nil, is told when the number of open connections changes
	// between 0 and not 0.
	//
	// Target, Warn and Changed are called by the thread that relays everything:
	// they must not wait, nor call Close.
	Changed func(open int)

	// The loop's own.
	loop     *loop
	fd       int
	attempts int
	local    bool // only this machine can be a client
	early    int  // connections that inherit nothing
	enough   int  // below this descriptor, nobody needs to look how many are left

	// unconnected connections have no socket of the target yet.
	unconnected atomic.Int64

	making sync.WaitGroup // sockets that are being made
	begin  beginning

	changes sync.Mutex // held while Changed is told
	mu      sync.Mutex
	first   *connection
	open    int
	closed  bool
	silence [2]time.Time // until when warnings are not repeated
}

// Serve relays until Close is called.
func (s *Server) Serve() {
	s.begin.serve(s.Listener, s.prepare, s.start, s.warn)
}

// prepare gives the listener what its connections are to inherit. Those that it
// has already are early.
func (s *Server) prepare(fd int) {
	var own sockaddr
	s.local = name(unix.SYS_GETSOCKNAME, fd, &own) == 0 && own.loopback()
	s.improve(fd)
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
		s.early = int(info.Unacked) // of a listener, its backlog (tcp_get_info)
	}
}

func (s *Server) improve(fd int) {
	prompt(fd)
	if s.local {
		hurry(fd)
	}
}

// start has a loop accept, from the first connection on.
func (s *Server) start(l *loop, fd int) {
	s.loop, s.fd, s.attempts = l, fd, 1
	l.call(s.listen)
}

// Close stops listening, ends all connections and waits for their ends.
func (s *Server) Close() {
	s.begin.close(s.stop)
	s.Listener.Close() // if Serve was not called
}

// CloseIdle is Close where there are no connections, and tells whether it is
// closed. No client is accepted and then ended: those that come meanwhile wait in
// the backlog, for whoever has the listener open as well.
func (s *Server) CloseIdle() bool {
	if !s.begin.closeIf(s.idle, s.stop) {
		return false
	}
	s.Listener.Close()
	return true
}

// idle pauses accepting, and goes on with it if somebody is connected.
func (s *Server) idle() bool {
	on(s.loop, func() {
		delete(s.loop.timers, s)
		s.loop.detach(s.fd)
	})
	everywhere(func(*loop) {}) // those that were given to another loop have come there
	if s.Open() == 0 {
		return true
	}
	s.loop.call(s.listen)
	return false
}

func (s *Server) stop() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	everywhere(func(l *loop) {
		if l == s.loop {
			delete(l.timers, s)
			// Closing it detaches it only where nobody else has it open.
			l.detach(s.fd)
			closeSocket(s.fd)
		}
		for _, c := range s.of(l) {
			c.end(false)
		}
	})
	s.making.Wait()
}

// of are the connections that a loop has.
func (s *Server) of(l *loop) []*connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*connection
	for c := s.first; c != nil; c = c.after {
		if c.loop == l {
			all = append(all, c)
		}
	}
	return all
}

// Open is the number of connections that are being relayed.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

func (s *Server) warn(what string, err error) {
	if s.Warn != nil {
		s.Warn(what, err)
	}
}

// listen has the loop tell of connections to accept; event does, level by level,
// so that those that are left are told of again.
func (s *Server) listen() {
	if err := s.loop.attach(s.fd, s, unix.EPOLLIN); err != nil {
		s.warn("listening", err)
		s.loop.arm(s, time.Now().Add(pause))
	}
}

// event accepts. Where there were several connections the last time, it tries
// more: an attempt that finds none costs nearly as much as one that does.
func (s *Server) event(int, uint32) {
	for range s.attempts {
		client, err := accept(s.fd)
		switch err {
		case 0:
			s.accepted(client)
			if client >= s.enough && !s.mayAccept(client) {
				return
			}
		case unix.EAGAIN:
			s.attempts = 1
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			s.exhausted(err)
			s.rest()
			return
		case unix.EINVAL, unix.EBADF, unix.ENOTSOCK, unix.EOPNOTSUPP:
			s.warn("accepting a connection", os.NewSyscallError("accept4", err))
			s.rest()
			return
		}
		// Anything else became of one client (accept(2)).
	}
	s.attempts = min(2*s.attempts, burst)
}

// mayAccept tells whether there are descriptors for another connection, besides
// those that connections without a target need still; otherwise it has the
// server rest. used are those in use.
func (s *Server) mayAccept(used int) bool {
	left := room(used) - int(s.unconnected.Load()) - spare
	if left > 1 {
		s.enough = used + min(left/2, checked)
		return true
	}
	s.enough = 0
	s.exhausted(unix.EMFILE)
	s.rest()
	return false
}

// rest accepts nothing for a while. A listener that was shut down would report
// that for ever, asked or not; so it is detached.
func (s *Server) rest() {
	s.loop.detach(s.fd)
	s.loop.arm(s, time.Now().Add(pause))
}

func (s *Server) tick(time.Time) {
	// Where there are still too few, a client isn't accepted to wait here.
	used, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		closeSocket(used)
	} else {
		used = room(0)
	}
	if room(used)-int(s.unconnected.Load())-spare <= 1 {
		s.loop.arm(s, time.Now().Add(pause))
		return
	}
	s.listen()
}

// exhausted says what there was not enough of, but not each time.
func (s *Server) exhausted(err error) {
	if !s.mayWarn(0, quiet) {
		return
	}
	var limit unix.Rlimit
	if errors.Is(err, unix.EMFILE) && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		err = fmt.Errorf("%w: this process may have %d (ulimit -n, LimitNOFILE= of a unit)", unix.EMFILE, limit.Cur)
	}
	s.warn("accepting connections pauses until others end", err)
}

// unreached says why a target could not be reached, once a second at most.
func (s *Server) unreached(err error) {
	if s.mayWarn(1, time.Second) {
		s.warn("reaching the service", err)
	}
}

func (s *Server) mayWarn(kind int, silence time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Before(s.silence[kind]) {
		return false
	}
	s.silence[kind] = now.Add(silence)
	return true
}

// accepted gives a new connection to the loop that has fewer.
func (s *Server) accepted(client int) {
	if s.early > 0 {
		s.early--
		s.improve(client)
	}
	load := s.loop.load.Load()
	for _, other := range s.loop.others {
		if load > other.load.Load()+imbalance {
			other.load.Add(1)
			other.call(func() { s.relay(other, client) })
			return
		}
	}
	s.loop.load.Add(1)
	s.relay(s.loop, client)
}

// relay begins to relay a connection, on its loop.
func (s *Server) relay(l *loop, client int) {
	c := &connection{server: s, loop: l, sides: [2]side{{fd: client}, {fd: -1}}}
	if !s.change(c.enter) {
		l.load.Add(-1)
		closeSocket(client)
		return
	}
	c.reach()
}

// gone is told of the end of a connection.
func (s *Server) gone(c *connection) { s.change(c.leave) }

// change changes the list of connections with f, and tells of it.
func (s *Server) change(f func() bool) bool {
	if s.Changed == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return f()
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.mu.Lock()
	before := s.open
	done := f()
	after := s.open
	s.mu.Unlock()
	if (before == 0) != (after == 0) {
		s.Changed(after)
	}
	return done
}

func (c *connection) enter() bool {
	s := c.server
	if s.closed {
		return false
	}
	c.after = s.first
	if c.after != nil {
		c.after.before = c
	}
	s.first = c
	s.open++
	return true
}

func (c *connection) leave() bool {
	s := c.server
	if c.before != nil {
		c.before.after = c.after
	} else {
		s.first = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	}
	c.before, c.after = nil, nil
	s.open--
	return true
}
