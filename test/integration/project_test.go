package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// lite is a container that is up at once: a shell as init, which powers off when
// it is asked to. It is ready from then on: a signal that comes before a pid 1 has
// a handler for it is lost.
func lite(d map[string]any) {
	d["system"] = map[string]any{
		"init": "/bin/sh", "arguments": []string{"-c", `trap 'exit 0' TERM; systemd-notify --ready; echo up; while :; do sleep 0.05; done`},
		"stop": map[string]any{"signal": "SIGTERM"},
	}
}

// A folder of descriptors is one thing: up, ps, logs, graph and down take it.
func TestProjectFolder(t *testing.T) {
	h := harness.New(t)
	tree := h.Tree("trixie")
	h.OnTree("database", "trixie", nil)
	h.OnTree("web", "trixie", func(d map[string]any) {
		lite(d)
		d["dependsOn"] = []string{"database"}
		d["network"] = map[string]any{"ports": []any{map[string]any{"host": harness.FreePort(h), "container": 80}}}
	})
	elsewhere := filepath.Join(h.Dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	h.Own("other")
	other := h.Write("elsewhere/other.json", `{"version":1,"name":"other","system":{"init":"/bin/sleep","arguments":["600"]},"root":{"tree":"`+tree+`"},"ready":{"notify":false}}`, 0o644)
	h.Must("up", other)

	if got := h.Must("graph"); got != "other  ready" {
		h.Errorf("graph of what was started: %q", got)
	}
	if got := h.Must("graph", "."); !strings.Contains(got, "web  stopped") || !strings.Contains(got, "needs: database  stopped") {
		h.Errorf("graph of a folder that was never started:\n%s", got)
	}
	said := h.Must("up") // the folder it is in
	for _, name := range []string{"web: ready", "database: ready"} {
		if !strings.Contains(said, name) {
			h.Errorf("up of a folder says no %q:\n%s", name, said)
		}
	}
	if got := strings.Fields(h.Must("ps", "-q", ".")); strings.Join(got, " ") != "database web" {
		h.Errorf("ps of the folder: %q", got)
	}
	if got := strings.Fields(h.Must("ps", "-q")); strings.Join(got, " ") != "database other web" {
		h.Errorf("ps of all: %q", got)
	}
	if got := h.Must("ps", "-q", "./elsewhere"); got != "other" {
		h.Errorf("ps of the other folder: %q", got)
	}
	if got := h.Must("graph", "."); !strings.Contains(got, "web  ready\n│  127.0.0.1:") || !strings.Contains(got, "└─ needs: database  ready") {
		h.Errorf("graph of a folder that runs:\n%s", got)
	}
	if got := h.Must("graph", "--format", "svg", "web", "database"); !strings.HasPrefix(got, "<svg ") || !strings.Contains(got, ">database</text>") {
		h.Errorf("graph as svg:\n%.300s", got)
	}

	h.Must("stop", "web")
	h.Must("exec", "database", "logger", "-t", "early", "a message")
	harness.Eventually(h, patience, "logs of the folder show what runs of it", func() bool {
		return strings.Contains(h.Must("logs", "."), "a message")
	})
	h.Must("up", "web")
	if got := h.Must("down"); got != "web: stopped\ndatabase: stopped" {
		h.Errorf("down of the folder says %q", got)
	}
	if got := h.Must("ps", "-q"); got != "other" {
		h.Errorf("after down of the folder these run: %q", got)
	}
	if got := h.Must("down", "."); got != "" {
		h.Errorf("down of what is down says %q", got)
	}
	if r := h.Nuc("down", "./state"); r.Code != 1 || !strings.Contains(r.Stderr, "is no project") {
		h.Errorf("down of a folder that is no project:\n%s", r)
	}
	if r := h.Nuc("logs", "-f"); r.Code != 1 || !strings.Contains(r.Stderr, "none is running: `nuc up .`") {
		h.Errorf("logs of a folder that does not run:\n%s", r)
	}
	h.Must("kill", "./elsewhere")

	// What is no descriptor among them is named; nothing is started.
	h.Write("package.json", `{"name":"shop","private":true}`, 0o600)
	if r := h.Nuc("up", "."); r.Code != 1 || !strings.Contains(r.Stderr, "package.json") || !strings.Contains(r.Stderr, "keep other files elsewhere") || h.Must("ps", "-q") != "" {
		h.Errorf("a folder with another *.json:\n%s", r)
	}
	if err := os.Remove(filepath.Join(h.Dir, "package.json")); err != nil {
		t.Fatal(err)
	}
	h.Write("again.json", `{"version":1,"name":"web","system":{"init":"/x"}}`, 0o600)
	if r := h.Nuc("up", "."); r.Code != 1 || !strings.Contains(r.Stderr, "again.json") || !strings.Contains(r.Stderr, "web.json") || strings.Count(r.Stderr, "\n") != 1 {
		h.Errorf("two descriptors of one name:\n%s", r)
	}
}

// Two projects may have one name for their containers, which would then share
// what they write: the second is told of the first.
func TestNameOfTwoProjects(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	for _, folder := range []string{"first", "second"} {
		h.MakeDir(folder)
	}
	one := h.OnTree("first/web", "trixie", func(d map[string]any) { lite(d); d["name"] = "web" })
	other := h.OnTree("second/web", "trixie", func(d map[string]any) { lite(d); d["name"] = "web" })
	h.Own("web")
	refused := func() {
		t.Helper()
		for _, args := range [][]string{{"up", other}, {"up", "second"}, {"up", "--detach", other}, {"start", other}} {
			r := h.Nuc(args...)
			if r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 || !shows(r.Stderr, one, other, "`nuc rm web`", "`nuc switch "+other+"`") {
				t.Errorf("want status 1 and one line with both and the remedies:\n%s", r)
			}
		}
	}
	h.Must("up", one)
	refused()
	h.Must("up", one)
	h.Must("stop", "web")
	refused()
	h.Must("up", "web")

	// Taken over, it is the second's.
	h.Must("switch", other)
	h.Must("up", other)
	if r := h.Nuc("up", one); r.Code != 1 || !shows(r.Stderr, one, other) {
		t.Errorf("%s", r)
	}
	h.Must("stop", "web")

	// A project that has moved is the same one.
	if err := os.Rename(filepath.Dir(other), filepath.Join(h.Dir, "third")); err != nil {
		t.Fatal(err)
	}
	h.Must("up", "third")
	h.Must("stop", "web")
	h.Must("rm", "web")
	h.Must("up", one)
}

// Lines of several containers have their names in one column, in colour on a
// terminal.
func TestLogsOfSeveral(t *testing.T) {
	h := harness.New(t)
	h.Up("a", "trixie", ephemeral)
	h.Up("longer", "trixie", ephemeral)
	p := h.Start("logs", "-f", "-n", "0", "a", "longer")
	q, _ := h.StartTerminal(24, 200, "logs", "-f", "-n", "0", ".")
	harness.Eventually(h, patience, "followed logs show messages of both", func() bool {
		for _, name := range []string{"a", "longer"} {
			h.Must("exec", name, "logger", "-t", "said", "by "+name)
		}
		for name, prefix := range map[string]string{"a": "a      | ", "longer": "longer | "} {
			if !shows(p.Output(), prefix, "by "+name) || !shows(q.Output(), "\x1b[", prefix+"\x1b[0m", "by "+name) {
				return false
			}
		}
		return true
	})
	if strings.Contains(p.Output(), "\x1b") {
		h.Errorf("colours in a pipe:\n%q", p.Output())
	}
	// Of the project, the next run is followed, too.
	h.Must("restart", "a")
	harness.Eventually(h, patience, "the followed project shows a message of the next run", func() bool {
		h.Must("exec", "a", "logger", "-t", "said", "once more")
		return shows(q.Output(), "a      | ", "once more")
	})
	for _, one := range []*harness.Process{p, q} {
		one.Signal(unix.SIGINT)
		one.Wait(patience)
	}
	until := h.Must("logs", "--since", "1 hour ago", "--until", "10 min ago", "a", "longer")
	if strings.Contains(until, "said") {
		h.Errorf("logs until ten minutes ago:\n%s", until)
	}
	if since := h.Must("logs", "--since", "10 min ago", "a", "longer"); !shows(since, "a      | ", "once more") || !shows(since, "longer | ", "by longer") {
		h.Errorf("logs since ten minutes ago:\n%s", since)
	}
	if r := h.Nuc("logs", "--since", "yesterdya", "a", "longer"); r.Code != 1 || !strings.Contains(r.Stderr, "yesterdya") {
		h.Errorf("a mistyped time:\n%s", r)
	}
}

// shows tells whether a line has all of the parts.
func shows(text string, parts ...string) bool {
	for line := range strings.Lines(text) {
		found := true
		for _, part := range parts {
			found = found && strings.Contains(line, part)
		}
		if found {
			return true
		}
	}
	return false
}
