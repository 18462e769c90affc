package link

import (
	"fmt"
	"os"

	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/unit"
)

// unitName is the name of a link's unit.
func unitName(name string) string { return "nuc-link-" + name + ".service" }

// service is a link's process as a service.
//
// A process that failed is started anew, but not one that could not make its
// link. systemd gives up where five starts in ten seconds fail
// (systemd.unit(5), StartLimitBurst=).
func service(name, description string, command []string) unit.Service {
	return unit.Service{
		Name: unitName(name), Description: "nuc link " + description, Command: command,
		Properties: []string{"Restart=on-failure", "RestartSec=100ms", fmt.Sprintf("RestartPreventExitStatus=%d", statusRefused)},
	}
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
func restarting(name string) bool {
	m := unit.Find(os.Getuid())
	if m == nil {
		return false
	}
	state, err := m.Show(name, "ActiveState")
	return err == nil && state == "activating"
}

// stopUnit stops a link's unit, also one that is about to be started anew. One
// that is gone is no error.
func stopUnit(name string) error {
	m := unit.Find(os.Getuid())
	if m == nil {
		return nil // it went with the manager
	}
	return m.Stop(name)
}
