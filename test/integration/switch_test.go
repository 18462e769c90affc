package integration

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// activate stands in for NixOS's switch-to-configuration: nginx moves to port
// 81, where the switch's new generation relays to.
const activate = `cat >/usr/local/sbin/activate <<'END'
#!/bin/sh
set -e
echo "activate $*"
case $1 in
switch)
	sed -i 's/listen 80 /listen 81 /; s/\[::\]:80 /[::]:81 /' /etc/nginx/sites-enabled/default
	logger "moving nginx"
	systemctl restart nginx
	;;
fail)
	exit 4
	;;
esac
END
chmod 755 /usr/local/sbin/activate`

// listens tells whether somebody listens on a port of the host; one whose
// service is not there resets the connection.
func listens(number int) bool {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(number)), time.Second)
	if err == nil {
		conn.Close()
	}
	return err == nil || errors.Is(err, unix.ECONNRESET)
}

func TestSwitch(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		first, second := harness.FreePort(h), harness.FreePort(h)
		want := func(r harness.Result, code int, texts ...string) {
			h.Helper()
			for _, text := range texts {
				if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, text) {
					h.Errorf("want status %d and %q:\n%s", code, text, r)
				}
			}
		}
		nginx := func(number int) bool {
			r := h.Host("curl", "-fsS", "--max-time", "10", fmt.Sprintf("http://127.0.0.1:%d/", number))
			return strings.Contains(r.Stdout, "Welcome to nginx")
		}
		describe := func(hostPort, containerPort int, command ...string) string {
			return h.OnTree("web", tree, func(d map[string]any) {
				d["network"] = map[string]any{"ports": []any{port(hostPort, containerPort)}}
				if len(command) > 0 {
					harness.Section(d, "system")["switch"] = command
				}
			})
		}
		h.Must("up", describe(first, 80))
		h.Must("exec", "web", "sh", "-c", activate)
		roles := h.Roles()

		describe(second, 81, "/usr/local/sbin/activate", "switch")
		want(h.Nuc("switch", "--dry-activate", "web"), 0, "activate dry-activate", "network.ports[0].host")
		if !nginx(first) {
			h.Error("--dry-activate changed something")
		}
		want(h.Nuc("switch", "web"), 0, "activate switch", "moving nginx", "restarted: nginx.service", "generation 2")
		serves := func(hostPort, containerPort int) {
			h.Helper()
			shown := h.Must("ps")
			if strings.Count(shown, "→") != 1 || !strings.Contains(shown, fmt.Sprintf("127.0.0.1:%d→%d ", hostPort, containerPort)) || !listens(hostPort) {
				h.Errorf("want port %d to %d, and no other:\n%s", hostPort, containerPort, shown)
			}
		}
		serves(second, 81)
		if !nginx(second) {
			h.Error("after the switch nginx doesn't answer on the new port")
		}
		want(h.Nuc("generations", "web"), 0, "2 ", "current")
		want(h.Nuc("diff", "web"), 0, "generation 1 → 2", "network.ports[0].host")
		want(h.Nuc("switch", "web"), 0, "nothing changed, generation 2")

		taken, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			h.Fatal(err)
		}
		defer taken.Close()
		describe(taken.Addr().(*net.TCPAddr).Port, 81, "/usr/local/sbin/activate", "switch", "again")
		want(h.Nuc("switch", "web"), 1, "listens there already", "nothing was changed")
		describe(second, 81, "/usr/local/sbin/absent", "switch")
		want(h.Nuc("switch", "web"), 1, "/usr/local/sbin/absent", "nothing was changed")
		if !nginx(second) {
			h.Error("a switch that failed took the port away")
		}

		describe(second, 81, "/usr/local/sbin/activate", "fail")
		want(h.Nuc("switch", "web"), 4, "ended with status 4", "nuc rollback web")
		want(h.Nuc("rollback", "web"), 0, "generation 2")
		want(h.Nuc("rollback", "web"), 0, "generation 1")
		serves(first, 80)
		if r := h.Nuc("rollback", "web"); r.Code == 0 || !strings.Contains(r.Stderr, "no generation before 1") {
			h.Errorf("a rollback from the first generation: want a refusal\n%s", r)
		}
		if now := h.Roles(); now != roles {
			h.Errorf("the container was restarted: before %+v, after %+v", roles, now)
		}

		h.OnTree("web", tree, func(d map[string]any) {
			d["mounts"] = []any{map[string]any{"kind": "tmpfs", "target": "/scratch"}}
		})
		want(h.Nuc("switch", "web"), 0, "needs restart: mounts")
		h.Must("rollback", "web", "--to", "1")
		want(h.Nuc("switch", "--restart", "web"), 0, "restarting, as mounts changed")
		h.Must("exec", "web", "mountpoint", "/scratch")
		h.Must("stop", "web")
		want(h.Nuc("rollback", "web"), 0, "comes up with")
	})
}

// TestSwitchRefused: what can't come up is told before anything is stopped or
// kept, in each way that a generation is made; and what came to nothing all the
// same says how to go back.
func TestSwitchRefused(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	number := harness.FreePort(h)
	describe := func(mutate func(d map[string]any)) string {
		return h.OnTree("web", "trixie", func(d map[string]any) {
			lite(d)
			d["network"] = map[string]any{"ports": []any{port(number, 80)}}
			if mutate != nil {
				mutate(d)
			}
		})
	}
	scratch := func(d map[string]any) {
		d["mounts"] = []any{map[string]any{"kind": "tmpfs", "target": "/scratch"}}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		before := h.Must("generations", "web")
		r := h.Nuc(args...)
		if r.Code != 1 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "nothing was changed") || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("want status 1 and one line with %q, and that nothing was changed:\n%s", want, r)
		}
		if after := h.Must("generations", "web"); after != before {
			t.Errorf("the generations were\n%s\nand are\n%s", before, after)
		}
	}

	h.Must("up", describe(nil))
	roles := h.Roles()
	lost := "/nix/store/00000000000000000000000000000000-tree"
	describe(func(d map[string]any) { harness.Section(d, "root")["tree"] = lost })
	for _, flags := range [][]string{{}, {"--dry-activate"}, {"--restart"}, {"--boot"}} {
		refused(lost, append([]string{"switch", "web"}, flags...)...)
	}
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	describe(func(d map[string]any) {
		scratch(d)
		d["network"] = map[string]any{"ports": []any{port(number, 80), port(taken.Addr().(*net.TCPAddr).Port, 81)}}
	})
	refused("network.ports[1]", "switch", "--restart", "web")
	if now := h.Roles(); now != roles || h.Status("web") != "ready" {
		t.Errorf("a switch that was refused touched the container: before %+v, after %+v", roles, now)
	}

	// The same ports as before are no hindrance.
	describe(scratch)
	if r := h.Nuc("switch", "--restart", "web"); r.Code != 0 {
		t.Errorf("%s", r)
	}
	h.Must("rollback", "--restart", "web")
	describe(func(d map[string]any) {
		scratch(d)
		harness.Section(d, "system")["init"] = "/absent"
	})
	r := h.Nuc("switch", "--restart", "web")
	if r.Code != 1 || !strings.Contains(r.Stderr, "/absent") || !strings.Contains(r.Stderr, "go back with `nuc rollback web --to 1` and `nuc up web`") {
		t.Errorf("a switch to what can't start: want how to go back\n%s", r)
	}
	h.Must("rollback", "web", "--to", "1")
	describe(func(d map[string]any) { harness.Section(d, "root")["tree"] = lost })
	refused(lost, "switch", "web")
	h.Must("up", "web")

	// A Ctrl-C leaves the supervisor and the state folder at one generation.
	describe(func(d map[string]any) {
		harness.Section(d, "system")["switch"] = []string{"/bin/sh", "-c", "echo going on; exec sleep 600"}
	})
	p := h.Start("switch", "web")
	harness.Eventually(h, patience, "the switch goes on inside", func() bool { return strings.Contains(p.Output(), "\ngoing on") })
	p.Signal(unix.SIGINT)
	p.Wait(patience)
	running := h.Must("status", "web", "--json")
	if list := h.Must("generations", "web"); !strings.Contains(running, `"generation": 4,`) || !shows(list, "4 ", "current") {
		t.Errorf("after a Ctrl-C, the container runs\n%s\nand its generations are\n%s", running, list)
	}
	h.Must("rollback", "web", "--to", "1")

	// The generation that runs stays, current or not.
	describe(scratch)
	if r := h.Nuc("switch", "--boot", "web"); r.Code != 0 || !strings.Contains(r.Stdout, "generation 5 comes up at the next start") {
		t.Errorf("%s", r)
	}
	time.Sleep(1100 * time.Millisecond) // file times count whole seconds somewhere
	if r := h.Nuc("generations", "web", "--delete-older-than", "0m"); r.Code != 0 || !strings.Contains(r.Stdout, "3 of 5 generations deleted") {
		t.Errorf("%s", r)
	}
	if r := h.Nuc("generations", "web", "--json"); strings.Count(r.Stdout, `"generation"`) != 2 || !strings.Contains(r.Stdout, `"generation": 1,`) || !strings.Contains(r.Stdout, `"generation": 5,`) {
		t.Errorf("want the generation that runs and the current one: %s", r)
	}
	for _, args := range [][]string{
		{"generations", "web", "--delete-older-than", ""},
		{"switch", "--boot", "--restart", "web"},
		{"switch", "--boot", "--dry-activate", "web"},
		{"switch", "--restart", "--dry-activate", "web"},
	} {
		if r := h.Nuc(args...); r.Code != 2 {
			t.Errorf("want a usage error: %s", r)
		}
	}
	for _, args := range [][]string{{"rollback", "web", "--to", "0"}, {"diff", "web", "0", "1"}, {"diff", "web", "1", "0"}} {
		if r := h.Nuc(args...); r.Code != 1 || !strings.Contains(r.Stderr, "has no generation 0") {
			t.Errorf("want a refusal of generation 0: %s", r)
		}
	}
	path := describe(nil)
	for _, args := range [][]string{
		{"up", path}, {"start", path}, {"switch", path}, {"switch", "web"}, {"up", h.Dir},
	} {
		if r := h.Nuc(append(args, "--nixpkgs", "/")...); r.Code != 1 || !strings.Contains(r.Stderr, "--nixpkgs") {
			t.Errorf("want --nixpkgs refused for a descriptor: %s", r)
		}
	}
}

// TestDiskFull: a generation that can't be recorded is none, and the container
// goes on with the one that it has.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts a small file system for nuc's state")
	}
	t.Parallel()
	h := harness.New(t)
	_, uid, gid := h.User()
	if err := unix.Mount("nuc-full", h.State, "tmpfs", 0, fmt.Sprintf("size=4m,mode=0700,uid=%d,gid=%d", uid, gid)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(h.State, 0); err != nil {
			t.Errorf("%v", err)
			_ = unix.Unmount(h.State, unix.MNT_DETACH)
		}
	})
	describe := func(hostname string) string {
		return h.OnTree("full", "trixie", func(d map[string]any) {
			harness.Section(d, "root")["ephemeral"] = true
			harness.Section(d, "system")["environment"] = map[string]any{"GREETING": hostname}
		})
	}
	filler := filepath.Join(h.State, "filler")
	fill := func() {
		t.Helper()
		// As cat ends, nothing is left: not even for a file of one byte.
		if r := h.Host("sh", "-c", "cat /dev/zero >"+filler); !strings.Contains(r.Stderr, "No space left") {
			t.Fatalf("%s", r)
		}
	}
	fails := func(args ...string) {
		t.Helper()
		r := h.Nuc(args...)
		if r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "no space left on device") {
			t.Errorf("want status 1 and one line that says so:\n%s", r)
		}
	}

	fill()
	fails("up", describe("first"))
	if status := h.Status("full"); status != "" && status != "failed" && status != "stopped" {
		t.Errorf("a container that couldn't be recorded is %q", status)
	}
	h.Host("rm", filler)
	h.Must("up", describe("first"))
	roles := h.Roles()

	fill()
	fails("switch", describe("second"))
	if got := h.Must("generations", "full", "--json"); strings.Count(got, `"generation"`) != 1 {
		t.Errorf("a generation that wasn't recorded is listed: %s", got)
	}
	if status := h.Status("full"); status != "ready" || h.Roles() != roles {
		t.Errorf("the container is %q", status)
	}
	h.Host("rm", filler)
	if r := h.Nuc("switch", "full"); r.Code != 0 || !strings.Contains(r.Stdout, "generation 2") {
		t.Errorf("once there is room again: %s", r)
	}
	h.Must("stop", "full")
	h.Must("rm", "--state", "--yes", "full")
}

// A folder stands for the container that was started from it.
func TestFolderNames(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		path := h.Up("web", tree, nil)
		if got := h.Must("exec", path, "hostname"); got != "web" {
			h.Errorf("exec by the descriptor's path reaches %q", got)
		}
		// The folder that the caller is in.
		for _, args := range [][]string{{"status"}, {"generations"}} {
			if got := h.Must(args...); !strings.Contains(got, "web") {
				h.Errorf("%s without a name: %s", args[0], got)
			}
		}
		if r := h.NucInput("hostname\n", "login"); r.Stdout != "web\n" {
			h.Errorf("login without a name: %s", r)
		}
		for _, args := range [][]string{{"diff"}, {"rollback"}} {
			if r := h.Nuc(args...); r.Code != 1 || !strings.Contains(r.Stderr, "container web: there is no generation before 1") {
				h.Errorf("without a name: %s", r)
			}
		}
		for _, command := range []string{"status", "login", "rollback", "diff", "generations"} {
			if r := h.Nuc(command, ""); r.Code == 0 || !strings.Contains(r.Stderr, "not known") {
				h.Errorf("a name that is empty: %s", r)
			}
		}
		r := h.Nuc("exec", "./elsewhere", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "elsewhere") {
			h.Errorf("exec by a folder that nothing was started from: want a refusal that names it\n%s", r)
		}
	})
}
