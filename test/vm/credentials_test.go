package vm

import (
	"fmt"
	"strings"
	"testing"
)

// TestCredentials hands a variable over to a service of the user's systemd, and
// has systemd start what needs none by itself.
func TestCredentials(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	const value = "correct-horse-battery-staple"
	ana.must(t, "install -m 600 /dev/null own && echo from-a-file >own")
	const inside = "nuc exec a sh -c 'cat /run/host/credentials/*'"
	credentials := []map[string]any{
		{"name": "1", "command": []string{"cat", "own"}}, // in the home folder
		{"name": "2", "environment": "NUC_IT_PASSWORD"},
	}
	path := ana.describe(t, small("a").with("credentials", credentials))
	start := "NUC_IT_PASSWORD=" + value + " nuc up "
	ana.must(t, start+path)
	unseen := func() {
		t.Helper()
		if got := ana.must(t, inside); got != "from-a-file"+value {
			t.Errorf("the container has %q", got)
		}
		pid := property(t, ana, "nuc-a", "MainPID")
		shown := ana.must(t, "systemctl --user show nuc-a; systemctl --user cat nuc-a; tr '\\0' '\\n' </proc/"+pid+"/environ; journalctl --user -b; cat ~/.local/state/nuc/a/generations/*")
		if strings.Contains(shown, value) || !strings.Contains(shown, "XDG_RUNTIME_DIR=") {
			t.Errorf("the value, or nothing, is in\n%s", shown)
		}
		m.root.must(t, "! grep -qs NUC_IT_PASSWORD= /proc/[0-9]*/environ")
	}
	unseen()

	r := ana.run(t, "nuc enable a")
	if want := "nuc: container a: systemd can't start it by itself: credentials[1] (2) is a variable of who runs `nuc up`: use file or command\n"; r.code != 0 || !strings.Contains(r.stderr, want) {
		t.Errorf("%s", r)
	}
	ana.must(t, "nuc stop a")
	if r := ana.run(t, "systemctl --user start nuc-a"); r.code == 0 {
		t.Errorf("%s", r)
	}
	const why = "credentials[1] (2): systemd has started the container, and so nobody has given the variable NUC_IT_PASSWORD"
	ana.must(t, "journalctl --user -b -o cat -u nuc-a | grep -F '"+why+"'")
	if st := ana.status(t, "a"); st.State != "failed" || !strings.Contains(st.Reason, why) {
		t.Errorf("%+v", st)
	}
	ana.must(t, start+"a")
	unseen()
	ana.must(t, "nuc stop a")

	credentials = credentials[:1]
	ana.must(t, "nuc switch "+ana.describe(t, small("a").with("credentials", credentials)))
	ana.must(t, "systemctl --user start nuc-a")
	if st := ana.status(t, "a"); st.State != "ready" || fmt.Sprint(st.SupervisorPid) != property(t, ana, "nuc-a", "MainPID") {
		t.Errorf("%+v", st)
	}
	if got := ana.must(t, inside); got != "from-a-file" {
		t.Errorf("started by systemd, the container has %q", got)
	}
	ana.must(t, "nuc stop a && nuc disable a")
	noFailed(t, ana)
}
