package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type execCommand struct {
	Terminal    bool     `short:"t" name:"tty" help:"Give the command a terminal (the default when standard input and output are one)."`
	NoTerminal  bool     `short:"T" name:"no-tty" help:"Give it none."`
	Interactive bool     `short:"i" help:"Pass standard input on. It always is; accepted for those used to it."`
	User        string   `short:"u" placeholder:"USER[:GROUP]" help:"Run as this user of the container, by name or number."`
	Folder      string   `short:"w" name:"workdir" placeholder:"FOLDER" help:"Working directory, in the container."`
	Env         []string `short:"e" placeholder:"NAME=VALUE" sep:"none" help:"Set an environment variable; NAME alone takes the caller's value."`
	Name        string   `arg:"" help:"Container."`
	Command     []string `arg:"" optional:"" passthrough:"" help:"Command with its arguments."`
}

func (execCommand) Help() string {
	return `Exit status: the command's own; 128+N if signal N ended it; 125 if nuc failed,
126 if the command can't be executed, 127 if it is not found.

Examples:
  nuc exec web systemctl status nginx
  nuc exec -u postgres db psql
  nuc exec -e LANG=C.UTF-8 -w /srv web sh -c 'ls | wc -l'`
}

func (e *execCommand) Run(c *context) error {
	env, err := environment(e.Env)
	if err != nil {
		return exitStatus{statusExec, err}
	}
	if e.Terminal && e.NoTerminal {
		return exitStatus{statusExec, errors.New("--tty and --no-tty exclude each other")}
	}
	command := e.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return exitStatus{statusExec, fmt.Errorf("which command? Give one, or open a shell with `nuc login %s`", e.Name)}
	}
	terminal := e.Terminal || !e.NoTerminal && console.IsTerminal(os.Stdin) && console.IsTerminal(os.Stdout)
	return c.exec(e.Name, keeper.Exec{Arguments: command, Environment: env, User: e.User, Folder: e.Folder, Terminal: terminal})
}

func environment(given []string) ([]string, error) {
	var env []string
	for _, v := range given {
		name, _, set := strings.Cut(v, "=")
		if name == "" || strings.ContainsRune(v, 0) {
			return nil, fmt.Errorf("--env %q: NAME=VALUE expected", v)
		}
		if !set {
			value, ok := os.LookupEnv(name)
			if !ok {
				continue
			}
			v = name + "=" + value
		}
		env = append(env, v)
	}
	return env, nil
}

type loginCommand struct {
	Name *string `arg:"" name:"name|project" optional:"" help:"Container, or its project's folder; without one, the folder you are in."`
	User string  `short:"u" placeholder:"USER" help:"Another user than root."`
}

func (loginCommand) Help() string {
	return `The shell is the user's login shell. No login session is made of it: it is a
process in the container like any other.

Examples:
  nuc login web
  nuc login -u postgres db`
}

func (l *loginCommand) Run(c *context) error {
	return c.exec(hereOr(l.Name), keeper.Exec{User: l.User, Terminal: console.IsTerminal(os.Stdin)})
}

// exec runs a command with the caller's standard input, output and error.
func (c *context) exec(name string, e keeper.Exec) error {
	container, err := c.find(name)
	if err != nil {
		return exitStatus{statusExec, err}
	}
	name = container.Name
	conn, err := supervisor.Connect(container)
	if errors.Is(err, supervisor.ErrNotRunning) {
		return exitStatus{statusExec, fmt.Errorf("container %s: %w: start it with `nuc up %s`", name, err, name)}
	}
	if err != nil {
		return exitStatus{statusExec, err}
	}
	defer conn.Close()
	var status syscall.WaitStatus
	if e.Terminal {
		status, err = execTerminal(conn, &e)
	} else {
		status, err = execPlain(conn, &e)
	}
	var ce supervisor.CommandError
	switch {
	case errors.As(err, &ce):
		return exitStatus{ce.Status, fmt.Errorf("container %s: %s", name, ce.Text)}
	case err != nil:
		return exitStatus{statusExec, fmt.Errorf("container %s: %w", name, err)}
	case status.Signaled():
		return exitStatus{status: 128 + int(status.Signal())}
	case status.ExitStatus() != 0:
		return exitStatus{status: status.ExitStatus()}
	}
	return nil
}

// execPlain hands pipes, sockets and files over as they are. The caller's
// terminal stays the caller's: its bytes go through pipes.
func execPlain(conn *seqpacket.Conn, e *keeper.Exec) (syscall.WaitStatus, error) {
	var stdio [3]*os.File
	var copies sync.WaitGroup
	var own []*os.File
	for i, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if handable(f) {
			stdio[i] = f
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		if i == 0 {
			stdio[i] = r
			own = append(own, r)
			go func() {
				_, _ = io.Copy(w, f)
				w.Close()
			}()
			continue
		}
		stdio[i] = w
		own = append(own, w)
		copies.Go(func() {
			_, _ = io.Copy(f, r)
			r.Close()
		})
	}
	err := conn.Send(supervisor.Command{Request: keeper.Request{Op: keeper.OpExec, Exec: e}}, stdio[:]...)
	for _, f := range own {
		f.Close()
	}
	if err != nil {
		return 0, supervisor.ErrNotRunning
	}
	forward(conn, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	status, err := supervisor.Outcome(conn, nil)
	copies.Wait()
	return status, err
}

// handable tells what may go into a container as it is; see keeper's passable.
func handable(f *os.File) bool {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return false
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFBLK:
		return false
	case unix.S_IFCHR:
		return st.Rdev == unix.Mkdev(1, 3)
	}
	return true
}

// execTerminal relays between the caller's terminal and one in the container.
func execTerminal(conn *seqpacket.Conn, e *keeper.Exec) (syscall.WaitStatus, error) {
	e.Rows, e.Columns = console.Size(os.Stdin)
	if e.Rows == 0 {
		e.Rows, e.Columns = console.Size(os.Stdout)
	}
	if term := os.Getenv("TERM"); term != "" {
		e.Environment = append([]string{"TERM=" + term}, e.Environment...)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	if err := conn.Send(supervisor.Command{Request: keeper.Request{Op: keeper.OpExec, Exec: e}}, null, null, null); err != nil {
		return 0, supervisor.ErrNotRunning
	}
	restore := func() {}
	defer func() { restore() }()
	var copies sync.WaitGroup
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	forward(conn, unix.SIGTERM, unix.SIGHUP)
	return waitTerminal(conn, &copies, resized, func() { restore = console.Raw(os.Stdin) })
}

// waitTerminal follows the command to its end and its output to the last byte.
func waitTerminal(conn *seqpacket.Conn, copies *sync.WaitGroup, resized <-chan os.Signal, raw func()) (syscall.WaitStatus, error) {
	status, err := supervisor.Outcome(conn, func(terminal *os.File) {
		if terminal == nil {
			return
		}
		master, err := console.Pollable(terminal)
		if err != nil {
			return
		}
		raw()
		copies.Go(func() { _ = console.Pump(os.Stdout, master) })
		go func() {
			_, _ = io.Copy(master, os.Stdin)
			if !console.IsTerminal(os.Stdin) {
				// The end of a pipe is the end of input: what ^D is on a terminal.
				_, _ = master.Write([]byte{4})
			}
		}()
		go func() {
			for range resized {
				if rows, columns := console.Size(os.Stdin); rows > 0 {
					_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
				}
			}
		}()
	})
	copies.Wait()
	return status, err
}

// forward passes signals on to the command, as long as nuc lives. It begins
// beside the command: the runtime waits for another thread at each signal.
func forward(conn *seqpacket.Conn, signals ...os.Signal) {
	go func() {
		c := make(chan os.Signal, 8)
		signal.Notify(c, signals...)
		for s := range c {
			_ = conn.Send(keeper.Signal{Signal: int(s.(syscall.Signal))})
		}
	}()
}
