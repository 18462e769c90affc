package supervisor

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// cgroupFile, in the runtime folder, says which cgroup is to be removed by who
// finds it there. A supervisor that is killed when it has no keeper (any more)
// leaves that to others.
const cgroupFile = "cgroup"

// noteGroup keeps where the container's cgroup is, or is going to be. What is
// noted is whole at any moment.
func (s *Supervisor) noteGroup(p cgroup.Path) error {
	path := filepath.Join(s.o.Container.Runtime, cgroupFile)
	text, err := json.Marshal(p)
	if err == nil {
		err = os.WriteFile(path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("runtime folder: %w", err)
	}
	return nil
}

// Sweep removes what a supervisor and a keeper that were killed have left of a
// container, whose lock the caller holds: its cgroup, what is in its runtime
// folder, and a state folder with nothing in it.
func Sweep(c state.Container, lock *state.Lock) error {
	err := sweepGroup(lock)
	if terr := lock.Tidy(); err == nil {
		err = terr
	}
	_ = os.Remove(c.State)
	return err
}

// sweepGroup removes the cgroup of an earlier supervisor.
func sweepGroup(lock *state.Lock) error {
	fd, err := unix.Openat(int(lock.Folder.Fd()), cgroupFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil //nolint:nilerr // there was none
	}
	f := os.NewFile(uintptr(fd), cgroupFile)
	defer f.Close()
	var left cgroup.Path
	if json.NewDecoder(f).Decode(&left) != nil {
		return nil
	}
	if err := cgroup.Sweep(left); err != nil {
		return err
	}
	return unix.Unlinkat(int(lock.Folder.Fd()), cgroupFile, 0)
}
