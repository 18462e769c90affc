package harness

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// delegated is a cgroup that belongs to the user of a test, as a user's own
// systemd would delegate it. Each command runs in a child of its own: once a
// supervisor has enabled controllers, no process may sit in the parent.
type delegated struct {
	path     string
	owner    *account
	commands atomic.Int64
}

// hierarchy is where cgroup2 is mounted: at the top, or beside version 1.
func hierarchy() (string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if strings.HasPrefix(after, "cgroup2 ") && len(fields) >= 5 {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 file system is mounted")
}

func delegate(t testing.TB, name string, owner *account) *delegated {
	t.Helper()
	mount, err := hierarchy()
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
	// As systemd mounts it: nobody moves a process across a cgroup namespace.
	if err := unix.Mount("", mount, "", unix.MS_REMOUNT, "nsdelegate"); err != nil {
		t.Logf("harness: cgroup2 without nsdelegate: %v", err)
	}
	parent := filepath.Join(mount, "nuc-it")
	if err := os.MkdirAll(parent, 0o755); err != nil {
		t.Fatalf("harness: cgroup for the tests: %v", err)
	}
	enable(mount)
	enable(parent)
	d := &delegated{path: filepath.Join(parent, name), owner: owner}
	d.make(t, d.path)
	enable(d.path)
	return d
}

// enable hands every controller down that the kernel lets go: on a machine
// with version 1 hierarchies most of them are not there to hand down.
func enable(path string) {
	controllers, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return
	}
	for _, controller := range strings.Fields(string(controllers)) {
		_ = os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
}

func (d *delegated) make(t testing.TB, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatalf("harness: %v", err)
	}
	// What `systemd` delegates: see /sys/kernel/cgroup/delegate.
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(path, name), int(d.owner.uid), int(d.owner.gid)); err != nil {
			t.Fatalf("harness: %v", err)
		}
	}
}

// child makes the cgroup of one command and opens it for clone3's
// CLONE_INTO_CGROUP.
func (d *delegated) child(t testing.TB) *os.File {
	t.Helper()
	path := filepath.Join(d.path, "command-"+strconv.FormatInt(d.commands.Add(1), 10))
	d.make(t, path)
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
	return file
}

// processes lists what runs in the cgroup and below it.
func (d *delegated) processes() []int {
	var pids []int
	_ = filepath.WalkDir(d.path, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // a cgroup that just went away holds nothing
		}
		content, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, field := range strings.Fields(string(content)) {
			if pid, err := strconv.Atoi(field); err == nil {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// left names cgroups that nuc made and did not remove: children of a command's
// cgroup.
func (d *delegated) left() []string {
	found, _ := filepath.Glob(filepath.Join(d.path, "command-*", "*"))
	var left []string
	for _, path := range found {
		if info, err := os.Lstat(path); err == nil && info.IsDir() {
			left = append(left, path)
		}
	}
	return left
}

// remove kills what is left and removes the cgroup.
func (d *delegated) remove() error {
	_ = os.WriteFile(filepath.Join(d.path, "cgroup.kill"), []byte("1"), 0)
	var err error
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var paths []string
		_ = filepath.WalkDir(d.path, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				paths = append(paths, path)
			}
			return nil
		})
		err = nil
		for i := len(paths) - 1; i >= 0; i-- {
			if e := os.Remove(paths[i]); e != nil && !os.IsNotExist(e) {
				err = e
			}
		}
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("cgroup %s can't be removed: %w", d.path, err)
}
