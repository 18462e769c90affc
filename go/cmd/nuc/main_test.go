package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

// role makes the test binary nuc itself.
const role = "NUC_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(role) != "" {
		main()
		return
	}
	leaktest.Main(m)
}

// nuc runs the command line with folders of its own.
func nuc(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	home := t.TempDir()
	run := filepath.Join(home, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{role + "=1", "HOME=" + home, "XDG_RUNTIME_DIR=" + run, "PATH=/usr/bin:/bin"}
	var out, err bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &err
	if e := cmd.Run(); e != nil {
		var exit *exec.ExitError
		if !errors.As(e, &exit) {
			t.Fatal(e)
		}
	}
	return out.String(), err.String(), cmd.ProcessState.ExitCode()
}

func nodes(t *testing.T) []*kong.Node {
	t.Helper()
	parser, err := kong.New(&commandLine{}, append(grammar(nil), kong.Name("nuc"))...)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(parser.Model.Children); n < 15 {
		t.Fatalf("%d commands, which is not all of them", n)
	}
	return parser.Model.Children
}

func TestHelp(t *testing.T) {
	for _, command := range nodes(t) {
		_, examples, found := strings.Cut(command.Detail, "Examples:\n")
		if !found || !strings.Contains(examples, "nuc "+command.Name) {
			t.Errorf("nuc %s --help shows no example of it: %q", command.Name, command.Detail)
		}
		if command.Help == "" {
			t.Errorf("nuc --help says nothing of %s", command.Name)
		}
		for _, f := range command.Flags {
			if f.Help == "" {
				t.Errorf("nuc %s --help says nothing of --%s", command.Name, f.Name)
			}
		}
	}
}

func TestExitStatus(t *testing.T) {
	tests := []struct {
		args           string
		status         int
		stdout, stderr string
	}{
		{"", 0, "Usage: nuc", ""},
		{"--help", 0, "Usage: nuc", ""},
		{"ps --help", 0, "Examples:", ""},
		{"version", 0, "nuc ", ""},
		{"ps", 0, "NAME", ""},
		{"ps --json", 0, "[]", ""},
		{"frobnicate", statusUsage, "", "nuc --help"},
		{"ps --frobnicate", statusUsage, "", "nuc ps --help"},
		{"--log-level loud ps", statusUsage, "", "--log-level"},
		{"stop", statusUsage, "", "which container?"},
		{"stop -a web", statusUsage, "", "not both"},
		{"stop web", statusFailed, "", "container web: not known"},
		{"stats", 0, "NAME", ""},
		{"stats --json", 0, "[]", ""},
		{"stats --interval 1ms", statusUsage, "", "at least 10ms"},
		{"stats web", statusFailed, "", "container web: not known"},
		{"graph", 0, "", ""},
		{"graph --format svg", 0, "<svg", ""},
		{"graph --format pdf", statusUsage, "", "--format"},
		{"graph web", statusFailed, "", "container web: not known"},
		{"update web", statusUsage, "", "--memory-max"},
		{"update web --cpu-quota 150", statusUsage, "", "write 150%"},
		{"update web --memory-max=", statusUsage, "", "expected a size"},
		{"update web --memory-max 1G", statusFailed, "", "container web: not known"},
		{"ps web", statusFailed, "", "container web: not known"},
		{"status web", statusFailed, "", "container web: not known"},
		{"rm ../web", statusFailed, "", "no such folder"},
		{"up /none.json", statusFailed, "", "descriptor /none.json"},
		{"validate /none.json", statusFailed, "", "/none.json"},
		{"exec web true", statusExec, "", "container web: not known"},
		{"exec web", statusExec, "", "nuc login web"},
		{"unshare", statusExec, "", "which command?"},
		{"exec -e = web true", statusExec, "", "NAME=VALUE expected"},
		{"exec -t -T web true", statusExec, "", "exclude each other"},
		{"unshare --", statusExec, "", "which command?"},
	}
	for _, test := range tests {
		t.Run(test.args, func(t *testing.T) {
			stdout, stderr, status := nuc(t, strings.Fields(test.args)...)
			if status != test.status || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("status %d, want %d; %q, %q", status, test.status, stdout, stderr)
			}
			if (status == 0) != (stderr == "") {
				t.Errorf("status %d with %q on standard error", status, stderr)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run(shell, func(t *testing.T) {
			script, stderr, status := nuc(t, "completion", shell)
			if status != 0 {
				t.Fatalf("status %d: %s", status, stderr)
			}
			for _, command := range nodes(t) {
				if !command.Hidden && !strings.Contains(script, command.Name) {
					t.Errorf("doesn't name %s", command.Name)
				}
				for _, f := range command.Flags {
					if !strings.Contains(script, f.Name) {
						t.Errorf("doesn't name --%s", f.Name)
					}
				}
			}
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not here to read it", shell)
			}
			cmd := exec.Command(path, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// TestBashCompletes asks bash what it would offer.
func TestBashCompletes(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not here")
	}
	script, _, _ := nuc(t, "completion", "bash")
	tests := []struct{ words, want, not string }{
		{"nuc ", "restart", "web"},
		{"nuc re", "restart", "ps"},
		{"nuc stop ", "web", "restart"},
		{"nuc stop --", "--timeout", "--user"},
		{"nuc exec w", "web", "db"},
		{"nuc completion z", "zsh", "bash"},
		{"nuc --", "--log-level", "restart"},
	}
	for _, test := range tests {
		t.Run(test.words, func(t *testing.T) {
			words := strings.Split(test.words, " ")
			cmd := exec.Command(bash, "--norc", "-c", script+`
nuc() { printf 'web\ndb\n'; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_nuc
printf '%s\n' "${COMPREPLY[@]}"`, "bash")
			cmd.Args = append(cmd.Args, words...)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			offered := "\n" + string(out)
			if !strings.Contains(offered, "\n"+test.want+"\n") || strings.Contains(offered, "\n"+test.not+"\n") {
				t.Errorf("offered %q, want %q among them and not %q", out, test.want, test.not)
			}
		})
	}
}

// TestPrintable is hostile case 19.
func TestPrintable(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"plain ünïcode 日本 €", "plain ünïcode 日本 €"},
		{"two\nlines", "two\nlines"},
		{"\x1b[2J\x1b]0;x\a", `\x1b[2J\x1b]0;x\x07`},
		{"a\rb\tc\x00\x7f", `a\x0db\x09c\x00\x7f`},
		{"\u009b2J", `\x9b2J`},
		{"\xff\xfe", `\xff\xfe`},
		{"cut \xe2\x82", `cut \xe2\x82`},
		{"�", "�"},
		{"\u202egnp.exe\u200b", `\u202egnp.exe\u200b`},
		{"\U000e0001", `\ue0001`},
	}
	for _, test := range tests {
		if got := printable(test.in); got != test.want {
			t.Errorf("%q is %q, want %q", test.in, got, test.want)
		}
	}
}

// TestWriteJSON is hostile case 19, too: what it writes decodes to what it was.
func TestWriteJSON(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode €":     `"plain ünïcode €"`,
		"\x1b[2J\u009b2J\x7f": `"\u001b[2J\u009b2J\u007f"`,
		"\u202e\u200b":        `"\u202e\u200b"`,
		"\U000e0001":          `"\udb40\udc01"`,
		"\xff":                `"\ufffd"`,
	} {
		var line, indented bytes.Buffer
		if err := errors.Join(writeJSONLine(&line, in), writeJSON(&indented, in)); err != nil {
			t.Fatal(err)
		}
		var back string
		err := json.Unmarshal(line.Bytes(), &back)
		if line.String() != want+"\n" || indented.String() != want+"\n" || err != nil || back != strings.ToValidUTF8(in, "\ufffd") {
			t.Errorf("%q is %q and %q, want %q; it comes back as %q, %v", in, line.String(), indented.String(), want, back, err)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[31m\xff\u202e\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		if !utf8.ValidString(got) {
			t.Errorf("%q is no text: %q", s, got)
		}
		for _, r := range got {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%q still holds %q", s, r)
			}
		}
	})
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	err := table(&out, [][]string{{"NAME", "STATUS", "PORTS"}, {"web", "ready", ""}, {"a\tb\nc", "\x1b[2J", "1→2"}})
	want := "NAME     STATUS   PORTS\n" +
		"web      ready    -\n" +
		`a\x09b c  \x1b[2J  1→2` + "\n"
	if err != nil || strings.Join(strings.Fields(out.String()), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("%v\n%s\nwant\n%s", err, out.String(), want)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 3 {
		t.Errorf("%d lines for 3 rows", lines)
	}
	first, rest, _ := strings.Cut(out.String(), "\n")
	second, _, _ := strings.Cut(rest, "\n")
	if strings.Index(first, "STATUS") != strings.Index(second, "ready") {
		t.Errorf("not aligned:\n%s", out.String())
	}
}

func TestUptime(t *testing.T) {
	tests := []struct {
		d    time.Duration
		want string
	}{
		{0, "0s"},
		{59*time.Second + 999*time.Millisecond, "59s"},
		{time.Minute, "1m"},
		{time.Hour - 1, "59m"},
		{time.Hour, "1h00m"},
		{26*time.Hour + 5*time.Minute, "26h05m"},
		{48*time.Hour - 1, "47h59m"},
		{48 * time.Hour, "2d"},
		{1000 * time.Hour, "41d"},
	}
	for _, test := range tests {
		if got := uptime(test.d); got != test.want {
			t.Errorf("%s is %s, want %s", test.d, got, test.want)
		}
	}
}

func TestPortList(t *testing.T) {
	tests := []struct {
		ports []supervisor.Port
		want  string
	}{
		{nil, ""},
		{[]supervisor.Port{{Protocol: "tcp", Address: "127.0.0.1", Host: 8080, Container: 80}}, "127.0.0.1:8080→80"},
		{[]supervisor.Port{{Protocol: "tcp", Address: "::1", Host: 1, Container: 2}, {Protocol: "udp", Address: "0.0.0.0", Host: 53, Container: 53}}, "[::1]:1→2, 0.0.0.0:53→53/udp"},
	}
	for _, test := range tests {
		if got := portList(test.ports); got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}

func TestIsName(t *testing.T) {
	for arg, want := range map[string]bool{
		"web": true, "web.json": false, "./web": false, "/web": false, "a/b": false, "..": false,
		".#web": false, "#web": false, "github:o/r": false,
	} {
		if got := isName(arg); got != want {
			t.Errorf("%q is a name: %t, want %t", arg, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	c := &context{folders: state.Folders{State: dir + "/state", Runtime: dir + "/run"}}
	if _, err := c.find("web"); err == nil || !strings.Contains(err.Error(), "there are none yet") {
		t.Errorf("with no container: %v", err)
	}
	for _, d := range []string{"state/webshop/generations", "state/database/generations", "run/starting"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct{ name, want string }{
		{"webshop", ""},
		{"starting", ""},
		{"webshpo", "did you mean webshop?"},
		{"DATABASE", "did you mean database?"},
		{"mail", "nuc ps -a"},
		{"../webshop", "no such folder"},
		{".webshop", "no such folder"},
		{"webshop/generations", "no such folder"},
		{"..", "is no project"},
		{"", "not known"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			container, err := c.find(test.name)
			switch {
			case test.want == "" && (err != nil || container.Name != test.name):
				t.Errorf("%+v, %v", container, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("NUC_TEST_SET", "a=b")
	got, err := environment([]string{"A=1", "NUC_TEST_SET", "NUC_TEST_UNSET", "B="})
	if want := "A=1 NUC_TEST_SET=a=b B="; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, bad := range []string{"", "=x", "A=\x00"} {
		if got, err := environment([]string{bad}); err == nil {
			t.Errorf("%q is %q", bad, got)
		}
	}
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0m": 0, "90m": 90 * time.Minute, "12h": 12 * time.Hour, "30d": 30 * 24 * time.Hour, "2w": 14 * 24 * time.Hour,
		"65535d": 65535 * 24 * time.Hour,
	} {
		if got, err := parseAge(text); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "30", "30s", "-1d", "1.5h", "30D", "1d2h", "65535w", "65536d", " 1d", "١d"} {
		if got, err := parseAge(text); err == nil || !strings.Contains(err.Error(), "30d") {
			t.Errorf("%q: %s, %v, want a refusal that shows how it is written", text, got, err)
		}
	}
}

func TestMeant(t *testing.T) {
	for words, want := range map[string]string{
		"": "--help", "help": "--help", "help up": "up --help", "--version": "version", "--version --json": "version --json",
		"up help": "up help", "exec web -- x --version": "exec web -- x --version",
	} {
		if got := strings.Join(meant(strings.Fields(words)), " "); got != want {
			t.Errorf("nuc %s means nuc %s, want nuc %s", words, got, want)
		}
	}
}
