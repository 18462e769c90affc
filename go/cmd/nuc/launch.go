package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
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
	}
	for {
		conn, err := c.join(t, o)
		joined := err == nil
		switch {
		case errors.Is(err, supervisor.ErrStopping):
			if err := outlast(t.container); err != nil {
				return nil, nil, err
			}
			continue
		case errors.Is(err, supervisor.ErrNotRunning):
			conn, err = c.spawn(t, o)
		}
		if err != nil {
			return nil, nil, err
		}
		first, err := receiveStatus(conn)
		if err == nil && !first.Held && first.State != supervisor.Stopping && first.State != supervisor.Failed {
			return conn, first, nil
		}
		conn.Close()
		switch {
		case err != nil && joined: // it has just ended
		case err != nil:
			return nil, nil, fmt.Errorf("container %s: its supervisor ended at once: see %s", t.descriptor.Name, filepath.Join(t.container.State, "supervisor.log"))
		case first.Held: // another start was faster
		case first.State == supervisor.Failed:
			return nil, nil, errors.New(first.Reason)
		default:
			if err := outlast(t.container); err != nil {
				return nil, nil, err
			}
		}
	}
}

// outlast waits until a container that is stopping has stopped, or comes back
// from a reboot.
func outlast(container state.Container) error {
	conn, err := supervisor.Connect(container)
	if err == nil {
		defer conn.Close()
		err = conn.Send(supervisor.Command{Request: keeper.Request{Op: supervisor.OpFollow}})
	}
	for err == nil {
		var st *supervisor.Status
		if st, err = receiveStatus(conn); err == nil && st.State != supervisor.Stopping {
			return nil
		}
	}
	return released(container)
}

// released waits until the lock of a container without supervisor is free.
func released(container state.Container) error {
	for end := time.Now().Add(5 * time.Second); container.Held(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("container %s: stopped, but process %d still holds its lock", container.Name, container.Holder())
		}
	}
	return nil
}

// spawn starts a supervisor in the background.
func (c *context) spawn(t *target, o startOptions) (*seqpacket.Conn, error) {
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
		return nil, fmt.Errorf("container %s: %w", t.descriptor.Name, err)
	}
	defer image.Close()
	self, err := os.Executable()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("container %s: %w", t.descriptor.Name, err)
	}
	program, arguments, environment := scoped(t.descriptor.Name, fmt.Sprintf("/proc/self/fd/%d", fdProgram), roleSupervisor, t.descriptor.Name)
	if program == "" {
		program, arguments, environment = userns.ImagePath(image), []string{roleSupervisor, t.descriptor.Name}, os.Environ()
	}
	_, err = syscall.ForkExec(program, arguments, &syscall.ProcAttr{
		Dir: "/", Env: environment,
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), fdReport: peer.Fd(), fdProgram: image.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		err = conn.Send(launchOrder{Nuc: self, Source: t.source, Origin: t.originText(), StorePath: t.storePath, Folders: c.folders, LogLevel: c.logLevel, LogJSON: c.logJSON, Lease: o.lease}, o.leased...)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("container %s: starting its supervisor: %w", t.descriptor.Name, err)
	}
	return conn, nil
}

// comeUp is how long a supervisor may take until it can be asked.
const comeUp = 30 * time.Second

// join holds the leases on a container that is held by a supervisor, and waits
// with its other clients. It is ErrNotRunning where nobody holds the container.
func (c *context) join(t *target, o startOptions) (*seqpacket.Conn, error) {
	if !t.container.Held() {
		return nil, supervisor.ErrNotRunning
	}
	watch, err := t.container.Watch()
	if err != nil {
		return nil, err
	}
	defer watch.Close()
	err = c.claim(t, o)
	for deadline := time.Now().Add(comeUp); errors.Is(err, supervisor.ErrNotRunning); err = c.claim(t, o) {
		// Held, and no answer: it comes, or has gone and is about to let go.
		if !t.container.Held() {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, supervisor.HeldError{Name: t.container.Name, PID: t.container.Holder()}
		}
		if err := watch.Wait(50 * time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err != nil {
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

const roleSupervisor = "nuc-supervisor"

// What stands where in the table of file descriptors of a supervisor in the
// background.
const (
	fdReport  = 3
	fdProgram = 4
)

// launchOrder is what a supervisor in the background is told by `nuc up`, over
// its fd 3.
type launchOrder struct {
	Source []byte `json:"source"`
	Origin []byte `json:"origin,omitempty"`
	// Nuc is its own path, which the copy that is executed does not know.
	Nuc       string        `json:"nuc"`
	StorePath string        `json:"storePath,omitempty"`
	Folders   state.Folders `json:"folders"`
	LogLevel  string        `json:"logLevel"`
	LogJSON   bool          `json:"logJSON"`
	// Lease is for the pidfds that come with the order.
	Lease supervisor.LeaseOrder `json:"lease"`
}

// supervisorMain is a supervisor in the background.
func supervisorMain() error {
	_ = unix.CloseRange(fdReport, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	program := userns.ProgramFrom(os.NewFile(fdProgram, "nuc-image"))
	// Executing the copy, which can't be read, takes the user's own /proc/PID
	// from the user; a supervisor has nothing to hide from its user.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	report, err := seqpacket.FromFile(os.NewFile(fdReport, "report"))
	if err != nil {
		return err
	}
	fail := func(err error) error {
		var held supervisor.HeldError
		_ = report.Send(supervisor.Status{State: supervisor.Failed, Reason: err.Error(), Held: errors.As(err, &held)})
		return err
	}
	m, err := report.Receive()
	if err != nil {
		return err
	}
	defer m.Close()
	var order launchOrder
	if err := m.Decode(&order); err != nil {
		return fail(err)
	}
	d, err := descriptor.Read(order.Source)
	if err != nil {
		return fail(err)
	}
	container := order.Folders.Container(d.Name)
	signal.Ignore(unix.SIGHUP)
	output := &lateFile{path: filepath.Join(container.State, "supervisor.log")}
	log := hclog.New(&hclog.LoggerOptions{Name: "nuc", Level: hclog.LevelFromString(order.LogLevel), Output: output, JSONFormat: order.LogJSON})
	_, err = supervisor.Start(supervisor.Options{
		Links: declaredLinks(order.Folders, order.Nuc, log), Log: log, Descriptor: d, Source: order.Source, Origin: order.Origin, StorePath: order.StorePath, Container: container,
		Cache: order.Folders.Cache, Report: report, Program: program, Lease: &order.Lease, LeasedTo: m.TakeAll(),
	}, func(s *supervisor.Supervisor) { go stopOnSignal(s, unix.SIGINT, unix.SIGTERM) })
	if err != nil {
		return fail(err)
	}
	return nil
}

// lateFile is a log that is made when there is something to say: by then its
// folder is there, and a start that is refused leaves no file.
type lateFile struct {
	path string
	file *os.File
}

func (l *lateFile) Write(p []byte) (int, error) {
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return 0, err
		}
		l.file = f
	}
	return l.file.Write(p)
}
