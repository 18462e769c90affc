package supervisor

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

// taken is a TCP port of 127.0.0.1 that the test listens on.
func taken(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// free is one that nobody listens on.
func free(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func tcp(host, container, count int) descriptor.Port {
	return descriptor.Port{Protocol: "tcp", Address: "127.0.0.1", Host: host, Container: container, Count: count}
}

func TestListen(t *testing.T) {
	number := free(t)
	s := idle(t)
	s.o.Descriptor.Network.Ports = []descriptor.Port{tcp(number, 80, 1), tcp(taken(t), 81, 1)}
	err := s.listen()
	if err == nil || !strings.HasPrefix(err.Error(), "network.ports[1]: 127.0.0.1:") {
		t.Errorf("%v, want the second port to be named", err)
	}
	if len(s.ports()) > 0 || len(s.Status().Ports) > 0 {
		t.Errorf("%+v are kept of a list that was refused", s.Status().Ports)
	}
	if again, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", number)); err != nil {
		t.Errorf("the first port is still held: %v", err)
	} else {
		again.Close()
	}
}

// numbers are those of the host, entry by entry.
func numbers(entries []*entry) [][]int {
	var all [][]int
	for _, e := range entries {
		var row []int
		for _, p := range e.ports {
			row = append(row, p.number)
		}
		all = append(all, row)
	}
	return all
}

// TestOpenPorts: what is held already stays the same socket.
func TestOpenPorts(t *testing.T) {
	open := func(declared []descriptor.Port, old []*entry) *portsChange {
		t.Helper()
		c, err := openPorts(declared, old, old == nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	chosen := tcp(0, 8000, 3)
	web := tcp(0, 80, 1)
	dns := descriptor.Port{Protocol: "udp", Address: "127.0.0.1", Container: 53, Count: 1}
	first := open([]descriptor.Port{chosen, web, dns}, nil)
	defer func() {
		for _, e := range first.entries {
			for _, p := range e.ports {
				p.close()
			}
		}
	}()
	was := numbers(first.entries)
	if r := was[0]; len(r) != 3 || r[0] == 0 || r[1] != r[0]+1 || r[2] != r[0]+2 {
		t.Fatalf("a range that the kernel chose: %v", was)
	}
	sockets := func(c *portsChange) (all []*port) {
		for _, e := range c.entries {
			all = append(all, e.ports...)
		}
		return all
	}

	t.Run("the same", func(t *testing.T) {
		c := open([]descriptor.Port{chosen, web, dns}, first.entries)
		if len(c.added)+len(c.gone) > 0 || !slices.Equal(sockets(c), sockets(first)) {
			t.Errorf("%v, %d added, %d gone", numbers(c.entries), len(c.added), len(c.gone))
		}
	})
	t.Run("another order, and another port of the container", func(t *testing.T) {
		moved := web
		moved.Container = 81
		c := open([]descriptor.Port{dns, moved, chosen}, first.entries)
		if got := numbers(c.entries); len(c.added)+len(c.gone) > 0 || got[2][0] != was[0][0] || got[1][0] != was[1][0] {
			t.Errorf("%v, was %v, %d added, %d gone", got, was, len(c.added), len(c.gone))
		}
	})
	t.Run("the chosen number is declared", func(t *testing.T) {
		c := open([]descriptor.Port{tcp(was[0][0], 8000, 3), web, dns}, first.entries)
		if len(c.added)+len(c.gone) > 0 {
			t.Errorf("%v, %d added, %d gone", numbers(c.entries), len(c.added), len(c.gone))
		}
	})
	t.Run("a range is cut", func(t *testing.T) {
		c := open([]descriptor.Port{tcp(was[0][1], 8001, 2), web, dns}, first.entries)
		if len(c.added) != 0 || len(c.gone) != 1 || c.gone[0] != first.entries[0].ports[0] {
			t.Errorf("%v, %d added, %d gone", numbers(c.entries), len(c.added), len(c.gone))
		}
	})
	t.Run("one is taken", func(t *testing.T) {
		_, err := openPorts([]descriptor.Port{chosen, web, tcp(0, 1, 1), tcp(taken(t), 82, 1)}, first.entries, false)
		if err == nil || !strings.HasPrefix(err.Error(), "network.ports[3]: ") {
			t.Errorf("%v", err)
		}
		if _, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", was[1][0])); err != nil {
			t.Errorf("a port that was held is not any more: %v", err)
		}
	})
	t.Run("handed over later", func(t *testing.T) {
		handed := tcp(free(t), 90, 1)
		handed.HandOver = true
		c := open([]descriptor.Port{chosen, web, dns, handed}, first.entries)
		if len(c.entries) != 3 || len(c.added) > 0 {
			t.Errorf("%v", numbers(c.entries))
		}
	})
	t.Run("taken by itself", func(t *testing.T) {
		all := tcp(was[1][0], 80, 1)
		all.Address = "0.0.0.0"
		_, err := openPorts([]descriptor.Port{chosen, all, dns}, first.entries, false)
		if err == nil || !strings.Contains(err.Error(), "this container listens there itself") {
			t.Errorf("%v", err)
		}
	})
	t.Run("too many to hand over", func(t *testing.T) {
		many := tcp(0, 1, maxHandedOver+1)
		many.HandOver = true
		_, err := openPorts([]descriptor.Port{many}, nil, true)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxHandedOver)) {
			t.Errorf("%v", err)
		}
	})
}
