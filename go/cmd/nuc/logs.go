package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/rootfs"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type logsCommand struct {
	Names  []string `arg:"" name:"name|project" optional:"" help:"Containers, or projects' folders for all of theirs. With several, each line bears its container's name. Without one, the folder you are in."`
	Follow bool     `short:"f" help:"Go on with what comes."`
	Lines  *int     `short:"n" placeholder:"N" help:"Only the last N lines."`
	Unit   []string `short:"u" sep:"none" placeholder:"UNIT" help:"Only this unit's messages; may be given several times."`
	Since  string   `placeholder:"TIME" help:"Only what is not older: \"10 min ago\", \"2026-11-24 18:00\" (systemd.time(7))."`
	Until  string   `placeholder:"TIME" help:"Only what is not newer."`
	JSON   bool     `name:"json" help:"One JSON object a line, as journalctl -o json."`
}

func (logsCommand) Help() string {
	return `The journal is read by the container's own journalctl; of a container that has
stopped, by this machine's. What init prints on the console is shown by ` + "`nuc start`" + `.

Examples:
  nuc logs -f web
  nuc logs -f
  nuc logs -n 50 -u nginx -u postgresql web
  nuc logs --since "10 min ago" web db`
}

func (l *logsCommand) Run(c *context) error {
	if l.Lines != nil && *l.Lines < 0 {
		return exitStatus{statusUsage, fmt.Errorf("--lines %d: a number of lines expected", *l.Lines)}
	}
	containers, err := c.withJournal(here(l.Names), l.Follow)
	if err != nil {
		return err
	}
	prefixes := prefixes(containers, colours(os.Stdout))
	var lock sync.Mutex
	errs := make([]error, len(containers))
	var all sync.WaitGroup
	var stay func() bool
	if l.Follow && !slices.ContainsFunc(l.Names, isName) {
		stay = whileAnyRuns(containers)
	}
	for i, container := range containers {
		out := &lines{w: c.stdout, lock: &lock, raw: l.JSON}
		if len(containers) > 1 && !l.JSON {
			out.prefix = prefixes[i]
		}
		if l.Follow {
			all.Go(func() { errs[i] = l.follow(container, out, stay) })
		} else {
			errs[i] = l.show(container, out, l.arguments())
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// followGap is how long none of a project may run, as in a restart, until its logs
// are followed no more.
const followGap = 3 * time.Second

// whileAnyRuns tells whether to go on following a project's logs: until it is
// interrupted, or nothing runs any more.
func whileAnyRuns(containers []state.Container) func() bool {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	over := make(chan struct{})
	go func() {
		defer close(over)
		last := time.Now()
		for time.Since(last) < followGap {
			if slices.ContainsFunc(containers, state.Container.Held) {
				last = time.Now()
			}
			select {
			case <-interrupted:
				return
			case <-time.After(followGap / 10):
			}
		}
	}()
	return func() bool {
		select {
		case <-over:
			return false
		case <-time.After(followGap / 10):
			return true
		}
	}
}

// follow shows a container's journal as it grows, and that of its next run for as
// long as stay, if not nil, says.
func (l *logsCommand) follow(container state.Container, out *lines, stay func() bool) error {
	arguments := l.arguments()
	for {
		var err error
		if stay == nil || container.Held() {
			err = l.show(container, out, arguments)
			var refused supervisor.CommandError
			if err == nil { // what was shown is not to be shown again
				arguments = append(l.arguments(), fmt.Sprintf("--since=@%.6f", float64(time.Now().UnixMicro())/1e6), "--lines=all")
			} else if stay != nil && errors.As(err, &refused) {
				err = nil // its init is not up yet
			}
		}
		if err != nil || stay == nil || !stay() {
			return err
		}
	}
}

// withJournal is the selection, of projects what runs or has kept a journal. To be
// followed are all of a project of which one runs.
func (c *context) withJournal(args []string, follow bool) ([]state.Container, error) {
	selected, err := c.selection(args)
	if err != nil {
		return nil, err
	}
	var list []state.Container
	runs := slices.ContainsFunc(selected, state.Container.Held)
	for _, container := range selected {
		if slices.Contains(args, container.Name) || follow && runs || !follow && (container.Held() || keepsJournal(container)) {
			list = append(list, container)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("container of %s: none is running: `nuc up %s` starts them", strings.Join(args, ", "), strings.Join(args, " "))
	}
	return list, nil
}

// keepsJournal tells whether an earlier run has left a journal.
func keepsJournal(container state.Container) bool {
	d, _, err := current(container)
	return err == nil && d != nil && rootfs.HasJournal(supervisor.Written(container, d))
}

// prefixes are what lines of several containers begin with: names of one width,
// in colours of their own if that is wanted.
func prefixes(containers []state.Container, coloured bool) []string {
	width := 0
	for _, container := range containers {
		width = max(width, len(container.Name))
	}
	var list []string
	for i, container := range containers {
		prefix := fmt.Sprintf("%-*s | ", width, container.Name)
		if coloured {
			prefix = paint(prefix, nameColours[i%len(nameColours)])
		}
		list = append(list, prefix)
	}
	return list
}

func (l *logsCommand) arguments() []string {
	args := []string{"journalctl", "--no-pager", "--quiet"}
	if l.Follow {
		args = append(args, "--follow")
	}
	switch {
	case l.Lines != nil:
		args = append(args, "--lines="+strconv.Itoa(*l.Lines))
	case l.Follow:
		args = append(args, "--lines=10")
	}
	for _, u := range l.Unit {
		args = append(args, "--unit="+u)
	}
	if l.Since != "" {
		args = append(args, "--since="+l.Since)
	}
	if l.Until != "" {
		args = append(args, "--until="+l.Until)
	}
	if l.JSON {
		args = append(args, "--output=json")
	}
	return args
}

// show prints one container's journal.
func (l *logsCommand) show(container state.Container, out *lines, arguments []string) error {
	conn, err := supervisor.Connect(container)
	if errors.Is(err, supervisor.ErrNotRunning) && !container.Held() {
		return l.showKept(container, out)
	}
	if errors.Is(err, supervisor.ErrNotRunning) {
		return notRunning(container.Name, err)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	if st, err := supervisor.Query(container); err == nil && st.State == supervisor.Listening && !l.Follow && keepsJournal(container) {
		return l.showKept(container, out)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		w.Close()
		return err
	}
	defer errR.Close()
	request := keeper.Request{Op: keeper.OpExec, Exec: &keeper.Exec{Arguments: arguments}}
	err = conn.Send(supervisor.Command{Request: request, Passive: true}, null, w, errW)
	w.Close()
	errW.Close()
	if err != nil {
		return notRunning(container.Name, supervisor.ErrNotRunning)
	}
	forward(conn, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	var complaint strings.Builder
	var copies sync.WaitGroup
	copies.Go(func() {
		if out.copy(r) != nil {
			r.Close() // whoever reads has had enough; journalctl notices by SIGPIPE
		}
	})
	copies.Go(func() { _, _ = io.Copy(&complaint, io.LimitReader(errR, 4096)) })
	status, err := supervisor.Outcome(conn, nil)
	copies.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("container %s: %w", container.Name, err)
	case status.Signaled():
		return nil // by what the caller sent
	case status.ExitStatus() != 0:
		first, _, _ := strings.Cut(strings.TrimSpace(complaint.String()), "\n")
		return fmt.Errorf("container %s: journalctl: %s", container.Name, first)
	}
	return nil
}

// lines passes text on line by line, so that those of several containers don't
// mix, and without what would command a terminal.
type lines struct {
	w      io.Writer
	lock   *sync.Mutex
	prefix string
	raw    bool
}

// maxLine is where a line is broken, in bytes: one without end must not fill
// the memory.
const maxLine = 64 << 10

func (l *lines) copy(r io.Reader) error {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			if werr := l.write(line); werr != nil {
				return werr
			}
		}
		if err != nil && err != bufio.ErrBufferFull {
			return nil
		}
	}
}

func (l *lines) write(line []byte) error {
	text := string(line)
	if !l.raw {
		// Tabs stay: they are part of many a message.
		parts := strings.Split(text, "\t")
		for i := range parts {
			parts[i] = printable(parts[i])
		}
		text = l.prefix + strings.Join(parts, "\t")
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	_, err := io.WriteString(l.w, text)
	return err
}
