// Package resolver gives a container the host's name servers, whichever they
// are at the moment: it takes queries from a socket in the container's network
// and asks those of the host's /etc/resolv.conf, which it reads anew when it has
// changed (a VPN, another network). Nothing but DNS gets through, and what can't
// be asked is answered with SERVFAIL at once. It sleeps while nobody asks.
package resolver

import (
	"net/netip"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Config is what resolv.conf(5) says.
type Config struct {
	Servers []netip.Addr
	// Search and Options are the values of the last lines of that name.
	Search, Options string
}

// maxServers is glibc's MAXNS.
const maxServers = 3

// Parse reads a resolv.conf as glibc does: what it does not know, it passes
// over; without a server, the machine's own is meant.
func Parse(text string) Config {
	var c Config
	for _, line := range strings.Split(text, "\n") {
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil && len(c.Servers) < maxServers {
				c.Servers = append(c.Servers, a)
			}
		case "search":
			c.Search = strings.Join(f[1:], " ")
		case "domain":
			c.Search = f[1]
		case "options":
			c.Options = strings.Join(f[1:], " ")
		}
	}
	if len(c.Servers) == 0 {
		c.Servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return c
}

// File is a resolv.conf for the servers given, with the rest of c.
func (c Config) File(comment string, servers ...netip.Addr) string {
	var b strings.Builder
	b.WriteString("# " + comment + "\n")
	for _, s := range servers {
		b.WriteString("nameserver " + s.String() + "\n")
	}
	if c.Search != "" {
		b.WriteString("search " + c.Search + "\n")
	}
	if c.Options != "" {
		b.WriteString("options " + c.Options + "\n")
	}
	return b.String()
}

// Host is a resolv.conf that is followed.
type Host struct {
	Path string

	mu      sync.Mutex
	known   unix.Stat_t
	current Config
}

// maxFile bounds a resolv.conf, in bytes.
const maxFile = 64 << 10

// Current returns what the file says now, and whether that is news.
func (h *Host) Current() (c Config, changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var st unix.Stat_t
	_ = unix.Stat(h.Path, &st) // without a file there are no servers but the own one
	st.Atim = unix.Timespec{}
	if h.current.Servers != nil && st == h.known {
		return h.current, false
	}
	text := ""
	if st.Size <= maxFile {
		data, _ := os.ReadFile(h.Path)
		text = string(data)
	}
	h.known, h.current = st, Parse(text)
	return h.current, true
}
