package vm

import (
	"fmt"
	"strings"
	"testing"
)

// TestWatchdog has systemd notice a supervisor, and a keeper, that hang.
func TestWatchdog(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("a").with("restart", "on-failure").with("watchdogSeconds", 10))
	if got := property(t, ana, "nuc-a", "WatchdogUSec"); got != "10s" {
		t.Errorf("WatchdogUSec is %s", got)
	}
	before := ana.status(t, "a")
	// As long as it is well, nothing happens.
	ana.must(t, "sleep 25")
	if now := ana.status(t, "a"); now.SupervisorPid != before.SupervisorPid || now.InitPid != before.InitPid {
		t.Fatalf("%+v, before it was %+v", now, before)
	}
	for _, hang := range []string{
		"kill -STOP $(systemctl --user show -P MainPID nuc-a)",
		"kill -STOP $(pgrep -u ana -f '^nuc-keeper a')",
	} {
		before := ana.status(t, "a")
		ana.must(t, hang)
		ana.eventually(t, 2*patience, fmt.Sprintf("test $(systemctl --user show -P MainPID nuc-a) -gt 0 -a $(systemctl --user show -P MainPID nuc-a) != %d && nuc status a", before.SupervisorPid))
		if now := ana.status(t, "a"); now.State != "ready" || now.InitPid == before.InitPid {
			t.Errorf("after %s: %+v, before it was %+v", hang, now, before)
		}
		ana.must(t, "nuc exec a true")
	}
	ana.must(t, "nuc stop a")
	noFailed(t, ana)
	m.nothingLeft(t)
}

// TestStartedBySystemd has systemd start what can't be started yet.
func TestStartedBySystemd(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("db"))
	ana.up(t, small("a").with("dependsOn", []string{"db"}))
	ana.must(t, "nuc enable a && nuc stop a db && nuc disable db")
	if r := ana.run(t, "systemctl --user start nuc-a"); r.code == 0 {
		t.Errorf("it was started without what it depends on: %s", r)
	}
	ana.eventually(t, patience, "journalctl --user -b -o cat -u nuc-a | grep -q 'container a: not started, as db, which it depends on, is stopped'")
	ana.must(t, "nuc disable a && nuc rm a db; systemctl --user reset-failed")

	// A port that is another's for a while.
	ana.up(t, small("a").with("restart", "on-failure").with("network", map[string]any{"ports": []any{map[string]any{"host": 9100, "container": 80}}}))
	ana.must(t, "nuc enable a && nuc stop a && systemd-run --user --unit=taken systemd-socket-activate -l 127.0.0.1:9100 /bin/cat")
	ana.eventually(t, patience, "ss -Hltn | grep -q 127.0.0.1:9100")
	ana.must(t, "systemctl --user start --no-block nuc-a")
	ana.eventually(t, patience, "nuc status a | grep -q 'reason .*9100'")
	if st := ana.status(t, "a"); st.State != "starting" {
		t.Errorf("%+v", st)
	}
	ana.must(t, "nuc stop a && systemctl --user start --no-block nuc-a")
	ana.eventually(t, patience, "nuc status a | grep -q 'reason .*9100'")
	ana.must(t, "systemctl --user stop taken")
	ana.eventually(t, 2*patience, "nuc status a")
	ana.must(t, "nuc exec a true")

	// What a switch changes holds for the unit as well.
	r := ana.run(t, "nuc switch "+ana.describe(t, small("a").with("restart", "always").with("system",
		map[string]any{"init": "/sbin/init", "arguments": []string{"--unit=basic.target"}, "stop": map[string]any{"timeoutSeconds": 77}})))
	if r.code != 0 || !strings.Contains(ana.must(t, "cat .config/systemd/user/nuc-a.service"), "TimeoutStopSec=92") {
		t.Errorf("%s", r)
	}
	ana.must(t, "nuc disable a && nuc stop a && nuc rm a")
	noFailed(t, ana)
}
