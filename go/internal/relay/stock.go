package relay

import (
	"errors"
	"net"
	"os"
	"sync"
)

const (
	// batch is how many sockets a Stock asks for at a time.
	batch = 64
	// low is when it asks for more, so that they come before it is empty.
	low = 32
)

// Stock keeps a few unconnected sockets of another network namespace, so that a
// connection rarely waits for whoever makes them.
type Stock struct {
	// Make returns n unconnected sockets.
	Make func(n int) ([]*os.File, error)

	mu      sync.Mutex
	free    []int
	waiting []func(fd int, err error)
	filling bool
	fillers sync.WaitGroup
	closed  bool
	// generation tells sockets that were asked for before a Flush.
	generation int
}

// Take returns a socket, and waits for one where there is none left.
func (s *Stock) Take() (*os.File, error) {
	type result struct {
		fd  int
		err error
	}
	later := make(chan result, 1)
	s.take(func(fd int, err error) { later <- result{fd, err} })
	r := <-later
	if r.err != nil {
		return nil, r.err
	}
	return os.NewFile(uintptr(r.fd), "socket"), nil
}

// try returns a socket, where there is one.
func (s *Stock) try() (fd int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.free) == 0 {
		return -1, false
	}
	return s.pop(), true
}

// take calls got with a socket, at once or once there is one, or with why there
// is none.
func (s *Stock) take(got func(fd int, err error)) {
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		got(-1, net.ErrClosed)
	case len(s.free) > 0:
		fd := s.pop()
		s.mu.Unlock()
		got(fd, nil)
	default:
		s.waiting = append(s.waiting, got)
		s.refill()
		s.mu.Unlock()
	}
}

func (s *Stock) pop() int {
	n := len(s.free)
	fd := s.free[n-1]
	s.free = s.free[:n-1]
	s.refill()
	return fd
}

func (s *Stock) refill() {
	if len(s.free) < low && !s.filling {
		s.filling = true
		s.fillers.Go(s.fill)
	}
}

// fill makes sockets until there are enough, or none can be made.
func (s *Stock) fill() {
	for more := true; more; {
		s.mu.Lock()
		generation := s.generation
		s.mu.Unlock()
		fds, err := s.make()
		more = s.stow(fds, generation, err)
	}
}

// make asks for a batch, and for one socket where that is too much for the
// limits that there are.
func (s *Stock) make() ([]int, error) {
	files, err := s.Make(batch)
	if exhausted(err) {
		files, err = s.Make(1)
	}
	fds := make([]int, 0, len(files))
	for _, f := range files {
		fd, failure := takeOver(f)
		if failure != nil {
			err = failure
			f.Close()
			continue
		}
		prompt(fd)
		fds = append(fds, fd)
	}
	if len(fds) == 0 && err == nil {
		err = errors.New("no sockets were made")
	}
	return fds, err
}

// stow gives new sockets to those who wait and keeps the rest. It tells whether
// more are needed.
func (s *Stock) stow(fds []int, generation int, err error) bool {
	s.mu.Lock()
	switch {
	case s.closed:
		closeAll(fds)
		fds, err = nil, net.ErrClosed
	case s.generation != generation:
		closeAll(fds)
		fds, err = nil, nil
	}
	given := min(len(fds), len(s.waiting))
	served := s.waiting[:given]
	var failed []func(int, error)
	s.waiting = s.waiting[given:]
	s.free = append(s.free, fds[given:]...)
	if err != nil {
		failed, s.waiting = s.waiting, nil
	}
	more := err == nil && (len(s.waiting) > 0 || len(s.free) < low)
	s.filling = more
	s.mu.Unlock()
	for i, got := range served {
		got(fds[i], nil)
	}
	for _, got := range failed {
		got(-1, err)
	}
	return more
}

// Flush drops what is left, as the namespace it belongs to is gone.
func (s *Stock) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty()
	s.generation++
}

// Close closes the sockets that are left, and those that are being made.
func (s *Stock) Close() {
	s.mu.Lock()
	s.closed = true
	s.empty()
	s.mu.Unlock()
	s.fillers.Wait()
}

func (s *Stock) empty() {
	closeAll(s.free)
	s.free = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		closeSocket(fd)
	}
}
