// Package nft limits what leaves a network namespace: a list of rules for
// packets that go out by any interface but the loopback, set over netlink
// (nf_tables, libnftnl's wire format as in linux/netfilter/nf_tables.h).
//
// The table is owned by the netlink socket that made it (Linux 5.12), so that
// nobody else in the namespace changes or flushes it, `nft flush ruleset`
// included; it goes when the Table is closed. Who has CAP_NET_ADMIN there can
// still get around it, by taking the interface to another namespace.
package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Rule is what happens to a packet that matches all that is said.
type Rule struct {
	// To is where the packet goes.
	To netip.Prefix `json:"to"`
	// Protocol is tcp, udp or "" for any; First to Last are the ports, 0 for any.
	Protocol string `json:"protocol,omitempty"`
	First    uint16 `json:"first,omitempty"`
	Last     uint16 `json:"last,omitempty"`
	// Accept lets the packet out; else it is rejected, so that who sent it is
	// told at once (tcp: ECONNREFUSED; else EHOSTUNREACH, or EACCES with IPv6).
	Accept bool `json:"accept,omitempty"`
}

// Everything that leaves, as a Rule's To.
var (
	All4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	All6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// Table is the set of rules in force.
type Table struct {
	socket   int
	sequence uint32
	// current is the chain that the rules in force are in, of chainNames; -1
	// before there are any.
	current int
}

// Open makes the table, empty, in the calling thread's network namespace.
func Open() (*Table, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, unsupported(os.NewSyscallError("socket", err))
	}
	t := &Table{socket: fd, current: -1}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	// An answer that never comes must not hold a start up.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	if err := t.send(t.create()); err != nil {
		t.Close()
		return nil, unsupported(err)
	}
	return t, nil
}

// ErrUnsupported is an Open on a kernel without nf_tables.
var ErrUnsupported = errors.New("this kernel has no nftables (CONFIG_NF_TABLES, NF_TABLES_INET, NFT_REJECT_INET), or it is not loaded: as root, modprobe nf_tables nft_reject_inet")

func unsupported(err error) error {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL),
		errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return fmt.Errorf("nftables: %w", err)
}

// Set replaces all rules at once. The first that matches decides; what none
// matches goes out. After an error those are in force that were before.
//
// They are written into a chain that no packet comes to, in as many batches as it
// takes, and come into force with the last one.
func (t *Table) Set(rules []Rule) error {
	next := (t.current + 1) % len(chainNames)
	if err := t.set(chainNames[next], rules); err != nil {
		return unsupported(err)
	}
	t.current = next
	return nil
}

func (t *Table) set(chain string, rules []Rule) error {
	b := t.batch()
	b.chain(chain, nil)
	b.clear(chain) // of what an attempt that failed has left
	b.rule(chain, func(m *message) {
		m.protocol(unix.IPPROTO_ICMPV6)
		m.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1)
		m.between([]byte{firstNeighbour}, []byte{lastNeighbour})
		m.verdict(accept, "")
	})
	for _, r := range rules {
		for _, protocol := range protocols(r) {
			b.rule(chain, func(m *message) { m.match(r, protocol) })
		}
		if len(b.data) > maxBatch {
			if err := t.send(b); err != nil {
				return err
			}
			b = t.batch()
		}
	}
	for _, hook := range hooks {
		b.clear(hook.name)
		b.rule(hook.name, func(m *message) {
			m.oif()
			m.differs([]byte("lo\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
			m.verdict(unix.NFT_JUMP, chain)
		})
	}
	if t.current >= 0 {
		b.clear(chainNames[t.current])
	}
	return t.send(b)
}

// Close removes the table.
func (t *Table) Close() { unix.Close(t.socket) }

// Names of the table and of what is in it, as `nft list ruleset` shows them: one
// of the two chains has the rules.
const tableName = "nuc"

var chainNames = [2]string{"out", "other"}

// hooks are where packets come from: what the namespace sends, and what it is a
// router for.
var hooks = []struct {
	name   string
	number uint32
}{{"output", unix.NF_INET_LOCAL_OUT}, {"forward", unix.NF_INET_FORWARD}}

func (t *Table) create() *batch {
	b := t.batch()
	b.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(m *message) {
		m.text(unix.NFTA_TABLE_NAME, tableName)
		m.number(unix.NFTA_TABLE_FLAGS, tableOwner)
	})
	for _, hook := range hooks {
		b.chain(hook.name, func(m *message) {
			m.nest(unix.NFTA_CHAIN_HOOK, func() {
				m.number(unix.NFTA_HOOK_HOOKNUM, hook.number)
				m.number(unix.NFTA_HOOK_PRIORITY, 0)
			})
			m.text(unix.NFTA_CHAIN_TYPE, "filter")
		})
	}
	return b
}

// chain makes a chain, unless there is one.
func (b *batch) chain(name string, fill func(*message)) {
	b.message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, func(m *message) {
		m.text(unix.NFTA_CHAIN_TABLE, tableName)
		m.text(unix.NFTA_CHAIN_NAME, name)
		if fill != nil {
			fill(m)
		}
	})
}

// clear takes all rules out of a chain.
func (b *batch) clear(chain string) {
	b.message(unix.NFT_MSG_DELRULE, 0, func(m *message) {
		m.text(unix.NFTA_RULE_TABLE, tableName)
		m.text(unix.NFTA_RULE_CHAIN, chain)
	})
}

// tableOwner is NFT_TABLE_F_OWNER of linux/netfilter/nf_tables.h.
const tableOwner = 2

// Types of ICMPv6 without which there is no IPv6 (RFC 4861): router and
// neighbour solicitation and advertisement, redirect.
const (
	firstNeighbour = 133
	lastNeighbour  = 137
)

// protocols are those that a rule is to be written for; 0 matches any.
func protocols(r Rule) []byte {
	switch {
	case r.Protocol == "tcp":
		return []byte{unix.IPPROTO_TCP}
	case r.Protocol == "udp":
		return []byte{unix.IPPROTO_UDP}
	case r.First != 0:
		return []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP}
	case !r.Accept:
		return []byte{unix.IPPROTO_TCP, 0} // each is rejected in its own way
	}
	return []byte{0}
}

// match writes one rule.
func (m *message) match(r Rule, protocol byte) {
	address := r.To.Addr().AsSlice()
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16) // of the destination in the header
	if r.To.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
	}
	m.family(family)
	if r.To.Bits() > 0 {
		m.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(len(address)))
		if r.To.Bits() < 8*len(address) {
			m.mask(mask(r.To.Bits(), len(address)))
		}
		m.equals(r.To.Masked().Addr().AsSlice())
	}
	if protocol != 0 {
		m.protocol(protocol)
	}
	if r.First != 0 {
		last := max(r.First, r.Last)
		m.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
		m.between([]byte{byte(r.First >> 8), byte(r.First)}, []byte{byte(last >> 8), byte(last)})
	}
	if r.Accept {
		m.verdict(accept, "")
		return
	}
	m.reject(protocol)
}

func mask(bits, length int) []byte {
	b := make([]byte, length)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}
