package landlock

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

// inner has the test's own process confined, in the place of its tests.
const inner = "NUC_LANDLOCK_TEST"

// trial is what a confined process is to try.
type trial struct {
	Rules Rules
	// Paths to be tried, by what is tried with them.
	Attempts []attempt
	// Without is the error of a kernel that has no Landlock.
	Without unix.Errno
}

type attempt struct{ What, Path, To string }

func TestMain(m *testing.M) {
	if text := os.Getenv(inner); text != "" {
		os.Exit(confined(text))
	}
	leaktest.Main(m)
}

// confined prints how each attempt went, on a thread of its own: nil, or the
// kernel's error.
func confined(text string) int {
	var t trial
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		fmt.Println(err)
		return 1
	}
	if t.Without != 0 {
		_, aerr := ABI()
		if err := deny(t.Without); err != nil {
			fmt.Println(err)
			return 1
		}
		_, err := Confine(t.Rules)
		fmt.Printf("%v, %v, %v, %v\n", aerr, err, errors.Is(err, ErrNone), errors.Is(err, ErrOff))
		return 0
	}
	// Threads that there are before, and threads that come later.
	held, errs := make([]chan struct{}, len(t.Attempts)), make([]chan error, len(t.Attempts))
	begin := func(i int) {
		runtime.LockOSThread()
		<-held[i]
		errs[i] <- t.Attempts[i].try()
	}
	for i := range t.Attempts {
		held[i], errs[i] = make(chan struct{}), make(chan error)
		if i%2 == 0 {
			go begin(i)
		}
	}
	time.Sleep(10 * time.Millisecond) // they have their threads
	if _, err := Confine(t.Rules); err != nil {
		fmt.Println(err)
		return 1
	}
	for i := range t.Attempts {
		if i%2 == 1 {
			go begin(i)
		}
		close(held[i])
		fmt.Println(<-errs[i])
	}
	return 0
}

func (a attempt) try() error {
	var err error
	switch a.What {
	case "read":
		_, err = os.ReadFile(a.Path)
	case "list":
		_, err = os.ReadDir(a.Path)
	case "write":
		err = os.WriteFile(a.Path, []byte("changed"), 0o600)
	case "mkdir":
		err = os.Mkdir(a.Path, 0o700)
	case "remove":
		err = os.Remove(a.Path)
	case "rename":
		err = os.Rename(a.Path, a.To)
	case "link":
		err = os.Symlink("/", a.Path)
	case "socket":
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: a.Path})
		}
	case "execute":
		err = exec.Command(a.Path).Run()
	case "connect", "abstract":
		var c net.Conn
		network := "tcp"
		if a.What == "abstract" {
			network = "unix"
		}
		if c, err = net.DialTimeout(network, a.Path, time.Second); err == nil {
			c.Close()
		}
	case "signal":
		err = unix.Kill(os.Getppid(), 0)
	case "gain":
		var on int
		if on, err = unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && on == 1 {
			err = unix.EPERM
		}
	}
	for _, errno := range []unix.Errno{unix.EACCES, unix.EPERM, unix.EXDEV} {
		if errors.Is(err, errno) {
			return errno
		}
	}
	return err
}

// try confines a process and returns how its attempts went, one line each.
func try(t *testing.T, r Rules, attempts ...attempt) []string {
	t.Helper()
	text, err := json.Marshal(trial{Rules: r, Attempts: attempts})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), inner+"="+string(text))
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != len(attempts) {
		t.Fatalf("%v\n%s", err, out)
	}
	return lines
}

// deny has landlock_create_ruleset fail from now on (seccomp(2)).
func deny(errno unix.Errno) error {
	const number = 0 // of struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if failed != 0 {
		return failed
	}
	return nil
}

// TestWithout: a kernel that was built, or booted, without it.
func TestWithout(t *testing.T) {
	version(t)
	for errno, want := range map[unix.Errno]string{
		unix.ENOSYS:     "<nil>, the kernel has no Landlock, true, false",
		unix.EOPNOTSUPP: "<nil>, the kernel was booted without Landlock, false, true",
	} {
		text, err := json.Marshal(trial{Without: errno})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe", "-test.run=^$")
		cmd.Env = append(os.Environ(), inner+"="+string(text))
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%v: %v, %s", errno, err, out)
		}
	}
}

func version(t *testing.T) int {
	t.Helper()
	abi, err := ABI()
	if err != nil {
		t.Skip(err)
	}
	return abi
}

func TestFiles(t *testing.T) {
	abi := version(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, folder := range []string{"read", "write", "write/a", "write/b", "tidy", "tidy/empty", "list", "sockets", "closed"} {
		if err := os.Mkdir(path(folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"read/f", "write/f", "write/a/f", "write/a/g", "tidy/f", "list/f", "sockets/f", "closed/f", "use", "single"} {
		if err := os.WriteFile(path(file), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"write/out": "closed/f", "write/program": "../../../../../bin/true", "read/out": "closed"} {
		target := path(to)
		if strings.HasPrefix(to, "..") {
			target = "/bin/true"
		}
		if err := os.Symlink(target, path(link)); err != nil {
			t.Fatal(err)
		}
	}
	rules := Rules{
		Read: []string{path("read"), path("single"), path("missing")}, Write: []string{path("write")}, Use: []string{path("use"), os.DevNull},
		Tidy: []string{path("tidy")}, List: []string{path("list")}, Sockets: []string{path("sockets")},
	}
	const allowed, denied = "<nil>", "permission denied"
	tests := []struct{ what, path, to, want string }{
		{"read", "read/f", "", allowed},
		{"list", "read", "", allowed},
		{"read", "single", "", allowed},
		{"write", "read/f", "", denied},
		{"write", "single", "", denied},
		{"mkdir", "read/new", "", denied},
		{"remove", "read/f", "", denied},
		{"list", "read/out", "", denied},

		{"write", "write/f", "", allowed},
		{"write", "write/new", "", allowed},
		{"read", "write/f", "", allowed},
		{"mkdir", "write/folder", "", allowed},
		{"remove", "write/folder", "", allowed},
		{"link", "write/link", "", allowed},
		{"socket", "write/s", "", allowed},
		{"rename", "write/a/f", "write/a/h", allowed},
		{"rename", "write/a/g", "closed/g", denied},
		{"read", "write/out", "", denied},
		{"write", "write/out", "", denied},
		{"execute", "write/program", "", denied},

		{"write", "use", "", allowed},
		{"read", os.DevNull, "", allowed},
		{"remove", "use", "", denied},
		{"remove", "tidy/empty", "", allowed},
		{"remove", "tidy/f", "", denied},
		{"list", "list", "", allowed},
		{"read", "list/f", "", denied},
		{"socket", "sockets/s", "", allowed},
		{"remove", "sockets/f", "", allowed},
		{"write", "sockets/new", "", denied},

		{"read", "closed/f", "", denied},
		{"write", "closed/f", "", denied},
		{"list", "closed", "", denied},
		{"socket", "closed/s", "", denied},
		{"read", "/proc/self/status", "", denied},
		{"gain", "", "", "operation not permitted"},
	}
	if abi >= 2 {
		tests = append(tests, struct{ what, path, to, want string }{"rename", "write/a/h", "write/b/h", allowed})
	}
	var attempts []attempt
	for _, test := range tests {
		a := attempt{What: test.what, Path: test.path, To: path(test.to)}
		if !filepath.IsAbs(a.Path) {
			a.Path = path(a.Path)
		}
		attempts = append(attempts, a)
	}
	for i, got := range try(t, rules, attempts...) {
		test := tests[i]
		if test.what == "rename" && test.want == denied && got == "invalid cross-device link" {
			continue // what the kernel says of folders of other rights
		}
		if got != test.want {
			t.Errorf("%s %s: %s, want %s", test.what, test.path, got, test.want)
		}
	}
	if got, err := os.ReadFile(path("closed/f")); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestPortsAndOthers(t *testing.T) {
	abi := version(t)
	listen := func(network, address string) net.Listener {
		t.Helper()
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	open, shut := listen("tcp4", "127.0.0.1:0"), listen("tcp4", "127.0.0.1:0")
	abstract := fmt.Sprintf("@nuc-landlock-test-%d", os.Getpid())
	listen("unix", abstract)
	rules := Rules{TCP: &Ports{Connect: []uint16{uint16(open.Addr().(*net.TCPAddr).Port)}}, NoSignals: true}
	attempts := []attempt{
		{What: "connect", Path: open.Addr().String()},
		{What: "connect", Path: shut.Addr().String()},
		{What: "signal"},
		{What: "abstract", Path: abstract},
	}
	want := []string{"<nil>", "<nil>", "<nil>", "<nil>"}
	if abi >= 4 {
		want[1] = "permission denied"
	}
	if abi >= 6 {
		want[2], want[3] = "operation not permitted", "operation not permitted"
	}
	for i, got := range try(t, rules, attempts...) {
		if got != want[i] {
			t.Errorf("%+v: %s, want %s", attempts[i], got, want[i])
		}
	}
	for i, got := range try(t, Rules{}, attempts...) {
		if i < 3 && got != "<nil>" {
			t.Errorf("without such rules: %+v: %s", attempts[i], got)
		}
	}
}
