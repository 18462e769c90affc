package keeper

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/listener"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// open answers a request for sockets.
func (k *keeper) open(reply *seqpacket.Conn, f func() ([]*os.File, error)) {
	defer reply.Close()
	files, err := f()
	if err != nil {
		r := Reply{Kind: Failed, Error: err.Error(), Status: statusNuc}
		var errno unix.Errno
		if errors.As(err, &errno) {
			r.Errno = int(errno)
		}
		var refused *refusedError
		if errors.As(err, &refused) {
			r.Port, r.Holder = refused.port, refused.holder
		}
		_ = reply.Send(r)
		return
	}
	_ = reply.Send(Reply{Kind: Started}, files...)
	closeAll(files...)
}

func makeSockets(s *Sockets) ([]*os.File, error) {
	if s.Count < 1 || s.Count > MaxSockets {
		return nil, fmt.Errorf("%d sockets asked for: 1 to %d can be had at once", s.Count, MaxSockets)
	}
	if s.Network == socket.Unix {
		return nil, errors.New("an unconnected Unix socket belongs to no container: dial is for those")
	}
	return socket.Make(s.Network, s.Count)
}

// refusedError is one of several ports that can't be had, and who has it.
type refusedError struct {
	port   int
	holder string
	err    error
}

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// listen opens listening sockets in the container's network, or one in a folder
// of its file systems.
func (k *keeper) listen(l *Listen, count int) ([]*os.File, error) {
	if count > MaxSockets || count > 1 && l.Network == socket.Unix {
		return nil, fmt.Errorf("%d listening sockets asked for: 1 to %d can be had at once, and 1 with a path", count, MaxSockets)
	}
	var files []*os.File
	for i := range count {
		place := *l
		place.Port += i
		f, err := k.listenOne(place)
		if err != nil {
			closeAll(files...)
			return nil, &refusedError{place.Port, holder(place, err), err}
		}
		files = append(files, f)
	}
	return files, nil
}

func (k *keeper) listenOne(place Listen) (*os.File, error) {
	if place.Network != socket.Unix {
		return socket.Listen(place, nil)
	}
	return k.inside(func(enter func() error) (*os.File, error) { return socket.Listen(place, enter) })
}

// holder is the program that listens in a place that is taken: the keeper is in
// the container's network, and may look at its processes.
func holder(p Listen, err error) string {
	if p.Network == socket.Unix || !errors.Is(err, unix.EADDRINUSE) {
		return ""
	}
	address, err := netip.ParseAddr(p.Address)
	if err != nil {
		return ""
	}
	h := listener.Find(listener.Address{Protocol: p.Network[:3], Host: address, Port: p.Port})
	if h.PID == 0 {
		return ""
	}
	return fmt.Sprintf("%s (process %d there)", h.Command, h.Inside)
}

// dial connects to a Unix socket in the container's file systems.
func (k *keeper) dial(d *Dial) ([]*os.File, error) {
	f, err := k.inside(func(enter func() error) (*os.File, error) { return socket.Dial(d.Path, enter) })
	if err != nil {
		return nil, err
	}
	return []*os.File{f}, nil
}

// forget removes a Unix socket that nobody listens on any more.
func (k *keeper) forget(d *Dial) error {
	_, err := k.inside(func(enter func() error) (*os.File, error) { return nil, socket.Remove(d.Path, enter) })
	return err
}

// entering has a token for each thread that is where the container's paths are:
// each takes a thread of its own, and a burst of requests is no reason for as many.
var entering = make(chan struct{}, 64)

// inside calls f with a function that brings the calling thread to where the
// container's paths are.
func (k *keeper) inside(f func(enter func() error) (*os.File, error)) (*os.File, error) {
	entering <- struct{}{}
	defer func() { <-entering }()
	k.mu.Lock()
	init, booted := dup(k.init), k.devpts != nil
	k.mu.Unlock()
	defer closeAll(init)
	return f(func() error {
		// Before that, it still has the host's files.
		if init == nil || !booted {
			return errors.New("the container's init is not up")
		}
		if err := setns(init, unix.CLONE_NEWNS); err != nil {
			return err
		}
		return userns.LimitThread(k.fixedNetwork)
	})
}

// setns puts the calling thread into namespaces of init's (Linux 5.8).
func setns(init *os.File, namespaces int) error {
	err := unix.Setns(int(init.Fd()), namespaces)
	switch err {
	case nil:
		return nil
	case unix.ESRCH:
		return errors.New("the container is just stopping")
	}
	return fmt.Errorf("entering the container: %w", err)
}
