package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a command may take.
var patience = 30 * time.Second

// grace is how long what a command has left behind may hold its output open.
const grace = time.Second

// maxSaid is how much of the end of a command's standard error is kept.
const maxSaid = 4 << 10

// output runs a command and returns what it prints. On a terminal it stays among
// the processes that may read from it; elsewhere it has a session of its own,
// all of which is killed when its time is over.
func (s Source) output(command []string) ([]byte, error) {
	name := command[0]
	failed := func(remedy, format string, a ...any) error {
		return &missingError{fmt.Errorf("command %s: %w", name, fmt.Errorf(format, a...)), remedy}
	}
	program, err := exec.LookPath(name)
	if err != nil {
		var e *exec.Error
		if errors.As(err, &e) {
			err = e.Err
		}
		return nil, failed("install it, or name it by its absolute path", "%w", bare(err))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, command[1:]...)
	cmd.Args[0] = name
	cmd.Env, cmd.Dir, cmd.WaitDelay = s.Environment, home(s.Environment), grace
	printed, said := &bounded{end: cancel}, &tail{}
	cmd.Stdout, cmd.Stderr = printed, said
	if s.Terminal {
		cmd.Stdin, cmd.Stderr = os.Stdin, io.MultiWriter(os.Stderr, said)
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	}
	err = cmd.Run()
	const byHand = "run it by hand to see what is wrong"
	switch {
	case printed.over:
		return nil, fmt.Errorf("command %s: prints more than 1 MiB, the most that systemd gives a service: bring it in by mounts", name)
	case ctx.Err() != nil:
		return nil, failed(byHand, "did not end within %s%s", patience, said.last())
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // what it left behind is no failure of its own
		return nil, failed(byHand, "%w%s", err, said.last())
	}
	return printed.data.Bytes(), nil
}

// home is where commands run, whoever starts the container and from wherever.
func home(environment []string) string {
	folder, _ := lookup(environment, "HOME")
	if st, err := os.Stat(folder); err != nil || !st.IsDir() || !filepath.IsAbs(folder) {
		return "/"
	}
	return folder
}

// bounded keeps at most MaxSize bytes, and ends the command at the next one.
type bounded struct {
	data bytes.Buffer
	over bool
	end  func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.over || b.data.Len()+len(p) > MaxSize {
		b.over = true
		b.end()
		return 0, io.ErrShortWrite
	}
	return b.data.Write(p)
}

// tail keeps the end of what a command says.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - maxSaid; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

// last is the last line that is not blank, behind a colon; "" if there is none.
func (t *tail) last() string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.data), "?"))
	if i := strings.LastIndexAny(text, "\r\n"); i >= 0 {
		text = strings.TrimSpace(text[i+1:])
	}
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	if text == "" {
		return ""
	}
	return ": " + text
}
