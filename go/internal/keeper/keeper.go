package keeper

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/cgroup"
	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/nft"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// keeper is the state of the running keeper.
type keeper struct {
	self *userns.Self

	mu sync.Mutex
	// init is the running init's pidfd; payload its cgroup, devpts its
	// terminals. All nil while none runs.
	init, payload, devpts *os.File
	// unfiltered is init's: see Boot.
	unfiltered bool
	// fixedNetwork is the Guard's. table holds the rules of the network, nil
	// before there were any.
	fixedNetwork bool
	table        *nft.Table
	booted       sync.WaitGroup
	// occupied is from a boot's request until its end: a keeper has one init.
	occupied bool
	// commands counts those that run: each has a thread.
	commands atomic.Int32
	dying    bool
}

// Main is the keeper's life. It returns when the supervisor is gone and so is
// init.
func Main() error {
	handled := make(chan struct{})
	go func() {
		handleSignals()
		close(handled)
	}()
	debug.SetGCPercent(50) // an idle keeper's memory counts more than its speed
	self, err := userns.Enter()
	if err != nil {
		return err
	}
	m, err := self.Conn.Receive()
	if err != nil {
		return err
	}
	var guard Guard
	if err := m.Decode(&guard); err != nil {
		return err
	}
	lock := &state.Lock{File: m.Take(0), Folder: m.Take(1), State: m.Take(2)}
	m.Close()
	k := &keeper{self: self, fixedNetwork: guard.FixedNetwork}
	<-handled
	fault.At("guarding")
	var netErr error
	if guard.PrivateNetwork {
		netErr = loopbackUp()
	}
	leave := false
	for !leave {
		m, err := self.Conn.Receive()
		if errors.Is(err, seqpacket.ErrDropped) {
			// The supervisor hands on what clients send. Who waits for an answer
			// sees the end of it.
			continue
		}
		if err != nil {
			break
		}
		leave = k.serve(m, netErr)
	}
	fault.At("leaving")
	k.killInit()
	k.booted.Wait()
	if leave {
		// What is still there the supervisor finds, and tells.
		_ = cgroup.Empty(guard.Cgroup)
		return nil
	}
	sweepErr := cgroup.Sweep(guard.Cgroup)
	if lock.Folder != nil && lock.File != nil {
		return errors.Join(sweepErr, lock.Tidy())
	}
	return sweepErr
}

// handleSignals keeps the keeper alive, whom nobody stops but by closing its
// socket: systemd sends SIGTERM to all of a unit's processes.
//
// Signals that nuc's caller ignores (nohup, a background job of sh) would stay
// ignored in what the keeper starts; handled ones are reset by execve
// (signal(7)). Go's runtime handles the others at its start, but for those of
// a terminal's jobs, which can have their default as the keeper has no terminal.
//
// It waits for another thread at each signal, so it runs beside the id map.
func handleSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	for _, s := range []uintptr{uintptr(unix.SIGTSTP), uintptr(unix.SIGTTIN), uintptr(unix.SIGTTOU)} {
		var action [4]uint64 // struct sigaction of the kernel; zero is SIG_DFL
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	}
}

// serve starts the answer to a request. It tells whether the keeper is to end.
func (k *keeper) serve(m *seqpacket.Message, netErr error) (leave bool) {
	var r Request
	err := m.Decode(&r)
	file := m.Take(0)
	if file == nil {
		m.Close()
		return err == nil && r.Op == OpLeave
	}
	reply, ferr := seqpacket.FromFile(file)
	if ferr != nil {
		m.Close()
		return false
	}
	if err == nil && netErr != nil {
		err = netErr
	}
	// In the background, all of it: nobody may be reading the answer.
	switch {
	case err != nil:
		go k.refuse(reply, m, err)
	case r.Op == OpBoot && r.Boot != nil && !k.occupy():
		go k.refuse(reply, m, errors.New("the container's init is up already"))
	case r.Op == OpBoot && r.Boot != nil:
		k.booted.Add(1)
		go k.boot(reply, r.Boot, m)
	case r.Op == OpExec && r.Exec != nil && (len(m.FDs) == 4 || len(m.FDs) == 5):
		go k.exec(reply, r.Exec, m)
	case r.Op != OpExec && len(m.FDs) > 1:
		go k.refuse(reply, m, fmt.Errorf("request %q takes no file descriptors", r.Op))
	case r.Op == OpSockets && r.Sockets != nil:
		m.Close()
		go k.open(reply, func() ([]*os.File, error) { return makeSockets(r.Sockets) })
	case r.Op == OpListen && r.Listen != nil:
		m.Close()
		go k.open(reply, func() ([]*os.File, error) { return k.listen(r.Listen, max(r.Count, 1)) })
	case r.Op == OpDial && r.Dial != nil:
		m.Close()
		go k.open(reply, func() ([]*os.File, error) { return k.dial(r.Dial) })
	case r.Op == OpForget && r.Dial != nil:
		m.Close()
		go k.open(reply, func() ([]*os.File, error) { return nil, k.forget(r.Dial) })
	case r.Op == OpNamespaces:
		m.Close()
		go k.open(reply, namespaces)
	case r.Op == OpLimit && r.Limit != nil:
		m.Close()
		go k.open(reply, func() ([]*os.File, error) { return nil, k.limit(r.Limit) })
	default:
		go k.refuse(reply, m, fmt.Errorf("request %q is not understood: the running nuc is of another version; restart the container", r.Op))
	}
	return false
}

func (k *keeper) refuse(reply *seqpacket.Conn, m *seqpacket.Message, err error) {
	m.Close()
	_ = reply.Send(Reply{Kind: Failed, Error: err.Error(), Status: 125})
	reply.Close()
}

// occupy tells whether an init may be booted.
func (k *keeper) occupy() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.occupied {
		return false
	}
	k.occupied = true
	return true
}

// boot starts init and stays until it ends. The thread is locked all the while
// since init's parent-death signal fires when the thread that forked it ends
// (prctl(2), PR_SET_PDEATHSIG).
func (k *keeper) boot(reply *seqpacket.Conn, b *Boot, m *seqpacket.Message) {
	defer k.booted.Done()
	defer reply.Close()
	runtime.LockOSThread()
	pid, files, err := k.startInit(b, m)
	if err != nil {
		k.mu.Lock()
		k.occupied = false
		k.mu.Unlock()
		_ = reply.Send(Reply{Kind: Failed, Error: err.Error(), Status: 125})
		return
	}
	pidfd := files[0]
	if reply.Send(Reply{Kind: Started}, files...) != nil {
		// Nobody has its console, or will know of its end.
		_ = unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0)
	}
	for _, f := range files[1:] {
		f.Close()
	}
	status, err := userns.Reap(pid)
	k.mu.Lock()
	k.init = nil
	for _, f := range []*os.File{pidfd, k.payload, k.devpts} {
		if f != nil {
			f.Close()
		}
	}
	k.payload, k.devpts = nil, nil
	k.occupied = false
	k.mu.Unlock()
	if err != nil {
		_ = reply.Send(Reply{Kind: Failed, Error: err.Error(), Status: 125})
		return
	}
	_ = reply.Send(Reply{Kind: Exited, Status: int(status)})
}

// startInit returns init's pid, and its pidfd and both ends of its console.
func (k *keeper) startInit(b *Boot, m *seqpacket.Message) (int, []*os.File, error) {
	defer m.Close()
	if b.Listeners < 0 || b.Listeners >= len(m.FDs) {
		return 0, nil, fmt.Errorf("%d sockets to be handed over, and %d file descriptors", b.Listeners, len(m.FDs))
	}
	listeners := m.FDs[len(m.FDs)-b.Listeners:]
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	defer peer.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	pidfd := -1
	attr := &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		Unshareflags: unix.CLONE_NEWCGROUP, // in the child, so that its root is the cgroup that it was put into
		AmbientCaps:  userns.AllCapabilities(),
		Setsid:       true,
		PidFD:        &pidfd,
	}
	var payload *os.File
	if len(m.FDs) > 1+b.Listeners {
		payload = m.Take(1)
		attr.UseCgroupFD, attr.CgroupFD = true, int(payload.Fd())
	}
	inherited := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	for _, f := range listeners {
		inherited = append(inherited, f.Fd())
	}
	// The program is executed by its number, which must not be one of the child's
	// own files.
	image, err := above(k.self.Image, len(inherited))
	if err != nil {
		closeAll(payload)
		return 0, nil, err
	}
	defer image.Close()
	pid, err := syscall.ForkExec(userns.ImagePath(image), []string{RoleInit, strconv.Itoa(len(listeners))}, &syscall.ProcAttr{
		Dir:   "/",
		Env:   fault.Environment(),
		Files: append(inherited, peer.Fd()),
		Sys:   attr,
	})
	if err != nil {
		closeAll(payload)
		return 0, nil, fmt.Errorf("making the container's namespaces: %w", err)
	}
	peer.Close()
	fault.At("cloned")
	pidFile := os.NewFile(uintptr(pidfd), "pidfd")
	if !k.adopt(pidFile, payload, b.Unfiltered) {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	}
	files, err := k.talkToInit(conn, m.Data)
	if err != nil {
		_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
		_, _ = userns.Reap(pid)
		k.mu.Lock()
		k.init, k.payload = nil, nil
		k.mu.Unlock()
		closeAll(pidFile, payload)
		return 0, nil, err
	}
	k.mu.Lock()
	k.devpts = files[2]
	k.mu.Unlock()
	return pid, []*os.File{pidFile, files[0], files[1]}, nil
}

// adopt notes the new init, unless the supervisor is gone already.
func (k *keeper) adopt(pidfd, payload *os.File, unfiltered bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.init, k.payload, k.unfiltered = pidfd, payload, unfiltered
	return !k.dying
}

// talkToInit sees the new process through to its execve. It returns the
// console's two ends and devpts.
func (k *keeper) talkToInit(conn *seqpacket.Conn, boot []byte) ([]*os.File, error) {
	if err := conn.SendRaw(boot); err != nil {
		return nil, fmt.Errorf("container's first process: %w", err)
	}
	m, err := conn.Receive()
	if err != nil {
		return nil, errors.New("container's first process was killed while it made the root file system")
	}
	var r Reply
	if err := m.Decode(&r); err != nil || r.Kind != Started || len(m.FDs) != 3 {
		m.Close()
		return nil, errors.New(r.Error)
	}
	if err := conn.Send(Signal{}); err != nil {
		m.Close()
		return nil, fmt.Errorf("container's first process: %w", err)
	}
	if last, err := conn.Receive(); err == nil {
		m.Close()
		_ = last.Decode(&r)
		last.Close()
		return nil, errors.New(r.Error)
	}
	return m.FDs, nil
}

// killInit ends the container. The kernel kills the rest of a pid namespace
// with its init (pid_namespaces(7)).
func (k *keeper) killInit() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dying = true
	if k.init != nil {
		_ = unix.PidfdSendSignal(int(k.init.Fd()), unix.SIGKILL, nil, 0)
	}
}

// above returns a copy of a file whose descriptor is larger than last.
func above(f *os.File, last int) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, last+1)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// loopbackUp sets IFF_UP on lo (netdevice(7)): one ioctl, no netlink.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = unix.IFF_UP | unix.IFF_RUNNING
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("bringing the container's loopback up: %w", errno)
	}
	return nil
}
