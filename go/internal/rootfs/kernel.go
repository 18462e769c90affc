package rootfs

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/credential"
)

const (
	plain    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	noExec   = plain | unix.MOUNT_ATTR_NOEXEC
	readOnly = noExec | unix.MOUNT_ATTR_RDONLY
)

// kernelFolders mounts what systemd expects of a container manager
// (https://systemd.io/CONTAINER_INTERFACE).
func (p *Plan) kernelFolders(t tree, s *Sources) (*Terminal, error) {
	// /proc is whole and unmasked: a file system made in a nested user
	// namespace (systemd's sandboxing options) must not show more than the one
	// that is there (mount_too_revealing in fs/namespace.c).
	if err := t.mountNew("proc", "proc", noExec); err != nil {
		return nil, fmt.Errorf("/proc: %w", err)
	}
	if err := p.sys(t, s); err != nil {
		return nil, fmt.Errorf("/sys: %w", err)
	}
	if err := t.mountNew("run", "tmpfs", plain, "mode", "0755", "source", "nuc"); err != nil {
		return nil, fmt.Errorf("/run: %w", err)
	}
	// journald reads /dev/kmsg, which is /dev/null here and can't be polled:
	// systemd 262 no longer forgives that.
	if err := t.replaceFile("/run/systemd/journald.conf.d/10-nuc.conf", "[Journal]\nReadKMsg=no\n"); err != nil {
		return nil, err
	}
	if err := t.mountNew("tmp", "tmpfs", plain, "mode", "1777", "source", "nuc"); err != nil {
		return nil, fmt.Errorf("/tmp: %w", err)
	}
	if err := mountOn(t, "/run/host", s.host, s.locked[s.host]); err != nil {
		return nil, fmt.Errorf("/run/host: %w", err)
	}
	if err := p.credentials(t); err != nil {
		return nil, fmt.Errorf("/run/host/credentials: %w", err)
	}
	term, err := p.dev(t, s)
	if err != nil {
		return nil, fmt.Errorf("/dev: %w", err)
	}
	return term, nil
}

// credentials makes /run/host/credentials, the CREDENTIALS_DIRECTORY of init. A
// ramfs, as it is never swapped out; a tmpfs that isn't (noswap, Linux 6.4) is
// not to be had in a user namespace. Like all memory that the container uses, it
// counts as the container's.
func (p *Plan) credentials(t tree) error {
	if len(p.Credentials) == 0 {
		return nil
	}
	at, err := t.apiFolder("run/host/credentials")
	if err != nil {
		return err
	}
	mnt, err := newMount("ramfs", noExec, "mode", "0500", "source", "nuc")
	if err != nil {
		unix.Close(at)
		return err
	}
	for name, value := range p.Credentials {
		if err := writeCredential(mnt, name, value); err != nil {
			unix.Close(at)
			unix.Close(mnt)
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := restrict(mnt, readOnly, false); err != nil {
		unix.Close(at)
		unix.Close(mnt)
		return err
	}
	return attach(mnt, at)
}

func writeCredential(folder int, name string, value credential.Value) error {
	fd, err := unix.Openat(folder, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o400)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	_, err = f.Write(value)
	return err
}

// mountNew mounts a new file system on a folder that must be a real one.
func (t tree) mountNew(target, fstype string, attr int, options ...string) error {
	at, err := t.apiFolder(target)
	if err != nil {
		return err
	}
	mnt, err := newMount(fstype, attr, options...)
	if err != nil {
		unix.Close(at)
		return err
	}
	return attach(mnt, at)
}

func (p *Plan) sys(t tree, s *Sources) error {
	if p.HostNetwork {
		at, err := t.apiFolder("sys")
		if err != nil {
			return err
		}
		mnt := s.locked[s.sys]
		if err := restrict(mnt, readOnly, true); err != nil {
			return err
		}
		if err := attach(mnt, at); err != nil {
			return err
		}
	} else if err := t.mountNew("sys", "sysfs", readOnly); err != nil {
		return err
	}
	// The process is in a cgroup namespace of its own, so this shows the
	// container's part only. It stays writable: what may be written is the
	// owner's, and only the payload's cgroup was given to the container.
	at, err := t.open("sys/fs/cgroup", inRoot)
	if err == unix.ENOENT {
		return nil // a kernel without cgroups
	}
	if err != nil {
		return err
	}
	mnt, err := newMount("cgroup2", noExec, "source", "cgroup2")
	if err != nil {
		unix.Close(at)
		return err
	}
	return attach(mnt, at)
}

// dev makes /dev. Device nodes can't be made in a user namespace, so the
// host's are bound.
func (p *Plan) dev(t tree, s *Sources) (*Terminal, error) {
	if err := t.mountNew("dev", "tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode", "0755", "source", "nuc"); err != nil {
		return nil, err
	}
	dev, err := t.open("dev", inRoot)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dev)
	for i, d := range basicDevices {
		if err := bindDevice(dev, d.name, s.basic[i]); err != nil {
			return nil, err
		}
	}
	// systemd's and NixOS's early boot write to /dev/kmsg; without a node they
	// would make a file there. The host's log is nothing for a container.
	if err := bindDevice(dev, "kmsg", s.basic[0]); err != nil {
		return nil, err
	}
	for _, l := range [...][2]string{
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"pts/ptmx", "ptmx"},
	} {
		if err := unix.Symlinkat(l[0], dev, l[1]); err != nil {
			return nil, &os.PathError{Op: "symlink", Path: l[1], Err: err}
		}
	}
	d := tree{fd: dev}
	if err := d.mountNew("shm", "tmpfs", plain, "mode", "1777", "source", "nuc"); err != nil {
		return nil, err
	}
	if err := d.mountNew("mqueue", "mqueue", noExec); err != nil {
		return nil, err
	}
	return p.terminal(d)
}

func bindDevice(dev int, name string, source int) error {
	at, err := makeFile(dev, name)
	if err != nil {
		return &os.PathError{Op: "mknod", Path: name, Err: err}
	}
	mnt, err := clone(source, false)
	if err != nil {
		unix.Close(at)
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := attach(mnt, at); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// terminal mounts devpts and puts one of its terminals on /dev/console.
func (p *Plan) terminal(dev tree) (_ *Terminal, err error) {
	at, err := dev.apiFolder("pts")
	if err != nil {
		return nil, err
	}
	options := []string{"newinstance", "", "ptmxmode", "0666", "mode", "0620"}
	mnt, err := newMount("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
		append(options, "gid", strconv.Itoa(p.TTYGroup))...)
	if errors.Is(err, unix.EINVAL) {
		// The group is not mapped: a short range of ids.
		mnt, err = newMount("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, options...)
	}
	if err != nil {
		unix.Close(at)
		return nil, err
	}
	defer unix.Close(at)
	made := &Terminal{Devpts: os.NewFile(uintptr(mnt), "devpts")}
	defer func() {
		if err != nil {
			made.close()
		}
	}()
	if err := unix.MoveMount(mnt, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return nil, os.NewSyscallError("move_mount", err)
	}
	if made.Master, made.Slave, err = OpenTerminal(made.Devpts); err != nil {
		return nil, err
	}
	console, err := makeFile(dev.fd, "console")
	if err != nil {
		return nil, err
	}
	source, err := clone(int(made.Slave.Fd()), false)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	if err := attach(source, console); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return made, nil
}

// OpenTerminal opens a new terminal of a devpts instance, by the instance's
// descriptor and not by a path: what a container has put at /dev/ptmx does not
// matter (ioctl_tty(2), TIOCGPTPEER; Linux 4.13).
func OpenTerminal(devpts *os.File) (master, slave *os.File, err error) {
	defer runtime.KeepAlive(devpts)
	fd, err := unix.Openat(int(devpts.Fd()), "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "terminal")
	unlock := 0
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSPTLCK, uintptr(unsafe.Pointer(&unlock))); errno != 0 {
		master.Close()
		return nil, nil, os.NewSyscallError("ioctl TIOCSPTLCK", errno)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		master.Close()
		return nil, nil, os.NewSyscallError("ioctl TIOCGPTPEER", errno)
	}
	return master, os.NewFile(peer, "terminal"), nil
}
