package harness

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Terminal is a pseudoterminal: the test holds the near end, the process
// started on it has the far end.
type Terminal struct {
	h    *H
	fd   int // near's; asking near for it would make its reads uninterruptible
	near *os.File
	far  *os.File
	done chan struct{}
}

func newTerminal(h *H, rows, columns uint16) *Terminal {
	h.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		h.Fatalf("harness: /dev/ptmx: %v", err)
	}
	t := &Terminal{h: h, fd: fd, near: os.NewFile(uintptr(fd), "/dev/ptmx"), done: make(chan struct{})}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		t.far, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		t.near.Close()
		h.Fatalf("harness: pseudoterminal: %v", err)
	}
	h.chown(t.far.Name())
	t.Resize(rows, columns)
	return t
}

// attach copies the terminal's output until the last process on it is gone.
func (t *Terminal) attach(output io.Writer) {
	t.far.Close()
	go func() {
		defer close(t.done)
		_, _ = io.Copy(output, t.near)
	}()
	t.h.Cleanup(func() {
		t.near.Close()
		<-t.done
	})
}

// Type enters text as a person would.
func (t *Terminal) Type(text string) {
	t.h.Helper()
	if _, err := io.WriteString(t.near, text); err != nil {
		t.h.Fatalf("harness: terminal: %v", err)
	}
}

// Resize changes the size; the process on it gets SIGWINCH.
func (t *Terminal) Resize(rows, columns uint16) {
	t.h.Helper()
	if err := unix.IoctlSetWinsize(t.fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.h.Fatalf("harness: terminal: %v", err)
	}
}
