package descriptor

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
)

func checkNetwork(r *reader, o *object) {
	n := &r.d.Network
	if !o.good("mode") {
		return
	}
	if n.Mode == NetworkHost {
		n.Outbound = false
		for _, k := range []struct{ name, remedy string }{
			{"outbound", "leave it out: the container reaches what the host reaches"},
			{"hostLoopback", "leave it out: the host's loopback is the container's"},
			{"allow", "leave it out, or make network.mode private: the host's own network can't be limited"},
			{"mtu", "leave it out: the host's interfaces have theirs"},
		} {
			if m := o.get(k.name); m != nil {
				r.refuseMember(m, "nothing, as network.mode is host", k.remedy)
			}
		}
		if ports := o.get("ports"); len(n.Ports) > 0 {
			r.refuseMember(ports, "no ports, as network.mode is host", "leave them out: the services listen on the host already")
		}
	} else if o.good("outbound") && !n.Outbound {
		const expected, remedy = "nothing, as network.outbound is false", "leave it out, or make network.outbound true"
		if m := o.get("hostLoopback"); m != nil && n.HostLoopback {
			r.refuseMember(m, expected, remedy)
		}
		for _, name := range []string{"allow", "mtu"} {
			if m := o.get(name); m != nil {
				r.refuseMember(m, expected, remedy)
			}
		}
	} else if m := o.get("allow"); m != nil && !m.bad && len(n.Allow) == 0 {
		r.refuseMember(m, "at least one entry", "leave it out for no limit; network.outbound false is no way out")
	} else if m != nil && slices.ContainsFunc(n.Ports, func(p Port) bool { return p.HandOver }) {
		r.refuseMember(m, "nothing, as a port has handOver", "leave one of the two out: whoever has a socket of the host can reach what the host reaches")
	}
	activated := func(p Port) bool { return p.SocketActivation }
	if m := o.get("idleStopSeconds"); m != nil && o.good("ports") && !slices.ContainsFunc(n.Ports, activated) {
		r.refuseMember(m, "it only where a port has socketActivation", "leave it out, or make socketActivation of a port true")
	}
}

func checkPort(r *reader, o *object) {
	p := r.d.port()
	for _, name := range []string{"proxyProtocol", "socketActivation"} {
		m := o.get(name)
		on := name == "proxyProtocol" && p.ProxyProtocol || name == "socketActivation" && p.SocketActivation
		switch {
		case !on:
		case o.good("protocol") && p.Protocol == UDP:
			r.refuseMember(m, "false, as protocol is udp", "leave it out, or make protocol tcp")
		case p.HandOver:
			r.refuseMember(m, "false, as handOver is true", "leave one of the two out")
		}
	}
	host, container := o.get("host"), o.get("container")
	if host == nil || host.bad {
		return
	}
	if p.HandOver && container != nil && !container.bad && p.Host != p.Container {
		r.refuseMember(host, fmt.Sprintf("%d, the port in the container, as handOver is true", p.Container), "make the two the same, or leave handOver out")
		return
	}
	fits := r.rangeFits(o, p.Count, "host", p.Host) && r.rangeFits(o, p.Count, "container", p.Container)
	if p.Host == 0 {
		return // what the kernel chooses is free
	}
	if !fits || !o.good("protocol") || !o.good("address") {
		return
	}
	address := netip.MustParseAddr(p.Address).Unmap()
	if every, taken := r.ports.add(p.Protocol, address, p.Host, p.Count); taken {
		remedy := "choose another port, or another address"
		if every {
			remedy = unspecified(address).String() + " is every address: " + remedy
		}
		r.refuseMember(host, once(p.Host, p.Count, "declared")+p.Address, remedy)
	}
}

func checkLink(r *reader, o *object) {
	l := r.d.link()
	listen, to := o.get("listen"), o.get("to")
	if to != nil && !to.bad {
		p := place{join(r.path, "to"), l.To, to.start, to.end}
		r.peers = append(r.peers, p)
	}
	if listen == nil || listen.bad {
		return
	}
	if o.get("port") == nil {
		l.Port = l.Listen
	}
	if !r.rangeFits(o, l.Count, "listen", l.Listen) || !r.rangeFits(o, l.Count, "port", l.Port) ||
		!o.good("protocol") || !o.good("address") || to == nil || to.bad {
		return
	}
	address, where := PeerAddress(l.To), ""
	if l.Address != "" {
		address, where = netip.MustParseAddr(l.Address).Unmap(), l.Address
	} else {
		where = fmt.Sprintf("%s, the address of %s", address, abbreviate(l.To))
	}
	if every, taken := r.links.add(l.Protocol, address, l.Listen, l.Count); taken {
		remedy := "choose another port, or another address"
		if every {
			remedy = unspecified(address).String() + " is every address: " + remedy
		}
		r.refuseMember(listen, once(l.Listen, l.Count, "listened on")+where, remedy)
	}
}

// rangeFits refuses a count of ports that goes beyond the last one.
func (r *reader) rangeFits(o *object, count int, first string, port int) bool {
	m := o.get("count")
	if !o.good("count") || !o.good(first) {
		return false
	}
	if m == nil || port+count-1 <= math.MaxUint16 {
		return true
	}
	r.refuseMember(m, fmt.Sprintf("at most %d, as %s is %d", math.MaxUint16+1-port, first, port), "the last port is 65535")
	return false
}

// once says that a range of ports can't be listened on twice.
func once(first, count int, what string) string {
	if count == 1 {
		return "a port that is " + what + " once at "
	}
	return fmt.Sprintf("ports %d to %d, each %s once at ", first, first+count-1, what)
}

// listeners knows the ports that are listened on.
type listeners map[listener]portRanges

// listener is an address and a protocol. The invalid address stands for any
// address of the family.
type listener struct {
	protocol string
	address  netip.Addr
	bits     int
}

// unspecified is every address of a family.
func unspecified(address netip.Addr) netip.Addr {
	if address.Is6() {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

// add takes a range of ports, unless one of them is taken already: at the same
// address, or as every address of the family has it, or is wanted.
func (l *listeners) add(protocol string, address netip.Addr, port, count int) (every, taken bool) {
	one := listener{protocol, address, address.BitLen()}
	all, any := one, one
	all.address, any.address = unspecified(address), netip.Addr{}
	last := port + count - 1
	switch {
	case (*l)[all].overlap(port, last), one == all && (*l)[any].overlap(port, last):
		return true, true
	case (*l)[one].overlap(port, last):
		return false, true
	}
	if *l == nil {
		*l = listeners{}
	}
	(*l)[one] = (*l)[one].with(port, last)
	(*l)[any] = (*l)[any].with(port, last)
	return false, false
}

// portRanges are ranges of ports, ascending, with a gap between any two.
type portRanges []struct{ first, last int }

func (p portRanges) overlap(first, last int) bool {
	i := sort.Search(len(p), func(i int) bool { return p[i].last >= first })
	return i < len(p) && p[i].first <= last
}

// with adds a range, and makes one of those that it touches.
func (p portRanges) with(first, last int) portRanges {
	i := sort.Search(len(p), func(i int) bool { return p[i].last >= first-1 })
	j := i
	for ; j < len(p) && p[j].first <= last+1; j++ {
		first, last = min(first, p[j].first), max(last, p[j].last)
	}
	return slices.Replace(p, i, j, struct{ first, last int }{first, last})
}
