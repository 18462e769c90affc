package relay

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// maker makes sockets, and remembers them.
type maker struct {
	mu    sync.Mutex
	calls int
	fail  error
	made  []*os.File
	gate  chan struct{} // if not nil, calls after the first wait for it
}

func (m *maker) make(n int) ([]*os.File, error) {
	m.mu.Lock()
	m.calls++
	first := m.calls == 1
	m.mu.Unlock()
	if !first && m.gate != nil {
		<-m.gate
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return nil, m.fail
	}
	var files []*os.File
	for range n {
		f, err := socket(unix.AF_INET, unix.SOCK_STREAM)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	m.made = append(m.made, files...)
	return files, nil
}

func (m *maker) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

func (m *maker) allClosed(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.made {
		if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("a socket was left open: %v", err)
		}
	}
}

func TestStock(t *testing.T) {
	m := &maker{}
	s := Stock{Make: m.make}
	seen := map[*os.File]bool{}
	for range 5 * batch {
		f, err := s.Take()
		if err != nil {
			t.Fatal(err)
		}
		if seen[f] {
			t.Fatal("a socket was handed out twice")
		}
		seen[f] = true
		f.Close()
	}
	if calls := m.count(); calls > 7 {
		t.Errorf("%d times sockets were made for %d", calls, 5*batch)
	}
	s.Close()
	m.allClosed(t)
}

func TestStockFails(t *testing.T) {
	m := &maker{fail: unix.EMFILE}
	s := Stock{Make: m.make}
	defer s.Close()
	if _, err := s.Take(); !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v, want EMFILE", err)
	}
	m.fail = nil
	f, err := s.Take()
	if err != nil {
		t.Fatalf("it never recovers: %v", err)
	}
	f.Close()
}

// TestStockClosedWhileFilling: what comes after Close belongs to nobody.
func TestStockClosedWhileFilling(t *testing.T) {
	m := &maker{gate: make(chan struct{})}
	s := Stock{Make: m.make}
	for range batch {
		f, err := s.Take()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	closed := make(chan struct{})
	go func() {
		s.Close()
		close(closed)
	}()
	close(m.gate)
	<-closed
	m.allClosed(t)
	if f, err := s.Take(); err == nil {
		f.Close()
		t.Error("a closed stock hands out sockets")
	}
}

// TestFlush: what was made before, or is being made, is not handed out.
func TestFlush(t *testing.T) {
	m := &maker{gate: make(chan struct{})}
	s := Stock{Make: m.make}
	for range batch - low + 2 { // down to where it makes more
		f, err := s.Take()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	m.mu.Lock()
	calls := m.calls // one in the background may only begin after Flush
	m.mu.Unlock()
	s.Flush()
	close(m.gate)
	f, err := s.Take()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if m.count() <= calls {
		t.Error("what was left was handed out after Flush")
	}
	s.Close()
	m.allClosed(t)
}
