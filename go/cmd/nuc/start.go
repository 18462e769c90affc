package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/credential"
	"github.com/nix-user-containers/nuc/go/internal/starter"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type startCommand struct {
	Container string `arg:"" name:"descriptor|name|project" optional:"" help:"A descriptor's file, the name of a container that was started before, a flake reference (.#web), or a folder with a flake.nix or configuration.nix; without one, the folder you are in."`
	Nixpkgs   string `placeholder:"FOLDER" help:"The nixpkgs for a folder with a configuration.nix, instead of NIX_PATH's or the one nuc is locked to."`
}

func (startCommand) Help() string {
	return `One Ctrl-C stops the container cleanly, a second one kills it.

Examples:
  nuc start ./web.json
  nuc start web
  nuc start .#web

Exit status: 0 after a clean poweroff, 1 if it could not be started, 3 if init
died, was killed or ended with an error.`
}

func (s *startCommand) Run(c *context) error {
	container := s.Container
	if container == "" {
		container = "."
	}
	t, err := c.load(container, s.Nixpkgs)
	if err != nil {
		return err
	}
	if err := t.anothers(); err != nil {
		return err
	}
	t.keepLimits()
	if err := enterScope(t.descriptor.Name); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	things := newStarter(starter.Order{Name: t.descriptor.Name, Folders: c.folders, Nuc: self}, nil, c.copying())
	o := supervisor.Options{
		Links: declaredLinks(things, c.log), Descriptor: t.descriptor, Source: t.source, Origin: t.originText(), StorePath: t.storePath, Container: t.container,
		Log: c.log, Output: os.Stdout, Starter: things, Confine: true,
		Credentials: func() (*credential.Set, error) { return gather(t) },
	}
	if console.IsTerminal(os.Stdout) {
		o.Rows, o.Columns = console.Size(os.Stdout)
	} else {
		o.Output = &console.Lines{W: os.Stdout}
	}
	exit, err := supervisor.Start(o, func(s *supervisor.Supervisor) { go stopOnSignal(s, unix.SIGINT, unix.SIGTERM, unix.SIGHUP) })
	if err != nil {
		return err
	}
	if !exit.Clean {
		return exitStatus{statusDied, fmt.Errorf("container %s: %s", t.descriptor.Name, exit.Reason)}
	}
	return nil
}

// stopOnSignal stops cleanly at the first signal and kills at the second. A
// signal that comes before it is set up ends nuc, and so the container.
func stopOnSignal(s *supervisor.Supervisor, signals ...os.Signal) {
	c := make(chan os.Signal, 4)
	signal.Notify(c, signals...)
	kill := false
	for range c {
		s.Stop(kill, 0)
		kill = true
	}
}

// copying shows the progress of rootOwned copies on a terminal.
func (c *context) copying() func(string, int) {
	if !console.IsTerminal(os.Stderr) {
		return nil
	}
	return func(path string, files int) {
		fmt.Fprintf(os.Stderr, "\rcopying %s: %d files\x1b[K\r", path, files)
	}
}
