package relay

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limitVariable has the test binary be a relay with few file descriptors: its
// value is that limit, and a port to relay to. The listener is descriptor 3.
const limitVariable = "NUC_RELAY_LIMIT"

func relayWithLimit(value string) int {
	var limit uint64
	var port int
	if _, err := fmt.Sscan(value, &limit, &port); err != nil {
		fmt.Println(err)
		return 1
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		fmt.Println(err)
		return 1
	}
	stock := &Stock{Make: func(n int) ([]*os.File, error) {
		var files []*os.File
		for range n {
			f, err := socket(unix.AF_INET, unix.SOCK_STREAM)
			if err != nil {
				for _, f := range files {
					f.Close()
				}
				return nil, err
			}
			files = append(files, f)
		}
		return files, nil
	}}
	ends := []End{{Stock: stock, Address: &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}}}
	s := &Server{
		Listener: os.NewFile(3, "listener"),
		Target:   func() []End { return ends },
		Warn:     func(what string, err error) { fmt.Printf("%s: %v\n", what, err) },
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.Close()
		stock.Close()
	}()
	s.Serve()
	return 0
}

// TestFileLimit: clients that there are no descriptors for wait until there are,
// and it is said once.
func TestFileLimit(t *testing.T) {
	const limit, clients = 64, 100
	service := listen(t)
	defer service.Close()
	var all sync.WaitGroup
	defer all.Wait()
	defer service.Close()
	all.Go(func() {
		for {
			c, err := service.AcceptTCP()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	listener, address := listening(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", limitVariable, limit, service.Addr().(*net.TCPAddr).Port))
	cmd.ExtraFiles = []*os.File{listener}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listener.Close()
	var conns []*net.TCPConn
	for range clients {
		c, err := dial(address) // into the backlog at least
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		say(t, c, "hello")
	}
	// As many can't be open at a time: the last is not served before others end.
	last := conns[clients-1]
	_ = last.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := last.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v of a client beyond the limit, want that it waits", err)
	}
	before := processorTime(t, cmd.Process.Pid)
	time.Sleep(time.Second)
	if used := processorTime(t, cmd.Process.Pid) - before; used > 20 {
		t.Errorf("%d %% of a processor are used while nothing can be done", used)
	}
	for i, c := range conns {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		buffer := make([]byte, 5)
		if _, err := io.ReadFull(c, buffer); err != nil || string(buffer) != "hello" {
			t.Fatalf("client %d: %q, %v", i, buffer, err)
		}
		c.Close()
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(said.String()), "\n")
	if len(lines) != 1 || !strings.Contains(lines[0], "64 (ulimit -n") {
		t.Errorf("it said %q, want one line with the limit", lines)
	}
}

// processorTime is in ticks of a hundredth of a second.
func processorTime(t *testing.T, pid int) int {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, ticks := range strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))[11:13] {
		n, err := strconv.Atoi(ticks)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// TestTenThousand holds as many connections as the limit of open files allows,
// at most 10,000, and counts what one costs.
func TestTenThousand(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	restore := limit
	limit.Cur, limit.Max = 41000, max(limit.Max, 41000)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil { // root may
		limit = restore
	} else {
		defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &restore) }()
	}
	// The relay's two sockets, and this test's two.
	connections := min(10000, int(limit.Cur-500)/4)
	if connections < 100 {
		t.Skipf("%d open files are too few", limit.Cur)
	}
	before := sockets(t)
	service := listen(t)
	raw, err := service.File()
	if err != nil {
		t.Fatal(err)
	}
	stock := &Stock{Make: (&maker{}).make}
	end := to(service.Addr())
	ends := []End{{Stock: stock, Address: end.Address}}
	listener, address := listening(t)
	s := &Server{Listener: listener, Target: func() []End { return ends }, Warn: func(what string, err error) { t.Errorf("%s: %v", what, err) }}
	go s.Serve()

	// Plain descriptors: Go's connections would cost more than the relay's.
	var fds []int
	to := &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte{127, 0, 0, 1}}
	open := func() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			fds = append(fds, fd)
			err = unix.Connect(fd, to)
		}
		var accepted int
		if err == nil {
			accepted, _, err = unix.Accept4(int(raw.Fd()), unix.SOCK_CLOEXEC)
		}
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, accepted)
	}
	for range 50 { // whatever is made once
		open()
	}
	heap, goroutines := memory()
	for range connections - 50 {
		open()
	}
	after, now := memory()
	per := (int64(after) - int64(heap)) / int64(connections-50)
	t.Logf("%d connections: %d bytes each, %d goroutines more", connections, per, now-goroutines)
	if per > 1024 || now > goroutines+2 {
		t.Errorf("a connection costs %d bytes of heap, and there are %d goroutines more", per, now-goroutines)
	}
	if n := s.Open(); n != connections {
		t.Errorf("%d are open, want %d", n, connections)
	}
	for i := 0; i < len(fds); i += 2 * 97 { // they still work
		one := []byte{1}
		if _, err := unix.Write(fds[i], one); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(fds[i+1], one); n != 1 {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	s.Close()
	stock.Close()
	for _, fd := range fds {
		unix.Close(fd)
	}
	raw.Close()
	service.Close()
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, %d were", after, before)
	}
}

func memory() (heap uint64, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc, runtime.NumGoroutine()
}

// TestCloseOfShared: the listener's owner may keep it, and clients may come to it
// after Close, which is nothing to a loop that goes on for others.
func TestCloseOfShared(t *testing.T) {
	other := newPath(t)
	other.connect()
	l := listen(t)
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{}, 1)
	s := &Server{Listener: file, Target: func() []End {
		served <- struct{}{}
		return nil
	}}
	go s.Serve()
	if c, err := dial(l.Addr().(*net.TCPAddr)); err == nil {
		defer c.Close()
	}
	<-served
	s.Close()
	c, err := dial(l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := processorTime(t, os.Getpid())
	time.Sleep(500 * time.Millisecond)
	if used := processorTime(t, os.Getpid()) - before; used > 10 {
		t.Errorf("%d hundredths of a second were used in half of one, for nothing", used)
	}
}

// TestNeverRead: clients that don't read what they asked for hold a bounded
// part of it, and don't keep others from theirs.
func TestNeverRead(t *testing.T) {
	p := newPath(t)
	const lazy = maxPipes + 4 // some have to do without a pipe
	var all sync.WaitGroup
	for range lazy {
		_, service := p.connect()
		all.Go(func() {
			_ = service.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			if n, err := io.Copy(service, endless{}); !errors.Is(err, os.ErrDeadlineExceeded) || n > 64<<20 {
				t.Errorf("%d bytes that nobody reads were taken: %v", n, err)
			}
		})
	}
	client, service := p.connect()
	for i := range 100 {
		say(t, client, "ping\n")
		hear(t, service, "ping\n")
		say(t, service, fmt.Sprintf("pong %d\n", i))
		hear(t, client, fmt.Sprintf("pong %d\n", i))
	}
	all.Wait()
}

// TestLazyReader: what was held back arrives whole, by pipe and by buffer.
func TestLazyReader(t *testing.T) {
	p := newPath(t)
	data := make([]byte, 24<<20)
	rand.Read(data)
	var all sync.WaitGroup
	for range maxPipes + 4 {
		_, service := p.connect()
		all.Go(func() {
			_ = service.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = io.Copy(service, endless{})
		})
	}
	all.Wait()
	client, service := p.connect()
	all.Go(func() {
		if _, err := service.Write(data); err != nil {
			t.Error(err)
		}
		_ = service.CloseWrite()
	})
	time.Sleep(100 * time.Millisecond)
	if got, err := io.ReadAll(client); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v, want %d, or other ones", len(got), err, len(data))
	}
	all.Wait()
}
