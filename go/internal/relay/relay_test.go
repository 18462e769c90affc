package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) {
	if value := os.Getenv(limitVariable); value != "" {
		os.Exit(relayWithLimit(value))
	}
	leaktest.Main(m)
}

// sockets counts the open ones.
func sockets(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// listening is a listener as Server takes it, and its address.
func listening(t *testing.T) (*os.File, *net.TCPAddr) {
	t.Helper()
	l := listen(t)
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	return file, l.Addr().(*net.TCPAddr)
}

// to is the end at a TCP address of this namespace.
func to(address net.Addr) End {
	tcp := address.(*net.TCPAddr)
	return End{
		Take:    func() (*os.File, error) { return socket(unix.AF_INET, unix.SOCK_STREAM) },
		Address: &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())},
	}
}

// socket makes an unconnected, non-blocking socket.
func socket(family, kind int) (*os.File, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

func dial(address *net.TCPAddr) (*net.TCPConn, error) {
	c, err := net.DialTCP("tcp4", nil, address)
	if err == nil {
		// A relay that loses something must fail a test, not hang it.
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// path is a relay between this test's two ends.
type path struct {
	t       *testing.T
	server  *Server
	address *net.TCPAddr // the server's
	service *net.TCPListener
	served  chan struct{}
}

func newPath(t *testing.T) *path {
	t.Helper()
	before := sockets(t)
	p := &path{t: t, service: listen(t), served: make(chan struct{})}
	listener, address := listening(t)
	p.address = address
	p.server = &Server{
		Listener: listener,
		Target:   func() []End { return []End{to(p.service.Addr())} },
		Warn:     func(what string, err error) { t.Errorf("%s: %v", what, err) },
	}
	go func() {
		p.server.Serve()
		close(p.served)
	}()
	t.Cleanup(func() {
		p.server.Close()
		<-p.served
		p.service.Close()
		if after := sockets(t); after != before {
			t.Errorf("%d sockets are open, %d were", after, before)
		}
	})
	return p
}

// connect returns both ends of a new connection.
func (p *path) connect() (client, service *net.TCPConn) {
	p.t.Helper()
	client, err := dial(p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { client.Close() })
	_ = p.service.SetDeadline(time.Now().Add(20 * time.Second))
	service, err = p.service.AcceptTCP()
	if err != nil {
		p.t.Fatal(err)
	}
	_ = service.SetDeadline(time.Now().Add(20 * time.Second))
	p.t.Cleanup(func() { service.Close() })
	return client, service
}

func say(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c *net.TCPConn, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Fatalf("%q, %v, want %q", buf, err, want)
	}
}

func hearEnd(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("%d bytes, %v, want the end", n, err)
	}
}

// TestHalfClose is part of hostile case 28.
func TestHalfClose(t *testing.T) {
	for _, name := range []string{"client first", "service first"} {
		t.Run(name, func(t *testing.T) {
			first, second := newPath(t).connect()
			if name == "service first" {
				first, second = second, first
			}
			say(t, first, "question")
			if err := first.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			hear(t, second, "question")
			hearEnd(t, second)
			say(t, second, "answer")
			hear(t, first, "answer")
			say(t, second, ", and more")
			if err := second.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			hear(t, first, ", and more")
			hearEnd(t, first)
		})
	}
}

func TestReset(t *testing.T) {
	for _, name := range []string{"of the client", "of the service"} {
		t.Run(name, func(t *testing.T) {
			first, second := newPath(t).connect()
			if name == "of the service" {
				first, second = second, first
			}
			say(t, first, "x")
			hear(t, second, "x")
			if err := first.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			first.Close()
			if _, err := second.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%v, want ECONNRESET", err)
			}
		})
	}
}

// TestBrokenOff is a reset while the other direction waits for room.
func TestBrokenOff(t *testing.T) {
	client, service := newPath(t).connect()
	_ = client.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	sent, err := io.Copy(client, endless{})
	if !errors.Is(err, os.ErrDeadlineExceeded) || sent > 64<<20 {
		t.Fatalf("%d bytes that nobody read were taken (%v), which is no bound", sent, err)
	}
	_ = service.SetLinger(0)
	service.Close()
	_ = client.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("%v, want ECONNRESET", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestRefused(t *testing.T) {
	before := sockets(t)
	nobody := listen(t)
	nobody.Close()
	warned := make(chan error, 1)
	listener, address := listening(t)
	s := &Server{
		Listener: listener,
		Target:   func() []End { return []End{to(nobody.Addr())} },
		Warn:     func(_ string, err error) { warned <- err },
	}
	go s.Serve()
	c, err := dial(address)
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client sees %v, want ECONNRESET", err)
	}
	if err := <-warned; !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("warned of %v", err)
	}
	s.Close()
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, %d were", after, before)
	}
}

func TestTransfer(t *testing.T) {
	client, service := newPath(t).connect()
	const size = 8 << 20
	up, down := make([]byte, size), make([]byte, size+4711)
	rand.Read(up)
	rand.Read(down)
	var all sync.WaitGroup
	send := func(c *net.TCPConn, data []byte) {
		// In pieces of all sizes.
		for n := 1; len(data) > 0; n = n*3%100_003 + 1 {
			n := min(n, len(data))
			if _, err := c.Write(data[:n]); err != nil {
				t.Error(err)
				return
			}
			data = data[n:]
		}
		if err := c.CloseWrite(); err != nil {
			t.Error(err)
		}
	}
	receive := func(c *net.TCPConn, want []byte) {
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v, want %d, or other ones", len(got), err, len(want))
		}
	}
	all.Go(func() { send(client, up) })
	all.Go(func() { receive(service, up) })
	all.Go(func() { send(service, down) })
	all.Go(func() { receive(client, down) })
	all.Wait()
}

func TestManyConnections(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Two sockets of the relay, and this test's two ends.
	const connections, files = 1000, 4
	if limit.Cur < connections*files+100 {
		t.Skipf("%d connections need %d open files, and the limit is %d", connections, connections*files, limit.Cur)
	}
	p := newPath(t)
	var services sync.WaitGroup
	services.Go(func() {
		for range connections {
			c, err := p.service.AcceptTCP()
			if err != nil {
				t.Error(err)
				return
			}
			services.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	clients := make([]*net.TCPConn, connections)
	for i := range clients {
		c, err := dial(p.address)
		if err != nil {
			t.Fatal(err)
		}
		clients[i] = c
		say(t, c, fmt.Sprintf("%04d", i))
	}
	for i, c := range clients {
		hear(t, c, fmt.Sprintf("%04d", i))
	}
	for _, c := range clients {
		_ = c.CloseWrite()
	}
	for _, c := range clients {
		hearEnd(t, c)
		c.Close()
	}
	services.Wait()
}

func TestClose(t *testing.T) {
	p := newPath(t)
	var ends []*net.TCPConn
	for range 10 {
		client, service := p.connect()
		ends = append(ends, client, service)
	}
	p.server.Close()
	<-p.served
	for _, c := range ends {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection goes on: %v", err)
		}
	}
	if c, err := dial(p.address); err == nil {
		c.Close()
		t.Error("still listening")
	}
	p.server.Close()
}

// TestCloseWhileDialling: the connection that is made after all is ended.
func TestCloseWhileDialling(t *testing.T) {
	before := sockets(t)
	service := listen(t)
	dialling, go_ := make(chan struct{}), make(chan struct{})
	listener, address := listening(t)
	end := to(service.Addr())
	take := end.Take
	end.Take = func() (*os.File, error) {
		close(dialling)
		<-go_
		return take()
	}
	s := &Server{Listener: listener, Target: func() []End { return []End{end} }}
	go s.Serve()
	c, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	<-dialling
	closed := make(chan struct{})
	go func() {
		s.Close()
		close(closed)
	}()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the client's connection goes on: %v", err)
	}
	select {
	case <-closed:
		t.Error("Close did not wait for a connection that was being made")
	default:
	}
	close(go_)
	<-closed
	c.Close()
	service.Close()
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, %d were", after, before)
	}
}

// TestCloseWhileAccepting is meant for the race detector, too.
func TestCloseWhileAccepting(t *testing.T) {
	before := sockets(t)
	for range 50 {
		var dials atomic.Int32
		listener, address := listening(t)
		s := &Server{Listener: listener, Target: func() []End {
			dials.Add(1)
			return nil
		}}
		var all sync.WaitGroup
		served := make(chan struct{})
		go func() {
			s.Serve()
			close(served)
		}()
		for range 4 {
			all.Go(func() {
				if c, err := dial(address); err == nil {
					c.Close()
				}
			})
		}
		s.Close()
		after := dials.Load()
		<-served
		all.Wait()
		if n := dials.Load(); n != after {
			t.Fatalf("%d connections were relayed after Close", n-after)
		}
	}
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, %d were", after, before)
	}
}
