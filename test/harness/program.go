package harness

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// Compile makes a program of C that needs nothing of where it runs, for the
// test's user and for a container, and returns its path.
func (h *H) Compile(name, source string) string {
	h.Helper()
	path := filepath.Join(h.Dir, name)
	cmd := exec.Command("gcc", "-static", "-O2", "-w", "-pthread", "-x", "c", "-o", path, "-")
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("harness: gcc %s: %v; scripts/setup test installs it\n%s", name, err, out)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		h.Fatalf("harness: %v", err)
	}
	h.chown(path)
	return path
}
