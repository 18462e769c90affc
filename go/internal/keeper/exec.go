package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/rootfs"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// execLeaf is the cgroup, below the payload's, of what exec starts. It is a
// leaf: once systemd has enabled controllers for its children, a cgroup with
// children takes no processes (cgroups(7), "no internal processes").
const execLeaf = "nuc-exec"

// maxCommands bounds the commands of exec that run at a time: Go ends a process
// that has 10,000 threads.
const maxCommands = 1000

// Exit statuses of commands that could not be run, as a shell gives them.
const (
	statusNuc           = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

// execError is an error with the exit status that goes with it.
type execError struct {
	status int
	err    error
}

func (e execError) Error() string { return e.err.Error() }

// process is a started command.
type process struct {
	pid      int
	pidfd    *os.File
	terminal *os.File
}

// exec runs a command in the container and reports how it ended.
func (k *keeper) exec(reply *seqpacket.Conn, e *Exec, m *seqpacket.Message) {
	defer reply.Close()
	defer k.commands.Add(-1)
	if k.commands.Add(1) > maxCommands {
		m.Close()
		_ = reply.Send(Reply{Kind: Failed, Error: fmt.Sprintf("%d commands run in it already: end some", maxCommands), Status: statusNuc})
		return
	}
	// Never unlocked: the thread is in the container's namespaces and ends with
	// this goroutine.
	runtime.LockOSThread()
	held := m.Take(4)
	defer closeAll(held)
	p, err := k.start(e, m)
	m.Close()
	if err != nil {
		status := statusNuc
		var ee execError
		if errors.As(err, &ee) {
			status = ee.status
		}
		_ = reply.Send(Reply{Kind: Failed, Error: err.Error(), Status: status})
		return
	}
	var files []*os.File
	if p.terminal != nil {
		files = append(files, p.terminal)
	}
	_ = reply.Send(Reply{Kind: Started}, files...)
	closeAll(files...)
	go forwardSignals(reply, p.pidfd)
	status, err := userns.Reap(p.pid)
	if err != nil {
		_ = reply.Send(Reply{Kind: Failed, Error: err.Error(), Status: statusNuc})
		return
	}
	_ = reply.Send(Reply{Kind: Exited, Status: int(status)})
}

// forwardSignals passes on what the client got, until it is gone: then the
// process is hung up on, as at the end of a terminal session.
func forwardSignals(reply *seqpacket.Conn, pidfd *os.File) {
	defer pidfd.Close()
	for {
		sig := Signal{Signal: int(unix.SIGHUP)}
		m, err := reply.Receive()
		if err == nil {
			err = m.Decode(&sig)
			m.Close()
		}
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.Signal(sig.Signal), nil, 0)
		if err != nil {
			return
		}
	}
}

// start enters the container with the calling thread and forks the command.
func (k *keeper) start(e *Exec, m *seqpacket.Message) (*process, error) {
	k.mu.Lock()
	init, payload, devpts := dup(k.init), dup(k.payload), dup(k.devpts)
	unfiltered := k.unfiltered
	k.mu.Unlock()
	defer closeAll(init, payload, devpts)
	if init == nil || devpts == nil {
		return nil, errors.New("the container's init is not up")
	}
	stdin, stdout, stderr := m.FDs[1], m.FDs[2], m.FDs[3]
	for i, f := range []*os.File{stdin, stdout, stderr} {
		if err := passable(f); err != nil {
			return nil, fmt.Errorf("file descriptor %d: %w", i, err)
		}
	}
	leaf := leafOf(payload)
	defer closeAll(leaf)
	if err := enter(init, k.fixedNetwork, unfiltered); err != nil {
		return nil, err
	}
	fault.At("entered")
	user, err := findUser(e.User)
	if err != nil {
		return nil, err
	}
	env := environment(user, e.Environment)
	// First, since a program may be named from there.
	if err := changeFolder(e.Folder, user.Home); err != nil {
		return nil, err
	}
	program, arguments, err := command(e.Arguments, env, user)
	if err != nil {
		return nil, err
	}
	p := &process{}
	attr := &syscall.SysProcAttr{Setsid: true}
	if e.Terminal {
		slave, err := p.openTerminal(devpts, e, user.UID)
		if err != nil {
			return nil, err
		}
		defer slave.Close()
		stdin, stdout, stderr = slave, slave, slave
		attr.Setctty, attr.Ctty = true, 0
	}
	if err := userns.BecomeUser(user.UID, user.GID, user.Groups); err != nil {
		closeAll(p.terminal)
		return nil, err
	}
	pidfd := -1
	attr.PidFD = &pidfd
	p.pid, err = fork(program, arguments, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{stdin.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   attr,
	}, leaf)
	if pidfd >= 0 {
		p.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	if err != nil {
		closeAll(p.terminal, p.pidfd) // of one that was killed before it ran
		var je joinError
		if errors.As(err, &je) {
			return nil, err
		}
		return nil, notRun(program, err)
	}
	return p, nil
}

func dup(f *os.File) *os.File {
	if f == nil {
		return nil
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), f.Name())
}

// passable refuses descriptors that lead further than to their own content:
// a folder opens the host's file system to whoever holds it (CVE-2024-21626),
// a terminal takes input for the caller's shell. The client relays those.
func passable(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return errors.New("is a folder of the host, which a container must not hold")
	case st.Mode&unix.S_IFMT == unix.S_IFBLK, st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev != unix.Mkdev(1, 3):
		return errors.New("is a device of the host, which a container must not hold")
	}
	return nil
}

// enter puts the calling thread into the container's namespaces, the pid
// namespace for its children (setns(2) with a pidfd, Linux 5.8).
func enter(init *os.File, fixedNetwork, unfiltered bool) error {
	// A thread that shares its root and folder with others can't change them.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if err := setns(init, namespaces); err != nil {
		return err
	}
	if err := limitThread(fixedNetwork, unfiltered); err != nil {
		return err
	}
	unix.Umask(0o022)
	return nil
}

// changeFolder sets the thread's working directory, without the magic links of
// /proc (CVE-2024-21626). A missing home is no error, as for login(1).
func changeFolder(folder, home string) error {
	given := folder != ""
	if !given {
		folder = home
	}
	if !path.IsAbs(folder) {
		return fmt.Errorf("working directory %q: must be an absolute path", folder)
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, folder, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		if !given {
			return os.NewSyscallError("chdir", unix.Chdir("/"))
		}
		if err == unix.ELOOP {
			return fmt.Errorf("working directory %s: leads through a link of /proc, which is refused", folder)
		}
		return fmt.Errorf("working directory %s in the container: %w", folder, err)
	}
	defer unix.Close(fd)
	return os.NewSyscallError("fchdir", unix.Fchdir(fd))
}

// openTerminal makes a terminal of the right size before anything runs on it.
func (p *process) openTerminal(devpts *os.File, e *Exec, uid int) (*os.File, error) {
	master, slave, err := rootfs.OpenTerminal(devpts)
	if err != nil {
		return nil, fmt.Errorf("terminal: %w", err)
	}
	if e.Rows > 0 && e.Columns > 0 {
		_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: e.Rows, Col: e.Columns})
	}
	// The user's own, so that tty(1), sudo and screen can open it again.
	_ = unix.Fchown(int(slave.Fd()), uid, -1)
	p.terminal = master
	return slave, nil
}

// leafOf opens the exec cgroup, and makes it at its first use; nil without
// cgroups. It is called before the thread enters the container: where cgroup2 is
// mounted with nsdelegate, a process is moved with the cgroup namespace that
// cgroup.procs was opened in (Linux 5.16), and the container's has no way out.
func leafOf(payload *os.File) *os.File {
	if payload == nil {
		return nil
	}
	if err := unix.Mkdirat(int(payload.Fd()), execLeaf, 0o755); err != nil && err != unix.EEXIST {
		return nil
	}
	fd, err := unix.Openat(int(payload.Fd()), execLeaf+"/cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), execLeaf)
}

// fork starts the program in the leaf.
//
// clone3 can't put it there (CLONE_INTO_CGROUP): this thread is in the
// container's cgroup namespace, and hosts that mount cgroup2 with nsdelegate
// let nobody cross one. So the child stops at its execve, traced, and its pid
// is written from outside while it does nothing.
func fork(program string, arguments []string, attr *syscall.ProcAttr, leaf *os.File) (int, error) {
	if leaf == nil {
		return syscall.ForkExec(program, arguments, attr)
	}
	attr.Sys.Ptrace = true
	pid, err := syscall.ForkExec(program, arguments, attr)
	if err != nil {
		return 0, err
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, syscall.WALL, nil); err != nil {
		return 0, os.NewSyscallError("wait4", err)
	}
	if status.Exited() || status.Signaled() {
		return 0, errors.New("was killed before it ran")
	}
	fault.At("forked")
	joined := make(chan error)
	go func() { joined <- join(leaf, pid) }()
	joinErr := <-joined
	err = syscall.PtraceDetach(pid)
	if err == nil && joinErr == nil {
		return pid, nil
	}
	// Reaped in any case: an init that ends waits for all of its pid namespace to
	// be (pid_namespaces(7)), and so would its container for ever.
	_ = syscall.Kill(pid, unix.SIGKILL)
	_, _ = userns.Reap(pid)
	if err != nil {
		return 0, errors.New("was killed before it ran") // with its container, while it was stopped
	}
	return 0, joinError{joinErr}
}

// joinError is no error of the program that was to run.
type joinError struct{ err error }

func (e joinError) Error() string { return "joining the container's cgroup: " + e.err.Error() }

// join is called on another thread than the one that entered the container:
// the pid is one of the host's namespace, as is the cgroup's path.
func join(leaf *os.File, pid int) error {
	_, err := fmt.Fprintf(leaf, "%d", pid)
	return err
}

func notRun(program string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It was there when it was looked up.
		return execError{statusNotFound, fmt.Errorf("%s: its interpreter is not in the container", program)}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EPERM):
		return execError{statusNotExecutable, fmt.Errorf("%s: can't be executed: %w", program, err)}
	}
	return execError{statusNuc, fmt.Errorf("%s: %w", program, err)}
}

// command finds the program: in the container's own PATH, where it is a name.
func command(arguments, env []string, u account) (program string, argv []string, err error) {
	if len(arguments) == 0 {
		return u.Shell, []string{"-" + path.Base(u.Shell)}, nil
	}
	name := arguments[0]
	if strings.Contains(name, "/") {
		return name, arguments, look(name)
	}
	failure := execError{statusNotFound, fmt.Errorf("%s: command not found in the container", name)}
	for _, e := range env {
		list, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range strings.Split(list, ":") {
			if !path.IsAbs(dir) {
				continue
			}
			candidate := path.Join(dir, name)
			err := look(candidate)
			if err == nil {
				return candidate, arguments, nil
			}
			if ee, ok := err.(execError); ok && ee.status == statusNotExecutable {
				failure = ee
			}
		}
	}
	return "", nil, failure
}

func look(program string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, program, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == unix.ELOOP:
		return execError{statusNotExecutable, fmt.Errorf("%s: leads through a link of /proc, which is refused", program)}
	case err == unix.EACCES:
		return execError{statusNotExecutable, fmt.Errorf("%s: %w", program, err)}
	case err != nil:
		return execError{statusNotFound, fmt.Errorf("%s: not found in the container", program)}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return execError{statusNotExecutable, fmt.Errorf("%s: is not an executable file", program)}
	}
	return nil
}
