package listener

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var loopback = netip.MustParseAddr("127.0.0.1")

func TestOpenRange(t *testing.T) {
	for _, protocol := range []string{"tcp", "udp"} {
		files, first, err := OpenRange(Address{Protocol: protocol, Host: loopback}, 4)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != 4 || first == 0 {
			t.Fatalf("%d from %d", len(files), first)
		}
		for i, f := range files {
			if want := (Address{protocol, loopback, first + i, false}).String(); i > 0 && f.Name() == "" {
				t.Errorf("%s: %s", want, f.Name())
			}
			// The same once more is refused, and says by whom.
			_, err := Open(Address{Protocol: protocol, Host: loopback, Port: first + i})
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, unix.EADDRINUSE) || e.Holder.PID != os.Getpid() {
				t.Fatalf("%v", err)
			}
			for _, want := range []string{strconv.Itoa(os.Getpid()), "127.0.0.1:" + strconv.Itoa(first+i), "stop it, or choose another"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: want %q in it", err, want)
				}
			}
		}
		for _, f := range files {
			f.Close()
		}
	}
}

// TestOpenRangeTaken: nothing is held of a range that can't be had.
func TestOpenRangeTaken(t *testing.T) {
	files, first, err := OpenRange(Address{Protocol: "tcp", Host: loopback}, 3)
	if err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	files[1].Close()
	defer files[2].Close()
	if _, _, err := OpenRange(Address{Protocol: "tcp", Host: loopback, Port: first}, 3); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("%v", err)
	}
	for i := range 2 {
		l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(first+i))
		if err != nil {
			t.Fatalf("still held: %v", err)
		}
		l.Close()
	}
}

func TestOpenRangeTooLong(t *testing.T) {
	_, _, err := OpenRange(Address{Protocol: "tcp", Host: loopback}, 65000)
	if err == nil || !strings.Contains(err.Error(), "consecutive") && !strings.Contains(err.Error(), "file descriptor") {
		t.Errorf("%v", err)
	}
}

func TestError(t *testing.T) {
	a := Address{Protocol: "tcp", Host: netip.MustParseAddr("::1"), Port: 80}
	tests := []struct {
		err    error
		holder Holder
		want   string
	}{
		{unix.EADDRINUSE, Holder{}, "[::1]:80: something listens there already: see what with `sudo ss -ltnp sport = :80`, or choose another host port"},
		{unix.EADDRINUSE, Holder{User: "user root"}, "[::1]:80: a process of user root listens there already: see what with `sudo ss -ltnp sport = :80`, or choose another host port"},
		{unix.EADDRINUSE, Holder{PID: 7, Command: "nginx"}, "[::1]:80: nginx (process 7) listens there already: stop it, or choose another host port"},
		{unix.EADDRINUSE, Holder{PID: 7, Container: "web"}, "[::1]:80: container web listens there already: stop it with `nuc stop web`, or choose another host port"},
		{unix.EACCES, Holder{}, "[::1]:80: ports below "},
		{unix.EADDRNOTAVAIL, Holder{}, "[::1]:80: this machine has no such address"},
		{unix.EMFILE, Holder{}, "[::1]:80: no file descriptor is left"},
		{unix.ENOBUFS, Holder{}, "[::1]:80: " + unix.ENOBUFS.Error()},
	}
	for _, test := range tests {
		err := &Error{Address: a, Err: os.NewSyscallError("bind", test.err), Holder: test.holder}
		if test.err == unix.ENOBUFS {
			err.Err = test.err
		}
		if text := err.Error(); !strings.HasPrefix(text, test.want) || strings.Contains(text, "\n") {
			t.Errorf("%v: %s", test.err, text)
		}
	}
	if text := (Address{"udp", loopback, 53, false}).String(); text != "127.0.0.1:53/udp" {
		t.Error(text)
	}
}

func TestSockets(t *testing.T) {
	folder := t.TempDir()
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	for name, text := range map[string]string{
		"tcp": head +
			"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 111 1\n" +
			"   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 112 1\n" +
			"   2: 0100007F:1F90 0200007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 113 1\n" +
			"broken\n",
		"tcp6": head +
			"   0: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  33 0 211 1\n" +
			"   1: 0000000000000000FFFF00000100007F:0051 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  33 0 212 1\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		host  string
		port  int
		state string
		want  string
	}{
		{"127.0.0.1", 8080, stateListening, "111"},
		{"127.0.0.1", 8080, stateEstablished, "113"},
		{"0.0.0.0", 8080, stateListening, "111"},
		{"127.0.0.2", 8080, stateListening, ""},
		{"127.0.0.2", 80, stateListening, "112"},
		{"::1", 53, stateListening, "211"},
		{"127.0.0.1", 81, stateListening, "212"},
		{"127.0.0.1", 8081, stateListening, ""},
	}
	for _, test := range tests {
		got := ""
		for _, e := range sockets(folder, Address{Protocol: "tcp", Host: netip.MustParseAddr(test.host), Port: test.port}, func(e entry) bool { return e.state == test.state }) {
			got += e.inode
		}
		if got != test.want {
			t.Errorf("%s:%d in state %s: %q, want %q", test.host, test.port, test.state, got, test.want)
		}
	}
}

func TestConnected(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a := Address{Protocol: "tcp", Host: loopback, Port: l.Addr().(*net.TCPAddr).Port}
	if Connected(a) {
		t.Error("connected before anybody is")
	}
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !Connected(a) {
		t.Error("not connected")
	}
	service, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	// One side has said all; the other goes on.
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := service.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if !Connected(a) {
		t.Error("not connected once the client has sent all that it has")
	}
	late, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	service.Close()
	c.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := late.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	if !Connected(a) {
		t.Error("not connected once the service has sent all that it has")
	}
	// The client has still not closed: what is left of it is the kernel's.
	other.Close()
	if Connected(a) {
		t.Error("connected although the service has closed")
	}
}
