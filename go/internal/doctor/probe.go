package doctor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/landlock"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
)

// Host is the real host, seen by the calling user.
func Host() Environment {
	e := Environment{
		UID: os.Getuid(), Getenv: os.Getenv, LookPath: exec.LookPath, Driver: outbound.Find, Release: kernelRelease(),
		Namespace: func() error { return probe(syscall.SysProcAttr{}, nil) },
		Capable:   capable,
		Map:       func(m idmap.Map) error { return probe(syscall.SysProcAttr{}, m.Write) },
		Plan:      idmap.PlanFor,
		Helpers:   idmap.Map.Check,
		Landlock:  landlock.ABI,
		Cgroup:    cgroup.Delegated, Controller: cgroup.MissingController,
	}
	if u, err := user.LookupId(strconv.Itoa(e.UID)); err == nil {
		e.User = u.Username
	}
	return e
}

func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// capable starts a process that mounts in its namespaces, as Go's runtime does
// between fork and exec to make mounts private: the first thing that AppArmor
// denies where it restricts user namespaces.
func capable() error {
	return probe(syscall.SysProcAttr{
		Unshareflags: syscall.CLONE_NEWNS,
		UidMappings:  []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings:  []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}, nil)
}

// probe starts a process in a new user namespace, does something to it, and
// kills it. It is this very program, as no other is sure to be there (NixOS has
// no /bin/true); traced, it stops before its first instruction.
func probe(attr syscall.SysProcAttr, do func(pid int) error) error {
	// Only the thread that forked may trace (ptrace(2)).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	attr.Cloneflags |= syscall.CLONE_NEWUSER
	attr.Ptrace = true
	attr.Pdeathsig = syscall.SIGKILL
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"nuc"}, &syscall.ProcAttr{Sys: &attr})
	if err != nil {
		return err
	}
	status, err := wait(pid)
	if err != nil {
		return err
	}
	if !status.Stopped() {
		return fmt.Errorf("it ended at once (%#x)", uint32(status))
	}
	if do != nil {
		err = do(pid)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for {
		status, werr := wait(pid)
		if werr != nil {
			return errors.Join(err, werr)
		}
		if !status.Stopped() {
			return err
		}
	}
}

func wait(pid int) (syscall.WaitStatus, error) {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, syscall.WALL, nil)
		if err != syscall.EINTR {
			return status, os.NewSyscallError("wait4", err)
		}
	}
}
