package relay

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// connectTimeout is for a target on this machine: either it has room in its
// backlog at once, or it is overloaded.
const connectTimeout = 10 * time.Second

// End is one way to reach a target. It gives a socket from Stock, or else from
// Take: an unconnected one of the right network namespace, or a connected one
// where Address is nil.
type End struct {
	// Stock gives a socket without waiting while there are some left.
	Stock *Stock
	// Take may wait, as it runs on a goroutine of its own.
	Take    func() (*os.File, error)
	Address unix.Sockaddr
}

// attempt is what a connection has while its target is being reached.
type attempt struct {
	ends    []End
	next    int // of ends
	began   time.Time
	failure error // of the first end
}

// reach begins to reach the target.
func (c *connection) reach() {
	c.dial = &attempt{ends: c.server.Target()}
	c.server.unconnected.Add(1)
	c.try()
}

// try goes on with the next end.
func (c *connection) try() {
	d := c.dial
	for ; d.next < len(d.ends); d.next++ {
		end := &d.ends[d.next]
		fd, ok := c.loop.obtain(end, &c.server.making, c)
		if !ok {
			return // took will be called
		}
		if c.connect(fd, end.Address) {
			return
		}
	}
	if d.failure == nil {
		d.failure = errors.New("there is no way to it")
	}
	c.server.unreached(d.failure)
	c.end(true)
}

// taker is told of a socket that took its time.
type taker interface {
	took(fd int, err error)
}

// obtain returns a socket of an end's, where that takes no time; otherwise by is
// told of it later, on the loop's thread. Until then, making counts it.
func (l *loop) obtain(end *End, making *sync.WaitGroup, by taker) (int, bool) {
	if end.Stock != nil {
		if fd, ok := end.Stock.try(); ok {
			return fd, true
		}
	}
	making.Add(1)
	got := func(fd int, err error) {
		l.call(func() {
			defer making.Done()
			by.took(fd, err)
		})
	}
	if end.Stock != nil {
		end.Stock.take(got)
		return -1, false
	}
	go func() {
		f, err := end.Take()
		if err != nil {
			got(-1, err)
			return
		}
		fd, err := takeOver(f)
		if err != nil {
			f.Close()
			got(-1, err)
			return
		}
		prompt(fd)
		got(fd, nil)
	}()
	return -1, false
}

func (c *connection) took(fd int, err error) {
	switch {
	case c.over:
		if err == nil {
			closeSocket(fd)
		}
		return
	case err == nil:
		if c.connect(fd, c.dial.ends[c.dial.next].Address) {
			return
		}
	case exhausted(err) && !c.late(time.Now()):
		// The client waits, as those do that are not accepted yet.
		c.server.exhausted(err)
		c.loop.arm(c, time.Now().Add(pause))
		return
	default:
		c.dial.fail(err)
	}
	c.dial.next++
	c.try()
}

// late tells whether this end has had its time. The clock runs from the first
// time that it is asked.
func (c *connection) late(now time.Time) bool {
	if c.dial.began.IsZero() {
		c.dial.began = now
	}
	return now.Sub(c.dial.began) >= connectTimeout
}

func (d *attempt) fail(err error) {
	if d.failure == nil {
		d.failure = err
	}
	d.began = time.Time{}
}

// connect connects the target's socket. It tells whether it has, or is about to;
// otherwise it is the next end's turn.
func (c *connection) connect(fd int, address unix.Sockaddr) bool {
	target := &c.sides[1]
	target.fd = fd
	if address == nil {
		c.establish()
		return true
	}
	to := &c.loop.address
	if err := to.set(address); err != nil {
		c.refused(err)
		return false
	}
	if to.loopback() {
		hurry(fd)
	}
	// On loopback, the connection is there or refused when connect(2) returns; it
	// doesn't say so before it is asked again.
	err := connect(fd, to)
	if err == unix.EINPROGRESS {
		err = connect(fd, to)
	}
	switch err {
	case 0, unix.EISCONN:
		c.establish()
		return true
	case unix.EALREADY, unix.EINPROGRESS:
		if err := c.loop.attach(fd, c, output); err != nil {
			c.refused(err)
			return false
		}
		target.attached, target.watched = true, true
		c.late(time.Now())
		c.loop.arm(c, c.dial.began.Add(connectTimeout))
		return true
	case unix.EAGAIN: // the backlog of a Unix socket is full (connect(2))
		if !c.late(time.Now()) {
			closeSocket(fd)
			target.fd = -1
			c.loop.arm(c, time.Now().Add(pause))
			return true
		}
	}
	c.refused(os.NewSyscallError("connect", err))
	return false
}

// refused closes the target's socket.
func (c *connection) refused(err error) {
	c.dial.fail(err)
	target := &c.sides[1]
	if target.attached {
		c.loop.forget(target.fd)
	}
	closeSocket(target.fd)
	*target = side{fd: -1}
}

// dialled is told of what became of a connect(2) that took its time.
func (c *connection) dialled(events uint32) {
	delete(c.loop.timers, c)
	if events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		c.establish()
		return
	}
	code, err := unix.GetsockoptInt(c.sides[1].fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil {
		err = unix.Errno(code)
	}
	c.refused(os.NewSyscallError("connect", err))
	c.dial.next++
	c.try()
}

// tick is for a connect(2) that took too long, or for another attempt to get a
// socket.
func (c *connection) tick(time.Time) {
	if c.over || c.dial == nil {
		return
	}
	if c.sides[1].fd >= 0 {
		c.refused(os.NewSyscallError("connect", unix.ETIMEDOUT))
		c.dial.next++
	}
	c.try()
}
