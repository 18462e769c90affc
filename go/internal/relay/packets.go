package relay

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// packetTimeout and packetClients are what 0 stands for.
	packetTimeout = 2 * time.Minute
	packetClients = 1024
	// packetBacklog is how many datagrams wait for an association's socket.
	packetBacklog = 16
)

// Packets relays datagrams. Each client address has an association with the
// target: a socket of its own, which the answers come back on. That nobody
// listens (ICMP, port unreachable) is told to nobody, and ends the association: a
// client that cares asks again, and begins anew.
type Packets struct {
	// Listener is a bound UDP socket, which Serve takes over.
	Listener *os.File
	// Target is asked for each new association. Its ends are tried in order, the
	// next where one can't be had or refuses the first datagram.
	Target func() []End
	// Timeout is how long an association lives without traffic; 0 is two minutes.
	Timeout time.Duration
	// MaxClients bounds the associations: the one that is idle longest goes. 0 is
	// 1024.
	MaxClients int
	// Warn, if not nil, is told of what could not be relayed.
	Warn func(what string, err error)
	// Changed, if not nil, is told when the number of associations changes
	// between 0 and not 0. Like Target and Warn, it must not wait, nor call Close.
	Changed func(open int)

	// The loop's own.
	loop           *loop
	fd             int
	queued         bool
	clients        map[client]*association
	oldest, newest *association // by their last traffic
	silence        time.Time    // until when a warning is not repeated

	making sync.WaitGroup
	begin  beginning

	mu   sync.Mutex
	open int
}

// client is an address that datagrams come from, and the one of the host's that
// they came to, where the listener has several.
type client struct {
	from packetAddress
	to   [16]byte
}

// association is a client's socket of the target's.
type association struct {
	packets *Packets
	client  client
	control packetControl // for answers
	ends    []End
	next    int // of ends
	fd      int // -1 until there is one
	// waiting are the first datagrams, until the socket is there and takes them;
	// then it is proven.
	waiting       [][]byte
	proven        bool
	answered      bool
	refused       bool // nobody has listened, the last time
	last          time.Time
	before, after *association
	queued, over  bool
}

// Serve relays until Close is called.
func (p *Packets) Serve() {
	p.begin.serve(p.Listener, tellDestination, p.start, p.warn)
}

func (p *Packets) start(l *loop, fd int) {
	p.loop, p.fd, p.clients = l, fd, map[client]*association{}
	l.call(func() {
		if err := l.attach(fd, p, unix.EPOLLIN|unix.EPOLLET); err != nil {
			p.warn("listening", err)
		}
	})
}

// Close ends all associations.
func (p *Packets) Close() {
	p.begin.close(p.stop)
	p.Listener.Close() // if Serve was not called
}

// CloseIdle is Close where there are no associations, and tells whether it is
// closed. Datagrams that come meanwhile wait, for whoever has the socket open as
// well.
func (p *Packets) CloseIdle() bool {
	if !p.begin.closeIf(p.idle, p.stop) {
		return false
	}
	p.Listener.Close()
	return true
}

// idle stops receiving, unless there are associations.
func (p *Packets) idle() bool {
	idle := false
	on(p.loop, func() {
		if idle = len(p.clients) == 0; idle {
			p.shut()
		}
	})
	return idle
}

func (p *Packets) stop() {
	on(p.loop, func() {
		p.shut()
		delete(p.loop.timers, p)
		for p.oldest != nil {
			p.oldest.end()
		}
	})
	p.making.Wait()
}

// shut closes the socket.
func (p *Packets) shut() {
	if p.fd >= 0 {
		p.loop.detach(p.fd)
		closeSocket(p.fd)
		p.fd = -1
	}
}

// Forget ends all associations, as what they lead to has gone. Who goes on
// sending gets new ones.
func (p *Packets) Forget() {
	p.begin.running(func() {
		p.loop.call(func() {
			for p.oldest != nil {
				p.oldest.end()
			}
		})
	})
}

// Open is the number of associations.
func (p *Packets) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

func (p *Packets) count(by int) {
	p.mu.Lock()
	p.open += by
	open := p.open
	p.mu.Unlock()
	if p.Changed != nil && (open == 0 || open == by) {
		p.Changed(open)
	}
}

func (p *Packets) warn(what string, err error) {
	if p.Warn != nil {
		p.Warn(what, err)
	}
}

// event is told of datagrams of clients.
func (p *Packets) event(int, uint32) {
	if !p.queued {
		p.work()
	}
}

func (p *Packets) work() {
	p.queued = false
	if p.fd < 0 {
		return
	}
	b, now := p.loop.datagrams(), time.Now()
	for range turn {
		n, err := b.receive(p.fd)
		if err == unix.EAGAIN {
			return
		}
		if err != 0 {
			continue // what an ICMP message said of an answer
		}
		for i := 0; i < n; {
			of := b.client(i)
			first := i
			for i++; i < n && b.client(i) == of; i++ {
			}
			if a := p.association(of, b, first, now); a != nil {
				a.forward(b, first, i)
			}
		}
	}
	p.queued = true
	p.loop.again = append(p.loop.again, p)
}

// association returns a client's, and makes it where there is none.
func (p *Packets) association(of client, b *datagrams, i int, now time.Time) *association {
	if a := p.clients[of]; a != nil {
		a.touch(now)
		return a
	}
	limit := p.MaxClients
	if limit == 0 {
		limit = packetClients
	}
	if len(p.clients) >= limit {
		p.oldest.end()
	}
	a := &association{packets: p, client: of, control: b.answerFrom(i), ends: p.Target(), fd: -1}
	p.clients[of] = a
	a.enter(now)
	p.count(1)
	if len(p.clients) == 1 {
		p.loop.arm(p, now.Add(p.timeout()))
	}
	a.try()
	if a.over {
		return nil
	}
	return a
}

func (p *Packets) timeout() time.Duration {
	if p.Timeout == 0 {
		return packetTimeout
	}
	return p.Timeout
}

// tick ends what was idle for too long.
func (p *Packets) tick(now time.Time) {
	for p.oldest != nil {
		if end := p.oldest.last.Add(p.timeout()); now.Before(end) {
			p.loop.arm(p, end)
			return
		}
		p.oldest.end()
	}
}

// try takes a socket of the next end.
func (a *association) try() {
	p := a.packets
	var failure error
	for ; a.next < len(a.ends); a.next++ {
		end := &a.ends[a.next]
		fd, ok := p.loop.obtain(end, &p.making, a)
		if !ok {
			return // took will be called
		}
		if failure = a.connect(fd, end.Address); failure == nil {
			return
		}
	}
	a.fail(failure)
}

func (a *association) fail(err error) {
	if err == nil {
		err = errors.New("there is no way to it")
	}
	p := a.packets
	if now := time.Now(); !now.Before(p.silence) {
		p.silence = now.Add(quiet)
		p.warn("reaching the service", err)
	}
	a.end()
}

func (a *association) took(fd int, err error) {
	if a.over {
		if err == nil {
			closeSocket(fd)
		}
		return
	}
	if err == nil {
		if err = a.connect(fd, a.ends[a.next].Address); err == nil {
			return
		}
	}
	if a.next++; a.next < len(a.ends) {
		a.try()
		return
	}
	a.fail(err)
}

func (a *association) connect(fd int, address unix.Sockaddr) error {
	l := a.packets.loop
	var err error
	if address != nil {
		if err = l.address.set(address); err == nil {
			if e := connect(fd, &l.address); e != 0 {
				err = os.NewSyscallError("connect", e)
			}
		}
	}
	if err == nil {
		err = l.attach(fd, a, unix.EPOLLIN|unix.EPOLLET)
	}
	if err != nil {
		closeSocket(fd)
		return err
	}
	a.fd = fd
	a.flush()
	return nil
}

// forward passes on a client's datagrams.
func (a *association) forward(b *datagrams, first, end int) {
	if a.proven {
		b.send(a.fd, first, end)
		return
	}
	for i := first; i < end && len(a.waiting) < packetBacklog; i++ {
		a.waiting = append(a.waiting, append([]byte{}, b.data(i)...))
	}
	if a.fd >= 0 {
		a.flush()
	}
}

// flush sends what waits. Where that is refused, it is the next end's turn: on
// loopback the refusal is there when the datagram is sent.
func (a *association) flush() {
	if len(a.waiting) == 0 {
		return
	}
	for _, data := range a.waiting {
		sendDatagram(a.fd, data)
	}
	if len(a.ends) == 1 || !refused(a.fd) {
		a.proven, a.waiting = true, nil
		return
	}
	a.onward()
}

// onward leaves an end that refuses. Where there is no other one, or this is
// the one that has answered, it is over: the target may be another by now, so
// the next datagram begins anew.
func (a *association) onward() {
	if a.next++; a.answered || a.next >= len(a.ends) {
		a.end()
		return
	}
	a.packets.loop.forget(a.fd)
	closeSocket(a.fd)
	a.fd, a.refused, a.proven = -1, false, false
	a.try()
}

// event is told of the target's answers.
func (a *association) event(int, uint32) {
	if !a.queued {
		a.work()
	}
}

func (a *association) work() {
	a.queued = false
	if a.over || a.fd < 0 {
		return
	}
	p := a.packets
	b := p.loop.datagrams()
	for range turn {
		n, err := b.receive(a.fd)
		if err == unix.EAGAIN {
			if a.refused {
				a.onward()
			}
			return
		}
		if err != 0 {
			// It comes before answers that are there already.
			a.refused = a.refused || err == unix.ECONNREFUSED
			continue
		}
		a.answered = true
		a.touch(time.Now())
		b.answer(p.fd, n, a)
	}
	a.queued = true
	p.loop.again = append(p.loop.again, a)
}

// end closes it.
func (a *association) end() {
	if a.over {
		return
	}
	a.over = true
	p := a.packets
	if a.fd >= 0 {
		p.loop.forget(a.fd)
		closeSocket(a.fd)
		a.fd = -1
	}
	a.leave()
	delete(p.clients, a.client)
	a.waiting = nil
	p.count(-1)
}

// touch makes it the newest.
func (a *association) touch(now time.Time) {
	if a.packets.newest != a {
		a.leave()
		a.enter(now)
	}
	a.last = now
}

func (a *association) enter(now time.Time) {
	p := a.packets
	a.last, a.before = now, p.newest
	if p.newest != nil {
		p.newest.after = a
	} else {
		p.oldest = a
	}
	p.newest = a
}

func (a *association) leave() {
	p := a.packets
	if a.before != nil {
		a.before.after = a.after
	} else {
		p.oldest = a.after
	}
	if a.after != nil {
		a.after.before = a.before
	} else {
		p.newest = a.before
	}
	a.before, a.after = nil, nil
}
