package vm

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// noFailed fails the test if systemd calls a unit of nuc's failed.
func noFailed(t testing.TB, s *session) {
	t.Helper()
	if got := s.must(t, "systemctl --user list-units --all --failed --plain --no-legend 'nuc-*'"); got != "" {
		t.Errorf("failed units:\n%s", got)
	}
}

// stopped fails the test unless a container powered off.
func stopped(t testing.TB, s *session, name string) {
	t.Helper()
	if st := s.status(t, name); st.State != "stopped" || st.Reason != "powered off" {
		t.Errorf("the container did not power off: %+v", st)
	}
	noFailed(t, s)
}

func property(t testing.TB, s *session, unit, name string) string {
	t.Helper()
	return s.must(t, "systemctl --user show -P "+name+" "+unit)
}

// TestUnits has a container as a service of the user's systemd.
func TestUnits(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("a"))
	for name, want := range map[string]string{
		"ActiveState": "active", "Type": "notify", "Slice": "nuc.slice", "StatusText": "ready",
		"MainPID": fmt.Sprint(ana.status(t, "a").SupervisorPid),
	} {
		if got := property(t, ana, "nuc-a", name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	ana.eventually(t, patience, "journalctl --user -b -o cat -u nuc-a | grep -q 'Welcome to'")

	ana.must(t, "nuc link - 9000 a 80")
	t.Cleanup(func() { ana.run(t, "nuc unlink --all") })
	const link = "nuc-link-host-9000-a-80"
	pid := property(t, ana, link, "MainPID")
	if r := ana.run(t, "systemctl --user stop nuc-a"); r.code != 0 || r.took > patience {
		t.Errorf("%s", r)
	}
	stopped(t, ana, "a")
	m.root.must(t, "! pgrep -u ana -f 'nuc-(keeper|supervisor) '")
	if got := property(t, ana, link, "MainPID"); got != pid || got == "0" {
		t.Errorf("the link's process was %s and is %s", pid, got)
	}

	ana.must(t, "nuc up a && nuc stop a")
	stopped(t, ana, "a")
	ana.must(t, "nuc up a && kill $(systemctl --user show -P MainPID nuc-a)")
	ana.eventually(t, patience, "test $(systemctl --user show -P LoadState nuc-a) = not-found")
	stopped(t, ana, "a")
	ana.must(t, "nuc up a && nuc kill a")
	noFailed(t, ana)
	// Of many, one start is the one.
	ana.must(t, "nuc up a & nuc up a & nuc up a & wait %1 && wait %2 && wait %3")
	// One that is still starting.
	ana.must(t, "nuc stop a && nuc up --no-wait a && systemctl --user stop nuc-a")
	noFailed(t, ana)
}

// TestEnable has containers started by the user's systemd: on demand, at boot
// and, where it does not linger, at login. One that isn't enabled ends with the
// machine.
func TestEnable(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	if r := ana.run(t, "nuc enable a"); r.code != 1 || r.stdout != "" {
		t.Errorf("%s", r)
	} else {
		one(t, r.stderr)
	}
	ana.up(t, small("db"))
	ana.up(t, small("a").with("dependsOn", []string{"db"}))
	r := ana.run(t, "nuc enable a")
	if r.code != 0 || !strings.Contains(r.stderr, "loginctl enable-linger ana") {
		t.Errorf("%s", r)
	}
	ana.must(t, "nuc stop a db")
	ana.eventually(t, patience, "test \"$(systemctl --user is-enabled nuc-a nuc-db | tr '\\n' ' ')\" = 'enabled enabled '")
	stopped(t, ana, "a")
	// It is up when systemctl returns, and so is what it depends on.
	ana.must(t, "systemctl --user start nuc-a")
	for _, name := range []string{"a", "db"} {
		if st := ana.status(t, name); st.State != "ready" || fmt.Sprint(st.SupervisorPid) != property(t, ana, "nuc-"+name, "MainPID") {
			t.Errorf("%+v", st)
		}
	}
	ana.must(t, "nuc stop a && nuc up a && nuc stop a")
	ana.must(t, "nuc up "+ana.describe(t, small("a").with("dependsOn", []string{"db"}).with("system",
		map[string]any{"init": "/sbin/init", "arguments": []string{"--unit=basic.target"}, "stop": map[string]any{"timeoutSeconds": 50}})))
	if got := property(t, ana, "nuc-a", "TimeoutStopUSec"); got != "1min 5s" {
		t.Errorf("after up with another descriptor, TimeoutStopSec is %s", got)
	}
	stopping := property(t, ana, "nuc-a", "MainPID")

	t.Run("logout", func(t *testing.T) {
		ana.close()
		m.root.eventually(t, 2*patience, "! test -d /run/user/1000")
		m.nothingLeft(t)
		ana = m.login(t, "ana")
		ana.eventually(t, 2*patience, "systemctl --user is-active nuc-a nuc-db")
		if got := property(t, ana, "nuc-a", "MainPID"); got == stopping {
			t.Errorf("process %s outlived the logout", got)
		}
	})
	m.root.must(t, "loginctl enable-linger ana")
	if r := ana.run(t, "nuc enable a"); r.code != 0 || r.stderr != "" {
		t.Errorf("no hint is needed: %s", r)
	}
	ana.up(t, small("other"))
	ana.must(t, "nuc exec other touch /etc/written")
	for range 2 {
		began := time.Now()
		m.root.run(t, "systemctl reboot")
		m.off(t, 2*time.Minute)
		t.Logf("shut down in %s", time.Since(began).Round(time.Second))
		m.up(t)
		// Nobody has logged in.
		m.root.eventually(t, 2*patience, "test $(pgrep -cu ana -f nuc-keeper) = 2")
		ana = m.login(t, "ana")
		ana.eventually(t, 2*patience, "systemctl --user is-active nuc-a nuc-db")
		ana.must(t, "nuc exec a true && journalctl --user -b -1 -o cat -u nuc-a | grep -q 'Stopped\\|Deactivated'")
		stopped(t, ana, "other")
	}
	ana.must(t, "nuc up other && nuc exec other test -e /etc/written")
	ana.must(t, "nuc disable a && nuc exec a true && nuc stop a && nuc rm a")
	if got := property(t, ana, "nuc-a", "LoadState"); got != "not-found" {
		t.Errorf("after disable the unit is %s", got)
	}
}

// declaration is a unit as home-manager makes it of a container.
const declaration = `[Unit]
Description=Container a

[Service]
ExecStart="/usr/local/bin/nuc" start "/home/ana/my 100%% shop/a.json"
Environment=PATH=/run/wrappers/bin:%h/.nix-profile/bin:/usr/bin:/bin
Delegate=true
KillMode=mixed
TimeoutStopSec=120
Restart=on-failure
RestartSec=1
`

// TestDeclared has a container whose unit is a link to a file of home-manager's:
// nuc starts it as that unit, and leaves the file alone.
func TestDeclared(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	at := ana.describe(t, small("a"))
	ana.must(t, fmt.Sprintf("mkdir -p declared .config/systemd/user '/home/ana/my 100%% shop' && cp %s '/home/ana/my 100%% shop/a.json'", at))
	ana.put(t, "/home/ana/declared/nuc-a.service", declaration)
	const link = "/home/ana/.config/systemd/user/nuc-a.service"
	ana.must(t, "ln -s /home/ana/declared/nuc-a.service "+link+" && systemctl --user daemon-reload")
	t.Cleanup(func() {
		ana.run(t, "systemctl --user stop nuc-a; rm -rf "+link+" declared 'my 100% shop'; systemctl --user daemon-reload; systemctl --user reset-failed")
	})
	same := func(what string) {
		t.Helper()
		st := ana.status(t, "a")
		if pid := property(t, ana, "nuc-a", "MainPID"); st.State != "ready" || fmt.Sprint(st.SupervisorPid) != pid {
			t.Errorf("%s: process %s is the unit's, and the container is %+v", what, pid, st)
		}
	}
	quick := func(command string) {
		t.Helper()
		if r := ana.run(t, command); r.code != 0 || r.took > patience {
			t.Errorf("%s", r)
		}
		same(command)
	}
	quick("nuc up '/home/ana/my 100% shop/a.json'")
	quick("nuc up a")
	quick("nuc restart a")
	for _, command := range []string{"enable", "disable"} {
		r := ana.run(t, "nuc "+command+" a")
		if r.code != 1 || !strings.Contains(r.stderr, link) {
			t.Errorf("%s", r)
		}
		one(t, r.stderr)
	}
	ana.must(t, "nuc stop a")
	stopped(t, ana, "a")
	if r := ana.run(t, "nuc enable a"); r.code != 1 || !strings.Contains(r.stderr, link) {
		t.Errorf("enabling it while it is stopped: %s", r)
	}
	quick("nuc up a")
	ana.must(t, "nuc kill a && sleep 3")
	if got := property(t, ana, "nuc-a", "ActiveState"); got != "inactive" && got != "failed" {
		t.Errorf("three seconds after a kill the unit is %s", got)
	}
	ana.must(t, "systemctl --user start nuc-a")
	ana.eventually(t, patience, "nuc status a")
	same("systemctl start")
	ana.must(t, "nuc stop a && nuc rm --state --yes a && test -L "+link)

	// One that can't come up says so, and where to look.
	ana.must(t, "rm '/home/ana/my 100% shop/a.json' && systemctl --user reset-failed nuc-a; true")
	r := ana.run(t, "nuc up "+at)
	if r.code != 1 || r.took > patience || !strings.Contains(r.stderr, "journalctl --user -u nuc-a") {
		t.Errorf("%s", r)
	}
}

// TestRestart kills a supervisor: systemd starts it again, and the container.
func TestRestart(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("a").with("restart", "on-failure"))
	before := ana.status(t, "a")
	ana.must(t, fmt.Sprintf("kill -9 %d", before.SupervisorPid))
	ana.eventually(t, 2*patience, "nuc status a")
	after := ana.status(t, "a")
	if after.State != "ready" || after.InitPid == before.InitPid || fmt.Sprint(after.SupervisorPid) != property(t, ana, "nuc-a", "MainPID") {
		t.Errorf("%+v, before it was %+v", after, before)
	}
	ana.must(t, "nuc exec a true")
	// What systemd is about to start again is stopped as well.
	ana.must(t, fmt.Sprintf("kill -9 %d; sleep 0.3; nuc stop a", after.SupervisorPid))
	ana.eventually(t, patience, "test $(systemctl --user show -P ActiveState nuc-a) = inactive")
	noFailed(t, ana)
	// systemd has killed the keeper as well, which would have cleared up: what is
	// left of the runtime folder goes with the next nuc ps.
	if st := ana.status(t, "a"); st.InitPid != 0 {
		t.Errorf("%+v", st)
	}
	m.nothingLeft(t)
}
