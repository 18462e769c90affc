package keeper

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
)

// sendSockets makes sockets and hands them over.
func sendSockets(reply *seqpacket.Conn, s *Sockets) {
	files, err := makeSockets(s)
	if err != nil {
		_ = reply.Send(Reply{Kind: Failed, Error: err.Error(), Status: 125})
		return
	}
	_ = reply.Send(Reply{Kind: Started}, files...)
	closeAll(files...)
}

func makeSockets(s *Sockets) ([]*os.File, error) {
	if s.Count < 1 || s.Count > MaxSockets {
		return nil, fmt.Errorf("%d sockets asked for: 1 to %d can be had at once", s.Count, MaxSockets)
	}
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	switch s.Network {
	case "tcp4":
	case "tcp6":
		family = unix.AF_INET6
	case "udp4":
		kind = unix.SOCK_DGRAM
	case "udp6":
		family, kind = unix.AF_INET6, unix.SOCK_DGRAM
	default:
		return nil, fmt.Errorf("network %q: tcp4, tcp6, udp4 or udp6 expected", s.Network)
	}
	files := make([]*os.File, 0, s.Count)
	for range s.Count {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			closeAll(files...)
			return nil, os.NewSyscallError("socket", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "socket"))
	}
	return files, nil
}
