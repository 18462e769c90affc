package vm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
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

// faulty is a nuc that stands still at a named point (go/internal/fault).
const faulty = "/usr/local/lib/nuc-faults/nuc"

// TestPowerCut cuts the power right after a switch, in the middle of the removal
// of a state folder, and while switches and a removal stand still, each at another
// step. The file system's own journal is written then, as it is every five
// seconds, and with it what they have renamed, but not the contents of files
// (ext4(5), delalloc), unless they saw to that themselves.
func TestPowerCut(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	m.place(t, "build/faults/nuc", faulty)
	// What other tests keep of their containers is their own.
	const state = "ls -A .local/state/nuc 2>/dev/null || true"
	before := strings.Fields(ana.must(t, state))
	ana.up(t, small("switched"))
	ana.up(t, light("removed", 1))
	ana.must(t, "nuc exec removed sh -c 'mkdir /srv/files && cd /srv/files && seq 20000 | xargs touch' && nuc stop removed")
	points := []string{"appended", "taken", "activated", "updating", "aside"}
	name := func(point string) string { return "at-" + point }
	for _, point := range points {
		// For "updating", as its supervisor is who stands still there.
		ana.must(t, "NUC_FAULT="+point+" "+faulty+" up "+ana.describe(t, light(name(point), 1)))
	}
	ana.must(t, "nuc exec at-aside sh -c 'cd /srv && seq 500 | xargs touch' && nuc stop at-aside")
	m.root.must(t, "sync")

	for _, point := range points {
		command := "switch " + ana.describe(t, light(name(point), 2))
		if point == "aside" {
			command = "rm --state --yes at-aside"
		}
		ana.must(t, fmt.Sprintf("systemd-run --user --quiet --unit=still-%[1]s -E NUC_FAULT=%[1]s %[2]s %[3]s", point, faulty, command))
	}
	for _, point := range points {
		ana.eventually(t, patience, "grep -qsx nuc@"+point+" /proc/[0-9]*/task/*/comm")
	}
	// Slowly, and held where it has begun.
	ana.must(t, "systemd-run --user --quiet --unit=removal -p CPUQuota=10% nuc rm --state --yes removed")
	ana.eventually(t, patience, "test -d .local/state/nuc/.removed-*/removed/overlay")
	ana.must(t, "kill -STOP $(systemctl --user show -P MainPID removal)")
	if ana.must(t, "ls .local/state/nuc/.removed-*/removed/overlay/upper/srv/files | wc -l") == "0" {
		t.Errorf("the removal was over already")
	}
	changed := ana.describe(t, small("switched").with("resources", map[string]any{"tasksMax": 300}))
	ana.must(t, "nuc switch "+changed+" && echo >other && sync other")
	m.cutPower(t)

	m.up(t)
	ana = m.login(t, "ana")
	m.nothingLeft(t)
	if st := ana.status(t, "switched"); st.State != "failed" || st.Generation == 0 {
		t.Errorf("%+v", st)
	}
	if text := ana.must(t, "nuc inspect switched"); !json.Valid([]byte(text)) {
		t.Errorf("the descriptor is %q", text)
	}
	ana.must(t, "nuc up switched && nuc generations switched && nuc stop switched")
	for _, point := range points {
		if point == "aside" {
			continue
		}
		t.Run(point, func(t *testing.T) {
			name := name(point)
			if st := ana.status(t, name); st.State != "failed" || st.Generation < 1 || st.Generation > 2 {
				t.Errorf("%+v", st)
			}
			// status of what has failed is not 0.
			if r := ana.run(t, "nuc status "+name); !strings.Contains(r.stdout, "failed") {
				t.Errorf("%s", r)
			}
			if text := ana.must(t, "nuc inspect "+name); !json.Valid([]byte(text)) {
				t.Errorf("the descriptor is %q", text)
			}
			again := ana.describe(t, light(name, 3))
			ana.must(t, fmt.Sprintf("nuc up %[1]s && nuc exec %[1]s true && nuc switch %[2]s && nuc generations %[1]s && nuc stop %[1]s", name, again))
			if st := ana.status(t, name); st.State != "stopped" || st.Generation < 2 {
				t.Errorf("switched anew: %+v", st)
			}
		})
	}
	if got := ana.must(t, "nuc ps -aq"); strings.Contains(got, "removed") || strings.Contains(got, "at-aside") {
		t.Errorf("removed, but still there: %q", got)
	}
	// What the removals left goes with the next one.
	ana.must(t, "nuc ps -aq | xargs nuc rm --state --yes")
	for _, left := range strings.Fields(ana.must(t, state)) {
		if !slices.Contains(before, left) {
			t.Errorf("left in the state folder: %s", left)
		}
	}
}
