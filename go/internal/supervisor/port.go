package supervisor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/listener"
	"github.com/nix-user-containers/nuc/go/internal/relay"
)

// entry is an element of network.ports that is in force.
type entry struct {
	declared descriptor.Port
	// first is the first number on the host: the declared one, or what the
	// kernel chose.
	first int
	ports []*port
}

// port is one number of the host that clients come to. Its socket is open as
// long as the supervisor holds the port, whoever accepts from it meanwhile.
type port struct {
	socket *os.File
	number int
	// target may change while it is served.
	target atomic.Pointer[target]

	mu     sync.Mutex
	mode   mode
	proxy  bool // the server's
	server server
}

// target is where in the container a port leads.
type target struct {
	declared  descriptor.Port
	container int
}

// server is a relay.Server or relay.Packets.
type server interface {
	Serve()
	Close()
	CloseIdle() bool
	Open() int
}

// mode is what is done with a port's clients.
type mode int

const (
	resting  mode = iota // they wait in the backlog
	relaying             // they reach the container
	refusing             // they are told at once that there is nobody
)

// Associations of UDP ports: how long one lives without a datagram, and how
// many a port has at most.
const (
	associationTimeout = time.Minute
	maxAssociations    = 1024
)

// portsChange is what a list of ports makes of the ones that are held.
type portsChange struct {
	entries []*entry
	// added were opened for it; gone are not in it.
	added, gone []*port
}

func (c *portsChange) undo() {
	for _, p := range c.added {
		p.close()
	}
}

// openPorts opens the host's end of the declared ports, all or none. Those that
// are held already, in old, stay as they are: by their number, or, where the
// kernel chose it, by what they lead to. What is handed over can't change after
// the first time: it stays, and what would be is left out.
func openPorts(declared []descriptor.Port, old []*entry, first bool) (*portsChange, error) {
	c := &portsChange{}
	held := map[listener.Address]*port{}
	for _, e := range old {
		if e.declared.HandOver {
			continue
		}
		for _, p := range e.ports {
			held[address(e.declared, p.number)] = p
		}
	}
	chosen := chosenBefore(declared, old)
	handed := 0
	for i, d := range declared {
		if d.HandOver && !first {
			continue
		}
		e := &entry{declared: d, first: d.Host}
		c.entries = append(c.entries, e)
		if d.Host == 0 {
			e.first = chosen[i]
		}
		err := c.open(e, held)
		if err != nil && d.Host == 0 && e.first != 0 && errors.Is(err, unix.EADDRINUSE) {
			e.first = 0 // a range that has grown finds no room where it is
			err = c.open(e, held)
		}
		if d.HandOver {
			if handed += d.Count; handed > maxHandedOver && err == nil {
				err = fmt.Errorf("%d sockets are to be handed over up to here, and there can be %d", handed, maxHandedOver)
			}
		}
		if err != nil {
			c.undo()
			return nil, &portError{i, err}
		}
	}
	for _, e := range old {
		if e.declared.HandOver {
			c.entries = append(c.entries, e)
		}
	}
	for _, p := range held {
		c.gone = append(c.gone, p)
	}
	return c, nil
}

// chosenBefore finds, by the index of the declared port, the numbers that the
// kernel chose earlier: for the same port of the container, else for one that
// is like it.
func chosenBefore(declared []descriptor.Port, old []*entry) map[int]int {
	found, claimed := map[int]int{}, map[*entry]bool{}
	for _, same := range []func(a, b descriptor.Port) bool{
		func(a, b descriptor.Port) bool { return a.Container == b.Container },
		func(a, b descriptor.Port) bool { return a.Count == b.Count },
	} {
		for i, d := range declared {
			for _, e := range old {
				like := d.Host == 0 && e.declared.Host == 0 && e.declared.Protocol == d.Protocol && e.declared.Address == d.Address
				if found[i] == 0 && like && !claimed[e] && same(d, e.declared) {
					found[i], claimed[e] = e.first, true
				}
			}
		}
	}
	return found
}

// open fills an entry with ports, held ones where there are. It takes those out
// of held if all goes well.
func (c *portsChange) open(e *entry, held map[listener.Address]*port) error {
	d := e.declared
	e.ports = nil
	if e.first == 0 {
		files, first, err := listener.OpenRange(address(d, 0), d.Count)
		if err != nil {
			return err
		}
		e.first = first
		for i, f := range files {
			e.ports = append(e.ports, &port{socket: f, number: first + i})
		}
		c.added = append(c.added, e.ports...)
		return nil
	}
	var added []*port
	for number := e.first; number < e.first+d.Count; number++ {
		a := address(d, number)
		p := held[a]
		if p == nil || d.HandOver {
			file, err := listener.Open(a)
			if err != nil {
				for _, p := range added {
					p.close()
				}
				return err
			}
			p = &port{socket: file, number: number}
			added = append(added, p)
		}
		e.ports = append(e.ports, p)
	}
	for _, p := range e.ports {
		delete(held, address(d, p.number))
	}
	c.added = append(c.added, added...)
	return nil
}

func address(d descriptor.Port, number int) listener.Address {
	// The descriptor's addresses were checked when it was read.
	host, _ := netip.ParseAddr(d.Address)
	return listener.Address{Protocol: d.Protocol, Host: host, Port: number, Both: d.HandOver}
}

// portError is a port that can't be had.
type portError struct {
	index int
	err   error
}

func (e *portError) Error() string {
	return fmt.Sprintf("network.ports[%d]: %v", e.index, ownPort(e.err))
}

func (e *portError) Unwrap() error { return e.err }

// ownPort explains that it is the container itself that has the port, by another
// address of its present descriptor.
func ownPort(err error) error {
	var taken *listener.Error
	if errors.As(err, &taken) && taken.Holder.PID == os.Getpid() {
		return fmt.Errorf("%s: this container listens there itself, in another way: give them in two steps, or restart it", taken.Address)
	}
	return err
}

// listen opens the declared ports, so that one that is taken is told before
// anything is started.
func (s *Supervisor) listen() error {
	c, err := openPorts(s.descriptor().Network.Ports, nil, true)
	if err != nil {
		return err
	}
	s.usePorts(c)
	return nil
}

// CheckPorts tells what but the container itself is in the way of its ports, while
// it runs with others.
func CheckPorts(d *descriptor.Descriptor) error {
	for i, p := range d.Network.Ports {
		if p.Host == 0 {
			continue
		}
		for number := p.Host; number < p.Host+p.Count; number++ {
			file, err := listener.Open(address(p, number))
			if err == nil {
				file.Close()
				continue
			}
			var taken *listener.Error
			if !errors.As(err, &taken) || taken.Holder.Container != d.Name {
				return fmt.Errorf("network.ports[%d]: %w", i, err)
			}
		}
	}
	return nil
}

// usePorts puts a list of ports into force.
func (s *Supervisor) usePorts(c *portsChange) {
	for _, e := range c.entries {
		for i, p := range e.ports {
			p.target.Store(&target{e.declared, e.declared.Container + i})
		}
	}
	s.mu.Lock()
	s.entries = c.entries
	s.mu.Unlock()
	s.showPorts()
}

// ports are all that are held.
func (s *Supervisor) ports() []*port {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*port
	for _, e := range s.entries {
		all = append(all, e.ports...)
	}
	return all
}

// showPorts puts the ports into the status.
func (s *Supervisor) showPorts() {
	s.mu.Lock()
	entries := s.entries
	s.mu.Unlock()
	var shown []Port
	for _, e := range entries {
		d := e.declared
		p := Port{
			Protocol: d.Protocol, Address: d.Address, Host: e.first, Container: d.Container,
			ProxyProtocol: d.ProxyProtocol, HandOver: d.HandOver, SocketActivation: d.SocketActivation,
		}
		if d.Count > 1 {
			p.Count = d.Count
		}
		for _, one := range e.ports {
			p.Unclaimed = p.Unclaimed || d.HandOver && s.isUnclaimed(one)
		}
		shown = append(shown, p)
	}
	s.change(func(st *Status) { st.Ports = shown })
}

// arrange has each port accepted from as the container's phase asks for.
func (s *Supervisor) arrange() {
	s.arranging.Lock()
	defer s.arranging.Unlock()
	for _, p := range s.ports() {
		p.set(s, s.modeOf(p))
	}
}

func (s *Supervisor) modeOf(p *port) mode {
	s.mu.Lock()
	phase := s.phase
	s.mu.Unlock()
	d := p.target.Load().declared
	switch {
	case phase == phaseDown:
		return resting
	case d.HandOver && d.Protocol == "tcp" && (phase == phaseRefusing || s.isUnclaimed(p)):
		return refusing
	case d.HandOver:
		return resting
	case !d.SocketActivation || phase == phaseUp:
		return relaying
	case phase == phaseRefusing:
		return refusing
	}
	return resting
}

// set changes what is done with a port's clients.
func (p *port) set(s *Supervisor, m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	proxy := p.target.Load().declared.ProxyProtocol
	if m == p.mode && (m != relaying || proxy == p.proxy) {
		return
	}
	if p.server != nil {
		p.server.Close()
		p.server = nil
	}
	p.mode, p.proxy = m, proxy
	if m == resting {
		return
	}
	socket, err := p.dup()
	if err != nil {
		s.log.Warn("port", "container", s.o.Container.Name, "host", p.number, "error", err)
		p.mode = resting
		return
	}
	if m == refusing {
		p.server = &relay.Server{Listener: socket, Target: func() []relay.End { return nil }}
	} else {
		p.server = p.relay(s, socket)
	}
	go p.server.Serve()
}

// restIfIdle has a port's clients wait, unless there are some, and tells whether.
func (p *port) restIfIdle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		if !p.server.CloseIdle() {
			return false
		}
		p.server, p.mode = nil, resting
	}
	return true
}

// dup is for a server, which closes its socket when it ends.
func (p *port) dup() (*os.File, error) {
	// Not Fd, which would make the socket a blocking one.
	raw, err := p.socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	copied := -1
	var failure error
	err = raw.Control(func(fd uintptr) { copied, failure = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err := errors.Join(err, os.NewSyscallError("fcntl", failure)); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(copied), p.socket.Name()), nil
}

// relay is a server that leads into the container.
func (p *port) relay(s *Supervisor, socket *os.File) server {
	warn := func(what string, err error) {
		s.log.Warn("port: "+what, "container", s.o.Container.Name, "host", p.number, "port", p.target.Load().container, "error", err)
	}
	changed := func(int) { s.stir() }
	if p.target.Load().declared.Protocol == "udp" {
		return &relay.Packets{
			Listener: socket, Timeout: associationTimeout, MaxClients: maxAssociations, Warn: warn, Changed: changed,
			Target: func() []relay.End { return ends(p.target.Load().container, &s.packets4, &s.packets6) },
		}
	}
	return &relay.Server{
		Listener: socket, ProxyProtocol: p.proxy, Warn: warn, Changed: changed,
		Target: func() []relay.End { return ends(p.target.Load().container, &s.sockets4, &s.sockets6) },
	}
}

// open is how many clients are connected through the port.
func (p *port) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return 0
	}
	return p.server.Open()
}

// forget ends what clients of datagrams have with a run that is over: they don't
// see its end, and go on sending.
func (p *port) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if packets, ok := p.server.(*relay.Packets); ok {
		packets.Forget()
	}
}

func (p *port) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server != nil {
		p.server.Close()
		p.server = nil
	}
	p.mode = resting
	p.socket.Close()
}

// ends are the ways to a service on the container's loopback, of either family.
// In a host network, sockets of the supervisor's own would do; the keeper's are
// of the same namespace.
func ends(number int, v4, v6 *relay.Stock) []relay.End {
	return []relay.End{
		{Stock: v4, Address: &unix.SockaddrInet4{Port: number, Addr: [4]byte{127, 0, 0, 1}}},
		{Stock: v6, Address: &unix.SockaddrInet6{Port: number, Addr: [16]byte{15: 1}}},
	}
}

// stocks are all of them: of TCP, then of UDP, IPv4 first.
func (s *Supervisor) stocks() []*relay.Stock {
	return []*relay.Stock{&s.sockets4, &s.sockets6, &s.packets4, &s.packets6}
}
