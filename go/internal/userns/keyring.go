package userns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// LeaveKeyring leaves the caller's session keyring for a new one (keyctl(2)), as
// a container must not read the keys of the former. The thread must be locked;
// its children inherit it.
//
// The number of keys that a user may have is small, and all of the user's
// containers count. Where it is used up, the keyring is the container's
// nobody's.
func LeaveKeyring() error {
	errno := newKeyring()
	if errno == unix.EDQUOT && asNobody(func() { errno = newKeyring() }) != 0 {
		errno = unix.EDQUOT
	}
	switch errno {
	case 0, unix.ENOSYS, unix.EPERM, unix.EACCES:
		// Kernels without CONFIG_KEYS and seccomp filters of outer containers
		// refuse; then nobody can read a keyring.
		return nil
	case unix.EDQUOT:
		return fmt.Errorf("leaving the caller's session keyring: %w: the user's keys are used up (/proc/key-users): raise kernel.keys.maxkeys and kernel.keys.maxbytes with sysctl", errno)
	}
	return fmt.Errorf("leaving the caller's session keyring: %w", errno)
}

// newKeyring joins an anonymous session keyring: without a name, and not with an
// empty one, which is what package unix's function passes and no keyring may have.
func newKeyring() unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	return errno
}

// asNobody calls f while the thread's real user id, the one that keys are counted
// for, is nobody's.
func asNobody(f func()) unix.Errno {
	const nobody, same = 65534, ^uintptr(0)
	real, _, _ := unix.RawSyscall(unix.SYS_GETUID, 0, 0, 0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, same, same); errno != 0 {
		return errno
	}
	f()
	_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, real, same, same)
	return errno
}
