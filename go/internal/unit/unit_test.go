package unit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestArguments(t *testing.T) {
	got := Service{
		Name: "nuc-web.service", Description: "nuc container web, 100%",
		Properties: []string{"KillMode=mixed"}, Environment: []string{"PATH=/bin:/usr/bin"},
		Command: []string{"/opt/a$b/nuc", "role"},
	}.Arguments()
	want := []string{
		"--user", "--quiet", "--collect", "--unit=nuc-web.service", "--description=nuc container web, 100%",
		"--service-type=exec", "--property=KillMode=mixed", "--setenv=PATH=/bin:/usr/bin",
		"--working-directory=/", "--", "/opt/a$$b/nuc", "role",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

func TestNoManager(t *testing.T) {
	if m := Of("/tmp/nuc", os.Getuid()); m != nil {
		t.Errorf("found for another runtime folder: %+v", m)
	}
	if m := Find(4294967294); m != nil {
		t.Errorf("a systemd of nobody's: %+v", m)
	}
}

func TestFile(t *testing.T) {
	got := string(Service{
		Name: "nuc-web.service", Description: "nuc container web", Notify: true,
		Properties: []string{"KillMode=mixed"}, After: []string{"nuc-db.service", "nuc-mail.service"},
		Environment: []string{"PATH=/bin:/a \"b\" 50%\\"}, Command: []string{"/opt/a$b/nuc", "role", "web"},
	}.File())
	want := "# Made by `nuc enable`, and made anew by it and by `nuc up`.\n" + `[Unit]
Description=nuc container web
Wants=nuc-db.service nuc-mail.service
After=nuc-db.service nuc-mail.service

[Service]
Type=notify
KillMode=mixed
Environment="PATH=/bin:/a \"b\" 50%%\\"
ExecStart="/opt/a$$b/nuc" "role" "web"

[Install]
WantedBy=default.target
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestDeclared asks a systemctl that has found a unit's file somewhere.
func TestDeclared(t *testing.T) {
	top := t.TempDir()
	folder := filepath.Join(top, "config")
	m := &Manager{Runtime: "/run/user/1", Control: filepath.Join(top, "systemctl")}
	s := Service{Name: "nuc-web.service", Command: []string{"/bin/true"}}
	path := filepath.Join(folder, s.Name)
	found := func(fragment string) {
		t.Helper()
		script := "#!/bin/sh\n[ \"$*\" = '--user show --property=FragmentPath --value nuc-web.service' ] && echo '" + fragment + "'\n"
		if err := os.WriteFile(m.Control, []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	want := func(want string) {
		t.Helper()
		if got := m.Declared(folder, s.Name); got != want {
			t.Errorf("declared in %q, want %q", got, want)
		}
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	found("")
	want("")
	found("/run/user/1/systemd/transient/nuc-web.service")
	want("")
	found("/etc/systemd/user/nuc-web.service")
	want("/etc/systemd/user/nuc-web.service")

	// A link, also while a transient unit of that name runs.
	found("/run/user/1/systemd/transient/nuc-web.service")
	if err := os.Symlink("/nix/store/x-home/nuc-web.service", path); err != nil {
		t.Fatal(err)
	}
	want(path)
	if Enabled(folder, s.Name) {
		t.Error("a link is taken for nuc's own file")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("[Service]\nExecStart=/bin/true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(path)
	if Enabled(folder, s.Name) {
		t.Error("a file of the user's is taken for nuc's own")
	}
	if err := os.WriteFile(path, s.File(), 0o600); err != nil {
		t.Fatal(err)
	}
	want("")
	if !Enabled(folder, s.Name) {
		t.Error("nuc's own file is not known")
	}
}

func TestFolder(t *testing.T) {
	for _, test := range []struct{ home, config, want string }{
		{"/home/ana", "", "/home/ana/.config/systemd/user"},
		{"/home/ana", "/srv/config", "/srv/config/systemd/user"},
		{"/home/ana", "config", "/home/ana/.config/systemd/user"},
	} {
		got := Folder(func(name string) string {
			return map[string]string{"HOME": test.home, "XDG_CONFIG_HOME": test.config}[name]
		})
		if got != test.want {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestNotifyArguments(t *testing.T) {
	got := Service{Name: "a.service", Notify: true, Command: []string{"/bin/true"}}.Arguments()
	for _, want := range []string{"--service-type=notify", "--no-block"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
}
