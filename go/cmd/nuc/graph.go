package main

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/diagram"
	"github.com/nix-user-containers/nuc/go/internal/link"
	"github.com/nix-user-containers/nuc/go/internal/project"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type graphCommand struct {
	Containers []string `arg:"" name:"name|descriptor|project" optional:"" help:"Containers, descriptors' files, or projects' folders. Without one, all containers there are."`
	Format     string   `enum:"text,dot,mermaid,svg" default:"text" help:"text, dot (Graphviz), mermaid or svg."`
}

func (graphCommand) Help() string {
	return `An edge leads from the container that has a link, or depends on another, to the
other one. Dependencies are dashed.

Examples:
  nuc graph
  nuc graph .
  nuc graph --format svg >containers.svg`
}

func (g *graphCommand) Run(c *context) error {
	targets, err := c.drawn(g.Containers)
	if err != nil {
		return err
	}
	status := make([]*supervisor.Status, len(targets))
	var all sync.WaitGroup
	for i, t := range targets {
		all.Go(func() { status[i] = statusOf(t.container) })
	}
	all.Wait()
	var d diagram.Diagram
	for i, t := range targets {
		d.Nodes = append(d.Nodes, node(t.descriptor, status[i]))
		d.Edges = append(d.Edges, edges(t.descriptor)...)
	}
	links, err := link.All(c.folders)
	if err != nil {
		return err
	}
	addLinks(&d, links)
	return d.Write(c.stdout, g.Format)
}

// machine is the host machine in the drawing; no container has such a name.
const machine = "host machine"

// addLinks adds what `nuc link` has made from or to the containers drawn; what
// descriptors declare is there already.
func addLinks(d *diagram.Diagram, links []link.Status) {
	drawn := map[string]bool{}
	for _, n := range d.Nodes {
		drawn[n.Name] = true
	}
	end := func(name string) string {
		if name != "-" {
			return name
		}
		if !drawn[machine] {
			drawn[machine] = true
			d.Nodes = append(d.Nodes, diagram.Node{Name: machine, State: "this machine"})
		}
		return machine
	}
	for _, l := range links {
		if l.Declared || !drawn[l.Client] && !drawn[l.Host] {
			continue
		}
		label := "→" + l.Target
		if len(l.Listen) > 0 {
			// The number or path, which is the same at all places.
			label = l.Listen[0][strings.LastIndex(l.Listen[0], ":")+1:] + label
		}
		if l.Protocol == link.UDP {
			label += "/udp"
		}
		d.Edges = append(d.Edges, diagram.Edge{From: end(l.Client), To: end(l.Host), Label: printable(label)})
	}
}

// drawn are the containers to draw: those of a project that was started as they
// run, a folder's descriptors as they are.
func (c *context) drawn(args []string) ([]*target, error) {
	if len(args) == 0 {
		names, err := c.known()
		if err != nil {
			return nil, err
		}
		var targets []*target
		for _, n := range names {
			t, err := c.kept(n)
			switch {
			case err == nil:
				targets = append(targets, t)
			case !c.folders.Container(n).Held(): // else it is just being started
				fmt.Fprintln(c.stderr, "nuc: "+printable(err.Error()))
			}
		}
		return targets, nil
	}
	var wanted []string
	for _, arg := range args {
		if st, err := os.Stat(arg); err != nil || !st.IsDir() || isName(arg) && c.folders.Container(arg).Exists() {
			wanted = append(wanted, arg)
			continue
		}
		descriptors, err := project.Descriptors(arg)
		if err != nil {
			return nil, err
		}
		// What Nix would have to build is drawn as it was started, if it was.
		names, err := c.members(arg)
		if err != nil {
			return nil, err
		}
		if len(descriptors) > 0 || len(names) == 0 {
			names = []string{arg}
		}
		wanted = append(wanted, names...)
	}
	return c.loadAll(wanted, "")
}

func node(d *descriptor.Descriptor, st *supervisor.Status) diagram.Node {
	n := diagram.Node{Name: d.Name, State: string(supervisor.Stopped)}
	var ports []supervisor.Port
	if st != nil {
		n.State = string(st.State)
		ports = st.Ports
	}
	if st == nil || st.Supervisor == 0 {
		for _, p := range d.Network.Ports {
			ports = append(ports, supervisor.Port{Protocol: p.Protocol, Address: p.Address, Host: p.Host, Container: p.Container, Count: p.Count})
		}
	}
	for _, p := range ports {
		n.Lines = append(n.Lines, portList([]supervisor.Port{p}))
	}
	return n
}

func edges(d *descriptor.Descriptor) []diagram.Edge {
	var list []diagram.Edge
	for _, l := range d.Links {
		label := portRange(l.Listen, l.Count) + "→" + portRange(l.Port, l.Count)
		if l.Protocol != "tcp" {
			label += "/" + l.Protocol
		}
		list = append(list, diagram.Edge{From: d.Name, To: l.To, Label: label})
	}
	for _, other := range d.DependsOn {
		list = append(list, diagram.Edge{From: d.Name, To: other, Dependency: true})
	}
	return list
}
