package vm

import (
	"fmt"
	"strings"
	"testing"
)

// TestConfined: a supervisor that is a service, in a cgroup of its own, confines
// itself with its starter beside it, through another run of its container; and
// systemd starts one again whose starter was killed.
func TestConfined(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("a").with("restart", "on-failure"))
	confined := func() status {
		t.Helper()
		ana.eventually(t, patience, `nuc status --json a | grep -q '"starterPid"'`)
		st := ana.status(t, "a")
		if st.Confinement.Landlock == 0 || st.State != "ready" {
			t.Fatalf("%+v", st)
		}
		ana.must(t, fmt.Sprintf(`for s in /proc/%d/task/*/status; do grep -q 'NoNewPrivs:.*1' $s || { cat $s; exit 1; }; done`, st.SupervisorPid))
		ana.must(t, fmt.Sprintf("grep -q 'NoNewPrivs:.*0' /proc/%d/status", st.Confinement.StarterPid))
		own := ana.must(t, fmt.Sprintf("cat /proc/%d/cgroup", st.SupervisorPid))
		if starter := ana.must(t, fmt.Sprintf("cat /proc/%d/cgroup", st.Confinement.StarterPid)); starter != own || !strings.HasSuffix(strings.TrimSpace(own), "/nuc-a.service/supervisor") {
			t.Errorf("the supervisor is in %s, the starter in %s", own, starter)
		}
		return st
	}
	first := confined()
	ana.must(t, "kill -9 $(pgrep -u ana -f '^nuc-keeper a')")
	ana.eventually(t, patience, `nuc status --json a | grep -q '"restarts": 1' && nuc status a | grep -q '^status *ready'`)
	second := confined()
	if second.SupervisorPid != first.SupervisorPid || second.Confinement.StarterPid != first.Confinement.StarterPid || second.InitPid == first.InitPid {
		t.Errorf("%+v, before it was %+v", second, first)
	}
	ana.must(t, fmt.Sprintf("kill -9 %d && nuc exec a true && kill -9 $(pgrep -u ana -f '^nuc-keeper a')", second.Confinement.StarterPid))
	ana.eventually(t, 2*patience, fmt.Sprintf("test $(systemctl --user show -P MainPID nuc-a) -gt 0 -a $(systemctl --user show -P MainPID nuc-a) != %d && nuc status a | grep -q '^status *ready'", second.SupervisorPid))
	confined()
	ana.must(t, "nuc stop a")
	noFailed(t, ana)
	m.nothingLeft(t)
}
