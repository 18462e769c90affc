package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

func TestService(t *testing.T) {
	for _, name := range []string{"PATH", "NUC_LOG_LEVEL", "NIX_CONFIG", "SECRET"} {
		t.Setenv(name, "value of "+name)
	}
	d := &descriptor.Descriptor{Name: "web", Restart: descriptor.RestartNo}
	d.System.Stop.TimeoutSeconds = 30
	s := service(d, "/opt/nuc", true)
	if s.Name != "nuc-web.service" || !slices.Equal(s.Command, []string{"/opt/nuc", roleSupervisor, "web"}) {
		t.Errorf("%+v", s)
	}
	if slices.ContainsFunc(s.Properties, func(p string) bool { return strings.HasPrefix(p, "Restart") }) {
		t.Errorf("it is started again: %q", s.Properties)
	}
	d.Restart = descriptor.RestartAlways
	if s := service(d, "/opt/nuc", true); !slices.Contains(s.Properties, "Restart=on-failure") {
		t.Errorf("it is not started again: %q", s.Properties)
	}
	if s := service(d, "/opt/nuc", false); slices.Contains(s.Properties, "Restart=on-failure") {
		t.Errorf("with leases, it is started again: %q", s.Properties)
	}
	// Longer than the container may take, or systemd would be the one that kills.
	for _, property := range []string{"KillMode=mixed", "Delegate=yes", "TimeoutStopSec=45"} {
		if !slices.Contains(s.Properties, property) {
			t.Errorf("%s is missing in %q", property, s.Properties)
		}
	}
	for name, want := range map[string]bool{"PATH": true, "NUC_LOG_LEVEL": true, "NIX_CONFIG": false, "SECRET": false} {
		if got := slices.Contains(s.Environment, name+"=value of "+name); got != want {
			t.Errorf("%s is passed on: %t", name, got)
		}
	}
}
