package state

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

// role makes the test binary another process that holds a container.
const role = "STATE_TEST_ROLE"

func TestMain(m *testing.M) {
	if folder := os.Getenv(role); folder != "" {
		lock, err := (Container{Name: "web", Runtime: folder}).Acquire()
		fmt.Println(err)
		_, _ = io.Copy(io.Discard, os.Stdin)
		if lock != nil {
			lock.Close()
		}
		return
	}
	leaktest.Main(m)
}

func folders(t *testing.T) Folders {
	t.Helper()
	dir := t.TempDir()
	f := Folders{State: filepath.Join(dir, "state"), Runtime: filepath.Join(dir, "run"), Cache: filepath.Join(dir, "cache")}
	for _, p := range []string{f.State, f.Runtime} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// started is a container with a state folder.
func started(t *testing.T) Container {
	t.Helper()
	c := folders(t).Container("web")
	if err := os.Mkdir(c.State, 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFindFolders(t *testing.T) {
	run := t.TempDir()
	if err := os.Chmod(run, 0o700); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		env   map[string]string
		home  string
		state string
		cache string
		err   string
	}{
		{"defaults", nil, "/home/me", "/home/me/.local/state/nuc", "/home/me/.cache/nuc", ""},
		{"all set", map[string]string{"XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c"}, "", "/s/nuc", "/c/nuc", ""},
		{"relative ones are ignored", map[string]string{"XDG_STATE_HOME": "s", "XDG_CACHE_HOME": "./c"}, "/home/me", "/home/me/.local/state/nuc", "/home/me/.cache/nuc", ""},
		{"no home", nil, "", "", "", "HOME is not set"},
		{"no home, half of it set", map[string]string{"XDG_STATE_HOME": "/s"}, "", "", "", "HOME is not set"},
		{"no home, relative", map[string]string{"XDG_STATE_HOME": "s", "XDG_CACHE_HOME": "/c"}, "", "", "", "HOME is not set"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			getenv := func(name string) string {
				if name == "XDG_RUNTIME_DIR" {
					return run
				}
				return test.env[name]
			}
			f, err := FindFolders(getenv, test.home, os.Getuid())
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("%+v, %v, want an error with %q", f, err, test.err)
				}
				return
			}
			if want := (Folders{test.state, filepath.Join(run, "nuc"), test.cache}); err != nil || f != want {
				t.Errorf("%+v, %v, want %+v", f, err, want)
			}
		})
	}
	if st, err := os.Stat(filepath.Join(run, "nuc")); err != nil || st.Mode() != os.ModeDir|0o700 {
		t.Errorf("the runtime folder was made with mode %v, %v", st.Mode(), err)
	}
}

func TestRuntimeFolderRefused(t *testing.T) {
	uid := os.Getuid()
	tests := []struct {
		name    string
		make    func(path string) error
		uid     int
		refusal string
	}{
		{"open to others", func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o711)) }, uid, "chmod 700"},
		{"a file", func(p string) error { return os.WriteFile(p, nil, 0o600) }, uid, "is no folder"},
		{"a link", func(p string) error { return os.Symlink(t.TempDir(), p) }, uid, "is no folder"},
		{"somebody else's", func(p string) error { return os.Mkdir(p, 0o700) }, uid + 1, "belongs to uid"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := test.make(filepath.Join(dir, "nuc")); err != nil {
				t.Fatal(err)
			}
			if _, err := runtimeFolder(dir, test.uid); err == nil || !strings.Contains(err.Error(), test.refusal) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want one line with %q", err, test.refusal)
			}
		})
	}
	if _, err := runtimeFolder(filepath.Join(t.TempDir(), "missing"), uid); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("%v", err)
	}
}

func TestNames(t *testing.T) {
	f := folders(t)
	for _, p := range []string{f.State + "/b", f.State + "/a", f.Runtime + "/a", f.Runtime + "/c", f.State + "/" + removed + "x-1", f.State + "/.hidden"} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(f.State+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if names, err := f.Names(); err != nil || !slices.Equal(names, []string{"a", "b", "c"}) {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := (Folders{State: f.State + "/none", Runtime: f.State + "/none"}).Names(); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
	if names, err := (Folders{State: f.State + "/file", Runtime: f.Runtime}).Names(); err == nil {
		t.Errorf("%q of what is no folder", names)
	}
}

// holder is another process that has the lock, until it is ended.
func holder(t *testing.T, c Container) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{role + "=" + c.Runtime}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
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
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "<nil>\n" {
		t.Fatalf("the other process: %q, %v", line, err)
	}
	return cmd
}

func TestLock(t *testing.T) {
	c := folders(t).Container("web")
	if c.Held() || c.Holder() != 0 {
		t.Error("held before anything")
	}
	other := holder(t, c)
	if !c.Held() {
		t.Error("not held")
	}
	if pid := c.Holder(); pid != other.Process.Pid {
		t.Errorf("held by %d, want %d", pid, other.Process.Pid)
	}
	if l, err := c.Acquire(); !errors.Is(err, ErrHeld) {
		t.Errorf("%v, %v, want ErrHeld", l, err)
	}
	// A killed supervisor leaves nothing that says it runs.
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = other.Process.Wait()
	if c.Held() || c.Holder() != 0 {
		t.Errorf("held by the dead: %d", c.Holder())
	}
	l, err := c.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	tidies(t, c, l)
	l.Close()
}

// tidies fails the test if anything is left of a runtime folder with folders in it.
// It has no more use for the lock than its caller.
func tidies(t *testing.T, c Container, l *Lock) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(c.Runtime, "host/credentials"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Tidy(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(c.Runtime); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("left: %v", err)
	}
}

// TestLockHandedOn: the keeper's copy keeps a container held.
func TestLockHandedOn(t *testing.T) {
	c := folders(t).Container("web")
	l, err := c.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(l.File.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if !c.Held() {
		t.Error("free though somebody has it open")
	}
	unix.Close(fd)
	if c.Held() {
		t.Error("held by nobody")
	}
}

// TestTidyAndAcquire: a start that comes while the last one is being cleared
// away gets a lock that others see.
func TestTidyAndAcquire(t *testing.T) {
	c := folders(t).Container("web")
	ended := make(chan error, 2)
	for range 2 {
		go func() {
			for range 300 {
				l, err := c.Acquire()
				if errors.Is(err, ErrHeld) {
					continue
				}
				if err != nil {
					ended <- err
					return
				}
				if !c.Held() || !sameFile(int(l.File.Fd()), filepath.Join(c.Runtime, "lock")) {
					l.Close()
					ended <- errors.New("what was acquired is not what others find")
					return
				}
				err = l.Tidy()
				l.Close()
				if err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestTidyOfTheForgotten: whoever tidies up last has no more use for the lock,
// so that the collector may take it meanwhile.
func TestTidyOfTheForgotten(t *testing.T) {
	c := folders(t).Container("web")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	}()
	defer func() {
		close(stop)
		<-stopped
	}()
	for range 300 {
		l, err := c.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		tidies(t, c, l)
	}
}

func TestAcquireRefuses(t *testing.T) {
	t.Run("runtime folder is a link", func(t *testing.T) {
		c := folders(t).Container("web")
		target := t.TempDir()
		if err := os.Symlink(target, c.Runtime); err != nil {
			t.Fatal(err)
		}
		if l, err := c.Acquire(); err == nil {
			l.Close()
			t.Error("followed")
		}
	})
	t.Run("lock is a link", func(t *testing.T) {
		c := folders(t).Container("web")
		target := filepath.Join(t.TempDir(), "made")
		if err := errors.Join(os.Mkdir(c.Runtime, 0o700), os.Symlink(target, filepath.Join(c.Runtime, "lock"))); err != nil {
			t.Fatal(err)
		}
		if l, err := c.Acquire(); err == nil {
			l.Close()
			t.Error("followed")
		}
		if _, err := os.Lstat(target); err == nil {
			t.Error("a file was made outside")
		}
	})
	t.Run("no place for it", func(t *testing.T) {
		if l, err := (Container{Runtime: filepath.Join(t.TempDir(), "a/b")}).Acquire(); err == nil {
			l.Close()
			t.Error("acquired")
		}
	})
}

func TestHolderIn(t *testing.T) {
	const table = "1: POSIX  ADVISORY  WRITE 11 fd:00:42 0 EOF\n" +
		"2: FLOCK  ADVISORY  WRITE 12 fd:00:421 0 EOF\n" +
		"3: FLOCK  ADVISORY  WRITE 13 fd:01:42 0 EOF\n" +
		"4: FLOCK  ADVISORY  WRITE -1 fd:00:42 0 EOF\n" +
		"5: FLOCK  ADVISORY  WRITE 0 fd:00:42 0 EOF\n" +
		"6: -> FLOCK  ADVISORY  WRITE 14 fd:00:42 0 EOF\n" +
		"7: FLOCK  ADVISORY  WRITE 15 fd:00:42 0 EOF\n"
	dev := unix.Mkdev(0xfd, 0)
	tests := []struct {
		name, table string
		dev, ino    uint64
		want        int
	}{
		{"the only one that is a holder", table, dev, 42, 15},
		{"another device", table, unix.Mkdev(0xfd, 1), 42, 13},
		{"another file", table, dev, 421, 12},
		{"none", table, dev, 4, 0},
		{"empty", "", dev, 42, 0},
		{"broken", "x\n1: FLOCK a b c d\n1: FLOCK ADVISORY WRITE x fd:00:42 0 EOF\n1: FLOCK ADVISORY WRITE 3 fd:42 0 EOF\n1: FLOCK ADVISORY WRITE 3 zz:00:42 0 EOF", dev, 42, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := holderIn(test.table, test.dev, test.ino); got != test.want {
				t.Errorf("%d, want %d", got, test.want)
			}
		})
	}
}

func TestGenerations(t *testing.T) {
	c := started(t)
	if n, data, err := c.Current(); n != 0 || data != nil || err != nil {
		t.Errorf("before any: %d, %q, %v", n, data, err)
	}
	if c.Exists() {
		t.Error("exists before it was started")
	}
	record := func(text string, want int) {
		t.Helper()
		if n, err := c.Record([]byte(text)); n != want || err != nil {
			t.Fatalf("recording %s: %d, %v, want %d", text, n, err, want)
		}
		if n, data, err := c.Current(); n != want || string(data) != text || err != nil {
			t.Fatalf("current is %d, %q, %v, want %d, %q", n, data, err, want, text)
		}
	}
	record("a", 1)
	record("a", 1)
	record("b", 2)
	record("a", 3)
	if err := c.SetCurrent(2); err != nil {
		t.Fatal(err)
	}
	record("b", 2)
	record("c", 4)
	if !c.Exists() || !c.HasState() {
		t.Error("does not exist")
	}
	for _, name := range []string{"x.json", "05.json", "0.json", "-1.json", "7", "7.json.new", ".new-123"} {
		if err := os.WriteFile(filepath.Join(c.State, generations, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.Generations()
	if err != nil {
		t.Fatal(err)
	}
	var numbers []int
	for _, g := range list {
		numbers = append(numbers, g.Number)
		if _, err := os.Stat(g.Path); err != nil || time.Since(g.Time) > time.Minute {
			t.Errorf("%+v: %v", g, err)
		}
	}
	if !slices.Equal(numbers, []int{1, 2, 3, 4}) {
		t.Errorf("%v", numbers)
	}
	// A tenth generation is newer than a ninth, whatever their names' order.
	for i := 5; i <= 11; i++ {
		record(fmt.Sprint(i), i)
	}
}

func TestBrokenCurrent(t *testing.T) {
	for _, target := range []string{"elsewhere", "generations/7.json", "generations/x.json"} {
		c := started(t)
		if _, err := c.Record([]byte("a")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(filepath.Join(c.State, "current")), os.Symlink(target, filepath.Join(c.State, "current"))); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Current(); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want an error of one line", target, err)
		}
		if n, err := c.Record([]byte("b")); n != 2 || err != nil {
			t.Errorf("%s: recording another one: %d, %v, want 2", target, n, err)
		}
	}
	c := started(t)
	if err := os.WriteFile(filepath.Join(c.State, "current"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.Current(); err == nil {
		t.Error("a file is no link")
	}
}

func TestExit(t *testing.T) {
	c := started(t)
	if c.LastExit() != nil {
		t.Error("an exit before any")
	}
	want := Exit{Time: time.Now().Truncate(time.Second).UTC(), Clean: true, Reason: "powered off"}
	if err := c.RecordExit(want); err != nil {
		t.Fatal(err)
	}
	if got := c.LastExit(); got == nil || *got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	c.ForgetExit()
	if c.LastExit() != nil {
		t.Error("not forgotten")
	}
	if err := os.WriteFile(filepath.Join(c.State, "exit.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.LastExit(); got == nil || got.Clean || got.Asked || !strings.Contains(got.Reason, "damaged") {
		t.Errorf("%+v out of a broken file", got)
	}
	if (Container{State: filepath.Join(c.State, "none")}).RecordExit(want) == nil {
		t.Error("recorded nowhere")
	}
}

func TestUUID(t *testing.T) {
	c := started(t)
	first, err := c.UUID()
	if err != nil {
		t.Fatal(err)
	}
	if len(first) != 32 || strings.Trim(first, "0123456789abcdef") != "" || first[12] != '4' || !strings.ContainsRune("89ab", rune(first[16])) {
		t.Errorf("%q is no version 4 UUID", first)
	}
	if again, err := c.UUID(); err != nil || again != first {
		t.Errorf("%q, %v, want %q again", again, err, first)
	}
	for _, broken := range []string{"", "x", first[:30], first + "00", strings.Repeat("g", 32)} {
		if err := os.WriteFile(filepath.Join(c.State, "uuid"), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if id, err := c.UUID(); err != nil || len(id) != 32 {
			t.Errorf("after %q: %q, %v", broken, id, err)
		}
	}
}

func TestForget(t *testing.T) {
	c := started(t)
	if _, err := c.Record([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UUID(); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(c.State, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(); err != nil {
		t.Fatal(err)
	}
	if c.Exists() || !c.HasState() {
		t.Error("known still, or its data is gone")
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(); err != nil {
		t.Fatal(err)
	}
	if c.HasState() {
		t.Error("an empty state folder is kept")
	}
	if err := c.Forget(); err != nil {
		t.Errorf("forgetting what is not: %v", err)
	}
}

func TestSetAside(t *testing.T) {
	f := folders(t)
	c := f.Container("web")
	for range 2 { // the same name again
		if err := os.MkdirAll(filepath.Join(c.State, generations), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := c.SetAside(); err != nil {
			t.Fatal(err)
		}
		if c.Exists() || c.HasState() {
			t.Error("still in sight")
		}
	}
	if names, err := f.Names(); err != nil || len(names) != 0 {
		t.Errorf("%q, %v", names, err)
	}
	aside, err := f.Aside()
	if err != nil || len(aside) != 2 {
		t.Fatalf("%q, %v", aside, err)
	}
	for _, folder := range aside {
		if err := RemoveTree(folder, nil); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(f.State); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if c.SetAside() == nil {
		t.Error("what is not there was set aside")
	}
}

// TestRemoveTree removes what a container may have made of its files, and
// nothing that its links point to.
func TestRemoveTree(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "kept"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	for range 30 {
		top := filepath.Join(t.TempDir(), "top")
		if err := os.Mkdir(top, 0o700); err != nil {
			t.Fatal(err)
		}
		entries := grow(t, random, top, outside, 4)
		files := 0
		if err := RemoveTree(top, func(n int) { files = n }); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if _, err := os.Lstat(top); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("seed %d: %d entries, left: %v", seed, entries, err)
		}
		if entries >= 1024 && files == 0 {
			t.Errorf("no progress was told of %d files", entries)
		}
	}
	if data, err := os.ReadFile(filepath.Join(outside, "kept")); err != nil || string(data) != "x" {
		t.Errorf("outside: %q, %v", data, err)
	}
	if err := RemoveTree(filepath.Join(outside, "none"), nil); err != nil {
		t.Errorf("what is gone: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if RemoveTree(link, nil) == nil {
		t.Error("a link was followed")
	}
}

// grow fills a folder and returns how many entries it made.
func grow(t *testing.T, random *rand.Rand, dir, outside string, depth int) int {
	t.Helper()
	made := 0
	for i := range 1 + random.IntN(5) {
		path := filepath.Join(dir, fmt.Sprint(i, " \n\xff")) // no text at all
		if random.IntN(4) == 0 {
			path = filepath.Join(dir, removed+fmt.Sprint(i))
		}
		var err error
		switch kind := random.IntN(7); {
		case kind < 3 && depth > 0:
			if err = os.Mkdir(path, 0o700); err == nil {
				made += grow(t, random, path, outside, depth-1)
				err = os.Chmod(path, os.FileMode(random.IntN(0o1000)))
			}
		case kind == 3:
			err = os.Symlink(outside, path)
		case kind == 4:
			err = unix.Mkfifo(path, 0)
		case kind == 5:
			err = os.Symlink("..", path)
		default:
			err = os.WriteFile(path, nil, os.FileMode(random.IntN(0o1000)))
		}
		if err != nil {
			t.Fatal(err)
		}
		made++
	}
	return made
}

// TestRemoveDeepTree is one that no path and no table of descriptors can hold.
// TestRemoveTreeTogether: several remove the same tree, as nuc rm does with what
// another one has set aside.
func TestRemoveTreeTogether(t *testing.T) {
	for range 3 {
		top := filepath.Join(t.TempDir(), "tree")
		for i := range 60 {
			folder := filepath.Join(top, strconv.Itoa(i%20), strconv.Itoa(i), "below")
			if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "file"), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if err := RemoveTree(top, nil); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if _, err := os.Lstat(top); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
	}
}

func TestRemoveDeepTree(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	if err := os.Mkdir(top, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(top, folderFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("n", 200)
	for range 3000 {
		if err := unix.Mkdirat(fd, name, 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, folderFlags, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if err := RemoveTree(top, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(top); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// TestRemoveImmutable is what systemd does to /var/empty.
func TestRemoveImmutable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a file immutable")
	}
	top := filepath.Join(t.TempDir(), "top")
	empty := filepath.Join(top, "var/empty")
	if err := os.MkdirAll(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(empty)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, 0x10); err != nil {
		t.Skipf("this file system has no such flag: %v", err)
	}
	if os.Remove(empty) == nil {
		t.Fatal("an immutable folder can be removed, so this tests nothing")
	}
	if err := RemoveTree(top, nil); err != nil {
		_ = unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, 0)
		t.Error(err)
	}
}

func TestProgress(t *testing.T) {
	top := filepath.Join(t.TempDir(), "top")
	if err := os.Mkdir(top, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 2500 {
		if err := unix.Mknod(filepath.Join(top, fmt.Sprint(i)), unix.S_IFREG|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
	var told []int
	if err := RemoveTree(top, func(n int) { told = append(told, n) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []int{1024, 2048}) {
		t.Errorf("%v", told)
	}
}

// TestWriteFile: a reader sees one content or the other.
func TestWriteFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	contents := [][]byte{bytes.Repeat([]byte("a"), 1<<16), bytes.Repeat([]byte("b"), 1<<17)}
	if err := writeFile(path, contents[0]); err != nil {
		t.Fatal(err)
	}
	written := make(chan error)
	go func() {
		for i := range 200 {
			if err := writeFile(path, contents[i%2]); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	for done := false; !done; {
		select {
		case err := <-written:
			if err != nil {
				t.Error(err)
			}
			done = true
		default:
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(data, contents[0]) && !bytes.Equal(data, contents[1]) {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A container stays held when its runtime folder is removed, and can have another.
func TestLostFolder(t *testing.T) {
	f := Folders{State: t.TempDir(), Runtime: t.TempDir()}
	c := f.Container("web")
	lock, err := c.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { lock.Close() }()
	if lock.State != nil {
		t.Error("a state folder that is not there is locked")
	}
	if err := lock.HoldState(c); err != nil {
		t.Fatal(err)
	}
	if !lock.Lost(c, "control") {
		t.Error("without its socket the folder is not lost")
	}
	if err := os.WriteFile(filepath.Join(c.Runtime, "control"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if lock.Lost(c, "control") {
		t.Error("it is lost though all is there")
	}
	watch, err := c.WatchRemoval()
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	if err := os.RemoveAll(c.Runtime); err != nil {
		t.Fatal(err)
	}
	if err := watch.Wait(time.Minute); err != nil || !lock.Lost(c, "control") {
		t.Errorf("its removal: %v, lost: %v", err, lock.Lost(c, "control"))
	}
	if !c.Held() || c.Holder() != os.Getpid() {
		t.Errorf("without its runtime folder: held %v, by %d", c.Held(), c.Holder())
	}
	if _, err := c.Acquire(); !errors.Is(err, ErrHeld) {
		t.Errorf("a second one got it: %v", err)
	}
	if _, err := os.Lstat(c.Runtime); !errors.Is(err, os.ErrNotExist) {
		t.Error("who did not get it left a runtime folder")
	}
	renewed, err := lock.Renew(c)
	if err != nil {
		t.Fatal(err)
	}
	lock = renewed
	if _, err := c.Acquire(); !errors.Is(err, ErrHeld) || !c.Held() {
		t.Errorf("renewed: %v", err)
	}
	lock.Close()
	if c.Held() {
		t.Error("it is held after all is closed")
	}
}

// Root's containers are not where logind removes them from.
func TestRootsRuntimeFolder(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: the folder is root's")
	}
	for xdg, want := range map[string]string{"": "/run/nuc", "/run/user/0": "/run/nuc", "/run/user/0/": "/run/nuc"} {
		f, err := FindFolders(func(name string) string {
			if name == "XDG_RUNTIME_DIR" {
				return xdg
			}
			return ""
		}, t.TempDir(), 0)
		if err != nil || f.Runtime != want {
			t.Errorf("XDG_RUNTIME_DIR=%q: %q, %v, want %s", xdg, f.Runtime, err, want)
		}
	}
}
