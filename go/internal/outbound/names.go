package outbound

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Times of the lookups of a name. What fails is tried again after a pause, which
// doubles; what does not, when it may have changed.
const (
	lookupTime   = 5 * time.Second
	firstRetry   = time.Second
	lastRetry    = time.Minute
	refresh      = time.Minute
	suspicious   = 4 // failures in a row before somebody is told
	lookups      = 16
	keptFor      = time.Hour
	maxAddresses = 1024 // of a name
)

// Names are what names stand for. Each is looked up by itself, for as long as it
// is followed: its servers may be there later than the container, and many a
// name leads to other addresses each time. An address is kept for an hour after
// it was last seen, as connections and caches keep it.
type Names struct {
	// Lookup finds a name's addresses.
	Lookup func(ctx context.Context, name string) ([]netip.Addr, error)
	// Changed, if not nil, is told when a lookup has found other addresses.
	Changed func()
	// Failing, if not nil, is told of a name that could not be found several times,
	// and without an error once that is over.
	Failing func(name string, err error)

	all   sync.WaitGroup
	slots chan struct{}
	mu    sync.Mutex
	names map[string]*followed
}

// followed is a name's.
type followed struct {
	stop context.CancelFunc
	soon chan struct{}            // holds a token when it is to be looked up again soon
	seen map[netip.Addr]time.Time // when each address was last
}

// LookupOnHost is a Lookup by the host's resolver.
func LookupOnHost(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// Follow has these names followed and no others.
func (n *Names) Follow(names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[canonical(name)] = true
	}
	for name, f := range n.names {
		if !wanted[name] {
			f.stop()
			delete(n.names, name)
		}
	}
	for name := range wanted {
		if n.names[name] != nil {
			continue
		}
		if n.names == nil {
			n.names, n.slots = map[string]*followed{}, make(chan struct{}, lookups)
		}
		ctx, stop := context.WithCancel(context.Background())
		f := &followed{stop: stop, soon: make(chan struct{}, 1), seen: map[netip.Addr]time.Time{}}
		n.names[name] = f
		n.all.Go(func() { n.follow(ctx, name, f) })
	}
}

// Close follows none any more, and waits for lookups under way to end.
func (n *Names) Close() {
	n.Follow(nil)
	n.all.Wait()
}

// Soon has all of them looked up in a moment, as the network has changed.
func (n *Names) Soon() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.names {
		select {
		case f.soon <- struct{}{}:
		default:
		}
	}
}

// Addresses are what a name stands for, in their order.
func (n *Names) Addresses(name string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.names[canonical(name)]
	if f == nil {
		return nil
	}
	maps.DeleteFunc(f.seen, func(_ netip.Addr, at time.Time) bool { return time.Since(at) > keptFor })
	return slices.SortedFunc(maps.Keys(f.seen), netip.Addr.Compare)
}

// Learn notes addresses of a name, if it is followed. It tells whether that is
// news.
func (n *Names) Learn(name string, found []netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.names[canonical(name)]
	if f == nil {
		return false
	}
	news, now := false, time.Now()
	for _, a := range found {
		a = a.Unmap().WithZone("")
		if _, known := f.seen[a]; known || len(f.seen) < maxAddresses {
			news = news || !known
			f.seen[a] = now
		}
	}
	return news
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func (n *Names) follow(ctx context.Context, name string, f *followed) {
	told := false
	found := func() {
		if told {
			told = false
			n.Failing(name, nil)
		}
	}
	defer found()
	for failures := 0; ctx.Err() == nil; {
		addresses, err := n.lookUp(ctx, name)
		if ctx.Err() != nil {
			return
		}
		pause := refresh
		if err != nil {
			pause = min(firstRetry<<min(failures, 10), lastRetry)
			if failures++; failures >= suspicious && !told && n.Failing != nil {
				told = true
				n.Failing(name, err)
			}
		} else {
			failures = 0
			found()
			if n.Learn(name, addresses) && n.Changed != nil {
				n.Changed()
			}
		}
		if wait(ctx, pause, f.soon) {
			// What changes a network seldom is alone.
			failures = 0
			wait(ctx, firstRetry, nil)
		}
	}
}

// wait waits for a time, or for a token, and tells which it was.
func wait(ctx context.Context, pause time.Duration, soon <-chan struct{}) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-soon:
		return true
	}
	return false
}

func (n *Names) lookUp(ctx context.Context, name string) ([]netip.Addr, error) {
	select {
	case n.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-n.slots }()
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	return n.Lookup(ctx, name)
}
