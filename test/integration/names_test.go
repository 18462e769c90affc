package integration

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/nix-user-containers/nuc/test/harness"
)

// records are a name server's: addresses by name, with the dot at the end.
type records map[string][]string

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
			_, _ = packets.WriteTo(z.answer(buf[:n]), client)
		}
	}()
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err == nil {
				query := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(c, query); err == nil {
					reply := z.answer(query)
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
				}
			}
			c.Close()
		}
	}()
}

// answer is RFC 1035's, for one question of type A or AAAA.
func (z records) answer(query []byte) []byte {
	const header = 12
	var name strings.Builder
	end := header
	for query[end] != 0 {
		length := int(query[end])
		name.Write(query[end+1 : end+1+length])
		name.WriteByte('.')
		end += 1 + length
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	end += 5
	addresses, known := z[strings.ToLower(name.String())]
	reply := append([]byte(nil), query[:end]...)
	reply[2], reply[3] = 0x80|query[2], 0x80
	if !known {
		reply[3] |= 3 // NXDOMAIN
	}
	clear(reply[6:header])
	for _, a := range addresses {
		address := netip.MustParseAddr(a)
		if want := map[bool]uint16{true: 1, false: 28}[address.Is4()]; want != kind {
			continue
		}
		reply[7]++
		reply = append(reply, 0xc0, header, byte(kind>>8), byte(kind), 0, 1, 0, 0, 0, 0)
		reply = binary.BigEndian.AppendUint16(reply, uint16(address.BitLen()/8))
		reply = append(reply, address.AsSlice()...)
	}
	return reply
}
