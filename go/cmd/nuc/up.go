package main

import (
	gocontext "context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

type upCommand struct {
	Containers []string      `arg:"" name:"descriptor|name|project" optional:"" help:"Descriptors' files, names of containers that were started before, flake references (.#web), or folders with a flake.nix or configuration.nix. Without one: all containers of the folder you are in."`
	Wait       bool          `default:"true" negatable:"" help:"Wait until the containers are ready."`
	Timeout    time.Duration `help:"How long to wait, instead of the descriptor's ready.timeoutSeconds (30s, 2m)."`
	Nixpkgs    string        `placeholder:"FOLDER" help:"The nixpkgs for folders with a configuration.nix, instead of NIX_PATH's or the one nuc is locked to."`
}

func (upCommand) Help() string {
	return `A container that is running already is waited for, not started again.

Examples:
  nuc up ./web.json
  nuc up web db --timeout 2m
  nuc up .#web
  nuc up --no-wait`
}

func (u *upCommand) Run(c *context) error {
	targets, err := c.loadAll(here(u.Containers), u.Nixpkgs)
	if err != nil {
		return err
	}
	return c.up(targets, u.Wait, u.Timeout)
}

// up starts containers side by side.
func (c *context) up(targets []*target, wait bool, timeout time.Duration) error {
	show := newProgress()
	defer show.end()
	errs := make([]error, len(targets))
	var all sync.WaitGroup
	for i, t := range targets {
		all.Go(func() { errs[i] = c.upOne(t, wait, timeout, show) })
	}
	all.Wait()
	show.end()
	return errors.Join(errs...)
}

func (c *context) upOne(t *target, wait bool, timeout time.Duration, show *progress) error {
	name := t.descriptor.Name
	conn, err := c.launch(t)
	if err != nil {
		return err
	}
	defer conn.Close()
	first, err := receiveStatus(conn)
	if err == nil && first.State == supervisor.Failed {
		return errors.New(first.Reason)
	}
	if err != nil {
		return fmt.Errorf("container %s: its supervisor ended at once: see %s", name, filepath.Join(t.container.State, "supervisor.log"))
	}
	if !wait && first.Init > 0 {
		show.print(name + ": " + string(first.State))
		return nil
	}
	if timeout == 0 {
		timeout = time.Duration(t.descriptor.Ready.TimeoutSeconds) * time.Second
	}
	return c.await(t, conn, first, wait, time.Now().Add(timeout), show)
}

// await follows a start until it is over or the time is.
func (c *context) await(t *target, conn *seqpacket.Conn, st *supervisor.Status, wait bool, deadline time.Time, show *progress) error {
	name := t.descriptor.Name
	_ = conn.Net().SetReadDeadline(deadline)
	stopJobs := c.showJobs(t.container, show)
	defer stopJobs()
	for {
		switch st.State {
		case supervisor.Ready:
			stopJobs()
			show.print(summary(st))
			for _, warning := range unclaimed(st) {
				show.end()
				fmt.Fprintln(c.stderr, printable(name+": "+warning))
			}
			c.warnDegraded(t.container, show)
			return nil
		case supervisor.Listening:
			stopJobs()
			show.print(summary(st))
			return nil
		case supervisor.Failed, supervisor.Stopped, supervisor.Stopping:
			reason := st.Reason
			if reason == "" {
				reason = "stopped before it was ready"
			}
			if strings.HasPrefix(reason, "container ") {
				return errors.New(reason)
			}
			stopJobs()
			return c.startFailed(st, reason, show)
		case supervisor.Running:
			stopJobs()
			return c.notReady(t.container, st, show)
		}
		if !wait && st.Init > 0 {
			show.print(name + ": " + string(st.State))
			return nil
		}
		next, err := receiveStatus(conn)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			stopJobs()
			return c.notReady(t.container, st, show)
		}
		if err != nil {
			return fmt.Errorf("container %s: its supervisor was killed", name)
		}
		st = next
	}
}

// startFailed shows what a start that failed had to say.
func (c *context) startFailed(st *supervisor.Status, reason string, show *progress) error {
	show.end()
	for _, line := range st.Output {
		fmt.Fprintf(c.stderr, "    %s\n", printable(line))
	}
	for _, warning := range st.Warnings {
		reason += "; " + warning
	}
	return fmt.Errorf("container %s: %s", st.Name, reason)
}

func receiveStatus(conn *seqpacket.Conn) (*supervisor.Status, error) {
	m, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	defer m.Close()
	var st supervisor.Status
	return &st, m.Decode(&st)
}

func summary(st *supervisor.Status) string {
	line := fmt.Sprintf("%s: ready in %.1f s", st.Name, st.ReadySeconds)
	if st.State == supervisor.Listening {
		line = st.Name + ": listening"
	}
	if ports := portList(st.Ports); ports != "" {
		line += ", " + ports
	}
	return line
}

// notReady says what a container that is late still lacks, with the last words
// of what failed.
func (c *context) notReady(container state.Container, st *supervisor.Status, show *progress) error {
	show.end()
	c.showFailed(container)
	waiting := st.Waiting
	if waiting == "" {
		waiting = "its first process"
	}
	return fmt.Errorf("container %s: not ready in time, still waiting for %s; it goes on running: see `nuc logs %s`, stop it with `nuc stop %s`",
		container.Name, waiting, container.Name, container.Name)
}

// warnDegraded names units that failed though the system is up.
func (c *context) warnDegraded(container state.Container, show *progress) {
	if systemState(container) == "degraded" {
		show.end()
		c.showFailed(container)
	}
}

// systemState is systemd's own word for the state of the system, or empty.
func systemState(container state.Container) string {
	ctx, cancel := gocontext.WithTimeout(gocontext.Background(), 3*time.Second)
	defer cancel()
	out, _, _ := supervisor.Run(ctx, container, keeper.Exec{Arguments: []string{"systemctl", "is-system-running"}})
	return strings.TrimSpace(out)
}

func failedUnits(container state.Container) []string {
	ctx, cancel := gocontext.WithTimeout(gocontext.Background(), 5*time.Second)
	defer cancel()
	out, _, err := supervisor.Run(ctx, container, keeper.Exec{Arguments: []string{"systemctl", "list-units", "--failed", "--plain", "--no-legend", "--full"}})
	if err != nil {
		return nil
	}
	var units []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 0 {
			units = append(units, f[0])
		}
	}
	return units
}

func (c *context) showFailed(container state.Container) {
	for _, unit := range failedUnits(container) {
		fmt.Fprintf(c.stderr, "%s: %s failed\n", container.Name, printable(unit))
		ctx, cancel := gocontext.WithTimeout(gocontext.Background(), 5*time.Second)
		out, _, _ := supervisor.Run(ctx, container, keeper.Exec{Arguments: []string{"journalctl", "--no-pager", "-o", "cat", "-n", "10", "-u", unit}})
		cancel()
		for line := range strings.Lines(out) {
			fmt.Fprintf(c.stderr, "    %s\n", printable(strings.TrimRight(line, "\n")))
		}
	}
}

// showJobs keeps the terminal's last line at what systemd is starting.
func (c *context) showJobs(container state.Container, show *progress) (stop func()) {
	if !show.live {
		return func() {}
	}
	ctx, cancel := gocontext.WithCancel(gocontext.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(500 * time.Millisecond):
			}
			out, _, err := supervisor.Run(ctx, container, keeper.Exec{Arguments: []string{"systemctl", "list-jobs", "--plain", "--no-legend", "--full"}})
			if err != nil || ctx.Err() != nil {
				continue
			}
			var running []string
			for line := range strings.Lines(out) {
				if f := strings.Fields(line); len(f) == 4 && f[3] == "running" {
					running = append(running, f[1])
				}
			}
			if len(running) > 0 {
				show.status(container.Name, "waiting for "+strings.Join(running, ", "))
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// launch starts a supervisor in the background, or connects to the one there
// is. The connection brings a Status at each change.
func (c *context) launch(t *target) (*seqpacket.Conn, error) {
	if t.container.Held() {
		conn, err := c.join(t)
		if err == nil || !errors.Is(err, supervisor.ErrNotRunning) {
			return conn, err
		}
	}
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
		err = conn.Send(launchOrder{Source: t.source, Origin: t.originText(), StorePath: t.storePath, Folders: c.folders, LogLevel: c.logLevel, LogJSON: c.logJSON})
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("container %s: starting its supervisor: %w", t.descriptor.Name, err)
	}
	return conn, nil
}

// join waits with another start of the same container.
func (c *context) join(t *target) (*seqpacket.Conn, error) {
	n, source, err := t.container.Current()
	if err != nil {
		return nil, err
	}
	conn, err := supervisor.Connect(t.container)
	if err != nil {
		return nil, err
	}
	if source != nil && string(source) != string(t.source) {
		conn.Close()
		return nil, fmt.Errorf("container %s: is running with another descriptor (generation %d): change it live with `nuc switch`, or stop it with `nuc stop %s` and start it again", t.descriptor.Name, n, t.descriptor.Name)
	}
	if err := conn.Send(supervisor.Command{Request: keeper.Request{Op: supervisor.OpWait}}); err != nil {
		conn.Close()
		return nil, err
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
	Source    []byte        `json:"source"`
	Origin    []byte        `json:"origin,omitempty"`
	StorePath string        `json:"storePath,omitempty"`
	Folders   state.Folders `json:"folders"`
	LogLevel  string        `json:"logLevel"`
	LogJSON   bool          `json:"logJSON"`
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
		_ = report.Send(supervisor.Status{State: supervisor.Failed, Reason: err.Error()})
		return err
	}
	m, err := report.Receive()
	if err != nil {
		return err
	}
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
	_, err = supervisor.Start(supervisor.Options{
		Descriptor: d, Source: order.Source, Origin: order.Origin, StorePath: order.StorePath, Container: container,
		Cache: order.Folders.Cache, Report: report, Program: program,
		Log: hclog.New(&hclog.LoggerOptions{Name: "nuc", Level: hclog.LevelFromString(order.LogLevel), Output: output, JSONFormat: order.LogJSON}),
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

// progress is what up shows: on a terminal a last line that changes, elsewhere
// only what is final.
type progress struct {
	mu    sync.Mutex
	live  bool
	dirty bool
	lines map[string]string
}

func newProgress() *progress {
	return &progress{live: console.IsTerminal(os.Stderr), lines: map[string]string{}}
}

func (p *progress) status(name, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return
	}
	line := printable(name + ": " + text)
	if _, columns := console.Size(os.Stderr); columns > 4 && len([]rune(line)) >= int(columns) {
		line = string([]rune(line)[:columns-2]) + "…"
	}
	fmt.Fprintf(os.Stderr, "\r%s\x1b[K", line)
	p.dirty = true
}

func (p *progress) print(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	fmt.Println(printable(line))
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.dirty {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		p.dirty = false
	}
}
