package descriptor

import (
	"os"
	"strings"
	"testing"
	"unicode"
)

// FuzzParseAllow: what is let out is a network, or a name with a port, and never
// the loopback.
func FuzzParseAllow(f *testing.F) {
	for _, seed := range []string{
		"192.0.2.1", "10.0.0.0/8", "10.0.0.0/8:443", "[2001:db8::/32]:443", "example.org:443/udp", "2001:db8::1", "0.0.0.0/0", "::/0",
		"localhost:80", "127.0.0.1", "[::1]:1", "::ffff:127.0.0.1", "fe80::1%eth0", "[", "]:", ":", "a:0", "a:+1", "1.2.3:4", "x:1/tcp/udp",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAllow(s)
		if err != nil {
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) || len(err.Error()) > 2000 {
				t.Errorf("error %q", err)
			}
			return
		}
		if a.Prefix.IsValid() == (a.Host != "") || a.Host != "" && (a.Port == 0 || strings.ContainsAny(a.Host, ":/ \n")) {
			t.Errorf("%q is %+v", s, a)
		}
		if a.Prefix.IsValid() && (a.Prefix.Masked() != a.Prefix || a.Prefix.Addr().IsLoopback() || a.Prefix.Addr().Zone() != "" || a.Prefix.Addr().Is4In6()) {
			t.Errorf("%q lets out to %s", s, a.Prefix)
		}
		if a.Protocol != "" && (a.Protocol != TCP && a.Protocol != UDP || a.Port == 0) {
			t.Errorf("%q is %+v", s, a)
		}
	})
}

// FuzzQuery: a path of the command line finds something or nothing.
func FuzzQuery(f *testing.F) {
	data, err := os.ReadFile("testdata/good/nixos.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"name", "network.ports[0].host", "network.ports.#.host", "a[", "a[0", "[0]", "mounts[99999999999999999999]", "@this", "network|@keys", "#(", "..", "\\"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if got, found := Query(data, path); !found && got != "" {
			t.Errorf("%q, and nothing was found", got)
		}
	})
}
