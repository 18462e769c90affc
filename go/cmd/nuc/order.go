package main

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// starting is a container that is to be started, after those it depends on.
type starting struct {
	target *target
	needs  []*starting
	// needed tells whether others wait for it to be ready.
	needed bool
	// implied is one that the command line does not name.
	implied bool
	// acyclic tells that no way leads back to it.
	acyclic bool
	// refused is why it can't be started, known before anything is.
	refused error
	done    chan struct{}
	err     error // once done
}

// up starts containers side by side, each when those it depends on are ready.
func (c *context) up(targets []*target, o startOptions) error {
	all, err := ordered(targets, c.dependency)
	if err != nil {
		return err
	}
	for _, s := range all {
		hide(s.target)
	}
	for _, s := range all {
		if !s.target.container.Held() { // what runs is joined
			if _, s.refused = gather(s.target); s.refused != nil {
				s.refused = fmt.Errorf("container %s: %w", s.target.descriptor.Name, s.refused)
			}
		}
	}
	show := newProgress()
	defer show.end()
	err = startAll(all, atOnce(), func(s *starting, begun func()) error {
		o := o
		o.begun = begun
		return c.upNeeded(s, o, show)
	}, o.failed)
	show.end()
	return err
}

// atOnce is how many containers may be at the point between nothing and a first
// process: more of them would only slow each other down, fifty until helpers
// like newuidmap seem to hang.
func atOnce() int { return max(2*runtime.NumCPU(), 4) }

// startAll starts containers in their order, with so many under way at once. Each
// calls begun when its first process runs, however long it is until it is ready:
// others may have to come for that. One that waits for those it depends on is not
// under way. Failed, if not nil, is told of each that does not come up.
func startAll(all []*starting, atOnce int, up func(s *starting, begun func()) error, failed func(*target, error)) error {
	underWay := make(chan struct{}, atOnce)
	var running sync.WaitGroup
	for _, s := range all {
		running.Go(func() {
			defer close(s.done)
			s.err = s.start(func() error {
				underWay <- struct{}{}
				begun := sync.OnceFunc(func() { <-underWay })
				defer begun()
				return up(s, begun)
			})
			if s.err != nil && failed != nil {
				failed(s.target, s.err)
			}
		})
	}
	running.Wait()
	var errs []error
	for _, s := range all {
		errs = append(errs, s.err)
	}
	return errors.Join(errs...)
}

// upNeeded starts a container, and waits where others need it. Of one that only
// is needed and up already, nothing is said.
func (c *context) upNeeded(s *starting, o startOptions, show *progress) error {
	if s.implied && len(o.leased) == 0 && isUp(s.target.container) {
		return nil
	}
	o.wait = o.wait || s.needed
	return c.upOne(s.target, o, show)
}

// isUp tells a container that is all that others may need of it.
func isUp(container state.Container) bool {
	st, err := supervisor.Query(container)
	return err == nil && (st.State == supervisor.Ready || st.State == supervisor.Listening)
}

// start starts the container when all it needs is ready, or says why it does not.
func (s *starting) start(up func() error) error {
	if s.refused != nil {
		return s.refused
	}
	for _, n := range s.needs {
		<-n.done
		if n.err != nil {
			return fmt.Errorf("container %s: not started, as %s, which it depends on, failed", s.target.descriptor.Name, n.target.descriptor.Name)
		}
	}
	return up()
}

// ordered finds what containers depend on. A dependency that is not among them
// is one that kept knows.
func ordered(targets []*target, kept func(name string) (*target, error)) ([]*starting, error) {
	known := map[string]*starting{}
	var all []*starting
	add := func(t *target, implied bool) *starting {
		s := &starting{target: t, implied: implied, done: make(chan struct{})}
		known[t.descriptor.Name] = s
		all = append(all, s)
		return s
	}
	for _, t := range targets {
		add(t, false)
	}
	for i := 0; i < len(all); i++ { // those that are added, too
		s := all[i]
		for _, name := range s.target.descriptor.DependsOn {
			need := known[name]
			if need == nil {
				t, err := kept(name)
				if err != nil {
					if near := descriptor.Nearest(name, slices.Sorted(maps.Keys(known))); near != "" && near != s.target.descriptor.Name {
						err = fmt.Errorf("did you mean %s?", near)
					}
					return nil, fmt.Errorf("container %s: depends on %s, which was not named: %w", s.target.descriptor.Name, name, err)
				}
				need = add(t, true)
			}
			need.needed = true
			s.needs = append(s.needs, need)
		}
	}
	for _, s := range all {
		if cycle := s.cycle(nil); cycle != nil {
			return nil, fmt.Errorf("containers depend on each other: %s: take one of them out of dependsOn", strings.Join(cycle, " → "))
		}
	}
	return all, nil
}

// cycle returns the names on the way from a container back to itself.
func (s *starting) cycle(way []*starting) []string {
	if i := slices.Index(way, s); i >= 0 {
		var names []string
		for _, on := range append(way[i:], s) {
			names = append(names, on.target.descriptor.Name)
		}
		return names
	}
	if s.acyclic {
		return nil
	}
	way = append(slices.Clone(way), s)
	for _, n := range s.needs {
		if c := n.cycle(way); c != nil {
			return c
		}
	}
	s.acyclic = true
	return nil
}
