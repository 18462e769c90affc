package nixos

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestConfigurations(t *testing.T) {
	p := prepared(t)
	var names []string
	p.evaluate(t, "names", &names)
	for _, want := range []string{"postgresql", "nginx", "sshd", "redis", "hardened", "realtime"} {
		if !slices.Contains(names, want) {
			t.Errorf("no configuration is named %s: %q", want, names)
		}
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			h := harness.New(t)
			var got struct {
				Toplevel   string   `json:"toplevel"`
				Descriptor string   `json:"descriptor"`
				Failed     []string `json:"failed"`
			}
			p.evaluate(t, "evaluated."+name, &got)
			if len(got.Failed) > 0 {
				t.Errorf("assertions failed: %q", got.Failed)
			}
			if !strings.HasSuffix(got.Toplevel, ".drv") {
				t.Errorf("the toplevel is %q, not a derivation", got.Toplevel)
			}
			var descriptor struct {
				Name   string `json:"name"`
				System struct {
					Init     string `json:"init"`
					Toplevel string `json:"toplevel"`
					TTYGroup int    `json:"ttyGroup"`
				} `json:"system"`
			}
			if err := json.Unmarshal([]byte(got.Descriptor), &descriptor); err != nil {
				t.Fatalf("descriptor: %v\n%s", err, got.Descriptor)
			}
			system := descriptor.System
			if descriptor.Name != name || system.Init != system.Toplevel+"/init" || system.TTYGroup != 3 {
				t.Errorf("descriptor names %q, %+v", descriptor.Name, system)
			}
			h.Must("validate", h.Write("descriptor.json", got.Descriptor, 0o600))
		})
	}
}

func TestAssertions(t *testing.T) {
	p := prepared(t)
	var refused map[string]struct {
		Says   string   `json:"says"`
		Failed []string `json:"failed"`
	}
	p.evaluate(t, "refused", &refused)
	if len(refused) == 0 {
		t.Error("nothing is refused")
	}
	for name, got := range refused {
		t.Run(name, func(t *testing.T) {
			if !slices.ContainsFunc(got.Failed, func(message string) bool { return strings.Contains(message, got.Says) }) {
				t.Errorf("want an assertion to fail that says %q, got %q", got.Says, got.Failed)
			}
		})
	}
	var allowed map[string][]string
	p.evaluate(t, "allowed", &allowed)
	if len(allowed) == 0 {
		t.Error("nothing is allowed")
	}
	for name, failed := range allowed {
		t.Run(name, func(t *testing.T) {
			if len(failed) > 0 {
				t.Errorf("assertions failed: %q", failed)
			}
		})
	}
}

// TestRefusedToplevel shows that a failed assertion ends an evaluation, and is
// not only listed.
func TestRefusedToplevel(t *testing.T) {
	p := prepared(t)
	var built bool
	p.evaluate(t, "refusedToplevel", &built)
	if built {
		t.Error("a configuration with a failed assertion has a toplevel")
	}
}

func TestOptionsDocumented(t *testing.T) {
	p := prepared(t)
	var options map[string]string
	p.evaluate(t, "options", &options)
	if len(options) < 20 {
		t.Errorf("only %d options were found", len(options))
	}
	for name, description := range options {
		if description == "" {
			t.Errorf("%s has no description", name)
		}
	}
}
