package vm

import (
	"testing"
	"time"
)

// ended fails the test unless a container was powered off.
func ended(t testing.TB, s *session, name string) {
	t.Helper()
	if st := s.status(t, name); st.State != "stopped" || st.Reason != "powered off" {
		t.Errorf("a container that has ended: %+v", st)
	}
}

// TestLogout ends a user's last session: a container ends with the user's
// systemd, cleanly, or stays where that lingers.
func TestLogout(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, web("web", 8080))
	ana.must(t, "nuc link - 9000 web 80")
	ana.close()
	// logind gives the last session's user manager ten seconds (UserStopDelaySec).
	m.root.eventually(t, 2*patience, "! test -d /run/user/1000")
	m.nothingLeft(t)
	ana = m.login(t, "ana")
	ended(t, ana, "web")
	if all := ana.links(t); len(all) != 0 {
		t.Errorf("links after the logout: %+v", all)
	}

	m.root.must(t, "loginctl enable-linger ana")
	ana.must(t, "nuc up web")
	before := ana.status(t, "web")
	ana.close()
	m.root.eventually(t, patience, "! loginctl --no-legend list-sessions | grep -w ana | grep -w user")
	// Longer than logind would have waited.
	time.Sleep(12 * time.Second)
	ana = m.login(t, "ana")
	if st := ana.status(t, "web"); st.State != "ready" || st.InitPid != before.InitPid {
		t.Errorf("the user lingers: %+v, before it was %+v", st, before)
	}
}

// TestUserManager restarts the user's systemd: by itself it keeps everything,
// stopped and started it ends containers cleanly,
// and it stops one that it is asked to stop.
func TestUserManager(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	m.root.must(t, "loginctl enable-linger ana")
	ana.up(t, small("a"))
	before := ana.status(t, "a")
	ana.must(t, "systemctl --user daemon-reexec && systemctl --user daemon-reload")
	if st := ana.status(t, "a"); st.State != "ready" || st.InitPid != before.InitPid {
		t.Errorf("after daemon-reexec: %+v, before it was %+v", st, before)
	}
	ana.must(t, "nuc exec a true")
	m.root.must(t, "systemctl restart user@1000.service")
	ended(t, ana, "a")
	m.nothingLeft(t)
	ana.must(t, "nuc up a && nuc exec a true")
	ana.must(t, "systemctl --user stop nuc-a")
	ended(t, ana, "a")
	m.nothingLeft(t)
	// One that ends by itself leaves no unit, and the next start is one again.
	ana.must(t, "nuc up a && nuc restart a && systemctl --user is-active nuc-a && nuc kill a && nuc up a && nuc stop a")
	if units := ana.must(t, "systemctl --user --all --no-legend --plain list-units 'nuc-*'"); units != "" {
		t.Errorf("units that are left: %s", units)
	}
}

// TestTwoUsers has containers of the same name of two users on one host.
func TestTwoUsers(t *testing.T) {
	m := up(t)
	ana, bo := m.equip(t, "ana"), m.equip(t, "bo")
	ana.up(t, web("web", 8080))
	if r := bo.run(t, "nuc up "+bo.describe(t, web("web", 8080))); r.code != 1 {
		t.Errorf("the port is taken: %s", r)
	} else {
		one(t, r.stderr)
	}
	bo.up(t, web("web", 8081))
	ana.must(t, "nuc exec web sh -c 'echo ana >/var/www/html/index.html'")
	bo.must(t, "nuc exec web sh -c 'echo bo >/var/www/html/index.html'")
	for _, s := range []*session{ana, bo} {
		if got := s.must(t, "curl -sS http://127.0.0.1:8080/ http://127.0.0.1:8081/"); got != "ana\nbo" {
			t.Errorf("%s sees the pages %q", s.user, got)
		}
		if got := s.must(t, "nuc ps -q"); got != "web" {
			t.Errorf("%s sees the containers %q", s.user, got)
		}
	}
	// Nothing of ana's opens to bo, whatever he calls his folder.
	for _, script := range []string{
		"ls /run/user/1000/nuc", "ls /home/ana/.local/state/nuc", "XDG_RUNTIME_DIR=/run/user/1000 nuc ps",
		"kill $(pgrep -u ana -f nuc-supervisor)",
	} {
		if r := bo.run(t, script); r.code == 0 {
			t.Errorf("bo may: %s", r)
		}
	}
	bo.must(t, "nuc kill web")
	if st := ana.status(t, "web"); st.State != "ready" {
		t.Errorf("%+v", st)
	}
}
