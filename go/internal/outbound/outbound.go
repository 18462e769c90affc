// Package outbound is a container's way out: pasta, or else slirp4netns, a
// process of its own that carries what leaves the container's network over
// ordinary sockets of the host. It is restarted when it dies, follows the host's
// connectivity, and dies with the supervisor.
//
// Neither program is given a way from the container to the host itself, but for
// the one address that HostLoopback opens.
package outbound

import (
	"net/netip"
	"os"
	"sync"
	"time"
)

// What a container's network looks like, whatever network the host is in. The
// addresses are seldom used ones, as what has the same ones outside can't be
// reached.
var (
	network4 = netip.MustParsePrefix("10.117.99.0/24")
	network6 = netip.MustParsePrefix("fd6e:7563::/64")
	address4 = netip.MustParseAddr("10.117.99.100") // as slirp4netns chooses it
	address6 = netip.MustParseAddr("fd6e:7563::64")
	// slirp6 is slirp4netns's, which can't be chosen.
	slirp6 = netip.MustParsePrefix("fd00::/64")
)

// Gateway4 and Gateway6 are the host's loopback, where that is open.
var (
	Gateway4 = netip.MustParseAddr("10.117.99.2")
	Gateway6 = netip.MustParseAddr("fd6e:7563::2")
	// slirpGateway6 is it with slirp4netns.
	slirpGateway6 = netip.MustParseAddr("fd00::2")
)

// Interface is the container's end.
const Interface = "eth0"

// Networks are those between the container and the host: nothing in them is
// outside. Gateways are where the host's loopback is.
func Networks() []netip.Prefix { return []netip.Prefix{network4, network6, slirp6} }

// Gateways are the addresses of the host's loopback, where that is open.
func Gateways() []netip.Addr { return []netip.Addr{Gateway4, Gateway6, slirpGateway6} }

// State is what there is of a way out.
type State struct {
	// Driver is pasta or slirp4netns, "" while there is no way out; PID is its
	// process.
	Driver string `json:"driver,omitempty"`
	PID    int    `json:"pid,omitempty"`
	// Reason says why there is none, or why not the better one, and what to do.
	Reason string `json:"reason,omitempty"`
	// Gap says what it does not keep the container's root from, and what to do.
	Gap string `json:"gap,omitempty"`
	// Restarts counts how often it died.
	Restarts int `json:"restarts,omitempty"`
}

// Options of a way out.
type Options struct {
	// User and Network are the container's namespaces.
	User, Network *os.File
	MTU           int
	HostLoopback  bool
	// Fixed tells that nobody in the container has rights over its network.
	Fixed bool
	// Changed is told of each new State, by one goroutine.
	Changed func(State)
	// Host is where the host's routes are followed; it stays the caller's.
	Host *Host
	// Launch starts a driver; nil is Order.Launch.
	Launch func(o Order, user, network, output *os.File) (*Child, error)
}

// Outbound is a way out that is kept open.
type Outbound struct {
	o     Options
	stop  chan struct{}
	ended chan struct{}
	once  sync.Once

	state State
	// fails counts quick failures in a row of drivers[at].
	drivers []driver
	at      int
	fails   int
}

// Times of a driver that dies: what lives for less than quick has failed to
// start, and after tries of that the next driver has its turn. Pauses double.
const (
	quick      = 2 * time.Second
	tries      = 3
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
	// settle is how long the host's routes have to be quiet before they count.
	settle = 300 * time.Millisecond
)

// Start opens the way out in the background.
func Start(o Options) *Outbound {
	if o.Launch == nil {
		o.Launch = Order.Launch
	}
	n := &Outbound{o: o, stop: make(chan struct{}), ended: make(chan struct{})}
	go n.run()
	return n
}

// Close ends the process and returns when it is gone.
func (n *Outbound) Close() {
	n.once.Do(func() { close(n.stop) })
	<-n.ended
}

func (n *Outbound) set(s State) {
	s.Restarts = n.state.Restarts
	if s == n.state {
		return
	}
	n.state = s
	n.o.Changed(s)
}

// missing is the reason where neither program is found.
const missing = "none: neither pasta nor slirp4netns is installed: install passt (sudo apt install passt) and restart the container"

func (n *Outbound) run() {
	defer close(n.ended)
	changes, forget := n.o.Host.Follow()
	defer forget()
	n.drivers = find()
	if len(n.drivers) == 0 {
		n.set(State{Reason: missing})
		<-n.stop
		return
	}
	pause := time.Duration(0)
	for {
		had := defaultRoutes(netFolder)
		if had == (routes{}) {
			n.set(State{Reason: "none: the host is offline (it has no default route)"})
			if !n.await(changes, 0) {
				return
			}
			pause = 0
			continue
		}
		if pause > 0 && !n.await(nil, pause) {
			return
		}
		d := n.drivers[n.at]
		began := time.Now()
		p, err := d.start(n.o)
		reason := ""
		if err == nil {
			n.set(State{Driver: d.name, PID: p.PID, Reason: n.lesser(), Gap: n.gap(p)})
			if !n.watch(p, changes, had) {
				return
			}
			reason = p.reason()
			if reason == "" { // it was ended on purpose
				pause = 0
				continue
			}
		} else {
			reason = err.Error()
		}
		n.state.Restarts++
		if time.Since(began) >= quick {
			n.fails, pause = 0, firstPause
		} else {
			n.fails++
			pause = min(max(2*pause, firstPause), lastPause)
		}
		n.set(State{Reason: d.name + ": " + reason + " (`nuc doctor` looks at what it needs)"})
		if n.fails >= tries && n.at+1 < len(n.drivers) {
			n.at, n.fails, pause = n.at+1, 0, 0
			n.drivers[n.at].instead = d.name + ": " + reason
		}
	}
}

// lesser says why it is not pasta that runs.
func (n *Outbound) lesser() string {
	d := n.drivers[n.at]
	if d.name == pasta {
		return ""
	}
	if d.instead != "" {
		return d.instead
	}
	return "pasta, which is faster, is not installed"
}

// gap says what a driver leaves open: of what the rules keep in, root can take the
// interface to where there are none.
func (n *Outbound) gap(p *process) string {
	if !p.Leaky {
		return ""
	}
	return Leaky
}

// Leaky is what there is to be said of a pasta of before 2024 (Debian 12).
const Leaky = "this pasta is an old one, through which root in the container can get at the host's 127.0.0.1: install passt of 2024 or later, or set network.allow"

// await waits for a change, or for the time if it is not 0. It returns false
// when all is to end.
func (n *Outbound) await(changes <-chan struct{}, pause time.Duration) bool {
	var after <-chan time.Time
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-n.stop:
		return false
	case <-changes:
	case <-after:
	}
	return true
}

// watch stays until the process has ended, or ends it: when all is to end
// (false), or when the host has got a family of addresses that it had not.
func (n *Outbound) watch(p *process, changes <-chan struct{}, had routes) bool {
	for {
		select {
		case <-n.stop:
			p.kill()
			return false
		case <-p.ended:
			return true
		case <-changes:
			timer := time.NewTimer(settle)
			select {
			case <-n.stop:
			case <-p.ended:
			case <-timer.C:
			}
			timer.Stop()
			if now := defaultRoutes(netFolder); now.v4 && !had.v4 || now.v6 && !had.v6 {
				p.kill()
				return true
			}
		}
	}
}
