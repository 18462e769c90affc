package main

import (
	"fmt"
	"os"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/gcroot"
	"github.com/nix-user-containers/nuc/go/internal/project"
	"github.com/nix-user-containers/nuc/go/internal/sources"
)

type buildCommand struct {
	Projects []string `arg:"" name:"project" optional:"" help:"Flake references (.#web) or folders with a flake.nix or configuration.nix; without one, the folder you are in."`
	Nixpkgs  string   `placeholder:"FOLDER" help:"The nixpkgs for folders with a configuration.nix, instead of NIX_PATH's or the one nuc is locked to."`
}

func (buildCommand) Help() string {
	return `Prints the descriptors' store paths. They and all they need are kept from
garbage collection until the container is removed or built anew.

Examples:
  nuc build .#web
  nuc build ~/cont1 --nixpkgs ~/nixpkgs`
}

func (b *buildCommand) Run(c *context) error {
	for _, arg := range here(b.Projects) {
		p, name, err := project.Find(arg, b.Nixpkgs)
		if err != nil {
			return err
		}
		built, err := c.builder().Build(p, name)
		if err != nil {
			return err
		}
		for _, one := range built {
			path := one.Path
			d, _, err := descriptor.ReadFile(path)
			if err != nil {
				return fmt.Errorf("descriptor %s: %w", path, err)
			}
			container := c.folders.Container(d.Name)
			if err := os.MkdirAll(container.State, 0o700); err != nil {
				return fmt.Errorf("state folder: %w", err)
			}
			root := container.BuiltRoot()
			_ = os.Remove(root)
			if err := gcroot.Add(root, []string{path}); err != nil {
				fmt.Fprintln(c.stderr, "nuc: "+printable(err.Error()))
			}
			fmt.Fprintln(c.stdout, path)
		}
	}
	return nil
}

// here is the folder that the caller is in, where no argument says otherwise.
func here(args []string) []string {
	if len(args) == 0 {
		return []string{"."}
	}
	return args
}

// hereOr is here for commands of one container.
func hereOr(arg *string) string {
	if arg == nil {
		return "."
	}
	return *arg
}

func (c *context) builder() *project.Builder {
	return &project.Builder{
		Cache:    c.folders.Cache,
		Sources:  func() (string, error) { return sources.Unpack(c.folders.Cache) },
		Progress: os.Stderr,
		Say:      func(line string) { fmt.Fprintln(c.stderr, printable(line)) },
	}
}

// build returns a project's containers with their descriptors, built.
func (c *context) build(p project.Project, name string) ([]*target, error) {
	built, err := c.builder().Build(p, name)
	if err != nil {
		return nil, err
	}
	var targets []*target
	for _, one := range built {
		d, source, err := descriptor.ReadFile(one.Path)
		if err != nil {
			return nil, fmt.Errorf("descriptor %s: %w", one.Path, err)
		}
		from := p
		from.Name = one.Name
		targets = append(targets, &target{
			container: c.folders.Container(d.Name), descriptor: d, source: source, storePath: one.Path, origin: &from,
		})
	}
	return targets, nil
}
