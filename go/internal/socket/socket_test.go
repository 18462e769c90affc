package socket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestListenOnAddresses(t *testing.T) {
	addresses := map[string]string{TCP4: "127.0.0.1", TCP6: "::1", UDP4: "127.1.2.3", UDP6: "::1"}
	for network, address := range addresses {
		f, err := Listen(Place{Network: network, Address: address}, nil)
		if err != nil {
			t.Errorf("%s: %v", network, err)
			continue
		}
		bound, err := Bound(f)
		if err != nil || bound.Addr().String() != address || bound.Port() == 0 {
			t.Errorf("%s: bound to %s, %v", network, bound, err)
		}
		if err := Is(f, network, true); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		again := Place{Network: network, Address: address, Port: int(bound.Port())}
		if g, err := Listen(again, nil); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("%s twice: %v, %v", again, g, err)
		}
		f.Close()
	}
}

// TestFamiliesApart: an IPv6 socket on a port leaves the IPv4 one free.
func TestFamiliesApart(t *testing.T) {
	six, err := Listen(Place{Network: TCP6, Address: "::"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer six.Close()
	bound, err := Bound(six)
	if err != nil {
		t.Fatal(err)
	}
	four, err := Listen(Place{Network: TCP4, Address: "0.0.0.0", Port: int(bound.Port())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	four.Close()
}

func TestCheck(t *testing.T) {
	tests := []struct {
		place Place
		want  string
	}{
		{Place{Network: TCP4, Address: "127.0.0.1", Port: 80}, ""},
		{Place{Network: TCP6, Address: "::1", Port: 65535}, ""},
		{Place{Network: Unix, Path: "/run/x"}, ""},
		{Place{Network: "tcp", Address: "127.0.0.1"}, "network"},
		{Place{Address: "127.0.0.1"}, "network"},
		{Place{Network: TCP4, Address: "::1"}, "address"},
		{Place{Network: TCP6, Address: "127.0.0.1"}, "address"},
		{Place{Network: TCP6, Address: "fe80::1%lo"}, "address"},
		{Place{Network: TCP4, Address: "localhost"}, "address"},
		{Place{Network: TCP4}, "address"},
		{Place{Network: TCP4, Address: "127.0.0.1", Port: 65536}, "port"},
		{Place{Network: TCP4, Address: "127.0.0.1", Port: -1}, "port"},
		{Place{Network: Unix}, "absolute"},
		{Place{Network: Unix, Path: "x"}, "absolute"},
		{Place{Network: Unix, Path: "/run/"}, "folder"},
		{Place{Network: Unix, Path: "/run/.."}, "folder"},
		{Place{Network: Unix, Path: "/run/a\x00b"}, "NUL"},
		{Place{Network: Unix, Path: "/run/" + strings.Repeat("x", longest+1)}, "shorter"},
		{Place{Network: Unix, Path: strings.Repeat("/"+strings.Repeat("x", 100), 41)}, "shorter"},
	}
	for _, test := range tests {
		err := test.place.Check()
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%+v: %v, want %q", test.place, err, test.want)
		}
		if test.want == "" {
			continue
		}
		if f, err := Listen(test.place, nil); err == nil {
			f.Close()
			t.Errorf("%+v: listens", test.place)
		}
	}
}

// TestUnix uses a folder whose path is longer than sun_path.
func TestUnix(t *testing.T) {
	folder := filepath.Join(t.TempDir(), strings.Repeat("x", 200))
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s", strings.Repeat("y", longest)} {
		place := Place{Network: Unix, Path: filepath.Join(folder, name)}
		f, err := Listen(place, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Is(f, Unix, true); err != nil {
			t.Error(err)
		}
		if st, err := os.Stat(place.Path); err != nil || st.Mode() != os.ModeSocket|0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		if g, err := Listen(place, nil); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("twice: %v, %v", g, err)
		}
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		f.Close()
		served := make(chan error)
		go func() {
			// The attempt to listen twice has looked whether somebody is there.
			if c, err := l.Accept(); err == nil {
				c.Close()
			}
			c, err := l.Accept()
			if err == nil {
				_, err = c.Write([]byte("hello"))
				c.Close()
			}
			served <- err
		}()
		// On a thread of its own, as the path is long.
		d, err := Dial(place.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Is(d, Unix, false); err != nil {
			t.Error(err)
		}
		if flags, err := unix.FcntlInt(d.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
		if text, err := io.ReadAll(d); string(text) != "hello" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		d.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := Remove(place.Path, nil); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(place.Path); err != nil {
			t.Error("a socket that somebody listens on was removed")
		}
		if c, err := l.Accept(); err != nil {
			t.Error(err)
		} else {
			c.Close()
		}
		l.Close()
		if _, err := Dial(place.Path, nil); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("nobody listens: %v", err)
		}
		if f, err = Listen(place, nil); err != nil {
			t.Fatalf("the abandoned socket stayed: %v", err)
		}
		f.Close()
		if err := Remove(place.Path, nil); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(place.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("not removed: %v", err)
		}
	}
}

// TestUnixKeepsFiles: what is no abandoned socket stays.
func TestUnixKeepsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Place{Network: Unix, Path: path}, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Error(err)
	}
	if err := Remove(path, nil); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(path); string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
	for _, path := range []string{filepath.Join(path, "s"), "/nowhere/s", fmt.Sprintf("/proc/%d/cwd/s", os.Getpid())} {
		if f, err := Listen(Place{Network: Unix, Path: path}, nil); err == nil {
			f.Close()
			t.Errorf("%s: listens", path)
		}
	}
}

// TestIs is hostile case 32.
func TestIs(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	made, err := Make(TCP4, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer made[0].Close()
	defer made[1].Close()
	listening, err := Listen(Place{Network: TCP4, Address: "127.0.0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer listening.Close()
	tests := []struct {
		name      string
		file      *os.File
		network   string
		listening bool
		ok        bool
	}{
		{"socket", made[0], TCP4, false, true},
		{"listener", listening, TCP4, true, true},
		{"already listening", listening, TCP4, false, false},
		{"not listening", made[0], TCP4, true, false},
		{"another family", made[0], TCP6, false, false},
		{"another type", made[0], UDP4, false, false},
		{"no socket", r, TCP4, false, false},
		{"no network", made[0], "ip", false, false},
	}
	for _, test := range tests {
		if err := Is(test.file, test.network, test.listening); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
