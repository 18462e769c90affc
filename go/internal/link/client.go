package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/relay"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// Associations of UDP links: how long one lives without a datagram, and how many
// a port has at most.
const (
	associationTimeout = time.Minute
	maxAssociations    = 1024
)

// leavePatience is how long a container may take for what a link that ends wants
// of it.
const leavePatience = time.Second

// spareFiles are the file descriptors that a link has for other things than
// listening, connections above all.
const spareFiles = 256

// client is the client's end of a link: what it listens on.
type client struct {
	p *process
	// first gets how the first attempt to listen went.
	first chan error

	// acting is held while listeners are opened or closed.
	acting  sync.Mutex
	running bool
	settled bool      // the container's own services have what they want
	bound   bool      // a Unix socket was, at some time
	begun   time.Time // the run that it listens in
	reboots int
	retry   *time.Timer
	pause   time.Duration
	// known has the container know the host by its name, while it is open.
	known *seqpacket.Conn

	mu sync.Mutex
	// main are at the spec's addresses, extra at those of the optional ones that
	// could be had.
	main, extra listening
	waiting     string
}

// listening are listeners, and the places that they are at.
type listening struct {
	servers []server
	places  []string
	// done tells that they were opened, as far as they can be.
	done bool
}

func (l *listening) add(o listening) {
	l.servers, l.places = append(l.servers, o.servers...), append(l.places, o.places...)
}

func (l *listening) close() {
	for _, s := range l.servers {
		s.Close()
	}
	*l = listening{}
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
	if !st.Started.Equal(c.begun) {
		c.silence("init to be up")
	} else if st.Reboots != c.reboots {
		// The file system that a socket was in has gone, the network has not. But
		// the container's own services come anew.
		if c.p.spec.Client.Path != "" {
			c.silence("init to be up")
		}
		c.drop(&c.extra)
	}
	c.begun, c.reboots = st.Started, st.Reboots
	// The host machine's state is "".
	c.settled = st.State != supervisor.Starting
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
//
// The optional addresses are taken once the container is up: a service of its
// own that wants one has it by then.
func (c *client) attempt() {
	if !c.main.done {
		main, err := c.bind()
		defer func() { c.told(err) }() // once the status says so, too
		if err != nil {
			c.mu.Lock()
			c.waiting = err.Error()
			c.mu.Unlock()
			c.pause = min(max(2*c.pause, firstPause), lastPause)
			if c.retry != nil {
				c.retry.Stop()
			}
			c.retry = time.AfterFunc(c.pause, c.again)
			return
		}
		c.p.confine()
		c.pause, c.bound = 0, true
		c.use(&c.main, main)
		if peer := c.p.spec.peer(); peer != "" {
			// One of an earlier version of nuc has no such names.
			c.known, _ = supervisor.Peer(c.p.f.Container(c.p.spec.Client.Container), peer)
		}
	}
	if c.settled && !c.extra.done {
		var extra listening
		for _, address := range c.p.spec.Optional {
			if one, err := c.bindRange(address); err == nil {
				extra.add(one)
			}
		}
		c.use(&c.extra, extra)
	}
}

// use puts listeners into force.
func (c *client) use(place *listening, l listening) {
	l.done = true
	c.mu.Lock()
	*place, c.waiting = l, ""
	c.mu.Unlock()
	for _, s := range l.servers {
		go s.Serve()
	}
}

// drop ends listeners and their connections.
func (c *client) drop(place *listening) {
	c.mu.Lock()
	l := *place
	*place = listening{}
	c.mu.Unlock()
	l.close()
}

// forget ends what clients of datagrams have with a run of the host's that is
// over: they don't see its end, and go on sending.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range slices.Concat(c.main.servers, c.extra.servers) {
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

// silence ends all listeners.
func (c *client) silence(reason string) {
	c.mu.Lock()
	c.waiting = reason
	c.mu.Unlock()
	c.drop(&c.main)
	c.drop(&c.extra)
	if c.known != nil {
		c.known.Close()
		c.known = nil
	}
}

// bind opens all listeners that must be, or none.
func (c *client) bind() (listening, error) {
	spec := c.p.spec
	addresses := spec.Addresses
	if spec.Client.Path != "" {
		addresses = []string{""}
	}
	var limit unix.Rlimit
	needed := spec.Count * (len(addresses) + len(spec.Optional))
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && uint64(needed+spareFiles) > limit.Cur {
		return listening{}, fmt.Errorf("%d ports at %d addresses take %d file descriptors, and its process may have %d: link fewer ports, or raise the limit (ulimit -n, DefaultLimitNOFILE=)", spec.Count, needed/spec.Count, needed, limit.Cur)
	}
	var all listening
	for _, address := range addresses {
		one, err := c.bindRange(address)
		switch {
		case err == nil:
			all.add(one)
		case len(all.places) == 0 || !isLoopback(address) || !missing(err):
			all.close()
			return listening{}, err
		}
	}
	return all, nil
}

// missing tells that this machine or container has no IPv6.
func missing(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)
}

func isLoopback(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.Unmap().IsLoopback()
}

// bindRange opens the listeners at one address, or none.
func (c *client) bindRange(address string) (listening, error) {
	l := listening{places: []string{c.p.spec.listening(address)}}
	for len(l.servers) < c.p.spec.Count {
		first := len(l.servers)
		files, err := c.p.listen(c.p.spec.place(address, first), min(c.p.spec.Count-first, keeper.MaxSockets))
		if err != nil {
			l.close()
			return listening{}, err
		}
		for i, file := range files {
			l.servers = append(l.servers, c.serve(file, first+i))
		}
	}
	return l, nil
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
	for _, s := range slices.Concat(c.main.servers, c.extra.servers) {
		open += s.Open()
	}
	return append(append([]string{}, c.main.places...), c.extra.places...), open, c.waiting
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
			// The process's own context has ended.
			ctx, cancel := context.WithTimeout(context.Background(), leavePatience)
			err = supervisor.Forget(ctx, p.f.Container(p.spec.Client.Container), path)
			cancel()
		}
		if err != nil && !errors.Is(err, supervisor.ErrNotRunning) {
			p.log.Warn("its socket stays", "path", path, "error", err)
		}
	}
}
