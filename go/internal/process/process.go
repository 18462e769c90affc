// Package process holds processes of this machine by pidfd (pidfd_open(2)): a
// number is another process's when its own has ended, a pidfd never is.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Open returns the pidfd of a process of the same user's; root may hold anyone's.
func Open(pid int) (*os.File, error) {
	gone := fmt.Errorf("process %d: there is none (any more)", pid)
	if pid <= 0 {
		return nil, fmt.Errorf("process %d: expected the number of a process", pid)
	}
	// PIDFD_NONBLOCK is newer (Linux 5.10) than pidfds that can be waited for
	// (5.3); New does the same.
	fd, err := unix.PidfdOpen(pid, 0)
	switch err {
	case nil:
	case unix.ESRCH:
		return nil, gone
	case unix.EINVAL, unix.ENOENT: // the latter on Linux 6.18
		return nil, fmt.Errorf("process %d: is a thread: give the process's own number", pid)
	default:
		return nil, fmt.Errorf("process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
	}
	pidfd, err := New(os.NewFile(uintptr(fd), "pidfd"))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	uid, err := owner(pid)
	// Read before the question whether it has ended, so not of a later process.
	if err != nil || Ended(pidfd) {
		pidfd.Close()
		return nil, gone
	}
	if me := os.Geteuid(); me != 0 && uid != me {
		pidfd.Close()
		return nil, fmt.Errorf("process %d: belongs to uid %d, not to you (uid %d)", pid, uid, me)
	}
	return pidfd, nil
}

// New takes over a pidfd that somebody sent; f is closed.
func New(f *os.File) (*os.File, error) {
	defer f.Close()
	if _, ok := ID(f); !ok {
		return nil, errors.New("a file was sent that is no pidfd")
	}
	// Only what is not blocking when it becomes a File can be waited for without
	// a thread.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// ID is the number of a pidfd's process, 0 where it has ended or is of a pid
// namespace that can't be seen from here; false for a file that is no pidfd
// (proc_pid_fdinfo(5)).
func ID(pidfd *os.File) (int, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", descriptor(pidfd)))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		var pid int
		if n, _ := fmt.Sscanf(line, "Pid: %d", &pid); n == 1 {
			return max(pid, 0), true
		}
	}
	return 0, false
}

// Command is the name of a pidfd's process (proc_pid_comm(5)), empty if it has ended.
func Command(pidfd *os.File) string {
	pid, _ := ID(pidfd)
	if pid == 0 {
		return ""
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if now, _ := ID(pidfd); err != nil || now != pid {
		return ""
	}
	return strings.TrimSuffix(string(name), "\n")
}

// Ended tells whether a pidfd's process has ended; one that nobody has waited
// for yet has.
func Ended(pidfd *os.File) bool { return readable(descriptor(pidfd)) }

// descriptor is the file's number, without Fd's putting it into blocking mode.
func descriptor(f *os.File) (number uintptr) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { number = fd })
	}
	return number
}

func readable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0 && err == nil
}

// Wait waits until the process of a pidfd made by Open or New has ended. It
// fails where the file is closed before. Nothing wakes up meanwhile.
func Wait(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(readable)
}

func owner(pid int) (uid int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		// The owner of the folder is root for who executes what it can't read.
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Uid:" {
			return strconv.Atoi(f[1])
		}
	}
	return 0, errors.New("no Uid in its status")
}

// stat is what is needed of proc_pid_stat(5).
type stat struct {
	name   string
	parent int
	forked bool // is a copy of its parent, and has executed nothing
}

// forkNoExec is PF_FORKNOEXEC of the kernel's include/linux/sched.h.
const forkNoExec = 0x40

func statOf(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// A name may have parentheses and spaces.
	begin, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if begin < 0 || end < begin {
		return stat{}, fmt.Errorf("/proc/%d/stat: not understood", pid)
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 7 {
		return stat{}, fmt.Errorf("/proc/%d/stat: not understood", pid)
	}
	parent, err := strconv.Atoi(f[1])
	if err != nil {
		return stat{}, err
	}
	flags, err := strconv.ParseUint(f[6], 10, 64)
	return stat{name: string(text[begin+1 : end]), parent: parent, forked: flags&forkNoExec != 0}, err
}
