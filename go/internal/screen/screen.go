// Package screen draws on a whole terminal and gives it back as it was.
//
// It uses the alternate screen of xterm (ctlseqs, "?1049"), which every
// terminal in use knows, and nothing of terminfo.
package screen

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/console"
)

const (
	// The cursor is hidden, and what is too wide is cut by the terminal instead
	// of wrapped (DECAWM): a wide character must not move all lines below.
	enter = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
	leave = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	// interrupt is what Ctrl-C sends where it is no signal (raw mode).
	interrupt = 3
)

// ErrNoTerminal is returned where there is nothing to draw on.
var ErrNoTerminal = errors.New("no terminal to draw on")

// Screen is a terminal that is drawn on.
type Screen struct {
	in, out *os.File
	restore func()
	// quit is closed when the user wants to leave, or somebody else wants the
	// process to.
	quit    chan struct{}
	resized chan struct{}
	keys    chan byte
	signals chan os.Signal
	wake    *os.File // ends readKeys, whose end is the other of the pipe
	pipe    *os.File
	reading sync.WaitGroup
	leave   func() // closes quit, once
	once    sync.Once
}

// Open takes the terminal of in and out. Where in is none, there are no keys,
// and SIGINT leaves.
func Open(in, out *os.File) (*Screen, error) {
	if !console.IsTerminal(out) {
		return nil, ErrNoTerminal
	}
	pipe, wake, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &Screen{
		in: in, out: out, quit: make(chan struct{}), resized: make(chan struct{}, 1),
		keys: make(chan byte, 16), signals: make(chan os.Signal, 8), wake: wake, pipe: pipe,
	}
	s.leave = sync.OnceFunc(func() { close(s.quit) })
	signal.Notify(s.signals, unix.SIGWINCH, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	s.restore = console.Raw(in)
	_, _ = out.WriteString(enter)
	s.reading.Go(s.readSignals)
	if console.IsTerminal(in) {
		s.reading.Go(s.readKeys)
	}
	return s, nil
}

// Close gives the terminal back.
func (s *Screen) Close() {
	s.once.Do(func() {
		signal.Stop(s.signals)
		close(s.signals)
		s.wake.Close()
		s.reading.Wait()
		s.pipe.Close()
		_, _ = s.out.WriteString(leave)
		s.restore()
	})
}

// Quit is closed when q or Ctrl-C was typed, or a signal came.
func (s *Screen) Quit() <-chan struct{} { return s.quit }

// Resized brings a value when the size has changed.
func (s *Screen) Resized() <-chan struct{} { return s.resized }

// Keys brings what else was typed, byte by byte; what nobody takes is dropped.
func (s *Screen) Keys() <-chan byte { return s.keys }

// Size is the terminal's, in characters.
func (s *Screen) Size() (rows, columns int) {
	r, c := console.Size(s.out)
	if r == 0 || c == 0 {
		return 24, 80
	}
	return int(r), int(c)
}

// Draw shows lines from the top, cut to the terminal's size, in one write and
// without clearing first: nothing flickers.
func (s *Screen) Draw(lines []string) {
	rows, columns := s.Size()
	var b bytes.Buffer
	for i := range min(rows, len(lines)) {
		b.WriteString("\x1b[" + strconv.Itoa(i+1) + ";1H")
		b.WriteString(Cut(lines[i], columns))
		b.WriteString("\x1b[0m\x1b[K")
	}
	if len(lines) < rows {
		b.WriteString("\x1b[" + strconv.Itoa(len(lines)+1) + ";1H\x1b[J")
	}
	_, _ = s.out.Write(b.Bytes())
}

// Cut shortens a line to a number of characters; colours (SGR sequences) count
// for nothing and stay.
func Cut(line string, columns int) string {
	width := 0
	for i := 0; i < len(line); {
		if n := colour(line[i:]); n > 0 {
			i += n
			continue
		}
		if width == columns {
			return line[:i]
		}
		_, n := utf8.DecodeRuneInString(line[i:])
		i += n
		width++
	}
	return line
}

// colour is the length of the SGR sequence that s begins with, 0 if it doesn't.
func colour(s string) int {
	if len(s) < 3 || s[0] != 0x1b || s[1] != '[' {
		return 0
	}
	for i := 2; i < len(s); i++ {
		switch c := s[i]; {
		case c == 'm':
			return i + 1
		case c != ';' && (c < '0' || c > '9'):
			return 0
		}
	}
	return 0
}

func (s *Screen) readSignals() {
	for sig := range s.signals {
		if sig != unix.SIGWINCH {
			s.leave()
			continue
		}
		select {
		case s.resized <- struct{}{}:
		default:
		}
	}
}

// readKeys polls, as a read of a terminal that is shared with a shell can't be
// made to end: its file description is not ours to set O_NONBLOCK on.
func (s *Screen) readKeys() {
	fds := []unix.PollFd{
		{Fd: int32(s.in.Fd()), Events: unix.POLLIN},
		{Fd: int32(s.pipe.Fd()), Events: unix.POLLIN},
	}
	buf := make([]byte, 64)
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := s.in.Read(buf)
		if err != nil || n == 0 { // it hung up
			s.leave()
			return
		}
		for _, key := range buf[:n] {
			if key == 'q' || key == 'Q' || key == interrupt {
				s.leave()
				continue
			}
			select {
			case s.keys <- key:
			default:
			}
		}
	}
}
