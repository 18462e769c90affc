package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/unit"
)

type enableCommand struct {
	Names []string `arg:"" name:"name|project" help:"Containers that were started before, or projects' folders for all of theirs."`
}

func (enableCommand) Help() string {
	return `Makes nuc-NAME.service in ~/.config/systemd/user, which the user's systemd starts
with the descriptor that the container had last. What a container depends on is
enabled as well. Nothing is started or stopped now.

Examples:
  nuc enable web
  systemctl --user start nuc-web`
}

func (e *enableCommand) Run(c *context) error {
	m, err := c.needManager()
	if err != nil {
		return err
	}
	containers, err := c.selection(e.Names)
	if err != nil {
		return err
	}
	var targets []*target
	for _, container := range containers {
		t, err := c.kept(container.Name)
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	all, err := ordered(targets, c.dependency)
	if err != nil {
		return err
	}
	for _, s := range all {
		hide(s.target)
	}
	program, err := ownPath()
	if err != nil {
		return err
	}
	folder := unit.Folder(os.Getenv)
	for _, s := range all {
		if err := undeclared(m, folder, s.target.descriptor.Name); err != nil {
			return err
		}
	}
	for _, s := range all {
		service := service(s.target.descriptor, program, true)
		if err := m.Enable(folder, service); err != nil {
			return fmt.Errorf("container %s: enabling %s: %w", s.target.descriptor.Name, service.Name, err)
		}
		fmt.Fprintf(c.stdout, "%s: enabled, as %s\n", s.target.descriptor.Name, service.Name)
		for i, one := range s.target.descriptor.Credentials {
			if one.Environment != "" && !one.Optional {
				fmt.Fprintf(c.stderr, "nuc: container %s: systemd can't start it by itself: credentials[%d] (%s) is a variable of who runs `nuc up`: use file or command\n", s.target.descriptor.Name, i, one.Name)
			}
		}
	}
	if name := userName(); !lingers(name) {
		fmt.Fprintf(c.stderr, "nuc: they start at your first login and stop after your last logout: `loginctl enable-linger %s` has them start at boot, and stay\n", name)
	}
	return nil
}

// undeclared refuses to change what systemd has of a container that is declared
// elsewhere.
func undeclared(m *unit.Manager, folder, name string) error {
	if path := m.Declared(folder, unitName(name)); path != "" {
		return fmt.Errorf("container %s: %s is declared in %s: whether it starts by itself is said there", name, unitName(name), path)
	}
	return nil
}

type disableCommand struct {
	Names []string `arg:"" name:"name|project" help:"Containers, or projects' folders for all of theirs."`
}

func (disableCommand) Help() string {
	return `A container that runs goes on running. Disabling one that is not enabled is no error.

Examples:
  nuc disable web`
}

func (d *disableCommand) Run(c *context) error {
	m, err := c.needManager()
	if err != nil {
		return err
	}
	containers, err := c.selection(d.Names)
	if err != nil {
		return err
	}
	return c.each(containers, func(container state.Container) error {
		if err := undeclared(m, unit.Folder(os.Getenv), container.Name); err != nil {
			return err
		}
		return disable(m, container.Name)
	})
}

func disable(m *unit.Manager, name string) error {
	if err := m.Disable(unit.Folder(os.Getenv), unitName(name)); err != nil {
		return fmt.Errorf("container %s: disabling %s: %w", name, unitName(name), err)
	}
	return nil
}

// needManager is manager for commands that are nothing without.
func (c *context) needManager() (*unit.Manager, error) {
	if os.Getuid() == 0 {
		return nil, errors.New("root has no systemd of its own for containers: enable them as another user")
	}
	if m := manager(c.folders.Runtime); m != nil {
		return m, nil
	}
	return nil, errors.New("no systemd of yours is at " + filepath.Dir(c.folders.Runtime) + " (XDG_RUNTIME_DIR): log in by a login manager, ssh or `machinectl shell`, not by su or sudo")
}

// userName is the name that loginctl knows the user by.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// lingers tells whether the user's systemd runs without a login: systemd-logind
// keeps a file for each such user (loginctl(1), enable-linger).
func lingers(name string) bool {
	if strings.Contains(name, "/") {
		return false
	}
	_, err := os.Stat(filepath.Join("/var/lib/systemd/linger", name))
	return err == nil
}
