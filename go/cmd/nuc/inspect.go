package main

import (
	"fmt"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

type inspectCommand struct {
	Container string `arg:"" name:"name|descriptor" help:"Container, or a descriptor's file."`
	Query     string `short:"q" placeholder:"PATH" help:"Only the value at this path: network.ports.0.host, or any other path of gjson."`
	JSON      bool   `name:"json" help:"As JSON, which it always is; accepted as other commands have it."`
}

func (inspectCommand) Help() string {
	return `The descriptor is shown with the defaults filled in.

Examples:
  nuc inspect web
  nuc inspect web --query network.ports.0.host
  nuc inspect web --query 'mounts.#.target'`
}

func (i *inspectCommand) Run(c *context) error {
	t, err := c.load(i.Container, "")
	if err != nil {
		return err
	}
	text := t.descriptor.Marshal()
	if i.Query == "" {
		_, err := c.stdout.Write(text)
		return err
	}
	value, ok := descriptor.Query(text, i.Query)
	if !ok {
		return fmt.Errorf("container %s: nothing is at %s: `nuc inspect %s` shows all there is", t.descriptor.Name, i.Query, i.Container)
	}
	_, err = fmt.Fprintln(c.stdout, value)
	return err
}
