package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// Role is the first argument of a link's process. The link's name and nuc's
// runtime folder follow.
const Role = "nuc-link"

// statusRefused is the exit status of a link that could not be made. systemd
// starts it anew after any other failure.
const statusRefused = 78

// process is a running link.
type process struct {
	spec   *Spec
	name   string
	log    hclog.Logger
	folder state.Link
	f      state.Folders
	// ctx ends with stop.
	ctx       context.Context
	stop      context.CancelFunc
	client    client
	target    target
	confining sync.Once
	// ended is closed when nothing of the link is left.
	ended chan struct{}
}

// report is how the making of a link went.
type report struct {
	Status *Status `json:"status,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Main is the life of a link's process. It returns the status to exit with.
func Main(args []string) int {
	log := hclog.New(&hclog.LoggerOptions{Name: "nuc", Level: hclog.Warn})
	if len(args) != 2 {
		log.Error("link: a name and nuc's runtime folder were expected", "arguments", args)
		return statusRefused
	}
	_ = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	// Executing a copy that can't be read takes the user's own /proc/PID from
	// the user (proc(5)); a link has nothing to hide from its user.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	f := state.Folders{Runtime: args[1]}
	p := &process{name: args[0], folder: f.Link(args[0]), f: f, log: log.With("link", args[0]), ended: make(chan struct{})}
	p.ctx, p.stop = signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer p.stop()
	signal.Ignore(unix.SIGHUP)
	if err := p.run(); err != nil {
		p.log.Error("it could not be made", "error", err)
		return statusRefused
	}
	return 0
}

// run returns when the link has ended, with an error if it never was.
func (p *process) run() error {
	lock, err := p.folder.Acquire()
	if err != nil {
		return err
	}
	defer lock.Close()
	maker, err := seqpacket.Dial(lock.Folder, reportSocket)
	if err != nil {
		maker = nil // systemd has started a link anew that was there
	}
	err = p.serve(lock, maker)
	if maker != nil {
		if err != nil {
			_ = maker.Send(report{Error: err.Error()})
		}
		maker.Close()
	}
	return err
}

func (p *process) serve(lock *state.Lock, maker *seqpacket.Conn) (err error) {
	if p.spec, err = Read(p.folder); err != nil {
		return err
	}
	_ = unix.Unlinkat(int(lock.Folder.Fd()), controlSocket, 0) // of a process that was killed
	control, err := seqpacket.Listen(lock.Folder, controlSocket)
	if err != nil {
		return fmt.Errorf("control socket in %s: %w", p.folder.Folder, err)
	}
	p.target.open(p)
	p.client.open(p)
	var all sync.WaitGroup
	all.Go(func() { p.target.run(p) })
	all.Go(func() {
		p.client.run(p)
		p.stop() // a declared link's container has ended
	})
	go p.serveControl(control)
	failure := p.begin(maker)
	if failure != nil {
		p.stop()
	}
	<-p.ctx.Done()
	all.Wait()
	p.client.close(p)
	p.target.close()
	if err := p.folder.Remove(lock); err != nil {
		p.log.Warn("its folder stays", "error", err)
	}
	control.Close()
	close(p.ended)
	return failure
}

// begin waits until the link listens, if somebody waits for that, and tells
// them. A declared link waits by itself for what it lacks.
func (p *process) begin(maker *seqpacket.Conn) error {
	if maker == nil {
		p.confineUnbound()
		return nil
	}
	if !p.spec.Declared {
		ended := errors.New("it was ended before it listened")
		select {
		case err := <-p.client.first:
			if err != nil {
				return err
			}
		case <-p.ctx.Done():
			return ended
		}
		select {
		case <-p.target.known:
			if !p.target.up.Load() {
				return notRunning(p.spec.Host.Container)
			}
		case <-p.ctx.Done():
			return ended
		}
	}
	p.confineUnbound()
	_ = maker.Send(report{Status: p.status()})
	return nil
}

// notRunning is a container that was there when the command looked.
func notRunning(container string) error {
	return fmt.Errorf("container %s: %w: start it with `nuc up %s`", container, supervisor.ErrNotRunning, container)
}

// status is what the link says of itself.
func (p *process) status() *Status {
	st := p.spec.status(p.name)
	st.Unit, st.Process = managed(p.folder), os.Getpid()
	st.State, st.Reason = Listening, ""
	st.Listen, st.Connections, st.Reason = p.client.status()
	if st.Reason == "" && !p.target.up.Load() {
		st.Reason = "container " + p.spec.Host.Container + " to run"
	}
	if st.Reason != "" {
		st.State = Waiting
	}
	return st
}

func (p *process) serveControl(control *net.UnixListener) {
	for {
		conn, err := seqpacket.Accept(control)
		if err != nil {
			return
		}
		go p.answer(conn)
	}
}

func (p *process) answer(conn *seqpacket.Conn) {
	defer conn.Close()
	_ = conn.Net().SetReadDeadline(time.Now().Add(patience)) // who says nothing isn't waited for
	m, err := conn.Receive()
	if err != nil {
		return
	}
	defer m.Close()
	var c command
	if m.Decode(&c) != nil {
		return
	}
	switch c.Op {
	case opStatus:
		_ = conn.Send(p.status())
	case opEnd:
		p.stop()
		<-p.ended
	}
}
