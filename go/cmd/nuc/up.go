package main

import (
	gocontext "context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type upCommand struct {
	Containers []string      `arg:"" name:"descriptor|name|project" optional:"" help:"Descriptors' files, names of containers that were started before, flake references (.#web), or folders with a flake.nix or configuration.nix. Without one: all containers of the folder you are in."`
	Wait       bool          `default:"true" negatable:"" help:"Wait until the containers are ready."`
	Detach     bool          `help:"Return at once, or when projects are built. What goes wrong later is shown by nuc status and the next nuc up --detach."`
	Timeout    time.Duration `help:"How long to wait, instead of the descriptor's ready.timeoutSeconds (30s, 2m)."`
	leaseFlags
	Nixpkgs string `placeholder:"FOLDER" help:"The nixpkgs for folders with a configuration.nix, instead of NIX_PATH's or the one nuc is locked to."`
}

func (upCommand) Help() string {
	return `A container that is running already is waited for, not started again. What a
container depends on (dependsOn) is started first, and must be ready.

Examples:
  nuc up ./web.json
  nuc up web db --timeout 2m
  nuc up .#web
  nuc up --no-wait
  nuc up --detach --lease shell web`
}

func (u *upCommand) Run(c *context) error {
	targets, err := c.loadAll(here(u.Containers), u.Nixpkgs)
	if err != nil {
		return err
	}
	if err := noneAnothers(targets); err != nil {
		return err
	}
	for _, t := range targets {
		t.keepLimits()
	}
	o := startOptions{wait: u.Wait, timeout: u.Timeout}
	if o.lease, o.leased, err = u.leaseFlags.open(); err != nil {
		return err
	}
	defer closeAll(o.leased)
	if u.Detach {
		return c.upDetached(targets, o)
	}
	return c.up(targets, o)
}

// startOptions say how containers are started.
type startOptions struct {
	wait    bool
	timeout time.Duration // 0: each descriptor's
	// lease is for the processes of leased, whose pidfds they are.
	lease  supervisor.LeaseOrder
	leased []*os.File
	// failed, if not nil, is told of each container that does not come up.
	failed func(*target, error)
	// begun is called when the first process runs, or not at all.
	begun func()
}

func (c *context) upOne(t *target, o startOptions, show *progress) error {
	name := t.descriptor.Name
	conn, first, err := c.launch(t, o)
	if err != nil {
		return err
	}
	defer conn.Close()
	if first.Init > 0 {
		o.begun()
		if !o.wait {
			show.print(name + ": " + string(first.State))
			return nil
		}
	}
	timeout := o.timeout
	if timeout == 0 {
		timeout = time.Duration(t.descriptor.Ready.TimeoutSeconds) * time.Second
	}
	return c.await(t, conn, first, o, time.Now().Add(timeout), show)
}

// await follows a start until it is over or the time is.
func (c *context) await(t *target, conn *seqpacket.Conn, st *supervisor.Status, o startOptions, deadline time.Time, show *progress) error {
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
			if st.State != supervisor.Stopping {
				_ = released(t.container, st.Supervisor) // what follows is not to meet it
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
		if st.Init > 0 {
			o.begun()
			if !o.wait {
				show.print(name + ": " + string(st.State))
				return nil
			}
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
