package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/project"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// files are the containers of a folder of descriptors.
func (c *context) files(paths []string) ([]*target, error) {
	var targets []*target
	for _, path := range paths {
		t, err := c.file(path)
		if err != nil {
			return nil, fmt.Errorf("%w; all *.json of a folder of descriptors are read: keep other files elsewhere", err)
		}
		for _, other := range targets {
			if other.descriptor.Name == t.descriptor.Name {
				return nil, twice(other, t)
			}
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// twice refuses two descriptors of one name.
func twice(a, b *target) error {
	name := a.descriptor.Name
	if a.origin != nil && b.origin != nil && a.origin.File != "" && b.origin.File != "" && a.origin.File != b.origin.File {
		return fmt.Errorf("container %s: is described by both %s and %s: give one another name", name, a.origin.File, b.origin.File)
	}
	return fmt.Errorf("container %s: named twice", name)
}

// selection returns the containers of names and of projects: of a folder or
// flake all that were started from there. Each stands once in it.
func (c *context) selection(args []string) ([]state.Container, error) {
	var list []state.Container
	add := func(container state.Container) {
		if !slices.Contains(list, container) {
			list = append(list, container)
		}
	}
	for _, arg := range args {
		if isName(arg) {
			if container, err := c.find(arg); err == nil {
				add(container)
				continue
			}
			if st, err := os.Stat(arg); err != nil || !st.IsDir() {
				_, err := c.find(arg)
				return nil, err
			}
		}
		names, err := c.members(arg)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, noMembers(arg)
		}
		for _, n := range names {
			add(c.folders.Container(n))
		}
	}
	return list, nil
}

// everyOr is the selection, or without arguments every container there is.
func (c *context) everyOr(args []string) ([]state.Container, error) {
	if len(args) > 0 {
		return c.selection(args)
	}
	names, err := c.folders.Names()
	if err != nil {
		return nil, err
	}
	var list []state.Container
	for _, n := range names {
		list = append(list, c.folders.Container(n))
	}
	return list, nil
}

// members are the names of the containers that were started from a project: a
// folder with a flake, a configuration.nix or descriptors, a flake elsewhere, or
// a descriptor's file; of FOLDER#NAME, that one.
func (c *context) members(arg string) ([]string, error) {
	ref, wanted := project.Cut(arg)
	path, err := project.Folder(ref)
	switch {
	case err != nil && !project.Is(ref):
		return nil, err
	case err != nil:
		path = ref // a flake elsewhere
	}
	ref = project.Absolute(ref)
	names, err := c.known()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, n := range names {
		p := origin(c.folders.Container(n))
		if p != nil && from(p, path, ref) && (wanted == "" || p.Name == wanted || n == wanted) {
			found = append(found, n)
		}
	}
	return found, nil
}

// from tells whether a container's origin is at a path, or the flake ref.
func from(p *project.Project, path, ref string) bool {
	if p.Folder == path || p.Flake != "" && p.Flake == ref {
		return true
	}
	if p.File == "" {
		return false
	}
	folder := filepath.Dir(p.File)
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	return p.File == path || folder == path || filepath.Join(folder, filepath.Base(p.File)) == path
}

// noMembers tells what a project lacks that no container was started from.
func noMembers(arg string) error {
	ref, _ := project.Cut(arg)
	if folder, err := project.Folder(ref); err == nil && !strings.Contains(ref, ":") {
		ref = folder
	}
	switch st, err := os.Stat(ref); {
	case err != nil && !strings.Contains(ref, ":"):
		return fmt.Errorf("container of %s: there is no such folder or file: `nuc ps -a` lists the containers there are", arg)
	case err == nil && st.IsDir() && !isProject(ref):
		return fmt.Errorf("container of %s: is no project: no flake.nix, configuration.nix or descriptor (*.json) is in it", arg)
	}
	return fmt.Errorf("container of %s: none was started from there yet: `nuc up %s` does, `nuc ps -a` lists those there are", arg, arg)
}

// isProject tells whether something in a folder describes containers.
func isProject(folder string) bool {
	entries, err := os.ReadDir(folder)
	return err == nil && slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return e.Name() == "flake.nix" || e.Name() == "configuration.nix" || strings.HasSuffix(e.Name(), ".json")
	})
}

// findFolder returns the one container that was started from a project.
func (c *context) findFolder(arg string) (state.Container, error) {
	found, err := c.members(arg)
	switch {
	case err != nil:
		return state.Container{}, err
	case len(found) == 0:
		return state.Container{}, noMembers(arg)
	case len(found) > 1:
		return state.Container{}, fmt.Errorf("container of %s: there are several: name one of %s", arg, strings.Join(found, ", "))
	}
	return c.folders.Container(found[0]), nil
}
