package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/link"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/unit"
)

type linkCommand struct {
	Client     string `arg:"" help:"Where to listen: a container's name or project, or - for the host machine."`
	ClientPort string `arg:"" optional:"" help:"A port, a range of ports (8000-8010), or the path of a Unix socket."`
	Host       string `arg:"" optional:"" help:"Where that leads: as CLIENT."`
	HostPort   string `arg:"" optional:"" help:"As CLIENT-PORT; a range is as long."`

	UDP     bool     `name:"udp" help:"Relay datagrams instead of connections."`
	IPv4    bool     `name:"ipv4" help:"Listen on IPv4 only."`
	IPv6    bool     `name:"ipv6" help:"Listen on IPv6 only."`
	Address []string `placeholder:"ADDR" sep:"none" help:"Listen on this address of the client's, instead of localhost's. Can be repeated."`
	Unix    []string `placeholder:"PATH" sep:"none" help:"A Unix socket, in place of the port that is left out."`
}

func (linkCommand) Help() string {
	return `A link goes on while its containers are restarted, until 'nuc unlink'. Making it
twice is no error.

Examples:
  nuc link - 1001 ~/cont1 5432          then: psql -h localhost -p 1001
  nuc link web 80 db 80                 curl in web reaches db
  nuc link - 8000-8010 web 8000-8010
  nuc link --unix ~/run/.s.PGSQL.5432 - db 5432
  nuc link --udp - 1053 dns 53`
}

func (l *linkCommand) Run(c *context) error {
	spec, err := l.spec(c)
	if err != nil {
		return err
	}
	m, err := c.maker()
	if err != nil {
		return err
	}
	st, err := m.Make(spec)
	var there link.ThereError
	if errors.As(err, &there) && there.Same {
		if st, err = link.Query(c.folders.Link(there.Name)); err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "%s: is there already: %s\n", st.Name, linkText(st))
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %s\n", st.Name, linkText(st))
	return nil
}

// maker makes links with this program.
func (c *context) maker() (*link.Maker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &link.Maker{Folders: c.folders, Program: self, Manager: unit.Of(c.folders.Runtime, os.Getuid())}, nil
}

// linkText is where a link listens and where it leads.
func linkText(st *link.Status) string {
	where := strings.Join(st.Listen, ", ")
	if where == "" {
		where = "nowhere"
	}
	if st.Client != "-" {
		where = st.Client + " " + where
	}
	text := fmt.Sprintf("%s → %s", where, st.Host+":"+st.Target)
	if st.Protocol == link.UDP {
		text += "/udp"
	}
	return text
}

// wrongUsage is a command line that is wrong.
func wrongUsage(format string, a ...any) error {
	return exitStatus{statusUsage, fmt.Errorf(format, a...)}
}

// spec reads the command line and looks at the containers.
func (l *linkCommand) spec(c *context) (*link.Spec, error) {
	words, err := l.words()
	if err != nil {
		return nil, err
	}
	s := &link.Spec{Protocol: link.TCP}
	if l.UDP {
		s.Protocol = link.UDP
	}
	counts := [2]int{}
	for i, end := range []*link.End{&s.Client, &s.Host} {
		if counts[i], err = readWhat(end, words[2*i+1]); err != nil {
			return nil, err
		}
		if end.Path != "" && l.UDP {
			return nil, wrongUsage("%s: a Unix socket and --udp don't go together: leave one of the two out", end.Path)
		}
	}
	if s.Count, err = portCount(words, counts); err != nil {
		return nil, err
	}
	if err := l.addresses(s); err != nil {
		return nil, err
	}
	if words[0] == "-" && words[2] == "-" {
		return nil, wrongUsage("a link from the host machine to itself: name a container at one end")
	}
	for i, end := range []*link.End{&s.Client, &s.Host} {
		if err := c.place(end, words[2*i]); err != nil {
			return nil, err
		}
	}
	return s, l.check(c, s)
}

// words are the four of the command line, with the paths of --unix put in.
func (l *linkCommand) words() ([]string, error) {
	const form = "nuc link CLIENT CLIENT-PORT HOST HOST-PORT"
	var w []string
	for _, word := range []string{l.Client, l.ClientPort, l.Host, l.HostPort} {
		if word != "" {
			w = append(w, word)
		}
	}
	switch {
	case len(l.Unix) > 2:
		return nil, wrongUsage("--unix is given %d times: a link has two ends", len(l.Unix))
	case len(w)+len(l.Unix) != 4:
		return nil, wrongUsage("%d words: expected `%s`, with a port left out for each --unix", len(w), form)
	case len(l.Unix) == 2:
		return []string{w[0], l.Unix[0], w[1], l.Unix[1]}, nil
	case len(l.Unix) == 0:
		return w, nil
	}
	// CLIENT HOST HOST-PORT, or CLIENT CLIENT-PORT HOST.
	atClient, atHost := isPort(w[2]) && !isPort(w[1]), isPort(w[1]) && !isPort(w[2])
	switch {
	case atClient:
		return []string{w[0], l.Unix[0], w[1], w[2]}, nil
	case atHost:
		return []string{w[0], w[1], w[2], l.Unix[0]}, nil
	}
	return nil, wrongUsage("--unix %s: at which end? Write the path in the place of the port instead, as in `nuc link %s %s %s %s`", l.Unix[0], w[0], l.Unix[0], w[1], w[2])
}

// isPort tells a port or a range of ports from a container.
func isPort(word string) bool {
	_, _, err := readPorts(word)
	return err == nil
}

// readWhat reads a port, a range or a path. The count is 0 for a path.
func readWhat(end *link.End, word string) (int, error) {
	if strings.Contains(word, "/") {
		end.Path = filepath.Clean(word)
		return 0, nil
	}
	first, n, err := readPorts(word)
	if err != nil {
		return 0, exitStatus{statusUsage, err}
	}
	end.Port = first
	return n, nil
}

// readPorts reads 80, or 8000-8010.
func readPorts(word string) (first, n int, err error) {
	from, to, isRange := strings.Cut(word, "-")
	first, err = readPort(from)
	last := first
	if err == nil && isRange {
		last, err = readPort(to)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("port %q: expected a port from 1 to 65535, a range such as 8000-8010, or the path of a Unix socket, with a slash", word)
	}
	if last < first {
		return 0, 0, fmt.Errorf("ports %s: the last one is before the first: write %d-%d", word, last, first)
	}
	return first, last - first + 1, nil
}

func readPort(word string) (int, error) {
	n, err := strconv.ParseUint(word, 10, 16)
	if err == nil && (n == 0 || strconv.FormatUint(n, 10) != word) {
		err = strconv.ErrSyntax
	}
	return int(n), err
}

// portCount is how many ports the link has.
func portCount(words []string, counts [2]int) (int, error) {
	a, b := counts[0], counts[1]
	switch {
	case a == b:
		return max(a, 1), nil
	case a == 0 && b == 1, b == 0 && a == 1:
		return 1, nil
	case a == 0 || b == 0:
		return 0, wrongUsage("%s and %s: a Unix socket goes with one port, not with a range", words[1], words[3])
	}
	return 0, wrongUsage("%s is %s and %s is %s: make the ranges equally long", words[1], ports(a), words[3], ports(b))
}

func ports(n int) string {
	if n == 1 {
		return "1 port"
	}
	return fmt.Sprintf("%d ports", n)
}

// addresses fills in where the link listens.
func (l *linkCommand) addresses(s *link.Spec) error {
	if s.Client.Path != "" {
		if len(l.Address) > 0 || l.IPv4 || l.IPv6 {
			return wrongUsage("--address, --ipv4 and --ipv6 are for ports: %s is a Unix socket", s.Client.Path)
		}
		return nil
	}
	if l.IPv4 && l.IPv6 {
		return wrongUsage("--ipv4 and --ipv6: leave both out for both families")
	}
	for _, text := range l.Address {
		address, err := netip.ParseAddr(text)
		switch {
		case err != nil || address.Zone() != "" || address.Is4In6():
			return wrongUsage("address %q: expected an IPv4 or IPv6 address, such as 192.168.1.5, 0.0.0.0 or ::", text)
		case l.IPv4 && !address.Is4(), l.IPv6 && !address.Is6():
			return wrongUsage("address %s: is of the other family than --ipv4 or --ipv6 says: leave that out", text)
		}
		s.Addresses = append(s.Addresses, address.String())
	}
	if len(s.Addresses) > 0 {
		return nil
	}
	if !l.IPv6 {
		s.Addresses = append(s.Addresses, link.Localhost4)
	}
	if !l.IPv4 {
		s.Addresses = append(s.Addresses, link.Localhost6)
	}
	return nil
}

// place finds the container of an end, which must run.
func (c *context) place(end *link.End, word string) error {
	if word == "-" {
		if end.Path != "" {
			path, err := filepath.Abs(end.Path)
			if err != nil {
				return err
			}
			end.Path = path
			if st, err := os.Stat(path); err == nil && st.IsDir() {
				return fmt.Errorf("%s: is a folder: name the socket in it, such as %s/.s.PGSQL.5432 for PostgreSQL", path, path)
			}
			return socket.Place{Network: socket.Unix, Path: path}.Check()
		}
		return nil
	}
	container, err := c.find(word)
	if err != nil {
		return err
	}
	end.Container = container.Name
	if end.Path != "" {
		if err := (socket.Place{Network: socket.Unix, Path: end.Path}).Check(); err != nil {
			return fmt.Errorf("container %s: %w", container.Name, err)
		}
	}
	if !container.Held() {
		return fmt.Errorf("container %s: not running: start it with `nuc up %s`", container.Name, container.Name)
	}
	return nil
}

// check refuses a link whose ends are one place, and adds the address by which
// a container knows the other one.
func (l *linkCommand) check(c *context, s *link.Spec) error {
	if s.Client.Container == s.Host.Container {
		return wrongUsage("a link from container %s to itself: name another one, or - for the host machine, at one end", s.Client.Container)
	}
	if c.network(s.Client) == c.network(s.Host) && s.Client.Path == "" && s.Host.Path == "" &&
		s.Client.Port < s.Host.Port+s.Count && s.Host.Port < s.Client.Port+s.Count {
		return fmt.Errorf("ports %d and %d: both ends are in the host's network, where they are the same port: choose another one", s.Client.Port, s.Host.Port)
	}
	if s.Client.Path == "" && s.Client.Container != "" && s.Host.Container != "" && len(l.Address) == 0 && !l.IPv6 {
		s.Addresses = append(s.Addresses, descriptor.PeerAddress(s.Host.Container).String())
	}
	return nil
}

// network is whose network an end is in: a container's name, or "" for the
// host's, which a container can share.
func (c *context) network(end link.End) string {
	if end.Container == "" {
		return ""
	}
	if t, err := c.kept(end.Container); err == nil && t.descriptor.Network.Mode == descriptor.NetworkHost {
		return ""
	}
	return end.Container
}

type linksCommand struct {
	JSON bool `name:"json" help:"As JSON."`
}

func (linksCommand) Help() string {
	return `Examples:
  nuc links
  nuc links --json`
}

func (l *linksCommand) Run(c *context) error {
	all, err := link.All(c.folders)
	if err != nil {
		return err
	}
	if l.JSON {
		return writeJSON(c.stdout, all)
	}
	rows := [][]string{{"NAME", "CLIENT", "LISTEN", "HOST", "TARGET", "STATUS", "CONNECTIONS"}}
	for _, st := range all {
		target := st.Target
		if st.Protocol == link.UDP {
			target += "/udp"
		}
		status := string(st.State)
		switch st.State {
		case link.Waiting:
			status += " for " + st.Reason
		case link.Killed:
			status += ": make it again, or `nuc unlink " + st.Name + "`"
		}
		rows = append(rows, []string{st.Name, st.Client, strings.Join(st.Listen, ", "), st.Host, target, status, strconv.Itoa(st.Connections)})
	}
	return table(c.stdout, rows)
}

type unlinkCommand struct {
	Link []string `arg:"" name:"link" optional:"" help:"Names of links, or CLIENT CLIENT-PORT as for link."`
	All  bool     `short:"a" help:"All links but the declared ones."`
}

func (unlinkCommand) Help() string {
	return `A link that a container's descriptor declares ends with the container, or by
'nuc switch' to a descriptor without it.

Examples:
  nuc unlink host-1001-db-5432
  nuc unlink - 1001
  nuc unlink --all`
}

func (u *unlinkCommand) Run(c *context) error {
	links, err := u.links(c)
	if err != nil {
		return err
	}
	var failed []error
	for _, l := range links {
		failed = append(failed, link.Remove(c.folders, l))
	}
	return errors.Join(failed...)
}

// links are those that the command line names.
func (u *unlinkCommand) links(c *context) ([]state.Link, error) {
	all, err := c.folders.Links()
	if err != nil {
		return nil, err
	}
	switch {
	case u.All && len(u.Link) > 0:
		return nil, wrongUsage("give a link or --all, not both")
	case !u.All && len(u.Link) == 0:
		return nil, wrongUsage("which link? Give its name, or --all; `nuc links` lists them")
	}
	specs := map[string]*link.Spec{}
	var names []string
	for _, l := range all {
		if s, err := link.Read(l); err == nil {
			specs[l.Name] = s
			names = append(names, l.Name)
		}
	}
	if len(u.Link) == 2 && specs[u.Link[0]] == nil {
		return u.byPort(c, specs)
	}
	var found []state.Link
	for _, name := range names {
		if u.All && !specs[name].Declared {
			found = append(found, c.folders.Link(name))
		}
	}
	for _, name := range u.Link {
		s := specs[name]
		switch {
		case s == nil && len(names) == 0:
			return nil, fmt.Errorf("link %s: there are no links", name)
		case s == nil:
			hint := "`nuc links` lists those there are"
			if near := descriptor.Nearest(name, names); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			return nil, fmt.Errorf("link %s: there is none of that name: %s", name, hint)
		case s.Declared:
			return nil, fmt.Errorf("link %s: is declared in container %s: take it out of its descriptor and run `nuc switch %s`", name, s.Client.Container, s.Client.Container)
		}
		found = append(found, c.folders.Link(name))
	}
	return found, nil
}

// byPort finds the link that listens in a place.
func (u *unlinkCommand) byPort(c *context, specs map[string]*link.Spec) ([]state.Link, error) {
	var end link.End
	n, err := readWhat(&end, u.Link[1])
	if err != nil {
		return nil, err
	}
	if u.Link[0] != "-" {
		container, err := c.find(u.Link[0])
		if err != nil {
			return nil, err
		}
		end.Container = container.Name
	} else if end.Path != "" {
		if end.Path, err = filepath.Abs(end.Path); err != nil {
			return nil, err
		}
	}
	var found []state.Link
	for name, s := range specs {
		if s.Client != end || n > 1 && s.Count != n {
			continue
		}
		if s.Declared {
			return nil, fmt.Errorf("link %s: is declared in container %s: take it out of its descriptor and run `nuc switch %s`", name, end.Container, end.Container)
		}
		found = append(found, c.folders.Link(name))
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("link %s %s: there is none that listens there: `nuc links` lists those there are", u.Link[0], u.Link[1])
	}
	return found, nil
}

// linkMain is a link's process.
func linkMain() error {
	arguments := os.Args[1:]
	if os.Args[0] != link.Role {
		arguments = os.Args[2:]
	}
	os.Exit(link.Main(arguments))
	return nil
}
