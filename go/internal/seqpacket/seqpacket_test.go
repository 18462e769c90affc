package seqpacket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// pair is two connected ends.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, peer, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = FromFile(peer); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}

// named makes a file that holds its name.
func named(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(name); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, f *os.File) string {
	t.Helper()
	buf := make([]byte, 64)
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// text is JSON of n bytes.
func text(n int) []byte {
	return []byte(`"` + strings.Repeat("x", n-2) + `"`)
}

func TestSizes(t *testing.T) {
	files := []*os.File{named(t, "first"), named(t, "second")}
	tests := []struct {
		size int
		want error
	}{
		{2, nil},
		{maxInline - 1, nil},
		{maxInline, nil},
		{maxInline + 1, nil},
		{1 << 20, nil},
		{MaxMessage, nil},
		{MaxMessage + 1, ErrTooLarge},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.size), func(t *testing.T) {
			a, b := pair(t)
			err := a.SendRaw(text(test.size), files...)
			if !errors.Is(err, test.want) {
				t.Fatalf("%v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			m, err := b.Receive()
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if !bytes.Equal(m.Data, text(test.size)) {
				t.Errorf("%d bytes came, or other ones", len(m.Data))
			}
			if len(m.FDs) != 2 || content(t, m.FDs[0]) != "first" || content(t, m.FDs[1]) != "second" {
				t.Errorf("not the descriptors that were sent: %v", m.FDs)
			}
		})
	}
}

func TestSendDecode(t *testing.T) {
	a, b := pair(t)
	type sent struct{ Text string }
	if err := a.Send(sent{"ü\x00\n"}); err != nil {
		t.Fatal(err)
	}
	m, err := b.Receive()
	if err != nil {
		t.Fatal(err)
	}
	var got sent
	if err := m.Decode(&got); err != nil || got.Text != "ü\x00\n" {
		t.Errorf("%q, %v", got.Text, err)
	}
	if err := a.Send(func() {}); err == nil {
		t.Error("a function was sent as JSON")
	}
	if err := a.SendRaw([]byte("{")); err != nil {
		t.Fatal(err)
	}
	if m, err = b.Receive(); err != nil {
		t.Fatal(err)
	}
	if m.Decode(&got) == nil {
		t.Error("broken JSON was read")
	}
}

func TestMessageOwnsItsDescriptors(t *testing.T) {
	a, b := pair(t)
	if err := a.Send(1, named(t, "taken"), named(t, "left")); err != nil {
		t.Fatal(err)
	}
	m, err := b.Receive()
	if err != nil {
		t.Fatal(err)
	}
	taken, left := m.Take(0), m.FDs[1]
	defer taken.Close()
	if m.Take(0) != nil || m.Take(2) != nil {
		t.Error("a descriptor was handed over twice, or one that there is not")
	}
	flags, err := unix.FcntlInt(taken.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("would survive an exec: flags %#x, %v", flags, err)
	}
	m.Close()
	m.Close()
	if content(t, taken) != "taken" {
		t.Error("Close closed what was taken")
	}
	if _, err := left.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close left a descriptor open: %v", err)
	}
}

func TestEnd(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, a *Conn)
	}{
		{"closed", func(*testing.T, *Conn) {}},
		{"closed with a message unread", func(t *testing.T, a *Conn) {}},
		{"empty packet", func(t *testing.T, a *Conn) { raw(t, a, nil, nil) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := pair(t)
			if strings.Contains(test.name, "unread") {
				if err := b.Send(1); err != nil {
					t.Fatal(err)
				}
			}
			test.do(t, a)
			a.Close()
			if m, err := b.Receive(); err != io.EOF {
				t.Errorf("%v, %v, want io.EOF", m, err)
			}
			if err := b.Send(1); err == nil {
				t.Error("a message was sent to nobody")
			}
		})
	}
}

// raw sends a packet that Send would not.
func raw(t *testing.T, c *Conn, data []byte, fds []int) {
	t.Helper()
	sc, err := c.Net().SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failure error
	if err := sc.Control(func(fd uintptr) {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		failure = unix.Sendmsg(int(fd), data, oob, nil, 0)
	}); err != nil || failure != nil {
		t.Fatal(err, failure)
	}
}

// TestHostilePeer: nothing that a peer sends makes Receive wait, grow, or keep
// a descriptor.
func TestHostilePeer(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	openFile := func(path string, flags int) *os.File {
		t.Helper()
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	huge := named(t, "huge")
	if err := huge.Truncate(MaxMessage + 1); err != nil {
		t.Fatal(err)
	}
	unreadable := openFile(named(t, "unreadable").Name(), os.O_WRONLY)
	small := named(t, "small")
	tests := []struct {
		name string
		data []byte
		fds  []*os.File
	}{
		{"larger than a packet may be", make([]byte, maxInline+1), []*os.File{small}},
		{"large without its descriptor", []byte{large}, nil},
		{"large in a fifo", []byte{large}, []*os.File{openFile(fifo, os.O_RDWR), small}},
		{"large in a device", []byte{large}, []*os.File{openFile("/dev/zero", os.O_RDONLY), small}},
		{"large in a folder", []byte{large}, []*os.File{openFile(t.TempDir(), os.O_RDONLY)}},
		{"larger than a message may be", []byte{large}, []*os.File{huge}},
		{"large and not to be read", []byte{large}, []*os.File{unreadable}},
		{"too many descriptors", []byte("1"), slicesOf(small, MaxFDs+2)},
		{"as many as the kernel takes", []byte("1"), slicesOf(small, 253)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := pair(t)
			var fds []int
			for _, f := range test.fds {
				fds = append(fds, int(f.Fd()))
			}
			before := openFiles(t)
			raw(t, a, test.data, fds)
			m, err := b.Receive()
			if err == nil {
				t.Errorf("%d bytes and %d descriptors were received", len(m.Data), len(m.FDs))
				m.Close()
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d files are open, %d were", after, before)
			}
			if err := a.Send("next"); err != nil {
				t.Fatal(err)
			}
			next, err := b.Receive()
			if err != nil || string(next.Data) != `"next"` {
				t.Errorf("the next message: %v", err)
			}
		})
	}
}

func slicesOf(f *os.File, n int) []*os.File {
	list := make([]*os.File, n)
	for i := range list {
		list[i] = f
	}
	return list
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestMaxFDs(t *testing.T) {
	for _, size := range []int{2, maxInline + 1} {
		a, b := pair(t)
		if err := a.SendRaw(text(size), slicesOf(named(t, "x"), MaxFDs)...); err != nil {
			t.Fatal(err)
		}
		m, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if len(m.FDs) != MaxFDs {
			t.Errorf("%d descriptors came with %d bytes, want %d", len(m.FDs), size, MaxFDs)
		}
		m.Close()
	}
}

// TestManySenders: messages of several goroutines stay whole.
func TestManySenders(t *testing.T) {
	a, b := pair(t)
	const senders, each = 8, 50
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			for range each {
				if err := a.Send(strings.Repeat(string(rune('a'+i)), 100*(i*i*i*i+1))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	count := map[byte]int{}
	for range senders * each {
		m, err := b.Receive()
		if err != nil {
			t.Fatal(err)
		}
		var s string
		if err := m.Decode(&s); err != nil {
			t.Fatal(err)
		}
		if s != strings.Repeat(s[:1], len(s)) {
			t.Fatal("messages were mixed")
		}
		count[s[0]]++
	}
	all.Wait()
	for i := range senders {
		if n := count[byte('a'+i)]; n != each {
			t.Errorf("%d messages of sender %d, want %d", n, i, each)
		}
	}
}

func TestListenDial(t *testing.T) {
	// Longer than sun_path.
	path := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if c, err := Dial(dir, "control"); !errors.Is(err, unix.ENOENT) {
		t.Fatalf("%v, %v, want ENOENT", c, err)
	}
	l, err := Listen(dir, "control")
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(filepath.Join(path, "control"))
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v: others may connect, or nobody", st.Mode(), err)
	}
	c, err := Dial(dir, "control")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	server := New(accepted)
	defer server.Close()
	cred, err := server.Peer()
	if err != nil || int(cred.Pid) != os.Getpid() || int(cred.Uid) != os.Getuid() || int(cred.Gid) != os.Getgid() {
		t.Errorf("the peer is %+v, %v", cred, err)
	}
	if err := c.Send("hello"); err != nil {
		t.Fatal(err)
	}
	if m, err := server.Receive(); err != nil || string(m.Data) != `"hello"` {
		t.Error(err)
	}
	if l2, err := Listen(dir, "control"); err == nil {
		l2.Close()
		t.Error("two listen at the same place")
	}
	l.Close()
	if c, err := Dial(dir, "control"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("%v, %v, want ECONNREFUSED: the socket stays, so that a later one isn't removed", c, err)
	}
}

// TestFromFile is hostile case 32.
func TestFromFile(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	socket, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*os.File{"pipe": r, "UDP socket": socket, "file": named(t, "file")} {
		if c, err := FromFile(f); err == nil {
			c.Close()
			t.Errorf("a %s is a connection", name)
		}
		if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the %s was left open: %v", name, err)
		}
	}
}

func TestFile(t *testing.T) {
	a, b := pair(t)
	f, err := a.File()
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	again, err := FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Send(1); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Receive(); err != nil {
		t.Errorf("the duplicate is no connection of its own: %v", err)
	}
}

// TestAccept is hostile case 30: a stranger is hung up on, and the next one served.
func TestAccept(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, which can be another user for a moment")
	}
	name := fmt.Sprintf("@nuc-test-%d", os.Getpid()) // that anybody may connect to
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	connect := func() int {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		}
		if err != nil {
			t.Error(err)
		}
		return fd
	}
	stranger := make(chan int)
	go func() {
		runtime.LockOSThread() // and ended with the goroutine
		const same = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, 65534, same); errno != 0 {
			t.Error(errno)
		}
		stranger <- connect()
	}()
	fds := []int{<-stranger, connect()}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	conn, err := Accept(l)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if peer, err := conn.Peer(); err != nil || peer.Uid != 0 {
		t.Errorf("accepted: %+v, %v", peer, err)
	}
	if n, err := unix.Read(fds[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the stranger reads %d, %v, want the end", n, err)
	}
}
