package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// project is a flake with nuc's functions in it, and no nixpkgs. Its system is
// real in all that nuc sees of one: store paths with references, an init in the
// store, a switch program. What they execute is the Debian tree's.
const project = `{
  outputs = _:
    let
      nuc = import ./nuc { };
      system = "%s";
      sh = name: script: derivation {
        inherit name system;
        builder = "/bin/sh";
        args = [ "-ec" script ];
        PATH = "/usr/bin:/bin";
      };
      greeting = sh "greeting" "echo %s >$out";
      toplevel = sh "nixos-system-web" ''
        mkdir -p $out/bin
        printf '#!/bin/sh\nexec /sbin/init\n' >$out/init
        printf '#!/bin/sh\necho "$1: $(cat ${greeting})"\n' >$out/bin/switch-to-configuration
        chmod +x $out/init $out/bin/switch-to-configuration
      '';
      descriptor = nuc.mkDescriptor {
        name = "web";
        system = {
          init = "${toplevel}/init";
          toplevel = "${toplevel}";
          switch = [ "${toplevel}/bin/switch-to-configuration" "switch" ];
          ttyGroup = 5;
        };
        root.tree = "%s";
        mounts = [ { source = "/nix/store"; target = "/nix/store"; readOnly = true; } ];
      };
    in
    {
      # Not the name that the container itself bears.
      nucContainers.${system}.site.descriptor = derivation {
        name = "nuc-web.json";
        inherit system descriptor;
        passAsFile = [ "descriptor" ];
        builder = "/bin/sh";
        args = [ "-ec" "/bin/cat $descriptorPath >$out" ];
      };
    };
}
`

// TestFlake has a flake in a folder whose path no URL takes as it stands, with
// the host's Nix and with the newest one.
func TestFlake(t *testing.T) {
	switch err := harness.NixDaemon(t); {
	case err != nil && os.Geteuid() == 0:
		t.Fatal(err)
	case err != nil:
		t.Skip(err)
	}
	t.Run("host", func(t *testing.T) { flake(t, harness.New(t), false) })
	t.Run("newest", func(t *testing.T) {
		h := harness.New(t)
		h.Setenv("PATH", h.NewestNix()+":"+path)
		flake(t, h, true)
	})
}

// path is the commands' PATH.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func flake(t *testing.T, h *harness.H, newest bool) {
	h.Setenv("NIX_REMOTE", "daemon")
	// As Nix is installed: nuc turns flakes on for its own commands.
	h.Setenv("NIX_CONFIG", "experimental-features =")
	h.Logf("%s", h.Host("nix", "--version"))
	repository, place := filepath.Join(h.Dir, "100% & é"), "100% & é/my project? #1"
	folder := filepath.Join(h.Dir, place)
	h.NixFiles(place + "/nuc")
	tree := h.Tree("trixie")
	write := func(greeting string) {
		h.Write(place+"/flake.nix", fmt.Sprintf(project, harness.NixSystem(t), greeting, tree), 0o644)
	}
	h.Own("web")

	write("first")
	// What was only built is kept, and removed, as well.
	h.Must("build", folder+"#site")
	h.Must("rm", "web")
	if left, err := os.ReadDir(filepath.Join(h.State, "nuc")); err != nil || len(left) > 0 {
		h.Errorf("after nuc rm of what was only built there is %v, %v", left, err)
	}
	h.Must("up", folder+"#site")
	toplevel := h.Must("inspect", "web", "--query", "system.toplevel")
	if !strings.HasPrefix(toplevel, "/nix/store/") {
		h.Fatalf("system.toplevel is %q, no store path", toplevel)
	}
	if got := h.Must("exec", folder, "sh", "-c", toplevel+"/bin/switch-to-configuration test"); got != "test: first" {
		h.Errorf("the container doesn't see the system's closure: %q", got)
	}
	// Its referrer goes first, which names it.
	deletable := func() bool {
		r := h.Host("nix-store", "--query", "--referrers-closure", toplevel)
		r = h.Host("nix-store", append([]string{"--delete"}, strings.Fields(r.Stdout)...)...)
		h.Logf("%s", r)
		return r.Code == 0
	}
	root := func(generation string) func() bool {
		return func() bool {
			entries, _ := filepath.Glob(filepath.Join(h.State, "nuc/web/generations", generation+".root*"))
			return len(entries) > 0
		}
	}
	harness.Eventually(h, patience, "the generation is a root of the garbage collector", root("1"))
	if r := h.Host("nix-store", "--delete", toplevel); r.Code == 0 {
		h.Fatal("Nix could collect the running container's system")
	}

	// Unchanged, all containers of the folder, by the folder's name.
	if r := h.Nuc("up", folder); r.Code != 0 || !strings.Contains(r.Stdout, "web: ready") || strings.Contains(r.Stderr, "building") {
		h.Errorf("up of an unchanged flake:\n%s", r)
	}
	write("second")
	// In a repository, which Nix before 2.19 can't read, and by a name that is
	// Nix's own.
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}} {
		if r := h.Host("git", append([]string{"-C", repository}, args...)...); r.Code != 0 {
			h.Fatalf("%s", r)
		}
	}
	below := repository + "?dir=my%20project%3F%20%231#site"
	if r := h.Nuc("build", below); (r.Code != 0 || !strings.HasPrefix(r.Stdout, "/nix/store/")) &&
		(newest || !strings.Contains(r.Stderr, "use Nix 2.19 or later")) {
		h.Errorf("build of a flake in a repository:\n%s", r)
	}
	if err := os.RemoveAll(filepath.Join(repository, ".git")); err != nil {
		h.Fatal(err)
	}
	if r := h.Nuc("build", below); r.Code != 0 {
		h.Errorf("build of a flake by its folder's parent:\n%s", r)
	}
	awaitConfinement(h, "web")
	r := h.Nuc("switch", "web")
	harness.Eventually(h, patience, "a confined supervisor has the new generation made a root", root("2"))
	if r.Code != 0 || !strings.Contains(r.Stdout, "switch: second") || !strings.Contains(r.Stdout, "generation 2") {
		h.Errorf("switch to a changed flake:\n%s", r)
	}
	if r := h.Nuc("diff", "web"); r.Code != 0 || !strings.Contains(r.Stdout, "system.toplevel") {
		h.Errorf("diff:\n%s", r)
	}
	if r := h.Nuc("rollback", "web"); r.Code != 0 || !strings.Contains(r.Stdout, "switch: first") {
		h.Errorf("rollback:\n%s", r)
	}

	h.MakeDir("bad")
	newer := h.Write("bad/newer.json", `{"version":2,"name":"web","system":{"init":"/sbin/init"}}`, 0o600)
	lost := "/nix/store/00000000000000000000000000000000-nixos-system-web"
	collected := h.Write("bad/collected.json", fmt.Sprintf(`{"version":1,"name":"web","system":{"init":"%[1]s/init","toplevel":"%[1]s","switch":["%[1]s/bin/switch-to-configuration","switch"]},
		"root":{"tree":%q},"mounts":[{"source":"/nix/store","target":"/nix/store","readOnly":true}]}`, lost, tree), 0o600)

	// What can be wrong leaves the running container alone.
	for _, bad := range []struct {
		name, flake string
		args        []string
		want        []string
	}{
		{"mistyped", "", []string{"up", folder + "#sit"}, []string{"did you mean #site"}},
		{"no flake", "", []string{"up", h.Dir}, []string{"flake.nix", "configuration.nix"}},
		{"newer nuc", "", []string{"switch", newer}, []string{"version: 2", "upgrade nuc"}},
		{"collected", "", []string{"switch", collected}, []string{lost, "not in the store", "nothing was changed"}},
		{"collected path", "", []string{"switch", lost + ".json"}, []string{"no such file"}},
		{"build failure", "third; exit 1; :", []string{"switch", "web"}, []string{"nix build failed", "nothing was changed"}},
		{"syntax", "${", []string{"switch", "web"}, []string{"nix build failed", "nothing was changed"}},
	} {
		if bad.flake != "" {
			write(bad.flake)
		}
		r := h.Nuc(bad.args...)
		for _, want := range bad.want {
			if r.Code != 1 || !strings.Contains(r.Stderr, want) {
				h.Errorf("%s: want status 1 and %q:\n%s", bad.name, want, r)
			}
		}
	}
	write("first")
	before := h.Getenv("PATH")
	h.Setenv("PATH", "/nowhere")
	if r := h.Nuc("switch", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "nix is not on PATH") {
		h.Errorf("without nix: want one line that says so:\n%s", r)
	}
	h.Setenv("PATH", before)
	if status := h.Status("web"); status != "ready" {
		h.Errorf("after all that, web is %q", status)
	}

	h.Must("stop", "web")
	time.Sleep(1100 * time.Millisecond) // file times count whole seconds somewhere
	if r := h.Nuc("generations", "web", "--delete-older-than", "0m"); r.Code != 0 || !strings.Contains(r.Stdout, "deleted") {
		h.Errorf("delete generations:\n%s", r)
	}
	if list := h.Must("generations", "web", "--json"); strings.Count(list, `"generation"`) != 1 || !strings.Contains(list, `"current": true`) {
		h.Errorf("only the current generation must be left:\n%s", list)
	}
	h.Must("rm", "--state", "--yes", "web")
	if !deletable() {
		h.Errorf("a removed container still keeps %s alive", toplevel)
	}
}
