package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long Remove waits for killed processes to leave.
const patience = time.Second

// Kill kills every process of the payload (SIGKILL). The processes are gone
// some time later: Remove waits for that.
func (g *Group) Kill() error {
	if g.path.Payload == "" {
		return nil
	}
	return kill(g.path.Payload)
}

// kill writes cgroup.kill (Linux 5.14); before it, processes are stopped from
// making new ones and killed one by one.
func kill(dir string) error {
	err := write(filepath.Join(dir, "cgroup.kill"), "1")
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	_ = write(filepath.Join(dir, "cgroup.freeze"), "1")
	defer func() { _ = write(filepath.Join(dir, "cgroup.freeze"), "0") }()
	return filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // a cgroup that just went holds nothing
		}
		for _, pid := range processes(path) {
			if pid > 1 {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		return nil
	})
}

// Remove removes what Open made, and moves the calling process back to where it
// was, and with it others that belong to it. It waits up to 1 s for processes of
// the payload that are about to end; the Group does nothing afterwards.
func (g *Group) Remove(with ...int) error {
	if g.payload != nil {
		g.payload.Close()
		g.payload = nil
	}
	p := g.path
	g.path = Path{}
	return remove(p, patience, with...)
}

// Empty removes the cgroups below the payload's. Those that the container has
// delegated, to a user's own systemd, belong to that user: the supervisor, who is
// another on the host, can't remove them, but root of the container's user
// namespace can.
func Empty(p Path) error {
	if p.Payload == "" {
		return nil
	}
	deadline := time.Now().Add(patience)
	entries, err := os.ReadDir(p.Payload)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if err := removeUntil(filepath.Join(p.Payload, e.Name()), deadline); err != nil {
			return err
		}
	}
	return nil
}

// Sweep does in another process what Remove was to do in a supervisor that was
// killed; it kills what is left of the payload. The calling process may be in
// the supervisor's leaf; it must be of the same host uid as the supervisor.
func Sweep(p Path) error {
	if p.Payload == "" {
		return sweepIntended(p)
	}
	if err := kill(p.Payload); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return remove(p, patience)
}

// sweepIntended removes what a process that was killed may have made. It holds
// nothing yet; where it is another container's by now, that has it locked.
func sweepIntended(p Path) error {
	payload := filepath.Join(p.Inner, payloadLeaf)
	if p.Inner == "" || locked(p.Inner) || locked(payload) {
		return nil
	}
	deadline := time.Now().Add(patience)
	if p.Inner != p.X {
		return removeUntil(p.Inner, deadline)
	}
	_ = removeTree(filepath.Join(p.X, supervisorLeaf)) // that X may have come with
	return removeUntil(payload, deadline)
}

func remove(p Path, patience time.Duration, with ...int) error {
	if p.Payload == "" && p.Inner == "" {
		return nil
	}
	var errs []error
	deadline := time.Now().Add(patience)
	if p.Payload != "" {
		errs = append(errs, removeUntil(p.Payload, deadline))
	}
	if p.Inner != p.X {
		// Else these controllers can't be disabled in X (EBUSY).
		for _, c := range words(p.Inner, "cgroup.subtree_control") {
			_ = write(filepath.Join(p.Inner, "cgroup.subtree_control"), "-"+c)
		}
	}
	// Only what is idle: another container below X may use them by now, and
	// then they are its own to disable.
	for _, c := range p.Enabled {
		_ = write(filepath.Join(p.X, "cgroup.subtree_control"), "-"+c)
	}
	if p.Supervisor != "" {
		if slices.Contains(processes(p.Supervisor), os.Getpid()) {
			errs = append(errs, join(p.X, with...))
		}
		errs = append(errs, removeUntil(p.Supervisor, deadline))
	}
	if p.Inner != p.X && p.Inner != "" {
		errs = append(errs, removeUntil(p.Inner, deadline))
	}
	// The first is the cause: a cgroup that stays keeps those above it.
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("removing a cgroup: %w", err)
		}
	}
	return nil
}

// removeUntil retries while something is still in the cgroup: a process that
// was killed leaves it a little later.
func removeUntil(dir string, deadline time.Time) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		err := removeTree(dir)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%w: processes are still in it: end them (`cat %s/cgroup.procs`); the next start removes it", err, dir)
		}
		time.Sleep(wait)
	}
}

// removeTree removes a cgroup and those below it, deepest first, holding two
// descriptors at most: a container can nest cgroups deeper than a path or a
// table of descriptors reaches. A cgroup that is gone is no error.
func removeTree(dir string) error {
	parent, err := openFolder(unix.AT_FDCWD, filepath.Dir(dir))
	if err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return &os.PathError{Op: "open", Path: filepath.Dir(dir), Err: err}
	}
	current := parent
	defer func() { unix.Close(current) }()
	down := []string{filepath.Base(dir)}
	tried := false // the last of down has been emptied as far as possible
	for len(down) > 0 {
		name := down[len(down)-1]
		err := unix.Unlinkat(current, name, unix.AT_REMOVEDIR)
		if err != nil && err != unix.ENOENT {
			if err != unix.EBUSY && err != unix.ENOTEMPTY || tried {
				return &os.PathError{Op: "rmdir", Path: filepath.Join(append([]string{filepath.Dir(dir)}, down...)...), Err: err}
			}
			child, err := openFolder(current, name)
			if err == unix.ENOENT {
				continue
			}
			if err != nil {
				return &os.PathError{Op: "open", Path: name, Err: err}
			}
			below, err := removeChildren(child)
			if err != nil {
				unix.Close(child)
				return err
			}
			if below == "" {
				unix.Close(child)
				tried = true
				continue
			}
			unix.Close(current)
			current = child
			down = append(down, below)
			continue
		}
		down, tried = down[:len(down)-1], false
		if len(down) == 0 {
			break
		}
		up, err := openFolder(current, "..")
		if err != nil {
			return os.NewSyscallError("openat ..", err)
		}
		unix.Close(current)
		current = up
	}
	return nil
}

func openFolder(at int, name string) (int, error) {
	return unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// removeChildren removes those that have nothing below them and names one that
// has.
func removeChildren(folder int) (below string, err error) {
	fd, err := openFolder(folder, ".")
	if err != nil {
		return "", os.NewSyscallError("openat", err)
	}
	dir := os.NewFile(uintptr(fd), "cgroup")
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		err := unix.Unlinkat(folder, e.Name(), unix.AT_REMOVEDIR)
		if err != nil && err != unix.ENOENT {
			below = e.Name()
		}
	}
	return below, nil
}
