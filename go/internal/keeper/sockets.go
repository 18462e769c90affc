package keeper

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

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

// listen opens a listening socket in the container's network, or in a folder of
// its file systems.
func (k *keeper) listen(l *Listen) ([]*os.File, error) {
	f, err := k.inside(func(enter func() error) (*os.File, error) { return socket.Listen(*l, enter) })
	if err != nil {
		return nil, err
	}
	return []*os.File{f}, nil
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

// inside calls f with a function that brings the calling thread to where the
// container's paths are.
func (k *keeper) inside(f func(enter func() error) (*os.File, error)) (*os.File, error) {
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
