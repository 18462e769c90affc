package main

import (
	"fmt"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

type rollbackCommand struct {
	Name    *string `arg:"" name:"name|project" optional:"" help:"Container, or its project's folder; without one, the folder you are in."`
	To      *int    `placeholder:"N" help:"This generation instead of the one before the current one."`
	Restart bool    `help:"Restart the container if something changed that can't be changed live."`
}

func (rollbackCommand) Help() string {
	return `As nuc switch, without building anything: the generation is there already.

Examples:
  nuc rollback web
  nuc rollback web --to 3`
}

func (r *rollbackCommand) Run(c *context) error {
	container, err := c.find(hereOr(r.Name))
	if err != nil {
		return err
	}
	var to int
	if r.To != nil {
		to = *r.To
	} else {
		current, _, _ := container.Current() // damaged, it is to be left
		if to, err = before(container, current); err != nil {
			return err
		}
	}
	source, err := container.Read(to)
	if err != nil {
		return err
	}
	d, err := descriptor.Read(source)
	if err != nil {
		return fmt.Errorf("container %s: generation %d: %w", container.Name, to, err)
	}
	change := &switching{c: c, t: &target{container: container, descriptor: d, source: source}, restart: r.Restart, number: to}
	return change.run()
}
