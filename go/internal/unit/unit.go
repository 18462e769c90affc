// Package unit runs processes as services of the user's systemd, by its own
// programs: systemd-run(1) and systemctl(1). Its units are transient, gone when
// their process has ended for good, or files that systemd starts by itself.
package unit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Manager is the user's systemd.
type Manager struct {
	// Runtime is the XDG_RUNTIME_DIR that it is found by.
	Runtime string
	// Run and Control are systemd-run(1) and systemctl(1).
	Run, Control string
}

// Of finds the user's systemd for a nuc with a runtime folder, nil where there is
// none. It is of no use to one whose runtime folder is elsewhere than the login's:
// its units would have the names of the login's.
func Of(runtime string, uid int) *Manager {
	if runtime != fmt.Sprintf("/run/user/%d/nuc", uid) {
		return nil
	}
	return Find(uid)
}

// Find finds the user's systemd, nil where there is none.
func Find(uid int) *Manager {
	// Not the environment's: a shell under su or sudo lacks it, and a test has
	// one of its own.
	m := &Manager{Runtime: fmt.Sprintf("/run/user/%d", uid)}
	if _, err := os.Stat(m.Runtime + "/systemd/private"); err != nil {
		return nil
	}
	var err error
	if m.Run, err = exec.LookPath("systemd-run"); err != nil {
		return nil
	}
	if m.Control, err = exec.LookPath("systemctl"); err != nil {
		return nil
	}
	return m
}

// Service is a process to be run.
type Service struct {
	Name        string // with its suffix
	Description string
	Properties  []string // NAME=VALUE, of systemd.service(5) and what it refers to
	Environment []string // NAME=VALUE, besides the manager's own
	Command     []string // an absolute path first
	// Notify tells that the process says itself when it is up (sd_notify(3)).
	// Nobody waits for that: it is up when it is executed.
	Notify bool
	// After are other units, which are started first and must be up, where they
	// are known. Of a file alone.
	After []string
}

func (s Service) kind() string {
	if s.Notify {
		return "notify"
	}
	return "exec"
}

// Arguments are systemd-run's.
func (s Service) Arguments() []string {
	arguments := []string{
		"--user", "--quiet", "--collect", "--unit=" + s.Name, "--description=" + s.Description,
		"--service-type=" + s.kind(),
	}
	if s.Notify {
		arguments = append(arguments, "--no-block")
	}
	for _, p := range s.Properties {
		arguments = append(arguments, "--property="+p)
	}
	for _, e := range s.Environment {
		arguments = append(arguments, "--setenv="+e)
	}
	arguments = append(arguments, "--working-directory=/", "--")
	// systemd puts variables in the place of $NAME in what it executes
	// (systemd.service(5), "Command lines").
	for _, word := range s.Command {
		arguments = append(arguments, strings.ReplaceAll(word, "$", "$$"))
	}
	return arguments
}

// Start starts a service, and returns when its program is executed, or, of one
// that notifies, is about to be.
func (m *Manager) Start(s Service) error {
	_, err := m.execute(m.Run, s.Arguments())
	return err
}

// IsThere tells whether Start failed as there is a unit of that name, or a file
// that declares one. It may be gone by now.
func IsThere(err error) bool { return strings.Contains(err.Error(), "already loaded") }

// Show returns a property of a unit.
func (m *Manager) Show(name, property string) (string, error) {
	return m.execute(m.Control, []string{"--user", "show", "--property=" + property, "--value", name})
}

// Known tells whether there is a unit of that name.
func (m *Manager) Known(name string) bool {
	state, err := m.Show(name, "LoadState")
	return err == nil && state != "not-found"
}

// Active tells whether a unit's process runs, or is about to.
func (m *Manager) Active(name string) bool {
	state, err := m.Show(name, "ActiveState")
	return err == nil && state != "inactive" && state != "failed"
}

// Stop stops a unit, also one that is about to be started anew, and returns
// when it has ended. One that is gone is no error.
func (m *Manager) Stop(name string) error {
	_, err := m.execute(m.Control, []string{"--user", "--quiet", "stop", name})
	if err != nil && !m.Known(name) {
		return nil
	}
	return err
}

// execute runs one of systemd's programs and returns what it printed.
func (m *Manager) execute(program string, arguments []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Env = []string{"LC_ALL=C", "XDG_RUNTIME_DIR=" + m.Runtime, "PATH=" + os.Getenv("PATH")}
	var printed, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(printed.String()), nil
}
