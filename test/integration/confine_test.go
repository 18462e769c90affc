package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// confinement is what `nuc status --json` says of it.
type confinement struct {
	Landlock   int
	StarterPid int
	Reason     string
}

// awaitConfinement waits until a container's supervisor has confined itself, which
// nobody else waits for, or says why not.
func awaitConfinement(h *harness.H, name string) confinement {
	h.Helper()
	var status struct{ Confinement *confinement }
	harness.Eventually(h, patience, "the supervisor confines itself", func() bool {
		r := h.Nuc("status", "--json", name)
		if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil {
			h.Fatalf("%v\n%s", err, r)
		}
		return status.Confinement != nil
	})
	return *status.Confinement
}

// awaitConfined skips the test where the kernel can't do it.
func awaitConfined(h *harness.H, name string) confinement {
	h.Helper()
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		h.Skipf("the kernel has no Landlock: %v", errno)
	}
	c := awaitConfinement(h, name)
	if c.Landlock != int(version) || c.StarterPid == 0 || c.Reason != "" {
		h.Fatalf("%+v, and the kernel's version is %d", c, version)
	}
	return c
}

// newPrivileges tells whether each thread of a process has no_new_privs, which it
// can't lose.
func newPrivileges(h *harness.H, pid int) (some, none bool) {
	h.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		h.Fatalf("process %d is gone", pid)
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if err != nil {
			continue
		}
		if strings.Contains(string(text), "NoNewPrivs:\t0") {
			some = true
		} else {
			none = true
		}
	}
	return some, none
}

// lead replaces a path by a symbolic link.
func lead(h *harness.H, path, to string) {
	h.Helper()
	_ = os.RemoveAll(path)
	if r := h.Host("ln", "-s", to, path); r.Code != 0 {
		h.Fatal(r)
	}
}

// TestConfined leads a supervisor astray, in its own folders: it follows, as far
// as the kernel lets it.
func TestConfined(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		plain := func(d map[string]any) {
			harness.Section(d, "network")["hosts"] = map[string]any{"one.test": "192.0.2.1"}
		}
		h.Up("web", tree, plain)
		c := awaitConfined(h, "web")
		roles := h.Roles()
		if roles.Starter != c.StarterPid {
			h.Errorf("the starter is process %d, and status says %d", roles.Starter, c.StarterPid)
		}
		for pid, confined := range map[int]bool{roles.Supervisor: true, roles.Starter: false, roles.Keeper: false} {
			if some, none := newPrivileges(h, pid); none != confined || some == confined {
				h.Errorf("%+v: process %d: threads that may gain rights: %t, that may not: %t", roles, pid, some, none)
			}
		}
		if r := h.Nuc("status", "web"); !strings.Contains(r.Stdout, fmt.Sprintf("by Landlock, version %d\n", c.Landlock)) {
			h.Errorf("%s", r)
		}

		// The folder that it writes /run/host/hosts to is another one: in its state
		// folder, which it may write to, and one of the user's.
		host := filepath.Join(h.Runtime, "nuc", "web", "host")
		if err := os.Rename(host, host+"-"); err != nil {
			h.Fatal(err)
		}
		own, foreign := filepath.Join(h.State, "nuc", "web", "own"), h.MakeDir("foreign")
		if r := h.Host("mkdir", own); r.Code != 0 {
			h.Fatal(r)
		}
		write := func(to, address string) error {
			h.Helper()
			lead(h, host, to)
			h.OnTree("web", tree, func(d map[string]any) {
				harness.Section(d, "network")["hosts"] = map[string]any{"other.test": address}
			})
			h.Must("switch", "web")
			got, err := os.ReadFile(filepath.Join(to, "hosts"))
			if err == nil && !strings.Contains(string(got), address+" other.test") {
				h.Errorf("%q", got)
			}
			return err
		}
		if err := write(own, "192.0.2.2"); err != nil {
			h.Errorf("it follows no link where it may: %v", err)
		}
		if err := write(foreign, "192.0.2.3"); !errors.Is(err, os.ErrNotExist) {
			h.Errorf("it writes to a folder of the user's: %v", err)
		}
		if entries, err := os.ReadDir(foreign); err != nil || len(entries) > 0 {
			h.Errorf("%v, %v", entries, err)
		}
		if r := h.Nuc("status", "web"); !strings.Contains(r.Stdout, "hosts.part: permission denied") {
			h.Errorf("%s", r)
		}
		if err := os.Remove(host); err != nil {
			h.Fatal(err)
		}
		if err := os.Rename(host+"-", host); err != nil {
			h.Fatal(err)
		}

		// The whole of it goes on, and ends, as it does without.
		h.Reboot("web", 2*patience)
		if got := h.Exec("web", "getent", "hosts", "other.test").Stdout; !strings.HasPrefix(got, "192.0.2.3") {
			h.Errorf("after a reboot: %q", got)
		}
		h.Must("stop", "web")
		h.NothingLeft()
	})
}

// TestStarter: another run of a confined supervisor's container, and what becomes
// of its starter, and of it without.
func TestStarter(t *testing.T) {
	h := harness.New(t)
	h.Up("web", "trixie", func(d map[string]any) { d["restart"] = "on-failure" })
	c := awaitConfined(h, "web")
	kill := func(pid int) {
		h.Helper()
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
	}
	before := h.Roles()
	kill(before.Keeper)
	harness.Eventually(h, patience, "it is started again", func() bool {
		now := runOf(h, "web")
		return now.Restarts == 1 && now.State == "ready"
	})
	now := h.Roles()
	if now.Supervisor != before.Supervisor || now.Starter != c.StarterPid || now.Keeper == before.Keeper {
		h.Errorf("%+v, before it was %+v", now, before)
	}
	if some, none := newPrivileges(h, now.Keeper); none || !some {
		h.Errorf("the second keeper: %t, %t", some, none)
	}
	h.Must("exec", "web", "true")

	// Without it, the container goes on, and can't be started again.
	kill(c.StarterPid)
	harness.Eventually(h, patience, "status says so", func() bool {
		return strings.Contains(h.Nuc("status", "web").Stdout, "was killed")
	})
	h.Must("exec", "web", "true")
	kill(runOf(h, "web").InitPid)
	h.WaitState("web", patience, "failed")
	if got := runOf(h, "web").Reason; !strings.Contains(got, "the process that starts things for the supervisor was killed") {
		h.Errorf("%q", got)
	}
	h.NothingLeft()

	// It goes with its supervisor.
	h.Must("up", "web")
	awaitConfined(h, "web")
	kill(h.Roles().Supervisor)
	h.NothingLeft()
}

// TestLinkConfined leads a link's process astray: it looks for its container in
// the runtime folder, and finds a way out of that.
func TestLinkConfined(t *testing.T) {
	h := harness.New(t)
	h.Up("web", "trixie", ephemeral)
	awaitConfined(h, "web") // or there is no Landlock
	h.Must("link", "-", fmt.Sprint(harness.FreePort(h)), "web", "80")
	var pid int
	for _, l := range links(h) {
		pid = l.Pid
	}
	if some, none := newPrivileges(h, pid); some || !none {
		h.Errorf("process %d: threads that may gain rights: %t, that may not: %t", pid, some, none)
	}
	h.Must("stop", "web")

	runtime := filepath.Join(h.Runtime, "nuc")
	calls := func(folder string) <-chan struct{} {
		h.Helper()
		called := make(chan struct{}, 100)
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: filepath.Join(folder, "control")})
		if err != nil {
			h.Fatal(err)
		}
		h.Cleanup(func() { l.Close() })
		_, uid, gid := h.User()
		if err := os.Chown(filepath.Join(folder, "control"), uid, gid); err != nil {
			h.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
				called <- struct{}{}
			}
		}()
		return called
	}
	outside := calls(h.MakeDir("trap"))
	inside := filepath.Join(runtime, ".links", "trap")
	if r := h.Host("mkdir", inside); r.Code != 0 {
		h.Fatal(r)
	}
	within := calls(inside)
	lead(h, filepath.Join(runtime, "web"), filepath.Join(h.Dir, "trap"))
	harness.Eventually(h, patience, "the link has seen the way out", func() bool {
		return strings.Contains(h.Nuc("links").Stdout, "waiting")
	})
	lead(h, filepath.Join(runtime, "web"), inside)
	select {
	case <-within:
	case <-time.After(patience):
		h.Error("it does not follow where it may")
	}
	if len(outside) > 0 {
		h.Error("it has connected to a socket outside of the runtime folder")
	}
	for _, path := range []string{filepath.Join(runtime, "web"), inside} {
		if err := os.RemoveAll(path); err != nil {
			h.Fatal(err)
		}
	}
	h.Must("unlink", "--all")
	h.NothingLeft()
}
