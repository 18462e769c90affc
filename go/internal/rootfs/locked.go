package rootfs

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// source is a host's file that is to be mounted read-only.
type source struct {
	what      string // in an error
	fd        int
	recursive bool
}

// locked returns mounts of the sources, by their descriptors, that are
// read-only for good. A base is a folder to work on.
//
// Root of the container may make any mount writable again that was made in its
// own user namespace. The kernel locks attributes where a mount namespace is
// copied into another user namespace (mount_namespaces(7), "Restrictions on
// mount namespaces"). So the sources are mounted here, and a child in such
// namespaces clones what it got of them.
func locked(base int, sources []source) (map[int]int, error) {
	staging, err := newMount("tmpfs", plain, "mode", "0700", "source", "nuc")
	if err != nil {
		return nil, err
	}
	defer unix.Close(staging)
	if err := unix.MoveMount(staging, "", base, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return nil, os.NewSyscallError("move_mount", err)
	}
	before, err := unix.Open(".", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	defer unix.Close(before)
	// The child finds its own copy of the working directory's mount there.
	if err := unix.Fchdir(staging); err != nil {
		return nil, os.NewSyscallError("fchdir", err)
	}
	mounts, err := cloneLocked(staging, sources)
	if uerr := unix.Unmount(".", unix.MNT_DETACH); err == nil && uerr != nil {
		err = os.NewSyscallError("umount", uerr)
	}
	if cerr := unix.Fchdir(before); err == nil && cerr != nil {
		err = os.NewSyscallError("fchdir", cerr)
	}
	return mounts, err
}

// cloneLocked mounts the sources in the staging folder, read-only, and has a
// child clone them.
func cloneLocked(staging int, sources []source) (map[int]int, error) {
	mounts := map[int]int{}
	clones := make([]treeClone, len(sources))
	for i, s := range sources {
		name := strconv.Itoa(i)
		if err := stage(staging, name, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.what, err)
		}
		path, err := unix.BytePtrFromString(name)
		if err != nil {
			return nil, err
		}
		clones[i] = treeClone{path: path, flags: unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC}
		if s.recursive {
			clones[i].flags |= unix.AT_RECURSIVE
		}
		// A number for the child to put it at: the table of files is shared.
		if clones[i].fd, err = unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return nil, os.NewSyscallError("open", err)
		}
		mounts[s.fd] = clones[i].fd
	}
	pid, errno := forkClones(clones)
	switch errno {
	case 0:
	case unix.EPERM, unix.EACCES:
		return nil, fmt.Errorf("locking what is mounted read-only: a user namespace in the container's: %w: this machine forbids it to unprivileged users; `nuc doctor` names the setting", errno)
	default:
		return nil, fmt.Errorf("locking what is mounted read-only: a user namespace in the container's: %w: a limit on processes (ulimit -u) or on namespaces (sysctl user.max_user_namespaces) is reached", errno)
	}
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err == nil {
			break
		} else if err != syscall.EINTR {
			return nil, os.NewSyscallError("wait4", err)
		}
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		return nil, fmt.Errorf("locking what is mounted read-only: %w", syscall.Errno(max(status.ExitStatus(), 0)))
	}
	return mounts, nil
}

// stage mounts a source read-only under a name in a folder.
func stage(staging int, name string, s source) error {
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		return err
	}
	var at int
	var err error
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err = unix.Mkdirat(staging, name, 0o700); err == nil {
			at, err = unix.Openat(staging, name, unix.O_PATH|unix.O_CLOEXEC, 0)
		}
	} else {
		at, err = makeFile(staging, name)
	}
	if err != nil {
		return &os.PathError{Op: "stage", Path: name, Err: err}
	}
	mnt, err := bindMount(s.fd, true, s.recursive)
	if err != nil {
		unix.Close(at)
		return err
	}
	return attach(mnt, at)
}

// treeClone is what open_tree(2) is called with, and the descriptor for it.
type treeClone struct {
	path  *byte
	flags uintptr
	fd    int
}

// forkClones forks a child that does nothing but clone the trees and exit, with
// the errno of what failed as its status.
//
// As in a fork of syscall's, nothing in the child may need Go's runtime, whose
// other threads it lacks: no allocation, no growing stack, no preemption.
//
//go:noinline
//go:norace
func forkClones(clones []treeClone) (pid int, errno syscall.Errno) {
	const flags = uintptr(unix.SIGCHLD) | unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_FILES
	here := unix.AT_FDCWD
	r, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || r != 0 {
		return int(r), errno
	}
	for i := range clones {
		c := &clones[i]
		fd, _, e := syscall.RawSyscall(unix.SYS_OPEN_TREE, uintptr(here), uintptr(unsafe.Pointer(c.path)), c.flags)
		if e == 0 {
			_, _, e = syscall.RawSyscall(unix.SYS_DUP3, fd, uintptr(c.fd), unix.O_CLOEXEC)
			syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		}
		if e != 0 {
			errno = e
			break
		}
	}
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}
