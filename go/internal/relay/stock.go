package relay

import (
	"net"
	"os"
	"sync"
)

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
	// generation tells sockets that were asked for before a Flush.
	generation int
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
		generation := s.generation
		s.filling.Go(func() { s.fill(generation) })
	}
	return f, nil
}

func (s *Stock) fill(generation int) {
	files, err := s.Make(batch)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refill = false
	if err != nil {
		return
	}
	if s.closed || s.generation != generation {
		closeAll(files)
		return
	}
	s.free = append(s.free, files...)
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
	s.filling.Wait()
}

func (s *Stock) empty() {
	closeAll(s.free)
	s.free = nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
