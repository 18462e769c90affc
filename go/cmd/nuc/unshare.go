package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

type unshareCommand struct {
	IDs     int      `name:"ids" default:"65536" help:"How many ids, as ids.count in a descriptor."`
	Command []string `arg:"" optional:"" passthrough:"" help:"Command with its arguments."`
}

func (unshareCommand) Help() string {
	return `The command sees your own files as root's, and has the subordinate ids that
containers have. It is for their files: to unpack a tree, or to look into one.

Exit status: the command's own; 126, 127 and 125 as with ` + "`nuc exec`" + `.

Examples:
  nuc unshare -- tar -C tree -xpf debian.tar
  nuc unshare ls -ln ~/.local/state/nuc/web/root`
}

const roleUnshare = "nuc-unshare"

// unshareOrder is what nuc unshare tells its child; the working directory comes
// with it.
type unshareOrder struct {
	Command     []string `json:"command"`
	Environment []string `json:"environment"`
}

// unshareReply comes only if the command could not be executed.
type unshareReply struct {
	Status int    `json:"status"`
	Error  string `json:"error"`
}

func (u *unshareCommand) Run(c *context) error {
	command := u.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return exitStatus{statusExec, errors.New("which command? For a shell: nuc unshare sh")}
	}
	folder, err := os.OpenFile(".", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return exitStatus{statusExec, fmt.Errorf("working directory: %w", err)}
	}
	defer folder.Close()
	m, err := idmap.PlanFor(u.IDs)
	if err != nil {
		return exitStatus{statusExec, err}
	}
	child, err := userns.Start(userns.Options{
		Arguments: []string{roleUnshare}, Files: [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, Foreground: true, Map: m,
	})
	if err != nil {
		return exitStatus{statusExec, err}
	}
	defer child.Close()
	// What is typed on the terminal goes to the command as well.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT)
	terminated := make(chan os.Signal, 4)
	signal.Notify(terminated, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for s := range terminated {
			_ = unix.PidfdSendSignal(int(child.PIDFD.Fd()), s.(syscall.Signal), nil, 0)
		}
	}()
	if err := child.Conn.Send(unshareOrder{command, os.Environ()}, folder); err != nil {
		return exitStatus{statusExec, err}
	}
	var failure unshareReply
	if reply, err := child.Conn.Receive(); err == nil {
		err = reply.Decode(&failure)
		reply.Close()
		if err != nil {
			failure = unshareReply{statusExec, err.Error()}
		}
	}
	status, err := child.Wait()
	switch {
	case failure.Status != 0:
		return exitStatus{failure.Status, errors.New(failure.Error)}
	case err != nil:
		return exitStatus{statusExec, err}
	case status.Signaled():
		return exitStatus{status: 128 + int(status.Signal())}
	case status.ExitStatus() != 0:
		return exitStatus{status: status.ExitStatus()}
	}
	return nil
}

// unshareMain is the child of nuc unshare. It returns only if it fails.
func unshareMain() error {
	self, err := userns.Enter()
	if err != nil {
		return err
	}
	reply := unshareReply{Status: statusExec}
	if err := executeOrder(self, &reply); err != nil {
		reply.Error = err.Error()
		_ = self.Conn.Send(reply)
	}
	os.Exit(reply.Status)
	return nil
}

func executeOrder(self *userns.Self, reply *unshareReply) error {
	m, err := self.Conn.Receive()
	if err != nil {
		return err
	}
	var order unshareOrder
	if err := m.Decode(&order); err != nil {
		return err
	}
	if folder := m.Take(0); folder != nil {
		err := unix.Fchdir(int(folder.Fd()))
		folder.Close()
		if err != nil {
			return os.NewSyscallError("fchdir", err)
		}
	}
	if err := userns.BecomeRoot(); err != nil {
		return err
	}
	for _, e := range order.Environment {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			os.Setenv("PATH", path)
		}
	}
	program, err := exec.LookPath(order.Command[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		reply.Status = 127
		return fmt.Errorf("%s: command not found", order.Command[0])
	}
	err = syscall.Exec(program, order.Command, order.Environment)
	reply.Status = 126
	return fmt.Errorf("%s: can't be executed: %w", program, err)
}
