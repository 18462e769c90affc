package main

import (
	"bytes"
	gocontext "context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/screen"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type watchCommand struct {
	Names []string `arg:"" name:"name|project" optional:"" help:"Containers, or projects' folders for all of theirs. Without one, all there are."`
}

func (watchCommand) Help() string {
	return `States, what is used, and below what services log. q or Ctrl-C ends it.

Examples:
  nuc watch
  nuc watch .
  nuc watch web db`
}

const (
	// watchEvery is how often states and figures are asked for.
	watchEvery = time.Second
	// degradedEvery is how often, in those times, each systemd is asked for failed
	// units, which costs a process in each container.
	degradedEvery = 5
	// watchLines is how many lines of logs are kept at least.
	watchLines = 1000
	// firstLines is how much of an older log is shown of each container.
	firstLines = 5
	// redrawAtMost bounds how often logs have the screen drawn again.
	redrawAtMost = 50 * time.Millisecond
)

func (w *watchCommand) Run(c *context) error {
	if len(w.Names) > 0 {
		if _, err := c.selection(w.Names); err != nil {
			return err
		}
	}
	s, err := screen.Open(os.Stdin, os.Stdout)
	if errors.Is(err, screen.ErrNoTerminal) {
		return exitStatus{statusUsage, errors.New("standard output is no terminal: `nuc ps` and `nuc stats` print once, and with --watch again and again")}
	}
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := gocontext.WithCancel(gocontext.Background())
	board := &board{c: c, names: w.Names, degraded: map[string]bool{}, colour: map[string]string{}, tails: map[string]tail{}, news: make(chan struct{}, 1)}
	// Not waited for: a supervisor that hangs must not keep the terminal.
	defer cancel()
	go board.keepUp(ctx)
	for {
		rows, columns := s.Size()
		s.Draw(board.draw(rows, columns))
		select {
		case <-s.Quit():
			return nil
		case <-s.Resized():
		case <-board.news:
			// Many lines of logs at once are one drawing.
			select {
			case <-s.Quit():
				return nil
			case <-time.After(redrawAtMost):
			}
		}
	}
}

// board is what is shown.
type board struct {
	c     *context
	names []string
	news  chan struct{}
	// degraded is what systemd said last, by container.
	degraded map[string]bool
	tails    map[string]tail

	mu     sync.Mutex
	list   []supervisor.Status
	used   map[string]usage
	colour map[string]string // of names
	log    []string          // the newest last
	at     time.Time
	err    error
}

// tail is a log that is followed.
type tail struct {
	init int // of which run
	stop gocontext.CancelFunc
}

func (b *board) tell() {
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// keepUp asks for states and figures, and follows the logs of what runs.
func (b *board) keepUp(ctx gocontext.Context) {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	var measured meter
	for round := 0; ; round++ {
		list, err := b.ask(round%degradedEvery == 0)
		used := map[string]usage{}
		var running []supervisor.Status
		for _, st := range list {
			if st.Supervisor > 0 {
				running = append(running, st)
			}
		}
		for _, u := range measured.all(running, false) {
			used[u.Name] = u
		}
		b.mu.Lock()
		b.at, b.err = time.Now(), err
		if err == nil {
			b.list, b.used = list, used
		}
		for _, st := range list {
			if b.colour[st.Name] == "" {
				b.colour[st.Name] = nameColours[len(b.colour)%len(nameColours)]
			}
		}
		b.mu.Unlock()
		b.follow(ctx, running)
		b.tell()
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// ask asks all containers side by side; thorough asks their systemd as well.
func (b *board) ask(thorough bool) ([]supervisor.Status, error) {
	containers, err := b.c.everyOr(b.names)
	if err != nil {
		return nil, err
	}
	found := make([]*supervisor.Status, len(containers))
	var all sync.WaitGroup
	for i, container := range containers {
		degraded := b.degraded[container.Name]
		all.Go(func() {
			if !thorough {
				if st, err := supervisor.Query(container); err == nil {
					if st.State == supervisor.Ready && degraded {
						st.State = supervisor.Degraded
					}
					found[i] = st
					return
				}
			}
			found[i] = statusOf(container)
		})
	}
	all.Wait()
	var list []supervisor.Status
	for _, st := range found {
		if st != nil {
			b.degraded[st.Name] = st.State == supervisor.Degraded
			list = append(list, *st)
		}
	}
	return list, nil
}

// follow follows the logs of these containers and of no others.
func (b *board) follow(ctx gocontext.Context, running []supervisor.Status) {
	up := map[string]int{}
	for _, st := range running {
		if st.Init > 0 {
			up[st.Name] = st.Init
		}
	}
	for name, t := range b.tails {
		if up[name] != t.init {
			t.stop()
			delete(b.tails, name)
		}
	}
	for name, init := range up {
		if _, followed := b.tails[name]; followed {
			continue
		}
		own, stop := gocontext.WithCancel(ctx)
		b.tails[name] = tail{init: init, stop: stop}
		container := b.c.folders.Container(name)
		go func() {
			defer stop()
			b.read(own, container)
		}()
	}
}

// read follows one container's journal until it ends or ctx does. Without a
// journalctl there is nothing to read.
func (b *board) read(ctx gocontext.Context, container state.Container) {
	from := fmt.Sprintf("--lines=%d", firstLines)
	for ctx.Err() == nil {
		read, over := b.readOnce(ctx, container, from)
		if over {
			return
		}
		if read { // and is not to be shown twice
			from = fmt.Sprintf("--since=@%.6f", float64(time.Now().UnixMicro())/1e6)
		}
		// The journal is not there yet.
		select {
		case <-ctx.Done():
		case <-time.After(watchEvery):
		}
	}
}

// readOnce reads from where journalctl's option says. It tells whether there was
// anything, and whether there never will be.
func (b *board) readOnce(ctx gocontext.Context, container state.Container, from string) (read, over bool) {
	conn, err := supervisor.Connect(container)
	if err != nil {
		return false, true
	}
	// A command whose caller goes away gets SIGHUP.
	defer gocontext.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return false, true
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return false, true
	}
	defer r.Close()
	request := keeper.Request{Op: keeper.OpExec, Exec: &keeper.Exec{Arguments: []string{
		"journalctl", "--follow", "--no-pager", "--quiet", "--no-hostname", from,
	}}}
	// Who only looks does not keep a container up that is stopped when it is idle.
	err = conn.Send(supervisor.Command{Request: request, Passive: true}, null, w, null)
	w.Close()
	if err != nil {
		return false, true
	}
	defer gocontext.AfterFunc(ctx, func() { r.Close() })()
	out := &lines{w: entry{b, container.Name, &read}, lock: new(sync.Mutex)}
	_ = out.copy(r)
	_, err = supervisor.Outcome(conn, nil)
	var refused supervisor.CommandError
	return read, errors.As(err, &refused)
}

// entry is a container's lines on the board.
type entry struct {
	b    *board
	name string
	any  *bool // set by the first line
}

// Write takes one line.
func (e entry) Write(line []byte) (int, error) {
	text := strings.ReplaceAll(strings.TrimRight(string(line), "\n"), "\t", "    ")
	*e.any = true
	e.b.mu.Lock()
	prefix := e.name + " | "
	if colour := e.b.colour[e.name]; colour != "" {
		prefix = paint(prefix, colour)
	}
	e.b.log = append(e.b.log, prefix+text)
	if len(e.b.log) > 2*watchLines {
		e.b.log = append(e.b.log[:0:0], e.b.log[watchLines:]...)
	}
	e.b.mu.Unlock()
	e.b.tell()
	return len(line), nil
}

// draw lays the board out: containers above, and what is left for the logs.
func (b *board) draw(rows, columns int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	running := 0
	for _, st := range b.list {
		if st.Supervisor > 0 {
			running++
		}
	}
	title := fmt.Sprintf("nuc: %d running of %d", running, len(b.list))
	if b.at.IsZero() {
		title = "nuc: asking …"
	}
	help := "q: quit  " + b.at.Format(time.TimeOnly)
	if space := columns - len(title) - len(help); space > 1 && !b.at.IsZero() {
		title += strings.Repeat(" ", space) + help
	}
	shown := []string{paint(title, "7")}
	if b.err != nil {
		shown = append(shown, paint(printable(b.err.Error()), red))
	}
	// A third of the screen at least is for logs.
	most := max(rows-len(shown)-rows/3, 1)
	above := b.table()
	if len(above) > most {
		above = append(above[:most-1], fmt.Sprintf("… %d more", len(above)-most+1))
	}
	shown = append(shown, above...)
	if left := rows - len(shown) - 1; left > 0 {
		shown = append(shown, paint(strings.Repeat("─", columns), dim))
		shown = append(shown, b.log[max(0, len(b.log)-left):]...)
	}
	return shown
}

// table are the lines of the containers, states in colour.
func (b *board) table() []string {
	rows := [][]string{{"NAME", "STATUS", "UPTIME", "CPU", "MEMORY", "TASKS", "PORTS"}}
	for _, st := range b.list {
		u := b.used[st.Name]
		up, memory, what := "", size(u.MemoryCurrent), portList(st.Ports)
		if u.MemoryOfProcesses {
			memory = "~" + memory
		}
		if u.MemoryMax != nil {
			memory += " of " + size(u.MemoryMax)
		}
		if st.Supervisor > 0 {
			up = uptime(time.Since(st.Started))
		}
		switch {
		case st.Waiting != "" && st.State == supervisor.Starting:
			what = "waiting for " + st.Waiting
		case st.State == supervisor.Failed:
			what = st.Reason
		case st.Killed() != "":
			what = st.Killed()
		}
		rows = append(rows, []string{st.Name, string(st.State), up, percent(u.CPUPercent), memory, count(u.Tasks), what})
	}
	var text bytes.Buffer
	_ = table(&text, rows)
	list := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	// Names are ASCII, so the column is where the heading has it.
	column := strings.Index(list[0], "STATUS")
	list[0] = paint(list[0], dim)
	for i, st := range b.list {
		word := string(st.State)
		if line := list[i+1]; len(line) >= column+len(word) && line[column:column+len(word)] == word {
			list[i+1] = line[:column] + paint(word, stateColour(st.State)) + line[column+len(word):]
		}
	}
	return list
}

func stateColour(st supervisor.State) string {
	switch st {
	case supervisor.Ready:
		return green
	case supervisor.Failed:
		return red
	case supervisor.Stopped:
		return dim
	}
	return yellow
}
