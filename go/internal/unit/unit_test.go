package unit

import (
	"os"
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
