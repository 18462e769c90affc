package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// launch starts a supervisor in the background, or connects to the one there
// is. The connection brings a Status at each change after the first. Of several
// that start a container at once, one does, and the others join it; what is just
// stopping is waited for and started anew.
func (c *context) launch(t *target, o startOptions) (*seqpacket.Conn, *supervisor.Status, error) {
	if t.leases != nil {
		o.lease, o.leased = t.leases.order, t.leases.pidfds
	} else if len(o.leased) == 0 {
		o.lease.Keep = true // a dependency of what is restarted, too
	}
	for {
		conn, err := c.join(t, o)
		joined := err == nil
		switch {
		case errors.Is(err, supervisor.ErrStopping):
			outlast(t.container)
			continue
		case errors.Is(err, supervisor.ErrNotRunning):
			conn, err = c.spawn(t, o)
		}
		if errors.Is(err, errFaster) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		first, err := receiveStatus(conn)
		if err == nil && !first.Held && first.State != supervisor.Stopping && first.State != supervisor.Failed && !(joined && first.State == supervisor.Stopped) {
			return conn, first, nil
		}
		conn.Close()
		switch {
		case err != nil && joined: // it has just ended
		case err != nil:
			return nil, nil, fmt.Errorf("container %s: its supervisor ended at once: see %s", t.descriptor.Name, filepath.Join(t.container.State, "supervisor.log"))
		case first.Held: // another start was faster
		case first.State == supervisor.Failed:
			_ = released(t.container, first.Supervisor)
			return nil, nil, errors.New(first.Reason)
		default:
			outlast(t.container)
		}
	}
}

// outlast waits until a container that is stopping has stopped, or comes back
// from a reboot. By then it may be held by another start, which can be joined.
func outlast(container state.Container) {
	conn, err := supervisor.Connect(container)
	if err != nil {
		return
	}
	defer conn.Close()
	if conn.Send(supervisor.Command{Request: keeper.Request{Op: supervisor.OpOutlast}}) != nil {
		return
	}
	if m, err := conn.Receive(); err == nil {
		m.Close()
	}
}

// released waits until a supervisor that has ended lets go of its container, and
// its keeper as well. A lock that another process has taken is the next start's.
func released(container state.Container, holder int) error {
	for end := time.Now().Add(5 * time.Second); container.Held() && container.Holder() == holder; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("container %s: stopped, but process %d still holds its lock", container.Name, holder)
		}
	}
	return nil
}

// spawn starts a supervisor in the background: as a service where the user's
// systemd is to have it, else as a process. It is errFaster where another one
// is about to do so.
func (c *context) spawn(t *target, o startOptions) (*seqpacket.Conn, error) {
	self, err := ownPath()
	if err != nil {
		return nil, err
	}
	credentials, err := gather(t)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", t.descriptor.Name, err)
	}
	fault.At("spawning")
	var conn *seqpacket.Conn
	if m := manager(c.folders.Runtime); m != nil {
		conn, err = c.serve(m, t, o)
	} else {
		conn, err = fork(t.descriptor.Name)
	}
	if err == nil {
		err = conn.Send(launchOrder{Nuc: self, Source: t.source, Origin: t.originText(), StorePath: t.storePath, Credentials: credentials, Folders: c.folders, LogLevel: c.logLevel, LogJSON: c.logJSON, Lease: o.lease}, o.leased...)
		fault.At("ordered")
		if err != nil {
			conn.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("container %s: starting its supervisor: %w", t.descriptor.Name, err)
	}
	return conn, nil
}

// fork starts a supervisor as a process.
func fork(name string) (*seqpacket.Conn, error) {
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer null.Close()
	// The copy that the supervisor makes its keeper of is its own program as
	// well: so the two have their text in memory once.
	image, err := userns.Image()
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer image.Close()
	_, err = syscall.ForkExec(userns.ImagePath(image), []string{roleSupervisor, name}, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), fdReport: peer.Fd(), fdProgram: image.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// comeUp is how long a supervisor may take until it can be asked.
const comeUp = 30 * time.Second

// join holds the leases on a container that is held by a supervisor, and waits
// with its other clients. It is ErrNotRunning where nobody holds the container.
func (c *context) join(t *target, o startOptions) (*seqpacket.Conn, error) {
	if err := reach(t.container, func() error { return c.claim(t, o) }); err != nil {
		return nil, err
	}
	conn, err := supervisor.Connect(t.container)
	if err != nil {
		return nil, err
	}
	if err := conn.Send(supervisor.Command{Request: keeper.Request{Op: supervisor.OpWait}}); err != nil {
		conn.Close()
		return nil, supervisor.ErrStopping
	}
	return conn, nil
}

// reach asks the supervisor of a container that is held, also one that can't be
// asked yet. It is ErrNotRunning where nobody holds the container.
func reach(container state.Container, ask func() error) error {
	if !container.Held() {
		return supervisor.ErrNotRunning
	}
	watch, err := container.Watch()
	if err != nil {
		return err
	}
	defer watch.Close()
	err = ask()
	for deadline := time.Now().Add(comeUp); errors.Is(err, supervisor.ErrNotRunning); err = ask() {
		// Held, and no answer: it comes, or has gone and is about to let go.
		if !container.Held() {
			return err
		}
		if time.Now().After(deadline) {
			return supervisor.HeldError{Name: container.Name, PID: container.Holder()}
		}
		if err := watch.Wait(50 * time.Millisecond); err != nil {
			return err
		}
	}
	return err
}
