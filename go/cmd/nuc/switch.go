package main

import (
	gocontext "context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/fault"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/project"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type switchCommand struct {
	Containers  []string `arg:"" name:"name|descriptor|project" optional:"" help:"A container, whose project is built again; or a descriptor's file, a flake reference (.#web) or a folder. Without one, the folder you are in."`
	DryActivate bool     `help:"Only show what would be done."`
	Boot        bool     `help:"Change nothing now: the new generation comes up at the next start."`
	Restart     bool     `help:"Restart the container if something changed that can't be changed live."`
	Nixpkgs     string   `placeholder:"FOLDER" help:"The nixpkgs for folders with a configuration.nix, instead of NIX_PATH's or the one nuc is locked to."`
}

func (switchCommand) Help() string {
	return `Ports and limits change at once; the system's own switch program (system.switch in
the descriptor) does the rest, with the journal shown meanwhile.

Exit status: 0 if all went well, 1 if nothing was switched, 4 if the system was
switched and something failed in it.

Examples:
  nuc switch web
  nuc switch .#web --dry-activate
  nuc switch --restart`
}

func (s *switchCommand) Run(c *context) error {
	if s.DryActivate && s.Boot || s.DryActivate && s.Restart || s.Boot && s.Restart {
		return exitStatus{statusUsage, errors.New("--dry-activate, --boot and --restart exclude each other")}
	}
	var targets []*target
	for _, arg := range here(s.Containers) {
		found, err := c.fresh(arg, s.Nixpkgs)
		if err != nil {
			return err
		}
		targets = append(targets, found...)
	}
	var failed []error
	for _, t := range targets {
		change := &switching{c: c, t: t, dry: s.DryActivate, boot: s.Boot, restart: s.Restart}
		if err := change.run(); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// fresh is resolve, but that a container's name means its project as it is now.
func (c *context) fresh(arg, nixpkgs string) ([]*target, error) {
	if !isName(arg) || !c.folders.Container(arg).Exists() {
		return c.resolve(arg, c.keptNixpkgs(arg, nixpkgs))
	}
	p := origin(c.folders.Container(arg))
	switch {
	case p == nil:
		return nil, fmt.Errorf("container %s: where its descriptor came from was not kept: name the file, flake or folder to switch to", arg)
	case p.File != "":
		return c.resolve(p.File, nixpkgs)
	case p.Flake != "" && nixpkgs != "":
		return nil, fmt.Errorf("container %s: comes from a flake, whose inputs say which nixpkgs it uses: leave --nixpkgs out", arg)
	}
	again := *p
	if nixpkgs != "" {
		again.Nixpkgs = nixpkgs
	}
	if again.Flake == "" {
		if _, _, err := project.Find(again.Folder, again.Nixpkgs); err != nil {
			return nil, err
		}
	}
	return c.build(again, again.Name)
}

// keptNixpkgs is the nixpkgs that a classic project's folder was given earlier,
// unless it is given one now.
func (c *context) keptNixpkgs(arg, nixpkgs string) string {
	if nixpkgs != "" {
		return nixpkgs
	}
	names, err := c.members(arg)
	if err != nil || len(names) != 1 {
		return ""
	}
	if p := origin(c.folders.Container(names[0])); p != nil && p.Flake == "" {
		return p.Nixpkgs
	}
	return ""
}

// switching is a change of one container to another descriptor.
type switching struct {
	c                  *context
	t                  *target
	dry, boot, restart bool
	// limits alone differ.
	limits bool
	// number is the new generation's, made that it was appended for this; before
	// is the one that was current.
	number, before int
	made           bool
}

func (s *switching) run() error {
	container, name := s.t.container, s.t.descriptor.Name
	s.before, _, _ = container.Current()
	old, source, damaged := current(container)
	if damaged == nil && source == nil {
		return fmt.Errorf("container %s: was never started: `nuc up` does", name)
	}
	if err := supervisor.CheckStore(s.t.descriptor); err != nil {
		return fmt.Errorf("container %s: %w; nothing was changed", name, err)
	}
	if damaged != nil {
		if s.dry || container.Held() {
			return fmt.Errorf("%w, once it is stopped", damaged)
		}
		return s.next()
	}
	if s.dry {
		return s.show(old)
	}
	if s.boot || !isHeld(container) {
		return s.next()
	}
	if keys := supervisor.Restart(old, s.t.descriptor); len(keys) > 0 && s.restart {
		return s.anew(keys)
	}
	return s.live(old, source)
}

// isHeld tells whether a container is up; one that is just ending, as after a start
// that failed, is waited for.
func isHeld(container state.Container) bool {
	for end := time.Now().Add(5 * time.Second); container.Held(); time.Sleep(5 * time.Millisecond) {
		st, err := supervisor.Query(container)
		gone := errors.Is(err, supervisor.ErrNotRunning) || err == nil && (st.State == supervisor.Failed || st.State == supervisor.Stopped)
		if !gone || time.Now().After(end) {
			return true
		}
	}
	return false
}

// append keeps the new descriptor, not yet as the current one.
func (s *switching) append() error {
	if s.number == 0 {
		n, err := s.t.container.Append(s.t.source)
		if err != nil {
			return fmt.Errorf("container %s: %w; nothing was changed", s.t.descriptor.Name, err)
		}
		s.number, s.made = n, n != s.before
		if s.made && s.limits {
			if err := s.t.container.SetBase(n); err != nil {
				s.takeBack()
				return fmt.Errorf("container %s: %w; nothing was changed", s.t.descriptor.Name, err)
			}
		}
	}
	return nil
}

// takeBack forgets a generation that did not come to be.
func (s *switching) takeBack() {
	if s.made {
		_ = s.t.container.Drop(s.number)
	}
}

func (s *switching) settle() error {
	if err := s.t.container.SetCurrent(s.number); err != nil {
		return fmt.Errorf("container %s: %w", s.t.descriptor.Name, err)
	}
	if err := s.c.renewUnit(s.t.descriptor); err != nil {
		fmt.Fprintln(s.c.stderr, printable(fmt.Sprintf("nuc: container %s: its unit is as it was: %s", s.t.descriptor.Name, err)))
	}
	if text := s.t.originText(); text != nil {
		return s.t.container.SetOrigin(text)
	}
	return nil
}

// next makes the generation the one of the next start.
func (s *switching) next() error {
	if err := s.append(); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	name := s.t.descriptor.Name
	when := "at the next start"
	if !isHeld(s.t.container) {
		when = fmt.Sprintf("with `nuc up %s`, as it is not running", name)
	}
	fmt.Fprintf(s.c.stdout, "%s: generation %d comes up %s\n", name, s.number, when)
	return nil
}

// anew stops the container and starts it with the new descriptor.
func (s *switching) anew(keys []string) error {
	name, targets := s.t.descriptor.Name, []*target{s.t}
	_, err := gather(s.t)
	if err == nil {
		err = supervisor.CheckPorts(s.t.descriptor)
	}
	if err != nil {
		return fmt.Errorf("container %s: %w; nothing was changed", name, err)
	}
	if err := s.append(); err != nil {
		return err
	}
	fmt.Fprintf(s.c.stdout, "%s: restarting, as %s changed\n", name, strings.Join(keys, ", "))
	if err := s.settle(); err != nil {
		return err
	}
	defer takeLeases(targets)()
	err = s.c.stopToStart(targets)
	if err == nil {
		err = s.c.up(targets, startOptions{wait: true})
	}
	if err != nil {
		return fmt.Errorf("%w; go back with %s", err, s.wayBack())
	}
	return nil
}

// wayBack is the commands that lead to the generation that was current.
func (s *switching) wayBack() string {
	name := s.t.descriptor.Name
	back := "nuc rollback " + name
	if n, err := before(s.t.container, s.number); err != nil || n != s.before {
		back += fmt.Sprintf(" --to %d", s.before)
	}
	switch {
	case !s.restart:
		return "`" + back + "`"
	case isHeld(s.t.container):
		return "`" + back + " --restart`"
	}
	return "`" + back + "` and `nuc up " + name + "`"
}

// show is --dry-activate.
func (s *switching) show(old *descriptor.Descriptor) error {
	ch := compare(old, s.t.descriptor)
	for _, one := range ch.Keys {
		fmt.Fprintf(s.c.stdout, "%s: %s: %s → %s\n", s.t.descriptor.Name, printable(one.Name), printable(one.From), printable(one.To))
	}
	s.tellRestart(supervisor.Restart(old, s.t.descriptor))
	if !s.t.container.Held() || !s.activates(old) {
		return nil
	}
	_, err := s.activate("dry-activate")
	return err
}

// tellRestart names what a live switch leaves out.
func (s *switching) tellRestart(keys []string) {
	if len(keys) > 0 {
		fmt.Fprintf(s.c.stdout, "%s: needs restart: %s changed: `nuc restart %s`, or --restart\n",
			s.t.descriptor.Name, strings.Join(keys, ", "), s.t.descriptor.Name)
	}
}

// activates tells whether there is something to do inside.
func (s *switching) activates(old *descriptor.Descriptor) bool {
	d := s.t.descriptor
	return len(d.System.Switch) > 0 && (d.System.Toplevel != old.System.Toplevel || !slices.Equal(d.System.Switch, old.System.Switch))
}

// takeOver has the supervisor and the state folder agree on the new generation,
// or both on the old one.
func (s *switching) takeOver(old []byte) error {
	container := s.t.container
	if err := update(container, s.t.source, s.number, s.t.storePath); err != nil {
		s.takeBack()
		return err
	}
	if err := container.SetCurrent(s.number); err != nil {
		s.giveBack(old)
		return err
	}
	return nil
}

// giveBack undoes takeOver.
func (s *switching) giveBack(old []byte) {
	if update(s.t.container, old, s.before, "") == nil && s.t.container.SetCurrent(s.before) == nil {
		s.takeBack()
	}
}

// whole calls a function that is not to end halfway: a Ctrl-C takes effect after
// it.
func whole(f func() error) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	err := f()
	signal.Stop(told)
	select {
	case sig := <-told:
		_ = unix.Kill(os.Getpid(), sig.(unix.Signal))
		time.Sleep(time.Second) // it is delivered by then
	default:
	}
	return err
}

// live switches the running container, whose kept descriptor is old, from source.
func (s *switching) live(old *descriptor.Descriptor, source []byte) error {
	container, name := s.t.container, s.t.descriptor.Name
	if err := s.append(); err != nil {
		return err
	}
	fault.At("appended")
	if s.number == s.before {
		if err := s.settle(); err != nil { // another project may say the same
			return err
		}
		fmt.Fprintf(s.c.stdout, "%s: nothing changed, generation %d\n", name, s.before)
		return nil
	}
	if err := whole(func() error { return s.takeOver(source) }); err != nil {
		return fmt.Errorf("container %s: %w; nothing was changed", name, err)
	}
	fault.At("taken")
	if st, err := supervisor.Query(container); err == nil && st.State == supervisor.Listening {
		// Nothing runs that could be switched; what comes next is made anew.
		if err := s.settle(); err != nil {
			return err
		}
		fmt.Fprintf(s.c.stdout, "%s: generation %d comes up when a client starts it\n", name, s.number)
		s.tellRestart(supervisor.RestartListening(old, s.t.descriptor))
		return nil
	}
	if !s.activates(old) {
		if err := s.settle(); err != nil {
			return err
		}
		fmt.Fprintf(s.c.stdout, "%s: generation %d\n", name, s.number)
		s.tellRestart(supervisor.Restart(old, s.t.descriptor))
		return nil
	}
	earlier := unitStates(container)
	code, err := s.activate("switch")
	if err != nil {
		s.giveBack(source)
		return fmt.Errorf("%w; nothing was changed", err)
	}
	fault.At("activated")
	if err := s.settle(); err != nil {
		return err
	}
	s.report(earlier, unitStates(container))
	s.tellRestart(supervisor.Restart(old, s.t.descriptor))
	if code != 0 {
		return exitStatus{statusUnits, fmt.Errorf("container %s: generation %d: the switch ended with status %d, as said above: go back with %s", name, s.number, code, s.wayBack())}
	}
	fmt.Fprintf(s.c.stdout, "%s: generation %d\n", name, s.number)
	return nil
}

// update has the supervisor take over a descriptor.
func update(container state.Container, source []byte, generation int, storePath string) error {
	conn, err := supervisor.Connect(container)
	if err != nil {
		return err
	}
	defer conn.Close()
	command := supervisor.Command{Request: keeper.Request{Op: supervisor.OpUpdate}, Descriptor: source, Generation: generation, StorePath: storePath}
	if err := conn.Send(command); err != nil {
		return err
	}
	m, err := conn.Receive()
	if err != nil {
		return errors.New("its supervisor ended")
	}
	defer m.Close()
	var reply keeper.Reply
	if err := m.Decode(&reply); err != nil {
		return err
	}
	if reply.Kind != keeper.Started {
		return errors.New(reply.Error)
	}
	return nil
}

// activate runs the new generation's switch program and returns its exit status.
// The error is for a program that could not be run at all.
func (s *switching) activate(action string) (int, error) {
	container := s.t.container
	command := slices.Clone(s.t.descriptor.System.Switch)
	if last := len(command) - 1; command[last] == "switch" {
		command[last] = action
	} else if action != "switch" {
		fmt.Fprintf(s.c.stdout, "%s: would run %s\n", s.t.descriptor.Name, printable(strings.Join(command, " ")))
		return 0, nil
	}
	fmt.Fprintf(s.c.stdout, "%s: %s\n", s.t.descriptor.Name, printable(strings.Join(command, " ")))
	var lock sync.Mutex
	if action == "switch" {
		defer s.followJournal(&lock)()
	}
	conn, err := supervisor.Connect(container)
	if err != nil {
		return 0, fmt.Errorf("container %s: %w", container.Name, err)
	}
	defer conn.Close()
	status, err := runLines(conn, command, &lines{w: s.c.stdout, lock: &lock})
	if err != nil {
		return 0, fmt.Errorf("container %s: %w", container.Name, err)
	}
	return status, nil
}

// runLines runs a command, both of whose outputs are shown line by line.
func runLines(conn *seqpacket.Conn, command []string, out *lines) (int, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	err = conn.Send(supervisor.Command{Request: keeper.Request{Op: keeper.OpExec, Exec: &keeper.Exec{Arguments: command}}}, null, w, w)
	w.Close()
	if err != nil {
		return 0, supervisor.ErrNotRunning
	}
	copied := make(chan struct{})
	go func() {
		_ = out.copy(r)
		close(copied)
	}()
	status, err := supervisor.Outcome(conn, nil)
	// What the command started may hold its output open.
	select {
	case <-copied:
	case <-time.After(time.Second):
		r.Close()
		<-copied
	}
	switch {
	case err != nil:
		return 0, err
	case status.Signaled():
		return 128 + int(status.Signal()), nil
	}
	return status.ExitStatus(), nil
}

// followJournal shows what services say until the returned function is called,
// and by then all of it.
//
// The journal is asked again and again, from where the last answer ended: a
// `journalctl --follow` would have to be told when it has seen everything.
func (s *switching) followJournal(lock *sync.Mutex) (stop func()) {
	out := &lines{w: s.c.stdout, lock: lock, prefix: "    "}
	cursor := s.journal("", nil)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for last := false; !last; {
			select {
			case <-time.After(300 * time.Millisecond):
			case <-end:
				last = true
			}
			cursor = s.journal(cursor, out)
		}
	}()
	return func() {
		ctx, cancel := gocontext.WithTimeout(gocontext.Background(), 5*time.Second)
		_, _, _ = supervisor.Run(ctx, s.t.container, keeper.Exec{Arguments: []string{"journalctl", "--sync"}})
		cancel()
		close(end)
		<-done
	}
}

// journal shows what is behind a cursor and returns the next one.
func (s *switching) journal(cursor string, out *lines) string {
	args := []string{"journalctl", "--no-pager", "--quiet", "--show-cursor"}
	if out == nil {
		args = append(args, "--lines=0")
	} else {
		args = append(args, "--after-cursor="+cursor)
	}
	ctx, cancel := gocontext.WithTimeout(gocontext.Background(), 5*time.Second)
	defer cancel()
	text, status, err := supervisor.Run(ctx, s.t.container, keeper.Exec{Arguments: args})
	if err != nil || status != 0 {
		return cursor
	}
	for line := range strings.Lines(text) {
		if next, ok := strings.CutPrefix(line, "-- cursor: "); ok {
			cursor = strings.TrimSpace(next)
		} else if out != nil && strings.HasSuffix(line, "\n") {
			_ = out.write([]byte(line))
		}
	}
	return cursor
}
