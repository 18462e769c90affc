package idmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a helper may take. It normally takes a millisecond; one
// that asks a dead directory service would take minutes. Two of them that hang
// are told so within 2 s: the second has a step more.
const patience = 1700 * time.Millisecond

// longest is how long one may take that is at work, or would be if it had a
// processor: where fifty containers start at once, a millisecond's work takes
// seconds. Whether it is, is looked at every step.
const (
	longest = 30 * time.Second
	step    = 200 * time.Millisecond
)

// hungError is a helper that was killed after so long.
type hungError time.Duration

func (h hungError) Error() string {
	return fmt.Sprintf("did not answer within %.0f s and was killed", time.Duration(h).Round(time.Second).Seconds())
}

// helperFolders are looked at after $PATH, which may lead to programs that are
// not setuid: NixOS has the ones that are in /run/wrappers/bin.
var helperFolders = []string{"/run/wrappers/bin", "/usr/bin"}

// Check tells whether Write will be able to write the map, without running
// anything: in a line that says what is missing and how to get it.
func (m Map) Check() error {
	if !m.needsHelper() {
		return nil
	}
	_, _, err := findHelpers()
	return err
}

func (m Map) single() bool {
	return len(m.UIDs) == 1 && len(m.GIDs) == 1 && m.UIDs[0].Count == 1 && m.GIDs[0].Count == 1
}

func (m Map) needsHelper() bool { return !m.single() && os.Geteuid() != 0 }

// Write gives the process's new user namespace its ids. The process must be a
// child that the caller made in it, and must be dumpable (proc(5), /proc/PID).
func (m Map) Write(pid int) error {
	if len(m.UIDs) == 0 || len(m.GIDs) == 0 {
		return errors.New("id map: is empty")
	}
	if m.needsHelper() {
		return m.help(pid)
	}
	proc := "/proc/" + strconv.Itoa(pid)
	if m.single() {
		// Without this the kernel lets nobody unprivileged map a group: a user
		// could drop a group that denies access (CVE-2014-8989, CVE-2018-7169).
		if err := writeOnce(proc+"/setgroups", "deny"); err != nil {
			return fmt.Errorf("id map: %w", err)
		}
	}
	if err := writeOnce(proc+"/gid_map", text(m.GIDs)); err != nil {
		return fmt.Errorf("id map: %w", err)
	}
	if err := writeOnce(proc+"/uid_map", text(m.UIDs)); err != nil {
		return fmt.Errorf("id map: %w", err)
	}
	return nil
}

// writeOnce writes with a single write(2), as these files want it.
func writeOnce(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// help runs newuidmap(1) and newgidmap(1) side by side: neither waits for the
// other, and either takes about a millisecond.
func (m Map) help(pid int) error {
	uidHelper, gidHelper, err := findHelpers()
	if err != nil {
		return err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer unix.Close(null)
	deadline := time.Now().Add(patience)
	users, uerr := start(null, uidHelper, false, arguments("newuidmap", pid, m.UIDs)...)
	groups, gerr := start(null, gidHelper, false, arguments("newgidmap", pid, m.GIDs)...)
	_, uerr = users.finish(deadline, uerr)
	_, gerr = groups.finish(deadline, gerr)
	if uerr != nil {
		return fmt.Errorf("mapping user ids: %s: %w", uidHelper, uerr)
	}
	if gerr != nil {
		return fmt.Errorf("mapping group ids: %s: %w", gidHelper, gerr)
	}
	return nil
}

func arguments(name string, pid int, extents []Extent) []string {
	return append([]string{name, strconv.Itoa(pid)}, strings.Fields(text(extents))...)
}

// findHelpers finds programs that are able to do it.
func findHelpers() (uidHelper, gidHelper string, err error) {
	// execve ignores setuid and file capabilities then.
	if on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && on == 1 {
		return "", "", refuse("start it outside of that", "newuidmap gets no rights here, as nuc was started with no_new_privs (systemd's NoNewPrivileges=yes, or a sandbox around it)")
	}
	path := os.Getenv("PATH")
	if uidHelper, err = findHelper("newuidmap", path, unix.CAP_SETUID); err != nil {
		return "", "", err
	}
	gidHelper, err = findHelper("newgidmap", path, unix.CAP_SETGID)
	return uidHelper, gidHelper, err
}

func findHelper(name, path string, capability uint) (string, error) {
	var unable error
	seen := func(dir string) (string, error) {
		file := filepath.Join(dir, name)
		var st unix.Stat_t
		if unix.Stat(file, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return "", nil
		}
		return file, able(file, &st, capability)
	}
	for _, dir := range append(filepath.SplitList(path), helperFolders...) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file, err := seen(dir)
		if file != "" && err == nil {
			return file, nil
		}
		if unable == nil {
			unable = err
		}
	}
	if unable != nil {
		return "", unable
	}
	return "", refuse(fmt.Sprintf("install the package `uidmap` (Debian, Ubuntu) or `shadow-utils`; on NixOS set security.wrappers.%s (source ${pkgs.shadow}/bin/%s, setuid, owner and group root)", name, name),
		"%s is not installed", name)
}

// able tells why a program could not write a map.
func able(file string, st *unix.Stat_t, capability uint) error {
	if unix.Access(file, unix.X_OK) != nil {
		return refuse("sudo chmod 4755 "+file, "%s: you may not execute it (mode %04o)", file, st.Mode&0o7777)
	}
	setuid := st.Mode&unix.S_ISUID != 0 && st.Uid == 0
	if !setuid && !hasCapability(file, capability) {
		return refuse(fmt.Sprintf("sudo chown root %s && sudo chmod u+s %s (on NixOS: security.wrappers)", file, file),
			"%s is not setuid root and has no file capability, so it may not map ids", file)
	}
	var fs unix.Statfs_t
	if unix.Statfs(file, &fs) == nil && fs.Flags&unix.ST_NOSUID != 0 {
		return refuse("remount that with suid, or install the package `uidmap` elsewhere", "%s is on a file system mounted nosuid, so it gets no rights", file)
	}
	return nil
}

// hasCapability reads the permitted set of a file's capabilities
// (struct vfs_cap_data: magic, then low words of permitted and inheritable).
func hasCapability(file string, capability uint) bool {
	var data [24]byte
	n, err := unix.Getxattr(file, "security.capability", data[:])
	return err == nil && n >= 12 && binary.LittleEndian.Uint32(data[4:])&(1<<capability) != 0
}

// helper is a running program whose output is kept for an error's text. It has
// no goroutine: two of them would outlive a deadline.
type helper struct {
	pid    int
	pidfd  int
	output int
}

// start runs a program in an own process group, without environment and with
// null as standard input. Output is its standard error, or both outputs.
func start(null int, file string, both bool, args ...string) (*helper, error) {
	// Not blocking at either end: one that says too much is not to hang.
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[1])
	h := &helper{pidfd: -1, output: pipe[0]}
	stdout := null
	if both {
		stdout = pipe[1]
	}
	var err error
	h.pid, err = syscall.ForkExec(file, args, &syscall.ProcAttr{
		Dir:   "/",
		Files: []uintptr{uintptr(null), uintptr(stdout), uintptr(pipe[1])},
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &h.pidfd},
	})
	if err != nil {
		unix.Close(pipe[0])
		return nil, err
	}
	return h, nil
}

// finish waits for the end of what start began, kills it at the deadline unless
// it is at work, and returns what it said. It passes an error of start on.
func (h *helper) finish(deadline time.Time, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer unix.Close(h.output)
	defer unix.Close(h.pidfd)
	begun := deadline.Add(-patience)
	hung := !h.done(deadline, begun.Add(longest))
	after := hungError(time.Since(begun))
	if hung {
		// The user's own, by its real uid, though it runs as root (kill(2)).
		_ = unix.Kill(-h.pid, unix.SIGKILL)
		_ = unix.PidfdSendSignal(h.pidfd, unix.SIGKILL, nil, 0)
		if !h.wait(time.Now().Add(patience / 4)) {
			return "", fmt.Errorf("%w, in vain", after)
		}
	}
	var status syscall.WaitStatus
	for {
		_, err = syscall.Wait4(h.pid, &status, 0, nil)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		return "", os.NewSyscallError("wait4", err)
	}
	if hung {
		return "", after
	}
	var buffer [4096]byte
	n, _ := unix.Read(h.output, buffer[:])
	said := string(buffer[:max(n, 0)])
	if status.Exited() && status.ExitStatus() == 0 {
		return said, nil
	}
	return "", failure(status, said)
}

func failure(status syscall.WaitStatus, said string) error {
	how := fmt.Sprintf("exit status %d", status.ExitStatus())
	if status.Signaled() {
		how = "killed by " + unix.SignalName(status.Signal())
	}
	lines := strings.FieldsFunc(said, func(r rune) bool { return r == '\n' || r == '\r' })
	if len(lines) == 0 {
		return errors.New(how)
	}
	return fmt.Errorf("%s: %.400s", how, strconv.QuoteToGraphic(strings.Join(lines, "; ")))
}

// done tells whether the process has ended by the deadline, or by the last one if
// it is at work all the time after that.
func (h *helper) done(deadline, last time.Time) bool {
	if h.wait(deadline.Add(-step)) {
		return true
	}
	for {
		before, began := h.spent(), time.Now()
		if h.wait(began.Add(step)) {
			return true
		}
		// A tenth is more than one needs that looks for an answer now and then.
		worked := h.spent()-before >= time.Since(began)/10 || h.wantsProcessor()
		if !worked || time.Now().After(last) {
			return false
		}
	}
}

// spent is the time that the process has run and has waited for a processor
// (Documentation/scheduler/sched-stats.rst), 0 where that can't be told.
func (h *helper) spent() time.Duration {
	var run, wait int64
	_, _ = fmt.Sscan(h.proc("schedstat"), &run, &wait)
	return time.Duration(run + wait)
}

// wantsProcessor tells whether the process runs, waits for a processor, which
// spent counts only afterwards, or for a disk or a lock of the kernel's.
func (h *helper) wantsProcessor() bool {
	stat := h.proc("stat")
	state := strings.TrimLeft(stat[strings.LastIndexByte(stat, ')')+1:], " ")
	return strings.HasPrefix(state, "R") || strings.HasPrefix(state, "D")
}

// proc reads a file of the process's that any user may read (proc(5)).
func (h *helper) proc(name string) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(h.pid) + "/" + name)
	return string(text)
}

// wait tells whether the process has ended (pidfd_open(2), Linux 5.3).
func (h *helper) wait(deadline time.Time) bool {
	fds := []unix.PollFd{{Fd: int32(h.pidfd), Events: unix.POLLIN}}
	for {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll(fds, int((left+time.Millisecond-1)/time.Millisecond))
		if n == 1 {
			return true
		}
		if err != nil && err != unix.EINTR || err == nil && left == 0 {
			return false
		}
	}
}

// ask runs a program and returns what it prints.
func ask(file string, args ...string) (string, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: "/dev/null", Err: err}
	}
	defer unix.Close(null)
	h, err := start(null, file, true, args...)
	return h.finish(time.Now().Add(patience), err)
}

// findProgram is exec.LookPath for a given path; os/exec would bring more to
// initialise than the rest of this package.
func findProgram(name, path string) string {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		file := filepath.Join(dir, name)
		var st unix.Stat_t
		if unix.Stat(file, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(file, unix.X_OK) == nil {
			return file
		}
	}
	return ""
}
