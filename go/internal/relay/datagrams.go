package relay

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// packetBatch is how many datagrams are received or sent by one call.
	packetBatch = 32
	// packetSize holds the largest datagram there is.
	packetSize = 1 << 16
)

// packetAddress holds an address of either family, the rest being 0.
type packetAddress = unix.RawSockaddrInet6

// packetControl is control data that says which of the host's addresses a
// datagram came to, or is to come from; it is empty where that is nothing to be
// said.
type packetControl struct {
	data [40]byte // as long as CMSG_SPACE of the larger one
	size uint64
}

// message is struct mmsghdr (recvmmsg(2)).
type message struct {
	header unix.Msghdr
	size   uint32
	_      [4]byte
}

// datagrams are those that a loop just received.
type datagrams struct {
	received [packetBatch]message
	sent     [packetBatch]message
	vectors  [packetBatch]unix.Iovec
	from     [packetBatch]packetAddress
	controls [packetBatch]packetControl
	buffer   []byte
}

// datagrams are made at the first use: a loop may never have one.
func (l *loop) datagrams() *datagrams {
	if l.packets == nil {
		b := &datagrams{buffer: make([]byte, packetBatch*packetSize)}
		for i := range b.vectors {
			b.vectors[i].Base = &b.buffer[i*packetSize]
		}
		l.packets = b
	}
	return l.packets
}

// receive gets what there is.
func (b *datagrams) receive(fd int) (int, errno) {
	for i := range b.received {
		b.vectors[i].SetLen(packetSize)
		b.from[i] = packetAddress{}
		b.received[i].header = unix.Msghdr{
			Name: (*byte)(unsafe.Pointer(&b.from[i])), Namelen: unix.SizeofSockaddrInet6,
			Iov: &b.vectors[i], Iovlen: 1,
			Control: &b.controls[i].data[0], Controllen: uint64(len(b.controls[i].data)),
		}
	}
	n, _, err := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.received)), packetBatch, unix.MSG_DONTWAIT, 0, 0)
	if err != 0 {
		return 0, err
	}
	for i := range int(n) {
		b.vectors[i].SetLen(int(b.received[i].size))
		b.controls[i].size = b.received[i].header.Controllen
	}
	return int(n), 0
}

func (b *datagrams) data(i int) []byte {
	return b.buffer[i*packetSize:][:b.received[i].size]
}

// client is who sent a datagram.
func (b *datagrams) client(i int) client {
	of := client{from: b.from[i]}
	if local := b.controls[i].local(); local != nil {
		copy(of.to[:], local)
	}
	return of
}

// send sends datagrams to where a socket is connected to.
func (b *datagrams) send(fd, first, end int) {
	for i := first; i < end; i++ {
		b.sent[i].header = unix.Msghdr{Iov: &b.vectors[i], Iovlen: 1}
	}
	b.flush(fd, first, end)
}

// answer sends what was received to a client.
func (b *datagrams) answer(fd, n int, a *association) {
	for i := range n {
		h := &b.sent[i].header
		*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&a.client.from)), Namelen: addressSize(&a.client.from), Iov: &b.vectors[i], Iovlen: 1}
		if a.control.size > 0 {
			h.Control, h.Controllen = &a.control.data[0], a.control.size
		}
	}
	b.flush(fd, 0, n)
}

// flush sends what has been prepared. What can't be sent is lost, as datagrams
// may be; but an error may be of what was sent before.
func (b *datagrams) flush(fd, first, end int) {
	for again := true; first < end; {
		n, _, err := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.sent[first])), uintptr(end-first), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case err == 0:
			first += int(n)
			again = true
		case err == unix.EAGAIN:
			return
		case again:
			again = false
		default:
			first++
			again = true
		}
	}
}

// sendDatagram sends one, which may find the error of what was sent before.
func sendDatagram(fd int, data []byte) {
	if _, err := write(fd, data); err != 0 {
		_, _ = write(fd, data)
	}
}

// refused tells whether a connected socket's datagrams found nobody.
func refused(fd int) bool {
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err == nil && unix.Errno(code) == unix.ECONNREFUSED
}

func addressSize(a *packetAddress) uint32 {
	if a.Family == unix.AF_INET {
		return unix.SizeofSockaddrInet4
	}
	return unix.SizeofSockaddrInet6
}

// tellDestination has a socket that is bound to all addresses tell which one a
// datagram came to, so that the answer comes from there.
func tellDestination(fd int) {
	var own sockaddr
	if name(unix.SYS_GETSOCKNAME, fd, &own) != 0 || !own.addrPort().Addr().IsUnspecified() {
		return
	}
	if own.raw.Addr.Family == unix.AF_INET {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// information is the structure that a control message holds (ip(7), ipv6(7)).
func (c *packetControl) information() (v4 *unix.Inet4Pktinfo, v6 *unix.Inet6Pktinfo) {
	if c.size < unix.SizeofCmsghdr {
		return nil, nil
	}
	header := (*unix.Cmsghdr)(unsafe.Pointer(&c.data))
	body := unsafe.Pointer(&c.data[unix.SizeofCmsghdr])
	switch {
	case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO:
		return (*unix.Inet4Pktinfo)(body), nil
	case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO:
		return nil, (*unix.Inet6Pktinfo)(body)
	}
	return nil, nil
}

// local is the address of the host's that a datagram came to.
func (c *packetControl) local() []byte {
	switch v4, v6 := c.information(); {
	case v4 != nil:
		return v4.Spec_dst[:]
	case v6 != nil:
		return v6.Addr[:]
	}
	return nil
}

// answerFrom is the control data for answers to a datagram.
func (b *datagrams) answerFrom(i int) packetControl {
	c := b.controls[i]
	switch v4, v6 := c.information(); {
	case v4 != nil:
		v4.Ifindex = 0 // by the routes
	case v6 != nil && v6.Addr[0] == 0xff:
		return packetControl{} // no answer comes from a group
	case v6 != nil && (v6.Addr[0] != 0xfe || v6.Addr[1]&0xc0 != 0x80):
		v6.Ifindex = 0 // only a link's own address needs it
	case v6 == nil:
		return packetControl{}
	}
	return c
}
