// Package seqpacket sends JSON messages with file descriptors over
// SOCK_SEQPACKET unix sockets (unix(7)): one packet is one message, so a reader
// never sees half of one, and descriptors stay with the message they came with.
package seqpacket

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// MaxMessage bounds a message, in bytes; a larger one is refused at both ends.
	MaxMessage = 8 << 20
	// maxInline is what travels in the packet itself; the rest goes through a
	// memfd, since a packet can't be larger than net.core.wmem_default.
	maxInline = 32 << 10
	// MaxFDs bounds the descriptors of one message (the kernel takes 253).
	MaxFDs = 64
)

// ErrTooLarge is returned for a message of more than MaxMessage bytes.
var ErrTooLarge = errors.New("message is larger than 8 MiB")

// ErrDropped is what Receive returns for a message that it refuses. The
// connection goes on.
var ErrDropped = errors.New("message was dropped")

// Conn is one end of a connection.
type Conn struct {
	c *net.UnixConn
}

// New wraps a connected "unixpacket" connection.
func New(c *net.UnixConn) *Conn { return &Conn{c: c} }

// FromFile takes over a connected SOCK_SEQPACKET socket; f is closed.
func FromFile(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	// Of another kind, messages would be cut anywhere, and none end when the peer
	// does.
	if !ok || c.LocalAddr().Network() != "unixpacket" {
		c.Close()
		return nil, errors.New("is no unix socket of type SOCK_SEQPACKET")
	}
	return New(u), nil
}

// Pair returns a connection and the file of its peer, to be given to a child.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	child := os.NewFile(uintptr(fds[1]), "peer")
	c, err := FromFile(os.NewFile(uintptr(fds[0]), "socketpair"))
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return c, child, nil
}

// Dial connects to the socket called name in the folder dir. The path goes
// through the folder's descriptor, so its length does not matter (sun_path
// holds 108 bytes).
func Dial(dir *os.File, name string) (*Conn, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Net: "unixpacket", Name: fdPath(dir, name)})
	if err != nil {
		return nil, err
	}
	return New(c), nil
}

// Listen makes the socket called name, mode 0600, in the folder dir.
func Listen(dir *os.File, name string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: fdPath(dir, name)})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := unix.Fchmodat(int(dir.Fd()), name, 0o600, 0); err != nil {
		l.Close()
		return nil, &os.PathError{Op: "chmod", Path: name, Err: err}
	}
	return l, nil
}

// Accept waits for a connection of the calling process's user, or root's; any
// other is hung up on. Processes that share a user id share what these sockets
// command, so the check is the same everywhere.
func Accept(l *net.UnixListener) (*Conn, error) {
	for {
		u, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		c := New(u)
		if peer, err := c.Peer(); err == nil && (peer.Uid == 0 || int(peer.Uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

func fdPath(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// Message is what Receive returns: JSON, and descriptors owned by the caller.
type Message struct {
	Data []byte
	FDs  []*os.File
}

// Decode parses the message's JSON.
func (m *Message) Decode(v any) error { return json.Unmarshal(m.Data, v) }

// Take hands over descriptor i, or nil where there is none.
func (m *Message) Take(i int) *os.File {
	if i >= len(m.FDs) {
		return nil
	}
	f := m.FDs[i]
	m.FDs[i] = nil
	return f
}

// TakeAll hands over all descriptors.
func (m *Message) TakeAll() []*os.File {
	files := m.FDs
	m.FDs = nil
	return files
}

// Close closes the descriptors that were not taken.
func (m *Message) Close() {
	for _, f := range m.FDs {
		if f != nil {
			f.Close()
		}
	}
	m.FDs = nil
}

// large is the first byte of a packet whose JSON is in the first descriptor;
// no JSON text begins with it.
const large = 0x01

// Send encodes v and sends it with the descriptors, which stay the caller's.
func (c *Conn) Send(v any, files ...*os.File) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.SendRaw(data, files...)
}

// SendRaw sends JSON that is encoded already.
func (c *Conn) SendRaw(data []byte, files ...*os.File) error {
	if len(data) > MaxMessage {
		return ErrTooLarge
	}
	fds := make([]int, 0, len(files)+1)
	if len(data) > maxInline {
		fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
		if err != nil {
			return os.NewSyscallError("memfd_create", err)
		}
		f := os.NewFile(uintptr(fd), "message")
		defer f.Close()
		if _, err := f.Write(data); err != nil {
			return err
		}
		fds = append(fds, fd)
		data = []byte{large}
	}
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := c.c.WriteMsgUnix(data, oob, nil)
	return err
}

// Receive waits for a message. It returns io.EOF when the peer is gone, and
// ErrDropped with the reason for a message that is not one.
func (c *Conn) Receive() (*Message, error) {
	buf := make([]byte, maxInline)
	oob := make([]byte, unix.CmsgSpace((MaxFDs+1)*4))
	n, oobn, flags, _, err := c.c.ReadMsgUnix(buf, oob)
	m := &Message{}
	if oobn > 0 {
		m.FDs, _ = parseRights(oob[:oobn])
	}
	switch {
	case err != nil:
		m.Close()
		if errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) {
			err = io.EOF
		}
		return nil, err
	case n == 0:
		m.Close()
		return nil, io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = ErrTooLarge
	}
	m.Data = buf[:n]
	if err == nil && n == 1 && buf[0] == large {
		m.Data, err = readLarge(m)
	}
	// The room for control data is rounded up, so that more may have come.
	if err == nil && len(m.FDs) > MaxFDs {
		err = ErrTooLarge
	}
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%w: %w", ErrDropped, err)
	}
	return m, nil
}

// readLarge takes the JSON out of the message's first descriptor, which must be
// a regular file: reading a fifo or a terminal could wait for ever.
func readLarge(m *Message) ([]byte, error) {
	f := m.Take(0)
	if f == nil {
		return nil, errors.New("large message without its descriptor")
	}
	defer f.Close()
	m.FDs = m.FDs[1:]
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > MaxMessage {
		return nil, ErrTooLarge
	}
	data := make([]byte, st.Size)
	n, err := f.ReadAt(data, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return data[:n], nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// Peer returns the credentials of the process that connected (SO_PEERCRED).
func (c *Conn) Peer() (*unix.Ucred, error) {
	raw, err := c.c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var serr error
	if err := raw.Control(func(fd uintptr) {
		cred, serr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, serr
}

// File returns a duplicate of the connection's descriptor.
func (c *Conn) File() (*os.File, error) { return c.c.File() }

// Net returns the connection underneath, for deadlines.
func (c *Conn) Net() *net.UnixConn { return c.c }

// Close closes the connection.
func (c *Conn) Close() error { return c.c.Close() }
