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
