package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Port is DNS's.
const Port = 53

// Forwarder answers queries that come in over UDP and TCP.
type Forwarder struct {
	// Host says whom to ask.
	Host *Host
	// Changed, if not nil, is told when the host's file has changed.
	Changed func(Config)
	// Local, if not nil, knows names that the host's servers don't. They are in
	// lower case without a dot at the end.
	Local func(name string) (netip.Addr, bool)
	// Found, if not nil, is told of the addresses in an answer, before who asked gets
	// it: by the name that was asked for, in lower case without a dot at its end.
	Found func(name string, addresses []netip.Addr)

	ctx     context.Context
	stop    context.CancelFunc
	packets *net.UDPConn
	stream  net.Listener
	slots   chan struct{} // of queries over UDP
	talks   chan struct{} // of connections
	asking  sync.WaitGroup
	mu      sync.Mutex
	open    map[net.Conn]bool // nil once closed
}

// Times of a query. A client of glibc's gives each server 5 seconds; it is to
// have an answer before.
const (
	patience = 1500 * time.Millisecond // for each server
	rounds   = 3                       // of servers asked, at most
)

// maxQueries bounds the queries under way over UDP, of which any more get SERVFAIL,
// and the connections, of which any more are closed.
const maxQueries = 256

// Serve takes over a bound UDP socket and a listening TCP socket, and answers in
// the background until Close.
func (f *Forwarder) Serve(packets, stream *os.File) error {
	defer packets.Close()
	defer stream.Close()
	c, err := net.FilePacketConn(packets)
	if err != nil {
		return err
	}
	if f.stream, err = net.FileListener(stream); err != nil {
		c.Close()
		return err
	}
	f.packets = c.(*net.UDPConn)
	f.slots, f.talks, f.open = make(chan struct{}, maxQueries), make(chan struct{}, maxQueries), map[net.Conn]bool{}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.asking.Go(f.receive)
	f.asking.Go(f.accept)
	return nil
}

// Close ends it and waits.
func (f *Forwarder) Close() {
	f.mu.Lock()
	for c := range f.open {
		c.Close()
	}
	f.open = nil
	f.mu.Unlock()
	f.stop()
	f.packets.Close()
	f.stream.Close()
	f.asking.Wait()
}

// current says whom to ask.
func (f *Forwarder) current() Config {
	c, changed := f.Host.Current()
	if changed && f.Changed != nil {
		f.Changed(c)
	}
	return c
}

// hold has a connection closed by Close; false says that it is too late for that.
func (f *Forwarder) hold(c net.Conn) (release func(), ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		c.Close()
		return nil, false
	}
	f.open[c] = true
	return func() {
		c.Close()
		f.mu.Lock()
		delete(f.open, c)
		f.mu.Unlock()
	}, true
}

func (f *Forwarder) receive() {
	buf := make([]byte, 1<<16)
	for {
		n, client, err := f.packets.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !isQuery(buf[:n]) {
			continue
		}
		if answer := f.local(buf[:n]); answer != nil {
			_, _ = f.packets.WriteToUDPAddrPort(answer, client)
			continue
		}
		query := append([]byte(nil), buf[:n]...)
		select {
		case f.slots <- struct{}{}:
		default:
			_, _ = f.packets.WriteToUDPAddrPort(failure(query), client)
			continue
		}
		f.asking.Go(func() {
			defer func() { <-f.slots }()
			answer := f.ask(query)
			asked, _ := question(query)
			f.note(answer, asked)
			_, _ = f.packets.WriteToUDPAddrPort(answer, client)
		})
	}
}

// note tells of the addresses in an answer to what was asked.
func (f *Forwarder) note(answer []byte, asked string) {
	if f.Found == nil {
		return
	}
	if name, addresses := found(answer); name == asked && len(addresses) > 0 {
		f.Found(name, addresses)
	}
}

// local answers what is known here. Who looks up a name without a dot tries it in
// the domains of the search list first.
func (f *Forwarder) local(query []byte) []byte {
	if f.Local == nil {
		return nil
	}
	return local(query, func(name string) (netip.Addr, bool) {
		first, domain, found := strings.Cut(name, ".")
		if found && !slices.Contains(strings.Fields(strings.ToLower(f.current().Search)), domain) {
			return netip.Addr{}, false
		}
		return f.Local(first)
	})
}

// ask asks the servers in turn and returns an answer, SERVFAIL if there is none.
func (f *Forwarder) ask(query []byte) []byte {
	answer := failure(query)
	servers := f.current().Servers
	// A server that is known to be out of reach needs no second try.
	dead := make([]bool, len(servers))
	for i := 0; i < rounds; i++ {
		for n := range servers {
			at := (i + n) % len(servers)
			if dead[at] {
				continue
			}
			got, err := f.askOne(servers[at], query)
			if err == nil && code(got) != servfail {
				return got
			}
			if err == nil {
				answer = got
			}
			dead[at] = !errors.Is(err, os.ErrDeadlineExceeded)
			if !dead[at] {
				break // that was this round's time
			}
		}
	}
	return answer
}

func (f *Forwarder) askOne(server netip.Addr, query []byte) ([]byte, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, Port)))
	if err != nil {
		return nil, err
	}
	release, ok := f.hold(conn)
	if !ok {
		return nil, net.ErrClosed
	}
	defer release()
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<16)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, err
		}
		if isAnswer(buf[:n], query) {
			return buf[:n], nil
		}
	}
}

// The header of a message (RFC 1035, 4.1.1): id, flags, four counts.
const (
	headerSize = 12
	response   = 0x80 // of the third byte
	opcode     = 0x78
	recursion  = 0x01 // desired
	available  = 0x80 // of the fourth byte: recursion
	servfail   = 2
)

func isQuery(m []byte) bool { return len(m) >= headerSize && m[2]&response == 0 }

func isAnswer(m, query []byte) bool {
	return len(m) >= headerSize && m[2]&response != 0 && binary.BigEndian.Uint16(m) == binary.BigEndian.Uint16(query)
}

func code(m []byte) byte { return m[3] & 0xf }

// failure is SERVFAIL for a query: its header and its question.
func failure(query []byte) []byte {
	end := headerSize
	questions := binary.BigEndian.Uint16(query[4:])
	for range questions {
		for end < len(query) && query[end] != 0 && query[end]&0xc0 == 0 {
			end += 1 + int(query[end])
		}
		end += 1 + 4 // the root label, type, class
		if end > len(query) {
			end, questions = headerSize, 0
			break
		}
	}
	m := append([]byte(nil), query[:end]...)
	m[2] = response | m[2]&(opcode|recursion)
	m[3] = available | servfail
	binary.BigEndian.PutUint16(m[4:], questions)
	clear(m[6:headerSize])
	return m
}
