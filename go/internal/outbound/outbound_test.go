package outbound

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nix-user-containers/nuc/go/internal/nft"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// passes finds the rule that decides about a packet, as the kernel does.
func passes(rules []nft.Rule, to string, protocol string, port uint16) bool {
	address := netip.MustParseAddr(to)
	for _, r := range rules {
		if r.To.Contains(address) && (r.Protocol == "" || r.Protocol == protocol) && (r.First == 0 || r.First <= port && port <= r.Last) {
			return r.Accept
		}
	}
	return true
}

func TestRules(t *testing.T) {
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	allow := func(to string, port uint16, protocol string) Destination {
		return Destination{To: netip.MustParsePrefix(to), Port: port, Protocol: protocol}
	}
	host := []string{"127.0.0.1", "127.1.1.53", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "fe80::1", "192.0.2.1", "2001:db8::1", "10.117.99.3", "fd00::3", "224.0.0.251", "239.255.255.250", "255.255.255.255", "ff02::fb"}
	gateways := []string{"10.117.99.2", "fd6e:7563::2", "fd00::2"}
	outside := []string{"198.51.100.7", "2001:db8:2::7"}
	tests := []struct {
		name     string
		policy   Policy
		out, not []string
	}{
		{"no limit", Policy{Own: own}, outside, slices.Concat(host, gateways)},
		{"the host's loopback", Policy{Own: own, HostLoopback: true}, slices.Concat(outside, gateways), host},
		{"a limit", Policy{Own: own, Limited: true, Allow: []Destination{allow("198.51.100.7/32", 80, "tcp")}}, outside[:1], slices.Concat(outside[1:], host, gateways)},
		{"another port", Policy{Limited: true, Allow: []Destination{allow("198.51.100.7/32", 81, "")}}, nil, outside},
		{"the other protocol", Policy{Limited: true, Allow: []Destination{allow("198.51.100.7/32", 80, "udp")}}, nil, outside},
		{"everything", Policy{Own: own, Limited: true, Allow: []Destination{allow("0.0.0.0/0", 0, ""), allow("::/0", 80, "")}}, outside, slices.Concat(host, gateways)},
		{"an address of the host's", Policy{Own: own, Limited: true, Allow: []Destination{allow("192.0.2.1/32", 80, "")}}, []string{"192.0.2.1"}, []string{"2001:db8::1", "127.0.0.1"}},
		{"a name that leads to an address of the host's", Policy{Own: own, Limited: true, Allow: []Destination{{To: netip.MustParsePrefix("192.0.2.1/32"), Port: 80, Resolved: true}}}, nil, []string{"192.0.2.1"}},
		{"a limit with the loopback", Policy{Own: own, Limited: true, HostLoopback: true, Allow: []Destination{allow("203.0.113.1/32", 0, "")}}, gateways, slices.Concat(outside, host)},
	}
	for _, test := range tests {
		rules := test.policy.Rules()
		for want, addresses := range map[bool][]string{true: test.out, false: test.not} {
			for _, a := range addresses {
				if got := passes(rules, a, "tcp", 80); got != want {
					t.Errorf("%s: %s passes: %t, want %t", test.name, a, got, want)
				}
			}
		}
	}
	rules := Policy{Own: own, Limited: true, Servers: own[:1], Allow: []Destination{allow("203.0.113.1/32", 0, "")}}.Rules()
	if !passes(rules, "192.0.2.1", "udp", 53) || passes(rules, "192.0.2.1", "tcp", 80) {
		t.Error("a name server on an address of the host's: port 53, and no other, is to pass")
	}
}

func TestDefaultRoutes(t *testing.T) {
	const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	const zero = "00000000000000000000000000000000"
	tests := []struct {
		name   string
		v4, v6 string
		want   routes
	}{
		{"none", head, zero + " 00 " + zero + " 00 " + zero + " ffffffff 00000001 00000000 00200200       lo\n", routes{}},
		{"no files", "", "", routes{}},
		{
			"both", head + "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n",
			zero + " 00 " + zero + " 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n",
			routes{true, true},
		},
		{
			"IPv6 with no link-local address yet", head,
			zero + " 00 " + zero + " 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n",
			routes{},
		},
		{"a network", head + "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", "", routes{}},
		{"half of all addresses", head + "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n", "", routes{}},
		{"unreachable", head + "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n", "", routes{}},
	}
	for _, test := range tests {
		dir := t.TempDir()
		const addresses = "fe80000000000000000000fffe000001 02 40 20 80     eth0\nfd000000000000000000000000000002 03 40 00 80     eth1\n" +
			"00000000000000000000000000000001 01 80 10 80       lo\n"
		err := errors.Join(os.WriteFile(filepath.Join(dir, "if_inet6"), []byte(addresses), 0o600),
			os.WriteFile(filepath.Join(dir, "route"), []byte(test.v4), 0o600), os.WriteFile(filepath.Join(dir, "ipv6_route"), []byte(test.v6), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if got := defaultRoutes(dir); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestLastWord(t *testing.T) {
	tests := map[string]string{
		"": "", "Failed to send 51 bytes to syslog\n": "",
		"Failed to send 51 bytes to syslog\nCouldn't open network namespace\nFailed to send 3 bytes to syslog\n": "Couldn't open network namespace",
		"MAC:\n    host: 00\nNo external routable interface\n\n":                                                 "No external routable interface",
	}
	for text, want := range tests {
		if got := lastWord(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
