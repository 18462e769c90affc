package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

type rmCommand struct {
	Names []string `arg:"" name:"name" help:"Containers, which must be stopped."`
	State bool     `help:"Remove the root file system as well, with all data in it."`
	Yes   bool     `short:"y" help:"Don't ask."`
}

func (rmCommand) Help() string {
	return `Without --state, what services wrote is kept: the next ` + "`nuc up`" + ` of a
descriptor with that name finds it again. With --state nothing is kept, and nuc
asks first.

Examples:
  nuc rm web
  nuc rm --state web db
  nuc rm --state --yes web`
}

func (r *rmCommand) Run(c *context) error {
	var containers []state.Container
	for _, name := range r.Names {
		// What was removed without its state is no container any more, but can
		// still be removed with it.
		if container := c.folders.Container(name); name != "" && isName(name) && (r.State && container.HasState() || container.Built()) {
			containers = append(containers, container)
			continue
		}
		container, err := c.find(name)
		if err != nil {
			return err
		}
		containers = append(containers, container)
	}
	if r.State && !r.Yes {
		if err := r.ask(c, containers); err != nil {
			return err
		}
	}
	err := c.each(containers, r.one)
	if r.State {
		// Also what an earlier removal left that was interrupted.
		if rerr := c.removeAside(); err == nil {
			err = rerr
		}
	}
	return err
}

func (r *rmCommand) ask(c *context, containers []state.Container) error {
	var names []string
	for _, container := range containers {
		names = append(names, container.Name)
	}
	what := strings.Join(names, ", ")
	if !console.IsTerminal(os.Stdin) {
		return exitStatus{statusUsage, fmt.Errorf("removing the data of %s: not asked, as standard input is no terminal: add --yes", what)}
	}
	fmt.Fprintf(c.stderr, "Remove %s with all data? [y/N] ", printable(what))
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return exitStatus{statusFailed, errors.New("nothing was removed")}
}

// one removes a container from sight; its files may go later.
func (r *rmCommand) one(container state.Container) error {
	lock, err := container.Acquire()
	if errors.Is(err, state.ErrHeld) && !isHeld(container) {
		lock, err = container.Acquire()
	}
	if errors.Is(err, state.ErrHeld) {
		return fmt.Errorf("container %s: is running (process %d): stop it first with `nuc stop %s`", container.Name, container.Holder(), container.Name)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w", container.Name, err)
	}
	defer lock.Close()
	switch {
	case r.State && container.HasState():
		err = container.SetAside()
	case !r.State:
		err = container.Forget()
	}
	fault.At("aside")
	err = errors.Join(err, supervisor.Sweep(container, lock))
	// Else systemd would go on starting it.
	if m := manager(filepath.Dir(container.Runtime)); m != nil && err == nil {
		err = disable(m, container.Name)
	}
	return err
}

const roleRemove = "nuc-remove"

// removeOrder is what nuc rm tells its child; removeReply comes back, many
// times with Files alone, and at last with Done.
type removeOrder struct {
	Folders []string `json:"folders"`
}

type removeReply struct {
	Files int    `json:"files,omitempty"`
	Done  bool   `json:"done,omitempty"`
	Error string `json:"error,omitempty"`
}

// removeAside removes the files of removed containers. They belong to ids that
// only a container's root may touch, or root of the host.
func (c *context) removeAside() error {
	folders, err := c.folders.Aside()
	if err != nil || len(folders) == 0 {
		return err
	}
	show := newProgress()
	defer show.end()
	count := func(files int) { show.status("rm", fmt.Sprintf("%d files", files)) }
	m, err := idmap.PlanFor(defaultIDs)
	if os.Getuid() == 0 || err != nil {
		return removeFolders(folders, count)
	}
	child, err := userns.Start(userns.Options{Arguments: []string{roleRemove}, Map: m})
	if err != nil {
		return err
	}
	defer child.Close()
	defer func() { _, _ = child.Wait() }()
	if err := child.Conn.Send(removeOrder{folders}); err != nil {
		return err
	}
	for {
		m, err := child.Conn.Receive()
		if err != nil {
			return errors.New("removing the files: the process that did it was killed: call nuc rm again")
		}
		var reply removeReply
		err = m.Decode(&reply)
		m.Close()
		switch {
		case err != nil:
			return err
		case reply.Error != "":
			return errors.New(reply.Error)
		case reply.Done:
			return nil
		}
		count(reply.Files)
	}
}

// defaultIDs is the number of ids that any container had at most.
const defaultIDs = 65536

func removeFolders(folders []string, progress func(int)) error {
	for _, f := range folders {
		if err := state.RemoveTree(f, progress); err != nil {
			return err
		}
	}
	return nil
}

// removeMain is the child of nuc rm.
func removeMain() error {
	self, err := userns.Enter()
	if err != nil {
		return err
	}
	m, err := self.Conn.Receive()
	if err != nil {
		return err
	}
	var order removeOrder
	err = m.Decode(&order)
	m.Close()
	if err == nil {
		err = userns.BecomeRoot()
	}
	if err == nil {
		err = removeFolders(order.Folders, func(files int) { _ = self.Conn.Send(removeReply{Files: files}) })
	}
	reply := removeReply{Done: true}
	if err != nil {
		reply.Error = err.Error()
	}
	return self.Conn.Send(reply)
}
