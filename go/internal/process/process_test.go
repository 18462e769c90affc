package process

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestOpenRefuses(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	zombie := exec.Command("true")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer zombie.Wait()
	// WNOWAIT leaves it as it is, for others to wait for.
	if err := unix.Waitid(unix.P_PID, zombie.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	tests := map[int]string{
		0:                        "expected the number",
		-1:                       "expected the number",
		1 << 30:                  "there is none",
		ended.Process.Pid:        "there is none",
		zombie.Process.Pid:       "there is none",
		threadOf(t, os.Getpid()): "is a thread",
	}
	for pid, want := range tests {
		f, err := Open(pid)
		if err == nil {
			f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
			t.Errorf("process %d: %v, want %q", pid, err, want)
		}
	}
}

// TestRecycled: a number that another process has got is not its process.
func TestRecycled(t *testing.T) {
	const last = "/proc/sys/kernel/ns_last_pid"
	if f, err := os.OpenFile(last, os.O_WRONLY, 0); err != nil {
		t.Skip(err)
	} else {
		f.Close()
	}
	first := exec.Command("cat")
	input, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	pid := first.Process.Pid
	pidfd, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	input.Close()
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if time.Now().After(deadline) {
			t.Skip("others always were faster to get the number")
		}
		if err := os.WriteFile(last, []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Skip(err)
		}
		again := exec.Command("cat")
		input, err := again.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Start(); err != nil {
			t.Fatal(err)
		}
		same := again.Process.Pid == pid
		if same {
			if id, ok := ID(pidfd); id != 0 || !ok || !Ended(pidfd) || Command(pidfd) != "" {
				t.Errorf("it is process %d now, %q", id, Command(pidfd))
			}
		}
		input.Close()
		if err := again.Wait(); err != nil {
			t.Fatal(err)
		}
		if same {
			return
		}
	}
}

// threadOf is a thread of a process that is not its first.
func threadOf(t *testing.T, pid int) int {
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if tid, _ := strconv.Atoi(e.Name()); tid != pid {
			return tid
		}
	}
	t.Fatal("a Go program has one thread only")
	return 0
}

func TestOpenOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		if st, err := os.Stat("/proc/1"); err == nil && st.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Skip("process 1 is not root's here, as in the sandbox of Nix")
		}
		if f, err := Open(1); err == nil || !strings.Contains(err.Error(), "belongs to uid 0") {
			if err == nil {
				f.Close()
			}
			t.Errorf("process 1, which is root's: %v", err)
		}
		return
	}
	f, err := Open(1)
	if err != nil {
		t.Fatalf("root may hold any: %v", err)
	}
	f.Close()
}

func TestWait(t *testing.T) {
	cmd := exec.Command("cat")
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := Open(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if pid, ok := ID(pidfd); pid != cmd.Process.Pid || !ok {
		t.Errorf("its number is %d, %t", pid, ok)
	}
	if name := Command(pidfd); name != "cat" {
		t.Errorf("its name is %q", name)
	}
	if Ended(pidfd) {
		t.Error("it has ended")
	}
	ended := make(chan error)
	go func() { ended <- Wait(pidfd) }()
	select {
	case err := <-ended:
		t.Fatalf("ended before it did: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	input.Close()
	// Nobody has waited for it yet.
	if err := <-ended; err != nil || !Ended(pidfd) {
		t.Errorf("%v, ended %t", err, Ended(pidfd))
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := Wait(pidfd); err != nil {
		t.Error(err)
	}
	if pid, ok := ID(pidfd); pid != 0 || !ok || Command(pidfd) != "" {
		t.Errorf("gone, its number is %d, %t", pid, ok)
	}
	pidfd.Close()
}

func TestWaitEndsWithClose(t *testing.T) {
	pidfd, err := Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- Wait(pidfd) }()
	time.Sleep(10 * time.Millisecond) // both orders are fine
	pidfd.Close()
	if err := <-closed; err == nil {
		t.Error("this process has ended")
	}
}

func TestNewRefuses(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(f); err == nil {
		t.Error("/dev/null is no pidfd")
	}
	if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Error("it is left open")
	}
}

func TestStat(t *testing.T) {
	st, err := statOf(os.Getpid())
	if err != nil || st.parent != os.Getppid() || st.forked {
		t.Errorf("%+v, %v", st, err)
	}
	// A command substitution of bash, which is a copy of it, and its parent.
	cmd := exec.Command("bash", "-c", `x=$(echo $BASHPID; echo $$; read -r <&0; :); printf '%s' "$x"`)
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer input.Close()
	var copies int
	for deadline := time.Now().Add(10 * time.Second); copies == 0; {
		if time.Now().After(deadline) {
			t.Fatal("bash makes no copy of itself")
		}
		children, _ := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/task/" + strconv.Itoa(cmd.Process.Pid) + "/children")
		for _, word := range strings.Fields(string(children)) {
			pid, _ := strconv.Atoi(word)
			if st, err := statOf(pid); err == nil && st.forked && st.name == "bash" && st.parent == cmd.Process.Pid {
				copies++
			}
		}
	}
	if st, err := statOf(cmd.Process.Pid); err != nil || st.forked {
		t.Errorf("bash itself: %+v, %v", st, err)
	}
}

func TestShellOf(t *testing.T) {
	type row struct {
		pid, parent int
		name        string
		forked      bool
		words       string
	}
	tests := []struct {
		name  string
		chain []row
		want  int
	}{
		{"nix develop", []row{{10, 5, "bash", false, ""}, {5, 1, "zsh", false, ""}}, 10},
		{"in $( )", []row{{11, 10, "bash", true, ""}, {10, 5, "bash", false, ""}, {5, 1, "zsh", false, ""}}, 10},
		{"direnv", []row{{12, 11, "bash", false, ""}, {11, 10, "direnv", false, "direnv export zsh"}, {10, 5, "zsh", false, ""}}, 10},
		{"direnv of a copy", []row{{12, 11, "bash", false, ""}, {11, 9, "direnv", false, "direnv export bash"}, {9, 8, "bash", true, ""}, {8, 1, "bash", false, ""}}, 8},
		{"direnv exec", []row{{12, 11, "bash", false, ""}, {11, 10, "direnv", false, "direnv exec . make"}, {10, 5, "zsh", false, ""}}, 11},
		{"wrapped, through a script", []row{{14, 12, "sh", false, ""}, {12, 11, "bash", false, ""}, {11, 10, ".direnv-wrapped", false, "direnv export json"}, {10, 5, "emacs", false, ""}}, 10},
		{"a shell as process 1", []row{{1, 0, "bash", false, ""}}, 1},
		{"nothing above direnv", []row{{12, 11, "bash", false, ""}, {11, 0, "direnv", false, "direnv export zsh"}}, 0},
		{"gone", []row{{12, 11, "bash", true, ""}}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			find := func(pid int) (row, error) {
				for _, r := range test.chain {
					if r.pid == pid {
						return r, nil
					}
				}
				if pid == 5 {
					return row{pid: 5, name: "terminal"}, nil
				}
				if pid == 1 {
					return row{pid: 1, name: "systemd"}, nil
				}
				return row{}, os.ErrNotExist
			}
			got, err := shellOf(test.chain[0].pid, processes{
				stat: func(pid int) (stat, error) {
					r, err := find(pid)
					return stat{name: r.name, parent: r.parent, forked: r.forked}, err
				},
				arguments: func(pid int) []string {
					r, _ := find(pid)
					return strings.Fields(r.words)
				},
			})
			if got != test.want || (err != nil) != (test.want == 0) {
				t.Errorf("%d, %v, want %d", got, err, test.want)
			}
		})
	}
}

// The go command, or whoever runs the tests.
func TestShell(t *testing.T) {
	pidfd, err := Shell()
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	if pid, _ := ID(pidfd); pid == 0 || pid == os.Getpid() {
		t.Errorf("process %d", pid)
	}
}
