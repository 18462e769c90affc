package userns

import (
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IsID tells whether a user or group of a container can have the number: the
// kernel reads 32 bits of it, and a container has at most half of what they hold.
func IsID(n int) bool { return n >= 0 && n <= math.MaxInt32 }

// BecomeUser gives the calling thread the ids of one of the container's users.
// The thread must be locked, and never be unlocked; its children inherit it.
//
// Of root's capabilities it keeps two, which the next execve takes from anybody
// but root: CAP_SYS_PTRACE, without which a program that is traced at its execve
// is not let to change its ids by its setuid bit (the tracer counts with what the
// child had when it asked to be traced, Linux 5.2), and CAP_KILL.
func BecomeUser(uid, gid int, groups []uint32) error {
	if !IsID(uid) || !IsID(gid) {
		return fmt.Errorf("becoming user %d:%d: no ids", uid, gid)
	}
	var list unsafe.Pointer
	if len(groups) > 0 {
		list = unsafe.Pointer(&groups[0])
	}
	// Not the syscall package's, which change all threads.
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(list), 0)
	switch {
	case errno == unix.EPERM && uid == 0 && gid == 0:
		// A map of a single id forbids it, and there are no other groups to have.
	case errno == unix.EPERM:
		return fmt.Errorf("uid %d, gid %d: the container has one id only, root's: see ids.count", uid, gid)
	case errno != 0:
		return os.NewSyscallError("setgroups", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	// Run by root, the thread is the host's root still, who is nobody here.
	if uid == 0 {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
			return os.NewSyscallError("setresuid", errno)
		}
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_KEEPCAPS", err)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	const kept = 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_KILL
	data := [2]unix.CapUserData{{Effective: kept, Permitted: kept}}
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}
