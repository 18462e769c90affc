package relay

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// beginning waits for the first client of a listener, and only then has a loop
// made: a container that nobody connects to has no thread for it.
type beginning struct {
	mu      sync.Mutex
	waiting *os.File
	started bool
	closed  bool
	once    sync.Once
	ended   chan struct{}
}

// serve takes the listener over and calls prepare with it at once, and start with
// a loop at its first client. It returns after close.
func (b *beginning) serve(listener *os.File, prepare func(fd int), start func(l *loop, fd int), warn func(string, error)) {
	b.once.Do(b.init)
	for {
		err := b.start(listener, prepare, start)
		if err == nil {
			break
		}
		warn("listening", err)
		select {
		case <-b.ended:
		case <-time.After(time.Second):
		}
	}
	<-b.ended
}

func (b *beginning) init() { b.ended = make(chan struct{}) }

// start returns an error if it can be tried again.
func (b *beginning) start(listener *os.File, prepare func(fd int), start func(l *loop, fd int)) error {
	file, err := b.wait(listener, prepare)
	if file == nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	l, err := join()
	if err != nil {
		return err
	}
	fd, err := takeOver(file)
	if err != nil {
		leave()
		return err
	}
	b.started = true
	start(l, fd)
	return nil
}

// wait waits for the first client; it returns nil after close.
func (b *beginning) wait(listener *os.File, prepare func(fd int)) (*os.File, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		listener.Close()
		return nil, nil
	}
	if b.waiting == nil {
		// Of its own, as the listener need not be one that Go's runtime polls.
		fd, err := takeOver(listener)
		if err != nil {
			b.mu.Unlock()
			return nil, err
		}
		prepare(fd)
		b.waiting = os.NewFile(uintptr(fd), "listener")
	}
	file := b.waiting
	b.mu.Unlock()
	raw, err := file.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0
		})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, nil
	}
	return file, err
}

// running calls f unless nothing was started, or that has ended. F must not wait.
func (b *beginning) running(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.started && !b.closed {
		f()
	}
}

// close ends serve. stop ends what was started; it is not called where nothing
// was.
func (b *beginning) close(stop func()) { b.closeIf(nil, stop) }

// closeIf is close, unless what was started is not idle; it tells whether it is
// closed.
func (b *beginning) closeIf(idle func() bool, stop func()) bool {
	b.once.Do(b.init)
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		<-b.ended
		return true
	}
	if b.started && idle != nil && !idle() {
		b.mu.Unlock()
		return false
	}
	b.closed = true
	started := b.started
	if b.waiting != nil {
		b.waiting.Close()
	}
	b.mu.Unlock()
	if started {
		stop()
		leave()
	}
	close(b.ended)
	return true
}
