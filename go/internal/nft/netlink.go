package nft

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// batch is a transaction: the kernel takes all of its messages or none.
type batch struct {
	data            []byte
	first, sequence uint32
}

// maxBatch is what a batch may be of, in bytes, before it is sent: a netlink
// socket takes no more at once than its buffer holds (SO_SNDBUF), which is 208
// KiB unless the machine says otherwise (net.core.wmem_default).
const maxBatch = 64 << 10

const (
	batchBegin = unix.NLMSG_MIN_TYPE     // NFNL_MSG_BATCH_BEGIN
	batchEnd   = unix.NLMSG_MIN_TYPE + 1 // NFNL_MSG_BATCH_END
	accept     = 1                       // NF_ACCEPT
)

// batch begins one. Its messages have numbers that no earlier one's had, as
// answers to one that failed may still come.
func (t *Table) batch() *batch {
	b := &batch{first: t.sequence, sequence: t.sequence}
	b.append(batchBegin, unix.NLM_F_REQUEST, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	return b
}

// message is the attributes of one netlink message, which nest.
type message struct{ data []byte }

// message adds a request of nf_tables, for the inet family: IPv4 and IPv6.
func (b *batch) message(kind, flags int, fill func(*message)) {
	m := &message{}
	fill(m)
	b.append(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_REQUEST|flags, unix.NFPROTO_INET, 0, m.data)
}

// rule adds a rule at the end of a chain.
func (b *batch) rule(chain string, fill func(*message)) {
	b.message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(m *message) {
		m.text(unix.NFTA_RULE_TABLE, tableName)
		m.text(unix.NFTA_RULE_CHAIN, chain)
		m.nest(unix.NFTA_RULE_EXPRESSIONS, func() { fill(m) })
	})
}

func (b *batch) append(kind, flags int, family byte, resource uint16, attributes []byte) {
	length := unix.SizeofNlMsghdr + 4 + len(attributes)
	b.data = binary.NativeEndian.AppendUint32(b.data, uint32(length))
	b.data = binary.NativeEndian.AppendUint16(b.data, uint16(kind))
	b.data = binary.NativeEndian.AppendUint16(b.data, uint16(flags))
	b.data = binary.NativeEndian.AppendUint32(b.data, b.sequence)
	b.data = binary.NativeEndian.AppendUint32(b.data, 0)
	b.data = append(b.data, family, unix.NFNETLINK_V0)
	b.data = binary.BigEndian.AppendUint16(b.data, resource)
	b.data = append(b.data, attributes...)
	b.sequence++
}

// send sends the batch and waits for the kernel's word on it. Its last request
// asks for an acknowledgement; errors come without being asked for.
func (t *Table) send(b *batch) error {
	last, at := b.sequence-1, 0
	for next := 0; next < len(b.data); next += int(binary.NativeEndian.Uint32(b.data[next:])) {
		at = next
	}
	flags := binary.NativeEndian.Uint16(b.data[at+6:])
	binary.NativeEndian.PutUint16(b.data[at+6:], flags|unix.NLM_F_ACK)
	b.append(batchEnd, unix.NLM_F_REQUEST, 0, unix.NFNL_SUBSYS_NFTABLES, nil)
	t.sequence = b.sequence
	if err := unix.Sendto(t.socket, b.data, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(t.socket, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		for rest := buf[:n]; len(rest) >= unix.SizeofNlMsghdr+4; {
			length := int(binary.NativeEndian.Uint32(rest))
			if binary.NativeEndian.Uint16(rest[4:]) != unix.NLMSG_ERROR {
				return fmt.Errorf("an answer of type %d from netlink", binary.NativeEndian.Uint16(rest[4:]))
			}
			sequence := binary.NativeEndian.Uint32(rest[8:])
			code := int32(binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr:]))
			switch {
			case sequence-b.first > last-b.first: // of an earlier one
			case code != 0:
				return os.NewSyscallError("netlink", unix.Errno(-code))
			case sequence == last:
				return nil
			}
			rest = rest[min(len(rest), align(max(length, unix.SizeofNlMsghdr))):]
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

func (m *message) attribute(kind int, value []byte) {
	m.data = binary.NativeEndian.AppendUint16(m.data, uint16(4+len(value)))
	m.data = binary.NativeEndian.AppendUint16(m.data, uint16(kind))
	m.data = append(m.data, value...)
	for len(m.data)%4 != 0 {
		m.data = append(m.data, 0)
	}
}

func (m *message) text(kind int, value string) { m.attribute(kind, append([]byte(value), 0)) }

func (m *message) number(kind int, value uint32) {
	m.attribute(kind, binary.BigEndian.AppendUint32(nil, value))
}

func (m *message) nest(kind int, fill func()) {
	start := len(m.data)
	m.attribute(kind|unix.NLA_F_NESTED, nil)
	fill()
	binary.NativeEndian.PutUint16(m.data[start:], uint16(len(m.data)-start))
}

// expression adds one to a rule. All of them work on register 1.
func (m *message) expression(name string, fill func()) {
	m.nest(unix.NFTA_LIST_ELEM, func() {
		m.text(unix.NFTA_EXPR_NAME, name)
		m.nest(unix.NFTA_EXPR_DATA, fill)
	})
}

func (m *message) value(kind int, data []byte) {
	m.nest(kind, func() { m.attribute(unix.NFTA_DATA_VALUE, data) })
}

func (m *message) meta(key uint32) {
	m.expression("meta", func() {
		m.number(unix.NFTA_META_DREG, unix.NFT_REG_1)
		m.number(unix.NFTA_META_KEY, key)
	})
}

func (m *message) compare(operator uint32, data []byte) {
	m.expression("cmp", func() {
		m.number(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		m.number(unix.NFTA_CMP_OP, operator)
		m.value(unix.NFTA_CMP_DATA, data)
	})
}

func (m *message) equals(data []byte)  { m.compare(unix.NFT_CMP_EQ, data) }
func (m *message) differs(data []byte) { m.compare(unix.NFT_CMP_NEQ, data) }

func (m *message) between(first, last []byte) {
	m.compare(unix.NFT_CMP_GTE, first)
	m.compare(unix.NFT_CMP_LTE, last)
}

// oif loads the name of the interface that the packet leaves by.
func (m *message) oif() { m.meta(unix.NFT_META_OIFNAME) }

func (m *message) family(number byte) {
	m.meta(unix.NFT_META_NFPROTO)
	m.equals([]byte{number})
}

func (m *message) protocol(number byte) {
	m.meta(unix.NFT_META_L4PROTO)
	m.equals([]byte{number})
}

func (m *message) payload(base, offset, length uint32) {
	m.expression("payload", func() {
		m.number(unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
		m.number(unix.NFTA_PAYLOAD_BASE, base)
		m.number(unix.NFTA_PAYLOAD_OFFSET, offset)
		m.number(unix.NFTA_PAYLOAD_LEN, length)
	})
}

func (m *message) mask(mask []byte) {
	m.expression("bitwise", func() {
		m.number(unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
		m.number(unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
		m.number(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		m.value(unix.NFTA_BITWISE_MASK, mask)
		m.value(unix.NFTA_BITWISE_XOR, make([]byte, len(mask)))
	})
}

func (m *message) verdict(code int32, chain string) {
	m.expression("immediate", func() {
		m.number(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		m.nest(unix.NFTA_IMMEDIATE_DATA, func() {
			m.nest(unix.NFTA_DATA_VERDICT, func() {
				m.number(unix.NFTA_VERDICT_CODE, uint32(code))
				if chain != "" {
					m.text(unix.NFTA_VERDICT_CHAIN, chain)
				}
			})
		})
	})
}

// reject answers with a reset or with "administratively prohibited" of either
// family's ICMP, which a socket that is just connecting does not always heed.
func (m *message) reject(protocol byte) {
	m.expression("reject", func() {
		if protocol == unix.IPPROTO_TCP {
			m.number(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST)
			return
		}
		m.number(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMPX_UNREACH)
		m.attribute(unix.NFTA_REJECT_ICMP_CODE, []byte{unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})
	})
}
