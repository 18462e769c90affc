package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// variable holds a credential in the environment of `nuc up`. Units get the
// variables that begin with NUC_, but not this one.
const variable = "NUC_IT_DB_PASSWORD"

// hoard is three secrets, each had in another way.
type hoard struct {
	h *harness.H
	// values are what services are to get, by name.
	values map[string]string
	// own is the folder that holds the secrets, as their owner's.
	own string
}

func newHoard(h *harness.H) *hoard {
	v := &hoard{h: h, own: h.MakeDir("own"), values: map[string]string{
		"file":     rand.Text() + "\n\x00\xff" + rand.Text() + "\n",
		"command":  rand.Text(),
		"variable": rand.Text() + "\n" + rand.Text(),
	}}
	h.Write("own/file", v.values["file"], 0o600)
	h.Write("own/show", "#!/bin/sh\necho \"hello from $0\" >&2\necho "+v.values["command"]+"\n", 0o700)
	return v
}

// declare is for descriptors.
func (v *hoard) declare(d map[string]any) {
	d["credentials"] = []map[string]any{
		{"name": "file", "file": v.own + "/file"},
		{"name": "command", "command": []string{v.own + "/show"}},
		{"name": "variable", "environment": variable},
	}
}

// export runs f where the variable is set.
func (v *hoard) export(f func()) {
	v.h.Setenv(variable, v.values["variable"])
	f()
	v.h.Setenv(variable, "")
}

// forget removes the secrets from where they were had.
func (v *hoard) forget() {
	v.h.Helper()
	for _, name := range []string{"file", "show"} {
		if err := os.Remove(filepath.Join(v.own, name)); err != nil {
			v.h.Fatal(err)
		}
	}
}

// service is a service that hashes what it gets; the short form of
// LoadCredential= and the long one are the same.
const service = `[Service]
Type=oneshot
RemainAfterExit=yes
User=daemon
StateDirectory=secret
LoadCredential=file
LoadCredential=command:command
LoadCredential=variable:/run/host/credentials/variable
ExecStart=/bin/sh -c 'cd "$$CREDENTIALS_DIRECTORY" && sha256sum command file variable >"$$STATE_DIRECTORY/sums"'
[Install]
WantedBy=multi-user.target
`

// install makes the service and starts it now and at each boot.
func (v *hoard) install(name string) {
	v.h.Helper()
	r := v.h.NucInput(service, "exec", name, "sh", "-c", "cat >/etc/systemd/system/secret.service && systemctl enable --now secret.service")
	if r.Code != 0 {
		v.h.Fatalf("%s\n%s", r, v.h.Exec(name, "journalctl", "--no-pager", "-u", "secret").Stdout)
	}
}

// delivered fails the test unless the service got the values.
func (v *hoard) delivered(name string) {
	v.h.Helper()
	var want strings.Builder
	for _, one := range []string{"command", "file", "variable"} {
		fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256([]byte(v.values[one])), one)
	}
	if got := v.h.Must("exec", name, "cat", "/var/lib/secret/sums") + "\n"; got != want.String() {
		v.h.Errorf("the service got\n%swant\n%s", got, want.String())
	}
}

// nowhere fails the test if a value stands anywhere but at its owner's: in the
// test's folders and in what can be seen of its processes.
func (v *hoard) nowhere(what string) {
	v.h.Helper()
	for _, folder := range []string{v.h.Dir, v.h.Runtime} {
		err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist): // gone meanwhile
				return nil
			case err != nil:
				return err
			case path == v.own:
				return fs.SkipDir
			case !e.Type().IsRegular():
				return nil
			}
			data, err := os.ReadFile(path)
			if err == nil {
				v.absent(what+": "+path, data)
			}
			return nil
		})
		if err != nil {
			v.h.Error(err)
		}
	}
	for _, p := range v.h.Processes() {
		for _, file := range []string{"environ", "cmdline"} {
			path := filepath.Join("/proc", strconv.Itoa(p.Pid), file)
			if data, err := os.ReadFile(path); err == nil {
				v.absent(fmt.Sprintf("%s: %s of %s", what, path, p.Command), data)
			}
		}
	}
}

// absent fails the test if a value, or a line of it, is in the data, also as JSON
// would have it.
func (v *hoard) absent(what string, data []byte) {
	v.h.Helper()
	for name, value := range v.values {
		forms := []string{base64.StdEncoding.EncodeToString([]byte(value))}
		for _, line := range strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == 0 }) {
			forms = append(forms, strings.ToValidUTF8(line, ""))
		}
		for _, form := range forms {
			if len(form) > 20 && bytes.Contains(data, []byte(form)) {
				v.h.Errorf("%s has the credential %s", what, name)
			}
		}
	}
}

// unsaid looks at what commands print of a container.
func (v *hoard) unsaid(name string) {
	v.h.Helper()
	for _, args := range [][]string{
		{"inspect", name},
		{"status", name},
		{"status", name, "--json"},
		{"ps", "-a", "--json"},
		{"generations", name},
		{"logs", name},
		{"exec", name, "journalctl", "--no-pager", "-o", "export"},
		{"exec", name, "systemctl", "show", "secret.service"},
		{"exec", name, "systemctl", "show-environment"},
		{"exec", name, "sh", "-c", "cat /proc/*/environ"},
	} {
		r := v.h.Nuc(args...)
		if r.Stdout == "" {
			v.h.Errorf("%s", r)
		}
		v.absent("nuc "+strings.Join(args, " "), []byte(r.Stdout+r.Stderr))
	}
}

// closed fails the test if somebody else in the container can look at them, and
// shows how they are kept.
func (v *hoard) closed(name string) {
	v.h.Helper()
	for _, command := range []string{"ls /run/host/credentials", "cat /run/host/credentials/file"} {
		r := v.h.Nuc("exec", "--user", "nobody", name, "sh", "-c", command)
		if r.Code == 0 || !strings.Contains(r.Stderr, "Permission denied") {
			v.h.Errorf("nobody's %s: %s", command, r)
		}
	}
	mount := v.h.Must("exec", name, "sh", "-c", "grep ' /run/host/credentials ' /proc/self/mountinfo; stat -c '%a %u:%g %n' /run/host/credentials /run/host/credentials/*")
	for _, want := range []string{" ro,nosuid,nodev,noexec", " - ramfs ", "500 0:0 /run/host/credentials\n", "400 0:0 /run/host/credentials/file\n"} {
		if !strings.Contains(mount+"\n", want) {
			v.h.Errorf("no %q in\n%s", want, mount)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(v.h.Runtime, "nuc", name, "host/credentials")); err != nil || len(entries) > 0 {
		v.h.Errorf("in the runtime folder: %v, %v", entries, err)
	}
}

// reboot boots the container anew from inside.
func (v *hoard) reboot(name string) {
	v.h.Helper()
	v.h.Must("exec", name, "rm", "/var/lib/secret/sums")
	v.h.Reboot(name, 2*patience)
}

// wholeLife has a service get its credentials, in a container's whole life.
func wholeLife(h *harness.H, tree string) {
	v := newHoard(h)
	path := h.OnTree("web", tree, v.declare)
	v.export(func() { h.Must("up", "--log-level=trace", path) })
	v.install("web")
	v.delivered("web")
	v.closed("web")
	if tree != "bookworm" { // ImportCredential= came with systemd 254
		got := h.Must("exec", "web", "systemd-run", "--quiet", "--pipe", "--wait", "-p", "User=daemon", "-p", "ImportCredential=com*",
			"sh", "-c", `cd "$CREDENTIALS_DIRECTORY" && ls && cat command`)
		if got != "command\n"+v.values["command"] {
			h.Errorf("imported: %q", got)
		}
	}
	v.unsaid("web")
	v.nowhere("while it runs")

	v.forget()
	v.reboot("web")
	v.delivered("web")
	v.closed("web")
	v.nowhere("after a reboot")

	h.Must("stop", "web")
	v.nowhere("after the stop")
	h.NothingLeft()
}

func TestCredentials(t *testing.T) { onTrees(t, wholeLife) }

func TestCredentialsAsRoot(t *testing.T) { wholeLife(harness.New(t, harness.AsRoot()), "bookworm") }

func TestCredentialsOfShortRange(t *testing.T) {
	wholeLife(harness.New(t, harness.WithRanges(harness.ShortRange)), "trixie")
}

// TestCredentialsRefused has starts refused before anything is started.
func TestCredentialsRefused(t *testing.T) {
	h := harness.New(t)
	fifo := filepath.Join(h.MakeDir("own"), "fifo")
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	large := h.Write("own/large", strings.Repeat("a", 1<<20+1), 0o600)
	const value = "swordfish-3fb1"
	tests := []struct {
		name string
		c    map[string]any
		want string
	}{
		{"no file", map[string]any{"file": h.Dir + "/none"}, "file " + h.Dir + "/none: no such file or directory: make it"},
		{"fifo", map[string]any{"file": fifo}, "file " + fifo + ": is no regular file"},
		{"device", map[string]any{"file": "/dev/null"}, "file /dev/null: is no regular file"},
		{"not readable", map[string]any{"file": "/etc/shadow"}, "file /etc/shadow: permission denied"},
		{"large", map[string]any{"file": large}, "file " + large + ": is larger than 1 MiB"},
		{"failing command", map[string]any{"command": []string{"sh", "-c", "echo " + value + "; echo 'no key' >&2; exit 2"}}, "command sh: exit status 2: no key: run it by hand"},
		{"no command", map[string]any{"command": []string{"nuc-it-none"}}, "command nuc-it-none: executable file not found in $PATH"},
		{"no variable", map[string]any{"environment": variable}, "the variable " + variable + " is not set: export it"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.c["name"] = "db"
			path := h.OnTree("web", "bookworm", func(d map[string]any) { d["credentials"] = []any{test.c} })
			for _, command := range []string{"up", "start"} {
				r := h.Nuc(command, path)
				want := "nuc: container web: credentials[0] (db): " + test.want
				if r.Code != 1 || !strings.HasPrefix(r.Stderr, want) || strings.Count(r.Stderr, "\n") != 1 || strings.Contains(r.Stderr, value) {
					t.Errorf("%swant %s", r, want)
				}
			}
			if _, err := os.Stat(filepath.Join(h.State, "nuc/web/generations")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("something is left of it: %v", err)
			}
		})
	}
}

// TestCredentialsDetached gathers in the background, and tells later.
func TestCredentialsDetached(t *testing.T) {
	h := harness.New(t)
	path := h.OnTree("web", "bookworm", func(d map[string]any) {
		d["credentials"] = []map[string]any{{"name": "db", "environment": variable}}
	})
	h.Must("up", "--detach", path)
	const why = "credentials[0] (db): the variable " + variable + " is not set: export it, or make the credential optional"
	harness.Eventually(h, patience, "status says why", func() bool {
		return strings.Contains(h.Nuc("status", "web").Stdout, why)
	})
	value := rand.Text()
	h.Setenv(variable, value)
	if r := h.Nuc("up", "--detach", path); r.Code != 0 || !strings.Contains(r.Stderr, why) {
		t.Errorf("%s", r)
	}
	h.Setenv(variable, "")
	h.WaitState("web", 2*patience, "ready")
	if got := h.Must("exec", "web", "cat", "/run/host/credentials/db"); got != value {
		t.Errorf("the container has %q", got)
	}
	v := &hoard{h: h, values: map[string]string{"variable": value}}
	harness.Eventually(h, patience, "nuc up in the background has ended", func() bool {
		for _, p := range h.Processes() {
			if strings.HasPrefix(p.Command, "nuc-up") {
				return false
			}
		}
		return true
	})
	v.nowhere("detached")
}

// TestLargeCredential has as much as systemd gives to a service.
func TestLargeCredential(t *testing.T) {
	h := harness.New(t)
	const name = "certificates"
	text := strings.Repeat("0123456789abcde\n", (1<<20)/16)[len(name):]
	h.Up("web", "trixie", func(d map[string]any) {
		d["credentials"] = []map[string]any{{"name": name, "file": h.Write("large", text, 0o600)}}
	})
	got := h.Must("exec", "web", "systemd-run", "--quiet", "--pipe", "--wait", "-p", "LoadCredential="+name, "sh", "-c", `sha256sum <"$CREDENTIALS_DIRECTORY/`+name+`"`)
	if want := fmt.Sprintf("%x  -", sha256.Sum256([]byte(text))); got != want {
		t.Errorf("the service got %s, want %s", got, want)
	}
}

// TestCredentialsLeftOut starts without those that are optional, and says so.
func TestCredentialsLeftOut(t *testing.T) {
	h := harness.New(t)
	h.Up("web", "trixie", func(d map[string]any) {
		d["credentials"] = []map[string]any{
			{"name": "file", "file": h.Dir + "/none", "optional": true},
			{"name": "command", "command": []string{"false"}, "optional": true},
			{"name": "variable", "environment": variable, "optional": true},
			{"name": "there", "command": []string{"echo", "a"}, "optional": true},
		}
	})
	if got := h.Must("exec", "web", "sh", "-c", "cd /run/host/credentials && ls && cat there"); got != "there\na" {
		t.Errorf("the container has %q", got)
	}
	status := h.Must("status", "web")
	for _, want := range []string{
		"credentials  there\n",
		"credentials[0] (file) is left out: file " + h.Dir + "/none: no such file or directory\n",
		"credentials[1] (command) is left out: command false: exit status 1\n",
		"credentials[2] (variable) is left out: the variable " + variable + " is not set",
	} {
		if !strings.Contains(status+"\n", want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
}

// TestCredentialsOfLaterStarts: who starts anew gathers anew, and who can't
// stops nothing.
func TestCredentialsOfLaterStarts(t *testing.T) {
	h := harness.New(t)
	v := newHoard(h)
	path := h.OnTree("web", "bookworm", func(d map[string]any) {
		v.declare(d)
		d["restart"] = "on-failure"
	})
	v.export(func() { h.Must("up", path) })
	v.install("web")
	first := runOf(h, "web")

	if r := h.Nuc("restart", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "(variable): the variable "+variable+" is not set: export it, or make the credential optional; nothing was stopped\n") {
		t.Errorf("without the variable: %s", r)
	}
	if now := runOf(h, "web"); now.InitPid != first.InitPid {
		t.Errorf("it was stopped: %+v", now)
	}
	h.Must("up", path) // joins what runs, and needs nothing

	v.values["variable"], v.values["file"] = rand.Text(), rand.Text()
	h.Write("own/file", v.values["file"], 0o600)
	v.export(func() { h.Must("restart", "web") })
	v.delivered("web")

	// Killed and started again by its supervisor, it has them still.
	v.forget()
	h.Must("exec", "web", "rm", "/var/lib/secret/sums")
	if err := unix.Kill(runOf(h, "web").InitPid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(h, patience, "it is started again", func() bool {
		now := runOf(h, "web")
		return now.Restarts == 1 && now.State == "ready"
	})
	v.delivered("web")
	v.nowhere("started again")

	// Other credentials come with a restart.
	h.Write("own/other", "other", 0o600)
	path = h.OnTree("web", "bookworm", func(d map[string]any) {
		d["credentials"] = []map[string]any{{"name": "other", "file": v.own + "/other"}}
	})
	if r := h.Nuc("switch", path); r.Code != 0 || !strings.Contains(r.Stdout, "needs restart: credentials changed") {
		t.Errorf("%s", r)
	}
	if r := h.Nuc("exec", "web", "cat", "/run/host/credentials/other"); r.Code == 0 {
		t.Errorf("%s", r)
	}
	if err := os.Remove(v.own + "/other"); err != nil {
		t.Fatal(err)
	}
	if r := h.Nuc("restart", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "nothing was stopped") || h.Status("web") == "stopped" {
		t.Errorf("%s", r)
	}
	h.Write("own/other", "other", 0o600)
	h.Must("restart", "web")
	if got := h.Must("exec", "web", "sh", "-c", "cd /run/host/credentials && ls && cat other"); got != "other\nother" {
		t.Errorf("after the restart: %q", got)
	}
}

// TestCredentialsOfStart: in the foreground, nuc itself is the supervisor.
func TestCredentialsOfStart(t *testing.T) {
	h := harness.New(t)
	v := newHoard(h)
	path := h.OnTree("web", "trixie", v.declare)
	var p *harness.Process
	v.export(func() { p = h.Start("start", path) })
	h.WaitState("web", 2*patience, "ready")
	v.install("web")
	v.delivered("web")
	v.nowhere("in the foreground")
	if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Pid())); err != nil || !bytes.Contains(environ, []byte(variable+"=\x00")) {
		t.Errorf("not the environment that nuc got: %q, %v", environ, err)
	}
	p.Signal(unix.SIGINT)
	if r := p.Wait(patience); r.Code != 0 {
		t.Errorf("%s", r)
	} else {
		v.absent("its output", []byte(r.Stdout))
	}
}

// TestCredentialsUnattended starts a supervisor as systemd does for an enabled
// container: it gathers what can be had without anybody.
func TestCredentialsUnattended(t *testing.T) {
	h := harness.New(t)
	v := newHoard(h)
	path := h.OnTree("web", "sid", v.declare)
	v.export(func() { h.Must("up", path) })
	v.install("web")
	h.Must("stop", "web")

	// What systemd has of the user's session was not given for this.
	var r harness.Result
	v.export(func() { r = h.Nuc("nuc-supervisor", "web") })
	want := "nuc: container web: credentials[2] (variable): systemd has started the container, and so nobody has given the variable " + variable + ": start it with `nuc up`, or use file or command\n"
	if r.Code != 1 || r.Stderr != want {
		t.Errorf("%swant %s", r, want)
	}
	if status := h.Nuc("status", "web").Stdout; !strings.Contains(status, strings.TrimPrefix(want, "nuc: container web: ")) {
		t.Errorf("status doesn't say why:\n%s", status)
	}

	path = h.OnTree("web", "sid", func(d map[string]any) {
		v.declare(d)
		d["credentials"].([]map[string]any)[2]["optional"] = true
	})
	h.Must("switch", path)
	var p *harness.Process
	v.export(func() { p = h.Start("nuc-supervisor", "web") })
	h.WaitState("web", 2*patience, "ready", "degraded")
	if got := h.Must("exec", "web", "ls", "/run/host/credentials"); got != "command\nfile" {
		t.Errorf("it has %q", got)
	}
	v.nowhere("unattended")
	h.Must("stop", "web")
	p.Wait(patience)
}

// TestCredentialsOnTheTerminal lets a command ask who runs nuc up.
func TestCredentialsOnTheTerminal(t *testing.T) {
	h := harness.New(t)
	ask := h.Write("ask", "#!/bin/sh\nprintf 'Passphrase: ' >&2\nread -r answer\necho \"$answer, sesame\"\n", 0o700)
	path := h.OnTree("web", "bookworm", func(d map[string]any) {
		d["credentials"] = []map[string]any{{"name": "asked", "command": []string{ask}}}
	})
	p, terminal := h.StartTerminal(24, 80, "up", path)
	p.WaitOutput("Passphrase: ", patience)
	time.Sleep(100 * time.Millisecond) // it reads by now
	terminal.Type("open\r")
	if r := p.Wait(2 * patience); r.Code != 0 {
		t.Fatalf("%s", r)
	}
	if got := h.Must("exec", "web", "cat", "/run/host/credentials/asked"); got != "open, sesame" {
		t.Errorf("the container has %q", got)
	}
}
