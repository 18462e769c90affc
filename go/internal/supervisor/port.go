package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/relay"
)

// port is a declared port: a listener on the host, relayed into the container.
type port struct {
	listener *os.File // listening
	// declared may change while it is served: its container end.
	declared atomic.Pointer[descriptor.Port]
	server   *relay.Server
}

// listen opens the host's end of all ports but the known ones, or of none.
func listen(ports []descriptor.Port, known func(descriptor.Port) bool) ([]*port, error) {
	var open []*port
	for i, p := range ports {
		if known(p) {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(p.Address, strconv.Itoa(p.Host)))
		if err != nil {
			for _, o := range open {
				o.listener.Close()
			}
			return nil, portError(i, p, err)
		}
		file, err := l.(*net.TCPListener).File()
		l.Close()
		if err != nil {
			for _, o := range open {
				o.listener.Close()
			}
			return nil, portError(i, p, err)
		}
		one := &port{listener: file}
		one.declared.Store(&p)
		open = append(open, one)
	}
	return open, nil
}

func portError(i int, p descriptor.Port, err error) error {
	where := fmt.Sprintf("network.ports[%d]: %s", i, net.JoinHostPort(p.Address, fmt.Sprint(p.Host)))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%s: something listens there already (`ss -ltnp` shows what): stop it, or choose another host port", where)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: ports below %s need a right that you don't have: choose a higher host port", where, firstUnprivileged())
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine has no such address", where)
	}
	return fmt.Errorf("%s: %w", where, err)
}

func firstUnprivileged() string {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return "1024"
	}
	return strings.TrimSpace(string(data))
}

// listen opens the declared ports, so that one that is taken is told before
// anything is started.
func (s *Supervisor) listen() error {
	ports, err := listen(s.descriptor().Network.Ports, func(descriptor.Port) bool { return false })
	if err != nil {
		return err
	}
	s.ports = ports
	s.showPorts()
	return nil
}

// showPorts puts the ports into the status.
func (s *Supervisor) showPorts() {
	var shown []Port
	for _, p := range s.ports {
		d := p.declared.Load()
		shown = append(shown, Port{Protocol: d.Protocol, Address: d.Address, Host: d.Host, Container: d.Container})
	}
	s.change(func(st *Status) { st.Ports = shown })
}

// serve relays in the background. It is called once the keeper is there.
func (p *port) serve(s *Supervisor) {
	p.server = &relay.Server{
		Listener: p.listener,
		Target:   func() []relay.End { return s.ends(p.declared.Load().Container) },
		Warn: func(what string, err error) {
			d := p.declared.Load()
			s.log.Warn("port: "+what, "container", s.o.Container.Name, "host", d.Host, "port", d.Container, "error", err)
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

// ends are the ways to a service on the container's loopback, of either family.
// In a host network, sockets of the supervisor's own would do; the keeper's are
// of the same namespace.
func (s *Supervisor) ends(number int) []relay.End {
	return []relay.End{
		{Stock: &s.sockets4, Address: &unix.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}},
		{Stock: &s.sockets6, Address: &unix.SockaddrInet6{Port: number, Addr: [16]byte{15: 1}}},
	}
}
