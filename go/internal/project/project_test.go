package project

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
	if err := errors.Join(os.Mkdir("folder", 0o700), os.Mkdir("folder #1", 0o700)); err != nil {
		t.Fatal(err)
	}
	write(t, "file", "")
	for arg, want := range map[string]bool{
		".": true, "folder": true, ".#web": true, "#web": true, "github:o/r": true, "git+ssh://h/r": true,
		"folder #1": true, "folder #1#web": true, "web#": true,
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
	deep := Project{Folder: top + "/flake/deep", Flake: top + "/flake/deep"}
	write(t, "flake/deep/flake.nix", "")
	write(t, "odd #1/flake.nix", "")
	odd := Project{Folder: top + "/odd #1", Flake: top + "/odd #1"}
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
		{arg: "classic", nixpkgs: "n/../m", want: Project{Folder: top + "/classic", Nixpkgs: top + "/m"}},
		{arg: "odd #1", want: odd},
		{arg: "odd #1#web", want: odd, name: "web"},
		{arg: "flake?dir=deep#web", want: deep, name: "web"},
		{arg: "path:./flake#web", want: Project{Flake: "path:" + escape(top) + "/flake"}, name: "web"},
		{arg: "flake?ref=main#web", err: "only ?dir= is known"},
		{arg: "nixpkgs#web", err: "flake:nixpkgs#web"},
		{arg: "flake", nixpkgs: "/n", err: "leave --nixpkgs out"},
		{arg: "github:o/r", nixpkgs: "/n", err: "leave --nixpkgs out"},
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
	two := []string{"a", "b"}
	got, err := outputs([]byte(`[{"drvPath":"/nix/store/a.drv","outputs":{"out":"/nix/store/a"}},{"outputs":{"out":"/nix/store/b"}}]`), two)
	if err != nil || !slices.Equal(got, []Built{{"a", "/nix/store/a"}, {"b", "/nix/store/b"}}) {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "[]", `[{"outputs":{"dev":"/nix/store/a"}},{"outputs":{"out":"/nix/store/b"}}]`, `[{"outputs":{"out":"/nix/store/a"}}]`, "{"} {
		if got, err := outputs([]byte(bad), two); err == nil {
			t.Errorf("%q gives %q", bad, got)
		}
	}
}

func TestReference(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const odd = "a b%20?c#d&é"
	const escaped = "a%20b%2520%3Fc%23d%26%C3%A9"
	write(t, filepath.Join(top, odd, "flake.nix"), "")
	write(t, filepath.Join(top, "git", odd, ".git/HEAD"), "")
	write(t, filepath.Join(top, "git", odd, "sub "+odd, "flake.nix"), "")
	write(t, filepath.Join(top, "shallow/.git/shallow"), "")
	for folder, want := range map[string]string{
		odd:                                   ".",
		filepath.Join("git", odd):             "git+file://" + escape(top) + "/git/" + escaped,
		filepath.Join("git", odd, "sub "+odd): "git+file://" + escape(top) + "/git/" + escaped + "?dir=sub%20" + escaped,
		"shallow":                             "git+file://" + escape(top) + "/shallow?shallow=1",
	} {
		p := Project{Folder: filepath.Join(top, folder), Flake: filepath.Join(top, folder)}
		if got := p.reference(); got != want {
			t.Errorf("%s is %s, want %s", folder, got, want)
		}
		if got := p.nix("eval").Dir; got != p.Folder {
			t.Errorf("%s: Nix runs in %q", folder, got)
		}
	}
	if got := (Project{Flake: "github:o/r"}).reference(); got != "github:o/r" {
		t.Errorf("a flake elsewhere is %s", got)
	}
}

func TestReadable(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	odd := t.TempDir() + "/a b"
	write(t, odd+"/flake.nix", "")
	for version, refused := range map[string]bool{
		"nix (Nix) 2.8.0": true, "nix (Nix) 2.18.1": true, "nix (Nix) 2.19.0": false, "nix (Nix) 2.34.8": false,
		"nix (Nix) 3.0": false, "nix (Lix, like Nix) 2.93.0": false, "": false, "nix (Nix) 2.18pre20230802_abcdef": true,
	} {
		write(t, bin+"/nix", "#!/bin/sh\necho '"+version+"'\n")
		if err := os.Chmod(bin+"/nix", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := (Project{Folder: odd}).readable(); err != nil {
			t.Errorf("%s: a folder that is no repository: %v", version, err)
		}
		write(t, odd+"/.git/HEAD", "")
		if err := (Project{Folder: odd}).readable(); (err != nil) != refused {
			t.Errorf("%s: %v, want a refusal: %t", version, err, refused)
		}
		if err := os.RemoveAll(odd + "/.git"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAbsolute(t *testing.T) {
	here, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(here)
	for ref, want := range map[string]string{
		"github:o/r": "github:o/r", "path:/a/b": "path:/a/b", "git+file:///a?dir=x": "git+file:///a?dir=x",
		"path:.": "path:" + escape(here), "path:./a": "path:" + escape(here) + "/a", "path:a/../b?dir=c": "path:" + escape(here) + "/b?dir=c",
		"git+file:.?ref=x": "git+file:" + escape(here) + "?ref=x",
	} {
		if got := Absolute(ref); got != want {
			t.Errorf("%s is %s, want %s", ref, got, want)
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
	home := os.Getenv("HOME")
	changes("a file of settings", true, func() { write(t, home+"/.config/nix/nix.conf", "!include more.conf\n") })
	changes("what it includes", true, func() { write(t, home+"/.config/nix/more.conf", "x = y\n") })
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
	one := Built{Name: "web", Path: folder}
	b.remember("key", []Built{one})
	if got := b.remembered("key"); !slices.Equal(got, []Built{one}) {
		t.Errorf("remembered: %q", got)
	}
	b.remember("key", []Built{one, {Path: folder + "/collected"}})
	if got := b.remembered("key"); got != nil {
		t.Errorf("a path that is gone is remembered: %q", got)
	}
}

func TestForget(t *testing.T) {
	b := &Builder{Cache: t.TempDir()}
	built := []Built{{Name: "web", Path: b.Cache}}
	for i := range memories + 5 {
		key := fmt.Sprint(i)
		b.remember(key, built)
		when := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(b.memory(key), when, when); err != nil {
			t.Fatal(err)
		}
		if i == memories-1 && b.remembered("0") == nil {
			t.Error("the first is forgotten before there are too many")
		}
	}
	if entries, err := os.ReadDir(filepath.Join(b.Cache, "builds")); err != nil || len(entries) != memories {
		t.Errorf("%d are kept, %v", len(entries), err)
	}
	if b.remembered("0") == nil {
		t.Error("one that was asked for lately is forgotten")
	}
	if b.remembered("1") != nil || b.remembered(fmt.Sprint(memories+4)) == nil {
		t.Error("not the oldest were forgotten")
	}
}

func TestSettings(t *testing.T) {
	environment := map[string]string{"HOME": "/home/ana"}
	getenv := func(name string) string { return environment[name] }
	if got := settings(getenv); !slices.Equal(got, []string{"/etc/nix/nix.conf", "/home/ana/.config/nix/nix.conf", "/etc/xdg/nix/nix.conf"}) {
		t.Errorf("%q", got)
	}
	environment["NIX_CONF_DIR"], environment["NIX_USER_CONF_FILES"] = "/conf", "/a:/b"
	if got := settings(getenv); !slices.Equal(got, []string{"/conf/nix.conf", "/a", "/b"}) {
		t.Errorf("%q", got)
	}
}
