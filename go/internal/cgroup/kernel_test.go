package cgroup

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

// These tests are about a real cgroup2: root makes a delegated cgroup, and the
// test binary runs in it again as a user, doing what it is told line by line.

const (
	role = "CGROUP_TEST_ROLE"
	user = 64123 // needs no account
)

func TestMain(m *testing.M) {
	if os.Getenv(role) != "" {
		obey()
		return
	}
	leaktest.Main(m)
}

// answer to a line.
type answer struct {
	Error    string
	Missing  string
	Path     Path
	Own      string // the process's cgroup
	Child    int    // a process in the payload
	Stats    Stats
	Warnings []string
}

// obey runs in the other process.
func obey() {
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	var g *Group
	var child *exec.Cmd
	for lines.Scan() {
		var a answer
		command, argument, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch command {
		case "open", "move":
			k := running()
			k.move = command == "move"
			k.systemd = true
			name, others, _ := strings.Cut(argument, " ")
			k.with = numbers(others)
			g, err = open(k, name, func(Path) error { return nil })
		case "child":
			child = exec.Command("/bin/sleep", "60")
			child.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.Payload().Fd())}
			if err = child.Start(); err == nil {
				a.Child = child.Process.Pid
			}
		case "nest":
			// Deeper than a path can be.
			fd, ferr := unix.Openat(int(g.Payload().Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			for i := 0; i < 40 && ferr == nil; i++ {
				name := strings.Repeat("x", 200)
				if ferr = unix.Mkdirat(fd, name, 0o755); ferr == nil {
					next, oerr := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
					unix.Close(fd)
					fd, ferr = next, oerr
				}
				if i%10 == 0 && ferr == nil {
					ferr = unix.Mkdirat(fd, "side", 0o755)
				}
			}
			unix.Close(fd)
			err = ferr
		case "kill":
			if err = g.Kill(); err == nil {
				_ = child.Wait()
			}
		case "stats":
			a.Stats = g.Stats()
		case "remove":
			err = g.Remove(numbers(argument)...)
		case "sweep", "empty":
			var p Path
			if err = json.Unmarshal([]byte(argument), &p); err != nil {
				break
			}
			if command == "empty" {
				err = Empty(p)
			} else {
				err = Sweep(p)
			}
		}
		if err != nil {
			a.Error = err.Error()
		}
		if g != nil {
			a.Missing, a.Path = g.Missing(), g.Description()
		}
		a.Own, _ = running().own()
		_ = out.Encode(a)
	}
}

func numbers(text string) (all []int) {
	for _, f := range strings.Fields(text) {
		n, _ := strconv.Atoi(f)
		all = append(all, n)
	}
	return all
}

// other is the other process.
type other struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
	dead bool
}

// delegated makes a cgroup that belongs to the user.
func delegated(t *testing.T, owner int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to delegate a cgroup to a user")
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	top, err := find([]byte("0::/\n"), mounts)
	if err != nil {
		t.Skip(err)
	}
	for _, c := range words(top, "cgroup.controllers") {
		_ = enable(top, c)
	}
	dir, err := os.MkdirTemp(top, "nuc-test-")
	if err != nil {
		t.Skipf("no cgroup can be made: %v", err)
	}
	t.Cleanup(func() {
		_ = kill(dir)
		if err := removeUntil(dir, time.Now().Add(2*time.Second)); err != nil {
			t.Error(err)
		}
	})
	give(t, dir, owner)
	return dir
}

func give(t *testing.T, dir string, owner int) {
	t.Helper()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
		if err := os.Chown(filepath.Join(dir, name), owner, owner); err != nil {
			t.Fatal(err)
		}
	}
}

// begin starts the other process in a cgroup, as the user; in a user namespace
// it is that user still, as the keeper is, and has one subordinate id.
func begin(t *testing.T, dir string, uid uint32, namespace bool) *other {
	t.Helper()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "/"
	cmd.Env = []string{role + "=1"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(folder.Fd()), Pdeathsig: syscall.SIGKILL,
		Credential: &syscall.Credential{Uid: uid, Gid: uid},
	}
	if namespace {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(uid), Size: 2}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(uid), Size: 2}}
		cmd.SysProcAttr.Credential = &syscall.Credential{NoSetGroups: true}
	}
	o := &other{t: t, cmd: cmd}
	if o.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	o.out = json.NewDecoder(stdout)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.kill)
	return o
}

func (o *other) do(line string) answer {
	o.t.Helper()
	if _, err := fmt.Fprintln(o.in, line); err != nil {
		o.t.Fatal(err)
	}
	var a answer
	if err := o.out.Decode(&a); err != nil {
		o.t.Fatalf("%s: %v", line, err)
	}
	return a
}

// must also fails at an error.
func (o *other) must(line string) answer {
	o.t.Helper()
	a := o.do(line)
	if a.Error != "" || a.Missing != "" {
		o.t.Fatalf("%s: %s%s", line, a.Error, a.Missing)
	}
	return a
}

func (o *other) kill() {
	if !o.dead {
		o.dead = true
		_ = o.cmd.Process.Kill()
		_ = o.cmd.Wait()
	}
}

// below lists the cgroups below one.
func below(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, e.Name())
			for _, sub := range below(t, filepath.Join(dir, e.Name())) {
				found = append(found, e.Name()+"/"+sub)
			}
		}
	}
	return found
}

func wantBelow(t *testing.T, dir string, want ...string) {
	t.Helper()
	got := below(t, dir)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("below %s is %q, want %q", dir, got, want)
	}
}

func TestShell(t *testing.T) {
	x := delegated(t, user)
	shell := begin(t, x, user, false)
	o := begin(t, x, user, false)
	a := o.must("move web") // can't: the shell is there
	if a.Path.Inner != filepath.Join(x, "nuc-web") || a.Path.Payload != filepath.Join(x, "nuc-web/payload") {
		t.Errorf("%+v", a.Path)
	}
	if a.Own != x || a.Path.Supervisor != "" || len(a.Path.Enabled) > 0 {
		t.Errorf("the process was moved, or controllers enabled: %+v", a)
	}
	wantBelow(t, x, "nuc-web", "nuc-web/payload")

	// The same name of another state folder: the first is not yet in use, or is.
	second := filepath.Join(x, "nuc-web.2")
	if b := shell.must("open web"); b.Path.Inner != second {
		t.Errorf("a second one of that name is in %+v", b.Path)
	}
	shell.must("remove")
	child := o.must("child").Child
	if got := processes(a.Path.Payload); !slices.Equal(got, []int{child}) {
		t.Errorf("in the payload are %v, want %d", got, child)
	}
	if b := shell.must("open web"); b.Path.Inner != second {
		t.Errorf("a second one of that name is in %+v", b.Path)
	}
	shell.must("remove")
	o.must("nest")
	if stats := o.must("stats").Stats; stats.CPUMicroseconds == nil {
		t.Errorf("%+v", stats)
	}
	o.must("kill")
	o.must("remove")
	wantBelow(t, x)
}

func TestUnit(t *testing.T) {
	x := delegated(t, user)
	controllers := words(x, "cgroup.controllers")
	o := begin(t, x, user, false)
	a := o.must("move web")
	want := Path{X: x, Inner: x, Supervisor: x + "/supervisor", Payload: x + "/payload"}
	if a.Path.X != want.X || a.Path.Inner != want.Inner || a.Path.Supervisor != want.Supervisor || a.Path.Payload != want.Payload {
		t.Errorf("%+v, want %+v", a.Path, want)
	}
	if a.Own != want.Supervisor || len(processes(x)) != 0 {
		t.Errorf("the process is in %s; in X are %v", a.Own, processes(x))
	}
	if got := words(want.Payload, "cgroup.controllers"); !slices.Equal(got, controllers) || !slices.Equal(a.Path.Enabled, controllers) {
		t.Errorf("payload has %q, enabled %q, want %q", got, a.Path.Enabled, controllers)
	}
	o.must("child")
	o.must("kill")
	if a = o.must("remove"); a.Own != x {
		t.Errorf("the process is in %s after all", a.Own)
	}
	if got := words(x, "cgroup.subtree_control"); len(got) > 0 {
		t.Errorf("still enabled: %q", got)
	}
	wantBelow(t, x)
}

// TestCompanion: a process that belongs to the supervisor goes with it, there and
// back, and is no reason to leave a unit's cgroup alone.
func TestCompanion(t *testing.T) {
	x := delegated(t, user)
	companion := begin(t, x, user, false)
	o := begin(t, x, user, false)
	pid := companion.cmd.Process.Pid
	for range 2 {
		a := o.must(fmt.Sprint("move web ", pid))
		if want := x + "/supervisor"; a.Path.Supervisor != want || a.Own != want || companion.must("own").Own != want {
			t.Errorf("%+v, the companion is in %s", a, companion.must("own").Own)
		}
		o.must("child")
		o.must("kill")
		if a = o.must(fmt.Sprint("remove ", pid)); a.Own != x || companion.must("own").Own != x {
			t.Errorf("after all: %+v, the companion is in %s", a, companion.must("own").Own)
		}
		wantBelow(t, x)
	}
	// One that has ended is no hindrance.
	companion.kill()
	if a := o.must(fmt.Sprint("move web ", pid)); a.Own != x+"/supervisor" {
		t.Errorf("%+v", a)
	}
	o.must(fmt.Sprint("remove ", pid))
	wantBelow(t, x)
}

// TestStaysWithoutControllers holds the start's speed: see the package comment.
func TestStaysWithoutControllers(t *testing.T) {
	x := delegated(t, user)
	if slices.ContainsFunc(words(x, "cgroup.controllers"), useful) {
		t.Skip("this host has controllers")
	}
	o := begin(t, x, user, false)
	if a := o.must("open web"); a.Own != x || a.Path.Supervisor != "" || a.Path.Payload != x+"/payload" {
		t.Errorf("%+v", a)
	}
	o.must("remove")
	wantBelow(t, x)
}

// TestDelegateSubgroup is a unit that systemd starts in a leaf.
func TestDelegateSubgroup(t *testing.T) {
	x := delegated(t, user)
	leaf := filepath.Join(x, "supervisor")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		t.Fatal(err)
	}
	give(t, leaf, user)
	controllers := words(x, "cgroup.controllers")
	o := begin(t, leaf, user, false)
	a := o.must("open web")
	if a.Own != leaf || a.Path.X != x || a.Path.Supervisor != "" || a.Path.Payload != x+"/payload" || !slices.Equal(a.Path.Enabled, controllers) {
		t.Errorf("%+v", a)
	}
	o.must("remove")
	wantBelow(t, x, "supervisor")
}

// TestSweep is a supervisor that was killed; its keeper, in a user namespace
// and in the supervisor's leaf, removes what it made.
func TestSweep(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %v", shared), func(t *testing.T) {
			x := delegated(t, user)
			if shared {
				begin(t, x, user, false)
			}
			o := begin(t, x, user, false)
			a := o.must("move web")
			o.must("nest")
			child := o.must("child").Child
			home := x
			if !shared {
				home = a.Path.Supervisor
			}
			keeper := begin(t, home, user, true)
			o.kill()
			if err := syscall.Kill(child, 0); err != nil {
				t.Fatalf("the payload's process did not outlive its supervisor, so this tests nothing: %v", err)
			}
			begun := time.Now()
			b := keeper.must("sweep " + a.Path.String())
			if took := time.Since(begun); took > time.Second {
				t.Errorf("took %s", took)
			}
			if b.Own != x {
				t.Errorf("the keeper is in %s", b.Own)
			}
			wantBelow(t, x)
			if got := words(x, "cgroup.subtree_control"); len(got) > 0 {
				t.Errorf("still enabled: %q", got)
			}
			keeper.must("sweep " + a.Path.String()) // what is gone is no error
		})
	}
}

// TestEmpty is a container whose systemd has delegated a cgroup to a user.
func TestEmpty(t *testing.T) {
	x := delegated(t, user)
	o := begin(t, x, user, false)
	a := o.must("move web")
	home := x
	if a.Path.Supervisor != "" {
		home = a.Path.Supervisor
	}
	keeper := begin(t, home, user, true)
	theirs := filepath.Join(a.Path.Payload, "user.slice", "user@1000.service")
	if err := os.MkdirAll(filepath.Join(theirs, "app.slice"), 0o755); err != nil {
		t.Fatal(err)
	}
	give(t, filepath.Dir(theirs), user)
	give(t, theirs, user+1)
	if b := o.do("empty " + a.Path.String()); !strings.Contains(b.Error, "permission denied") {
		t.Errorf("the supervisor can remove what is another's, so this tests nothing: %q", b.Error)
	}
	keeper.must("empty " + a.Path.String())
	if got := below(t, a.Path.Payload); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
	keeper.must("empty " + a.Path.String())
	keeper.kill()
	o.must("remove")
	wantBelow(t, x)
}

// TestLeftover is a supervisor that was killed along with its keeper.
func TestLeftover(t *testing.T) {
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared %v", shared), func(t *testing.T) {
			x := delegated(t, user)
			if shared {
				begin(t, x, user, false)
			}
			o := begin(t, x, user, false)
			first := o.must("move web").Path
			o.must("nest")
			o.kill()
			if first.Supervisor != "" {
				// No process can be started in X while controllers are enabled.
				for _, c := range first.Enabled {
					_ = write(filepath.Join(x, "cgroup.subtree_control"), "-"+c)
				}
			}
			next := begin(t, x, user, false)
			second := next.must("move web").Path
			if second.Payload != first.Payload || second.Supervisor != first.Supervisor {
				t.Errorf("%+v, want %+v", second, first)
			}
			if got := below(t, second.Payload); len(got) > 0 {
				t.Errorf("leftovers: %.60q", got)
			}
			next.must("remove")
			wantBelow(t, x)
		})
	}
}

func TestNotDelegated(t *testing.T) {
	x := delegated(t, 0)
	o := begin(t, x, user, false)
	a := o.do("open web")
	if a.Error != "" || a.Path.X != "" {
		t.Errorf("%+v", a)
	}
	oneLine(t, a.Missing, x, "uid 64123", "systemd-run --user --scope -p Delegate=yes")
	if a = o.do("remove"); a.Error != "" {
		t.Error(a.Error)
	}
	wantBelow(t, x)
	// The folder alone is not enough: processes could not be moved.
	if err := os.Chown(x, user, user); err != nil {
		t.Fatal(err)
	}
	oneLine(t, o.do("open web").Missing, "cgroup.procs")
	wantBelow(t, x)
}

// TestRemedyWithoutSystemd does what Missing says.
func TestRemedyWithoutSystemd(t *testing.T) {
	x := delegated(t, 0)
	remedy := kernel{}.delegation(x)
	command, _, _ := strings.Cut(strings.TrimPrefix(remedy, "sudo "), " in the shell")
	o, err := exec.Command("sh", "-c", command+" && cat /proc/$$/cgroup && stat -c %u "+x+"/nuc-*/cgroup.procs").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, o)
	}
	if !strings.Contains(string(o), "/nuc-0\n") || !strings.HasSuffix(string(o), "\n0\n") {
		t.Errorf("%s", o)
	}
}

// TestBusy is a payload with a process that nobody ends.
func TestBusy(t *testing.T) {
	x := delegated(t, user)
	begin(t, x, user, false)
	o := begin(t, x, user, false)
	o.must("open web")
	o.must("child")
	begun := time.Now()
	a := o.do("remove")
	if took := time.Since(begun); took < patience || took > 2*patience {
		t.Errorf("took %s", took)
	}
	oneLine(t, a.Error, "nuc-web/payload", "processes are still in it")
}

// TestThreaded is a cgroup below which no process can be.
func TestThreaded(t *testing.T) {
	x := delegated(t, user)
	child := filepath.Join(x, "threads")
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	give(t, child, user)
	shell := begin(t, x, user, false)
	_ = shell
	if err := write(filepath.Join(child, "cgroup.type"), "threaded"); err != nil {
		t.Skipf("threaded cgroups: %v", err)
	}
	// X has a process and a threaded child: what is made below can hold threads only.
	o := begin(t, x, user, false)
	a := o.do("open web")
	oneLine(t, a.Missing, "threaded")
	wantBelow(t, x, "threads")
}

func TestRootGivesPayload(t *testing.T) {
	x := delegated(t, 0)
	o := begin(t, x, 0, false)
	a := o.must("open web")
	g := &Group{path: a.Path}
	var err error
	if g.payload, err = os.Open(a.Path.Payload); err != nil {
		t.Fatal(err)
	}
	defer g.payload.Close()
	if err := g.Chown(user, user+1); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{
		"payload": user, "payload/cgroup.procs": user, "payload/cgroup.threads": user, "payload/cgroup.subtree_control": user,
		"payload/cgroup.max.depth": 0, "": 0, "cgroup.procs": 0,
	} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(a.Path.Inner, name), &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != want {
			t.Errorf("%q belongs to %d, want %d", name, st.Uid, want)
		}
	}
	o.must("remove")
}

// TestKillBeforeCgroupKill kills one by one, as before Linux 5.14.
func TestKillBeforeCgroupKill(t *testing.T) {
	dir := t.TempDir()
	victim := exec.Command("/bin/sleep", "60")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/cgroup.procs"), []byte(fmt.Sprintf("0\n%d\n", victim.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.freeze"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := kill(dir); err != nil {
		t.Fatal(err)
	}
	err := victim.Wait()
	if status, ok := victim.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Errorf("it ended with %v", err)
	}
	if got := read(t, filepath.Join(dir, "cgroup.freeze")); got != "0" {
		t.Errorf("cgroup.freeze is left at %q", got)
	}
}
