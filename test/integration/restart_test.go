package integration

import (
	"encoding/json"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// run is what `nuc status --json` says of a run.
type run struct {
	State, Reason string
	Restarts      int
	InitPid       int
	SupervisorPid int
}

func runOf(h *harness.H, name string) run {
	h.Helper()
	var r run
	if err := json.Unmarshal([]byte(h.Nuc("status", name, "--json").Stdout), &r); err != nil {
		h.Fatal(err)
	}
	return r
}

// TestRestart has containers started again that ended by themselves, where no
// systemd does it.
func TestRestart(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, func(d map[string]any) { d["restart"] = "on-failure" })
		kill := func(before run, restarts int) run {
			h.Helper()
			if err := unix.Kill(before.InitPid, unix.SIGKILL); err != nil {
				h.Fatal(err)
			}
			var now run
			harness.Eventually(h, patience, "it is started again", func() bool {
				now = runOf(h, "web")
				return now.Restarts == restarts && now.State == "ready"
			})
			return now
		}
		first := runOf(h, "web")
		again := kill(first, 1)
		if again.SupervisorPid != first.SupervisorPid || again.InitPid == first.InitPid {
			h.Errorf("%+v, before it was %+v", again, first)
		}
		h.Must("exec", "web", "true")
		kill(again, 2)

		// The next pause is 4 s long: stopped within it, it stays so.
		if err := unix.Kill(runOf(h, "web").InitPid, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
		harness.Eventually(h, patience, "it waits", func() bool { return runOf(h, "web").State == "starting" })
		h.Must("stop", "web")
		if now := runOf(h, "web"); now.State != "stopped" {
			h.Errorf("%+v", now)
		}

		h.Must("up", "web")
		h.Exec("web", "systemctl", "poweroff")
		h.WaitState("web", patience, "stopped")
	})
}
