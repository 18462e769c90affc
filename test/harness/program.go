package harness

import (
	"context"
	"os/exec"
)

// Program prepares another program than nuc as the test's user, with the same
// environment and a cgroup of its own, as nuc's commands have. release is
// called once it was started, at the latest when it ended.
func (h *H) Program(ctx context.Context, path string, args ...string) (cmd *exec.Cmd, release func()) {
	h.Helper()
	return h.command(ctx, path, args...)
}

// Binary is where the test's user finds bin/nuc.
func (h *H) Binary() string { return shared.nuc }
