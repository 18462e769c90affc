package vm

import (
	"encoding/json"
	"testing"
	"time"
)

// cutPower ends the machine as a power failure does.
func (m *machine) cutPower(t testing.TB) {
	t.Helper()
	if err := m.qemu.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	m.off(t, 30*time.Second)
}

// TestPowerCut cuts the power right after a switch and in the middle of the
// removal of a state folder. The file system's own journal is written then, as
// it is every five seconds, but not the contents of files (ext4(5), delalloc).
func TestPowerCut(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("switched"))
	ana.up(t, small("removed"))
	ana.must(t, "nuc exec removed sh -c 'mkdir /srv/files && cd /srv/files && seq 20000 | xargs touch' && nuc stop removed")
	m.root.must(t, "sync")

	// Slowly, and held where it has begun.
	ana.must(t, "systemd-run --user --quiet --unit=removal -p CPUQuota=10% nuc rm --state --yes removed")
	ana.eventually(t, patience, "test -d .local/state/nuc/.removed-*/removed/overlay")
	ana.must(t, "kill -STOP $(systemctl --user show -P MainPID removal)")
	before := ana.must(t, "ls .local/state/nuc/.removed-*/removed/overlay/upper/srv/files | wc -l")
	if before == "0" {
		t.Errorf("the removal was over already")
	}
	changed := ana.describe(t, small("switched").with("resources", map[string]any{"tasksMax": 300}))
	ana.must(t, "nuc switch "+changed+" && echo >other && sync other")
	m.cutPower(t)

	m = up(t)
	ana = m.login(t, "ana")
	m.nothingLeft(t)
	if st := ana.status(t, "switched"); st.State != "failed" || st.Generation == 0 {
		t.Errorf("%+v", st)
	}
	if text := ana.must(t, "nuc inspect switched"); !json.Valid([]byte(text)) {
		t.Errorf("the descriptor is %q", text)
	}
	ana.must(t, "nuc up switched && nuc generations switched && nuc stop switched")
	if got := ana.must(t, "nuc ps -aq"); got != "switched" {
		t.Errorf("containers after the power cut: %q", got)
	}
	// What the removal left goes with the next one.
	ana.must(t, "nuc rm --state --yes switched")
	if left := ana.must(t, "ls -A .local/state/nuc"); left != "" {
		t.Errorf("left in the state folder: %s", left)
	}
}
