package relay

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below never wait, as what they are about is non-blocking. So they
// don't tell Go's scheduler (unix.Read and its like do), which is a good part of
// what a small message costs.

// errno is 0 where a call succeeded.
type errno = unix.Errno

func read(fd int, buffer []byte) (int, errno) {
	for {
		n, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(buffer))), uintptr(len(buffer)))
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// write is send(2), as write(2) on a connection that is gone raises SIGPIPE.
func write(fd int, data []byte) (int, errno) {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), unix.MSG_NOSIGNAL, 0, 0)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

func splice(from, to, size int) (int, errno) {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(n), err
		}
	}
}

// accept returns a non-blocking connection.
func accept(listener int) (int, errno) {
	fd, _, err := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(fd), err
}

func closeSocket(fd int) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// resetSocket closes a connection so that its peer sees it broken off: TCP sends
// RST where there is nothing to linger for (tcp_close in net/ipv4/tcp.c).
func resetSocket(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	closeSocket(fd)
}

// endSocket ends the peer's input.
func endSocket(fd int) { unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0) }

// prompt makes a TCP socket send small messages at once, notice a peer whose
// machine is gone, and lose no urgent data, which becomes ordinary. Connections
// inherit this from their listener. Other sockets have no such options.
func prompt(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// hurry has a TCP socket send as fast as its peer on the same machine takes it.
// Where the machine's congestion control is BBR, it would measure and pace what
// is no network (tcp_bbr.c), at half the speed. Reno is allowed to all (ip-sysctl,
// tcp_allowed_congestion_control).
func hurry(fd int) { _ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") }

// sockaddr is an address as the kernel takes it.
type sockaddr struct {
	raw  unix.RawSockaddrAny
	size uint32
}

func (a *sockaddr) set(address unix.Sockaddr) error {
	switch address := address.(type) {
	case *unix.SockaddrInet4:
		raw := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		*raw = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(address.Port), Addr: address.Addr}
		a.size = unix.SizeofSockaddrInet4
	case *unix.SockaddrInet6:
		raw := (*unix.RawSockaddrInet6)(unsafe.Pointer(&a.raw))
		*raw = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(address.Port), Addr: address.Addr, Scope_id: address.ZoneId}
		a.size = unix.SizeofSockaddrInet6
	case *unix.SockaddrUnix:
		raw := (*unix.RawSockaddrUnix)(unsafe.Pointer(&a.raw))
		if len(address.Name) >= len(raw.Path) {
			return fmt.Errorf("%s: %w", address.Name, unix.ENAMETOOLONG)
		}
		*raw = unix.RawSockaddrUnix{Family: unix.AF_UNIX}
		for i := range len(address.Name) {
			raw.Path[i] = int8(address.Name[i])
		}
		a.size = uint32(unsafe.Offsetof(raw.Path)) + uint32(len(address.Name)) + 1
		if address.Name != "" && address.Name[0] == '@' { // an abstract one, which has no end
			raw.Path[0] = 0
			a.size--
		}
	default:
		return fmt.Errorf("%T is no address that a relay knows", address)
	}
	return nil
}

// loopback tells an address that no network leads to.
func (a *sockaddr) loopback() bool { return a.addrPort().Addr().IsLoopback() }

func networkOrder(port int) uint16 { return uint16(port)<<8 | uint16(port)>>8&0xff }

func connect(fd int, a *sockaddr) errno {
	_, _, err := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(a.size))
	return err
}

// name asks getsockname(2) or getpeername(2), whichever call is.
func name(call uintptr, fd int, a *sockaddr) errno {
	a.size = unix.SizeofSockaddrAny
	_, _, err := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&a.raw)), uintptr(unsafe.Pointer(&a.size)))
	return err
}

// takeOver makes a file's descriptor the caller's own, non-blocking, and closes
// the file unless it fails. An *os.File can't be parted from its descriptor, and
// keeps it in the Go runtime's own epoll set, which wakes for every event.
func takeOver(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	own := -1
	var failure error
	err = raw.Control(func(fd uintptr) {
		if own, failure = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); failure != nil {
			own, failure = -1, os.NewSyscallError("fcntl", failure)
		}
	})
	if err == nil {
		err = failure
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(own), unix.F_SETFL, unix.O_NONBLOCK)
		err = os.NewSyscallError("fcntl", err)
	}
	if err != nil {
		if own >= 0 {
			closeSocket(own)
		}
		return -1, err
	}
	f.Close()
	return own, nil
}

// exhausted tells errors that pass when something else is closed.
func exhausted(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOBUFS)
}

// room is how many descriptors the process may open besides the first n, which
// are those in use: the kernel gives the lowest number that is free.
func room(n int) int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur > 1<<30 {
		return 1 << 30
	}
	return int(limit.Cur) - n
}
