package screen

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestCut(t *testing.T) {
	const red, off = "\x1b[31m", "\x1b[0m"
	tests := []struct {
		line    string
		columns int
		want    string
	}{
		{"", 5, ""},
		{"plain", 5, "plain"},
		{"plain", 4, "plai"},
		{"日本語", 2, "日本"},
		{red + "abc" + off + "def", 4, red + "abc" + off + "d"},
		{red + "abc" + off, 3, red + "abc" + off},
		{red + "abc" + off + "def", 0, red},
		{"\x1b[31", 3, "\x1b[3"}, // no colour, cut as anything
	}
	for _, test := range tests {
		if got := Cut(test.line, test.columns); got != test.want {
			t.Errorf("Cut(%q, %d) is %q, want %q", test.line, test.columns, got, test.want)
		}
	}
}

// terminal is a pseudoterminal and what was written to it.
type terminal struct {
	near, far *os.File
	fd        int
	mu        sync.Mutex
	text      bytes.Buffer
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("/dev/ptmx: %v", err)
	}
	p := &terminal{fd: fd, near: os.NewFile(uintptr(fd), "ptmx")}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		p.far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(p, p.near)
	}()
	t.Cleanup(func() {
		p.far.Close()
		p.near.Close()
		<-done
	})
	p.resize(t, 10, 40)
	return p
}

func (p *terminal) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *terminal) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		got := p.text.String()
		p.mu.Unlock()
		if strings.Contains(got, text) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %q in %q", text, got)
		}
	}
}

func (p *terminal) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(p.fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}

func (p *terminal) settings(t *testing.T) unix.Termios {
	t.Helper()
	settings, err := unix.IoctlGetTermios(p.fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *settings
}

func await[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within 10 s")
		panic("unreachable")
	}
}

func TestScreen(t *testing.T) {
	for name, leave := range map[string]func(*testing.T, *terminal){
		"q":       func(_ *testing.T, p *terminal) { _, _ = p.near.WriteString("q") },
		"Ctrl-C":  func(_ *testing.T, p *terminal) { _, _ = p.near.WriteString("\x03") },
		"SIGTERM": func(*testing.T, *terminal) { _ = unix.Kill(os.Getpid(), unix.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newTerminal(t)
			before := p.settings(t)
			s, err := Open(p.far, p.far)
			if err != nil {
				t.Fatal(err)
			}
			p.await(t, enter)
			if p.settings(t) == before {
				t.Error("the terminal is not in raw mode")
			}
			s.Draw([]string{"first", strings.Repeat("w", 50), "\x1b[1mthird\x1b[0m"})
			p.await(t, "\x1b[1;1Hfirst\x1b[0m\x1b[K\x1b[2;1H"+strings.Repeat("w", 40)+"\x1b[0m\x1b[K\x1b[3;1H\x1b[1mthird\x1b[0m\x1b[0m\x1b[K\x1b[4;1H\x1b[J")
			p.resize(t, 2, 5)
			_ = unix.Kill(os.Getpid(), unix.SIGWINCH) // as the kernel does for a controlling terminal
			await(t, s.Resized())
			if rows, columns := s.Size(); rows != 2 || columns != 5 {
				t.Errorf("size %d %d", rows, columns)
			}
			_, _ = p.near.WriteString("x")
			if key := await(t, s.Keys()); key != 'x' {
				t.Errorf("key %q", key)
			}
			select {
			case <-s.Quit():
				t.Fatal("left before anybody wanted it")
			default:
			}
			leave(t, p)
			await(t, s.Quit())
			s.Close()
			s.Close()
			p.await(t, "\x1b[?1049l")
			if p.settings(t) != before {
				t.Errorf("the terminal's settings are not what they were: %+v, before %+v", p.settings(t), before)
			}
		})
	}
}

func TestHangup(t *testing.T) {
	in, out := newTerminal(t), newTerminal(t)
	s, err := Open(in.far, out.far)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in.near.Close()
	await(t, s.Quit())
}

func TestNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := Open(r, w); err != ErrNoTerminal {
		t.Errorf("%v", err)
	}
}
