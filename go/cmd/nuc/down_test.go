package main

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

func TestBackwards(t *testing.T) {
	depends := map[string][]string{
		"worker": {"web", "db"}, "web": {"proxy"}, "proxy": {"db", "gone"}, "cache": nil, "db": nil,
		"a": {"b"}, "b": {"a"},
	}
	kept := func(name string) *target {
		return &target{descriptor: &descriptor.Descriptor{Name: name, DependsOn: depends[name]}}
	}
	tests := []struct {
		name  string
		stop  []string
		order [][2]string // the first before the second
	}{
		{"all", []string{"db", "cache", "proxy", "web", "worker"}, [][2]string{{"worker", "web"}, {"web", "proxy"}, {"proxy", "db"}, {"worker", "db"}}},
		{"by way of one that stays", []string{"db", "web"}, [][2]string{{"web", "db"}}},
		{"one", []string{"db"}, nil},
		{"none", nil, nil},
		{"a cycle", []string{"a", "b"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var targets []*target
			for _, name := range test.stop {
				targets = append(targets, kept(name))
			}
			var lock sync.Mutex
			var stopped []string
			err := backwards(targets, kept, func(one *target) error {
				// What is done too early is done before this ends.
				time.Sleep(5 * time.Millisecond)
				lock.Lock()
				defer lock.Unlock()
				stopped = append(stopped, one.descriptor.Name)
				if one.descriptor.Name == "web" {
					return errors.New("had to be killed")
				}
				return nil
			})
			if hasWeb := slices.Contains(test.stop, "web"); (err != nil) != hasWeb {
				t.Errorf("%v", err)
			}
			if got, want := slices.Sorted(slices.Values(stopped)), slices.Sorted(slices.Values(test.stop)); !slices.Equal(got, want) {
				t.Errorf("stopped %q, want %q", got, want)
			}
			for _, o := range test.order {
				if slices.Index(stopped, o[0]) > slices.Index(stopped, o[1]) {
					t.Errorf("%s was stopped before %s: %s", o[1], o[0], strings.Join(stopped, " "))
				}
			}
		})
	}
}

// Those that nothing orders are stopped at the same time.
func TestBackwardsInParallel(t *testing.T) {
	var targets []*target
	for _, name := range []string{"a", "b", "c"} {
		targets = append(targets, &target{descriptor: &descriptor.Descriptor{Name: name}})
	}
	var all sync.WaitGroup
	all.Add(len(targets))
	done := make(chan error)
	go func() {
		done <- backwards(targets, nil, func(*target) error {
			all.Done()
			all.Wait()
			return nil
		})
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("they wait for each other")
	}
}
