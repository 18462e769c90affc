package descriptor

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseAllow(t *testing.T) {
	prefix := netip.MustParsePrefix
	good := map[string]Allow{
		"192.0.2.1":                {Prefix: prefix("192.0.2.1/32")},
		"10.0.0.0/8":               {Prefix: prefix("10.0.0.0/8")},
		"0.0.0.0/0":                {Prefix: prefix("0.0.0.0/0")},
		"10.0.0.0/8:443":           {Prefix: prefix("10.0.0.0/8"), Port: 443},
		"192.0.2.1:53/udp":         {Prefix: prefix("192.0.2.1/32"), Port: 53, Protocol: UDP},
		"2001:DB8::1":              {Prefix: prefix("2001:db8::1/128")},
		"2001:db8::/32":            {Prefix: prefix("2001:db8::/32")},
		"[2001:db8::1]:65535":      {Prefix: prefix("2001:db8::1/128"), Port: 65535},
		"[::/0]:443/tcp":           {Prefix: prefix("::/0"), Port: 443, Protocol: TCP},
		"example.org:443":          {Host: "example.org", Port: 443},
		"_srv.example-1.org:1/udp": {Host: "_srv.example-1.org", Port: 1, Protocol: UDP},
		"a:80":                     {Host: "a", Port: 80},
	}
	for s, want := range good {
		if got, err := ParseAllow(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", s, got, err, want)
		}
	}
	const wantPort, wantProtocol = "a port is a number from 1 to 65535", "what follows the port is /tcp or /udp"
	const loopback = "the container has its own loopback; network.hostLoopback is for the host's"
	bad := map[string]string{
		"":                       "",
		" 10.0.0.1":              "",
		"example.org":            "a name needs a port: example.org:443",
		"10.0.0.256":             "",
		"10.0.0.256:80":          "",
		"*.example.org:443":      "",
		"Example.org:443":        "write example.org",
		"https://example.org":    wantPort,
		"example.org:":           wantPort,
		"example.org:https":      wantPort,
		"10.0.0.1:0":             wantPort,
		"10.0.0.1:65536":         wantPort,
		"10.0.0.1:+80":           wantPort,
		"10.0.0.1:080":           wantPort,
		"10.0.0.1:80-90":         wantPort,
		"10.0.0.1:80/sctp":       wantProtocol,
		"10.0.0.1:80/":           wantProtocol,
		"10.0.0.1/tcp":           "",
		"10.0.0.1/8":             "write 10.0.0.0/8",
		"10.0.0.1/8:443":         "write 10.0.0.0/8",
		"10.0.0.0/33":            "",
		"10.0.0.0/":              "",
		"2001:db8::1/32":         "write 2001:db8::/32",
		"2001:db8::/32:443":      "write [2001:db8::/32]:443",
		"2001:db8::/129":         "",
		"fe80::1%eth0":           "leave the zone out",
		"::ffff:192.0.2.1":       "write it as IPv4",
		"[::ffff:192.0.2.1]:443": "write it as IPv4",
		"[2001:db8::1":           "close the bracket",
		"[2001:db8::1]":          "write 2001:db8::1",
		"[2001:db8::1]443":       "",
		"[10.0.0.1]:443":         "brackets are for IPv6",
		"[example.org]:443":      "brackets are for IPv6",
		"[]:443":                 "brackets are for IPv6",
		"localhost:5432":         loopback,
		"localhost":              loopback,
		"127.1.2.3":              loopback,
		"127.0.0.0/8:80":         loopback,
		"[::1]:80":               loopback,
	}
	for s, want := range bad {
		got, err := ParseAllow(s)
		if err == nil || got != (Allow{}) {
			t.Errorf("%q: %+v, %v", s, got, err)
			continue
		}
		_, remedy, _ := strings.Cut(err.Error(), ruleAllow.expected())
		if strings.TrimPrefix(remedy, ": ") != want {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
}

func TestCheckHostName(t *testing.T) {
	long := strings.Repeat("a", 63)
	tests := []struct {
		name   string
		good   bool
		remedy string
	}{
		{"db", true, ""},
		{"3com", true, ""},
		{"a_b.example-1.org", true, ""},
		{long + "." + long + "." + long + "." + long[:61], true, ""},
		{long + "." + long + "." + long + "." + long[:62], false, ""},
		{long + "a", false, ""},
		{"", false, ""},
		{".", false, ""},
		{"a.", false, ""},
		{"-a", false, ""},
		{"a-.b", false, ""},
		{"a b", false, ""},
		{"a\nb", false, ""},
		{"é", false, ""},
		{"10.0.0.1", false, ""},
		{"a.1", false, ""},
		{"localhost", false, ""},
		{"Localhost", false, ""},
		{"DB", false, "write db"},
		{"D B", false, ""},
	}
	for _, test := range tests {
		if good, remedy := checkHostName(test.name); good != test.good || remedy != test.remedy {
			t.Errorf("%q: %v, %q", test.name, good, remedy)
		}
	}
}
