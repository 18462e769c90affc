package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// target is a container that a command line names.
type target struct {
	container  state.Container
	descriptor *descriptor.Descriptor
	source     []byte
}

// load finds the descriptor behind an argument: a file, or the name of a
// container that was started before.
func (c *context) load(arg string) (*target, error) {
	if isPath(arg) {
		d, source, err := descriptor.ReadFile(arg)
		if err != nil {
			return nil, fmt.Errorf("descriptor %s: %w", arg, err)
		}
		return &target{c.folders.Container(d.Name), d, source}, nil
	}
	container, err := c.find(arg)
	if err != nil {
		return nil, err
	}
	_, source, err := container.Current()
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", arg, err)
	}
	if source == nil {
		return nil, fmt.Errorf("container %s: its descriptor was never kept: start it from its file once", arg)
	}
	d, err := descriptor.Read(source)
	if err != nil {
		return nil, fmt.Errorf("container %s: kept descriptor: %w", arg, err)
	}
	return &target{container, d, source}, nil
}

// isPath tells a descriptor's path from a name, which has no slash and no dot.
func isPath(arg string) bool {
	if strings.ContainsAny(arg, "/.") {
		return true
	}
	st, err := os.Stat(arg)
	return err == nil && st.Mode().IsRegular()
}

// find returns a container that exists.
func (c *context) find(name string) (state.Container, error) {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return state.Container{}, fmt.Errorf("container %q: no name of a container", name)
	}
	container := c.folders.Container(name)
	if container.Exists() {
		return container, nil
	}
	if st, err := os.Stat(container.Runtime); err == nil && st.IsDir() {
		return container, nil
	}
	names, err := c.folders.Names()
	if err != nil {
		return state.Container{}, err
	}
	hint := "`nuc ps -a` lists those there are"
	if len(names) == 0 {
		hint = "there are none yet; start one with `nuc up DESCRIPTOR`"
	} else if near := descriptor.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	return state.Container{}, fmt.Errorf("container %s: not known: %s", name, hint)
}

// notRunning explains ErrNotRunning for a container.
func notRunning(name string, err error) error {
	return exitStatus{statusFailed, fmt.Errorf("container %s: %w: start it with `nuc up %s`", name, err, name)}
}

// each runs f for every name and returns the first error after all have run;
// the others are printed.
func (c *context) each(names []string, f func(string) error) error {
	var failed error
	for _, n := range names {
		err := f(n)
		if err == nil {
			continue
		}
		if failed == nil {
			failed = err
			continue
		}
		var e exitStatus
		if !errors.As(err, &e) || e.err != nil {
			fmt.Fprintln(c.stderr, "nuc: "+printable(err.Error()))
		}
	}
	return failed
}
