package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

func TestOrdered(t *testing.T) {
	// "web: db mail" depends on both.
	read := func(text string) *target {
		name, needs, _ := strings.Cut(text, ":")
		return &target{descriptor: &descriptor.Descriptor{Name: name, DependsOn: strings.Fields(needs)}}
	}
	tests := []struct {
		name, given, kept string
		want              []string // in the order that they come up, side by side ones sorted
		err               string
	}{
		{"alone", "web", "", []string{"web"}, ""},
		{"named", "web:db, db", "", []string{"db", "web"}, ""},
		{"implied", "web:db", "db:disk, disk, other", []string{"disk", "db", "web"}, ""},
		{"named wins", "web:db, db", "db:disk", []string{"db", "web"}, ""},
		{"shared", "a:c, b:c, c", "", []string{"c", "a b"}, ""},
		{"unknown", "web:dbb", "db", nil, "container web: depends on dbb, which was not named: no dbb"},
		{"two", "a:b, b:a", "", nil, "a → b → a"},
		{"three, not all in it", "x:a, a:b, b:c, c:a", "", nil, ": a → b → c → a: take"},
		{"implied cycle", "a:b", "b:a", nil, "a → b → a"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var targets []*target
			for _, text := range strings.Split(test.given, ", ") {
				targets = append(targets, read(text))
			}
			all, err := ordered(targets, func(name string) (*target, error) {
				for _, text := range strings.Split(test.kept, ", ") {
					if k := read(text); k.descriptor.Name == name {
						return k, nil
					}
				}
				return nil, errors.New("no " + name)
			})
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("%v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for len(all) > 0 {
				var ready []string
				var later, now []*starting
				for _, s := range all {
					blocked := slices.ContainsFunc(s.needs, func(n *starting) bool {
						select {
						case <-n.done:
							return false
						default:
							return true
						}
					})
					if blocked {
						later = append(later, s)
					} else {
						now = append(now, s)
						ready = append(ready, s.target.descriptor.Name)
					}
				}
				for _, s := range now {
					if err := s.start(func() error { return nil }); err != nil {
						t.Error(err)
					}
					close(s.done)
				}
				slices.Sort(ready)
				got, all = append(got, strings.Join(ready, " ")), later
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestStartAfterFailure(t *testing.T) {
	all, err := ordered([]*target{
		{descriptor: &descriptor.Descriptor{Name: "web", DependsOn: []string{"db"}}},
		{descriptor: &descriptor.Descriptor{Name: "db"}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	all[1].err = errors.New("broken")
	close(all[1].done)
	err = all[0].start(func() error { t.Error("it was started"); return nil })
	if err == nil || err.Error() != "container web: not started, as db, which it depends on, failed" {
		t.Error(err)
	}
}

// TestStartAll has many containers that wait for few: no more than may be are
// under way at once, all of the room is used, and none that waits takes it.
func TestStartAll(t *testing.T) {
	const room = 4
	var targets []*target
	add := func(name string, needs ...string) {
		targets = append(targets, &target{descriptor: &descriptor.Descriptor{Name: name, DependsOn: needs}})
	}
	for i := range 20 {
		add(fmt.Sprintf("early-%d", i), "late") // listed first
		add(fmt.Sprintf("free-%d", i))
	}
	add("late", "last")
	add("last")
	add("broken")
	add("stuck", "broken")
	all, err := ordered(targets, nil)
	if err != nil {
		t.Fatal(err)
	}
	var now, most atomic.Int32
	// Ready only when all others run, which it does not say that it depends on.
	var others sync.WaitGroup
	others.Add(len(all) - 2)
	var failed atomic.Int32
	err = startAll(all, room, func(s *starting, begun func()) error {
		name := s.target.descriptor.Name
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		if name == "broken" {
			return errors.New("broken")
		}
		begun()
		others.Done()
		if strings.HasPrefix(name, "free") {
			others.Wait()
		}
		return nil
	}, func(*target, error) { failed.Add(1) })
	if got := most.Load(); got != room {
		t.Errorf("%d at once, want %d", got, room)
	}
	if want := "broken\ncontainer stuck: not started, as broken, which it depends on, failed"; err == nil || err.Error() != want || failed.Load() != 2 {
		t.Errorf("%v, %d told", err, failed.Load())
	}
}
