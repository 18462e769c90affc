package integration

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/nix-user-containers/nuc/test/harness"
)

// records are a name server's: addresses and texts by name, with the dot at the
// end.
type records map[string][]string

// plainSize is what a message without EDNS may have (RFC 1035, 4.2.1).
const plainSize = 512

// serve answers on both until they are closed.
func (z records) serve(h *harness.H, stream net.Listener, packets net.PacketConn) {
	h.Helper()
	go func() {
		buf := make([]byte, 1500)
		for {
			n, client, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			reply, most := z.answer(buf[:n])
			if len(reply) > most {
				reply = cut(reply)
			}
			_, _ = packets.WriteTo(reply, client)
		}
	}()
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go z.converse(c)
		}
	}()
}

// converse answers what comes over one connection.
func (z records) converse(c net.Conn) {
	defer c.Close()
	for {
		var length [2]byte
		if _, err := io.ReadFull(c, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		reply, _ := z.answer(query)
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	}
}

// The types of records that there are, and that of EDNS (RFC 6891).
const (
	typeA    = 1
	typeTXT  = 16
	typeAAAA = 28
	typeOPT  = 41
)

const dnsHeader = 12

// question is where a query's question ends, and what it is.
func question(query []byte) (name string, kind uint16, end int) {
	var b strings.Builder
	end = dnsHeader
	for query[end] != 0 {
		length := int(query[end])
		b.Write(query[end+1 : end+1+length])
		b.WriteByte('.')
		end += 1 + length
	}
	return strings.ToLower(b.String()), binary.BigEndian.Uint16(query[end+1:]), end + 5
}

// answer is RFC 1035's for one question, and how much of it a datagram may have.
func (z records) answer(query []byte) (reply []byte, most int) {
	name, kind, end := question(query)
	values, known := z[name]
	reply = append([]byte(nil), query[:end]...)
	reply[2], reply[3] = 0x80|query[2], 0x80
	if !known {
		reply[3] |= 3 // NXDOMAIN
	}
	clear(reply[6:dnsHeader])
	for _, value := range values {
		is, data := record(value)
		if is != kind {
			continue
		}
		reply[7]++
		reply = append(reply, 0xc0, dnsHeader, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0)
		reply = append(binary.BigEndian.AppendUint16(reply, uint16(len(data))), data...)
	}
	most = plainSize
	// The root's name, type, size.
	if opt := query[end:]; query[11] > 0 && len(opt) >= 11 && opt[0] == 0 && binary.BigEndian.Uint16(opt[1:]) == typeOPT {
		most = int(binary.BigEndian.Uint16(opt[3:]))
		reply[11] = 1
		reply = append(reply, opt[:5]...)
		reply = append(reply, 0, 0, 0, 0, 0, 0)
	}
	return reply, most
}

// record is an address as A or AAAA, and all else as TXT, in strings of 255 bytes.
func record(value string) (kind uint16, data []byte) {
	if address, err := netip.ParseAddr(value); err == nil {
		return map[bool]uint16{true: typeA, false: typeAAAA}[address.Is4()], address.AsSlice()
	}
	for part := range slices.Chunk([]byte(value), 255) {
		data = append(append(data, byte(len(part))), part...)
	}
	return typeTXT, data
}

// cut leaves the question, and says that there is more (TC).
func cut(reply []byte) []byte {
	_, _, end := question(reply)
	short := append([]byte(nil), reply[:end]...)
	short[2] |= 2
	clear(short[6:dnsHeader])
	return short
}
