package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit is how long a command may take unless NucFor says otherwise: longer
// than any boot here, shorter than a person's patience.
const limit = 3 * time.Minute

// Result is what a finished command left.
type Result struct {
	Args     []string
	Stdout   string
	Stderr   string
	Code     int // 128+n where a signal n ended it
	Duration time.Duration
}

func (r Result) String() string {
	return fmt.Sprintf("nuc %s: status %d after %s\n--- stdout\n%s--- stderr\n%s",
		strings.Join(r.Args, " "), r.Code, r.Duration.Round(time.Millisecond), r.Stdout, r.Stderr)
}

// Nuc runs bin/nuc to its end, without standard input.
func (h *H) Nuc(args ...string) Result {
	h.Helper()
	return h.NucInput("", args...)
}

// NucInput is Nuc with standard input.
func (h *H) NucInput(input string, args ...string) Result {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd, release := h.command(ctx, shared.nuc, args...)
	defer release()
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	started := time.Now()
	err := h.run(cmd)
	if ctx.Err() != nil {
		h.Errorf("nuc %s didn't end within %s", strings.Join(args, " "), limit)
	}
	return Result{
		Args: args, Stdout: stdout.String(), Stderr: stderr.String(),
		Code: h.status(cmd, err), Duration: time.Since(started),
	}
}

// Must is Nuc, and fails the test unless the status is 0. It returns standard
// output without the last newline.
func (h *H) Must(args ...string) string {
	h.Helper()
	r := h.Nuc(args...)
	if r.Code != 0 {
		h.Fatalf("%s", r)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// command prepares a process of the user's with a built environment. release
// is called once it was started, at the latest when it ended.
func (h *H) command(ctx context.Context, path string, args ...string) (cmd *exec.Cmd, release func()) {
	h.Helper()
	cmd = exec.CommandContext(ctx, path, args...)
	cmd.Dir = h.Dir
	for name, value := range h.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	// A test that is killed by its timeout takes its commands along.
	cmd.WaitDelay = 5 * time.Second
	attr := &syscall.SysProcAttr{Setpgid: true}
	release = func() {}
	if os.Geteuid() == 0 && h.user.uid != 0 {
		attr.Credential = &syscall.Credential{Uid: h.user.uid, Gid: h.user.gid, Groups: h.user.groups}
	}
	if h.cgroup != nil {
		folder := h.cgroup.child(h)
		attr.UseCgroupFD, attr.CgroupFD = true, int(folder.Fd())
		release = func() { folder.Close() }
	}
	cmd.SysProcAttr = attr
	return cmd, release
}

// Launch starts a command of Program's where the test's host is.
func (h *H) Launch(cmd *exec.Cmd) error {
	if h.Outside != nil {
		return h.Outside.start(cmd)
	}
	return cmd.Start()
}

func (h *H) run(cmd *exec.Cmd) error {
	if err := h.Launch(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

func (h *H) status(cmd *exec.Cmd, err error) int {
	h.Helper()
	if err == nil {
		return 0
	}
	var exit *exec.ExitError
	// WaitDelay: something in the background kept the output open, which is
	// the test's to see; the status is the command's own.
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			return 128 + int(status.Signal())
		}
		if errors.Is(err, exec.ErrWaitDelay) {
			h.Errorf("%s: a process it left in the background holds its output open", strings.Join(cmd.Args, " "))
		}
		return status.ExitStatus()
	}
	h.Fatalf("harness: %s: %v", strings.Join(cmd.Args, " "), err)
	return -1
}

// Process is a command that runs beside the test.
type Process struct {
	h      *H
	cmd    *exec.Cmd
	output transcript
	input  io.WriteCloser
	done   chan struct{}
	err    error
	began  time.Time
	ended  time.Time
}

// transcript collects what a process writes to stdout and stderr.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// Start runs bin/nuc in the background. It is killed when the test ends.
func (h *H) Start(args ...string) *Process {
	h.Helper()
	return h.start(nil, shared.nuc, args...)
}

// StartTerminal is Start on a terminal of its own of the given size, which is
// the process's controlling terminal.
func (h *H) StartTerminal(rows, columns uint16, args ...string) (*Process, *Terminal) {
	h.Helper()
	terminal := newTerminal(h, rows, columns)
	p := h.start(terminal, shared.nuc, args...)
	return p, terminal
}

// StartHost is Start for a program of the host's, StartHostTerminal is
// StartTerminal for one: a shell.
func (h *H) StartHost(name string, args ...string) *Process {
	h.Helper()
	return h.start(nil, h.program(name), args...)
}

func (h *H) StartHostTerminal(rows, columns uint16, name string, args ...string) (*Process, *Terminal) {
	h.Helper()
	terminal := newTerminal(h, rows, columns)
	return h.start(terminal, h.program(name), args...), terminal
}

// program is where a program of the host's is.
func (h *H) program(name string) string {
	h.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		h.Fatalf("harness: %v; scripts/setup test installs it", err)
	}
	return path
}

func (h *H) start(terminal *Terminal, program string, args ...string) *Process {
	h.Helper()
	cmd, release := h.command(context.Background(), program, args...)
	defer release()
	p := &Process{h: h, cmd: cmd, done: make(chan struct{}), began: time.Now()}
	if terminal == nil {
		cmd.Stdout, cmd.Stderr = &p.output, &p.output
		input, err := cmd.StdinPipe()
		if err != nil {
			h.Fatalf("harness: %v", err)
		}
		p.input = input
	} else {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal.far, terminal.far, terminal.far
		cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = false, true, true
	}
	if err := h.Launch(cmd); err != nil {
		h.Fatalf("harness: %s: %v", strings.Join(cmd.Args, " "), err)
	}
	if terminal != nil {
		terminal.attach(&p.output)
	}
	h.mu.Lock()
	h.running = append(h.running, p)
	h.mu.Unlock()
	go func() {
		p.err = cmd.Wait()
		if terminal != nil {
			// What it said last may be on its way; others may have the terminal.
			select {
			case <-terminal.done:
			case <-time.After(time.Second):
			}
		}
		p.ended = time.Now()
		close(p.done)
	}()
	return p
}

// Output is what it wrote so far to stdout and stderr, or to its terminal.
func (p *Process) Output() string { return p.output.String() }

// Running tells whether it has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Pid is its process id on the host.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Type writes to its standard input.
func (p *Process) Type(text string) {
	p.h.Helper()
	if _, err := io.WriteString(p.input, text); err != nil {
		p.h.Fatalf("harness: input of nuc %s: %v", strings.Join(p.cmd.Args[1:], " "), err)
	}
}

// Signal sends a signal to it alone.
func (p *Process) Signal(signal unix.Signal) {
	p.h.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.h.Fatalf("harness: %s: %v", signal, err)
	}
}

// Wait waits for its end and returns what it left; Stdout holds both streams.
func (p *Process) Wait(timeout time.Duration) Result {
	p.h.Helper()
	timer := time.NewTimer(max(timeout, time.Second))
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.h.Fatalf("nuc %s still runs after %s; so far it said:\n%s", strings.Join(p.cmd.Args[1:], " "), timeout, p.Output())
	}
	return Result{
		Args: p.cmd.Args[1:], Stdout: p.Output(),
		Code: p.h.status(p.cmd, p.err), Duration: p.ended.Sub(p.began),
	}
}

// WaitOutput waits until its output contains text.
func (p *Process) WaitOutput(text string, timeout time.Duration) {
	p.h.Helper()
	for deadline := time.Now().Add(timeout); !strings.Contains(p.Output(), text); time.Sleep(20 * time.Millisecond) {
		ended := !p.Running() && !strings.Contains(p.Output(), text)
		if ended || time.Now().After(deadline) {
			p.h.Fatalf("nuc %s didn't say %q within %s (ended: %t); it said:\n%s",
				strings.Join(p.cmd.Args[1:], " "), text, timeout, ended, p.Output())
		}
	}
}

// end stops it for good.
func (p *Process) end() {
	if !p.Running() {
		return
	}
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-p.done:
		return
	case <-time.After(20 * time.Second):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Host runs a program of the host's as the test's user: psql, curl.
func (h *H) Host(name string, args ...string) Result {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd, release := h.command(ctx, h.program(name), args...)
	defer release()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	started := time.Now()
	err := h.run(cmd)
	return Result{
		Args: append([]string{name}, args...), Stdout: stdout.String(), Stderr: stderr.String(),
		Code: h.status(cmd, err), Duration: time.Since(started),
	}
}

// Eventually waits until condition holds, and fails the test if it doesn't.
func Eventually(t testing.TB, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, what)
		}
	}
}
