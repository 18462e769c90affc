package harness

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nixDaemonSocket is where Nix's daemon listens.
const nixDaemonSocket = "/nix/var/nix/daemon-socket/socket"

// NixDaemon makes a store that an unprivileged user can build in, unless this
// machine has one. Its error is why there is none.
func NixDaemon(t testing.TB) error {
	t.Helper()
	if conn, err := net.Dial("unix", nixDaemonSocket); err == nil {
		conn.Close()
		return nil
	}
	if os.Geteuid() != 0 {
		return errors.New("no Nix daemon runs here, and only root can start one")
	}
	conf := t.TempDir()
	settings := "build-users-group =\nsandbox = false\nexperimental-features = nix-command flakes\nsubstituters =\nflake-registry =\n"
	if err := os.WriteFile(filepath.Join(conf, "nix.conf"), []byte(settings), 0o644); err != nil {
		return err
	}
	daemon := exec.Command("nix-daemon")
	daemon.Env = append(os.Environ(), "NIX_CONF_DIR="+conf)
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("%w; scripts/setup test installs it", err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(unix.SIGTERM)
		_ = daemon.Wait()
		_ = os.Remove(nixDaemonSocket)
	})
	Eventually(t, time.Minute, "Nix's daemon listens", func() bool {
		conn, err := net.Dial("unix", nixDaemonSocket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return nil
}

// newestNix runs a program of a tree's with that tree's own libraries: the host's
// are too old for it.
const newestNix = `#!/bin/sh
exec "$(echo %[1]s/usr/lib64/ld-linux-*.so.*)" --argv0 %[2]s --library-path "$(echo %[1]s/usr/lib/*-linux-gnu)" %[1]s/usr/bin/nix "$@"
`

// NewestNix makes a folder for PATH with the programs of the newest Nix that
// Debian has.
func (h *H) NewestNix() string {
	h.Helper()
	tree := h.Tree("nix")
	folder := h.MakeDir("newest-nix")
	for _, name := range []string{"nix", "nix-build", "nix-instantiate", "nix-store"} {
		h.Write("newest-nix/"+name, fmt.Sprintf(newestNix, tree, name), 0o700)
	}
	return folder
}

// NixSystem is this machine's platform, as Nix calls it.
func NixSystem(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nix-instantiate", "--eval", "--expr", "builtins.currentSystem", "--store", "dummy://").Output()
	if err != nil {
		t.Fatalf("nix-instantiate: %v", err)
	}
	return strings.Trim(strings.TrimSpace(string(out)), `"`)
}

// NixFiles copies nuc's Nix files to a new folder below Dir, whose parents are
// made: a clone of the repository below /root is closed to the test's user.
func (h *H) NixFiles(name string) {
	h.Helper()
	path := filepath.Join(h.Dir, name)
	for folder := filepath.Dir(path); folder != h.Dir; folder = filepath.Dir(folder) {
		defer h.chown(folder)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.Fatalf("harness: %v", err)
	}
	if err := os.CopyFS(path, os.DirFS(filepath.Join(Repository(h), "nix"))); err != nil {
		h.Fatalf("harness: %v", err)
	}
	err := filepath.WalkDir(path, func(path string, _ os.DirEntry, err error) error {
		if err == nil {
			h.chown(path)
		}
		return err
	})
	if err != nil {
		h.Fatalf("harness: %v", err)
	}
}
