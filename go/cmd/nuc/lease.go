package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/process"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// leaseFlags are those of up that say how long containers run.
type leaseFlags struct {
	Lease []string       `placeholder:"PID" help:"Stop the containers once this process has ended, and those of other leases: its number, or shell for the shell that nuc is called from. Can be given several times."`
	Keep  *time.Duration `help:"How long the containers run on after the last lease's end (10s)."`
}

// keepSeconds is for leases that say nothing else: who closes a shell may be
// about to open another.
const keepSeconds = 10

// maxLeases fit into one message.
const maxLeases = 32

// open returns what the flags ask for, with the processes' pidfds.
func (f *leaseFlags) open() (order supervisor.LeaseOrder, leased []*os.File, err error) {
	order.Keep = len(f.Lease) == 0
	switch {
	case order.Keep && f.Keep != nil:
		return order, nil, exitStatus{statusUsage, errors.New("--keep is for a container with a lease: add --lease")}
	case order.Keep:
		return order, nil, nil
	case len(f.Lease) > maxLeases:
		return order, nil, exitStatus{statusUsage, fmt.Errorf("--lease: %d processes: at most %d at one time", len(f.Lease), maxLeases)}
	case f.Keep != nil && *f.Keep < 0:
		return order, nil, exitStatus{statusUsage, fmt.Errorf("--keep: %s: expected no time below 0", *f.Keep)}
	}
	order.KeepSeconds = keepSeconds
	if f.Keep != nil {
		order.KeepSeconds = int((*f.Keep + time.Second - 1) / time.Second)
	}
	defer func() {
		if err != nil {
			closeAll(leased)
		}
	}()
	for _, word := range f.Lease {
		var pidfd *os.File
		pid, perr := strconv.Atoi(word)
		switch {
		case word == "shell":
			pidfd, err = process.Shell()
		case perr != nil || pid <= 0:
			return order, leased, exitStatus{statusUsage, fmt.Errorf("--lease: %q: expected the number of a process, or shell", word)}
		default:
			pidfd, err = process.Open(pid)
		}
		if err != nil {
			return order, leased, fmt.Errorf("--lease: %w", err)
		}
		leased = append(leased, pidfd)
	}
	return order, leased, nil
}

// leaseSet is leases with the pidfds of their processes.
type leaseSet struct {
	order  supervisor.LeaseOrder
	pidfds []*os.File
}

// takeLeases keeps the leases of running containers for their next start.
func takeLeases(targets []*target) (release func()) {
	for _, t := range targets {
		order, pidfds := supervisor.HeldLeases(t.container)
		t.leases = &leaseSet{order, pidfds}
	}
	return func() {
		for _, t := range targets {
			closeAll(t.leases.pidfds)
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// upDetached starts containers without waiting for anything. Those that run get
// their leases at once; the rest is done by a process in the background, which
// has nothing open of this one's, so that nobody waits for its end.
func (c *context) upDetached(targets []*target, o startOptions) error {
	all, err := ordered(targets, c.dependency)
	if err != nil {
		return err // while there is somebody to be told
	}
	var errs []error
	missing := false
	for _, s := range all { // what they depend on runs for the same processes
		t := s.target
		if s.implied && len(o.leased) == 0 && isUp(t.container) {
			continue
		}
		err := supervisor.ErrNotRunning
		if t.container.Held() {
			err = c.claim(t, o)
		}
		switch {
		case errors.Is(err, supervisor.ErrNotRunning), errors.Is(err, supervisor.ErrStopping):
			missing = true
			if exit := t.container.LastExit(); exit != nil && !exit.Clean && !exit.Asked {
				fmt.Fprintln(c.stderr, printable(fmt.Sprintf("nuc: container %s: ended last time: %s; it is started again: see `nuc status %s`", t.container.Name, exit.Reason, t.container.Name)))
			}
		case err != nil:
			errs = append(errs, err)
		}
	}
	if missing {
		errs = append(errs, c.detach(targets, o))
	}
	return errors.Join(errs...)
}

// claim has the running container run for the caller as well: a lease also
// where it has another descriptor, which is an error all the same.
func (c *context) claim(t *target, o startOptions) error {
	name := t.container.Name
	if o.lease.Keep {
		// Whose supervisor can't be asked yet may run with what is not recorded yet.
		conn, err := supervisor.Connect(t.container)
		if err != nil {
			return err
		}
		conn.Close()
		if err := sameDescriptor(t); err != nil {
			return err
		}
	}
	err := supervisor.AddLease(t.container, o.lease, o.leased...)
	switch {
	case errors.Is(err, supervisor.ErrNotRunning), errors.Is(err, supervisor.ErrStopping):
		return err
	case err != nil && len(o.leased) > 0:
		return fmt.Errorf("container %s: %w", name, err)
	}
	if n, back := rolledBack(t); back {
		fmt.Fprintln(c.stderr, printable(fmt.Sprintf("nuc: container %s: runs with generation %d, rolled back from this one: `nuc switch` goes forward again", name, n)))
	}
	return sameDescriptor(t)
}

// rolledBack tells whether a container has had the descriptor, and was taken back
// to an earlier one, whose number that is.
func rolledBack(t *target) (int, bool) {
	n, source, err := t.container.Current()
	if err != nil || string(source) == string(t.source) {
		return n, false
	}
	list, err := t.container.Generations()
	if err != nil {
		return n, false
	}
	for _, g := range list {
		if g.Number <= n {
			continue
		}
		if kept, err := t.container.Read(g.Number); err == nil && (string(kept) == string(t.source) || t.container.Of(g.Number, t.source)) {
			return n, true
		}
	}
	return n, false
}

// keepLimits has what `nuc update` has changed hold on, as long as it is the same
// descriptor that is named.
func (t *target) keepLimits() {
	n, _, err := t.container.Current()
	if err != nil || n == 0 || !t.container.Of(n, t.source) {
		return
	}
	if d, source, err := current(t.container); err == nil {
		t.descriptor, t.source = d, source
	}
}

// sameDescriptor refuses a container that runs with another descriptor.
func sameDescriptor(t *target) error {
	n, source, err := t.container.Current()
	if err != nil {
		return fmt.Errorf("container %s: %w", t.container.Name, err)
	}
	if _, back := rolledBack(t); source != nil && string(source) != string(t.source) && !back {
		return fmt.Errorf("container %s: is running with another descriptor (generation %d): change it live with `nuc switch`, or stop it with `nuc stop %s` and start it again", t.container.Name, n, t.container.Name)
	}
	return nil
}

const roleUp = "nuc-up"

// upOrder is what a `nuc up` in the background is told, over its fd 3, with the
// pidfds of its leases.
type upOrder struct {
	Containers []upContainer         `json:"containers"`
	Timeout    time.Duration         `json:"timeout,omitempty"`
	Lease      supervisor.LeaseOrder `json:"lease"`
	Folders    state.Folders         `json:"folders"`
	LogLevel   string                `json:"logLevel"`
	LogJSON    bool                  `json:"logJSON"`
}

type upContainer struct {
	Source    []byte `json:"source"`
	Origin    []byte `json:"origin,omitempty"`
	StorePath string `json:"storePath,omitempty"`
}

// detach leaves the start to a process in the background.
func (c *context) detach(targets []*target, o startOptions) error {
	order := upOrder{Timeout: o.timeout, Lease: o.lease, Folders: c.folders, LogLevel: c.logLevel, LogJSON: c.logJSON}
	for _, t := range targets {
		order.Containers = append(order.Containers, upContainer{t.source, t.originText(), t.storePath})
	}
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer peer.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	_, err = syscall.ForkExec("/proc/self/exe", []string{roleUp}, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), fdReport: peer.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err == nil {
		err = conn.Send(order, o.leased...)
	}
	if err != nil {
		return fmt.Errorf("starting in the background: %w", err)
	}
	return nil
}

// upMain is a `nuc up` in the background.
func upMain() error {
	_ = unix.CloseRange(fdReport, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	conn, err := seqpacket.FromFile(os.NewFile(fdReport, "order"))
	if err != nil {
		return err
	}
	m, err := conn.Receive()
	if err != nil {
		return err
	}
	conn.Close()
	defer m.Close()
	var order upOrder
	if err := m.Decode(&order); err != nil {
		return err
	}
	c := &context{stdout: os.Stdout, stderr: os.Stderr, logLevel: order.LogLevel, logJSON: order.LogJSON, folders: order.Folders}
	var targets []*target
	for _, one := range order.Containers {
		d, err := descriptor.Read(one.Source)
		if err != nil {
			return err
		}
		targets = append(targets, &target{
			container: order.Folders.Container(d.Name), descriptor: d,
			source: one.Source, storePath: one.StorePath, kept: one.Origin,
		})
	}
	begun := time.Now()
	return c.up(targets, startOptions{
		wait: true, timeout: order.Timeout, lease: order.Lease, leased: m.FDs,
		failed: func(t *target, err error) { noteFailure(t.container, begun, err) },
	})
}

// noteFailure keeps why a container could not be started in the background,
// where its supervisor has not, for `nuc status` and the next start.
func noteFailure(container state.Container, begun time.Time, why error) {
	noted := func() bool {
		exit := container.LastExit()
		return exit != nil && !exit.Time.Before(begun)
	}
	if noted() {
		return
	}
	lock, err := container.Acquire()
	// A supervisor tells of its failure before it lets go.
	for end := time.Now().Add(comeUp); errors.Is(err, state.ErrHeld) && time.Now().Before(end); lock, err = container.Acquire() {
		st, err := supervisor.Query(container)
		if err == nil && st.State != supervisor.Failed && st.State != supervisor.Stopped && st.State != supervisor.Stopping {
			return // it runs: its status says more
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return
	}
	defer lock.Close()
	if !noted() {
		_ = container.RecordFailure(why.Error())
	}
	_ = supervisor.Sweep(container, lock)
}
