package outbound

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// zone is what a name server of a test's says.
type zone struct {
	mu      sync.Mutex
	records map[string][]string
	asked   map[string]int
}

func (z *zone) set(name string, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[name] = addresses
}

func (z *zone) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	z.asked[name]++
	addresses, known := z.records[name]
	z.mu.Unlock()
	if !known {
		<-ctx.Done() // no server answers
		return nil, ctx.Err()
	}
	if addresses == nil {
		return nil, errors.New("no such host")
	}
	return parse(addresses...), nil
}

func parse(addresses ...string) []netip.Addr {
	var all []netip.Addr
	for _, a := range addresses {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{records: map[string][]string{}, asked: map[string]int{}}
		changes := 0
		var failing []string
		var mu sync.Mutex
		n := &Names{
			Lookup: z.lookup,
			Changed: func() {
				mu.Lock()
				defer mu.Unlock()
				changes++
			},
			Failing: func(name string, err error) {
				mu.Lock()
				defer mu.Unlock()
				failing = append(failing, name)
				if err == nil {
					failing = slices.DeleteFunc(failing, func(other string) bool { return other == name })
				}
			},
		}
		defer n.Close()
		check := func(when, name string, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := n.Addresses(name); !slices.Equal(got, parse(want...)) {
				t.Errorf("%s: %s is %v, want %v", when, name, got, want)
			}
		}
		z.set("there.test", "192.0.2.1", "2001:db8::1")
		z.set("wrong.test")
		n.Follow([]string{"There.test.", "silent.test", "wrong.test"})
		// One that hangs does not keep the others waiting.
		check("at once", "there.test", "192.0.2.1", "2001:db8::1")
		z.set("silent.test", "192.0.2.2")
		time.Sleep(lookupTime + firstRetry)
		check("once its servers are up", "silent.test", "192.0.2.2")
		z.set("there.test", "192.0.2.3")
		time.Sleep(refresh)
		check("a name that changes", "there.test", "192.0.2.1", "192.0.2.3", "2001:db8::1")
		time.Sleep(keptFor)
		check("old addresses", "there.test", "192.0.2.3")
		if !n.Learn("THERE.test", parse("::ffff:192.0.2.4")) || n.Learn("there.test", parse("192.0.2.4")) || n.Learn("other.test", parse("192.0.2.4")) {
			t.Error("what is learnt is news once, and for names that are followed")
		}
		check("what is learnt", "there.test", "192.0.2.3", "192.0.2.4")
		z.set("there.test", "192.0.2.5")
		n.Soon()
		time.Sleep(firstRetry)
		check("when the network changes", "there.test", "192.0.2.3", "192.0.2.4", "192.0.2.5")
		mu.Lock()
		if changes != 4 || !slices.Equal(failing, []string{"wrong.test"}) {
			t.Errorf("changes were told %d times, want 4; failing: %q, want wrong.test", changes, failing)
		}
		mu.Unlock()
		z.set("wrong.test", "192.0.2.6")
		time.Sleep(lastRetry)
		check("one that is found at last", "wrong.test", "192.0.2.6")
		mu.Lock()
		if len(failing) > 0 {
			t.Errorf("failing still: %q", failing)
		}
		mu.Unlock()
		z.set("wrong.test")
		n.Follow([]string{"wrong.test"})
		check("a name that is followed no more", "there.test")
		z.mu.Lock()
		clear(z.asked)
		z.mu.Unlock()
		time.Sleep(10 * lastRetry)
		z.mu.Lock()
		defer z.mu.Unlock()
		if len(z.asked) != 1 || z.asked["wrong.test"] > 20 {
			t.Errorf("in ten minutes, %v were looked up", z.asked)
		}
	})
}
