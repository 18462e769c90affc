package relay

import "golang.org/x/sys/unix"

const (
	// bufferSize is what is copied at most at a time. What fills it is a stream,
	// which is spliced from then on.
	bufferSize = 32 << 10
	// trickle is what a stream moves at a time at least. One that moved less
	// for some times in a row is copied again: for a small message, splice(2) is
	// two calls and a pipe too many.
	trickle      = 8 << 10
	trickleTimes = 16
	// turn is how often one direction takes something before others have theirs.
	turn = 16
)

const (
	input  = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
	output = input | unix.EPOLLOUT
)

// connection is a client's connection and the one to the target that serves it.
type connection struct {
	server *Server
	loop   *loop
	// sides are the client's and the target's. The target's descriptor is -1
	// until there is one.
	sides [2]side
	// flows are the client's, to the target, and the target's.
	flows [2]flow
	dial  *attempt // until the target is reached
	// queued: in loop.again. over: both sides are closed.
	queued, over bool
	// Neighbours in the server's list.
	before, after *connection
}

// side is one of the two sockets.
type side struct {
	fd int
	// readable and writable: the kernel has not said otherwise.
	readable, writable bool
	// thorough: a short read does not mean that nothing is left, as the end has
	// come already, of which no other event will tell, or urgent data, at which a
	// read stops.
	thorough bool
	// broken off by the other end.
	broken bool
	// attached to the loop, and watched for room to write, too.
	attached, watched bool
}

// flow is what goes from one side to the other.
type flow struct {
	// held bytes were taken and are still to be put: in the pipe, or in rest.
	held  int
	pipe  pipe
	rest  []byte
	small uint8 // how often a stream was a trickle
	// stream is spliced. ended: nothing more comes. told: and the other side
	// knows.
	stream, ended, told bool
}

// outcome is what became of an attempt to move something.
type outcome int

const (
	waits outcome = iota
	more          // there is, but it is the others' turn
	broke         // the connection is to be broken off
)

// establish begins to relay, once the target is reached.
func (c *connection) establish() {
	c.dial = nil
	c.server.unconnected.Add(-1)
	client, target := &c.sides[0], &c.sides[1]
	client.writable, target.writable = true, true
	if c.server.ProxyProtocol && !c.introduce() {
		c.end(true)
		return
	}
	// Many clients have said something by now.
	client.readable = true
	if !c.pump() {
		return
	}
	// Whatever came meanwhile is reported at once.
	for i := range c.sides {
		s := &c.sides[i]
		if s.attached {
			continue // since it was being connected
		}
		events := uint32(input)
		if s.watched = !s.writable; s.watched {
			events = output
		}
		s.attached = true
		if err := c.loop.attach(s.fd, c, events); err != nil {
			c.server.warn("watching a connection", err)
			c.end(true)
			return
		}
	}
}

func (c *connection) event(fd int, events uint32) {
	if c.dial != nil {
		c.dialled(events)
		return
	}
	s := &c.sides[0]
	if fd != s.fd {
		s = &c.sides[1]
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.readable = true
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR|unix.EPOLLPRI) != 0 {
		s.thorough = true
	}
	if events&unix.EPOLLOUT != 0 {
		s.writable = true
	}
	if events&unix.EPOLLERR != 0 {
		s.broken = true
	}
	c.pump()
}

// work goes on where there was more than is fair at a time.
func (c *connection) work() {
	c.queued = false
	if !c.over {
		c.pump()
	}
}

// pump moves what can be moved, and tells whether the connection goes on.
func (c *connection) pump() bool {
	again := false
	for d := range c.flows {
		switch c.carry(d) {
		case broke:
			c.end(true)
			return false
		case more:
			again = true
		}
	}
	switch {
	case c.flows[0].told && c.flows[1].told:
		c.end(false)
		return false
	case again:
		if !c.queued {
			c.queued = true
			c.loop.again = append(c.loop.again, c)
		}
	case c.sides[0].broken || c.sides[1].broken:
		// What was still to be had of it has been passed on, or nobody takes it.
		c.end(true)
		return false
	}
	return true
}

// carry moves what goes from side d to the other.
func (c *connection) carry(d int) outcome {
	f, from, to := &c.flows[d], &c.sides[d], &c.sides[1-d]
	for range turn {
		if f.held > 0 {
			if !to.writable {
				return waits
			}
			if c.put(f, to) == broke {
				return broke
			}
			continue
		}
		if f.ended {
			// When both have ended, closing says so.
			if !f.told && !c.flows[1-d].told {
				endSocket(to.fd)
			}
			f.told = true
			return waits
		}
		if !from.readable || !to.writable {
			return waits
		}
		if c.take(f, from, to) == broke {
			return broke
		}
	}
	return more
}

// take gets what a side says, and puts it where it does not take a pipe.
func (c *connection) take(f *flow, from, to *side) outcome {
	if f.stream {
		if one, ok := c.loop.pipes.get(); ok {
			n, err := splice(from.fd, one.in, pipeSize)
			if err == 0 && n > 0 {
				f.pipe, f.held = one, n
				if f.small++; n >= trickle {
					f.small = 0
				}
				f.stream = f.small < trickleTimes
				return waits
			}
			c.loop.pipes.put(one, true)
			return f.took(from, n, err)
		}
	}
	buffer := c.loop.buffer
	n, err := read(from.fd, buffer)
	if err != 0 || n == 0 {
		return f.took(from, n, err)
	}
	if n == len(buffer) {
		f.stream, f.small = true, 0
	} else if !from.thorough {
		// More would be an event of its own (epoll(7), question 9).
		from.readable = false
	}
	sent, err := write(to.fd, buffer[:n])
	switch {
	case err == unix.EAGAIN:
		sent = 0
		c.full(to)
	case err != 0:
		return broke
	}
	if sent < n {
		f.rest = append([]byte(nil), buffer[sent:n]...)
		f.held = len(f.rest)
	}
	return waits
}

// took is what to make of an attempt that got nothing.
func (f *flow) took(from *side, n int, err errno) outcome {
	switch {
	case err == unix.EAGAIN:
		from.readable = false
	case err != 0 || from.broken:
		// The kernel tells an error once, and then an end (tcp_recvmsg in
		// net/ipv4/tcp.c).
		return broke
	default:
		f.ended = true
	}
	return waits
}

// put passes on what is held.
func (c *connection) put(f *flow, to *side) outcome {
	var n int
	var err errno
	if f.rest != nil {
		n, err = write(to.fd, f.rest)
	} else {
		n, err = splice(f.pipe.out, to.fd, f.held)
	}
	switch {
	case err == unix.EAGAIN:
		c.full(to)
		return waits
	case err != 0 || n == 0:
		return broke
	}
	f.held -= n
	switch {
	case f.rest != nil && f.held == 0:
		f.rest = nil
	case f.rest != nil:
		f.rest = f.rest[n:]
	case f.held == 0:
		c.loop.pipes.put(f.pipe, true)
	}
	return waits
}

// full notes that a side takes no more for now.
func (c *connection) full(to *side) {
	to.writable = false
	// A side that was never full is not watched for room: it always has some, and
	// each event would say so.
	if to.attached && !to.watched {
		to.watched = true
		c.loop.modify(to.fd, output)
	}
}

// end closes both sides, as broken off or not.
func (c *connection) end(broken bool) {
	if c.over {
		return
	}
	c.over = true
	for i := range c.flows {
		f := &c.flows[i]
		if f.held > 0 && f.rest == nil {
			c.loop.pipes.put(f.pipe, false)
		}
		f.rest = nil
	}
	for i := range c.sides {
		s := &c.sides[i]
		if s.fd < 0 {
			continue
		}
		if s.attached {
			c.loop.forget(s.fd)
		}
		if broken {
			resetSocket(s.fd)
		} else {
			closeSocket(s.fd)
		}
	}
	if c.dial != nil {
		delete(c.loop.timers, c)
		c.server.unconnected.Add(-1)
	}
	c.loop.load.Add(-1)
	c.server.gone(c)
}
