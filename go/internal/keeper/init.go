package keeper

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/seccomp"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// InitMain is pid 1 of a container until it executes the container's init. It
// only returns if that fails; the keeper has been told by then.
func InitMain() error {
	// What is set on a thread (capabilities, parent-death signal, keyring) must
	// be so on the one that calls execve.
	runtime.LockOSThread()
	_ = unix.CloseRange(fdListeners, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	listeners, err := strconv.Atoi(os.Args[len(os.Args)-1])
	if err != nil {
		return errors.New("this is an inner part of nuc, not to be called by hand")
	}
	conn, err := seqpacket.FromFile(os.NewFile(uintptr(fdListeners+listeners), "keeper"))
	if err != nil {
		return fmt.Errorf("this is an inner part of nuc, not to be called by hand: %w", err)
	}
	if err := becomeInit(conn, listeners); err != nil {
		_ = conn.Send(Reply{Kind: Failed, Error: err.Error(), Status: 125})
		return err
	}
	return nil
}

// fdListeners is where sd_listen_fds(3) has the first socket that is handed over.
const fdListeners = 3

// becomeInit has the sockets to be handed over open from its birth, from
// fdListeners on: so they are where they have to be before the runtime, which
// can't be without its epoll instance, opens any file of its own there.
func becomeInit(conn *seqpacket.Conn, listeners int) error {
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
	fault.At("opened")
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
	fault.At("built")
	if b.Rows > 0 && b.Columns > 0 {
		_ = unix.IoctlSetWinsize(int(term.Master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: b.Rows, Col: b.Columns})
	}
	if err := limitThread(b.FixedNetwork, b.Unfiltered); err != nil {
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
	for fd := fdListeners; fd < fdListeners+listeners; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl F_SETFD", err)
		}
	}
	environment := b.Environment
	if listeners > 0 {
		// systemd as pid 1 takes every socket that an execve leaves open, and
		// reads neither (collect_fds in its src/core/main.c); other inits do.
		environment = append(environment, fmt.Sprintf("LISTEN_FDS=%d", listeners), "LISTEN_PID=1")
	}
	fault.At("execve")
	err = syscall.Exec(b.Init, append([]string{b.Init}, b.Arguments...), environment)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("system.init: %s: not in the container's root, or its interpreter is not: check root and mounts", b.Init)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("system.init: %s: can't be executed: %w", b.Init, err)
	}
	return fmt.Errorf("system.init: %s: %w", b.Init, err)
}

// limitThread takes from the calling thread, which is locked, what nothing in the
// container is to have. The filter comes last: under it, no keyring can be left.
func limitThread(fixedNetwork, unfiltered bool) error {
	if err := userns.LimitThread(fixedNetwork); err != nil {
		return err
	}
	if err := userns.LeaveKeyring(); err != nil || unfiltered {
		return err
	}
	return seccomp.Load()
}
