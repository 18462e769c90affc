package nixos

import (
	"encoding/json"
	"os/exec"
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

// TestModules runs the tests that the flake's checks run on its nixpkgs.
func TestModules(t *testing.T) {
	p := prepared(t)
	var differences map[string]any
	p.evaluate(t, "modules", &differences)
	if len(differences) < 20 {
		t.Errorf("only %d tests were found", len(differences))
	}
	for name, difference := range differences {
		t.Run(name, func(t *testing.T) {
			if difference != nil {
				text, _ := json.MarshalIndent(difference, "", "  ")
				t.Errorf("%s", text)
			}
		})
	}
}

func TestTemplates(t *testing.T) {
	p := prepared(t)
	var descriptors map[string]string
	p.evaluate(t, "templates", &descriptors)
	for _, name := range []string{"default", "devshell"} {
		if !strings.HasSuffix(descriptors[name], ".json.drv") {
			t.Errorf("the container of template %s is %q, not a descriptor's derivation", name, descriptors[name])
		}
	}
}

// TestVM evaluates both containers of checks.vm, and has Python read its script.
func TestVM(t *testing.T) {
	p := prepared(t)
	var script string
	p.evaluate(t, "vm", &script)
	if strings.Count(script, "-nuc-example.json") != 2 {
		t.Errorf("want two descriptors in the script:\n%s", script)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 to read the script with")
	}
	cmd := exec.Command(python, "-c", "import ast, sys; ast.parse(sys.stdin.read())")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestHost(t *testing.T) {
	p := prepared(t)
	var host struct {
		Toplevel  string          `json:"toplevel"`
		Packages  []string        `json:"packages"`
		Delegated string          `json:"delegated"`
		Ranges    map[string]bool `json:"ranges"`
	}
	p.evaluate(t, "host", &host)
	if !strings.HasSuffix(host.Toplevel, ".drv") {
		t.Errorf("the toplevel is %q, not a derivation", host.Toplevel)
	}
	if !slices.Contains(host.Packages, "nuc") {
		t.Errorf("nuc is not among %q", host.Packages)
	}
	for _, controller := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(strings.Fields(host.Delegated), controller) {
			t.Errorf("%s is not among what user managers are given: %q", controller, host.Delegated)
		}
	}
	if !host.Ranges["ana"] || host.Ranges["ben"] {
		t.Errorf("want a range of ids for ana and none for ben, who has one: %v", host.Ranges)
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
