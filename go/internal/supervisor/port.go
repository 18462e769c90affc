package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/relay"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
)

// port is a declared port: a listener on the host, relayed into the container.
type port struct {
	listener *net.TCPListener
	declared descriptor.Port
	server   *relay.Server
}

// serve relays in the background. It is called once the keeper is there.
func (p *port) serve(s *Supervisor) {
	p.server = &relay.Server{
		Listener: p.listener,
		Dial:     func() (*net.TCPConn, error) { return s.dial(p.declared.Container) },
		Warn: func(what string, err error) {
			s.log.Warn("port: "+what, "container", s.o.Descriptor.Name, "host", p.declared.Host, "port", p.declared.Container, "error", err)
		},
	}
	go p.server.Serve()
}

func (p *port) close() {
	if p.server == nil {
		p.listener.Close()
		return
	}
	p.server.Close()
}

// dial connects to a service on the container's loopback, of either family. In
// a host network, sockets of the supervisor's own would do; the keeper's are of
// the same namespace.
func (s *Supervisor) dial(number int) (*net.TCPConn, error) {
	v4 := &unix.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}
	conn, err := s.connect(&s.sockets4, v4)
	if !errors.Is(err, unix.ECONNREFUSED) {
		return conn, err
	}
	v6 := &unix.SockaddrInet6{Port: number, Addr: [16]byte{15: 1}}
	if conn, err6 := s.connect(&s.sockets6, v6); err6 == nil {
		return conn, nil
	}
	return nil, err
}

func (s *Supervisor) connect(stock *relay.Stock, address unix.Sockaddr) (*net.TCPConn, error) {
	socket, err := stock.Take()
	if err != nil {
		return nil, err
	}
	return relay.Connect(socket, address)
}

// makeSockets returns the maker of a stock of the container's sockets.
func (s *Supervisor) makeSockets(network string) func(int) ([]*os.File, error) {
	return func(n int) ([]*os.File, error) {
		reply, peer, err := seqpacket.Pair()
		if err != nil {
			return nil, err
		}
		defer reply.Close()
		err = s.keeper.Conn.Send(keeper.Request{Op: keeper.OpSockets, Sockets: &keeper.Sockets{Network: network, Count: n}}, peer)
		peer.Close()
		if err != nil {
			return nil, fmt.Errorf("keeper: %w", err)
		}
		m, r, err := receive(reply)
		if err != nil {
			return nil, err
		}
		if r.Kind != keeper.Started || len(m.FDs) != n {
			m.Close()
			return nil, errors.New(r.Error)
		}
		return m.FDs, nil
	}
}
