package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// A container whose runtime folder is removed goes on running, and is found
// again: nobody starts it a second time.
func TestRuntimeFolderRemoved(t *testing.T) {
	for _, what := range []string{"nuc/web", "nuc/web/control", "nuc"} {
		t.Run(filepath.Base(what), func(t *testing.T) {
			t.Parallel()
			h := harness.New(t)
			h.Up("web", "trixie", ephemeral)
			confinement := awaitConfinement(h, "web")
			before := h.Roles()
			if err := os.RemoveAll(filepath.Join(h.Runtime, what)); err != nil {
				t.Fatal(err)
			}
			h.WaitState("web", patience, "ready")
			if r := h.Exec("web", "true"); r.Code != 0 {
				h.Errorf("exec afterwards: %s", r)
			}
			h.Must("up", "web")
			if confinement.Landlock > 0 && before.Starter == 0 {
				h.Errorf("no starter runs: %+v", before)
			}
			if now := h.Roles(); now != before {
				h.Errorf("its processes were %+v and are %+v", before, now)
			}
			var st struct {
				Warnings []string `json:"warnings"`
			}
			if err := json.Unmarshal([]byte(h.Must("status", "web", "--json")), &st); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(st.Warnings, "\n"), "was removed") {
				h.Errorf("status says nothing of it: %q", st.Warnings)
			}
			// The next boot has a /run/host again, and init's word of being ready.
			h.Reboot("web", patience)
			if r := h.Exec("web", "test", "-S", "/run/host/notify"); r.Code != 0 {
				h.Errorf("after a reboot: %s", r)
			}
			h.Must("stop", "web")
			h.NothingLeft()
		})
	}
}

// While the supervisor has not noticed, the state folder is still its own.
func TestStateFolderIsHeld(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", lite)
	h.Must("up", path)
	roles := h.Roles()
	if err := unix.Kill(roles.Supervisor, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(h.Runtime, "nuc/web")); err != nil {
		t.Fatal(err)
	}
	if got := h.Status("web"); got != "starting" {
		h.Errorf("ps says %q of a container that is held and does not answer", got)
	}
	if r := h.Nuc("rm", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "is running") {
		h.Errorf("rm: %s", r)
	}
	if err := unix.Kill(roles.Supervisor, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(h, patience, "it is held no more", func() bool { return h.Status("web") == "failed" })
	h.NothingLeft()
	h.Must("up", path)
}

// What supervisor and keeper leave that are killed at once is in nobody's way,
// though nobody has looked since: so systemd starts a service anew.
func TestStartAfterBothKilled(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", lite)
	h.Must("up", path)
	roles := h.Roles()
	// The keeper is not to clear up.
	for _, kill := range []struct {
		pid    int
		signal unix.Signal
	}{{roles.Keeper, unix.SIGSTOP}, {roles.Supervisor, unix.SIGKILL}, {roles.Keeper, unix.SIGKILL}} {
		if err := unix.Kill(kill.pid, kill.signal); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(h.Runtime, "nuc/web/control")); err != nil {
		t.Fatalf("nothing was left: %v", err)
	}
	h.Must("up", path)
	if r := h.Exec("web", "true"); r.Code != 0 {
		t.Errorf("%s", r)
	}
	h.Must("stop", "web")
	h.NothingLeft()
}
