package idmap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

// role makes the test binary another program: one that an unprivileged user
// runs.
const role = "IDMAP_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "write":
		count, _ := strconv.Atoi(os.Getenv("IDMAP_TEST_COUNT"))
		finishRole(writeReal(count))
	case "no_new_privs":
		runtime.LockOSThread()
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			finishRole(nil, err)
		}
		finishRole(writeReal(65536))
	}
	leaktest.Main(m)
}

// written is what the kernel says of a child after Write.
type written struct {
	Map        Map
	UID, GID   uint32
	UIDs, GIDs string
	Setgroups  string
	Took       time.Duration
}

func finishRole(w *written, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(w)
	os.Exit(0)
}

// writeReal maps a child as the calling user.
func writeReal(count int) (*written, error) {
	m, err := PlanFor(count)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	defer r.Close()
	echo, child, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer echo.Close()
	defer child.Close()
	pid, err := syscall.ForkExec("/bin/cat", []string{"cat"}, &syscall.ProcAttr{
		Files: []uintptr{r.Fd(), child.Fd()},
		Sys:   &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}()
	// Its files in /proc are its user's only once execve is over, some time after
	// ForkExec has returned.
	if _, err := w.WriteString("x"); err != nil {
		return nil, err
	}
	if _, err := echo.Read(make([]byte, 1)); err != nil {
		return nil, err
	}
	out := &written{Map: m, UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	begun := time.Now()
	if err := m.Write(pid); err != nil {
		return nil, err
	}
	out.Took = time.Since(begun)
	for name, to := range map[string]*string{"uid_map": &out.UIDs, "gid_map": &out.GIDs, "setgroups": &out.Setgroups} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			return nil, err
		}
		*to = string(data)
	}
	return out, nil
}

// asUser runs the test binary in a role as an unprivileged user with ranges.
func asUser(t *testing.T, name string, environment ...string) (*written, string) {
	t.Helper()
	// The folder of the binary is only the builder's own; the link leads past it.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append([]string{role + "=" + name, "PATH=/usr/bin:/bin"}, environment...)
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		uid, gid := someUser(t)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, stderr.String()
	}
	var w written
	if err := json.Unmarshal(stdout.Bytes(), &w); err != nil {
		t.Fatalf("%v: %s", err, stdout.String())
	}
	return &w, ""
}

// someUser is one who has 65536 ids of both kinds.
func someUser(t *testing.T) (uid, gid uint32) {
	t.Helper()
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(line, ":")
		if len(f) < 7 || f[2] == "0" {
			continue
		}
		u, err1 := strconv.ParseUint(f[2], 10, 32)
		g, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		o := Options{UID: uint32(u), GID: uint32(g), User: f[0], Count: full, SubUID: SubUIDFile, SubGID: SubGIDFile}
		if m, err := Plan(o); err == nil && m.Full {
			return o.UID, o.GID
		}
	}
	t.Skip("no user of this machine has 65536 subordinate ids: add one with useradd and /etc/subuid, /etc/subgid")
	return 0, 0
}

// needRange skips where the user has no ids to map, as the builders of Nix.
func needRange(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return // someUser looks for one who has
	}
	if m, err := PlanFor(full); err != nil || !m.Full {
		t.Skip("you have no 65536 subordinate ids: see /etc/subuid and /etc/subgid")
	}
}

// needPrivileges skips where no_new_privs is set: nothing of helpers matters then.
func needPrivileges(t *testing.T) {
	t.Helper()
	if set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && set == 1 {
		t.Skip("no_new_privs is set, as in the sandbox of Nix")
	}
}

func TestWriteAsUser(t *testing.T) {
	needRange(t)
	w, said := asUser(t, "write", "IDMAP_TEST_COUNT=65536")
	if w == nil {
		t.Fatal(said)
	}
	compareKernel(t, w)
	if !w.Map.Full || w.Map.RootUID() != w.UID || w.Map.RootGID() != w.GID {
		t.Errorf("map is %+v for %d:%d", w.Map, w.UID, w.GID)
	}
	if w.Setgroups != "allow\n" {
		t.Errorf("setgroups is %q: services could not drop their groups", w.Setgroups)
	}
	t.Logf("Write took %s", w.Took)
}

// TestHostileSingleID is hostile case 22.
func TestHostileSingleID(t *testing.T) {
	// Helpers would not be found.
	w, said := asUser(t, "write", "IDMAP_TEST_COUNT=1", "PATH=/nonexistent")
	if w == nil {
		t.Fatal(said)
	}
	compareKernel(t, w)
	if want := []Extent{{0, w.UID, 1}}; !cmp.Equal(w.Map.UIDs, want) {
		t.Errorf("users are %+v", w.Map.UIDs)
	}
	if w.Setgroups != "deny\n" {
		t.Errorf("setgroups is %q, want deny (CVE-2018-7169)", w.Setgroups)
	}
}

func TestWriteAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	w, err := writeReal(65536)
	if err != nil {
		t.Fatal(err)
	}
	compareKernel(t, w)
	if w.Map.RootUID() == 0 || w.Map.RootGID() == 0 {
		t.Errorf("the host's root is in the container: %+v", w.Map)
	}
	if w, err = writeReal(1); err != nil {
		t.Fatal(err)
	}
	compareKernel(t, w)
	if w.Setgroups != "deny\n" || w.Map.RootUID() == 0 {
		t.Errorf("single id: setgroups %q, %+v", w.Setgroups, w.Map)
	}
}

func compareKernel(t *testing.T, w *written) {
	t.Helper()
	for _, k := range []struct {
		name, got string
		want      []Extent
	}{{"uid_map", w.UIDs, w.Map.UIDs}, {"gid_map", w.GIDs, w.Map.GIDs}} {
		if got := strings.Join(strings.Fields(k.got), " "); got != strings.Join(strings.Fields(text(k.want)), " ") {
			t.Errorf("%s is %q, want %q", k.name, got, text(k.want))
		}
	}
}

// helpers puts programs into a folder that alone is searched.
func helpers(t *testing.T, mode os.FileMode, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	before := helperFolders
	helperFolders = nil
	t.Cleanup(func() { helperFolders = before })
}

var anyMap = Map{UIDs: []Extent{{0, 1000, 1}, {1, 100000, 65535}}, GIDs: []Extent{{0, 1000, 1}, {1, 100000, 65535}}}

// needSetuid skips where a file can't be made setuid root, as the checks before
// a helper is run want it.
func needSetuid(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a setuid file")
	}
	var fs unix.Statfs_t
	if unix.Statfs(os.TempDir(), &fs) == nil && fs.Flags&unix.ST_NOSUID != 0 {
		t.Skip("the temporary folder is mounted nosuid")
	}
}

// TestHostileHelpers is hostile case 24: newuidmap missing, not setuid, hanging
// or under no_new_privs.
func TestHostileHelpers(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		needPrivileges(t)
		helpers(t, 0o755, nil)
		within2s(t, func() {
			oneLine(t, anyMap.help(os.Getpid()), "newuidmap is not installed", "`uidmap`", "security.wrappers")
		})
	})
	t.Run("not setuid", func(t *testing.T) {
		needPrivileges(t)
		helpers(t, 0o755, map[string]string{"newuidmap": "touch $0.ran", "newgidmap": "touch $0.ran"})
		within2s(t, func() {
			oneLine(t, anyMap.help(os.Getpid()), "newuidmap", "not setuid root", "chmod u+s")
		})
		if ran, _ := filepath.Glob(os.Getenv("PATH") + "/*.ran"); len(ran) > 0 {
			t.Error("it was run all the same")
		}
	})
	t.Run("setuid somebody", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755, map[string]string{"newuidmap": "", "newgidmap": ""})
		file := os.Getenv("PATH") + "/newuidmap"
		if err := os.Chown(file, 1, 1); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, 0o755|os.ModeSetuid); err != nil {
			t.Fatal(err)
		}
		oneLine(t, anyMap.help(os.Getpid()), "not setuid root")
	})
	t.Run("newgidmap alone missing", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": "touch $0.ran"})
		oneLine(t, anyMap.help(os.Getpid()), "newgidmap is not installed")
		if ran, _ := filepath.Glob(os.Getenv("PATH") + "/*.ran"); len(ran) > 0 {
			t.Error("newuidmap was run before it was clear that newgidmap is there")
		}
	})
	t.Run("fails", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": "echo 'uid range [1-2) not allowed' >&2; exit 3", "newgidmap": ""})
		oneLine(t, anyMap.help(os.Getpid()), "newuidmap", "exit status 3", "not allowed")
		noChildren(t)
	})
	t.Run("says too much", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": "", "newgidmap": "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done; exit 1"})
		within2s(t, func() {
			err := anyMap.help(os.Getpid())
			oneLine(t, err, "newgidmap", "exit status")
			if len(err.Error()) > 1000 {
				t.Errorf("%d characters", len(err.Error()))
			}
		})
		noChildren(t)
	})
	for _, which := range []string{"newuidmap", "newgidmap"} {
		t.Run(which+" hangs", func(t *testing.T) {
			needSetuid(t)
			scripts := map[string]string{"newuidmap": "", "newgidmap": ""}
			scripts[which] = "/bin/sleep 60"
			helpers(t, 0o755|os.ModeSetuid, scripts)
			within2s(t, func() { oneLine(t, anyMap.help(os.Getpid()), which, "2 s") })
			noChildren(t)
		})
	}
	t.Run("at work for longer", func(t *testing.T) {
		needSetuid(t)
		// The shell itself counts; where it has to share processors, even longer.
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": burn(3), "newgidmap": "exec /bin/sleep 0.1"})
		begun := time.Now()
		if err := anyMap.help(os.Getpid()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < patience {
			t.Errorf("took %s: the deadline was not reached", took)
		}
		noChildren(t)
	})
	t.Run("at work, then hangs", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": burn(3) + "; exec /bin/sleep 60", "newgidmap": ""})
		begun := time.Now()
		oneLine(t, anyMap.help(os.Getpid()), "newuidmap", " s and was killed")
		if took := time.Since(begun); took < patience || took > 20*time.Second {
			t.Errorf("took %s", took)
		}
		noChildren(t)
	})
	t.Run("looks now and then", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": "while :; do /bin/sleep 0.3; done", "newgidmap": ""})
		begun := time.Now()
		oneLine(t, anyMap.help(os.Getpid()), "newuidmap", " s and was killed")
		if took := time.Since(begun); took > longest/2 {
			t.Errorf("took %s", took)
		}
		noChildren(t)
	})
	t.Run("side by side", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": "/bin/sleep 0.4", "newgidmap": "/bin/sleep 0.4"})
		begun := time.Now()
		if err := anyMap.help(os.Getpid()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 750*time.Millisecond {
			t.Errorf("took %s: one waited for the other", took)
		}
		noChildren(t)
	})
	t.Run("gets nothing of the environment", func(t *testing.T) {
		needSetuid(t)
		t.Setenv("SECRET", "x")
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": `[ -z "$SECRET" ] && [ "$*" = "7 0 1000 1 1 100000 65535" ]`, "newgidmap": ""})
		if err := anyMap.help(7); err != nil {
			t.Error(err)
		}
	})
	t.Run("later on the path", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755|os.ModeSetuid, map[string]string{"newuidmap": "", "newgidmap": ""})
		able := os.Getenv("PATH")
		helpers(t, 0o755, map[string]string{"newuidmap": "exit 1", "newgidmap": "exit 1"})
		t.Setenv("PATH", ".:"+os.Getenv("PATH")+":"+able)
		if err := anyMap.help(os.Getpid()); err != nil {
			t.Error(err)
		}
	})
	t.Run("file capability", func(t *testing.T) {
		needSetuid(t)
		helpers(t, 0o755, map[string]string{"newuidmap": "", "newgidmap": ""})
		for name, set := range map[string]byte{"newuidmap": 1 << unix.CAP_SETUID, "newgidmap": 1 << unix.CAP_SETGID} {
			// VFS_CAP_REVISION_2 with the effective flag.
			data := []byte{1, 0, 0, 2, set, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
			if err := unix.Setxattr(filepath.Join(os.Getenv("PATH"), name), "security.capability", data, 0); err != nil {
				t.Skipf("file capabilities: %v", err)
			}
		}
		if err := anyMap.help(os.Getpid()); err != nil {
			t.Error(err)
		}
	})
	t.Run("no_new_privs", func(t *testing.T) {
		needRange(t)
		within2s(t, func() {
			w, said := asUser(t, "no_new_privs")
			if w != nil {
				t.Fatalf("mapped under no_new_privs: %+v", w)
			}
			if !strings.Contains(said, "no_new_privs") || strings.Count(said, "\n") != 1 {
				t.Errorf("said %q", said)
			}
		})
	})
}

// burn is shell that is busy for so many seconds of the clock.
func burn(seconds int) string {
	return fmt.Sprintf(`now() { read -r up _ </proc/uptime; up=${up%%.*}; }; now; end=$((up+%d)); while [ $up -lt $end ]; do now; done`, seconds)
}

func within2s(t *testing.T, f func()) {
	t.Helper()
	begun := time.Now()
	f()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

func noChildren(t *testing.T) {
	t.Helper()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err != syscall.ECHILD {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}
