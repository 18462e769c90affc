package rootfs

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// newMount makes a file system that is mounted nowhere yet (fsopen(2), Linux
// 5.2) and returns its mount. Options are pairs of key and value; an empty
// value is a flag.
func newMount(fstype string, attr int, options ...string) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("file system %s: fsopen: %w", fstype, err)
	}
	defer unix.Close(fs)
	for i := 0; i+1 < len(options); i += 2 {
		if options[i+1] == "" {
			err = unix.FsconfigSetFlag(fs, options[i])
		} else {
			err = unix.FsconfigSetString(fs, options[i], options[i+1])
		}
		if err != nil {
			return -1, fmt.Errorf("file system %s: option %s=%s: %w%s", fstype, options[i], options[i+1], err, complaint(fs))
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("file system %s: %w%s", fstype, err, complaint(fs))
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("file system %s: fsmount: %w%s", fstype, err, complaint(fs))
	}
	return mnt, nil
}

// complaint reads what the kernel has to say of a failed step: lines that begin
// with "e ", "w " or "i ".
func complaint(fs int) string {
	buf := make([]byte, 512)
	n, err := unix.Read(fs, buf)
	if err != nil || n < 3 {
		return ""
	}
	return " (" + string(buf[2:n]) + ")"
}

// attach mounts mnt on target and closes both.
func attach(mnt, target int) error {
	err := unix.MoveMount(mnt, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	unix.Close(mnt)
	unix.Close(target)
	return os.NewSyscallError("move_mount", err)
}

// clone takes a copy of what is mounted at an open path (open_tree(2)).
func clone(source int, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(source, "", flags)
	if err == unix.EINVAL && !recursive {
		// The mounts of a mount namespace with a more privileged owner are
		// locked to each other: one can't be had without those on top of it.
		return -1, fmt.Errorf("other file systems are mounted below it: set recursive")
	}
	return fd, os.NewSyscallError("open_tree", err)
}

// restrict adds mount attributes, on the whole tree if recursive.
func restrict(mnt int, attr uint64, recursive bool) error {
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(mnt, "", flags, &unix.MountAttr{Attr_set: attr}))
}

func sizeOption(bytes int64) []string {
	if bytes <= 0 {
		return nil
	}
	return []string{"size", strconv.FormatInt(bytes, 10)}
}

// fdPath names an open file for the few calls that only take a path.
func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
