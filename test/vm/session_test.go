package vm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// session is a login by ssh: a session of logind's, with a user manager. All
// its commands go through one connection, and it lasts until logout.
type session struct {
	m    *machine
	user string
	path string // of the connection's socket
}

// result is what a finished command left.
type result struct {
	script, stdout, stderr string
	code                   int
	took                   time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%s\n--- status %d after %s\n%s--- stderr\n%s", r.script, r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

func (m *machine) connect(user string) (*session, error) {
	m.connections++
	s := &session{m: m, user: user, path: m.path(fmt.Sprintf("ssh-%d", m.connections))}
	// -f: it returns when the connection stands, and goes to the background.
	cmd := s.command("-f", "-N", "-M")
	said, err := os.CreateTemp(m.folder, "ssh-*.log")
	if err != nil {
		return nil, err
	}
	defer said.Close()
	// A pipe would stay open with it.
	cmd.Stderr = said
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(said.Name())
		return nil, fmt.Errorf("ssh: %w: %s", err, bytes.TrimSpace(text))
	}
	return s, nil
}

func (s *session) command(args ...string) *exec.Cmd {
	common := []string{
		"-F", "none", "-p", s.m.port, "-i", s.m.key, "-S", s.path,
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
	}
	return exec.Command("ssh", append(append(common, args...), s.user+"@127.0.0.1")...)
}

func (s *session) ssh(script string) *exec.Cmd {
	cmd := s.command("-T")
	cmd.Args = append(cmd.Args, "--", script)
	return cmd
}

// login opens a session of its own for a user; it ends with the test.
func (m *machine) login(t testing.TB, user string) *session {
	t.Helper()
	s, err := m.connect(user)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}

// close ends the session, as it ends when a terminal is closed.
func (s *session) close() {
	if _, err := os.Stat(s.path); err == nil {
		_ = s.command("-O", "exit").Run()
	}
}

// run executes a script in bash.
func (s *session) run(t testing.TB, script string) result {
	t.Helper()
	return s.input(t, "", script)
}

// limit is how long one script may take.
const limit = 5 * time.Minute

// slow is what is worth a line of a verbose run: all of it is to fit into fifteen
// minutes, and takes more without KVM.
const slow = 4 * time.Second

func (s *session) input(t testing.TB, input, script string) result {
	t.Helper()
	cmd := s.ssh(script)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	began := time.Now()
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Run()
	if !timer.Stop() {
		t.Errorf("%s: not done within %s", script, limit)
	}
	r := result{script: script, stdout: stdout.String(), stderr: stderr.String(), took: time.Since(began)}
	if r.took > slow {
		t.Logf("%s: %s: %s", s.user, r.took.Round(time.Second), strings.Join(strings.Fields(script), " "))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return r
}

// must is run, fails the test unless the status is 0, and returns standard
// output without the last newline.
func (s *session) must(t testing.TB, script string) string {
	t.Helper()
	r := s.run(t, script)
	if r.code != 0 {
		t.Fatalf("%s: %s", s.user, r)
	}
	return strings.TrimSuffix(r.stdout, "\n")
}

// put writes a file of the user's.
func (s *session) put(t testing.TB, path, content string) {
	t.Helper()
	if r := s.input(t, content, fmt.Sprintf("mkdir -p '%s' && cat >'%s'", filepath.Dir(path), path)); r.code != 0 {
		t.Fatal(r)
	}
}

// eventually runs a script until it succeeds.
func (s *session) eventually(t testing.TB, within time.Duration, script string) {
	t.Helper()
	// In the machine: each command from outside costs more than the script.
	s.must(t, fmt.Sprintf("i=0; until { %s; } >/tmp/eventually-$$ 2>&1; do i=$((i+1)); if test $i -ge %d; then cat /tmp/eventually-$$ >&2; exit 1; fi; sleep 0.2; done; rm -f /tmp/eventually-$$",
		script, int(within/(200*time.Millisecond))))
}
