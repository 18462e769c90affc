package relay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the PROXY protocol's version 2 begins with, and the kinds of addresses
// (haproxy's proxy-protocol.txt, 2.2).
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyLocal     = 0x20 // a connection of the relay's own, so to speak
	proxyProxy     = 0x21
	proxyNone      = 0x00
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
)

// introduce tells the target who the client is, and where it connected to.
func (c *connection) introduce() bool {
	header := proxyHeader(c.address(unix.SYS_GETPEERNAME), c.address(unix.SYS_GETSOCKNAME))
	// A new connection has room for it.
	n, err := write(c.sides[1].fd, header)
	return err == 0 && n == len(header)
}

// address is one of the client's connection, not valid where it is no TCP's.
func (c *connection) address(call uintptr) netip.AddrPort {
	a := &c.loop.address
	if err := name(call, c.sides[0].fd, a); err != 0 {
		return netip.AddrPort{}
	}
	return a.addrPort()
}

// addrPort is the address where it is one of IP, without a zone. An IPv4 address
// on an IPv6 socket is an IPv4 address.
func (a *sockaddr) addrPort() netip.AddrPort {
	switch a.raw.Addr.Family {
	case unix.AF_INET:
		raw := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(raw.Addr), networkOrder(int(raw.Port)))
	case unix.AF_INET6:
		raw := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
		return netip.AddrPortFrom(netip.AddrFrom16(raw.Addr).Unmap(), networkOrder(int(raw.Port)))
	}
	return netip.AddrPort{}
}

func proxyHeader(from, to netip.AddrPort) []byte {
	header := append([]byte(proxySignature), proxyLocal, proxyNone, 0, 0)
	if !from.IsValid() || !to.IsValid() || from.Addr().Is4() != to.Addr().Is4() {
		return header // of a Unix socket: there is nothing to be said
	}
	header[12], header[13] = proxyProxy, proxyTCP6
	if from.Addr().Is4() {
		header[13] = proxyTCP4
	}
	header = append(header, from.Addr().AsSlice()...)
	header = append(header, to.Addr().AsSlice()...)
	header = binary.BigEndian.AppendUint16(header, from.Port())
	header = binary.BigEndian.AppendUint16(header, to.Port())
	binary.BigEndian.PutUint16(header[14:], uint16(len(header)-16))
	return header
}
