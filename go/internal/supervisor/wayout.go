package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
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
	own       []netip.Addr
	// names are what network.allow's names were last resolved to.
	names map[string][]netip.Addr
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
		servers: resolver.Host{Path: hostResolvConf}, names: map[string][]netip.Addr{}, warned: map[string]bool{},
	}
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
	// The limits come before what they limit.
	if err := w.apply(true); err != nil && w.fixed {
		s.change(func(st *Status) { st.Outbound = &outbound.State{Reason: "none: network.allow: " + err.Error()} })
		return
	}
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
	d := s.descriptor()
	out := outbound.Start(outbound.Options{
		User: user, Network: network, MTU: mtu(d), HostLoopback: d.Network.HostLoopback, Host: host,
		Changed: func(state outbound.State) {
			if state.Reason != "" {
				s.log.Warn("way out", "container", d.Name, "driver", state.Driver, "reason", state.Reason)
			}
			s.change(func(st *Status) { st.Outbound = &state })
		},
	})
	defer out.Close()
	for {
		select {
		case <-w.stop:
			return
		case <-w.update:
			_ = w.apply(true)
		case <-changes:
			_ = w.apply(false)
		}
	}
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
	if !w.warned[text] {
		w.warned[text] = true
		w.s.warn(text)
	}
}

// apply brings rules and name servers in line with the descriptor and the
// host. Without force, only if the host's addresses have changed.
func (w *wayOut) apply(force bool) error {
	own, err := outbound.Addresses()
	if err != nil {
		w.warnOnce("the host's addresses can't be read, and the container may reach them: " + err.Error())
	}
	if !force && slices.Equal(own, w.own) {
		return nil
	}
	w.own = own
	d := w.s.descriptor()
	w.serveNames(d)
	w.resolve(d)
	err = w.s.limitNetwork(w.policy(d).Rules())
	if err != nil && !errors.Is(err, errStopping) {
		w.warnOnce("what listens on this host's own addresses can be reached from the container: " + err.Error())
	}
	return err
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
		for _, address := range w.names[a.Host] {
			p.Allow = append(p.Allow, outbound.Destination{To: netip.PrefixFrom(address, address.BitLen()), Port: a.Port, Protocol: a.Protocol})
		}
	}
	return p
}

// lookupTime bounds one lookup of the names of network.allow.
const lookupTime = 5 * time.Second

// resolve looks the names of network.allow up, on the host. A name that can't be
// found keeps the addresses that it had.
func (w *wayOut) resolve(d *descriptor.Descriptor) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-w.stop:
			cancel()
		case <-stop:
		}
	}()
	for _, entry := range d.Network.Allow {
		a, err := descriptor.ParseAllow(entry)
		if err != nil || a.Host == "" {
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", a.Host)
		if err != nil {
			w.warnOnce(fmt.Sprintf("network.allow: %s: its address can't be found, so it can't be reached until the host's network changes: %v", a.Host, err))
			continue
		}
		addresses := make([]netip.Addr, 0, len(found))
		for _, f := range found {
			addresses = append(addresses, f.Unmap().WithZone(""))
		}
		w.names[a.Host] = addresses
	}
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
	f := &resolver.Forwarder{Host: &w.servers, Changed: func(resolver.Config) {
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
		return s.publish(namesName, resolver.Config{}.File("nuc: network.dns", servers...))
	}
	c, _ := host.Current()
	return s.publish(namesName, c.File("nuc: the host's name servers, whichever they are at the moment", dnsAddress))
}

// publishChanges brings the container's names in line with a new descriptor.
func (s *Supervisor) publishChanges(old, d *descriptor.Descriptor) {
	before, _ := hostsFile(old)
	if now, _ := hostsFile(d); now != before && s.group != nil {
		if err := s.publish(hostsName, now); err != nil {
			s.warn(err.Error())
		}
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

// publish puts a file into the folder that is /run/host in the container. No
// link that might be there is followed.
func (s *Supervisor) publish(name, text string) error {
	path := filepath.Join(s.o.Container.Runtime, hostFolder, name)
	part := path + ".part"
	_ = os.Remove(part)
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		if err == nil {
			err = f.Chmod(0o644) // whatever the umask is
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		return fmt.Errorf("runtime folder: %w", err)
	}
	return nil
}

// hostsFile is /etc/hosts of a container that is no NixOS, whose modules write
// their own: itself, what is declared, and its peers.
func hostsFile(d *descriptor.Descriptor) (text string, declared bool) {
	lines := []string{
		"# nuc: network.hosts, links and dependsOn of the descriptor",
		"127.0.0.1 localhost",
		"::1 localhost ip6-localhost ip6-loopback",
		"127.0.1.1 " + d.Name,
	}
	peers := slices.Clone(d.DependsOn)
	for _, l := range d.Links {
		peers = append(peers, l.To)
	}
	sort.Strings(peers)
	for _, p := range slices.Compact(peers) {
		lines = append(lines, descriptor.PeerAddress(p).String()+" "+p)
	}
	names := make([]string, 0, len(d.Network.Hosts))
	for name := range d.Network.Hosts {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		lines = append(lines, d.Network.Hosts[name]+" "+name)
	}
	return strings.Join(lines, "\n") + "\n", len(peers)+len(names) > 0
}
