package nft

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// namespace runs f on a thread in a network namespace of its own, with a way
// out that leads nowhere.
func namespace(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make a network namespace for a thread")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and ended with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		for _, line := range [][]string{
			{"link", "set", "lo", "up"},
			{"link", "add", "near", "type", "veth", "peer", "name", "far"},
			{"link", "set", "far", "up"},
			{"link", "set", "near", "up"},
			{"addr", "add", "10.1.0.1/16", "dev", "near"},
			{"addr", "add", "fd01::1/64", "dev", "near", "nodad"},
			{"neigh", "add", "10.1.0.2", "lladdr", "02:00:00:00:00:02", "dev", "near"},
			{"neigh", "add", "fd01::2", "lladdr", "02:00:00:00:00:02", "dev", "near"},
			{"route", "add", "default", "via", "10.1.0.2"},
			{"-6", "route", "add", "default", "via", "fd01::2"},
		} {
			if err == nil {
				var out []byte
				if out, err = exec.Command("ip", line...).CombinedOutput(); err != nil {
					err = errors.New("ip: " + string(out))
				}
			}
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// leaves tells whether a datagram or connection to the address gets out:
// refused at once it was rejected, and nobody answers those that do.
func leaves(t *testing.T, network, address string) bool {
	t.Helper()
	conn, err := net.DialTimeout(network, address, 100*time.Millisecond)
	if err == nil {
		defer conn.Close()
		_, _ = conn.Write([]byte("x"))
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return true
	case network == "tcp" && errors.Is(err, unix.ECONNREFUSED),
		network == "udp" && (errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EACCES)):
		return false
	}
	t.Errorf("%s %s: %v", network, address, err)
	return false
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestRules(t *testing.T) {
	p := netip.MustParsePrefix
	tests := []struct {
		name      string
		rules     []Rule
		out, held []string // network and address
	}{
		{"none", nil, []string{"udp 192.0.2.1:9", "tcp 192.0.2.1:9", "udp [2001:db8::1]:9", "tcp [2001:db8::1]:9"}, nil},
		{
			"an address",
			[]Rule{{To: p("192.0.2.1/32")}, {To: p("2001:db8::1/128")}},
			[]string{"udp 192.0.2.2:9", "tcp 192.0.2.2:9", "tcp [2001:db8::2]:9"},
			[]string{"udp 192.0.2.1:9", "tcp 192.0.2.1:9", "udp [2001:db8::1]:9", "tcp [2001:db8::1]:9"},
		},
		{
			"a prefix that is no whole number of bytes",
			[]Rule{{To: p("192.0.2.16/28")}, {To: p("2001:db8:8000::/33")}},
			[]string{"udp 192.0.2.15:9", "udp 192.0.2.32:9", "udp [2001:db8:7fff::1]:9"},
			[]string{"udp 192.0.2.16:9", "udp 192.0.2.31:9", "udp [2001:db8:8000::1]:9", "udp [2001:db8:ffff::1]:9"},
		},
		{
			"ports",
			[]Rule{
				{To: p("192.0.2.1/32"), Protocol: "tcp", First: 80, Accept: true},
				{To: p("192.0.2.1/32"), First: 1000, Last: 1256, Accept: true},
				{To: p("2001:db8::/64"), Protocol: "udp", First: 53, Accept: true},
				{To: All4},
				{To: All6},
			},
			[]string{"tcp 192.0.2.1:80", "tcp 192.0.2.1:1000", "udp 192.0.2.1:1256", "udp [2001:db8::7]:53"},
			[]string{
				"udp 192.0.2.1:80", "tcp 192.0.2.2:80", "tcp 192.0.2.1:999", "udp 192.0.2.1:1257",
				"tcp [2001:db8::7]:53", "udp [2001:db8::7]:54", "udp [2001:db8:1::7]:53",
			},
		},
		{
			"the first that matches",
			[]Rule{{To: p("192.0.2.1/32"), Accept: true}, {To: p("192.0.2.0/24")}, {To: p("192.0.2.2/32"), Accept: true}},
			[]string{"udp 192.0.2.1:9"},
			[]string{"udp 192.0.2.2:9"},
		},
	}
	namespace(t, func() {
		table, err := Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		for _, test := range tests {
			if err := table.Set(test.rules); err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			for want, addresses := range map[bool][]string{true: test.out, false: test.held} {
				for _, a := range addresses {
					if got := leaves(t, a[:3], a[4:]); got != want {
						t.Errorf("%s: %s leaves: %t, want %t", test.name, a, got, want)
					}
				}
			}
			if test.name == "the first that matches" {
				listener, err := net.Listen("tcp4", "127.0.0.1:0")
				if err != nil {
					t.Error(err)
					continue
				}
				if conn, err := net.Dial("tcp4", listener.Addr().String()); err != nil {
					t.Errorf("loopback: %v", err)
				} else {
					conn.Close()
				}
				listener.Close()
			}
		}
	})
}

// TestOwner has another socket of the same namespace try to undo the table.
func TestOwner(t *testing.T) {
	namespace(t, func() {
		table, err := Open()
		if err != nil {
			t.Error(err)
			return
		}
		if err := table.Set([]Rule{{To: All4}}); err != nil {
			t.Error(err)
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if err != nil {
			t.Error(err)
			return
		}
		other := &Table{socket: fd, current: -1}
		defer other.Close()
		if err := other.Set(nil); !errors.Is(err, unix.EPERM) {
			t.Errorf("another socket replaces the rules: %v, want EPERM", err)
		}
		remove := other.batch()
		remove.message(unix.NFT_MSG_DELTABLE, 0, func(m *message) { m.text(unix.NFTA_TABLE_NAME, tableName) })
		if err := other.send(remove); !errors.Is(err, unix.EPERM) {
			t.Errorf("another socket removes the table: %v, want EPERM", err)
		}
		flush := other.batch()
		flush.message(unix.NFT_MSG_DELTABLE, 0, func(*message) {})
		_ = other.send(flush) // all tables: the owned ones are passed over
		if leaves(t, "udp", "192.0.2.1:9") {
			t.Error("the rules are gone")
		}
		table.Close()
		if !leaves(t, "udp", "192.0.2.1:9") {
			t.Error("the rules outlive the table")
		}
	})
}

// TestManyRules: any number of rules is in force or none of them, and what could
// not be set leaves the ones from before.
func TestManyRules(t *testing.T) {
	var rules []Rule
	for i := range 3000 {
		to := netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})
		rules = append(rules, Rule{To: netip.PrefixFrom(to, 32), Protocol: "udp", First: 9, Accept: true})
	}
	rules = append(rules, Rule{To: All4})
	namespace(t, func() {
		table, err := Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer table.Close()
		check := func(when string, to map[string]bool) {
			for address, want := range to {
				if got := leaves(t, "udp", address); got != want {
					t.Errorf("%s: %s leaves: %t, want %t", when, address, got, want)
				}
			}
		}
		if err := table.Set(rules); err != nil {
			t.Error(err)
			return
		}
		before := map[string]bool{"198.18.0.0:9": true, "198.18.11.183:9": true, "198.18.11.184:9": false, "198.18.0.0:10": false}
		check("with 3000 rules", before)
		// What one that failed half-way leaves: rules, and errors that nobody reads.
		half := table.batch()
		half.chain(chainNames[1], nil)
		half.rule(chainNames[1], func(m *message) { m.verdict(accept, "") })
		if err := table.send(half); err != nil {
			t.Error(err)
		}
		bad := table.batch()
		for range 5 {
			bad.rule("nowhere", func(m *message) { m.verdict(accept, "") })
		}
		if err := table.send(bad); !errors.Is(err, unix.ENOENT) {
			t.Errorf("rules for a chain that there is not: %v", err)
		}
		check("after one that failed", before)
		if err := table.Set(rules[1:]); err != nil {
			t.Error(err)
		}
		check("with one less", map[string]bool{"198.18.0.0:9": false, "198.18.0.1:9": true, "198.18.11.183:9": true})
		if err := table.Set(nil); err != nil {
			t.Error(err)
		}
		check("with none", map[string]bool{"198.18.0.0:9": true, "198.18.11.184:9": true})
	})
}
