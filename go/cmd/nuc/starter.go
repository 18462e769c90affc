package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/link"
	"github.com/nix-user-containers/nuc/go/internal/starter"
	"github.com/nix-user-containers/nuc/go/internal/unit"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// newStarter has things started for a container.
func newStarter(o starter.Order, program *userns.Program, copying func(string, int)) *starter.Client {
	return starter.New(o, program, linksOf(o), copying)
}

// starterMain is a starter.
func starterMain() error { return starter.Main(linksOf) }

// ownLinks are the declared links of one container.
type ownLinks struct{ o starter.Order }

func linksOf(o starter.Order) starter.Links { return ownLinks{o} }

func (l ownLinks) maker() *link.Maker {
	return &link.Maker{Folders: l.o.Folders, Program: l.o.Nuc, Manager: unit.Of(l.o.Folders.Runtime, os.Getuid())}
}

// Link is that of starter.Links.
func (l ownLinks) Link(spec json.RawMessage, exited func()) (watched bool, err error) {
	var s link.Spec
	if err := json.Unmarshal(spec, &s); err != nil {
		return false, err
	}
	if err := l.check(&s); err != nil {
		return false, err
	}
	m := l.maker()
	return m.Manager == nil, m.Replace(&s, exited)
}

// Unlink is that of starter.Links.
func (l ownLinks) Unlink(name string) error {
	if s, err := link.Read(l.o.Folders.Link(name)); err == nil && s.Client.Container != l.o.Name {
		return fmt.Errorf("link %s: is none of container %s's", name, l.o.Name)
	}
	return l.maker().End(name)
}

// check refuses what a container's descriptor can't declare.
func (l ownLinks) check(s *link.Spec) error {
	if !s.Declared || s.Client.Container != l.o.Name || s.Host.Container == "" {
		return fmt.Errorf("link %s: is none that container %s declares", s.Text(), l.o.Name)
	}
	return nil
}

// linker has them made by the starter.
type linker struct{ *starter.Client }

// Replace is that of link.Linker.
func (l linker) Replace(s *link.Spec, exited func()) error {
	spec, err := json.Marshal(s)
	if err != nil {
		return err
	}
	err = l.Client.Link(spec, exited)
	if errors.Is(err, starter.ErrGone) {
		return fmt.Errorf("link %s: %w: %w", s.Text(), link.ErrNoMore, err)
	}
	return err
}

// End is that of link.Linker.
func (l linker) End(name string) error { return l.Unlink(name) }

// declaredLinks makes the links of a container's descriptor.
func declaredLinks(c *starter.Client, log hclog.Logger) func(*descriptor.Descriptor) {
	var links *link.Declarations
	return func(d *descriptor.Descriptor) {
		if links == nil {
			if d == nil || len(d.Links) == 0 {
				return // most have none, and start as fast without
			}
			links = link.NewDeclarations(linker{c}, func(text string) { log.Warn(text) })
		}
		links.Apply(d)
	}
}
