package userns

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

// Roles of the test binary in a real user namespace, by its first argument, as
// with nuc itself.
const (
	roleReport = "userns-test-report"
	roleEnd    = "userns-test-end"
)

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case roleReport:
		if err := report(); err != nil {
			os.Exit(1)
		}
		return
	case roleEnd:
		os.Exit(7)
	}
	leaktest.Main(m)
}

// account is what the child says of itself.
type account struct {
	Error       string
	Arguments   []string
	Environment []string
	Folder      string
	Files       []string // by number
	CloseOnExec []int
	UIDs, GIDs  string
	Dumpable    int
	Image       string
	// After BecomeRoot and LimitThread.
	UID, GID    int
	Groups      []int
	Bounding    []uintptr
	Inheritable bool
	Keyrings    bool // this kernel has them
	Session     bool // it has another session keyring than before
	Exhausted   bool // and so it has where the user can have no more keys
}

func report() error {
	runtime.LockOSThread()
	self, err := Enter()
	if err != nil {
		return err
	}
	for {
		m, err := self.Conn.Receive()
		if err != nil {
			return nil
		}
		m.Close()
		a, err := observe(self)
		if err != nil {
			a.Error = err.Error()
		}
		if err := self.Conn.Send(a); err != nil {
			return err
		}
	}
}

func observe(self *Self) (account, error) {
	a := account{Arguments: os.Args, Environment: os.Environ(), Image: self.ImagePath()}
	a.Folder, _ = os.Getwd()
	for fd := range 64 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil {
			continue
		}
		a.Files = append(a.Files, fmt.Sprint(fd))
		if flags&unix.FD_CLOEXEC != 0 {
			a.CloseOnExec = append(a.CloseOnExec, fd)
		}
	}
	for name, to := range map[string]*string{"uid_map": &a.UIDs, "gid_map": &a.GIDs} {
		data, err := os.ReadFile("/proc/self/" + name)
		if err != nil {
			return a, err
		}
		*to = string(data)
	}
	var err error
	if a.Dumpable, err = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return a, err
	}
	if err := BecomeRoot(); err != nil {
		return a, err
	}
	a.UID, a.GID = os.Getuid(), os.Getgid()
	if a.Groups, err = os.Getgroups(); err != nil {
		return a, err
	}
	if err := LimitThread(false); err != nil {
		return a, err
	}
	if errno := newKeyring(); errno == 0 {
		a.Keyrings = true
		before, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
		if err == nil {
			err = LeaveKeyring()
		}
		if err != nil {
			return a, err
		}
		if a.Session, err = otherKeyring(before); err != nil {
			return a, err
		}
		if a.Exhausted, err = exhaustKeys(); err != nil {
			return a, err
		}
	} else if errno != unix.ENOSYS && errno != unix.EPERM {
		return a, errno
	}
	for _, c := range AllCapabilities() {
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil && has == 1 {
			a.Bounding = append(a.Bounding, c)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return a, err
	}
	a.Inheritable = data[0].Inheritable != 0 || data[1].Inheritable != 0
	return a, nil
}

// plan is the map of a container with a few ids.
func plan(t *testing.T) idmap.Map {
	t.Helper()
	m, err := idmap.PlanFor(65536)
	if err != nil {
		t.Skipf("no ids can be mapped here: %v", err)
	}
	return m
}

func start(t *testing.T, o Options) *Child {
	t.Helper()
	c, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Kill()
		_, _ = c.Wait()
		c.Close()
	})
	return c
}

func ask(t *testing.T, c *Child) account {
	t.Helper()
	if err := c.Conn.Send("report"); err != nil {
		t.Fatal(err)
	}
	m, err := c.Conn.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var a account
	if err := m.Decode(&a); err != nil {
		t.Fatal(err)
	}
	if a.Error != "" {
		t.Fatal(a.Error)
	}
	return a
}

func TestStart(t *testing.T) {
	m := plan(t)
	t.Setenv("SECRET", "of the caller") // hostile case 16
	// Hostile case 14: what the caller has open, inheritable to any child.
	var leaked [20]int
	for i := range leaked {
		fd, err := unix.FcntlInt(os.Stderr.Fd(), unix.F_DUPFD, 10)
		if err != nil {
			t.Fatal(err)
		}
		leaked[i] = fd
	}
	c := start(t, Options{Arguments: []string{roleReport, "and more"}, Map: m})
	for _, fd := range leaked {
		unix.Close(fd)
	}
	a := ask(t, c)
	if !slices.Equal(a.Arguments, []string{roleReport, "and more"}) {
		t.Errorf("arguments: %q", a.Arguments)
	}
	if len(a.Environment) != 1 || !strings.HasPrefix(a.Environment[0], "GODEBUG=") {
		t.Errorf("environment: %q", a.Environment)
	}
	if a.Folder != "/" {
		t.Errorf("working directory: %s", a.Folder)
	}
	for _, file := range a.Files {
		var fd int
		if _, err := fmt.Sscan(file, &fd); err != nil {
			t.Fatal(err)
		}
		if fd > 2 && !slices.Contains(a.CloseOnExec, fd) {
			t.Errorf("file descriptor %d would be inherited by a container", fd)
		}
	}
	for name, maps := range map[string][2]string{"uid": {a.UIDs, fields(m.UIDs)}, "gid": {a.GIDs, fields(m.GIDs)}} {
		if got := strings.Join(strings.Fields(maps[0]), " "); got != maps[1] {
			t.Errorf("%s map is %q, want %q", name, got, maps[1])
		}
	}
	if a.Dumpable == 1 {
		t.Error("others of its user may trace it")
	}
	if a.UID != 0 || a.GID != 0 || len(a.Groups) != 0 {
		t.Errorf("root is %d:%d with groups %v", a.UID, a.GID, a.Groups)
	}
	for _, c := range AllCapabilities() {
		if slices.Contains(withheld[:], c) == slices.Contains(a.Bounding, c) {
			t.Errorf("capability %d is withheld: %t, in the bounding set: %t", c, slices.Contains(withheld[:], c), slices.Contains(a.Bounding, c))
		}
	}
	if a.Inheritable {
		t.Error("inheritable capabilities are left")
	}
	if a.Keyrings && !a.Session { // hostile case 17
		t.Error("the caller's session keyring was kept")
	}
	if a.Keyrings && !a.Exhausted {
		t.Error("the caller's session keyring was kept where the user can have no more keys")
	}
}

// otherKeyring tells whether the session keyring is another than before.
func otherKeyring(before int) (bool, error) {
	after, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	return after != before, err
}

// exhaustKeys makes keys until the user can have no more, as root of any of the
// user's containers may, and tells whether the keyring is left all the same.
func exhaustKeys() (bool, error) {
	ring, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	if err != nil {
		return false, err
	}
	for i := 0; err == nil && i < 2000; i++ {
		_, err = unix.AddKey("user", fmt.Sprintf("nuc-test-%d", i), []byte("x"), ring)
	}
	if !errors.Is(err, unix.EDQUOT) {
		return err == nil, err // the host's root may have a million
	}
	if err := LeaveKeyring(); err != nil {
		return false, err
	}
	return otherKeyring(ring)
}

func fields(extents []idmap.Extent) string {
	var parts []string
	for _, e := range extents {
		parts = append(parts, fmt.Sprintf("%d %d %d", e.Inside, e.Outside, e.Count))
	}
	return strings.Join(parts, " ")
}

func TestStartFiles(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// The child writes nothing, but holds the pipe open while it lives.
	c := start(t, Options{Arguments: []string{roleReport}, Map: plan(t), Files: [3]*os.File{1: w}})
	w.Close()
	if a := ask(t, c); a.UID != 0 {
		t.Errorf("%+v", a)
	}
	c.Kill()
	if data, err := io.ReadAll(r); err != nil || len(data) != 0 {
		t.Errorf("%q, %v", data, err)
	}
	if status, err := c.Wait(); err != nil || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Errorf("ended with %#x, %v", status, err)
	}
	c.PID = -1 // reaped
}

func TestStartFails(t *testing.T) {
	t.Run("child that ends", func(t *testing.T) {
		c, err := Start(Options{Arguments: []string{roleEnd}, Map: plan(t)})
		if err == nil {
			c.Close()
			t.Fatal("no error")
		}
		if !strings.Contains(err.Error(), "ended before it was up") {
			t.Error(err)
		}
		if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
			t.Errorf("a child was left: %v", err)
		}
	})
	t.Run("map that is refused", func(t *testing.T) {
		m := idmap.Map{UIDs: []idmap.Extent{{Inside: 0, Outside: 1 << 31, Count: 1 << 31}}, GIDs: []idmap.Extent{{Inside: 0, Outside: 1 << 31, Count: 1 << 31}}}
		if os.Geteuid() == 0 {
			m.UIDs[0].Inside = 1 << 31 // beyond the last id, for root as well
		}
		c, err := Start(Options{Arguments: []string{roleReport}, Map: m})
		if err == nil {
			c.Kill()
			_, _ = c.Wait()
			c.Close()
			t.Fatal("no error")
		}
		if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
			t.Errorf("a child was left: %v", err)
		}
	})
}

func TestCloneError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{unix.EPERM, "nuc doctor"},
		{unix.EACCES, "nuc doctor"},
		{unix.ENOSPC, "user.max_*_namespaces"},
		{unix.EUSERS, "user.max_*_namespaces"},
		{unix.ENOMEM, "cannot allocate memory"},
	} {
		if got := cloneError(test.err).Error(); !strings.Contains(got, test.want) || strings.Contains(got, "\n") {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}

// TestImage is part of hostile case 12.
func TestImage(t *testing.T) {
	image, err := Image()
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if !same(t, image, exe) {
		t.Error("it is no copy of this program")
	}
	if _, err := image.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it can be written to")
	}
	if err := image.Truncate(0); err == nil {
		t.Error("it can be cut off")
	}
	if _, err := unix.FcntlInt(image.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_EXEC); err == nil {
		t.Error("seals can be added")
	}
	st, err := image.Stat()
	if err != nil || st.Mode().Perm() != 0o111 {
		t.Errorf("mode %v, %v, want one that nobody may read: see Image", st.Mode(), err)
	}
	if flags, err := unix.FcntlInt(image.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("would survive an exec: %#x, %v", flags, err)
	}
}

func same(t *testing.T, a, b *os.File) bool {
	t.Helper()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for offset := int64(0); ; offset += 1 << 20 {
		n, errA := a.ReadAt(bufA, offset)
		m, errB := b.ReadAt(bufB, offset)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false
		}
		if errA == io.EOF && errB == io.EOF {
			return true
		}
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
	}
}

func TestAllCapabilities(t *testing.T) {
	data, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		t.Fatal(err)
	}
	var last int
	if _, err := fmt.Sscan(string(data), &last); err != nil {
		t.Fatal(err)
	}
	if caps := AllCapabilities(); len(caps) != last+1 || caps[last] != uintptr(last) {
		t.Errorf("%v, want 0 to %d", caps, last)
	}
}

// TestBecomeUserRefuses what setresuid(2) takes for the user that is there.
func TestBecomeUserRefuses(t *testing.T) {
	for _, ids := range [][2]int{{-1, 0}, {0, -1}, {1<<32 - 1, 0}, {0, 1 << 32}, {1 << 31, 0}} {
		if err := BecomeUser(ids[0], ids[1], nil); err == nil || !strings.Contains(err.Error(), "no ids") {
			t.Errorf("%v: %v", ids, err)
		}
	}
}
