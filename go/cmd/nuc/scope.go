package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/unit"
)

// inScope marks a nuc that runs in a scope already, so that it asks for no other.
const inScope = "NUC_IN_SCOPE"

// enterScope executes nuc anew in a cgroup that the user's systemd delegates, if
// it is not in one already and one is to be had.
//
// A session's own cgroup belongs to the system's manager (systemd-logind's
// session-N.scope), and systemd as a container's init does not come up without
// a cgroup that it may write to. With --scope, systemd-run executes the command
// in its own place: same process, same file descriptors.
func enterScope(name string) error {
	m := unit.Find(os.Getuid())
	if m == nil || os.Getenv(inScope) != "" {
		return nil
	}
	if _, _, err := cgroup.Delegated(); err == nil {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv := []string{
		m.Run, "--user", "--scope", "--quiet", "--collect",
		"--property=Delegate=yes", "--description=nuc container " + name,
		"--setenv=" + inScope + "=1",
	}
	// systemd-run finds the user's manager by XDG_RUNTIME_DIR, which a shell
	// under su or sudo lacks; what nuc was given is put back behind it.
	const xdg = "XDG_RUNTIME_DIR="
	environment := []string{xdg + m.Runtime}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, xdg) {
			argv = append(argv, "--setenv="+e)
			continue
		}
		environment = append(environment, e)
	}
	argv = append(append(argv, "--", self), os.Args[1:]...)
	return fmt.Errorf("executing %s: %w", m.Run, syscall.Exec(m.Run, argv, environment))
}
