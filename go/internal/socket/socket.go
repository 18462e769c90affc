// Package socket makes sockets where the caller's thread stands: unconnected
// ones, listening ones, and connections to Unix sockets. What it returns is
// close-on-exec, and non-blocking unless it says otherwise.
package socket

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Networks that sockets are made for.
const (
	TCP4 = "tcp4"
	TCP6 = "tcp6"
	UDP4 = "udp4"
	UDP6 = "udp6"
	Unix = "unix" // a stream
)

// Place is where a socket listens.
type Place struct {
	Network string `json:"network"` // tcp4, tcp6, udp4, udp6, unix
	// Address is an IP address of the network's family, without a zone.
	Address string `json:"address,omitempty"`
	// Port is 0 for one that the kernel chooses.
	Port int `json:"port,omitempty"`
	// Both has the address :: take IPv4 clients as well.
	Both bool `json:"both,omitempty"`
	// Path is absolute (unix); the folder that it is in must be there.
	Path string `json:"path,omitempty"`
	// Mode of the socket's file (unix): 0 is 0600.
	Mode uint32 `json:"mode,omitempty"`
}

// String is the place as people write it.
func (p Place) String() string {
	if p.Network == Unix {
		return p.Path
	}
	address, err := netip.ParseAddr(p.Address)
	if err != nil {
		return fmt.Sprintf("%s:%d", p.Address, p.Port)
	}
	return netip.AddrPortFrom(address, uint16(p.Port)).String()
}

// Check tells what of a place can't be.
func (p Place) Check() error {
	if p.Network == Unix {
		_, _, err := split(p.Path)
		return err
	}
	family, _, err := kind(p.Network)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddr(p.Address)
	if err != nil || address.Zone() != "" || address.Is4() != (family == unix.AF_INET) {
		return fmt.Errorf("address %q: an address for %s without a zone was expected", p.Address, p.Network)
	}
	if p.Port < 0 || p.Port > 65535 {
		return fmt.Errorf("port %d: 0 to 65535 was expected", p.Port)
	}
	return nil
}

// kind is a network's address family and type of socket.
func kind(network string) (family, typ int, err error) {
	switch network {
	case TCP4:
		return unix.AF_INET, unix.SOCK_STREAM, nil
	case TCP6:
		return unix.AF_INET6, unix.SOCK_STREAM, nil
	case UDP4:
		return unix.AF_INET, unix.SOCK_DGRAM, nil
	case UDP6:
		return unix.AF_INET6, unix.SOCK_DGRAM, nil
	case Unix:
		return unix.AF_UNIX, unix.SOCK_STREAM, nil
	}
	return 0, 0, fmt.Errorf("network %q: tcp4, tcp6, udp4, udp6 or unix was expected", network)
}

func open(network string) (*os.File, error) { return openAs(network, unix.SOCK_NONBLOCK) }

func openAs(network string, mode int) (*os.File, error) {
	family, typ, err := kind(network)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC|mode, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return os.NewFile(uintptr(fd), network), nil
}

// Make returns n unconnected sockets. A socket belongs to the network namespace
// that it was made in, wherever it is connected from (network_namespaces(7)).
// They are blocking ones: files of non-blocking ones would be put into the epoll
// set of Go's runtime and taken out again by each process on their way.
func Make(network string, n int) ([]*os.File, error) {
	files := make([]*os.File, 0, n)
	for range n {
		f, err := openAs(network, 0)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// Listen binds a socket to a place, and has a stream listen. For a Unix socket,
// enter, if not nil, is called on a thread of its own first, which may go to
// another mount namespace. One that nobody listens on any more is replaced.
func Listen(p Place, enter func() error) (*os.File, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	f, err := open(p.Network)
	if err != nil {
		return nil, err
	}
	if p.Network == Unix {
		err = onThread(enter, func() error { return bindPath(f, p) })
	} else {
		err = control(f, func(fd int) error { return bind(fd, p) })
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// backlog is more than the kernel allows: net.core.somaxconn bounds it.
const backlog = 1 << 15

func bind(fd int, p Place) error {
	family, typ, _ := kind(p.Network)
	address := netip.MustParseAddr(p.Address)
	var to unix.Sockaddr
	if family == unix.AF_INET {
		to = &unix.SockaddrInet4{Port: p.Port, Addr: address.As4()}
	} else {
		only := 1 // the other family has a socket of its own
		if p.Both {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
		to = &unix.SockaddrInet6{Port: p.Port, Addr: address.As16()}
	}
	if typ == unix.SOCK_STREAM {
		// A port whose last connections are in TIME_WAIT is free. For datagrams it
		// would let two listen on one.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEADDR", err)
		}
	}
	if err := unix.Bind(fd, to); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if typ == unix.SOCK_DGRAM {
		return nil
	}
	return os.NewSyscallError("listen", unix.Listen(fd, backlog))
}

// Is checks that a file is a socket of the network, and whether it listens, as
// far as a stream can: what came from another process may be anything.
func Is(f *os.File, network string, listening bool) error {
	family, typ, err := kind(network)
	if err != nil {
		return err
	}
	return control(f, func(fd int) error {
		f, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return os.NewSyscallError("getsockopt SO_DOMAIN", err)
		}
		t, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil {
			return os.NewSyscallError("getsockopt SO_TYPE", err)
		}
		l, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil {
			return os.NewSyscallError("getsockopt SO_ACCEPTCONN", err)
		}
		if f != family || t != typ || (l == 1) != (listening && typ == unix.SOCK_STREAM) {
			return fmt.Errorf("a socket of family %d and type %d (listening: %t) is not what was asked for", f, t, l == 1)
		}
		return nil
	})
}

// Bound is where a TCP or UDP socket is bound to: what the kernel chose.
func Bound(f *os.File) (netip.AddrPort, error) {
	var bound netip.AddrPort
	err := control(f, func(fd int) error {
		sa, err := unix.Getsockname(fd)
		if err != nil {
			return os.NewSyscallError("getsockname", err)
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			bound = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			bound = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		default:
			return fmt.Errorf("a socket of %T has no port", sa)
		}
		return nil
	})
	return bound, err
}

// control calls f with the descriptor; not Fd, which makes the socket a
// blocking one.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failure error
	if err := raw.Control(func(fd uintptr) { failure = f(int(fd)) }); err != nil {
		return err
	}
	return failure
}
