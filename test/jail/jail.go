// Package jail keeps a fuzz target that works on mounts, or has a whole
// container do so, from whatever it may find: its process runs in user, mount,
// pid, network, ipc, uts and cgroup namespaces of its own, on a root of its own,
// as a user that owns nothing outside of it.
//
// The processes that go test runs a target in are entered by their TestMain,
// which calls Enter; those that only try the seeds by the target, which calls
// Run.
package jail

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// within names the folder that a process was started in, which has to make its
// root there.
const within = "NUC_JAIL"

// Root's processes have these ids in the jail: unused ones, from the end of the
// range that systemd sets aside for containers (https://systemd.io/UIDS-GIDS).
const (
	rootStart = 1878982656
	rootCount = 65536
)

// The first thread's namespaces are the process's for everybody who looks: what
// changes them on a thread of its own must not get that one.
func init() {
	if Inside() {
		runtime.LockOSThread()
	}
}

// Inside tells whether this process is in a jail.
func Inside() bool { return os.Getenv(within) != "" }

// IDs is how many user and group ids there are in the jail, from 0 on.
func IDs() uint32 {
	if os.Getenv(within) == "root" {
		return rootCount
	}
	return 1
}

// Enter runs a process that go test fuzzes in, and exits, in a jail; it does
// nothing for others. It is called first by a TestMain.
func Enter() {
	if Inside() {
		// One that failed half-way has no root that it may work on.
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "jail:", err)
			os.Exit(exitNone)
		}
		return
	}
	if !hasArgument("-test.fuzzworker") {
		return
	}
	// The parent-death signal is sent when the thread ends.
	runtime.LockOSThread()
	cmd := command(os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// What internal/fuzz talks through: two pipes and the input.
	for fd := range uintptr(3) {
		cmd.ExtraFiles = append(cmd.ExtraFiles, os.NewFile(3+fd, "fuzz"))
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "jail:", err)
		os.Exit(1)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		os.Exit(code)
	}
	os.Exit(2) // as of a panic
}

// exitNone is the status of a process that can't have a jail.
const exitNone = 77

func hasArgument(name string) bool {
	for _, a := range os.Args[1:] {
		if a == name || strings.HasPrefix(a, name+"=") {
			return true
		}
	}
	return false
}

// Seeds tries a target's seeds in a jail, where go test does not fuzz. Outside of
// one the target's function has nothing to do, and must not do anything.
func Seeds(f *testing.F) {
	f.Helper()
	if Inside() || flag.Lookup("test.fuzz").Value.String() != "" {
		return
	}
	out, err := command("-test.run=^"+f.Name()+"$", "-test.count=1", "-test.v", "-test.timeout=5m").CombinedOutput()
	var start *os.PathError
	var status *exec.ExitError
	switch {
	case errors.As(err, &start) && errors.Is(err, syscall.EPERM):
		f.Skipf("no user namespace can be made here: %v", err)
	case errors.As(err, &status) && status.ExitCode() == exitNone:
		f.Skipf("no jail can be made here: %s", out)
	case err != nil:
		f.Fatalf("in a jail: %v\n%s", err, out)
	case !strings.Contains(string(out), "--- PASS: "+f.Name()):
		f.Skipf("in a jail: %s", out)
	}
}

func command(arguments ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", arguments...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	who := "user"
	if os.Getuid() == 0 {
		who = "root"
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: rootStart, Size: rootCount}}
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
		cmd.SysProcAttr.Credential = &syscall.Credential{}
	}
	cmd.Env = append(os.Environ(), within+"="+who)
	return cmd
}

// prepare makes a root of a tmpfs, with the host's programs and libraries
// read-only. The seeds' folder stays the working directory, by its descriptor.
func prepare() error {
	// pid 1 of its namespace: its children's children are its own to reap, which
	// the process does not do, so they wait for its end.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Mount("jail", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mounting a tmpfs on /tmp: %w", err)
	}
	const root = "/tmp"
	for _, d := range []string{"proc", "sys", "dev", "tmp", "seeds"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for _, fs := range []string{"proc", "sysfs"} {
		if err := unix.Mount(fs, filepath.Join(root, strings.TrimSuffix(fs, "fs")), fs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", fs, err)
		}
	}
	for _, d := range []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "nix"} {
		if err := programs("/"+d, filepath.Join(root, d)); err != nil {
			return err
		}
	}
	for _, d := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		at := filepath.Join(root, "dev", d)
		err := os.WriteFile(at, nil, 0o600)
		if err == nil {
			err = unix.Mount("/dev/"+d, at, "", unix.MS_BIND, "")
		}
		if err != nil {
			return err
		}
	}
	if data, err := os.Getwd(); err == nil {
		if err := readOnly(filepath.Join(data, "testdata"), filepath.Join(root, "seeds", "testdata")); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the host's root: %w", err)
	}
	if err := os.Setenv("TMPDIR", "/tmp"); err != nil {
		return err
	}
	return os.Chdir("/seeds")
}

// programs brings a folder of the host's in, or the link that it is.
func programs(from, to string) error {
	st, err := os.Lstat(from)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.Mode()&os.ModeSymlink == 0:
		return readOnly(from, to)
	}
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

func readOnly(from, to string) error {
	if _, err := os.Stat(from); err != nil {
		return nil //nolint:nilerr // it isn't there, or not for this user
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", from, err)
	}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE,
		&unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}))
}
