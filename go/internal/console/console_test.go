package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestTail(t *testing.T) {
	filler := strings.Repeat("x", tailSize)
	tests := []struct {
		name   string
		writes []string
		want   string
	}{
		{"nothing", nil, ""},
		{"all of little", []string{"a\n", "", "b"}, "a\nb"},
		{"cut to whole lines", []string{filler, "\nlast line\n"}, "last line\n"},
		{"cut within one write", []string{filler + "\nlast line\n"}, "last line\n"},
		{"a line longer than all", []string{filler, filler}, filler},
		{"only line feed at the end", []string{filler + "\n"}, filler[1:] + "\n"},
		{"exactly as much as fits", []string{"first\n", filler[6:]}, "first\n" + filler[6:]},
		{"one byte more than fits", []string{"first\n", filler[5:]}, filler[5:]},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var l Log
			for _, w := range test.writes {
				if n, err := l.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatalf("Write: %d, %v", n, err)
				}
			}
			if got := string(l.Tail()); got != test.want {
				t.Errorf("%d bytes %.30q…, want %d bytes %.30q…", len(got), got, len(test.want), test.want)
			}
		})
	}
}

// TestTailOfAnything compares with the plain way of keeping all of it.
func TestTailOfAnything(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		var l Log
		var all []byte
		for range random.IntN(12) {
			p := make([]byte, random.IntN(1<<(1+random.IntN(17))))
			for i := range p {
				p[i] = "abc\n"[random.IntN(4)]
			}
			_, _ = l.Write(p)
			all = append(all, p...)
		}
		want := all
		if len(all) > tailSize {
			want = all[len(all)-tailSize:]
			if i := bytes.IndexByte(want, '\n'); i >= 0 && i < len(want)-1 {
				want = want[i+1:]
			}
		}
		if got := l.Tail(); !bytes.Equal(got, want) {
			t.Fatalf("seed %d: of %d bytes, %d remain, want %d", seed, len(all), len(got), len(want))
		}
	}
}

// TestLogIsBounded is hostile case 20: a gigabyte without an end of line.
func TestLogIsBounded(t *testing.T) {
	var l Log
	chunk := bytes.Repeat([]byte("x"), 1<<20)
	_, _ = l.Write(chunk)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 1 << 10 {
		_, _ = l.Write(chunk)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("a gigabyte of output took %d bytes of memory", grown)
	}
	if got := len(l.Tail()); got > tailSize {
		t.Errorf("%d bytes are kept", got)
	}
}

type failing struct{ writes int }

func (f *failing) Write([]byte) (int, error) {
	f.writes++
	return 0, errors.New("gone")
}

// TestReaderGoes: what shows the console may go, the container goes on.
func TestReaderGoes(t *testing.T) {
	var l Log
	var out bytes.Buffer
	l.SetOutput(&out)
	fmt.Fprint(&l, "one ")
	gone := &failing{}
	l.SetOutput(gone)
	for range 3 {
		if n, err := fmt.Fprint(&l, "two "); n != 4 || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if out.String() != "one " || gone.writes != 1 {
		t.Errorf("passed on %q; a reader that went was written to %d times", out.String(), gone.writes)
	}
	if got := string(l.Tail()); got != "one two two two " {
		t.Errorf("kept %q", got)
	}
}

func TestLines(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"a\r\nb\r\n", "a\nb\n"},
		{"a\nb", "a\nb"},
		{"50%\r100%\r\n", "50%\r100%\n"},
		{"a\r\r\n", "a\r\n"},
		{"\r\n\r\n", "\n\n"},
		{"\r\rx", "\r\rx"},
	}
	for _, test := range tests {
		for _, size := range []int{1, 2, 3, 100} {
			var out bytes.Buffer
			l := Lines{W: &out}
			for rest := test.in; rest != ""; {
				n := min(size, len(rest))
				if written, err := l.Write([]byte(rest[:n])); written != n || err != nil {
					t.Fatalf("Write: %d, %v", written, err)
				}
				rest = rest[n:]
			}
			if out.String() != test.want {
				t.Errorf("%q in pieces of %d is %q, want %q", test.in, size, out.String(), test.want)
			}
		}
	}
	if _, err := (&Lines{W: &failing{}}).Write([]byte("x")); err == nil {
		t.Error("a failed write isn't told")
	}
}

// terminal opens a new terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	master = os.NewFile(uintptr(fd), "master")
	t.Cleanup(func() { master.Close() })
	unlock := 0
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock))); errno != 0 {
		t.Fatal(errno)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		t.Fatal(errno)
	}
	slave = os.NewFile(peer, "slave")
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestRaw(t *testing.T) {
	_, slave := terminal(t)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	restore := Raw(slave)
	raw, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if raw.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 || raw.Oflag&unix.OPOST != 0 || raw.Iflag&(unix.ICRNL|unix.IXON) != 0 {
		t.Errorf("not raw: %+v", raw)
	}
	restore()
	after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Errorf("left at %+v, was %+v", after, before)
	}
}

func TestNoTerminal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, slave := terminal(t)
	if IsTerminal(r) || !IsTerminal(slave) {
		t.Errorf("a pipe is a terminal: %t, a terminal is one: %t", IsTerminal(r), IsTerminal(slave))
	}
	if rows, columns := Size(r); rows != 0 || columns != 0 {
		t.Errorf("a pipe has %d rows and %d columns", rows, columns)
	}
	Raw(r)()
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		t.Fatal(err)
	}
	if rows, columns := Size(slave); rows != 50 || columns != 132 {
		t.Errorf("a terminal has %d rows and %d columns, want 50 and 132", rows, columns)
	}
}

func TestPump(t *testing.T) {
	t.Run("until the other end is closed", func(t *testing.T) {
		master, slave := terminal(t)
		master, err := Pollable(master)
		if err != nil {
			t.Fatal(err)
		}
		defer master.Close()
		Raw(slave)
		if _, err := slave.WriteString("last words"); err != nil {
			t.Fatal(err)
		}
		slave.Close()
		var out bytes.Buffer
		if err := Pump(&out, master); err != nil || out.String() != "last words" {
			t.Errorf("%q, %v", out.String(), err)
		}
	})
	t.Run("until it is closed itself", func(t *testing.T) {
		master, slave := terminal(t)
		master, err := Pollable(master)
		if err != nil {
			t.Fatal(err)
		}
		Raw(slave)
		r, w := io.Pipe()
		ended := make(chan error)
		go func() { ended <- Pump(w, master) }()
		if _, err := slave.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		master.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("into a failing writer", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		if _, err := w.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		if Pump(&failing{}, r) == nil {
			t.Error("no error")
		}
	})
}

func TestPollable(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_ = r.Fd() // which makes it a blocking one, as received ones are
	p, err := Pollable(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the given file is still open: %v", err)
	}
	flags, err := unix.FcntlInt(p.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("would survive an exec: flags %#x, %v", flags, err)
	}
	p.Close()
	if _, err := Pollable(p); err == nil {
		t.Error("a closed file was taken")
	}
}
