package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/rootfs"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

const roleJournal = "nuc-journal"

// journalOrder is what nuc logs tells its child; the folder that the container has
// written to comes with it.
type journalOrder struct {
	Program   string   `json:"program"`
	Arguments []string `json:"arguments"`
}

// journalReply comes only if the journal can't be read.
type journalReply struct {
	Error string `json:"error"`
}

// showKept prints the journal that a container has left. It is read by the host's
// journalctl, as a process with the container's ids and no more rights than that
// takes: it reads files that are the container's doing.
func (l *logsCommand) showKept(container state.Container, out *lines) error {
	fail := func(why string) error {
		return exitStatus{statusFailed, fmt.Errorf("container %s: not running, and %s", container.Name, why)}
	}
	d, _, err := current(container)
	switch {
	case err != nil:
		return err
	case d == nil:
		return fail(fmt.Sprintf("it never was: start it with `nuc up %s`", container.Name))
	case l.Follow:
		return fail(fmt.Sprintf("there is nothing to follow: leave --follow out, or start it with `nuc up %s`", container.Name))
	}
	folder := supervisor.Written(container, d)
	if folder == "" {
		return fail(fmt.Sprintf("its journal has gone with its root, which is ephemeral: start it with `nuc up %s`", container.Name))
	}
	program, err := exec.LookPath("journalctl")
	if err != nil {
		return fail("this machine has no journalctl to read its journal with: install systemd's, or start it")
	}
	written, err := os.OpenFile(folder, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fail("has kept no journal: " + err.Error())
	}
	defer written.Close()
	m, err := idmap.PlanFor(d.IDs.Count)
	if err != nil {
		return fmt.Errorf("container %s: %w", container.Name, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// A network of its own: journalctl needs none.
	child, err := userns.Start(userns.Options{
		Arguments: []string{roleJournal}, Files: [3]*os.File{nil, w, os.Stderr}, Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC, Foreground: true, Map: m,
	})
	w.Close()
	if err != nil {
		return fmt.Errorf("container %s: %w", container.Name, err)
	}
	defer child.Close()
	signal.Ignore(unix.SIGINT) // the child's, which is in the foreground as well
	if err := child.Conn.Send(journalOrder{program, l.arguments()}, written); err != nil {
		return fmt.Errorf("container %s: %w", container.Name, err)
	}
	var copied sync.WaitGroup
	copied.Go(func() {
		if out.copy(r) != nil {
			r.Close()
		}
	})
	var failure journalReply
	if reply, err := child.Conn.Receive(); err == nil {
		_ = reply.Decode(&failure)
		reply.Close()
	}
	status, err := child.Wait()
	copied.Wait()
	switch {
	case failure.Error != "":
		return fail("has kept no journal: " + failure.Error)
	case err != nil:
		return fmt.Errorf("container %s: journalctl: %w", container.Name, err)
	case !status.Signaled() && status.ExitStatus() != 0:
		return fmt.Errorf("container %s: journalctl of this machine could not read its journal (status %d)", container.Name, status.ExitStatus())
	}
	return nil
}

// journalMain is the child of nuc logs. It returns only if it fails.
func journalMain() error {
	self, err := userns.Enter()
	if err != nil {
		return err
	}
	if err := readJournal(self); err != nil {
		_ = self.Conn.Send(journalReply{err.Error()})
		return exitStatus{status: statusFailed}
	}
	return nil
}

func readJournal(self *userns.Self) error {
	m, err := self.Conn.Receive()
	if err != nil {
		return err
	}
	var order journalOrder
	if err := m.Decode(&order); err != nil {
		return err
	}
	written := m.Take(0)
	if written == nil {
		return errors.New("this is an inner part of nuc, not to be called by hand")
	}
	if err := userns.BecomeRoot(); err != nil {
		return err
	}
	journal, err := rootfs.OpenJournal(written)
	if err != nil {
		return err
	}
	if err := userns.LimitThread(true); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	fd, err := unix.FcntlInt(journal.Fd(), unix.F_DUPFD, 3)
	journal.Close()
	if err != nil {
		return os.NewSyscallError("fcntl F_DUPFD", err)
	}
	arguments := append(order.Arguments, fmt.Sprintf("--directory=/proc/self/fd/%d", fd))
	environment := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_COLORS=0"}
	if zone := os.Getenv("TZ"); zone != "" && !strings.ContainsAny(zone, "/.") {
		environment = append(environment, "TZ="+zone)
	}
	return os.NewSyscallError("execve "+order.Program, syscall.Exec(order.Program, arguments, environment))
}
