package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
)

// inScope marks a nuc that runs in a scope already, so that it asks for no other.
const inScope = "NUC_IN_SCOPE"

// scoped returns how to execute a command in a cgroup that the user's systemd
// delegates; an empty program where nuc is in such a cgroup already, or none is
// to be had.
//
// A session's own cgroup belongs to the system's manager (systemd-logind's
// session-N.scope), and systemd as a container's init does not come up without
// a cgroup that it may write to. With --scope, systemd-run executes the command
// in its own place: same process, same file descriptors.
func scoped(name string, command ...string) (program string, argv, environment []string) {
	if os.Getenv(inScope) != "" {
		return "", nil, nil
	}
	if _, _, err := cgroup.Delegated(); err == nil {
		return "", nil, nil
	}
	runtime := fmt.Sprintf("/run/user/%d", os.Getuid())
	if _, err := os.Stat(runtime + "/systemd/private"); err != nil {
		return "", nil, nil
	}
	program, err := exec.LookPath("systemd-run")
	if err != nil {
		return "", nil, nil
	}
	argv = []string{
		program, "--user", "--scope", "--quiet", "--collect",
		"--property=Delegate=yes", "--description=nuc container " + name,
		"--setenv=" + inScope + "=1",
	}
	// systemd-run finds the user's manager by XDG_RUNTIME_DIR, which a shell
	// under su or sudo lacks; what nuc was given is put back behind it.
	const xdg = "XDG_RUNTIME_DIR="
	environment = append(environment, xdg+runtime)
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, xdg) {
			argv = append(argv, "--setenv="+e)
			continue
		}
		environment = append(environment, e)
	}
	return program, append(append(argv, "--"), command...), environment
}

// enterScope executes nuc anew in a delegated cgroup if it lacks one.
func enterScope(name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, argv, environment := scoped(name, append([]string{self}, os.Args[1:]...)...)
	if program == "" {
		return nil
	}
	return fmt.Errorf("executing %s: %w", program, syscall.Exec(program, argv, environment))
}
