package descriptor

import (
	"crypto/sha256"
	"net/netip"
)

// PeerAddress is the loopback address that another container's name stands for
// in a container's /etc/hosts: from 127.64.0.0 to 127.127.255.255, and always
// the same for a name, so that two peers with the same port don't collide.
// nix/lib/peer.nix is its counterpart.
func PeerAddress(name string) netip.Addr {
	h := sha256.Sum256([]byte(name))
	return netip.AddrFrom4([4]byte{127, 64 | h[0]&0x3f, h[1], h[2]})
}

// place is a string that was read, and where.
type place struct {
	path       string
	text       string
	start, end int
}

// here is a string at the current path.
func (r *reader) here(text string, start, end int) place {
	return place{r.path, text, start, end}
}

// refusePlace adds a problem with a string that was read before.
func (r *reader) refusePlace(p place, expected, remedy string) {
	r.add(p.start, Problem{p.path, r.show(p.start, p.end), expected, remedy})
}

// checkDependsOn notes an entry of dependsOn.
func checkDependsOn(r *reader, t token) {
	name := t.Token.(string)
	if r.depends[name] {
		r.refuse(t.start, t.end, "a container that stands once", "remove one of the two")
		return
	}
	if r.depends == nil {
		r.depends = map[string]bool{}
	}
	r.depends[name] = true
	r.peers = append(r.peers, r.here(name, t.start, t.end))
}

// noteHost notes a name of network.hosts.
func noteHost(r *reader, t token) {
	r.hosts = append(r.hosts, r.here(t.Token.(string), t.start, t.end))
}

// checkPeers checks what names other containers against the whole descriptor.
func checkPeers(r *reader, o *object) {
	peers := make(map[string]bool, len(r.peers))
	for _, p := range r.peers {
		peers[p.text] = true
		if p.text == r.d.Name {
			r.refusePlace(p, "another container, as this one is "+r.d.Name, "")
		}
	}
	for _, h := range r.hosts {
		if peers[h.text] {
			r.refusePlace(h, "no container of links or dependsOn", "such a name has its address already: remove it")
		}
	}
	if links := o.get("links"); r.d.Network.Mode == NetworkHost && len(r.d.Links) > 0 {
		r.refuseMember(links, "no links, as network.mode is host", "leave them out: `nuc link - PORT NAME PORT` listens on the host")
	}
}
