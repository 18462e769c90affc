package starter

import (
	"errors"
	"net"
	"os"

	"github.com/nix-user-containers/nuc/go/internal/notify"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// The runtime folder is the supervisor's own to write to, confined or not. One
// that was removed and made anew while it is confined is the starter's.

// elsewhere is the starter, where the runtime folder is its, else nil.
func (c *Client) elsewhere() *seqpacket.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.renewed {
		return nil
	}
	return c.conn
}

// Renew makes a runtime folder anew that was lost, takes its lock, and listens at
// the socket called name in it.
func (c *Client) Renew(l *state.Lock, name string) (*state.Lock, *net.UnixListener, error) {
	container := c.Folders.Container(c.Name)
	conn, end, err := c.begin()
	if err != nil {
		return nil, nil, err
	}
	defer end()
	lost := l.Renews(container)
	if conn == nil || !lost && c.elsewhere() == nil {
		if l, err = l.Renew(container); err != nil {
			return nil, nil, err
		}
		control, err := seqpacket.Listen(l.Folder, name)
		return l, control, err
	}
	var held []*os.File // only the socket is gone
	if !lost {
		held = []*os.File{l.File, l.Folder}
	}
	a, err := exchange(conn, request{Op: opRenew, Name: name}, 3, held...)
	if err != nil && err.Error() == state.ErrHeld.Error() {
		return nil, nil, state.ErrHeld
	}
	if err != nil {
		return nil, nil, err
	}
	defer a.Close()
	socket := a.Take(2)
	defer socket.Close()
	listener, err := net.FileListener(socket)
	if err != nil {
		return nil, nil, err
	}
	control, ok := listener.(*net.UnixListener)
	if !ok {
		listener.Close()
		return nil, nil, errors.New("starter: a file came that is no control socket")
	}
	control.SetUnlinkOnClose(false)
	renewed := &state.Lock{File: a.Take(0), Folder: a.Take(1)}
	l.Replace(renewed)
	c.mu.Lock()
	c.renewed = true
	c.mu.Unlock()
	return renewed, control, nil
}

// Furnish makes /run/host of a run.
func (c *Client) Furnish(uuid string) (*notify.Socket, error) {
	conn := c.elsewhere()
	if conn == nil {
		return c.furnish(uuid)
	}
	a, err := exchange(conn, request{Op: opFurnish, UUID: uuid}, 1)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return notify.FromFile(a.Take(0))
}

// Publish puts a file into /run/host.
func (c *Client) Publish(name, text string) error {
	conn := c.elsewhere()
	if conn == nil {
		return c.publish(name, text)
	}
	_, err := once(conn, request{Op: opPublish, Name: name, Text: text})
	return err
}

// Tidy removes what is in the runtime folder, and the folder.
func (c *Client) Tidy(l *state.Lock) error {
	conn := c.elsewhere()
	if conn == nil {
		return l.Tidy()
	}
	a, err := exchange(conn, request{Op: opTidy}, 0, l.File, l.Folder)
	if err == nil {
		a.Close()
	}
	return err
}

// serveRenew makes the folder anew, or only the socket in one whose lock and self
// come along. The lock goes with its file.
func (w *worker) serveRenew(answers *seqpacket.Conn, name string, held []*os.File) error {
	if !plain(name) {
		return errors.New("renew: no socket's name came")
	}
	var l *state.Lock
	var err error
	if len(held) == 2 {
		l = &state.Lock{File: held[0], Folder: held[1]}
	} else if l, err = w.Folders.Container(w.Name).AcquireRuntime(); err != nil {
		return err
	}
	defer l.Close()
	if err := os.Mkdir(w.runtime()+"/root", 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	control, err := seqpacket.Listen(l.Folder, name)
	if err != nil {
		return err
	}
	defer control.Close()
	socket, err := control.File()
	if err != nil {
		return err
	}
	defer socket.Close()
	return answers.Send(reply{Kind: done}, l.File, l.Folder, socket)
}

func (w *worker) serveFurnish(answers *seqpacket.Conn, uuid string) error {
	s, err := w.furnish(uuid)
	if err != nil {
		return err
	}
	defer s.Close()
	f, err := s.File()
	if err != nil {
		return err
	}
	defer f.Close()
	return answers.Send(reply{Kind: done}, f)
}
