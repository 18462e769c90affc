package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// standIn puts a Debian tree into a store of the user's own, in place of the
// system that a binary cache would give, and has Nix write its descriptor. It
// prints the descriptor's and the system's store paths.
const standIn = `set -eu
	export NIX_CONFIG='build-users-group =
experimental-features = nix-command flakes
substituters ='
	nix="nix --store $PWD/store"
	mkdir system
	tar --extract --no-same-owner --directory system --file system.tar
	rm system.tar
	# The cluster belongs to another id, which nothing in a store does.
	rm -rf system/usr/lib/systemd/system/postgresql*
	descriptor=$($nix eval --impure --raw --expr '
		let
			toplevel = "${builtins.path { path = ./system; name = "nixos-system-stand-in"; }}";
			store = toString ./store;
		in
		builtins.toFile "nuc-stand-in.json" ((import ./descriptor.nix).mkDescriptor {
			name = "stand-in";
			system = { init = "/usr/lib/systemd/systemd"; inherit toplevel; };
			root = { tree = store + toplevel; ephemeral = true; };
			mounts = [ { source = "${store}/nix/store"; target = "/nix/store"; readOnly = true; } ];
			network.ports = [ { host = %d; container = 80; } ];
			ready.units = [ "nginx.service" ];
		})')
	chmod -R u+w system
	rm -rf system
	$nix build --out-link root "$descriptor"
	# What the root doesn't reach would go.
	$nix store gc 2>/dev/null
	$nix path-info --recursive "$descriptor"`

// TestDescriptorOfNix boots a system from real store paths.
func TestDescriptorOfNix(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	for _, name := range []string{"check", "descriptor", "rules", "schema"} {
		text, err := os.ReadFile(filepath.Join(harness.Repository(t), "nix", "lib", name+".nix"))
		if err != nil {
			t.Fatal(err)
		}
		h.Write(name+".nix", string(text), 0o600)
	}
	args := []string{"unshare", "--", "tar", "--create", "--file", filepath.Join(h.Dir, "system.tar"), "--directory", h.Tree("trixie")}
	// A quarter of the tree is what systemd and nginx need.
	for _, heavy := range []string{
		"lib/postgresql", "lib/*/libLLVM*", "lib/*/libicu*", "lib/*/libz3*", "lib/*/gconv", "lib/*/perl",
		"share/doc", "share/i18n", "share/locale", "share/man", "share/perl", "share/postgresql", "share/zoneinfo",
	} {
		args = append(args, "--exclude=./usr/"+heavy)
	}
	h.Must(append(args, "--exclude=./var/lib/postgresql", ".")...)
	port := harness.FreePort(t)
	r := h.Host("sh", "-c", fmt.Sprintf(standIn, port))
	if r.Code != 0 {
		t.Fatalf("%s", r)
	}
	var descriptor, toplevel string
	for _, path := range strings.Fields(r.Stdout) {
		switch {
		case strings.HasSuffix(path, "-nuc-stand-in.json"):
			descriptor = filepath.Join(h.Dir, "store", path)
		case strings.HasSuffix(path, "-nixos-system-stand-in"):
			toplevel = path
		}
	}
	if descriptor == "" || toplevel == "" {
		t.Fatalf("the closure lacks the descriptor or its system:\n%s", r.Stdout)
	}

	h.Own("stand-in")
	h.Must("validate", descriptor)
	h.Must("up", descriptor)
	h.Must("exec", "stand-in", "test", "-x", toplevel+"/usr/lib/systemd/systemd")
	if r := h.Exec("stand-in", "touch", "/nix/store/new"); r.Code == 0 {
		t.Error("the store can be written")
	}
	if r := h.Host("curl", "--silent", "--fail", fmt.Sprintf("http://127.0.0.1:%d", port)); r.Code != 0 {
		t.Errorf("%s", r)
	}
	h.Must("stop", "stand-in")
}
