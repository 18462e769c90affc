package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/link"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

type psCommand struct {
	Projects []string `arg:"" name:"name|project" optional:"" help:"Only these containers, or those of projects' folders."`
	All      bool     `short:"a" help:"Stopped containers, too."`
	Quiet    bool     `short:"q" help:"Names only."`
	JSON     bool     `name:"json" help:"As JSON."`
	Watch    bool     `help:"Show it again every two seconds until interrupted."`
}

func (psCommand) Help() string {
	return `Examples:
  nuc ps
  nuc ps -a --json
  nuc ps -a .
  nuc stop $(nuc ps -q)`
}

func (p *psCommand) Run(c *context) error {
	if p.Watch {
		return c.redraw(2*time.Second, p.show)
	}
	return p.show(c)
}

func (p *psCommand) show(c *context) error {
	list, err := c.statuses(p.Projects)
	if err != nil {
		return err
	}
	if !p.All {
		list = running(list)
	}
	return p.print(c, list)
}

func (p *psCommand) print(c *context, list []supervisor.Status) error {
	switch {
	case p.JSON:
		return writeJSON(c.stdout, list)
	case p.Quiet:
		for _, st := range list {
			fmt.Fprintln(c.stdout, printable(st.Name))
		}
		return nil
	}
	links, err := link.All(c.folders)
	if err != nil {
		return err
	}
	rows := [][]string{{"NAME", "STATUS", "UPTIME", "PORTS", "GENERATION"}}
	for _, st := range list {
		up, generation := "", ""
		if st.Supervisor > 0 {
			up = uptime(time.Since(st.Started))
		}
		if st.Generation > 0 {
			generation = strconv.Itoa(st.Generation)
		}
		ports := portList(st.Ports)
		for _, l := range beyond(links, st.Name) {
			ports = strings.TrimPrefix(ports+", "+l, ", ")
		}
		rows = append(rows, []string{st.Name, string(st.State), up, ports, generation})
	}
	if err := table(c.stdout, rows); err != nil {
		return err
	}
	for _, st := range list {
		for _, text := range shortages(&st) {
			fmt.Fprintln(c.stderr, printable(st.Name+": "+text))
		}
	}
	return nil
}

// beyond are the links by which others than the host machine itself reach a
// container, or its loopback's peers.
func beyond(links []link.Status, name string) []string {
	var list []string
	for _, l := range links {
		if !l.Beyond || len(l.Listen) == 0 {
			continue
		}
		switch {
		case l.Client == "-" && l.Host == name:
			list = append(list, fmt.Sprintf("%s→%s (link)", strings.Join(l.Listen, ", "), l.Target))
		case l.Client == name:
			list = append(list, fmt.Sprintf("inside %s→%s:%s (link)", strings.Join(l.Listen, ", "), l.Host, l.Target))
		}
	}
	return list
}

// shortages says what the kernel refused a container that runs.
func shortages(st *supervisor.Status) []string {
	var list []string
	if killed := st.Killed(); killed != "" {
		list = append(list, killed)
	}
	if st.TasksRefused > 0 {
		list = append(list, fmt.Sprintf("processes could not be started, as there were as many as resources.tasksMax allows: %d times", st.TasksRefused))
	}
	return list
}

func running(list []supervisor.Status) []supervisor.Status {
	kept := []supervisor.Status{}
	for _, st := range list {
		if st.State != supervisor.Stopped && st.State != supervisor.Failed {
			kept = append(kept, st)
		}
	}
	return kept
}

// statuses asks all containers, or those of an argument, at once: one that
// hangs costs the others nothing.
func (c *context) statuses(given []string) ([]supervisor.Status, error) {
	containers, err := c.everyOr(given)
	if err != nil {
		return nil, err
	}
	found := make([]*supervisor.Status, len(containers))
	var all sync.WaitGroup
	for i, container := range containers {
		all.Go(func() { found[i] = statusOf(container) })
	}
	all.Wait()
	list := []supervisor.Status{}
	for _, st := range found {
		if st != nil {
			list = append(list, *st)
		}
	}
	return list, nil
}

// statusOf asks the supervisor, or what the last run left; nil for a folder
// that holds neither.
func statusOf(container state.Container) *supervisor.Status {
	st, err := supervisor.Query(container)
	if err == nil {
		if st.State == supervisor.Ready && systemState(container) == "degraded" {
			st.State = supervisor.Degraded
		}
		if st.State == supervisor.Stopped || st.State == supervisor.Failed {
			st.State = supervisor.Stopping // it has not let go: a removal would meet it
		}
		return st
	}
	if container.Held() {
		reason := ""
		if !errors.Is(err, supervisor.ErrNotRunning) {
			reason = err.Error()
		}
		return &supervisor.Status{Name: container.Name, State: supervisor.Starting, Supervisor: container.Holder(), Started: time.Now(), Reason: reason}
	}
	// What a killed supervisor and keeper left is in nobody's way, but also
	// nobody else's to clear.
	if _, err := os.Lstat(container.Runtime); err == nil {
		if lock, err := container.Acquire(); err == nil {
			_ = supervisor.Sweep(container, lock)
			lock.Close()
		}
	}
	n, _, err := container.Current()
	if err == nil && n > 0 {
		_, _, err = current(container)
	}
	exit := container.LastExit()
	if !container.Exists() {
		return nil
	}
	st = &supervisor.Status{Name: container.Name, State: supervisor.Stopped, Generation: n}
	switch {
	case err != nil:
		st.State, st.Reason = supervisor.Failed, err.Error()
	case exit == nil && n > 0:
		st.State, st.Reason = supervisor.Failed, "its supervisor was killed"
	case exit != nil && !exit.Clean && !exit.Asked:
		st.State, st.Reason = supervisor.Failed, exit.Reason
	case exit != nil:
		st.Reason = exit.Reason
	}
	return st
}

// portList is how ports are shown: 127.0.0.1:8080→80, 127.0.0.1:8000-8010→8000-8010/udp.
func portList(ports []supervisor.Port) string {
	var parts []string
	for _, p := range ports {
		address := p.Address
		if strings.Contains(address, ":") {
			address = "[" + address + "]"
		}
		text := fmt.Sprintf("%s:%s→%s", address, portRange(p.Host, p.Count), portRange(p.Container, p.Count))
		if p.Protocol != "tcp" {
			text += "/" + p.Protocol
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// portRange is one port or several; a count of 0 is one.
func portRange(first, count int) string {
	if count <= 1 {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d-%d", first, first+count-1)
}

// portNotes says what is special of a port, and what is wrong with it.
func portNotes(p supervisor.Port) string {
	var notes []string
	for _, note := range []struct {
		holds bool
		text  string
	}{
		{p.SocketActivation, "starts the container"},
		{p.ProxyProtocol, "PROXY protocol"},
		{p.HandOver, "handed over"},
	} {
		if note.holds {
			notes = append(notes, note.text)
		}
	}
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, ", ") + ")"
}

// unclaimed warns of ports that nobody in the container has taken.
func unclaimed(st *supervisor.Status) []string {
	var warnings []string
	for _, p := range st.Ports {
		if p.Unclaimed {
			kind, address := "Stream", p.Address
			if p.Protocol == "udp" {
				kind = "Datagram"
			}
			if strings.Contains(address, ":") {
				address = "[" + address + "]"
			}
			warnings = append(warnings, fmt.Sprintf("port %s was handed over, and nothing in the container has it: clients are refused until it is rebooted with a socket unit enabled that has Listen%s=%s:%d",
				portList([]supervisor.Port{p}), kind, address, p.Container))
		}
	}
	return warnings
}

// stops says when a leased container is stopped.
func stops(l *supervisor.Leases) string {
	if !l.StopsAt.IsZero() {
		return fmt.Sprintf("in %s, unless it is leased again", uptime(time.Until(l.StopsAt)))
	}
	keep := 0
	for _, one := range l.Leases {
		keep = max(keep, one.KeepSeconds)
	}
	return fmt.Sprintf("%s after the end of the last lease", uptime(time.Duration(keep)*time.Second))
}

type statusCommand struct {
	Name *string `arg:"" name:"name|project" optional:"" help:"Container, or its project's folder; without one, the folder you are in."`
	JSON bool    `name:"json" help:"As JSON."`
}

func (statusCommand) Help() string {
	return `Exit status: 0 if the container is ready, 1 if it is not known, 3 if it is
stopped, failed, starting, or some of its units failed.

Examples:
  nuc status web
  nuc status web --json`
}

// detail is a status with what only the container's systemd can tell.
type detail struct {
	supervisor.Status
	FailedUnits []string `json:"failedUnits,omitempty"`
	StateFolder string   `json:"stateFolder"`
	// Links from and to the container.
	Links []link.Status `json:"links,omitempty"`
}

func (s *statusCommand) Run(c *context) error {
	container, err := c.find(hereOr(s.Name))
	if err != nil {
		return err
	}
	st := statusOf(container)
	if st == nil {
		return fmt.Errorf("container %s: not known", container.Name)
	}
	d := detail{Status: *st, StateFolder: container.State}
	if st.State == supervisor.Degraded || st.State == supervisor.Running {
		d.FailedUnits = failedUnits(container)
	}
	links, err := link.All(c.folders)
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Client == d.Name || l.Host == d.Name {
			d.Links = append(d.Links, l)
		}
	}
	if s.JSON {
		err = writeJSON(c.stdout, d)
	} else {
		err = d.print(c)
	}
	if err == nil && st.State != supervisor.Ready {
		return exitStatus{status: statusDied}
	}
	return err
}

func (d *detail) print(c *context) error {
	row := func(name, format string, a ...any) {
		fmt.Fprintf(c.stdout, "%-12s %s\n", name, printable(fmt.Sprintf(format, a...)))
	}
	row("name", "%s", d.Name)
	row("status", "%s", d.State)
	if d.Reason != "" {
		row("reason", "%s", d.Reason)
	}
	if d.Waiting != "" {
		row("waiting for", "%s", d.Waiting)
	}
	if d.Doing != "" {
		row("init says", "%s", d.Doing)
	}
	for _, u := range d.FailedUnits {
		row("failed unit", "%s", u)
	}
	for _, text := range shortages(&d.Status) {
		row("shortage", "%s", text)
	}
	if d.Supervisor > 0 {
		row("up", "%s, since %s", uptime(time.Since(d.Started)), d.Started.Format(time.DateTime))
		row("supervisor", "process %d", d.Supervisor)
	}
	if d.Init > 0 {
		row("init", "process %d", d.Init)
	}
	if d.ReadySeconds > 0 {
		row("ready after", "%.2f s", d.ReadySeconds)
	}
	if d.Restarts > 0 {
		row("restarts", "%d", d.Restarts)
	}
	if d.Reboots > 0 {
		row("reboots", "%d", d.Reboots)
	}
	for _, p := range d.Ports {
		row("port", "%s%s", portList([]supervisor.Port{p}), portNotes(p))
	}
	for _, l := range d.Links {
		text := linkText(&l)
		if l.State == link.Waiting {
			text += " (waiting for " + l.Reason + ")"
		} else if l.State == link.Killed {
			text += " (killed)"
		}
		row("link", "%s", text)
	}
	if o := d.Outbound; o != nil {
		switch {
		case o.Driver == "":
			row("outbound", "%s", o.Reason)
		case o.Reason != "":
			row("outbound", "%s, process %d (%s)", o.Driver, o.PID, o.Reason)
		default:
			row("outbound", "%s, process %d", o.Driver, o.PID)
		}
		if o.Gap != "" {
			row("security", "%s", o.Gap)
		}
	}
	if len(d.Credentials) > 0 {
		row("credentials", "%s", strings.Join(d.Credentials, ", "))
	}
	for _, l := range d.Leases.Leases {
		row("lease", "process %d (%s)", l.Process, l.Command)
	}
	if d.Leased && d.State != supervisor.Stopping {
		row("stops", "%s", stops(&d.Leases))
	}
	if d.Seccomp != "" {
		row("seccomp", "%s", d.Seccomp)
	}
	if c := d.Confinement; c != nil {
		if c.Landlock > 0 {
			row("confined", "by Landlock, version %d", c.Landlock)
		} else {
			row("confined", "no: %s", c.Reason)
		}
	}
	if d.Cgroup != "" {
		row("cgroup", "%s", d.Cgroup)
	}
	if d.Generation > 0 {
		row("generation", "%d", d.Generation)
	}
	row("state folder", "%s", d.StateFolder)
	for _, w := range append(unclaimed(&d.Status), d.Warnings...) {
		row("warning", "%s", w)
	}
	return nil
}
