package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type stopCommand struct {
	Names   []string      `arg:"" name:"name|project" optional:"" help:"Containers, or projects' folders for all of theirs."`
	All     bool          `short:"a" help:"All running containers."`
	Timeout time.Duration `help:"When to kill instead, in place of the descriptor's system.stop.timeoutSeconds (10s)."`
}

func (stopCommand) Help() string {
	return `Returns when the containers have stopped. Stopping one that does not run is no error.

Examples:
  nuc stop web
  nuc stop --all --timeout 5s`
}

func (s *stopCommand) Run(c *context) error {
	containers, err := c.containers(s.Names, s.All)
	if err != nil {
		return err
	}
	return stopAll(containers, false, s.Timeout)
}

type killCommand struct {
	Names []string `arg:"" name:"name|project" optional:"" help:"Containers, or projects' folders for all of theirs."`
	All   bool     `short:"a" help:"All running containers."`
}

func (killCommand) Help() string {
	return `Examples:
  nuc kill web`
}

func (k *killCommand) Run(c *context) error {
	containers, err := c.containers(k.Names, k.All)
	if err != nil {
		return err
	}
	return stopAll(containers, true, 0)
}

type restartCommand struct {
	Names   []string      `arg:"" name:"name|project" help:"Containers, or projects' folders for all of theirs."`
	Wait    bool          `default:"true" negatable:"" help:"Wait until the containers are ready."`
	Timeout time.Duration `help:"How long to wait for ready (30s, 2m)."`
}

func (restartCommand) Help() string {
	return `A container that does not run is started.

Examples:
  nuc restart web`
}

func (r *restartCommand) Run(c *context) error {
	containers, err := c.containers(r.Names, false)
	if err != nil {
		return err
	}
	var targets []*target
	for _, container := range containers {
		t, err := c.kept(container.Name)
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	if err := gatherAll(targets); err != nil {
		return err
	}
	defer takeLeases(targets)()
	if err := c.stopToStart(targets); err != nil {
		return err
	}
	return c.up(targets, startOptions{wait: r.Wait, timeout: r.Timeout})
}

// stopToStart stops containers that are to be started again, those first that
// need others: that one had to be killed is told, and no reason to leave it down.
func (c *context) stopToStart(targets []*target) error {
	err := backwards(targets, c.stoppable, func(t *target) error { return stopOne(t.container, false, 0) })
	for _, t := range targets {
		if t.container.Held() {
			return err
		}
	}
	if err != nil {
		fmt.Fprintln(c.stderr, "nuc: "+printable(err.Error()))
	}
	return nil
}

// containers resolves a list of names, or all running containers.
func (c *context) containers(given []string, all bool) ([]state.Container, error) {
	switch {
	case all && len(given) > 0:
		return nil, exitStatus{statusUsage, errors.New("give names or --all, not both")}
	case !all && len(given) == 0:
		return nil, exitStatus{statusUsage, errors.New("which container? Give a name, or --all; `nuc ps` lists the running ones")}
	}
	if !all {
		return c.selection(given)
	}
	var containers []state.Container
	known, err := c.folders.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range known {
		if container := c.folders.Container(name); container.Held() {
			containers = append(containers, container)
		}
	}
	return containers, nil
}

// stopAll stops containers side by side.
func stopAll(containers []state.Container, kill bool, timeout time.Duration) error {
	errs := make([]error, len(containers))
	var all sync.WaitGroup
	for i, container := range containers {
		all.Go(func() { errs[i] = stopOne(container, kill, timeout) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// stopRestart keeps systemd from starting a supervisor anew that was killed.
func stopRestart(container state.Container) error {
	name := container.Name
	m := manager(filepath.Dir(container.Runtime))
	if m == nil || !m.Active(unitName(name)) {
		return nil
	}
	if err := m.Stop(unitName(name)); err != nil {
		return fmt.Errorf("container %s: stopping %s: %w", name, unitName(name), err)
	}
	return nil
}

// stopOne asks a container's supervisor to stop it and waits until it has let go
// of the lock, so that a start that follows does not meet it.
func stopOne(container state.Container, kill bool, timeout time.Duration) error {
	var conn *seqpacket.Conn
	err := reach(container, func() (err error) {
		conn, err = supervisor.Connect(container)
		return err
	})
	if errors.Is(err, supervisor.ErrNotRunning) {
		return stopRestart(container)
	}
	if err != nil {
		if container.Held() {
			return fmt.Errorf("container %s: its supervisor (process %d) does not answer: try again, or kill that process", container.Name, container.Holder())
		}
		return err
	}
	defer conn.Close()
	holder := container.Holder()
	// A start that fails by itself meanwhile is not what the stop did to it.
	st, err := supervisor.Query(container)
	ran := err == nil && st.Init != 0 || err != nil && !errors.Is(err, supervisor.ErrNotRunning)
	seconds := int((timeout + time.Second - 1) / time.Second)
	if err := conn.Send(supervisor.Command{Request: keeper.Request{Op: supervisor.OpStop}, Kill: kill, TimeoutSeconds: seconds}); err != nil {
		return nil // it ended just now
	}
	for {
		m, err := conn.Receive()
		if err != nil {
			break
		}
		m.Close()
	}
	if err := released(container, holder); err != nil {
		return err
	}
	exit := container.LastExit()
	if exit == nil || exit.Clean {
		return nil
	}
	// A unit that others declare may start what failed again.
	err = stopRestart(container)
	if ran && !kill {
		err = errors.Join(fmt.Errorf("container %s: %s", container.Name, exit.Reason), err)
	}
	return err
}
