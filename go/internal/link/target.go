package link

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/relay"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// maxDials is how many connections to a path in a container are asked for at a
// time, each of which takes the keeper a thread: others wait.
const maxDials = 16

// target is the host's end of a link.
type target struct {
	// up tells whether it can be reached: the host machine, or a container that
	// runs.
	up atomic.Bool
	// known is closed once that is known.
	known     chan struct{}
	container state.Container
	// activated tells that clients start the container.
	activated atomic.Bool
	// users are the listeners with connections; stirred has a token when they, or
	// what is known of the container, have changed.
	users   atomic.Int32
	stirred chan struct{}
	// Sockets of the place, of either family.
	four, six relay.Stock
	// ends are the ways to each of the ports.
	ends [][]relay.End
}

func (t *target) open(p *process) {
	t.known, t.stirred = make(chan struct{}), make(chan struct{}, 1)
	end := p.spec.Host
	t.container = p.f.Container(end.Container)
	container := t.container
	stock := func(network string) func(int) ([]*os.File, error) {
		if end.Container == "" {
			return func(n int) ([]*os.File, error) { return socket.Make(network, n) }
		}
		return func(n int) ([]*os.File, error) {
			if t.activated.Load() {
				// It may have to be started first.
				use, err := supervisor.Use(p.ctx, container)
				if err != nil {
					return nil, err
				}
				defer use.Close()
			}
			return supervisor.Sockets(p.ctx, container, network, n)
		}
	}
	t.four.Make = stock(network(p.spec.Protocol, Localhost4))
	t.six.Make = stock(network(p.spec.Protocol, Localhost6))
	if end.Path != "" {
		dials := make(chan struct{}, maxDials)
		dial := func() (*os.File, error) {
			select {
			case dials <- struct{}{}:
			case <-p.ctx.Done():
				return nil, p.ctx.Err()
			}
			defer func() { <-dials }()
			return supervisor.DialUnix(p.ctx, container, end.Path)
		}
		if end.Container == "" {
			dial = func() (*os.File, error) { return socket.Dial(end.Path, nil) }
		}
		t.ends = [][]relay.End{{{Take: dial}}}
		return
	}
	for i := range p.spec.Count {
		port := end.Port + i
		t.ends = append(t.ends, []relay.End{
			{Stock: &t.four, Address: &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(Localhost4).As4()}},
			{Stock: &t.six, Address: &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr(Localhost6).As16()}},
		})
	}
}

// reach returns the ways to port i, none while the container does not run: a
// client is then refused.
func (t *target) reach(i int) []relay.End {
	if !t.up.Load() {
		return nil
	}
	return t.ends[i]
}

// run follows the container.
func (t *target) run(p *process) {
	if p.spec.Host.Container == "" {
		t.up.Store(true)
		close(t.known)
		return
	}
	var holding sync.WaitGroup
	holding.Go(func() { t.hold(p.ctx) })
	var first sync.Once
	var begun time.Time
	follow(p.ctx, t.container, false, func(st *supervisor.Status) {
		t.up.Store(st != nil)
		t.activated.Store(st != nil && slices.ContainsFunc(st.Ports, func(p supervisor.Port) bool { return p.SocketActivation }))
		first.Do(func() { close(t.known) })
		if st == nil || !st.Started.Equal(begun) || st.State == supervisor.Stopping && t.activated.Load() {
			// Another run, or none, or clients are to wait for the next one. Sockets
			// keep the network namespace that they are of, which is of no more use.
			t.flush()
			p.client.forget()
		}
		if st != nil {
			begun = st.Started
		}
		t.stir()
	})
	holding.Wait()
}

func (t *target) stir() {
	select {
	case t.stirred <- struct{}{}:
	default:
	}
}

// changed is told by a listener when it has connections and when it has none.
func (t *target) changed(open int) {
	users := int32(0)
	if open > 0 {
		users = t.users.Add(1)
	} else {
		users = t.users.Add(-1)
	}
	if t.activated.Load() {
		if users == 0 {
			// The next client asks for a socket, which keeps the container up; with
			// one in stock it might meet a container that is just stopped as idle.
			t.flush()
		}
		t.stir()
	}
}

func (t *target) flush() {
	t.four.Flush()
	t.six.Flush()
}

// hold keeps a container that clients start from being stopped as idle while
// there are connections.
func (t *target) hold(ctx context.Context) {
	var use *seqpacket.Conn
	let := func() {
		if use != nil {
			use.Close()
			use = nil
		}
	}
	defer let()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.stirred:
		}
		switch wanted := t.activated.Load() && t.users.Load() > 0; {
		case !wanted:
			let()
		case use == nil:
			use, _ = supervisor.Use(ctx, t.container)
		}
	}
}

func (t *target) close() {
	t.four.Close()
	t.six.Close()
}
