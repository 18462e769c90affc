package nixos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// classic is a configuration.nix as people have it, but for its import.
const classic = `{ pkgs, ... }:
{
  imports = [ (import ../nix/tests/nixos/classic.nix { nixpkgs = /. + "%s"; debian = "%s"; }) ];
  nuc.nix.enable = true;
  systemd.services.greeting = {
    wantedBy = [ "multi-user.target" ];
    serviceConfig.Type = "oneshot";
    serviceConfig.RemainAfterExit = true;
    script = "echo %s >/run/greeting";
  };
}
`

// TestClassic has a folder with a configuration.nix and no flake, in all the
// ways that it can be named. test/nixos/run puts the store at /nix.
func TestClassic(t *testing.T) {
	p := booted(t)
	if os.Getenv("NUC_STORE_AT_NIX") == "" {
		t.Skip("the tests' store isn't at /nix: only root can have it there, and not over a Nix that is there")
	}
	if err := harness.NixDaemon(t); err != nil {
		t.Fatal(err)
	}
	h := harness.New(t)
	h.Setenv("NIX_REMOTE", "daemon")
	h.NixFiles("nix")
	h.Own("my-project")
	write := func(greeting string) string {
		h.MakeDir("My_Project")
		return filepath.Dir(h.Write("My_Project/configuration.nix", fmt.Sprintf(classic, p.Nixpkgs, p.Debian, greeting), 0o644))
	}
	folder := write("first")
	greets := func(want string) {
		t.Helper()
		if got := h.Must("exec", folder, "cat", "/run/greeting"); got != want {
			t.Errorf("the greeting is %q, not %q", got, want)
		}
	}

	// Bad input first: nothing is there yet that it could spoil.
	r := h.Nuc("up", folder, "--nixpkgs", h.Dir)
	if r.Code != 1 || !strings.Contains(r.Stderr, "no nixos/lib/eval-config.nix") {
		t.Errorf("--nixpkgs of another folder: %s", r)
	}

	r = h.Nuc("build", folder, "--nixpkgs", p.Nixpkgs)
	built := strings.TrimSpace(r.Stdout)
	if r.Code != 0 || !strings.HasPrefix(built, "/nix/store/") || !strings.Contains(r.Stderr, "nixpkgs: "+p.Nixpkgs+" (--nixpkgs)") {
		t.Fatalf("%s", r)
	}
	h.Must("validate", built)

	foreground := h.Start("start", folder, "--nixpkgs", p.Nixpkgs)
	h.WaitState("my-project", patience, "ready")
	greets("first")
	h.Must("stop", folder)
	if r := foreground.Wait(patience); r.Code != 0 {
		t.Errorf("%s", r)
	}

	// What --nixpkgs said is not asked for again; here NIX_PATH says it.
	h.Setenv("NIX_PATH", "nixpkgs="+p.Nixpkgs)
	if r := h.Nuc("up", folder); r.Code != 0 || !strings.Contains(r.Stderr, "nixpkgs: "+p.Nixpkgs+" (NIX_PATH)") {
		t.Fatalf("%s", r)
	}
	isRunning(t, h, "my-project")
	if r := h.NucInput("cat /run/greeting\n", "login", folder); r.Code != 0 || r.Stdout != "first\n" {
		t.Errorf("login by folder: %s", r)
	}

	// Nix in there is a client of the host's daemon.
	r = h.Exec("my-project", "bash", "-lc", "echo made in the container >/tmp/added && nix-store --add /tmp/added")
	if added, err := os.ReadFile(strings.TrimSpace(r.Stdout)); err != nil || string(added) != "made in the container\n" {
		t.Errorf("%v: %s", err, r)
	}

	write("second")
	if r := h.Nuc("switch", folder); r.Code != 0 || !strings.Contains(r.Stdout, "generation 2") {
		t.Errorf("%s", r)
	}
	greets("second")

	// A failing build and a failing evaluation leave it alone.
	for name, text := range map[string]string{
		"evaluation": "{ }: syntax error",
		"build":      fmt.Sprintf(classic, p.Nixpkgs, p.Debian, "x") + "// { system.build = throw ''no''; }",
		"assertion":  strings.Replace(fmt.Sprintf(classic, p.Nixpkgs, p.Debian, "x"), "  systemd.", "  swapDevices = [ { device = \"/swap\"; } ];\n  systemd.", 1),
	} {
		h.Write("My_Project/configuration.nix", text, 0o644)
		if r := h.Nuc("switch", folder); r.Code != 1 || !strings.Contains(r.Stderr, "nothing was changed") {
			t.Errorf("%s: %s", name, r)
		} else if name == "assertion" && !strings.Contains(r.Stderr, "swapDevices can't be used in a container") {
			t.Errorf("%s: %s", name, r)
		}
	}
	greets("second")
	h.Must("rollback", folder)
	greets("first")
}
