package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/test/jail"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

// within is set in a copy of the test binary that is root of a user namespace
// and may change its root, as a thread does that enters a container.
const within = "KEEPER_TEST_WITHIN"

// TestMain is the keeper and its containers' first process as well, as with nuc
// itself.
func TestMain(m *testing.M) {
	if role := map[string]func() error{RoleKeeper: Main, RoleInit: InitMain}[os.Args[0]]; role != nil {
		if role() != nil {
			os.Exit(1)
		}
		return
	}
	jail.Enter()
	if jail.Inside() {
		os.Exit(m.Run())
	}
	leaktest.Main(m)
}

// outside runs the calling test in a user namespace. It tells whether that was
// done, and there is nothing else to do.
func outside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(within) != "" {
		return false
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), within+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	var start *os.PathError
	if errors.As(err, &start) && errors.Is(err, syscall.EPERM) {
		t.Skipf("no user namespace can be made here: %v", err)
	}
	if err != nil {
		t.Fatalf("in a user namespace: %v\n%s", err, out)
	}
	return true
}

// in calls f on a thread whose root is a folder with the given files.
func in(t *testing.T, files map[string]string, f func()) {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch kind, argument, _ := strings.Cut(text, ":"); {
		case err != nil:
		case kind == "LINK":
			err = os.Symlink(argument, path)
		case kind == "FIFO":
			err = unix.Mkfifo(path, 0o600)
		case kind == "FOLDER":
			err = os.Mkdir(path, 0o755)
		case kind == "PROGRAM":
			err = os.WriteFile(path, nil, 0o755)
		case kind == "PROC":
			err = errors.Join(os.Mkdir(path, 0o755), unix.Mount("/proc", path, "", unix.MS_BIND|unix.MS_REC, ""))
			t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
		default:
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and ended with the goroutine
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chroot(root)
		}
		if err == nil {
			err = unix.Chdir("/")
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestFindUser(t *testing.T) {
	if outside(t) {
		return
	}
	files := map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/bash\nalice:x:1000:100:A:/home/alice:/bin/zsh\nodd:x:1001:1001::/:nologin\nbroken\n" +
			"unchanged:x:4294967295:0::/:/bin/sh\nwrapped:x:4294967296:0::/:/bin/sh\nminus:x:0:-1::/:/bin/sh\n",
		"etc/group": "root:x:0:\nusers:x:100:\nwheel:x:10:alice,bob\ndocker:x:20:bob\nstaff:x:30:alice\n",
	}
	tests := []struct {
		spec string
		want account
		err  string
	}{
		{"", account{UID: 0, GID: 0, Groups: []uint32{0}, Name: "root", Home: "/root", Shell: "/bin/bash"}, ""},
		// Hostile case 23.
		{"alice", account{UID: 1000, GID: 100, Groups: []uint32{100, 10, 30}, Name: "alice", Home: "/home/alice", Shell: "/bin/zsh"}, ""},
		{"1000", account{UID: 1000, GID: 100, Groups: []uint32{100, 10, 30}, Name: "alice", Home: "/home/alice", Shell: "/bin/zsh"}, ""},
		{"alice:docker", account{UID: 1000, GID: 20, Groups: []uint32{20}, Name: "alice", Home: "/home/alice", Shell: "/bin/zsh"}, ""},
		{"7:8", account{UID: 7, GID: 8, Groups: []uint32{8}, Home: "/", Shell: "/bin/sh"}, ""},
		{"odd", account{UID: 1001, GID: 1001, Groups: []uint32{1001}, Name: "odd", Home: "/", Shell: "/bin/sh"}, ""},
		{"mallory", account{}, `user "mallory"`},
		{"alice:none", account{}, `user "alice:none"`},
		{"-1", account{}, `user "-1"`},
		// setresuid(2) would leave the user that the thread is: of the host, run by root.
		{"unchanged", account{}, "no ids"},
		{"wrapped", account{}, "no ids"},
		{"minus", account{}, "no ids"},
	}
	in(t, files, func() {
		for _, test := range tests {
			got, err := findUser(test.spec)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%q: %+v, %v, want %q", test.spec, got, err, test.err)
				}
				continue
			}
			if err != nil || !slices.Equal(got.Groups, test.want.Groups) || got.UID != test.want.UID || got.GID != test.want.GID ||
				got.Name != test.want.Name || got.Home != test.want.Home || got.Shell != test.want.Shell {
				t.Errorf("%q: %+v, %v, want %+v", test.spec, got, err, test.want)
			}
		}
	})
	in(t, nil, func() {
		if got, err := findUser(""); err != nil || got.UID != 0 || got.Name != "root" || got.Home != "/root" {
			t.Errorf("without a database: %+v, %v", got, err)
		}
	})
	for _, hostile := range []string{"FIFO:", "FOLDER:", strings.Repeat("x", maxDatabase+1)} {
		in(t, map[string]string{"etc/passwd": hostile}, func() {
			if got, err := findUser(""); err == nil || !strings.Contains(err.Error(), "no regular file") {
				t.Errorf("%.8s: %+v, %v", hostile, got, err)
			}
		})
	}
}

// TestCommand looks programs up, without the magic links of hostile case 13.
func TestCommand(t *testing.T) {
	if outside(t) {
		return
	}
	files := map[string]string{
		"bin/sh": "PROGRAM:", "usr/bin/sh": "PROGRAM:", "bin/text": "no program", "usr/bin/text": "PROGRAM:", "bin/only": "text",
		"bin/sub": "FOLDER:", "bin/link": "LINK:sh", "bin/nowhere": "LINK:none", "bin/magic": "LINK:/proc/self/exe", "proc": "PROC:",
	}
	env := []string{"X=1", "PATH=relative::/bin:/usr/bin"}
	tests := []struct {
		argument, want string
		status         int
	}{
		{"sh", "/bin/sh", 0},
		{"text", "/usr/bin/text", 0},
		{"link", "/bin/link", 0},
		{"/bin/sh", "/bin/sh", 0},
		{"bin/sh", "bin/sh", 0},
		{"none", "", statusNotFound},
		{"nowhere", "", statusNotFound},
		{"/none", "", statusNotFound},
		{"only", "", statusNotExecutable},
		{"sub", "", statusNotExecutable},
		{"/bin", "", statusNotExecutable},
		{"magic", "", statusNotExecutable},
		{"/proc/self/exe", "", statusNotExecutable},
	}
	in(t, files, func() {
		for _, test := range tests {
			got, argv, err := command([]string{test.argument, "x"}, env, account{})
			if test.status == 0 {
				if err != nil || got != test.want || !slices.Equal(argv, []string{test.argument, "x"}) {
					t.Errorf("%s: %s, %q, %v", test.argument, got, argv, err)
				}
				continue
			}
			var e execError
			if !errors.As(err, &e) || e.status != test.status || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %s, %v, want status %d", test.argument, got, err, test.status)
			}
		}
		if got, argv, err := command(nil, env, account{Shell: "/bin/zsh"}); err != nil || got != "/bin/zsh" || !slices.Equal(argv, []string{"-zsh"}) {
			t.Errorf("login: %s, %q, %v", got, argv, err)
		}
	})
}

// TestChangeFolder is hostile case 13.
func TestChangeFolder(t *testing.T) {
	if outside(t) {
		return
	}
	tests := []struct{ folder, home, want, err string }{
		{"/srv", "/home", "/srv", ""},
		{"/link", "/", "/srv", ""},
		{"", "/home", "/home", ""},
		{"", "/none", "/", ""},
		{"/none", "/home", "", "working directory /none"},
		{"srv", "/home", "", "must be an absolute path"},
		{"/file", "/home", "", "working directory /file"},
		{"/proc/self/fd/0", "/", "", "link of /proc"},
		{"/magic", "/", "", "link of /proc"},
	}
	files := map[string]string{"srv": "FOLDER:", "home": "FOLDER:", "link": "LINK:srv", "file": "x", "proc": "PROC:", "magic": "LINK:/proc/self/cwd"}
	in(t, files, func() {
		for _, test := range tests {
			err := changeFolder(test.folder, test.home)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%q: %v, want %q", test.folder, err, test.err)
				}
				continue
			}
			buf := make([]byte, unix.PathMax)
			n, cwdErr := unix.Getcwd(buf)
			if err != nil || cwdErr != nil || string(buf[:n-1]) != test.want {
				t.Errorf("%q: %v; in %q, want %q", test.folder, err, buf[:n], test.want)
			}
		}
	})
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET", "x")
	a := account{Name: "alice", Home: "/home/alice", Shell: "/bin/zsh"}
	got := environment(a, []string{"LANG=C", "HOME=/other", "LANG=C.UTF-8", "PATHS=1"})
	want := []string{"PATH=" + defaultPath, "SHELL=/bin/zsh", "container=nuc", "USER=alice", "LOGNAME=alice", "HOME=/other", "LANG=C.UTF-8", "PATHS=1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	many := make([]string, 500_000)
	for i := range many {
		many[i] = fmt.Sprintf("V%d=", i/2)
	}
	if got := environment(a, many); len(got) != 6+len(many)/2 {
		t.Errorf("%d of %d variables, each twice, are left", len(got), len(many))
	}
	if got := environment(account{Home: "/"}, nil); slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, "USER=") }) {
		t.Errorf("a user without name has one: %q", got)
	}
}

func TestMakeSockets(t *testing.T) {
	kinds := map[string][2]int{
		"tcp4": {unix.AF_INET, unix.SOCK_STREAM}, "tcp6": {unix.AF_INET6, unix.SOCK_STREAM},
		"udp4": {unix.AF_INET, unix.SOCK_DGRAM}, "udp6": {unix.AF_INET6, unix.SOCK_DGRAM},
	}
	for network, want := range kinds {
		files, err := makeSockets(&Sockets{Network: network, Count: MaxSockets})
		if err != nil || len(files) != MaxSockets {
			t.Errorf("%s: %d, %v", network, len(files), err)
		}
		for _, f := range files {
			raw, err := f.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Control(func(fd uintptr) {
				family, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
				kind, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
				status, _ := unix.FcntlInt(fd, unix.F_GETFL, 0)
				flags, _ := unix.FcntlInt(fd, unix.F_GETFD, 0)
				if family != want[0] || kind != want[1] || status&unix.O_NONBLOCK != 0 || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("%s: family %d, type %d, flags %#x %#x", network, family, kind, status, flags)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		closeAll(files...)
	}
	for _, bad := range []Sockets{{"tcp4", 0}, {"tcp4", -1}, {"tcp4", MaxSockets + 1}, {"tcp", 1}, {"", 1}, {"unix", 1}} {
		if files, err := makeSockets(&bad); err == nil {
			closeAll(files...)
			t.Errorf("%+v: no error", bad)
		}
	}
}

// TestInside listens and dials in the mount namespace of a container.
func TestInside(t *testing.T) {
	if outside(t) {
		return
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "socket")
	pidfd := -1
	cmd := exec.Command("sh", "-c", `mount -t tmpfs none "$1" && echo mounted && read end`, "sh", folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, PidFD: &pidfd}
	end, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	k := &keeper{}
	if files, err := k.dial(&Dial{Path: path}); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("without an init: %v, %v", files, err)
	}
	k.init = os.NewFile(uintptr(pidfd), "pidfd")
	defer k.init.Close()
	if files, err := k.dial(&Dial{Path: path}); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("before its root is there: %v, %v", files, err)
	}
	if k.devpts, err = os.Open("/"); err != nil {
		t.Fatal(err)
	}
	defer k.devpts.Close()
	listening, err := k.listen(&Listen{Network: "unix", Path: path, Mode: 0o666}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is in this namespace: %v", err)
	}
	files, err := k.dial(&Dial{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(files...)
	closeAll(listening...)
	if err := k.forget(&Dial{Path: path}); err != nil {
		t.Error(err)
	}
	if files, err := k.dial(&Dial{Path: path}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("forgotten: %v, %v", files, err)
	}
	for _, bad := range []string{"", "socket", filepath.Join(folder, "none", "socket"), "/proc/1/root/tmp/socket"} {
		if files, err := k.listen(&Listen{Network: "unix", Path: bad}, 1); err == nil {
			closeAll(files...)
			t.Errorf("%q: listens", bad)
		}
	}
	end.Close()
	_ = cmd.Wait()
	if files, err := k.listen(&Listen{Network: "unix", Path: path}, 1); err == nil {
		closeAll(files...)
		t.Error("listens in a container that is gone")
	}
}

// TestForkReaps: a command that is killed with its container while it is put
// into its cgroup leaves no zombie, for which the container's end would wait.
func TestForkReaps(t *testing.T) {
	r, leaf, err := os.Pipe() // the cgroup, where the child's pid is written
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer leaf.Close()
	if _, err := leaf.Write(make([]byte, 65536)); err != nil { // full, so that the write waits
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // the tracer is a thread
		_, err := fork("/bin/true", []string{"true"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{}}, leaf)
		failed <- err
	}()
	var child int
	for child == 0 {
		child = childIn(t, "t")
	}
	if err := unix.Kill(child, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for childIn(t, "Z") == 0 {
	}
	if _, err := r.Read(make([]byte, 65536)); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "killed before it ran") {
		t.Error(err)
	}
	if err := unix.Kill(child, 0); err != unix.ESRCH {
		t.Errorf("the child is still there: %v", err)
	}
}

// childIn finds a child of this process in a state of proc(5).
func childIn(t *testing.T, state string) int {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		text, _ := os.ReadFile(p)
		var pid, parent int
		var name, is string
		if n, _ := fmt.Sscanf(string(text), "%d %s %s %d", &pid, &name, &is, &parent); n == 4 && parent == os.Getpid() && is == state {
			return pid
		}
	}
	return 0
}

// TestServeTakesNoFiles is hostile case 32: requests for sockets come without any.
func TestServeTakesNoFiles(t *testing.T) {
	for _, r := range []Request{
		{Op: OpListen, Listen: &Listen{Network: "tcp4", Address: "127.0.0.1"}},
		{Op: OpDial, Dial: &Dial{Path: "/x"}},
		{Op: OpSockets, Sockets: &Sockets{Network: "tcp4", Count: 1}},
	} {
		conn, peer, err := seqpacket.Pair()
		if err != nil {
			t.Fatal(err)
		}
		kept, given, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		(&keeper{}).serve(&seqpacket.Message{Data: data, FDs: []*os.File{peer, given}}, nil)
		var reply Reply
		m, err := conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Decode(&reply); err != nil || reply.Kind != Failed || len(m.FDs) != 0 {
			t.Errorf("%s: %+v, %v", r.Op, reply, err)
		}
		// It was closed.
		if n, err := kept.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: %d, %v", r.Op, n, err)
		}
		m.Close()
		kept.Close()
		conn.Close()
	}
}

// TestCommandsAreBounded: one more than may run is refused, and its files closed.
func TestCommandsAreBounded(t *testing.T) {
	k := &keeper{}
	k.commands.Store(maxCommands)
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	kept, given, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	data, err := json.Marshal(Request{Op: OpExec, Exec: &Exec{Arguments: []string{"true"}}})
	if err != nil {
		t.Fatal(err)
	}
	k.serve(&seqpacket.Message{Data: data, FDs: []*os.File{peer, given, nil, nil}}, nil)
	m, err := conn.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var reply Reply
	if err := m.Decode(&reply); err != nil || reply.Kind != Failed || !strings.Contains(reply.Error, "1000 commands") {
		t.Errorf("%+v, %v", reply, err)
	}
	if n, err := kept.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("its files are open: %d, %v", n, err)
	}
	if _, err := conn.Receive(); err != io.EOF {
		t.Error(err)
	}
	if n := k.commands.Load(); n != maxCommands {
		t.Errorf("%d commands are counted", n)
	}
}

func TestPassable(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := passable(r); err != nil {
		t.Errorf("pipe: %v", err)
	}
	for path, want := range map[string]bool{"/dev/null": true, "/proc/self/exe": true, "/": false, "/dev/zero": false, "/dev/ptmx": false} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := passable(f); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
		f.Close()
	}
}

func TestNotRun(t *testing.T) {
	for err, status := range map[error]int{
		unix.ENOENT: statusNotFound, unix.EACCES: statusNotExecutable, unix.ENOEXEC: statusNotExecutable,
		unix.EPERM: statusNotExecutable, unix.EISDIR: statusNotExecutable, unix.ENOMEM: statusNuc,
	} {
		var e execError
		if !errors.As(notRun("/bin/x", err), &e) || e.status != status || !strings.Contains(e.Error(), "/bin/x") {
			t.Errorf("%v: %+v, want status %d", err, e, status)
		}
	}
}
