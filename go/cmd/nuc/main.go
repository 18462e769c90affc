// Command nuc runs NixOS configurations as rootless containers.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/alecthomas/kong"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/link"
	"github.com/nix-user-containers/nuc/go/internal/starter"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// version is set at link time.
var version = "unknown"

// Exit statuses, as docs/commands.md gives them.
const (
	statusFailed = 1   // nuc could not do what was asked
	statusUsage  = 2   // the command line is wrong
	statusDied   = 3   // start: init died, was killed, or ended with an error
	statusUnits  = 4   // switch, rollback: switched, but something failed inside
	statusExec   = 125 // exec, login: nuc's own failure
)

// exitStatus ends nuc with a status. Err, if any, is shown.
type exitStatus struct {
	status int
	err    error
}

func (e exitStatus) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func main() {
	// The inner roles come first: they are on the way of every start, and need
	// nothing of what follows.
	role := roles[os.Args[0]]
	if role == nil && len(os.Args) > 1 {
		role = roles[os.Args[1]] // executed through systemd-run, which sets the first argument
	}
	if role != nil {
		if err := role(); err != nil {
			status := exitStatus{status: statusFailed}
			_ = errors.As(err, &status)
			os.Exit(status.status)
		}
		return
	}
	os.Exit(run(os.Args[1:]))
}

// roles are the processes of a container that are nuc itself, by their first
// argument.
var roles = map[string]func() error{
	keeper.RoleKeeper: keeper.Main,
	keeper.RoleInit:   keeper.InitMain,
	roleSupervisor:    supervisorMain,
	roleUp:            upMain,
	link.Role:         linkMain,
	starter.Role:      starterMain,
	roleUnshare:       unshareMain,
	roleRemove:        removeMain,
	roleJournal:       journalMain,
}

// commandLine are the flags that all commands have.
type commandLine struct {
	LogLevel string `help:"Log to standard error: error, warn, info, debug or trace." enum:"error,warn,info,debug,trace" default:"error" env:"NUC_LOG_LEVEL"`
	LogJSON  bool   `name:"log-json" help:"Log as JSON."`
}

// commands are all of them, in the order of the help.
var commands = []struct {
	name, help string
	command    func() any
	tags       []string
}{
	{"up", "Start containers in the background and wait until they are ready.", newCommand[upCommand], nil},
	{"start", "Start a container in the foreground, its console on standard output.", newCommand[startCommand], nil},
	{"build", "Have Nix build containers' descriptors.", newCommand[buildCommand], nil},
	{"switch", "Change running containers to a new descriptor, live.", newCommand[switchCommand], nil},
	{"rollback", "Go back to an earlier generation of a container.", newCommand[rollbackCommand], nil},
	{"update", "Change the limits of a container, live.", newCommand[updateCommand], nil},
	{"generations", "List or delete generations of a container.", newCommand[generationsCommand], nil},
	{"diff", "Show what differs between two generations of a container.", newCommand[diffCommand], nil},
	{"down", "Stop a project's containers, those first that need others.", newCommand[downCommand], nil},
	{"stop", "Stop containers cleanly.", newCommand[stopCommand], nil},
	{"restart", "Stop containers and start them again.", newCommand[restartCommand], nil},
	{"kill", "Kill containers at once.", newCommand[killCommand], nil},
	{"enable", "Have containers started at login, or at boot.", newCommand[enableCommand], nil},
	{"disable", "Undo enable.", newCommand[disableCommand], nil},
	{"rm", "Remove stopped containers.", newCommand[rmCommand], nil},
	{"ps", "List containers.", newCommand[psCommand], []string{`aliases:"ls"`}},
	{"stats", "Show what containers use.", newCommand[statsCommand], nil},
	{"status", "Show one container in detail.", newCommand[statusCommand], nil},
	{"link", "Relay a port of the host machine or a container to one of another.", newCommand[linkCommand], nil},
	{"links", "List links.", newCommand[linksCommand], nil},
	{"unlink", "End links.", newCommand[unlinkCommand], nil},
	{"graph", "Draw containers, their ports, links and dependencies.", newCommand[graphCommand], nil},
	{"watch", "Watch containers on a screen: states, use, logs.", newCommand[watchCommand], nil},
	{"exec", "Run a command in a running container.", newCommand[execCommand], nil},
	{"login", "Open a root shell in a running container.", newCommand[loginCommand], nil},
	{"logs", "Show a container's journal.", newCommand[logsCommand], nil},
	{"inspect", "Print a container's descriptor.", newCommand[inspectCommand], nil},
	{"validate", "Check descriptors.", newCommand[validateCommand], nil},
	{"doctor", "Check what this machine offers, and say what to do about the rest.", newCommand[doctorCommand], nil},
	{"completion", "Print a completion script for a shell.", newCommand[completionCommand], nil},
	{"unshare", "Run a command as the root of containers, to look after their files.", newCommand[unshareCommand], nil},
	{"version", "Print nuc's version.", newCommand[versionCommand], nil},
}

func newCommand[T any]() any { return new(T) }

// grammar is what the parser is made of: the one command that the arguments
// begin with, as reading the tags of all of them takes longer than most
// commands do. Anything else, such as help, needs all.
func grammar(args []string) []kong.Option {
	var all []kong.Option
	for _, c := range commands {
		option := func() kong.Option { return kong.DynamicCommand(c.name, c.help, "", c.command(), c.tags...) }
		// completion describes the others.
		if len(args) > 0 && args[0] == c.name && c.name != "completion" {
			return []kong.Option{option()}
		}
		all = append(all, option())
	}
	return all
}

// context is what every command gets.
type context struct {
	stdout, stderr io.Writer
	log            hclog.Logger
	logLevel       string
	logJSON        bool
	folders        state.Folders
}

// meant are the arguments in nuc's own words, of those who know other programs'.
func meant(args []string) []string {
	switch {
	case len(args) == 0:
		return []string{"--help"}
	case args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case args[0] == "--version":
		return append([]string{"version"}, args[1:]...)
	}
	return args
}

func run(args []string) int {
	args = meant(args)
	var cli commandLine
	status := 0
	parser, err := kong.New(&cli, append(grammar(args),
		kong.Name("nuc"),
		kong.Description("NixOS configurations as rootless containers."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.UsageOnError(),
		kong.Exit(func(code int) { panic(exitStatus{status: code}) }),
	)...)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nuc:", err)
		return statusFailed
	}
	defer func() { _ = status }()
	return guard(func() error {
		k, err := parser.Parse(args)
		if err != nil {
			return exitStatus{statusUsage, fmt.Errorf("%w: see `nuc %s--help`", err, commandOf(parser.Model.Node, args))}
		}
		c, err := newContext(&cli)
		if err != nil {
			return err
		}
		return k.Run(c)
	})
}

// guard runs f and turns what comes of it into an exit status.
func guard(f func() error) (status int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exitStatus)
			if !ok {
				panic(r)
			}
			status = e.status
		}
	}()
	err := f()
	if err == nil {
		return 0
	}
	status = statusFailed
	var e exitStatus
	if errors.As(err, &e) {
		status = e.status
		if e.err == nil {
			return status
		}
	}
	fmt.Fprintln(os.Stderr, "nuc: "+printable(err.Error()))
	return status
}

// commandOf is the command's name in args, to name its help; empty if there is
// no such command.
func commandOf(root *kong.Node, args []string) string {
	for _, a := range args {
		for _, node := range root.Children {
			if a == node.Name {
				return a + " "
			}
		}
	}
	return ""
}

func newContext(cli *commandLine) (*context, error) {
	log := hclog.New(&hclog.LoggerOptions{
		Name: "nuc", Level: hclog.LevelFromString(cli.LogLevel), Output: os.Stderr, JSONFormat: cli.LogJSON,
	})
	// What the caller left open is no business of what nuc starts.
	_ = unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	folders, err := state.FindFolders(os.Getenv, os.Getenv("HOME"), os.Getuid())
	if err != nil {
		return nil, err
	}
	return &context{stdout: os.Stdout, stderr: os.Stderr, log: log, logLevel: cli.LogLevel, logJSON: cli.LogJSON, folders: folders}, nil
}
