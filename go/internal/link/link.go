// Package link is a link: a listener in one place, the host machine or a
// container, that is relayed to a port of another. Each link is a process,
// which waits while one of its containers does not run.
//
// A link's folder, in the runtime folder, holds
//
//	lock       held by the process while it runs
//	spec.json  what the link is, for the process, also when it is started anew
//	control    the process's socket: Command, answered by a Status
//	report     the socket of who makes the link, until it knows how that went
//	unit       the name of the process's unit, where systemd runs it
//	log        what the process has to say, where it does not
package link

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/socket"
)

// Protocols of a link.
const (
	TCP = "tcp"
	UDP = "udp"
)

// machine is the host machine's name in the name of a link.
const machine = "host"

// End is one end of a link.
type End struct {
	// Container is a container's name, or "" for the host machine.
	Container string `json:"container,omitempty"`
	// Port is the first of Spec.Count ports; 0 with a Path.
	Port int `json:"port,omitempty"`
	// Path of a Unix socket, in the container or on the host machine.
	Path string `json:"path,omitempty"`
}

// Spec says what a link is.
type Spec struct {
	// Client is where it listens, Host where it leads.
	Client End `json:"client"`
	Host   End `json:"host"`
	// Count is how many consecutive ports there are at both ends.
	Count    int    `json:"count"`
	Protocol string `json:"protocol"`
	// Addresses it listens on; the optional ones where they can be had.
	Addresses []string `json:"addresses,omitempty"`
	Optional  []string `json:"optional,omitempty"`
	// Declared links are those of the client's descriptor. They end with its
	// supervisor.
	Declared bool `json:"declared,omitempty"`
}

// Name is the link's: the same for the same ends, and another one for others.
// Where that takes it, it has a part made of all that the link is.
func (s *Spec) Name() string {
	name := s.Client.name(s.Count, s.explicit()) + "-" + s.Host.name(s.Count, "")
	if s.Client.Container == machine || s.Host.Container == machine || s.isOdd() || !s.reads(name) {
		name += "-" + short(fmt.Sprintf("%#v %#v %d %q", s.Client, s.Host, s.Count, s.Addresses))
	}
	if s.Protocol == UDP {
		name += "-" + UDP
	}
	return name
}

// short is a few digits that stand for a text.
func short(text string) string {
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%x", sum[:3])
}

// explicit is the address, where there is but one and it is not the default.
func (s *Spec) explicit() string {
	if len(s.Addresses) != 1 || len(s.Optional) > 0 || s.Declared && s.Addresses[0] == descriptor.PeerAddress(s.Host.Container).String() {
		return ""
	}
	return s.Addresses[0]
}

// isOdd tells a link at several addresses that are not the default ones.
func (s *Spec) isOdd() bool {
	usual := []string{Localhost4, Localhost6, descriptor.PeerAddress(s.Host.Container).String()}
	return len(s.Addresses) > 1 && slices.ContainsFunc(s.Addresses, func(a string) bool { return !slices.Contains(usual, a) })
}

// reads tells whether a name is taken for this link's. Containers' names may hold
// what looks like a port, so that there are several ways to read some:
// a-80-b-80-c-90 is a-80-b's 80, where c could be the container, and not a's. Of
// those with ports, it is the one with the longest client, and the most ports.
func (s *Spec) reads(name string) bool {
	if s.Client.Path != "" || s.Host.Path != "" {
		return true // what stands for the path makes it one of a kind
	}
	client := strings.Count(s.Client.name(s.Count, s.explicit()), "-") + 1
	parts := strings.Split(name, "-")
	for i := len(parts) - 1; i > 0; i-- {
		for _, count := range endCounts(parts[:i]) {
			if slices.Contains(endCounts(parts[i:]), count) {
				return i == client && count == s.Count
			}
		}
	}
	return true
}

// endCounts are how many ports an end may have that is written so, the most
// first; none if it is no end.
func endCounts(parts []string) (counts []int) {
	port := func(back int) int {
		if len(parts) <= back {
			return 0
		}
		n, err := strconv.ParseUint(parts[len(parts)-back], 10, 16)
		if err != nil {
			return 0
		}
		return int(n)
	}
	if first, last := port(2), port(1); first != 0 && last > first {
		counts = append(counts, last-first+1)
	}
	if port(1) != 0 {
		counts = append(counts, 1)
	}
	return counts
}

// peer is the container that the client's is to know by its name, as the link
// listens at the address of that: "" for none, or one that a descriptor names.
func (s *Spec) peer() string {
	if s.Declared || s.Client.Container == "" || s.Host.Container == "" ||
		!slices.Contains(s.Addresses, descriptor.PeerAddress(s.Host.Container).String()) {
		return ""
	}
	return s.Host.Container
}

func (e End) name(count int, address string) string {
	parts := []string{e.Container}
	if e.Container == "" {
		parts[0] = machine
	}
	if e.Path != "" {
		base := strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
				return r
			}
			return '_'
		}, path.Base(e.Path))
		base = strings.TrimLeft(base, ".")
		// A unit's name, with what else it has, is of 255 bytes at most.
		return strings.Join(append(parts, base[:min(len(base), 40)], short(e.Path)), "-")
	}
	if address != "" {
		parts = append(parts, address)
	}
	return strings.Join(append(parts, e.ports(count)), "-")
}

// ports is 80, or 8000-8010.
func (e End) ports(count int) string {
	if count > 1 {
		return fmt.Sprintf("%d-%d", e.Port, e.Port+count-1)
	}
	return strconv.Itoa(e.Port)
}

// Place is the end as a command line has it: -, or a container.
func (e End) Place() string {
	if e.Container == "" {
		return "-"
	}
	return e.Container
}

// Target is where the link leads: db:5432, db:/run/socket, -:80.
func (s *Spec) Target() string { return s.Host.Place() + ":" + s.Host.what(s.Count) }

func (e End) what(count int) string {
	if e.Path != "" {
		return e.Path
	}
	return e.ports(count)
}

// listening is a place to listen on as people write it, with the ports of all
// of a range.
func (s *Spec) listening(address string) string {
	if s.Client.Path != "" {
		return s.Client.Path
	}
	if strings.Contains(address, ":") {
		address = "[" + address + "]"
	}
	return address + ":" + s.Client.ports(s.Count)
}

// Text is the link as one line: web 127.0.0.1:80 → db:5432.
func (s *Spec) Text() string {
	where := s.listening("localhost")
	if s.Client.Path == "" && len(s.Addresses) == 1 {
		where = s.listening(s.Addresses[0])
	}
	if s.Client.Container != "" {
		where = s.Client.Container + " " + where
	}
	text := where + " → " + s.Target()
	if s.Protocol == UDP {
		text += " (udp)"
	}
	return text
}

// Equal tells whether two links are the same.
func (s *Spec) Equal(o *Spec) bool {
	return s.sameEnds(o) && s.Declared == o.Declared &&
		slices.Equal(s.Addresses, o.Addresses) && slices.Equal(s.Optional, o.Optional)
}

// sameEnds tells whether two links connect the same, be it at other addresses.
func (s *Spec) sameEnds(o *Spec) bool {
	return s.Client == o.Client && s.Host == o.Host && s.Count == o.Count && s.Protocol == o.Protocol
}

// clash tells whether two links want the same place to listen on.
func (s *Spec) clash(o *Spec, address string) bool {
	if s.Client.Container != o.Client.Container || s.Protocol != o.Protocol {
		return false
	}
	if s.Client.Path != "" || o.Client.Path != "" {
		return s.Client.Path == o.Client.Path
	}
	if s.Client.Port >= o.Client.Port+o.Count || o.Client.Port >= s.Client.Port+s.Count {
		return false
	}
	same := func(other string) bool {
		a, b := netip.MustParseAddr(address), netip.MustParseAddr(other)
		return a == b || a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
	}
	return slices.ContainsFunc(o.Addresses, same) || slices.ContainsFunc(o.Optional, same)
}

// place is where port i of the link listens at an address.
func (s *Spec) place(address string, i int) socket.Place {
	if s.Client.Path != "" {
		return socket.Place{Network: socket.Unix, Path: s.Client.Path}
	}
	return socket.Place{Network: network(s.Protocol, address), Address: address, Port: s.Client.Port + i}
}

func network(protocol, address string) string {
	six := strings.Contains(address, ":")
	switch {
	case protocol == UDP && six:
		return socket.UDP6
	case protocol == UDP:
		return socket.UDP4
	case six:
		return socket.TCP6
	}
	return socket.TCP4
}

// Addresses of localhost.
const (
	Localhost4 = "127.0.0.1"
	Localhost6 = "::1"
)
