package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/test/jail"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) {
	jail.Enter()
	if jail.Inside() {
		os.Exit(m.Run())
	}
	leaktest.Main(m)
}

// idle is a supervisor that has not started anything.
func idle(t testing.TB) *Supervisor {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"state", "run"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f := state.Folders{State: filepath.Join(dir, "state"), Runtime: filepath.Join(dir, "run")}
	d := &descriptor.Descriptor{Name: "web"}
	d.System.Stop.TimeoutSeconds = 7
	return newSupervisor(Options{Descriptor: d, Container: f.Container("web"), Log: hclog.NewNullLogger()})
}

func TestClassify(t *testing.T) {
	tests := []struct {
		name   string
		status syscall.WaitStatus
		forced string
		clean  bool
		reason string
	}{
		{"poweroff", syscall.WaitStatus(unix.SIGINT), "", true, "powered off"},
		{"exit", 0, "", true, "init exited"},
		{"failure", 3 << 8, "", false, "init exited with status 3"},
		{"killed by the host", syscall.WaitStatus(unix.SIGKILL), "", false, "init was killed by SIGKILL"},
		{"crash", syscall.WaitStatus(unix.SIGSEGV) | 0x80, "", false, "init was killed by SIGSEGV"},
		{"forced", syscall.WaitStatus(unix.SIGKILL), "killed: it did not stop in time", false, "killed: it did not stop in time"},
		{"forced, but powered off first", syscall.WaitStatus(unix.SIGINT), "killed", false, "killed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := idle(t)
			if test.forced != "" {
				s.setForced(test.forced)
				s.setForced("a later reason")
			}
			got := s.classify(test.status)
			if got.Clean != test.clean || got.Asked != (test.forced == killed) || got.Reason != test.reason || time.Since(got.Time) > time.Minute {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestInactive(t *testing.T) {
	units := []string{"a", "b", "c"}
	tests := []struct {
		output string
		want   []string
	}{
		{"active\nactive\nactive\n", nil},
		{"active\nactivating\nfailed\n", []string{"b", "c"}},
		{"inactive\nactive\nactive", []string{"a"}},
		{"active\n", []string{"b", "c"}},
		{"", units},
		{"active \nACTIVE\nreloading\n", units},
		{"active\nactive\nactive\nfailed\n", nil},
	}
	for _, test := range tests {
		if got := inactive(units, test.output); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.output, got, test.want)
		}
	}
}

// serve lets clients reach the supervisor.
func serve(t testing.TB, s *Supervisor) {
	t.Helper()
	lock, err := s.o.Container.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	if s.control, err = seqpacket.Listen(lock.Folder, ControlSocket); err != nil {
		t.Fatal(err)
	}
	s.lock = lock
	s.serveControl()
	t.Cleanup(func() {
		s.unwatchFolder()
		s.control.Close()
		if err := lock.Tidy(); err != nil {
			t.Error(err)
		}
		lock.Close()
	})
}

func connect(t *testing.T, s *Supervisor) *seqpacket.Conn {
	t.Helper()
	c, err := Connect(s.o.Container)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.Net().SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func next(t *testing.T, c *seqpacket.Conn, v any) {
	t.Helper()
	m, err := c.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Decode(v); err != nil {
		t.Fatal(err)
	}
}

func command(t *testing.T, c *seqpacket.Conn, command Command) {
	t.Helper()
	if err := c.Send(command); err != nil {
		t.Fatal(err)
	}
}

func op(name string) Command { return Command{Request: keeper.Request{Op: name}} }

func TestQuery(t *testing.T) {
	s := idle(t)
	if _, err := Query(s.o.Container); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v, want ErrNotRunning", err)
	}
	serve(t, s)
	s.warn("a warning")
	st, err := Query(s.o.Container)
	if err != nil || st.Name != "web" || st.State != Starting || !slices.Equal(st.Warnings, []string{"a warning"}) {
		t.Errorf("%+v, %v", st, err)
	}
	s.control.Close()
	if _, err := Query(s.o.Container); !errors.Is(err, ErrNotRunning) {
		t.Errorf("a socket that nobody serves: %v, want ErrNotRunning", err)
	}
}

func TestStream(t *testing.T) {
	for _, last := range []State{Running, Ready, Stopping} {
		s := idle(t)
		serve(t, s)
		c := connect(t, s)
		command(t, c, op(OpWait))
		var st Status
		next(t, c, &st)
		if st.State != Starting {
			t.Errorf("first %s", st.State)
		}
		s.change(func(st *Status) { st.Doing = "something" })
		for st.Doing == "" {
			next(t, c, &st)
		}
		s.change(func(st *Status) { st.State = last })
		for st.State == Starting {
			next(t, c, &st)
		}
		if st.State != last {
			t.Errorf("%s, want %s", st.State, last)
		}
		if m, err := c.Receive(); err == nil {
			t.Errorf("goes on after %s: %s", last, m.Data)
		}
	}
}

// TestStreamEnds: whoever waits learns how a start failed.
func TestStreamEnds(t *testing.T) {
	s := idle(t)
	serve(t, s)
	c := connect(t, s)
	command(t, c, op(OpWait))
	var st Status
	next(t, c, &st)
	s.end(state.Exit{}, errors.New("no such thing"))
	close(s.ended)
	for st.State == Starting {
		next(t, c, &st)
	}
	if st.State != Failed || st.Reason != "no such thing" {
		t.Errorf("%+v", st)
	}
}

func TestCommands(t *testing.T) {
	s := idle(t)
	serve(t, s)
	fmt.Fprint(&s.console, "boot\n")
	t.Run("console", func(t *testing.T) {
		c := connect(t, s)
		command(t, c, op(OpConsole))
		var got Console
		if next(t, c, &got); string(got.Tail) != "boot\n" {
			t.Errorf("%q", got.Tail)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		c := connect(t, s)
		command(t, c, op("dance"))
		var got keeper.Reply
		if next(t, c, &got); got.Kind != keeper.Failed || !strings.Contains(got.Error, `"dance"`) {
			t.Errorf("%+v", got)
		}
	})
	for name, text := range map[string]string{"broken": "{", "of another type": "[]"} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, s)
			if err := c.SendRaw([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if m, err := c.Receive(); err == nil {
				t.Errorf("answered by %s", m.Data)
			}
		})
	}
	t.Run("stop", func(t *testing.T) {
		c := connect(t, s)
		stop := op(OpStop)
		stop.Kill, stop.TimeoutSeconds = true, 3
		command(t, c, stop)
		if got, want := <-s.halt, (stopRequest{true, 3 * time.Second}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		close(s.ended)
		if m, err := c.Receive(); err == nil {
			t.Errorf("answered by %s, want the end", m.Data)
		}
	})
}

func TestStop(t *testing.T) {
	s := idle(t)
	for i := range 5 {
		s.Stop(i > 0, 0) // never waits
	}
	if got, want := <-s.halt, (stopRequest{false, 7 * time.Second}); got != want {
		t.Errorf("%+v, want %+v: the descriptor's timeout", got, want)
	}
	if got := <-s.halt; !got.kill {
		t.Errorf("%+v, want the second request to kill", got)
	}
}

// TestEnd is what ps shows of a container that has ended.
func TestEnd(t *testing.T) {
	tests := []struct {
		name string
		exit state.Exit
		err  error
		want State
	}{
		{"clean", state.Exit{Clean: true, Reason: "powered off"}, nil, Stopped},
		{"not clean", state.Exit{Reason: "init exited with status 3"}, nil, Failed},
		{"never started", state.Exit{}, errors.New("no such tree"), Failed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := idle(t)
			s.o.Source = []byte("{}")
			if _, err := s.record(); err != nil {
				t.Fatal(err)
			}
			s.end(test.exit, test.err)
			reason := test.exit.Reason
			if test.err != nil {
				reason = test.err.Error()
			}
			if st := s.Status(); st.State != test.want || st.Reason != reason {
				t.Errorf("%+v", st)
			}
			if exit := s.o.Container.LastExit(); exit == nil || exit.Reason != reason || exit.Clean != test.exit.Clean {
				t.Errorf("recorded %+v", exit)
			}
		})
	}
	s := idle(t)
	s.end(state.Exit{}, errors.New("refused"))
	if s.o.Container.HasState() {
		t.Error("a start that was refused made a state folder")
	}
}

// TestOutcome plays the keeper.
func TestOutcome(t *testing.T) {
	tests := []struct {
		name    string
		replies []keeper.Reply
		status  syscall.WaitStatus
		err     error
	}{
		{"exit", []keeper.Reply{{Kind: keeper.Started}, {Kind: keeper.Exited, Status: 3 << 8}}, 3 << 8, nil},
		{"not found", []keeper.Reply{{Kind: keeper.Failed, Error: "x: not found", Status: 127}}, 0, CommandError{"x: not found", 127}},
		{"failed later", []keeper.Reply{{Kind: keeper.Started}, {Kind: keeper.Failed, Error: "x", Status: 125}}, 0, CommandError{"x", 125}},
		{"container gone", []keeper.Reply{{Kind: keeper.Started}}, 0, CommandError{"the container stopped before the command ended", 125}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ours, peer, err := seqpacket.Pair()
			if err != nil {
				t.Fatal(err)
			}
			theirs, err := seqpacket.FromFile(peer)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range test.replies {
				if err := theirs.Send(r); err != nil {
					t.Fatal(err)
				}
			}
			theirs.Close()
			status, err := Outcome(ours, nil)
			ours.Close()
			if status != test.status || !errors.Is(err, test.err) {
				t.Errorf("%#x, %v, want %#x, %v", status, err, test.status, test.err)
			}
		})
	}
}

// TestOutput: a command that prints without end, and one that never ends.
func TestOutput(t *testing.T) {
	play := func(t *testing.T, ctx context.Context, keep func(theirs *seqpacket.Conn, stdout *os.File)) (string, error) {
		t.Helper()
		ours, peer, err := seqpacket.Pair()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := seqpacket.FromFile(peer)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		out, _, err := output(ctx, ours, func(stdio ...*os.File) error {
			fd, err := unix.FcntlInt(stdio[1].Fd(), unix.F_DUPFD_CLOEXEC, 3)
			if err != nil {
				return err
			}
			go func() {
				keep(theirs, os.NewFile(uintptr(fd), "stdout"))
				close(done)
			}()
			return nil
		})
		<-done
		theirs.Close()
		return out, err
	}
	t.Run("some", func(t *testing.T) {
		out, err := play(t, t.Context(), func(theirs *seqpacket.Conn, stdout *os.File) {
			_, _ = stdout.WriteString("active\n")
			stdout.Close()
			_ = theirs.Send(keeper.Reply{Kind: keeper.Exited})
		})
		if err != nil || out != "active\n" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("never ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := play(t, ctx, func(theirs *seqpacket.Conn, stdout *os.File) {
			cancel()
			_, _ = theirs.Receive() // until our end is closed
			stdout.Close()
		})
		if err == nil {
			t.Error("no error")
		}
	})
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET", "x")
	d := &descriptor.Descriptor{Name: "web"}
	d.System.Environment = map[string]string{"B": "2", "A": "1"}
	env := environment(d, "0123")
	for _, want := range []string{"container=nuc", "container_uuid=0123", "NOTIFY_SOCKET=/run/host/notify"} {
		if !slices.Contains(env, want) {
			t.Errorf("%q lacks %s", env, want)
		}
	}
	if got := env[len(env)-2:]; !slices.Equal(got, []string{"A=1", "B=2"}) {
		t.Errorf("%q, want the descriptor's last and sorted", got)
	}
	if strings.Contains(strings.Join(env, "\n"), "SECRET") {
		t.Error("the caller's environment is in it")
	}
}

func TestHeldError(t *testing.T) {
	for _, test := range []struct {
		pid  int
		want string
	}{{42, "process 42"}, {0, "another process"}} {
		if text := (HeldError{"web", test.pid}).Error(); !strings.Contains(text, test.want) || !strings.Contains(text, "nuc stop web") {
			t.Error(text)
		}
	}
}
