package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/unit"
)

// patience is how long a link's process may take to say that it listens, and a
// client of its to say what it wants.
const patience = 20 * time.Second

// Maker makes links.
type Maker struct {
	Folders state.Folders
	// Program is nuc's own path.
	Program string
	// Manager runs the processes; nil has them started in the background.
	Manager *unit.Manager
	// Exited, if not nil, is called when a process in the background has ended.
	Exited func(l state.Link)
}

// ThereError says that there is a link of the name: the same one, or another.
type ThereError struct {
	Name string
	Same bool
	// Ends tells that its ends are the same.
	Ends bool
	Text string
}

func (e ThereError) Error() string {
	if e.Same {
		return fmt.Sprintf("link %s: is there already", e.Name)
	}
	return fmt.Sprintf("link %s: is there already, and another one (%s): end it with `nuc unlink %s` first", e.Name, e.Text, e.Name)
}

// Make makes a link and returns when it listens, with a ThereError where there
// is one of its name. After any other error, nothing is left of it.
func (m *Maker) Make(s *Spec) (*Status, error) {
	making, err := m.Folders.LockLinks()
	if err != nil {
		return nil, err
	}
	defer state.UnlockLinks(making)
	l := m.Folders.Link(s.Name())
	if old, err := Read(l); err == nil {
		if l.Held() {
			return nil, ThereError{Name: l.Name, Same: old.Equal(s), Ends: old.sameEnds(s), Text: old.Text()}
		}
	}
	// What is left of one that was killed, or that systemd is to start anew.
	if err := end(l); err != nil {
		return nil, err
	}
	st, err := m.make(l, s)
	if err != nil {
		_ = end(l)
		var refused *refusal
		if errors.As(err, &refused) {
			return nil, fmt.Errorf("link %s: %w", l.Name, err)
		}
		return nil, fmt.Errorf("link %s: starting its process: %w", l.Name, err)
	}
	return st, nil
}

// refusal is what a link's process said.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

func (m *Maker) make(l state.Link, s *Spec) (*Status, error) {
	reports, err := m.prepare(l, s)
	if err != nil {
		return nil, err
	}
	defer reports.Close()
	_ = reports.SetDeadline(time.Now().Add(patience))
	if m.Manager != nil {
		err = m.Manager.Start(service(l.Name, s.Text(), []string{m.Program, Role, l.Name, m.Folders.Runtime}))
	} else {
		err = m.background(l, func() { _ = reports.SetDeadline(time.Unix(1, 0)) })
	}
	if err != nil {
		return nil, err
	}
	conn, err := seqpacket.Accept(reports)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// It has ended, and may have told why before anybody listened.
		_ = reports.SetDeadline(time.Now().Add(50 * time.Millisecond))
		conn, err = seqpacket.Accept(reports)
	}
	if err != nil {
		return nil, ended(err)
	}
	defer conn.Close()
	_ = conn.Net().SetDeadline(time.Now().Add(patience))
	message, err := conn.Receive()
	if err != nil {
		return nil, ended(err)
	}
	defer message.Close()
	var r report
	if err := message.Decode(&r); err != nil {
		return nil, err
	}
	if r.Status == nil {
		return nil, &refusal{r.Error}
	}
	// From now on, a process that is started anew has nobody to report to.
	_ = os.Remove(filepath.Join(l.Folder, reportSocket))
	return r.Status, nil
}

func ended(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("it ended at once, or does not answer")
	}
	return err
}

// prepare makes the link's folder with what its process needs.
func (m *Maker) prepare(l state.Link, s *Spec) (*net.UnixListener, error) {
	lock, err := l.Acquire()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if err := l.Write(specFile, data); err != nil {
		return nil, err
	}
	if m.Manager != nil {
		if err := l.Write(unitFile, []byte(unitName(l.Name))); err != nil {
			return nil, err
		}
	}
	return seqpacket.Listen(lock.Folder, reportSocket)
}

// background starts the process without a systemd. It is in a session of its
// own, so that nothing of the terminal's reaches it.
func (m *Maker) background(l state.Link, exited func()) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	log, err := os.OpenFile(filepath.Join(l.Folder, logFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path: m.Program, Args: []string{Role, l.Name, m.Folders.Runtime}, Env: []string{}, Dir: "/",
		Stdin: null, Stdout: null, Stderr: log, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = cmd.Wait()
		exited()
		if m.Exited != nil {
			m.Exited(l)
		}
	}()
	return nil
}
