package resolver

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// idle is how long a connection may be without a message. RFC 7766, 6.2.3, asks
// for seconds; a transfer's next message may take its server a while.
const idle = 30 * time.Second

// accept has the connections of clients.
func (f *Forwarder) accept() {
	for {
		c, err := f.stream.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// No descriptor is left: the client waits in the backlog.
			select {
			case <-f.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case f.talks <- struct{}{}:
		default:
			c.Close()
			continue
		}
		f.asking.Go(func() {
			defer func() { <-f.talks }()
			f.converse(c)
		})
	}
}

// converse answers the queries of one connection, and passes those on that it
// can't answer, by one connection to a server.
func (f *Forwarder) converse(c net.Conn) {
	release, ok := f.hold(c)
	if !ok {
		return
	}
	defer release()
	client := &talker{Conn: c}
	var server *talker
	var answering sync.WaitGroup
	defer answering.Wait()
	for {
		query, err := client.receive()
		if err != nil || !isQuery(query) {
			if server == nil {
				return
			}
			if errors.Is(err, io.EOF) {
				// Who has asked all still wants the answers.
				_ = server.Conn.(*net.TCPConn).CloseWrite()
				return
			}
			server.Close()
			return
		}
		answer := f.local(query)
		if answer == nil && server == nil {
			conn, err := f.dial()
			if err != nil {
				answer = failure(query)
			} else if release, ok := f.hold(conn); !ok {
				return
			} else {
				server = &talker{Conn: conn}
				answering.Go(func() {
					defer release()
					f.answer(client, server)
				})
			}
		}
		if answer != nil {
			err = client.send(answer)
		} else {
			err = server.send(query)
		}
		if err != nil {
			client.Close() // the next query finds that out
		}
	}
}

// answer passes on what a server says: of a transfer, many messages to a query.
func (f *Forwarder) answer(client, server *talker) {
	defer client.Close()
	for {
		m, err := server.receive()
		if err != nil {
			return
		}
		if len(m) >= headerSize {
			asked, _ := question(m)
			f.note(m, asked)
		}
		if client.send(m) != nil {
			return
		}
		// It has not been idle.
		_ = client.SetReadDeadline(time.Now().Add(idle))
	}
}

// dial connects to the first server that can be reached, for queries over TCP.
func (f *Forwarder) dial() (net.Conn, error) {
	failure := errors.New("there is no name server")
	for _, s := range f.current().Servers {
		dialer := net.Dialer{Timeout: patience}
		c, err := dialer.DialContext(f.ctx, "tcp", netip.AddrPortFrom(s, Port).String())
		if err == nil {
			return c, nil
		}
		failure = err
	}
	return nil, failure
}

// talker is a connection with messages: each has its length before it, two bytes
// (RFC 1035, 4.2.2).
type talker struct {
	net.Conn
	mu sync.Mutex // of sending
}

func (t *talker) receive() ([]byte, error) {
	_ = t.SetReadDeadline(time.Now().Add(idle))
	var size [2]byte
	if _, err := io.ReadFull(t, size[:]); err != nil {
		return nil, err
	}
	m := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(t, m); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return m, nil
}

func (t *talker) send(m []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.SetWriteDeadline(time.Now().Add(idle))
	// At once: a client may expect length and message in one segment.
	_, err := t.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
	return err
}
