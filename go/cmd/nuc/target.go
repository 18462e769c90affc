package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/credential"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/project"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// target is a container that a command line names.
type target struct {
	container  state.Container
	descriptor *descriptor.Descriptor
	source     []byte
	// storePath is the descriptor's own in the Nix store, "" elsewhere.
	storePath string
	// origin is where the descriptor comes from; nil for one that was kept, or
	// that says nothing about it.
	origin *project.Project
	// kept is the origin as text, where that is all there is.
	kept []byte
	// leases are those of the run that this start follows; nil for a first one.
	leases *leaseSet
	// credentials, once they are gathered.
	credentials *credential.Set
}

// originText is the origin as it is kept with the container.
func (t *target) originText() []byte {
	if t.origin == nil {
		return t.kept
	}
	text, err := json.Marshal(t.origin)
	if err != nil {
		return nil
	}
	return text
}

// anothers refuses a container that came from another project: the two would have
// one root file system, and each switch would be the other's.
func (t *target) anothers() error {
	kept := origin(t.container)
	if kept == nil || t.origin == nil || !project.Elsewhere(*kept, *t.origin) {
		return nil
	}
	name, place := t.descriptor.Name, t.origin.Place()
	takeOver := place
	if t.origin.Name != "" {
		takeOver += "#" + t.origin.Name
	}
	return fmt.Errorf("container %s: is that of %s, and %s has one of that name as well: give one of them another name, remove the old one with `nuc rm %s`, or have it taken over with `nuc switch %s`",
		name, kept.Place(), place, name, takeOver)
}

func noneAnothers(targets []*target) error {
	var errs []error
	for _, t := range targets {
		errs = append(errs, t.anothers())
	}
	return errors.Join(errs...)
}

// load finds the one descriptor behind an argument.
func (c *context) load(arg, nixpkgs string) (*target, error) {
	targets, err := c.loadAll([]string{arg}, nixpkgs)
	if err != nil {
		return nil, err
	}
	if len(targets) > 1 {
		return nil, fmt.Errorf("%s: has %d containers: name one, as in %s#%s", arg, len(targets), arg, targets[0].descriptor.Name)
	}
	return targets[0], nil
}

// loadAll finds the descriptors behind arguments: each a file, the name of a
// container that was started before, or a project, whose descriptors are built.
func (c *context) loadAll(args []string, nixpkgs string) ([]*target, error) {
	var targets []*target
	for _, arg := range args {
		found, err := c.resolve(arg, nixpkgs)
		if err != nil {
			return nil, err
		}
		for _, t := range found {
			for _, other := range targets {
				if other.descriptor.Name == t.descriptor.Name {
					return nil, twice(other, t)
				}
			}
			targets = append(targets, t)
		}
	}
	return targets, nil
}

func (c *context) resolve(arg, nixpkgs string) ([]*target, error) {
	switch {
	case isName(arg) && (c.folders.Container(arg).Exists() || !project.Is(arg) && !isFile(arg)):
		if nixpkgs != "" {
			return nil, fmt.Errorf("container %s: has its descriptor already: --nixpkgs is for a folder with a configuration.nix", arg)
		}
		t, err := c.kept(arg)
		return []*target{t}, err
	case project.Is(arg):
		files, err := project.Descriptors(arg)
		if err != nil {
			return nil, err
		}
		if len(files) > 0 && nixpkgs != "" {
			return nil, describedAlready(arg)
		}
		if len(files) > 0 {
			return c.files(files)
		}
		p, name, err := project.Find(arg, nixpkgs)
		if err != nil {
			return nil, err
		}
		return c.build(p, name)
	}
	if nixpkgs != "" {
		return nil, describedAlready(arg)
	}
	t, err := c.file(arg)
	return []*target{t}, err
}

// describedAlready refuses a nixpkgs for what none is needed for.
func describedAlready(arg string) error {
	return fmt.Errorf("descriptor %s: is built already: --nixpkgs is for a folder with a configuration.nix", arg)
}

// file is the container of a descriptor's file.
func (c *context) file(arg string) (*target, error) {
	d, source, err := descriptor.ReadFile(arg)
	if err != nil {
		return nil, fmt.Errorf("descriptor %s: %w", arg, err)
	}
	path, err := filepath.Abs(arg)
	if err != nil {
		return nil, err
	}
	t := &target{container: c.folders.Container(d.Name), descriptor: d, source: source, origin: &project.Project{File: path}}
	if strings.HasPrefix(path, "/nix/store/") {
		t.origin = nil // never changes: what is known of a project tells more
	}
	if real, err := filepath.EvalSymlinks(path); err == nil && strings.HasPrefix(real, "/nix/store/") {
		t.storePath = real
	}
	return t, nil
}

// isName tells a container's name from all else, which has a slash, a dot, a
// hash or a colon.
func isName(arg string) bool { return !strings.ContainsAny(arg, "/.#:") }

func isFile(arg string) bool {
	st, err := os.Stat(arg)
	return err == nil && st.Mode().IsRegular()
}

// kept is a container with the descriptor that it was last started with.
func (c *context) kept(name string) (*target, error) {
	container, err := c.find(name)
	if err != nil {
		return nil, err
	}
	d, source, err := current(container)
	if err != nil {
		return nil, err
	}
	if source == nil {
		return nil, fmt.Errorf("container %s: its descriptor was never kept: start it from its file once", name)
	}
	return &target{container: container, descriptor: d, source: source}, nil
}

// current reads a container's current generation, nil where there is none.
func current(container state.Container) (*descriptor.Descriptor, []byte, error) {
	n, source, err := container.Current()
	if err == nil && source == nil {
		return nil, nil, nil
	}
	var d *descriptor.Descriptor
	if err == nil {
		d, err = descriptor.Read(source)
	}
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		return nil, nil, fmt.Errorf("container %s: generation %d in %s can't be read: %s: go back to an earlier one with `nuc rollback %s`, or name the descriptor's file",
			container.Name, n, container.State, first, container.Name)
	}
	return d, source, nil
}

// find returns the container of a name, or of a project's folder.
func (c *context) find(arg string) (state.Container, error) {
	if !isName(arg) {
		return c.findFolder(arg)
	}
	container := c.folders.Container(arg)
	if arg != "" && container.Exists() {
		return container, nil
	}
	if st, err := os.Stat(container.Runtime); arg != "" && err == nil && st.IsDir() {
		return container, nil
	}
	if st, err := os.Stat(arg); err == nil && st.IsDir() {
		return c.findFolder(arg)
	}
	return state.Container{}, c.unknown(arg)
}

// dependency is a container that another one names, as it was last started.
func (c *context) dependency(name string) (*target, error) {
	if !c.folders.Container(name).Exists() {
		return nil, c.unknown(name)
	}
	return c.kept(name)
}

// unknown says that there is no container of a name, and which may be meant.
func (c *context) unknown(name string) error {
	names, err := c.known()
	if err != nil {
		return err
	}
	hint := "`nuc ps -a` lists those there are"
	if len(names) == 0 {
		hint = "there are none yet; start one with `nuc up DESCRIPTOR`"
	} else if near := descriptor.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	return fmt.Errorf("container %s: not known: %s", name, hint)
}

// known lists the containers there are.
func (c *context) known() ([]string, error) {
	names, err := c.folders.Names()
	if err != nil {
		return nil, err
	}
	var known []string
	for _, n := range names {
		if container := c.folders.Container(n); container.Exists() || container.Held() {
			known = append(known, n)
		}
	}
	return known, nil
}

// origin is where a container's descriptor came from; nil if that is not known.
func origin(container state.Container) *project.Project {
	text := container.Origin()
	if text == nil {
		return nil
	}
	var p project.Project
	if json.Unmarshal(text, &p) != nil {
		return nil
	}
	return &p
}

// notRunning explains ErrNotRunning for a container.
func notRunning(name string, err error) error {
	return exitStatus{statusFailed, fmt.Errorf("container %s: %w: start it with `nuc up %s`", name, err, name)}
}

// each runs f for every container and returns the first error after all have
// run; the others are printed.
func (c *context) each(containers []state.Container, f func(state.Container) error) error {
	var failed error
	for _, container := range containers {
		err := f(container)
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
