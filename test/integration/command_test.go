package integration

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestExec(t *testing.T) {
	tests := []struct {
		name    string
		options []string
		input   string
		command []string
		code    int
		stdout  string
		stderr  string // contained
	}{
		{name: "status 0", command: []string{"true"}},
		{name: "status 7", command: []string{"sh", "-c", "exit 7"}, code: 7},
		{name: "status 255", command: []string{"sh", "-c", "exit 255"}, code: 255},
		{name: "not executable", command: []string{"/etc/passwd"}, code: 126, stderr: "/etc/passwd"},
		{name: "not found", command: []string{"no-such-command"}, code: 127, stderr: "no-such-command"},
		{name: "signal", command: []string{"sh", "-c", "kill -TERM $$"}, code: 143},
		{name: "both streams", command: []string{"sh", "-c", "echo out; echo err >&2"}, stdout: "out\n", stderr: "err\n"},
		{name: "standard input", input: "a\nb\n", command: []string{"cat"}, stdout: "a\nb\n"},
		{name: "no terminal", command: []string{"sh", "-c", "test -t 0 || test -t 1 || echo none"}, stdout: "none\n"},
		{name: "root", command: []string{"id", "-u"}, stdout: "0\n"},
		{name: "user", options: []string{"-u", "www-data"}, command: []string{"id", "-un"}, stdout: "www-data\n"},
		{name: "user and group", options: []string{"-u", "33:0"}, command: []string{"sh", "-c", "id -u; id -g"}, stdout: "33\n0\n"},
		{name: "supplementary groups", options: []string{"-u", "postgres"}, command: []string{"sh", "-c", "id -Gn | tr ' ' '\\n' | sort"}, stdout: "postgres\nssl-cert\n"},
		{name: "setuid bit", options: []string{"-u", "www-data"}, command: []string{"/usr/local/bin/setuid-id", "-u"}, stdout: "0\n"},
		{name: "a user's capabilities", options: []string{"-u", "www-data"}, command: []string{"grep", "-cE", "^Cap(Inh|Prm|Eff|Amb):\t0+$", "/proc/self/status"}, stdout: "4\n"},
		{name: "no such user", options: []string{"-u", "nosuchuser"}, command: []string{"true"}, code: 125, stderr: "nosuchuser"},
		{name: "folder", options: []string{"-w", "/usr"}, command: []string{"pwd"}, stdout: "/usr\n"},
		{name: "variable", options: []string{"-e", "A=b c"}, command: []string{"printenv", "A"}, stdout: "b c\n"},
		{name: "variable by name", options: []string{"-e", "GIVEN"}, command: []string{"printenv", "GIVEN"}, stdout: "by the caller\n"},
		{name: "nothing inherited", command: []string{"printenv", "SECRET"}, code: 1},
		{name: "descriptors", command: []string{"sh", "-c", "ls /proc/self/fd | wc -l"}, stdout: "4\n"}, // 0-2, and ls's own
		{name: "leaf cgroup", command: []string{"sh", "-c", "grep ^0:: /proc/self/cgroup | grep -vxe 0::/ -e 0::/init.scope | wc -l"}, stdout: "1\n"},
	}
	onTrees(t, func(h *harness.H, tree string) {
		h.Setenv("SECRET", "the caller's own")
		h.Setenv("GIVEN", "by the caller")
		h.Up("web", tree, nil)
		if r := h.Exec("web", "install", "-m", "4755", "/usr/bin/id", "/usr/local/bin/setuid-id"); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		for _, test := range tests {
			args := append(append(append([]string{"exec"}, test.options...), "web"), test.command...)
			r := h.NucInput(test.input, args...)
			if r.Code != test.code || r.Stdout != test.stdout || !strings.Contains(r.Stderr, test.stderr) {
				h.Errorf("%s: want status %d, stdout %q, stderr with %q:\n%s", test.name, test.code, test.stdout, test.stderr, r)
			}
		}
		if r := h.Exec("absent", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "absent") {
			h.Errorf("exec in an unknown container: want status 125\n%s", r)
		}
		h.Must("stop", "web")
		if r := h.Exec("web", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "nuc up web") {
			h.Errorf("exec in a stopped container: want status 125 and the remedy\n%s", r)
		}
	})
}

func TestExecTerminal(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		p, terminal := h.StartTerminal(31, 97, "exec", "web", "bash", "-c",
			`stty size; tty; trap 'stty size; exit 9' WINCH; read -r line; echo "got $line"; while :; do sleep 0.1; done`)
		p.WaitOutput("31 97", patience) // the size holds from the first byte
		p.WaitOutput("/dev/pts/", patience)
		terminal.Type("hello\n")
		p.WaitOutput("got hello", patience)
		terminal.Resize(40, 120)
		p.WaitOutput("40 120", patience)
		if r := p.Wait(patience); r.Code != 9 {
			h.Errorf("want the command's status, 9:\n%s", r)
		}
	})
}

// A Ctrl-C typed on the terminal reaches the command, not nuc.
func TestExecTerminalInterrupt(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		p, terminal := h.StartTerminal(24, 80, "exec", "web", "bash", "-c", `trap 'echo interrupted; exit 5' INT; echo armed; while :; do sleep 0.1; done`)
		p.WaitOutput("armed", patience)
		terminal.Type("\x03")
		p.WaitOutput("interrupted", patience)
		if r := p.Wait(patience); r.Code != 5 {
			h.Errorf("want the command's status, 5:\n%s", r)
		}
	})
}

func TestLogin(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		p, terminal := h.StartTerminal(24, 80, "login", "web")
		terminal.Type("echo I am $(id -un) on $(hostname) in $PWD\n")
		p.WaitOutput("I am root on web in /root", patience)
		terminal.Type("exit 3\n")
		if r := p.Wait(patience); r.Code != 3 {
			h.Errorf("want the shell's status, 3:\n%s", r)
		}
	})
}

func TestLogs(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		// A message may take a moment from syslog's socket into the journal.
		h.Must("exec", "web", "logger", "-t", "early", "first message")
		harness.Eventually(h, patience, "logs show the first message", func() bool {
			return strings.Contains(h.Must("logs", "web"), "first message")
		})
		h.Must("exec", "web", "logger", "-t", "late", "second message")
		harness.Eventually(h, patience, "the last line is the second message", func() bool {
			last := h.Must("logs", "-n", "1", "web")
			return strings.Contains(last, "second message") && !strings.Contains(last, "first message")
		})
		if nginx := h.Must("logs", "-u", "nginx.service", "web"); !strings.Contains(nginx, "nginx") || strings.Contains(nginx, "first message") {
			h.Errorf("logs of nginx.service:\n%s", nginx)
		}
		if future := h.Must("logs", "--since", "2099-01-01", "web"); strings.Contains(future, "message") {
			h.Errorf("logs since 2099:\n%s", future)
		}
		p := h.Start("logs", "-f", "-n", "0", "web")
		harness.Eventually(h, patience, "a followed log shows a new message", func() bool {
			h.Must("exec", "web", "logger", "-t", "new", "third message")
			return strings.Contains(p.Output(), "third message")
		})
		if strings.Contains(p.Output(), "first message") {
			h.Errorf("a log followed with -n 0 shows an old message:\n%s", p.Output())
		}
		p.Signal(unix.SIGINT)
		p.Wait(patience)

		// It stays when the container stops, and goes on in the next run.
		h.Must("stop", "web")
		stopped := h.Must("logs", "web")
		for _, message := range []string{"first message", "second message", "third message", "systemd["} {
			if !strings.Contains(stopped, message) {
				h.Errorf("logs of the stopped container have no %q:\n%.2000s", message, stopped)
			}
		}
		if nginx := h.Must("logs", "-u", "nginx.service", "-n", "3", "."); !strings.Contains(nginx, "nginx") || strings.Contains(nginx, "message") || strings.Count(nginx, "\n") > 2 {
			h.Errorf("the last lines of nginx.service of the stopped project:\n%s", nginx)
		}
		if r := h.Nuc("logs", "-f", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "nothing to follow") {
			h.Errorf("%s", r)
		}
		h.Must("up", "web")
		h.Must("exec", "web", "logger", "-t", "again", "of the second run")
		harness.Eventually(h, patience, "logs show both runs", func() bool {
			both := h.Must("logs", "web")
			return strings.Contains(both, "first message") && strings.Contains(both, "of the second run")
		})
		// What root has put in its place is not followed out of the container.
		h.Folder("secret")
		secret := h.Write("secret/system.journal", "secret", 0o600)
		h.Must("exec", "web", "sh", "-c", "mv /var/log/journal /var/log/aside && ln -s "+filepath.Dir(secret)+" /var/log/journal")
		h.Must("kill", "web")
		if r := h.Nuc("logs", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "has kept no journal") || strings.Count(r.Stderr, "\n") != 1 {
			h.Errorf("%s", r)
		}
	})
}

// The journal of an ephemeral root goes with it.
func TestLogsOfEphemeral(t *testing.T) {
	h := harness.New(t)
	path := h.OnTree("web", "trixie", ephemeral)
	if r := h.Nuc("logs", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "not known") {
		h.Errorf("%s", r)
	}
	h.Must("up", path)
	h.Must("stop", "web")
	if r := h.Nuc("logs", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "ephemeral") {
		h.Errorf("%s", r)
	}
}

func TestInspect(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		port := harness.FreePort(h)
		h.Up("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{"ports": []any{map[string]any{"host": port, "container": 80, "protocol": "tcp"}}}
		})
		if got := h.Must("inspect", "web", "--query", "network.ports.0.container"); got != "80" {
			h.Errorf("inspect --query network.ports.0.container says %q, want 80", got)
		}
		if r := h.Nuc("inspect", "web", "--query", "no.such.key"); r.Code == 0 {
			h.Errorf("a query that finds nothing: want a failure\n%s", r)
		}
	})
}
