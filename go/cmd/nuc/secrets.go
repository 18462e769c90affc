package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/credential"
)

// secrets has credentials gathered for one container after the other, as
// somebody may be asked.
var secrets struct {
	sync.Mutex
	// environment is the process's own, from before variables were hidden in it.
	environment []string
}

// gather gets a container's credentials, once. It is nil for one without.
func gather(t *target) (*credential.Set, error) {
	if len(t.descriptor.Credentials) == 0 {
		return nil, nil
	}
	hide(t)
	secrets.Lock()
	defer secrets.Unlock()
	if t.credentials != nil {
		return t.credentials, nil
	}
	source := credential.Source{Environment: secrets.environment, Terminal: console.IsTerminal(os.Stdin) && console.IsTerminal(os.Stderr)}
	set, err := source.Gather(t.descriptor.Credentials)
	t.credentials = set
	return set, err
}

// gatherAll does so before anything is stopped, to be started again.
func gatherAll(targets []*target) error {
	var errs []error
	for _, t := range targets {
		if _, err := gather(t); err != nil {
			errs = append(errs, fmt.Errorf("container %s: %w; nothing was stopped", t.descriptor.Name, err))
		}
	}
	return errors.Join(errs...)
}

// hide keeps variables that are credentials out of the environment of what is
// started from now on: supervisors and units above all.
func hide(targets ...*target) {
	secrets.Lock()
	defer secrets.Unlock()
	if secrets.environment == nil {
		secrets.environment = os.Environ()
	}
	for _, t := range targets {
		credential.Hide(t.descriptor.Credentials)
	}
}
