package link

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/state"
)

// Manager is the user's systemd.
type Manager struct {
	// Run and Control are systemd-run(1) and systemctl(1).
	Run, Control string
	// Runtime is the XDG_RUNTIME_DIR that they find it by.
	Runtime string
}

// FindManager finds the user's systemd, nil where there is none. It is of no use
// to a nuc whose runtime folder is elsewhere than the login's: the names of its
// links would be those of the login's links, too.
func FindManager(f state.Folders, uid int) *Manager {
	if f.Runtime != fmt.Sprintf("/run/user/%d/nuc", uid) {
		return nil
	}
	return manager(uid)
}

func manager(uid int) *Manager {
	// Not the environment's, which a shell under su or sudo lacks.
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

// unit is the name of a link's unit.
func unit(name string) string { return "nuc-link-" + name + ".service" }

// arguments are systemd-run's, that start a link's process as a service.
//
// A process that failed is started anew, but not one that could not make its
// link. systemd gives up where five starts in ten seconds fail
// (systemd.unit(5), StartLimitBurst=).
func (m *Manager) arguments(name, description string, command []string) []string {
	// systemd puts variables in the place of $NAME in what it executes
	// (systemd.service(5), "Command lines").
	arguments := []string{
		"--user", "--quiet", "--collect", "--unit=" + unit(name), "--description=nuc link " + description,
		"--service-type=exec", "--property=Restart=on-failure", "--property=RestartSec=100ms",
		fmt.Sprintf("--property=RestartPreventExitStatus=%d", statusRefused),
		"--working-directory=/", "--",
	}
	for _, word := range command {
		arguments = append(arguments, strings.ReplaceAll(word, "$", "$$"))
	}
	return arguments
}

// start starts a link's process, and returns when it is executed.
func (m *Manager) start(name, description string, command []string) error {
	_, err := m.run(m.Run, m.arguments(name, description, command))
	return err
}

// run runs one of systemd's programs and returns what it printed.
func (m *Manager) run(program string, arguments []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Env = []string{"XDG_RUNTIME_DIR=" + m.Runtime, "PATH=" + os.Getenv("PATH")}
	var printed, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(said.String()))
	}
	return strings.TrimSpace(printed.String()), nil
}

// managed is the name of the unit that a link's process runs in, "" where
// systemd does not know it.
func managed(l state.Link) string {
	name, err := l.Read(unitFile)
	if err != nil {
		return ""
	}
	return string(name)
}

// restarting tells whether systemd is to start a unit's process anew.
func restarting(unit string) bool {
	m := manager(os.Getuid())
	if m == nil {
		return false
	}
	state, err := m.run(m.Control, []string{"--user", "show", "--property=ActiveState", "--value", unit})
	return err == nil && state == "activating"
}

// stopUnit stops a link's unit, also one that is about to be started anew. One
// that is gone is no error.
func stopUnit(unit string) error {
	m := manager(os.Getuid())
	if m == nil {
		return nil // it went with the manager
	}
	_, err := m.run(m.Control, []string{"--user", "--quiet", "stop", unit})
	if err != nil {
		if state, serr := m.run(m.Control, []string{"--user", "show", "--property=LoadState", "--value", unit}); serr == nil && state == "not-found" {
			return nil
		}
	}
	return err
}
