package supervisor

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
)

// A container knows others, its peers, by their names: those of its descriptor,
// in /etc/hosts, and those that links made by hand lead to, for as long as these
// listen.

// hostsFile is /etc/hosts of a container that is no NixOS, whose modules write
// their own: itself, what is declared, its peers, and others that it is linked to.
func hostsFile(d *descriptor.Descriptor, others ...string) (text string, declared bool) {
	lines := []string{
		"# nuc: network.hosts, links and dependsOn of the descriptor",
		"127.0.0.1 localhost",
		"::1 localhost ip6-localhost ip6-loopback",
		"127.0.1.1 " + d.Name,
	}
	peers := peersOf(d)
	declared = len(peers)+len(d.Network.Hosts) > 0
	peers = append(peers, others...)
	slices.Sort(peers)
	for _, p := range slices.Compact(peers) {
		lines = append(lines, descriptor.PeerAddress(p).String()+" "+p)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Network.Hosts)) {
		lines = append(lines, d.Network.Hosts[name]+" "+name)
	}
	return strings.Join(lines, "\n") + "\n", declared
}

// peersOf are those of a descriptor.
func peersOf(d *descriptor.Descriptor) []string {
	peers := slices.Clone(d.DependsOn)
	for _, l := range d.Links {
		peers = append(peers, l.To)
	}
	return peers
}

// answerPeer has a container known by its name until the client leaves.
func (s *Supervisor) answerPeer(conn *seqpacket.Conn, name string) {
	if !descriptor.IsName(name) {
		refuse(conn, "peer: no container's name")
		return
	}
	count := func(by int) {
		s.mu.Lock()
		s.peers[name] += by
		if s.peers[name] == 0 {
			delete(s.peers, name)
		}
		s.mu.Unlock()
		s.publishPeers()
	}
	count(1)
	defer count(-1)
	if conn.Send(keeper.Reply{Kind: keeper.Started}) == nil {
		_, _ = conn.Receive()
	}
}

// openPeers writes /run/host/hosts for a run that begins.
func (s *Supervisor) openPeers() error {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.published = true
	return s.writePeers()
}

// closePeers is for a run that has ended.
func (s *Supervisor) closePeers() {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.published = false
}

// publishPeers writes it anew, while there is a run that has it.
func (s *Supervisor) publishPeers() {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	if !s.published {
		return
	}
	if err := s.writePeers(); err != nil {
		s.warn(err.Error())
	}
}

func (s *Supervisor) writePeers() error {
	s.mu.Lock()
	d, others := s.o.Descriptor, slices.Sorted(maps.Keys(s.peers))
	s.mu.Unlock()
	text, _ := hostsFile(d, others...)
	return s.starter.Publish(hostsName, text)
}

// peer finds a peer's address by its name.
func (s *Supervisor) peer(name string) (netip.Addr, bool) {
	s.mu.Lock()
	known := s.peers[name] > 0 || slices.Contains(peersOf(s.o.Descriptor), name)
	s.mu.Unlock()
	return descriptor.PeerAddress(name), known
}
