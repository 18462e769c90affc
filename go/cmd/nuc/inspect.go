package main

import (
	"fmt"
	"slices"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type inspectCommand struct {
	Container string `arg:"" name:"name|descriptor" help:"Container, or a descriptor's file."`
	Query     string `short:"q" placeholder:"PATH" help:"Only the value at this path: network.ports.0.host, or any other path of gjson."`
	JSON      bool   `name:"json" help:"As JSON, which it always is; accepted as other commands have it."`
}

func (inspectCommand) Help() string {
	return `The descriptor is shown with the defaults filled in, and that of a running
container with the ports that the kernel chose.

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
	if isName(i.Container) {
		fillIn(t)
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

// fillIn replaces the ports of host 0 by those that the kernel chose for a
// container that is up.
func fillIn(t *target) {
	st, err := supervisor.Query(t.container)
	if err != nil {
		return
	}
	ports := t.descriptor.Network.Ports
	for i := range ports {
		p := &ports[i]
		used := slices.IndexFunc(st.Ports, func(s supervisor.Port) bool {
			return p.Host == 0 && s.Protocol == p.Protocol && s.Address == p.Address && s.Container == p.Container && max(s.Count, 1) == p.Count
		})
		if used >= 0 {
			p.Host = st.Ports[used].Host
			st.Ports = slices.Delete(st.Ports, used, used+1)
		}
	}
}
