package main

import (
	"fmt"

	"github.com/nix-user-containers/nuc/go/internal/doctor"
)

type doctorCommand struct {
	JSON bool `name:"json" help:"As JSON."`
}

func (doctorCommand) Help() string {
	return `Tries what nuc needs of this machine and names a command for what is missing.

Exit status: 0 if containers can be started, else 1.

Examples:
  nuc doctor
  nuc doctor --json`
}

func (d *doctorCommand) Run(c *context) error {
	checks := doctor.Run(doctor.Host())
	if d.JSON {
		if err := writeJSON(c.stdout, checks); err != nil {
			return err
		}
	} else {
		for _, check := range checks {
			fmt.Fprintf(c.stdout, "%-8s %-17s %s\n", check.State, check.Code, printable(check.Detail))
			if check.Remedy != "" {
				fmt.Fprintf(c.stdout, "%-8s %-17s → %s\n", "", "", check.Remedy)
			}
		}
	}
	if !doctor.Healthy(checks) {
		return exitStatus{status: statusFailed}
	}
	return nil
}
