package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

type downCommand struct {
	Names   []string      `arg:"" name:"name|project" optional:"" help:"Projects' folders for all containers that were started from there, or containers. Without one, the folder you are in."`
	Timeout time.Duration `help:"When to kill instead, in place of each descriptor's system.stop.timeoutSeconds (10s)."`
}

func (downCommand) Help() string {
	return `A container is stopped when those that depend on it have stopped. One that does not
run is left out.

Examples:
  nuc down
  nuc down ~/shop
  nuc down web db --timeout 5s`
}

func (d *downCommand) Run(c *context) error {
	containers, err := c.selection(here(d.Names))
	if err != nil {
		return err
	}
	var targets []*target
	for _, container := range containers {
		targets = append(targets, c.stoppable(container.Name))
	}
	var lock sync.Mutex
	return backwards(targets, c.stoppable, func(t *target) error {
		ran := t.container.Held()
		if err := stopOne(t.container, false, d.Timeout); err != nil || !ran {
			return err
		}
		lock.Lock()
		defer lock.Unlock()
		_, err := fmt.Fprintf(c.stdout, "%s: stopped\n", t.container.Name)
		return err
	})
}

// stoppable is a container as it was started, or without a descriptor where that
// can't be read: it is to be stopped all the same.
func (c *context) stoppable(name string) *target {
	if t, err := c.kept(name); err == nil {
		return t
	}
	return &target{container: c.folders.Container(name), descriptor: &descriptor.Descriptor{Name: name}}
}

// backwards stops targets side by side, each when all that depend on it have
// ended, be it well or not. Others that lie on the way from one to another are
// left as they are; kept says what those depend on.
func backwards(targets []*target, kept func(name string) *target, stop func(*target) error) error {
	all, err := ordered(targets, func(name string) (*target, error) { return kept(name), nil })
	if err != nil {
		// Containers that were started one by one may depend on each other. That is
		// no reason to leave them up.
		all = nil
		for _, t := range targets {
			all = append(all, &starting{target: t, done: make(chan struct{})})
		}
	}
	users := map[*starting][]*starting{}
	for _, s := range all {
		for _, n := range s.needs {
			users[n] = append(users[n], s)
		}
	}
	var running sync.WaitGroup
	for _, s := range all {
		running.Go(func() {
			defer close(s.done)
			for _, u := range users[s] {
				<-u.done
			}
			if !s.implied {
				s.err = stop(s.target)
			}
		})
	}
	running.Wait()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.err)
	}
	return errors.Join(errs...)
}
