package keeper

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// InitMain is pid 1 of a container until it executes the container's init. It
// only returns if that fails; the keeper has been told by then.
func InitMain() error {
	// What is set on a thread (capabilities, parent-death signal, keyring) must
	// be so on the one that calls execve.
	runtime.LockOSThread()
	const fdKeeper = 3
	_ = unix.CloseRange(fdKeeper, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	conn, err := seqpacket.FromFile(os.NewFile(fdKeeper, "keeper"))
	if err != nil {
		return fmt.Errorf("this is an inner part of nuc, not to be called by hand: %w", err)
	}
	if err := becomeInit(conn); err != nil {
		_ = conn.Send(Reply{Kind: Failed, Error: err.Error(), Status: 125})
		return err
	}
	return nil
}

func becomeInit(conn *seqpacket.Conn) error {
	m, err := conn.Receive()
	if err != nil {
		return err
	}
	var r Request
	if err := m.Decode(&r); err != nil {
		return err
	}
	b := r.Boot
	sources, err := b.Plan.Open()
	if err != nil {
		return err
	}
	if err := userns.BecomeRoot(); err != nil {
		return err
	}
	syscall.Umask(0o022)
	if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
		return os.NewSyscallError("sethostname", err)
	}
	term, err := b.Plan.Build(sources)
	if err != nil {
		return err
	}
	if b.Rows > 0 && b.Columns > 0 {
		_ = unix.IoctlSetWinsize(int(term.Master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: b.Rows, Col: b.Columns})
	}
	if err := userns.LimitThread(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_PDEATHSIG", err)
	}
	if err := conn.Send(Reply{Kind: Started}, term.Master, term.Slave, term.Devpts); err != nil {
		return err
	}
	// Had the keeper died before the signal was set, this read would say so.
	if _, err := conn.Receive(); err != nil {
		return err
	}
	for fd := range 3 {
		if err := unix.Dup3(int(term.Slave.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	err = syscall.Exec(b.Init, append([]string{b.Init}, b.Arguments...), b.Environment)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("system.init: %s: not in the container's root, or its interpreter is not: check root and mounts", b.Init)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("system.init: %s: can't be executed: %w", b.Init, err)
	}
	return fmt.Errorf("system.init: %s: %w", b.Init, err)
}
