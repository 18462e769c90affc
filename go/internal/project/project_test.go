package project

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestIs(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("folder", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, "file", "")
	for arg, want := range map[string]bool{
		".": true, "folder": true, ".#web": true, "#web": true, "github:o/r": true, "git+ssh://h/r": true,
		"file": false, "web": false, "./file": false, "/none": false, "./a:b": false, ":": false,
	} {
		if got := Is(arg); got != want {
			t.Errorf("%q is a project: %t, want %t", arg, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(top)
	write(t, "flake/flake.nix", "")
	write(t, "both/flake.nix", "")
	write(t, "both/configuration.nix", "")
	write(t, "classic/configuration.nix", "")
	write(t, "empty/other.nix", "")
	if err := os.Symlink("flake", "link"); err != nil {
		t.Fatal(err)
	}
	flake := Project{Folder: top + "/flake", Flake: top + "/flake"}
	tests := []struct {
		arg, nixpkgs string
		want         Project
		name, err    string
	}{
		{arg: "flake#web", want: flake, name: "web"},
		{arg: "link", want: flake},
		{arg: "./both", want: Project{Folder: top + "/both", Flake: top + "/both"}},
		{arg: "github:o/r#web", want: Project{Flake: "github:o/r"}, name: "web"},
		{arg: "classic", nixpkgs: "/n", want: Project{Folder: top + "/classic", Nixpkgs: "/n"}},
		{arg: "flake", nixpkgs: "/n", err: "leave --nixpkgs out"},
		{arg: "classic#web", err: "no flake.nix"},
		{arg: "empty", err: "neither a flake.nix, a configuration.nix nor a descriptor"},
		{arg: "none", err: "no such folder"},
		{arg: "empty/other.nix", err: "is no folder"},
	}
	for _, test := range tests {
		got, name, err := Find(test.arg, test.nixpkgs)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s: %v, want %q", test.arg, err, test.err)
			}
			continue
		}
		if err != nil || got != test.want || name != test.name {
			t.Errorf("%s: %+v %q, %v, want %+v %q", test.arg, got, name, err, test.want, test.name)
		}
	}
}

func TestContainerName(t *testing.T) {
	for folder, want := range map[string]string{
		"/home/ana/cont1": "cont1", "/srv/My Shop": "my-shop", "/a/_x_": "x", "/": "container", "/a/ÄÖ": "container",
		"/a/" + strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		if got := ContainerName(folder); got != want {
			t.Errorf("%s is %s, want %s", folder, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for name, want := range map[string]string{"web": `"web"`, `a"b\c`: `"a\"b\\c"`, "${x}": `"\${x}"`} {
		if got := quote(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestOutputs(t *testing.T) {
	got, err := outputs([]byte(`[{"drvPath":"/nix/store/a.drv","outputs":{"out":"/nix/store/a"}},{"outputs":{"out":"/nix/store/b"}}]`))
	if err != nil || !slices.Equal(got, []string{"/nix/store/a", "/nix/store/b"}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "[]", `[{"outputs":{"dev":"/nix/store/a"}}]`, "{"} {
		if got, err := outputs([]byte(bad)); err == nil {
			t.Errorf("%q gives %q", bad, got)
		}
	}
}

// TestKey: whatever Nix would read changes the key, and nothing else does.
func TestKey(t *testing.T) {
	bin := t.TempDir()
	write(t, bin+"/nix", "#!/bin/sh\n")
	if err := os.Chmod(bin+"/nix", 0o700); err != nil {
		t.Fatal(err)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+filepath.Dir(git))
	t.Setenv("HOME", t.TempDir())
	folder := t.TempDir()
	b := &Builder{Cache: t.TempDir()}
	p := Project{Folder: folder, Flake: folder}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("git", append([]string{"-C", folder}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
	}
	last := ""
	changes := func(what string, want bool, change func()) {
		t.Helper()
		change()
		key := b.key(p, "web")
		if key == "" || (key != last) != want {
			t.Errorf("%s: the key changes: %t, want %t (%q)", what, key != last, want, key)
		}
		last = key
	}
	changes("the first", true, func() { write(t, folder+"/flake.nix", "1") })
	changes("nothing", false, func() {})
	changes("content", true, func() { write(t, folder+"/flake.nix", "2") })
	changes("a new file", true, func() { write(t, folder+"/sub/new.nix", "") })
	changes("mode", true, func() { _ = os.Chmod(folder+"/sub/new.nix", 0o700) })
	changes("a link", true, func() { _ = os.Symlink("a", folder+"/link") })
	changes("the link's target", true, func() { _ = os.Remove(folder + "/link"); _ = os.Symlink("b", folder+"/link") })
	changes("a lock file", true, func() {
		write(t, folder+"/flake.lock", `{"root":"root","nodes":{"root":{},"nixpkgs":{"locked":{"type":"github","rev":"1"}}}}`)
	})
	changes("a folder of this machine that is locked by its content", true, func() {
		write(t, folder+"/flake.lock", `{"root":"root","nodes":{"root":{},"mine":{"locked":{"type":"path","path":"/home/ana/mine","narHash":"sha256-1"}}}}`)
	})
	changes("a setting of Nix", true, func() { t.Setenv("NIX_CONFIG", "x = y") })
	if other := b.key(p, "db"); other == last {
		t.Error("two containers have one key")
	}
	changes("a repository", true, func() { run("init", "-q"); run("add", "-A") })
	changes("an untracked file", false, func() { write(t, folder+"/untracked", "") })
	changes("a changed tracked file", true, func() { write(t, folder+"/flake.nix", "3") })
	changes("a commit", true, func() { run("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "one") })

	write(t, folder+"/flake.lock", `{"root":"root","nodes":{"root":{},"mine":{"locked":{"type":"path","path":"./mine"}}}}`)
	if key := b.key(p, "web"); key != "" {
		t.Error("a flake with an input that nothing pins has a key")
	}
	write(t, folder+"/flake.lock", "{}")
	b.remember("key", []string{folder})
	if got := b.remembered("key"); !slices.Equal(got, []string{folder}) {
		t.Errorf("remembered: %q", got)
	}
	b.remember("key", []string{folder, folder + "/collected"})
	if got := b.remembered("key"); got != nil {
		t.Errorf("a path that is gone is remembered: %q", got)
	}
}
