// Package notify receives what a container's init says of itself over
// NOTIFY_SOCKET (sd_notify(3)): datagrams of NAME=value lines. Whoever is root
// in the container can send them, so nothing in them is believed but that init
// says it is ready and what it is doing.
package notify

import (
	"errors"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDatagram is more than systemd ever sends; the kernel cuts the rest off.
const maxDatagram = 4096

// Message is what nuc reads of a datagram.
type Message struct {
	Ready bool
	// Stopping and Reloading are init's own state.
	Stopping, Reloading bool
	// Status is free text, or empty.
	Status string
}

// Parse reads a datagram. Other names (MAINPID=, FDSTORE=, ERRNO=, …) are ignored.
func Parse(data []byte) Message {
	var m Message
	for _, line := range strings.Split(string(data), "\n") {
		name, value, _ := strings.Cut(line, "=")
		switch {
		case line == "READY=1":
			m.Ready = true
		case line == "STOPPING=1":
			m.Stopping = true
		case line == "RELOADING=1":
			m.Reloading = true
		case name == "STATUS":
			m.Status = value
		}
	}
	return m
}

// Socket is a listening notification socket.
type Socket struct {
	conn *net.UnixConn
}

// Listen makes the socket called name in a folder; uid and gid may write to it.
func Listen(dir *os.File, path string, uid, gid int) (*Socket, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return nil, err
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	err = unix.Fchmodat(int(dir.Fd()), name, 0o600, 0)
	if err == nil {
		err = unix.Fchownat(int(dir.Fd()), name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		conn.Close()
		return nil, &os.PathError{Op: "chown", Path: path, Err: err}
	}
	return &Socket{conn: conn}, nil
}

// FromFile takes over a socket that another process listens at; f is closed.
func FromFile(f *os.File) (*Socket, error) {
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("a file was sent that is no notification socket")
	}
	return &Socket{conn: conn}, nil
}

// File returns a duplicate of its descriptor.
func (s *Socket) File() (*os.File, error) { return s.conn.File() }

// Receive waits for the next message. Descriptors that come with one are never
// installed: without room for control data the kernel drops them (unix(7)).
func (s *Socket) Receive() (Message, error) {
	buf := make([]byte, maxDatagram)
	n, _, err := s.conn.ReadFromUnix(buf)
	if err != nil {
		return Message{}, err
	}
	return Parse(buf[:n]), nil
}

// Close ends Receive.
func (s *Socket) Close() error { return s.conn.Close() }
