package relay

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Packets relays datagrams. Each client address has an association with the
// target: a socket of its own, which the answers come back on.
type Packets struct {
	// Listener is a bound UDP socket, which Serve takes over.
	Listener *os.File
	// Target is asked for each new association.
	Target func() []End
	// Timeout is how long an association lives without traffic.
	Timeout time.Duration
	// MaxClients bounds the associations: the one that is idle longest goes.
	MaxClients int
	// Warn, if not nil, is told of what could not be relayed.
	Warn func(what string, err error)
	// Changed, if not nil, is told when the number of associations changes
	// between 0 and not 0.
	Changed func(open int)

	mu       sync.Mutex
	listener *net.UDPConn
	open     map[netip.AddrPort]*association
	closed   bool
	all      sync.WaitGroup
}

type association struct {
	net.Conn
	last time.Time
}

// Serve relays until Close is called.
func (p *Packets) Serve() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	c, err := net.FilePacketConn(p.Listener)
	p.Listener.Close()
	listener, ok := c.(*net.UDPConn)
	p.listener, p.open = listener, map[netip.AddrPort]*association{}
	p.mu.Unlock()
	if !ok {
		p.warn("listening", err)
		return
	}
	buffer := make([]byte, 1<<16)
	for {
		n, client, err := listener.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // what an ICMP message said of an earlier answer
		}
		if a := p.association(client); a != nil {
			_, _ = a.Write(buffer[:n])
		}
	}
}

func (p *Packets) association(client netip.AddrPort) *association {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.open[client]; a != nil || p.closed {
		if a != nil {
			a.last = time.Now()
		}
		return a
	}
	var oldest *association
	if len(p.open) >= p.MaxClients {
		for _, a := range p.open {
			if oldest == nil || a.last.Before(oldest.last) {
				oldest = a
			}
		}
		oldest.Close()
	}
	var failure error
	for _, end := range p.Target() {
		take := end.Take
		if end.Stock != nil {
			take = end.Stock.Take
		}
		socket, err := take()
		if err == nil {
			if end.Address != nil {
				err = connectFile(socket, end.Address)
			}
			var c net.Conn
			if err == nil {
				c, err = net.FileConn(socket)
			}
			socket.Close()
			if err == nil {
				a := &association{c, time.Now()}
				p.open[client] = a
				if len(p.open) == 1 && p.Changed != nil {
					p.Changed(1)
				}
				p.all.Go(func() { p.answer(client, a) })
				return a
			}
		}
		failure = err
	}
	p.warn("reaching the service", failure)
	return nil
}

func (p *Packets) answer(client netip.AddrPort, a *association) {
	buffer := make([]byte, 1<<16)
	for {
		p.mu.Lock()
		ends := a.last.Add(p.Timeout)
		p.mu.Unlock()
		_ = a.SetReadDeadline(ends)
		n, err := a.Read(buffer)
		if err == nil {
			p.mu.Lock()
			a.last = time.Now()
			p.mu.Unlock()
			_, _ = p.listener.WriteToUDPAddrPort(buffer[:n], client)
			continue
		}
		p.mu.Lock()
		gone := errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(a.last.Add(p.Timeout))
		if gone {
			a.Close()
			if p.open[client] == a {
				delete(p.open, client)
			}
			if len(p.open) == 0 && p.Changed != nil {
				p.Changed(0)
			}
		}
		p.mu.Unlock()
		if gone {
			return
		}
	}
}

// Close ends all associations.
func (p *Packets) Close() {
	p.mu.Lock()
	p.closed = true
	if p.listener != nil {
		p.listener.Close()
	}
	p.Listener.Close()
	for _, a := range p.open {
		a.Close()
	}
	p.mu.Unlock()
	p.all.Wait()
}

// Open is the number of associations.
func (p *Packets) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

func (p *Packets) warn(what string, err error) {
	if p.Warn != nil {
		p.Warn(what, err)
	}
}

func connectFile(f *os.File, address unix.Sockaddr) error { return unix.Connect(int(f.Fd()), address) }
