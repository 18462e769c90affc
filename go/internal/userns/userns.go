// Package userns starts nuc's own program in a new user namespace and maps its
// ids.
//
// A Go program has several threads and so can't enter a user namespace
// (setns(2)): it has to be born in one. Start does that; the child calls Enter
// first. In between, over the child's fd 3:
//
//	parent (Start)                          child (Enter)
//	clone CLONE_NEWUSER, exec image   ──▶   makes itself dumpable, so that
//	                                        /proc/PID/uid_map is the user's
//	                                  ◀──   "hello"
//	newuidmap, newgidmap
//	"mapped"                          ──▶   makes itself undumpable; goes on
//
// The child loses its capabilities at the exec, as its ids mean nothing yet,
// unless they are ambient (capabilities(7)); so they are made that.
package userns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
)

// What stands where in a child's table of file descriptors.
const (
	fdSocket = 3
	fdImage  = 4
)

type greeting struct {
	Step string `json:"step"`
}

// Child is a process that Start made.
type Child struct {
	PID   int
	PIDFD *os.File
	// Conn leads to the child's Enter result.
	Conn *seqpacket.Conn
	// Reap, if not nil, is how to wait for it: it is another process's child.
	Reap func() (syscall.WaitStatus, error)
}

// Options of Start.
type Options struct {
	// Arguments of the child; the first selects its role (see cmd/nuc).
	Arguments []string
	// Files are the child's standard input, output and error; nil is /dev/null.
	Files [3]*os.File
	// Cloneflags adds namespaces to CLONE_NEWUSER.
	Cloneflags uintptr
	// Foreground keeps the child in the caller's session, so that it gets the
	// terminal's signals.
	Foreground bool
	Map        idmap.Map
	// Program is what to execute, if it was begun before; it stays the caller's.
	Program *Program
}

// Start starts a child in a new user namespace and returns when its ids are
// mapped. The child dies with its connection if it so chooses, not by itself.
func Start(o Options) (*Child, error) {
	if o.Program == nil {
		o.Program = CopyProgram()
		defer o.Program.Close()
	}
	image, err := o.Program.Wait()
	if err != nil {
		return nil, err
	}
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), fdSocket: peer.Fd(), fdImage: image.Fd()}
	for i, f := range o.Files {
		if f != nil {
			files[i] = f.Fd()
		}
	}
	pidfd := -1
	// By its number in the child: the image's here may be another file's there.
	pid, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", fdImage), o.Arguments, &syscall.ProcAttr{
		Dir:   "/",
		Env:   append(fault.Environment(), "GODEBUG="+os.Getenv("GODEBUG")),
		Files: files,
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | o.Cloneflags,
			AmbientCaps: AllCapabilities(),
			Setsid:      !o.Foreground,
			PidFD:       &pidfd,
		},
	})
	if err != nil {
		conn.Close()
		return nil, cloneError(err)
	}
	child := &Child{PID: pid, Conn: conn, PIDFD: os.NewFile(uintptr(pidfd), "pidfd")}
	peer.Close()
	if err := child.introduce(o.Map); err != nil {
		child.Kill()
		child.Wait()
		child.Close()
		return nil, err
	}
	return child, nil
}

func (c *Child) introduce(m idmap.Map) error {
	hello, err := c.Conn.Receive()
	if err != nil {
		return fmt.Errorf("process in a new user namespace ended before it was up: %w", err)
	}
	hello.Close()
	if err := m.Write(c.PID); err != nil {
		return err
	}
	return c.Conn.Send(greeting{Step: "mapped"})
}

// Kill sends SIGKILL.
func (c *Child) Kill() { _ = unix.PidfdSendSignal(int(c.PIDFD.Fd()), unix.SIGKILL, nil, 0) }

// Wait reaps the child.
func (c *Child) Wait() (syscall.WaitStatus, error) {
	if c.Reap != nil {
		return c.Reap()
	}
	return Reap(c.PID)
}

// Close closes the connection and the pidfd.
func (c *Child) Close() {
	c.Conn.Close()
	c.PIDFD.Close()
}

// Reap waits for a child of the calling process (wait4(2)).
func Reap(pid int) (syscall.WaitStatus, error) {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		if err != syscall.EINTR {
			return status, os.NewSyscallError("wait4", err)
		}
	}
}

func cloneError(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("making a user namespace: %w: this machine forbids it to unprivileged users; `nuc doctor` names the setting", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return fmt.Errorf("making a user namespace: %w: the limit user.max_*_namespaces is reached; raise it with sysctl", err)
	}
	return fmt.Errorf("making a user namespace: %w", err)
}

// Self is what a child knows of itself after Enter.
type Self struct {
	Conn *seqpacket.Conn
	// Image is the sealed copy of the program.
	Image *os.File
}

// Enter is called by a child that Start made, before anything else.
func Enter() (*Self, error) {
	unix.CloseOnExec(fdSocket)
	unix.CloseOnExec(fdImage)
	// Whatever else the caller of nuc had open must not get any further.
	_ = unix.CloseRange(fdImage+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	conn, err := seqpacket.FromFile(os.NewFile(fdSocket, "parent"))
	if err != nil {
		return nil, fmt.Errorf("this is an inner part of nuc, not to be called by hand: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return nil, err
	}
	if err := conn.Send(greeting{Step: "hello"}); err != nil {
		return nil, err
	}
	m, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	m.Close()
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, err
	}
	return &Self{Conn: conn, Image: os.NewFile(fdImage, "nuc-image")}, nil
}

// ImagePath is where the child executes the program from.
func (s *Self) ImagePath() string { return ImagePath(s.Image) }

// ImagePath is where a process that has an Image open executes it from.
func ImagePath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// BecomeRoot turns the calling goroutine's thread, which stays locked to it,
// into uid 0, gid 0 of its user namespace, without supplementary groups. Only a
// map of a single id forbids setgroups(2); then there are none to keep.
//
// Package syscall's functions would do it to all threads, for which the runtime
// has to stop each of them: milliseconds. The others keep their ids and must
// not do anything that needs these; an execve ends them.
func BecomeRoot() error {
	runtime.LockOSThread()
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 && errno != unix.EPERM {
		return os.NewSyscallError("setgroups", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("setresgid", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
		return os.NewSyscallError("setresuid", errno)
	}
	return nil
}

// AllCapabilities lists the capabilities that the running kernel knows.
func AllCapabilities() []uintptr {
	var caps []uintptr
	for c := uintptr(0); c < 64; c++ {
		if _, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_READ, c, 0); errno != 0 {
			break
		}
		caps = append(caps, c)
	}
	return caps
}
