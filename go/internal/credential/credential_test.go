package credential

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

// hiding is set in a copy of the test binary that hides variables.
const hiding = "CREDENTIAL_TEST_HIDING"

func TestMain(m *testing.M) {
	if os.Getenv(hiding) != "" {
		Hide([]descriptor.Credential{{Name: "a", Environment: "SECRET_A"}, {Name: "b", Environment: "SECRET_B"}, {Name: "c", Environment: "SECRET_C"}, {Name: "f", File: "/f"}})
		environ, err := os.ReadFile("/proc/self/environ")
		if err != nil {
			panic(err)
		}
		fmt.Printf("%q\n%q\n", environ, os.Environ())
		os.Exit(0)
	}
	leaktest.Main(m)
}

const secret = "correct horse battery staple"

// here is the environment that commands of tests get.
func here(more ...string) []string { return append(os.Environ(), more...) }

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func shell(script string) []string { return []string{"sh", "-c", script} }

func TestGather(t *testing.T) {
	tests := []struct {
		name string
		c    descriptor.Credential
		want string
	}{
		{"file", descriptor.Credential{File: write(t, secret)}, secret},
		{"file as it is", descriptor.Credential{File: write(t, "\x00\n"+secret+"\n")}, "\x00\n" + secret + "\n"},
		{"empty file", descriptor.Credential{File: write(t, "")}, ""},
		{"largest file", descriptor.Credential{File: write(t, strings.Repeat("a", MaxSize-1))}, strings.Repeat("a", MaxSize-1)},
		{"line of a command", descriptor.Credential{Command: shell("echo '" + secret + "'")}, secret},
		{"text of a command without an end", descriptor.Credential{Command: shell("printf '" + secret + "'")}, secret},
		{"lines of a command", descriptor.Credential{Command: shell("printf 'a\\nb\\n'")}, "a\nb\n"},
		{"only the last newline of a line", descriptor.Credential{Command: shell("printf 'a\\r\\n'")}, "a\r"},
		{"two newlines", descriptor.Credential{Command: shell("printf 'a\\n\\n'")}, "a\n\n"},
		{"command without output", descriptor.Credential{Command: []string{"true"}}, ""},
		{"absolute command", descriptor.Credential{Command: []string{"/bin/echo", "a", "b"}}, "a b"},
		{"words are no shell's", descriptor.Credential{Command: []string{"printf", "%s", "$HOME;*"}}, "$HOME;*"},
		{"folder of a command", descriptor.Credential{Command: []string{"pwd"}}, "/"},
		{"environment of a command", descriptor.Credential{Command: shell("printf \"$A\"")}, "1"},
		{"what a command leaves behind", descriptor.Credential{Command: shell("sleep 3 & echo a")}, "a"},
		{"variable", descriptor.Credential{Environment: "A"}, "1"},
		{"empty variable", descriptor.Credential{Environment: "B"}, ""},
		{"variable as it is", descriptor.Credential{Environment: "C"}, "a=b\n"},
	}
	source := Source{Environment: []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "AB=0", "A=1", "B=", "C=a=b\n"}}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.c.Name = "x"
			set, err := source.Gather([]descriptor.Credential{test.c})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(set.Values["x"]); got != test.want {
				t.Errorf("%.80q, want %.80q", got, test.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	patience = 2 * time.Second
	folder := t.TempDir()
	fifo := filepath.Join(folder, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(folder, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	large := write(t, strings.Repeat("a", MaxSize+1))
	const irregular = "is no regular file: name one, or use command"
	tests := []struct {
		name    string
		c       descriptor.Credential
		want    string
		missing bool // and so can be left out
	}{
		{"no file", descriptor.Credential{File: folder + "/none"}, "file " + folder + "/none: no such file or directory: make it, or make the credential optional", true},
		{"file below a file", descriptor.Credential{File: large + "/none"}, "file " + large + "/none: not a directory: make it, or make the credential optional", true},
		{"folder", descriptor.Credential{File: folder}, "file " + folder + ": " + irregular, false},
		{"fifo", descriptor.Credential{File: fifo}, "file " + fifo + ": " + irregular, false},
		{"socket", descriptor.Credential{File: socket}, "file " + socket + ": " + irregular, false},
		{"device", descriptor.Credential{File: "/dev/zero"}, "file /dev/zero: " + irregular, false},
		{"large file", descriptor.Credential{File: large}, "file " + large + ": is larger than 1 MiB, the most that systemd gives a service: bring it in by mounts", false},
		{"no command", descriptor.Credential{Command: []string{"nuc-test-no-such-program"}}, "command nuc-test-no-such-program: executable file not found in $PATH: install it, or name it by its absolute path", true},
		{"no absolute command", descriptor.Credential{Command: []string{"/nonexistent/pass"}}, "command /nonexistent/pass: no such file or directory: install it, or name it by its absolute path", true},
		{"command that fails", descriptor.Credential{Command: shell("echo " + secret + "; echo first >&2; printf 'gpg: no key\\n\\n' >&2; exit 3")}, "command sh: exit status 3: gpg: no key: run it by hand to see what is wrong", true},
		{"command that fails silently", descriptor.Credential{Command: shell("echo " + secret + "; exit 3")}, "command sh: exit status 3: run it by hand to see what is wrong", true},
		{"command that is killed", descriptor.Credential{Command: shell("kill -9 $$")}, "command sh: signal: killed: run it by hand to see what is wrong", true},
		{"command that hangs", descriptor.Credential{Command: shell("echo " + secret + "; echo Passphrase? >&2; sleep 300 & wait")}, "command sh: did not end within 2s: Passphrase?: run it by hand to see what is wrong", true},
		{"command without an end", descriptor.Credential{Command: []string{"yes"}}, "command yes: prints more than 1 MiB, the most that systemd gives a service: bring it in by mounts", false},
		{"no variable", descriptor.Credential{Environment: "NUC_TEST_NONE"}, "the variable NUC_TEST_NONE is not set: export it, or make the credential optional", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.c.Name = "x"
			set, err := Source{Environment: here()}.Gather([]descriptor.Credential{test.c})
			if want := "credentials[0] (x): " + test.want; err == nil || err.Error() != want {
				t.Fatalf("%+v, %v, want %s", set, err, want)
			}
			test.c.Optional = true
			set, err = Source{Environment: here()}.Gather([]descriptor.Credential{test.c})
			if left := err == nil && len(set.Values) == 0 && len(set.LeftOut) == 1; left != test.missing {
				t.Errorf("optional: %+v, %v", set, err)
			}
			if err == nil && (strings.Contains(set.LeftOut[0], "optional") || !strings.HasPrefix(set.LeftOut[0], "credentials[0] (x) is left out: ")) {
				t.Errorf("optional: %q", set.LeftOut)
			}
		})
	}
}

func TestPermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read everything")
	}
	path := write(t, secret)
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, err := Source{}.Gather([]descriptor.Credential{{Name: "x", File: path, Optional: true}})
	if err == nil || !strings.HasSuffix(err.Error(), "permission denied: who starts the container must be able to read it") {
		t.Error(err)
	}
}

func TestTotal(t *testing.T) {
	half := write(t, strings.Repeat("a", MaxSize/2))
	all := []descriptor.Credential{{Name: "a", File: half}, {Name: "b", File: half}}
	want := "credentials: all of them, with their names, are 1048578 bytes, and systemd gives a service at most 1048576: bring large files in by mounts"
	if _, err := (Source{}).Gather(all); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Files and variables are looked at before somebody is asked by a command.
func TestCommandsComeLast(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	all := []descriptor.Credential{{Name: "a", Command: []string{"touch", ran}}, {Name: "b", Environment: "NUC_TEST_NONE"}}
	if _, err := (Source{Environment: here()}).Gather(all); err == nil || !strings.HasPrefix(err.Error(), "credentials[1] (b): ") {
		t.Error(err)
	}
	if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the command ran: %v", err)
	}
}

func TestUnattended(t *testing.T) {
	source := Source{Environment: here("A=1"), Unattended: true}
	c := descriptor.Credential{Name: "x", Environment: "A"}
	want := "credentials[0] (x): systemd has started the container, and so nobody has given the variable A: start it with `nuc up`, or use file or command"
	if _, err := source.Gather([]descriptor.Credential{c}); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	set, err := source.Gather([]descriptor.Credential{{Name: "c", Command: shell("printf $A")}, {Name: "x", Environment: "A", Optional: true}})
	if err != nil || string(set.Values["c"]) != "1" || len(set.LeftOut) != 1 {
		t.Errorf("%q, %v, %v", set.Values["c"], set.LeftOut, err)
	}
}

// A value goes through JSON and into no text.
func TestValue(t *testing.T) {
	set := &Set{Values: map[string]Value{"b": Value(secret), "a": nil}}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var back Set
	if err := json.Unmarshal(data, &back); err != nil || !bytes.Equal(back.Values["b"], set.Values["b"]) {
		t.Errorf("%s: %v", data, err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if text := fmt.Sprintf(verb, set.Values["b"]); text != "(secret)" {
			t.Errorf("%s: %s", verb, text)
		}
		if text := fmt.Sprintf(verb, *set); strings.Contains(text, secret) || !strings.Contains(text, "(secret)") {
			t.Errorf("%s: %s", verb, text)
		}
	}
	if names := fmt.Sprint(set.Names()); names != "[a b]" {
		t.Error(names)
	}
	var none *Set
	if none.All() != nil || len(none.Names()) != 0 {
		t.Errorf("%v", none.All())
	}
}

func TestHide(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{hiding + "=1", "SECRET_A=" + secret, "OTHER=SECRET_A=1", "SECRET_B=", "f=1", "SECRET_AB=2", "SECRET_C=\n" + secret}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	of := func(n int) string { return strings.Repeat(`\x00`, n+1) }
	want := `"` + hiding + `=1\x00SECRET_A=` + of(len(secret)) + `OTHER=SECRET_A=1\x00SECRET_B=\x00f=1\x00SECRET_AB=2\x00SECRET_C=` + of(len(secret)+1) + "\"\n" +
		`["` + hiding + `=1" "OTHER=SECRET_A=1" "f=1" "SECRET_AB=2"]` + "\n"
	if string(out) != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}
