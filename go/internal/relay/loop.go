package relay

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A loop is one thread that waits for events (epoll(7)) and moves what can be
// moved. All relays of a process share its loops, which are there from the first
// connection to the Close of the last relay that had one; everything that is a
// loop's is touched by its own thread alone.
type loop struct {
	epoll, wake int
	// slots are who is told of a descriptor's events, by its number.
	slots []slot
	// again are those who had more to move than is fair at a time.
	again, resumed []worker
	timers         map[timer]time.Time
	first          time.Time // of the timers' deadlines, or before
	pipes          pipes
	buffer         []byte
	packets        *datagrams
	address        sockaddr // scratch

	// load is the number of connections.
	load   atomic.Int64
	others []*loop

	mu     sync.Mutex
	calls  []func()
	called bool
	ending bool
	ended  chan struct{}
}

// handler is told of events. It may attach and detach any descriptor meanwhile.
type handler interface {
	event(fd int, events uint32)
}

// worker has more to do.
type worker interface{ work() }

// timer is something with a deadline.
type timer interface {
	// tick is called once the deadline has come.
	tick(now time.Time)
}

// slot has a generation, as a descriptor that was closed while its event was
// already reported may be another one by now.
type slot struct {
	handler    handler
	generation int32
}

// loops are those of this process.
var loops struct {
	mu    sync.Mutex
	all   []*loop
	users int
	next  int
}

// maxLoops is two, where there are processors left for clients and services.
func maxLoops() int {
	if runtime.NumCPU() < 4 {
		return 1
	}
	return 2
}

// join returns a loop. Each join is followed by a leave.
func join() (*loop, error) {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	if loops.users == 0 {
		for range maxLoops() {
			l, err := newLoop()
			if err != nil {
				for _, l := range loops.all {
					l.close()
				}
				loops.all = nil
				return nil, err
			}
			loops.all = append(loops.all, l)
		}
		for i, l := range loops.all {
			l.others = append(slices.Clone(loops.all[:i]), loops.all[i+1:]...)
			go l.run()
		}
	}
	loops.users++
	loops.next++
	return loops.all[loops.next%len(loops.all)], nil
}

func leave() {
	loops.mu.Lock()
	defer loops.mu.Unlock()
	if loops.users--; loops.users > 0 {
		return
	}
	for _, l := range loops.all {
		l.end()
	}
	loops.all = nil
}

// everywhere runs f on all loops, one after the other, and waits for it.
func everywhere(f func(l *loop)) {
	loops.mu.Lock()
	all := loops.all
	loops.mu.Unlock()
	for _, l := range all {
		on(l, func() { f(l) })
	}
}

// on runs f on a loop and waits for it.
func on(l *loop, f func()) {
	done := make(chan struct{})
	l.call(func() {
		f()
		close(done)
	})
	<-done
}

func newLoop() (*loop, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(wake)})
	}
	if err != nil {
		if wake > 0 {
			closeSocket(wake)
		}
		closeSocket(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &loop{
		epoll: epoll, wake: wake,
		timers: map[timer]time.Time{},
		buffer: make([]byte, bufferSize),
		ended:  make(chan struct{}),
	}, nil
}

// call runs f on the loop's thread. It may be called from anywhere.
func (l *loop) call(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, f)
	l.awake()
}

// awake is called with the lock.
func (l *loop) awake() {
	if !l.called {
		l.called = true
		one := uint64(1)
		unix.RawSyscall(unix.SYS_WRITE, uintptr(l.wake), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// end ends the loop, after what was called before.
func (l *loop) end() {
	l.mu.Lock()
	l.ending = true
	l.awake()
	l.mu.Unlock()
	<-l.ended
}

func (l *loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]unix.EpollEvent, 128)
	for {
		n, _ := unix.EpollWait(l.epoll, events, l.patience())
		for i := range max(n, 0) { // an error is EINTR
			e := &events[i]
			if e.Fd == int32(l.wake) {
				continue
			}
			if s := &l.slots[e.Fd]; s.handler != nil && s.generation == e.Pad {
				s.handler.event(int(e.Fd), e.Events)
			}
		}
		if l.calling() {
			l.close()
			close(l.ended)
			return
		}
		l.resume()
		l.expire()
	}
}

// calling runs what was called and tells whether that was the end.
func (l *loop) calling() bool {
	l.mu.Lock()
	if !l.called {
		l.mu.Unlock()
		return false
	}
	calls, ending := l.calls, l.ending
	l.calls, l.called = nil, false
	l.mu.Unlock()
	for _, f := range calls {
		f()
	}
	return ending
}

func (l *loop) close() {
	l.pipes.close()
	closeSocket(l.wake)
	closeSocket(l.epoll)
}

func (l *loop) resume() {
	l.again, l.resumed = l.resumed[:0], l.again
	for i, w := range l.resumed {
		l.resumed[i] = nil
		w.work()
	}
}

// patience is how long to wait for events, in milliseconds: -1 is for ever.
func (l *loop) patience() int {
	if len(l.again) > 0 {
		return 0
	}
	if l.first.IsZero() {
		return -1
	}
	return int(max(time.Until(l.first)+time.Millisecond-1, 0) / time.Millisecond)
}

func (l *loop) expire() {
	if l.first.IsZero() {
		return
	}
	now := time.Now()
	if now.Before(l.first) {
		return
	}
	l.first = time.Time{}
	var due []timer
	for t, at := range l.timers {
		if now.Before(at) {
			l.await(at)
			continue
		}
		delete(l.timers, t)
		due = append(due, t)
	}
	for _, t := range due {
		t.tick(now)
	}
}

// arm sets a timer's deadline.
func (l *loop) arm(t timer, at time.Time) {
	l.timers[t] = at
	l.await(at)
}

func (l *loop) await(at time.Time) {
	if l.first.IsZero() || at.Before(l.first) {
		l.first = at
	}
}

// attach has h told of a descriptor's events.
func (l *loop) attach(fd int, h handler, events uint32) error {
	if fd >= len(l.slots) {
		l.slots = append(l.slots, make([]slot, fd+1-len(l.slots))...)
	}
	s := &l.slots[fd]
	s.generation++
	s.handler = h
	if err := l.control(unix.EPOLL_CTL_ADD, fd, events); err != nil {
		s.handler = nil
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// modify changes the events that a descriptor's handler is told of.
func (l *loop) modify(fd int, events uint32) {
	_ = l.control(unix.EPOLL_CTL_MOD, fd, events)
}

func (l *loop) control(op, fd int, events uint32) error {
	return unix.EpollCtl(l.epoll, op, fd, &unix.EpollEvent{Events: events, Fd: int32(fd), Pad: l.slots[fd].generation})
}

// detach ends that.
func (l *loop) detach(fd int) {
	_ = l.control(unix.EPOLL_CTL_DEL, fd, 0)
	l.forget(fd)
}

// forget is for a descriptor that is about to be closed, which detaches it.
func (l *loop) forget(fd int) { l.slots[fd].handler = nil }
