package link

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/relay"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// target is the host's end of a link.
type target struct {
	// up tells whether it can be reached: the host machine, or a container that
	// runs.
	up atomic.Bool
	// known is closed once that is known.
	known chan struct{}
	// Sockets of the place, of either family.
	four, six relay.Stock
	// ends are the ways to each of the ports.
	ends [][]relay.End
}

func (t *target) open(p *process) {
	t.known = make(chan struct{})
	end := p.spec.Host
	container := p.f.Container(end.Container)
	stock := func(network string) func(int) ([]*os.File, error) {
		if end.Container == "" {
			return func(n int) ([]*os.File, error) { return socket.Make(network, n) }
		}
		return func(n int) ([]*os.File, error) { return supervisor.Sockets(container, network, n) }
	}
	t.four.Make = stock(network(p.spec.Protocol, Localhost4))
	t.six.Make = stock(network(p.spec.Protocol, Localhost6))
	if end.Path != "" {
		dial := func() (*os.File, error) { return supervisor.DialUnix(container, end.Path) }
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
	var first sync.Once
	follow(p.ctx, p.f.Container(p.spec.Host.Container), false, func(st *supervisor.Status) {
		t.up.Store(st != nil)
		first.Do(func() { close(t.known) })
		if st == nil {
			// Sockets keep the network namespace that they are of, which is of no
			// more use.
			t.four.Flush()
			t.six.Flush()
		}
	})
}

func (t *target) close() {
	t.four.Close()
	t.six.Close()
}
