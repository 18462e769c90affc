package link

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/relay"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// Associations of UDP links: how long one lives without a datagram, and how many
// a port has at most.
const (
	associationTimeout = time.Minute
	maxAssociations    = 1024
)

// client is the client's end of a link: what it listens on.
type client struct {
	p *process
	// first gets how the first attempt to listen went.
	first chan error

	// acting is held while listeners are opened or closed.
	acting  sync.Mutex
	running bool
	bound   bool      // a Unix socket was, at some time
	begun   time.Time // the run that it listens in
	reboots int
	retry   *time.Timer
	pause   time.Duration

	mu      sync.Mutex
	servers []server
	listen  []string
	waiting string
}

// server is a relay.Server or relay.Packets.
type server interface {
	Serve()
	Close()
	Open() int
}

func (c *client) open(p *process) {
	c.p, c.first = p, make(chan error, 1)
	c.waiting = "its first listener"
}

// run keeps the client's end listening until the link ends.
func (c *client) run(p *process) {
	if p.spec.Client.Container == "" {
		c.seen(&supervisor.Status{})
		<-p.ctx.Done()
		return
	}
	follow(p.ctx, p.f.Container(p.spec.Client.Container), p.spec.Declared, c.seen)
}

// seen is told the status of the container, nil when it does not run.
func (c *client) seen(st *supervisor.Status) {
	c.acting.Lock()
	defer c.acting.Unlock()
	c.running = st != nil && st.State != supervisor.Listening
	if !c.running {
		c.silence("container " + c.p.spec.Client.Container + " to run")
		c.told(notRunning(c.p.spec.Client.Container))
		return
	}
	// After a reboot the file system that a socket was in has gone, the network
	// has not.
	if !st.Started.Equal(c.begun) || st.Reboots != c.reboots && c.p.spec.Client.Path != "" {
		c.silence("init to be up")
	}
	c.begun, c.reboots = st.Started, st.Reboots
	c.attempt()
}

// again is an attempt after a pause.
func (c *client) again() {
	c.acting.Lock()
	defer c.acting.Unlock()
	if c.running && c.p.ctx.Err() == nil {
		c.attempt()
	}
}

// attempt listens, unless it does, and has it tried again if that fails.
func (c *client) attempt() {
	c.mu.Lock()
	done := len(c.servers) > 0
	c.mu.Unlock()
	if done {
		return
	}
	servers, listen, err := c.bind()
	c.told(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.waiting = err.Error()
		c.pause = min(max(2*c.pause, firstPause), lastPause)
		if c.retry != nil {
			c.retry.Stop()
		}
		c.retry = time.AfterFunc(c.pause, c.again)
		return
	}
	c.servers, c.listen, c.waiting, c.pause, c.bound = servers, listen, "", 0, true
	for _, s := range servers {
		go s.Serve()
	}
}

// forget ends what clients of datagrams have with a run of the host's that is
// over: they don't see its end, and go on sending.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		if p, ok := s.(*relay.Packets); ok {
			p.Forget()
		}
	}
}

func (c *client) told(err error) {
	select {
	case c.first <- err:
	default:
	}
}

// silence ends the listeners and their connections.
func (c *client) silence(reason string) {
	c.mu.Lock()
	servers := c.servers
	c.servers, c.listen, c.waiting = nil, nil, reason
	c.mu.Unlock()
	for _, s := range servers {
		s.Close()
	}
}

// bind opens all listeners, or none.
func (c *client) bind() (servers []server, listen []string, err error) {
	spec := c.p.spec
	addresses := slices.Concat(spec.Addresses, spec.Optional)
	if spec.Client.Path != "" {
		addresses = []string{""}
	}
	for _, address := range addresses {
		files, err := c.bindRange(address)
		if err != nil {
			if len(listen) > 0 && (slices.Contains(spec.Optional, address) || isLoopback(address) && missing(err)) {
				continue
			}
			for _, s := range servers {
				s.Close()
			}
			return nil, nil, err
		}
		for i, file := range files {
			servers = append(servers, c.serve(file, i))
		}
		listen = append(listen, spec.listening(address))
	}
	return servers, listen, nil
}

// missing tells that this machine or container has no IPv6.
func missing(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}

func isLoopback(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.Unmap().IsLoopback()
}

func (c *client) bindRange(address string) ([]*os.File, error) {
	var files []*os.File
	for i := range c.p.spec.Count {
		file, err := c.p.listen(c.p.spec.place(address, i))
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

func (c *client) serve(file *os.File, i int) server {
	target := func() []relay.End { return c.p.target.reach(i) }
	warn := func(what string, err error) { c.p.log.Warn(what, "error", err) }
	if c.p.spec.Protocol == UDP {
		return &relay.Packets{Listener: file, Target: target, Warn: warn, Changed: c.p.target.changed, Timeout: associationTimeout, MaxClients: maxAssociations}
	}
	return &relay.Server{Listener: file, Target: target, Warn: warn, Changed: c.p.target.changed}
}

// status is where it listens, with how many connections, and what it waits for.
func (c *client) status() (listen []string, open int, waiting string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.servers {
		open += s.Open()
	}
	return append([]string{}, c.listen...), open, c.waiting
}

// close ends the client's end for good.
func (c *client) close(p *process) {
	c.acting.Lock()
	defer c.acting.Unlock()
	c.running = false
	if c.retry != nil {
		c.retry.Stop()
	}
	c.silence("")
	if path := p.spec.Client.Path; path != "" && c.bound {
		var err error
		if p.spec.Client.Container == "" {
			err = socket.Remove(path, nil)
		} else {
			err = supervisor.Forget(p.f.Container(p.spec.Client.Container), path)
		}
		if err != nil && !errors.Is(err, supervisor.ErrNotRunning) {
			p.log.Warn("its socket stays", "path", path, "error", err)
		}
	}
}
