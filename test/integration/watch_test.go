package integration

import (
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// screens counts them: a tmux that is just ending has its socket still.
var screens atomic.Int64

// onScreen is what a terminal of that size shows after all of the output: tmux
// draws it, as it has a terminal's whole logic.
func onScreen(h *harness.H, rows, columns int, output string) string {
	h.Helper()
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		h.Skip("tmux is not here: scripts/setup test installs it")
	}
	n := strconv.FormatInt(screens.Add(1), 10)
	socket := h.Dir + "/tmux-" + n
	file := h.Write("screen-"+n, output, 0o644)
	run := func(args ...string) string {
		command := exec.Command(tmux, append([]string{"-f", "/dev/null", "-S", socket}, args...)...)
		command.Env = []string{"LANG=C.UTF-8", "TERM=xterm-256color", "PATH=/usr/bin:/bin", "SHELL=/bin/sh"}
		out, err := command.CombinedOutput()
		if err != nil {
			h.Fatalf("tmux %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("-u", "new-session", "-d", "-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows+1), // one is tmux's own line
		"stty -echo -opost; cat '"+file+"'; touch '"+file+".shown'; sleep 60")
	defer run("kill-server")
	harness.Eventually(h, patience, "tmux shows the output", func() bool {
		return exec.Command("test", "-e", file+".shown").Run() == nil
	})
	return run("capture-pane", "-p")
}

func TestWatch(t *testing.T) {
	h := harness.New(t)
	h.Up("web", "trixie", nil)
	h.OnTree("other", "trixie", lite)
	h.Must("up", "other.json")
	p, terminal := h.StartTerminal(24, 100, "watch")
	p.WaitOutput("\x1b[?1049h", patience)
	harness.Eventually(h, patience, "a new message of web's is on the screen", func() bool {
		h.Must("exec", "web", "logger", "-t", "said", "watch this")
		return shows(p.Output(), "watch this")
	})
	harness.Eventually(h, patience, "the screen shows both containers with figures", func() bool {
		got := onScreen(h, 24, 100, p.Output())
		return shows(got, "nuc: 2 running of 2", "q: quit") && shows(got, "web ", "ready", "%", "M") && shows(got, "other ", "ready") && shows(got, "web | ", "watch this")
	})
	// A stop is seen, and logs of a container that comes up are.
	h.Must("stop", "other")
	harness.Eventually(h, patience, "the screen shows that one stopped", func() bool {
		got := onScreen(h, 24, 100, p.Output())
		return shows(got, "nuc: 1 running of 2") && shows(got, "other ", "stopped")
	})
	h.Must("restart", "web")
	harness.Eventually(h, patience, "a message of web's second run is on the screen", func() bool {
		h.Must("exec", "web", "logger", "-t", "said", "again")
		return strings.Contains(p.Output(), "again")
	})
	// A smaller screen is drawn as one: no line of it is beyond.
	before := len(p.Output())
	terminal.Resize(8, 40)
	harness.Eventually(h, patience, "the screen is drawn for 8 rows", func() bool {
		return strings.Contains(p.Output()[before:], "\x1b[8;1H")
	})
	h.Must("exec", "web", "logger", "-t", "said", "small")
	harness.Eventually(h, patience, "the small screen shows a new message", func() bool {
		got := onScreen(h, 8, 40, p.Output()[before:])
		return shows(got, "web ", "ready") && shows(got, "web | ")
	})
	terminal.Type("q")
	if r := p.Wait(patience); r.Code != 0 {
		h.Errorf("%s", r)
	}
	harness.Eventually(h, patience, "the alternate screen is left", func() bool { return strings.HasSuffix(p.Output(), "\x1b[?1049l") })
	harness.Eventually(h, patience, "no journalctl is left in the container", func() bool {
		return h.Exec("web", "sh", "-c", "cat /proc/[0-9]*/comm | grep -c journalctl").Stdout == "0\n"
	})

	// A supervisor that hangs keeps neither the screen nor the terminal.
	roles := h.Roles()
	if err := unix.Kill(roles.Supervisor, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Kill(roles.Supervisor, unix.SIGCONT) }()
	p, terminal = h.StartTerminal(24, 100, "watch", "web")
	p.WaitOutput("nuc: asking", patience)
	terminal.Type("\x03")
	if r := p.Wait(patience); r.Code != 0 || r.Duration > 5e9 {
		h.Errorf("Ctrl-C beside a hanging supervisor: %s", r)
	}

	if r := h.Nuc("watch"); r.Code != 2 || !strings.Contains(r.Stderr, "no terminal") {
		h.Errorf("watch in a pipe:\n%s", r)
	}
	if r := h.Nuc("watch", "wbe"); r.Code != 1 || !strings.Contains(r.Stderr, "did you mean web?") {
		h.Errorf("watch of a mistyped name:\n%s", r)
	}
}

// A container that is stopped when nobody uses it is, though somebody looks on.
func TestWatchIsNoUse(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	number := harness.FreePort(t)
	path := h.OnTree("web", "trixie", func(d map[string]any) {
		lite(d)
		d["network"] = map[string]any{"ports": []any{activating(number, 80)}, "idleStopSeconds": 2}
	})
	h.Must("up", path)
	p, _ := h.StartTerminal(24, 100, "watch")
	p.WaitOutput("\x1b[?1049h", patience)
	if r := h.Exec("web", "true"); r.Code != 0 { // starts it
		t.Fatalf("%s", r)
	}
	harness.Eventually(h, patience, "the screen shows that it is ready", func() bool {
		return shows(onScreen(h, 24, 100, p.Output()), "web ", "ready")
	})
	h.WaitState("web", patience, "listening")
}
