// Package integration runs bin/nuc with the real systemd of three Debian
// releases. Every test has a folder, a cgroup and containers of its own, and
// fails if anything of them is left.
package integration

import (
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// trees are the Debian releases, by their systemd.
var trees = []struct{ name, systemd string }{
	{"bookworm", "252"},
	{"trixie", "257"},
	{"sid", "26"},
}

// patience is for what takes no time but on a busy machine.
const patience = 30 * time.Second

// promised is how long after a kill something of a container may be left.
const promised = 2 * time.Second

// onTrees runs a test on each tree.
func onTrees(t *testing.T, test func(h *harness.H, tree string), opts ...harness.Option) {
	for _, tree := range trees {
		t.Run(tree.name, func(t *testing.T) {
			t.Parallel()
			test(harness.New(t, opts...), tree.name)
		})
	}
}

// stubborn starts a unit that doesn't end when asked, so that a clean stop
// takes five minutes.
func stubborn(h *harness.H, name string) {
	h.Helper()
	r := h.Exec(name, "systemd-run", "--unit=stubborn", "-p", "TimeoutStopSec=300", "--",
		"sh", "-c", `trap "" TERM HUP; touch /run/stubborn; while :; do sleep 1; done`)
	if r.Code != 0 {
		h.Fatalf("%s", r)
	}
	harness.Eventually(h, patience, "the stubborn unit runs", func() bool {
		return h.Exec(name, "test", "-e", "/run/stubborn").Code == 0
	})
}

// ephemeral keeps what a test writes out of the state folder.
func ephemeral(d map[string]any) { harness.Section(d, "root")["ephemeral"] = true }
