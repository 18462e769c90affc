package outbound

import (
	"net/netip"
	"slices"

	"github.com/nix-user-containers/nuc/go/internal/nft"
)

// Policy is what a container may reach by its way out.
type Policy struct {
	// Own are the host's own addresses, which are not outside.
	Own []netip.Addr
	// HostLoopback opens the gateways' addresses.
	HostLoopback bool
	// Servers are name servers that may be asked wherever they are.
	Servers []netip.Addr
	// Limited leaves what Allow names and nothing else. A single address of the
	// host's own is opened by being named, but not by a name that leads to it.
	Limited bool
	Allow   []Destination
}

// Destination is one thing to be reached: port 0 is any, protocol "" both.
type Destination struct {
	To       netip.Prefix
	Port     uint16
	Protocol string
	// Resolved is an address that a name leads to.
	Resolved bool
}

// never are addresses that mean a host itself wherever they stand: the two
// loopbacks, no address at all, IPv4 in IPv6, and link-local IPv6. Pastas of
// before 2024 connect to the host's loopback for a packet that says so. And those
// that mean everybody: what a driver sends to a group of the host's network comes
// to the host's own members as well (mDNS, SSDP).
var never = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), netip.MustParsePrefix("ff00::/8"),
}

// Rules are the policy's, for the container's network.
func (p Policy) Rules() []nft.Rule {
	var rules []nft.Rule
	reject := func(to netip.Prefix) { rules = append(rules, nft.Rule{To: to}) }
	accept := func(d Destination) {
		rules = append(rules, nft.Rule{To: d.To, Protocol: d.Protocol, First: d.Port, Last: d.Port, Accept: true})
	}
	for _, n := range never {
		reject(n)
	}
	if p.HostLoopback {
		for _, g := range Gateways() {
			accept(Destination{To: single(g)})
		}
	}
	for _, n := range Networks() {
		reject(n)
	}
	for _, s := range p.Servers {
		accept(Destination{To: single(s), Port: 53})
	}
	for _, d := range p.Allow {
		if d.To.IsSingleIP() && !d.Resolved && slices.Contains(p.Own, d.To.Addr()) {
			accept(d)
		}
	}
	for _, a := range p.Own {
		reject(single(a))
	}
	if !p.Limited {
		return rules
	}
	for _, d := range p.Allow {
		accept(d)
	}
	reject(nft.All4)
	reject(nft.All6)
	return rules
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
