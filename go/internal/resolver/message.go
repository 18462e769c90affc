package resolver

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// Types and the class of resource records (RFC 1035, 3.2; RFC 3596).
const (
	typeA    = 1
	typeAAAA = 28
	internet = 1
)

// found reads an answer: the name of its question, in lower case without a dot
// at the end, and the addresses that stand in its answer section. What can't be
// read ends the list.
func found(m []byte) (name string, addresses []netip.Addr) {
	if len(m) < headerSize || binary.BigEndian.Uint16(m[4:]) != 1 {
		return "", nil
	}
	name, at := question(m)
	for range binary.BigEndian.Uint16(m[6:]) {
		if at = skipName(m, at); at < 0 || at+10 > len(m) {
			return name, addresses
		}
		kind, class := binary.BigEndian.Uint16(m[at:]), binary.BigEndian.Uint16(m[at+2:])
		data := at + 10
		at = data + int(binary.BigEndian.Uint16(m[at+8:]))
		if at > len(m) {
			return name, addresses
		}
		if class != internet || kind != typeA && kind != typeAAAA {
			continue
		}
		if a, ok := netip.AddrFromSlice(m[data:at]); ok && a.Is4() == (kind == typeA) {
			addresses = append(addresses, a)
		}
	}
	return name, addresses
}

// question reads a message's first question, which has no pointers. It returns
// where the question ends, or -1.
func question(m []byte) (name string, end int) {
	var labels []string
	at := headerSize
	for at < len(m) && m[at] != 0 {
		length := int(m[at])
		if length > 63 || at+1+length > len(m) {
			return "", -1
		}
		labels = append(labels, string(m[at+1:at+1+length]))
		at += 1 + length
	}
	if at += 1 + 4; at > len(m) { // the root label, type, class
		return "", -1
	}
	return strings.ToLower(strings.Join(labels, ".")), at
}

// local answers a query for the address of a name that is known here, of either
// family: there is none of the other one. It returns nil for any other query.
func local(query []byte, lookup func(name string) (netip.Addr, bool)) []byte {
	if binary.BigEndian.Uint16(query[4:]) != 1 || query[2]&opcode != 0 {
		return nil
	}
	name, end := question(query)
	if end < 0 || binary.BigEndian.Uint16(query[end-2:]) != internet {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	if kind != typeA && kind != typeAAAA {
		return nil
	}
	address, known := lookup(name)
	if !known {
		return nil
	}
	m := append([]byte(nil), query[:end]...)
	m[2] = response | m[2]&recursion
	m[3] = available
	clear(m[6:headerSize])
	if address.Is4() != (kind == typeA) {
		return m
	}
	m[7] = 1
	data := address.AsSlice()
	m = append(m, 0xc0, headerSize) // the question's name
	m = binary.BigEndian.AppendUint16(m, kind)
	m = binary.BigEndian.AppendUint16(m, internet)
	m = binary.BigEndian.AppendUint32(m, 0) // not to be kept
	m = binary.BigEndian.AppendUint16(m, uint16(len(data)))
	return append(m, data...)
}

// skipName returns where a name ends, or -1.
func skipName(m []byte, at int) int {
	for at >= 0 && at < len(m) {
		switch length := int(m[at]); {
		case length == 0:
			return at + 1
		case length >= 0xc0: // a pointer, which ends it
			return at + 2
		default:
			at += 1 + length
		}
	}
	return -1
}
