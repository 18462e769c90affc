package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/diagram"
	"github.com/nix-user-containers/nuc/go/internal/link"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

func TestNodeAndEdges(t *testing.T) {
	d := &descriptor.Descriptor{
		Name: "web", DependsOn: []string{"db"},
		Links: []descriptor.Link{
			{Listen: 5432, To: "db", Port: 5432, Count: 1, Protocol: "tcp"},
			{Listen: 7000, To: "mail", Port: 8000, Count: 3, Protocol: "udp"},
		},
	}
	d.Network.Ports = []descriptor.Port{{Host: 0, Container: 80, Count: 1, Protocol: "tcp", Address: "127.0.0.1"}}
	wantEdges := []diagram.Edge{
		{From: "web", To: "db", Label: "5432→5432"},
		{From: "web", To: "mail", Label: "7000-7002→8000-8002/udp"},
		{From: "web", To: "db", Dependency: true},
	}
	if diff := cmp.Diff(wantEdges, edges(d)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(diagram.Node{Name: "web", State: "stopped", Lines: []string{"127.0.0.1:0→80"}}, node(d, nil)); diff != "" {
		t.Error(diff)
	}
	// The port that the kernel chose is the running one's to say.
	st := &supervisor.Status{State: supervisor.Ready, Supervisor: 7, Ports: []supervisor.Port{{Protocol: "tcp", Address: "127.0.0.1", Host: 40123, Container: 80}}}
	if diff := cmp.Diff(diagram.Node{Name: "web", State: "ready", Lines: []string{"127.0.0.1:40123→80"}}, node(d, st)); diff != "" {
		t.Error(diff)
	}
}

func TestAddLinks(t *testing.T) {
	d := &diagram.Diagram{Nodes: []diagram.Node{{Name: "web"}, {Name: "db"}}}
	addLinks(d, []link.Status{
		{Client: "-", Listen: []string{"127.0.0.1:1001", "[::1]:1001"}, Host: "db", Target: "5432", Protocol: link.TCP},
		{Client: "web", Listen: []string{"/run/db.sock"}, Host: "-", Target: "/tmp/db.sock", Protocol: link.TCP},
		{Client: "web", Host: "db", Target: "53", Protocol: link.UDP}, // waits for web
		{Client: "web", Listen: []string{"127.0.0.1:5432"}, Host: "db", Target: "5432", Declared: true},
		{Client: "other", Listen: []string{"127.0.0.1:1"}, Host: "else", Target: "1"},
	})
	want := &diagram.Diagram{
		Nodes: []diagram.Node{{Name: "web"}, {Name: "db"}, {Name: machine, State: "this machine"}},
		Edges: []diagram.Edge{
			{From: machine, To: "db", Label: "1001→5432"},
			{From: "web", To: machine, Label: "/run/db.sock→/tmp/db.sock"},
			{From: "web", To: "db", Label: "→53/udp"},
		},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}
