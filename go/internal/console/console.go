// Package console keeps what a container prints on its console, bounded, and
// carries bytes between a person's terminal and one in a container.
package console

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// tailSize is how much of the latest output a Log holds, in bytes, whatever
// comes in and however long its lines are.
const tailSize = 64 << 10

// Log remembers the end of a console's output and passes it on to whoever
// listens. The zero value is ready for use.
type Log struct {
	mu      sync.Mutex
	ring    []byte
	written uint64
	out     io.Writer
}

// SetOutput passes on all further output to w, until a write to it fails: a
// reader that went away must not stop the container.
func (l *Log) SetOutput(w io.Writer) {
	l.mu.Lock()
	l.out = w
	l.mu.Unlock()
}

// Write never fails.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.remember(p)
	out := l.out
	l.mu.Unlock()
	if out != nil {
		if _, err := out.Write(p); err != nil {
			l.SetOutput(nil)
		}
	}
	return len(p), nil
}

func (l *Log) remember(p []byte) {
	if l.ring == nil {
		l.ring = make([]byte, tailSize)
	}
	if excess := len(p) - tailSize; excess > 0 {
		l.written += uint64(excess)
		p = p[excess:]
	}
	n := copy(l.ring[l.written%tailSize:], p)
	copy(l.ring, p[n:])
	l.written += uint64(len(p))
}

// Tail returns the latest output; where it was cut, from the first whole line.
func (l *Log) Tail() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.written <= tailSize {
		return bytes.Clone(l.ring[:l.written])
	}
	next := l.written % tailSize
	tail := append(bytes.Clone(l.ring[next:]), l.ring[:next]...)
	if i := bytes.IndexByte(tail, '\n'); i >= 0 && i < len(tail)-1 {
		tail = tail[i+1:]
	}
	return tail
}

// sequences are what commands a terminal and shows nothing (ECMA-48): CSI, OSC
// and DCS strings, and the short ones.
var sequences = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|[\]P^_X][^\x07\x1b]*(\x07|\x1b\\|$)|[ -/]*[0-~])`)
})

// Plain returns the last n lines of a console's output that are not blank,
// without what was meant for the terminal.
func Plain(output []byte, n int) []string {
	var plain []string
	for line := range bytes.Lines(sequences().ReplaceAll(output, nil)) {
		if text := strings.TrimSpace(string(line)); text != "" {
			plain = append(plain, text)
		}
	}
	return plain[max(0, len(plain)-n):]
}

// Pump copies a terminal's output until the terminal is gone. EIO is how a
// terminal says that nobody has its other end open (pty(7)).
func Pump(w io.Writer, terminal *os.File) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := terminal.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
		}
		switch {
		case err == nil:
		case err == io.EOF, errors.Is(err, unix.EIO), errors.Is(err, os.ErrClosed):
			return nil
		default:
			return err
		}
	}
}

// Pollable turns a received descriptor into one whose reads end when it is
// closed; the runtime polls only non-blocking files.
func Pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// Lines writes a terminal's lines, which end in CR LF, as text.
type Lines struct {
	W  io.Writer
	cr bool
}

// Write drops the carriage return before a line feed.
func (l *Lines) Write(p []byte) (int, error) {
	out := make([]byte, 0, len(p)+1)
	for _, b := range p {
		if l.cr && b != '\n' {
			out = append(out, '\r')
		}
		l.cr = b == '\r'
		if !l.cr {
			out = append(out, b)
		}
	}
	if _, err := l.W.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Size returns a terminal's rows and columns, or zeros for what is none.
func Size(f *os.File) (rows, columns uint16) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return ws.Row, ws.Col
}

// IsTerminal tells whether f is a terminal.
func IsTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Raw puts a terminal into raw mode (cfmakeraw(3)) and returns what undoes it.
// It does nothing to what is no terminal.
func Raw(f *os.File) (restore func()) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, unix.TCSETS, &raw) != nil {
		return func() {}
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }
}
