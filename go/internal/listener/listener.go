// Package listener opens the sockets of this machine that a container's clients
// connect to, and says what is in the way of one.
package listener

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/socket"
)

// Address is where to listen.
type Address struct {
	Protocol string // tcp or udp
	Host     netip.Addr
	Port     int // 0: the kernel chooses
	// Both has the address :: take IPv4 clients as well, as a systemd socket
	// unit without an address does.
	Both bool
}

// String is the address as in 127.0.0.1:53/udp.
func (a Address) String() string {
	text := netip.AddrPortFrom(a.Host, uint16(a.Port)).String()
	if a.Protocol == "udp" {
		text += "/" + a.Protocol
	}
	return text
}

// Error is an address that can't be listened on.
type Error struct {
	Address Address
	Err     error
	// Holder is who listens there already, where that is the reason.
	Holder Holder
}

func (e *Error) Unwrap() error { return e.Err }

// Error is one line: where, why, and what to do about it.
func (e *Error) Error() string {
	switch {
	case errors.Is(e.Err, unix.EADDRINUSE):
		return fmt.Sprintf("%s: %s listens there already: %s, or choose another host port", e.Address, e.Holder, e.Holder.remedy(e.Address))
	case errors.Is(e.Err, unix.EACCES):
		first := firstUnprivileged()
		return fmt.Sprintf("%s: ports below %s need a right that you don't have: choose a higher host port, or allow it with `sudo sysctl net.ipv4.ip_unprivileged_port_start=%d`", e.Address, first, e.Address.Port)
	case errors.Is(e.Err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("%s: this machine has no such address (`ip address` lists those it has)", e.Address)
	case errors.Is(e.Err, unix.EMFILE), errors.Is(e.Err, unix.ENFILE):
		return fmt.Sprintf("%s: no file descriptor is left for it (%v): take fewer ports, or raise the limit with `ulimit -n`", e.Address, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Address, e.Err)
}

// firstUnprivileged is where the ports begin that everybody may listen on (ip(7)).
func firstUnprivileged() string {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return "1024"
	}
	return strings.TrimSpace(string(data))
}

// Open binds a socket, and listens where the protocol has that. The error is an
// *Error.
func Open(a Address) (*os.File, error) {
	file, err := open(a)
	if err == nil {
		return file, nil
	}
	e := &Error{Address: a, Err: err}
	if errors.Is(err, unix.EADDRINUSE) {
		e.Holder = Find(a)
	}
	return nil, e
}

func open(a Address) (*os.File, error) {
	network := a.Protocol + "6"
	if a.Host.Is4() {
		network = a.Protocol + "4"
	}
	return socket.Listen(socket.Place{Network: network, Address: a.Host.String(), Port: a.Port, Both: a.Both}, nil)
}

// tries bounds the search for consecutive free ports.
const tries = 1000

// OpenRange opens count consecutive ports, all or none, and returns the first
// one's number. With port 0 they are wherever there are free ones.
func OpenRange(a Address, count int) ([]*os.File, int, error) {
	switch {
	case a.Port != 0:
		files, err := consecutive(a, count, Open)
		return files, a.Port, err
	case count == 1:
		file, err := Open(a)
		if err != nil {
			return nil, 0, err
		}
		bound, err := socket.Bound(file)
		if err != nil {
			file.Close()
			return nil, 0, err
		}
		return []*os.File{file}, int(bound.Port()), nil
	}
	// The kernel chooses among the ports that connections begin at. There, few are
	// free in a row on a busy machine; below, most are.
	last := firstEphemeral() - count
	if last <= lowest {
		last = 65536 - count
	}
	if last > lowest {
		for range tries {
			at := a
			at.Port = lowest + rand.IntN(last-lowest)
			// Who has one of them does not matter.
			files, err := consecutive(at, count, open)
			if err == nil {
				return files, at.Port, nil
			}
			if !errors.Is(err, unix.EADDRINUSE) {
				return nil, 0, &Error{Address: at, Err: err}
			}
		}
	}
	return nil, 0, fmt.Errorf("%s: found no %d consecutive ports that are free: ask for fewer, or name the first one", a, count)
}

// lowest is above the ports that services are known by.
const lowest = 10000

// firstEphemeral is where the ports begin that the kernel chooses (ip(7)).
func firstEphemeral() int {
	first := 32768
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(data), &first)
	}
	return first
}

func consecutive(a Address, count int, open func(Address) (*os.File, error)) ([]*os.File, error) {
	var files []*os.File
	for i := range count {
		at := a
		at.Port = a.Port + i
		file, err := open(at)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}
