package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEnds: what a client sees of targets that can be reached, or can't.
func TestEnds(t *testing.T) {
	l := listen(t)
	defer l.Close()
	nobody := listen(t)
	nobody.Close()
	refuses, serves := to(nobody.Addr()), to(l.Addr())
	gone := End{Take: func() (*os.File, error) { return nil, unix.ENXIO }}
	wrong := serves
	wrong.Address = &unix.SockaddrInet6{Port: l.Addr().(*net.TCPAddr).Port, Addr: [16]byte{15: 1}}
	noSocket := serves
	noSocket.Take = func() (*os.File, error) { return os.Open("/proc/self/exe") }
	connected := End{Take: func() (*os.File, error) {
		c, err := dial(l.Addr().(*net.TCPAddr))
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.File()
	}}
	long := End{
		Take:    func() (*os.File, error) { return socket(unix.AF_UNIX, unix.SOCK_STREAM) },
		Address: &unix.SockaddrUnix{Name: strings.Repeat("x", 108)},
	}
	tests := []struct {
		name string
		ends []End
		want error // nil where the target is reached
	}{
		{"listening", []End{serves}, nil},
		{"connected already", []End{connected}, nil},
		{"nobody listens", []End{refuses}, unix.ECONNREFUSED},
		{"nobody, then somebody", []End{refuses, gone, serves}, nil},
		{"the first one's reason counts", []End{refuses, gone}, unix.ECONNREFUSED},
		{"no socket to be had", []End{gone}, unix.ENXIO},
		{"another family", []End{wrong}, unix.EAFNOSUPPORT},
		{"no socket", []End{noSocket}, unix.ENOTSOCK},
		{"too long a path", []End{long}, unix.ENAMETOOLONG},
		{"no way", nil, errAny},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			before := sockets(t)
			warned := make(chan error, 1)
			listener, address := listening(t)
			s := &Server{Listener: listener, Target: func() []End { return test.ends }, Warn: func(_ string, err error) { warned <- err }}
			go s.Serve()
			defer s.Close()
			c, err := dial(address)
			if err == nil {
				defer c.Close()
			}
			if test.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				accepted, err := l.AcceptTCP()
				if err != nil {
					t.Fatal(err)
				}
				say(t, accepted, "hello")
				hear(t, c, "hello")
				accepted.Close()
			} else {
				if err := <-warned; !errors.Is(err, test.want) && test.want != errAny {
					t.Errorf("warned of %v, want %v", err, test.want)
				}
				if err == nil {
					_, err = c.Read(make([]byte, 1))
				}
				if !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("the client sees %v, want ECONNRESET", err)
				}
			}
			if c != nil {
				c.Close()
			}
			s.Close()
			if after := sockets(t); after != before {
				t.Errorf("%d sockets are open, %d were", after, before)
			}
		})
	}
}

var errAny = errors.New("any error")

// TestUnix is a relay between Unix sockets, of which neither end knows TCP.
func TestUnix(t *testing.T) {
	before := sockets(t)
	folder := t.TempDir()
	service, err := net.ListenUnix("unix", &net.UnixAddr{Name: folder + "/service"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: folder + "/relay"})
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Listener: file, Target: func() []End {
		return []End{{
			Take:    func() (*os.File, error) { return socket(unix.AF_UNIX, unix.SOCK_STREAM) },
			Address: &unix.SockaddrUnix{Name: folder + "/service"},
		}}
	}}
	go s.Serve()
	client, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: folder + "/relay"})
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := service.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4<<20)
	rand.Read(data)
	var all sync.WaitGroup
	for _, ends := range [][2]*net.UnixConn{{client, accepted}, {accepted, client}} {
		all.Go(func() {
			if _, err := ends[0].Write(data); err != nil {
				t.Error(err)
			}
			_ = ends[0].CloseWrite()
		})
		all.Go(func() {
			if got, err := io.ReadAll(ends[1]); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v, want %d, or other ones", len(got), err, len(data))
			}
		})
	}
	all.Wait()
	client.Close()
	accepted.Close()
	service.Close()
	l.Close()
	s.Close()
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, %d were", after, before)
	}
}

// TestUrgent: TCP's urgent data arrives, as ordinary data, with what is around it
// (a read stops at it).
func TestUrgent(t *testing.T) {
	client, service := newPath(t).connect()
	raw, err := client.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		say(t, client, "before")
		if err := raw.Write(func(fd uintptr) bool {
			return unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil) != unix.EAGAIN
		}); err != nil {
			t.Fatal(err)
		}
		say(t, client, "after")
		hear(t, service, "before!after")
	}
}

// TestNoThreadBefore: a relay that nobody connects to has no loop.
func TestNoThreadBefore(t *testing.T) {
	running := func() int {
		loops.mu.Lock()
		defer loops.mu.Unlock()
		return len(loops.all)
	}
	if n := running(); n != 0 {
		t.Fatalf("%d loops are left of other tests", n)
	}
	p := newPath(t)
	time.Sleep(20 * time.Millisecond)
	if n := running(); n != 0 {
		t.Errorf("%d loops run for nobody", n)
	}
	p.connect()
	if n := running(); n == 0 {
		t.Error("no loop runs for a connection")
	}
}

// TestChanged: it is told of the first connection and of the last one's end.
func TestChanged(t *testing.T) {
	service := listen(t)
	defer service.Close()
	listener, address := listening(t)
	told := make(chan int, 100)
	s := &Server{Listener: listener, Target: func() []End { return []End{to(service.Addr())} }, Changed: func(open int) { told <- open }}
	go s.Serve()
	defer s.Close()
	for range 3 {
		var conns []*net.TCPConn
		for range 5 {
			c, err := dial(address)
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := service.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c, accepted)
		}
		if n := <-told; n != 1 {
			t.Fatalf("told of %d, want 1", n)
		}
		for _, c := range conns {
			c.Close()
		}
		if n := <-told; n != 0 {
			t.Fatalf("told of %d, want 0", n)
		}
	}
}
