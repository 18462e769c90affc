package supervisor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/nft"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
	"github.com/nix-user-containers/nuc/go/internal/resolver"
)

// dnsAddress is where the container asks the host's name servers: on its own
// loopback, but no address that another name server would take.
var dnsAddress = netip.AddrFrom4([4]byte{127, 1, 1, 53})

// Files of /run/host that are linked to from /etc.
const (
	namesName = "resolv.conf"
	hostsName = "hosts"
)

// hostResolvConf is the host's.
const hostResolvConf = "/etc/resolv.conf"

// wayOut is what the supervisor keeps open for a container with a way out. It is
// begun when init runs and nobody waits for it.
type wayOut struct {
	s *Supervisor
	// fixed: nobody in the container may have rights over its network. What it
	// may reach is limited then, by rules that nobody can change.
	fixed  bool
	once   sync.Once
	stop   chan struct{}
	ended  chan struct{}
	update chan struct{}

	servers   resolver.Host
	forwarder *resolver.Forwarder
	// names are those of network.allow.
	names outbound.Names

	// limiting is held while the rules are made and set. own are the host's
	// addresses, rules what is in force.
	limiting sync.Mutex
	own      []netip.Addr
	rules    []nft.Rule

	mu sync.Mutex
	// warned are the things that were said already.
	warned map[string]bool
}

// openWayOut makes what a run's way out is opened with, if it is to have one.
func (s *Supervisor) openWayOut() {
	d := s.descriptor()
	if !hasWayOut(d) {
		return
	}
	w := &wayOut{
		s: s, fixed: isFixed(d), stop: make(chan struct{}), ended: make(chan struct{}), update: make(chan struct{}, 1),
		servers: resolver.Host{Path: hostResolvConf}, warned: map[string]bool{},
	}
	w.names = outbound.Names{Lookup: outbound.LookupOnHost, Changed: w.changed, Failing: w.failing}
	s.mu.Lock()
	s.wayOut = w
	s.mu.Unlock()
}

// closeWayOut ends it and returns when nothing of it is left.
func (s *Supervisor) closeWayOut() {
	w := s.way()
	if w == nil {
		return
	}
	s.mu.Lock()
	s.wayOut = nil
	s.mu.Unlock()
	close(w.stop)
	w.once.Do(func() { close(w.ended) })
	<-w.ended
	s.change(func(st *Status) { st.Outbound = nil })
}

// way is the run's way out, nil if it has none.
func (s *Supervisor) way() *wayOut {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wayOut
}

func (w *wayOut) isFixed() bool { return w != nil && w.fixed }

// begin opens it, once; a reboot inside keeps it.
func (w *wayOut) begin() {
	if w != nil {
		w.once.Do(func() { go w.run() })
	}
}

// changed has the descriptor read anew.
func (w *wayOut) changed() {
	if w != nil {
		select {
		case w.update <- struct{}{}:
		default:
		}
	}
}

// hasWayOut tells whether a container's descriptor asks for one.
func hasWayOut(d *descriptor.Descriptor) bool {
	return d.Network.Mode == descriptor.NetworkPrivate && d.Network.Outbound
}

// isFixed tells whether a descriptor limits what may be reached.
func isFixed(d *descriptor.Descriptor) bool { return hasWayOut(d) && len(d.Network.Allow) > 0 }

func (w *wayOut) run() {
	defer close(w.ended)
	s := w.s
	host, err := outbound.FollowHost()
	if err != nil {
		s.warn("no way out of the container: " + err.Error())
		return
	}
	defer host.Close()
	changes, forget := host.Follow()
	defer forget()
	defer w.stopForwarder()
	defer w.names.Close()
	user, network, err := s.namespaces()
	if err != nil {
		select {
		case <-w.stop:
		default:
			s.warn("no way out of the container: " + err.Error())
		}
		return
	}
	defer user.Close()
	defer network.Close()
	var out *outbound.Outbound
	shut := func() {
		if out != nil {
			out.Close()
			out = nil
		}
	}
	defer shut()
	w.follow()
	for {
		// The limits come before what they limit; without them, there is no way out.
		var again <-chan time.Time
		switch err := w.limit(); {
		case errors.Is(err, errStopping):
		case err != nil:
			shut()
			reason := "none: its limits can't be set: " + err.Error()
			s.log.Warn("way out", "container", s.o.Container.Name, "reason", reason)
			s.change(func(st *Status) { st.Outbound = &outbound.State{Reason: reason} })
			again = time.After(limitPause)
		case out == nil:
			out = w.open(user, network, host)
		}
		select {
		case <-w.stop:
			return
		case <-w.update:
			w.follow()
		case <-changes:
			w.names.Soon()
		case <-again:
		}
	}
}

// limitPause is how long it takes until limits that can't be set are tried again.
const limitPause = 10 * time.Second

// open opens what carries packets.
func (w *wayOut) open(user, network *os.File, host *outbound.Host) *outbound.Outbound {
	s, d := w.s, w.s.descriptor()
	return outbound.Start(outbound.Options{
		Launch: s.starter.Driver, User: user, Network: network, MTU: mtu(d), HostLoopback: d.Network.HostLoopback, Fixed: w.fixed, Host: host,
		Changed: func(state outbound.State) {
			if state.Reason != "" {
				s.log.Warn("way out", "container", d.Name, "driver", state.Driver, "reason", state.Reason)
			}
			s.change(func(st *Status) { st.Outbound = &state })
		},
	})
}

// fixNetwork sets the limits of a container that network.allow gives some,
// before anything runs in it. The names in it are looked up later.
func (s *Supervisor) fixNetwork() error {
	w := s.way()
	if !w.isFixed() {
		return nil
	}
	if err := s.limitNetwork(w.policy(s.descriptor()).Rules()); err != nil {
		return fmt.Errorf("network.allow: it can't be kept: %w; without network.allow, there is no limit", err)
	}
	return nil
}

func mtu(d *descriptor.Descriptor) int {
	if d.Network.MTU > 0 {
		return d.Network.MTU
	}
	return 65520
}

// warnOnce says a thing when it is the case for the first time.
func (w *wayOut) warnOnce(text string) {
	w.mu.Lock()
	said := w.warned[text]
	w.warned[text] = true
	w.mu.Unlock()
	if !said {
		w.s.warn(text)
	}
}

// follow brings the name servers, and the names that are looked up, in line with
// the descriptor.
func (w *wayOut) follow() {
	d := w.s.descriptor()
	var names []string
	for _, entry := range d.Network.Allow {
		if a, err := descriptor.ParseAllow(entry); err == nil && a.Host != "" {
			names = append(names, a.Host)
		}
	}
	w.names.Follow(names)
	w.serveNames(d)
}

// limit brings the rules in line with the descriptor, the host and what names
// lead to.
func (w *wayOut) limit() error {
	w.limiting.Lock()
	defer w.limiting.Unlock()
	own, err := outbound.Addresses()
	if err != nil {
		return fmt.Errorf("the host's addresses can't be read: %w", err)
	}
	w.own = own
	rules := w.policy(w.s.descriptor()).Rules()
	if slices.Equal(rules, w.rules) {
		return nil
	}
	if err := w.s.limitNetwork(rules); err != nil {
		return err
	}
	w.rules = rules
	return nil
}

// failing is told of a name of network.allow that can't be found, and, without an
// error, that it is after all.
func (w *wayOut) failing(name string, err error) {
	about := "network.allow: " + name + ": "
	if err == nil {
		w.s.retract(about)
		return
	}
	w.s.warn(about + "its address can't be found, so it can't be reached until it is, which is tried again and again: " + err.Error())
}

// found is told of an answer that the container is about to get.
func (w *wayOut) found(name string, addresses []netip.Addr) {
	if w.names.Learn(name, addresses) && w.limit() != nil {
		w.changed() // what to do then, run knows
	}
}

// policy is what the descriptor and the host make of it at present.
func (w *wayOut) policy(d *descriptor.Descriptor) outbound.Policy {
	p := outbound.Policy{Own: w.own, HostLoopback: d.Network.HostLoopback, Limited: w.fixed}
	for _, server := range d.Network.DNS {
		if a, err := netip.ParseAddr(server); err == nil {
			p.Servers = append(p.Servers, a.WithZone(""))
		}
	}
	for _, entry := range d.Network.Allow {
		a, err := descriptor.ParseAllow(entry)
		if err != nil {
			continue // it was refused when the descriptor was read
		}
		if a.Host == "" {
			p.Allow = append(p.Allow, outbound.Destination{To: a.Prefix, Port: a.Port, Protocol: a.Protocol})
		}
		for _, address := range w.names.Addresses(a.Host) {
			p.Allow = append(p.Allow, outbound.Destination{To: netip.PrefixFrom(address, address.BitLen()), Port: a.Port, Protocol: a.Protocol, Resolved: true})
		}
	}
	return p
}

// serveNames opens or closes the container's way to the host's name servers.
func (w *wayOut) serveNames(d *descriptor.Descriptor) {
	if len(d.Network.DNS) > 0 {
		w.stopForwarder()
		return
	}
	if w.forwarder != nil {
		return
	}
	place := keeper.Listen{Network: "udp4", Address: dnsAddress.String(), Port: resolver.Port}
	packets, err := w.s.Listen(place)
	if err != nil {
		w.noNames(err)
		return
	}
	place.Network = "tcp4"
	stream, err := w.s.Listen(place)
	if err != nil {
		packets.Close()
		w.noNames(err)
		return
	}
	f := &resolver.Forwarder{Host: &w.servers, Local: w.s.peer, Found: w.found, Changed: func(resolver.Config) {
		if err := w.s.publishNames(w.s.descriptor(), &w.servers); err != nil {
			w.s.log.Warn("could not change resolv.conf", "container", w.s.o.Container.Name, "error", err)
		}
	}}
	if err := f.Serve(packets, stream); err != nil {
		w.noNames(err)
		return
	}
	w.forwarder = f
}

func (w *wayOut) noNames(err error) {
	select {
	case <-w.stop: // that is why
	default:
		w.warnOnce(fmt.Sprintf("the host's name servers can't be reached from the container (name others in network.dns): %v", err))
	}
}

func (w *wayOut) stopForwarder() {
	if w.forwarder != nil {
		w.forwarder.Close()
		w.forwarder = nil
	}
}

// errStopping is a request to a keeper that has left.
var errStopping = errors.New("the container is just stopping")

// limitNetwork replaces the rules of the container's network.
func (s *Supervisor) limitNetwork(rules []nft.Rule) error {
	_, err := receiveFiles(s.asKeeper, keeper.Request{Op: keeper.OpLimit, Limit: &keeper.Limit{Rules: rules}}, 0)
	return err
}

// namespaces returns the container's user and network namespace.
func (s *Supervisor) namespaces() (user, network *os.File, err error) {
	files, err := receiveFiles(s.asKeeper, keeper.Request{Op: keeper.OpNamespaces}, 2)
	if err != nil {
		return nil, nil, err
	}
	return files[0], files[1], nil
}

// receiveFiles asks the keeper for a thing and returns the files that come of it.
func receiveFiles(ask ask, r keeper.Request, n int) ([]*os.File, error) {
	conn, err := ask(r)
	if err != nil {
		return nil, errStopping
	}
	defer conn.Close()
	m, err := conn.Receive()
	if err != nil {
		return nil, errStopping
	}
	defer m.Close()
	var reply keeper.Reply
	if err := m.Decode(&reply); err != nil {
		return nil, fmt.Errorf("keeper: %w", err)
	}
	if reply.Kind != keeper.Started || len(m.FDs) != n {
		return nil, errors.New(reply.Error)
	}
	files := make([]*os.File, n)
	for i := range files {
		files[i] = m.Take(i)
	}
	return files, nil
}

// publishNames writes resolv.conf to /run/host.
func (s *Supervisor) publishNames(d *descriptor.Descriptor, host *resolver.Host) error {
	if len(d.Network.DNS) > 0 {
		var servers []netip.Addr
		for _, server := range d.Network.DNS {
			if a, err := netip.ParseAddr(server); err == nil {
				servers = append(servers, a)
			}
		}
		return s.starter.Publish(namesName, resolver.Config{}.File("nuc: network.dns", servers...))
	}
	c, _ := host.Current()
	return s.starter.Publish(namesName, c.File("nuc: the host's name servers, whichever they are at the moment", dnsAddress))
}

// publishChanges brings the container's names in line with a new descriptor.
func (s *Supervisor) publishChanges(old, d *descriptor.Descriptor) {
	before, _ := hostsFile(old)
	if now, _ := hostsFile(d); now != before {
		s.publishPeers()
	}
	w := s.way()
	if w == nil {
		return
	}
	if !slices.Equal(old.Network.DNS, d.Network.DNS) {
		if err := s.publishNames(d, &w.servers); err != nil {
			s.warn(err.Error())
		}
	}
	w.changed()
}
