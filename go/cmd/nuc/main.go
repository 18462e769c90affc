// Command nuc runs NixOS configurations as rootless containers.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
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
			os.Exit(statusFailed)
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
	roleUnshare:       unshareMain,
	roleRemove:        removeMain,
}

type commandLine struct {
	LogLevel string `help:"Log to standard error: error, warn, info, debug or trace." enum:"error,warn,info,debug,trace" default:"error" env:"NUC_LOG_LEVEL"`
	LogJSON  bool   `name:"log-json" help:"Log as JSON."`

	Up          upCommand          `cmd:"" help:"Start containers in the background and wait until they are ready."`
	Start       startCommand       `cmd:"" help:"Start a container in the foreground, its console on standard output."`
	Build       buildCommand       `cmd:"" help:"Have Nix build containers' descriptors."`
	Switch      switchCommand      `cmd:"" help:"Change running containers to a new descriptor, live."`
	Rollback    rollbackCommand    `cmd:"" help:"Go back to an earlier generation of a container."`
	Generations generationsCommand `cmd:"" help:"List or delete generations of a container."`
	Diff        diffCommand        `cmd:"" help:"Show what differs between two generations of a container."`
	Stop        stopCommand        `cmd:"" help:"Stop containers cleanly."`
	Restart     restartCommand     `cmd:"" help:"Stop containers and start them again."`
	Kill        killCommand        `cmd:"" help:"Kill containers at once."`
	Rm          rmCommand          `cmd:"" help:"Remove stopped containers."`
	Ps          psCommand          `cmd:"" help:"List containers." aliases:"ls"`
	Status      statusCommand      `cmd:"" help:"Show one container in detail."`
	Exec        execCommand        `cmd:"" help:"Run a command in a running container."`
	Login       loginCommand       `cmd:"" help:"Open a root shell in a running container."`
	Logs        logsCommand        `cmd:"" help:"Show a container's journal."`
	Inspect     inspectCommand     `cmd:"" help:"Print a container's descriptor."`
	Validate    validateCommand    `cmd:"" help:"Check descriptors."`
	Doctor      doctorCommand      `cmd:"" help:"Check what this machine offers, and say what to do about the rest."`
	Completion  completionCommand  `cmd:"" help:"Print a completion script for a shell."`
	Unshare     unshareCommand     `cmd:"" help:"Run a command as the root of containers, to look after their files."`
	Version     versionCommand     `cmd:"" help:"Print nuc's version."`
}

// context is what every command gets.
type context struct {
	stdout, stderr io.Writer
	log            hclog.Logger
	logLevel       string
	logJSON        bool
	folders        state.Folders
}

func run(args []string) int {
	var cli commandLine
	status := 0
	parser, err := kong.New(&cli,
		kong.Name("nuc"),
		kong.Description("NixOS configurations as rootless containers."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.UsageOnError(),
		kong.Exit(func(code int) { panic(exitStatus{status: code}) }),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, "nuc:", err)
		return statusFailed
	}
	defer func() { _ = status }()
	return guard(func() error {
		if len(args) == 0 {
			args = []string{"--help"}
		}
		k, err := parser.Parse(args)
		if err != nil {
			return exitStatus{statusUsage, fmt.Errorf("%w: see `nuc %s--help`", err, commandOf(args))}
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

// commandOf is the command's name in args, to name its help.
func commandOf(args []string) string {
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			return a + " "
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
