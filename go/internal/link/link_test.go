package link

import (
	"slices"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

var both = []string{Localhost4, Localhost6}

func TestName(t *testing.T) {
	long := "/srv/" + strings.Repeat("n", 100)
	tests := []struct {
		spec             Spec
		name, text, unit string
	}{
		{
			Spec{Client: End{Container: "web", Port: 80}, Host: End{Container: "db", Port: 5432}, Count: 1, Protocol: TCP, Addresses: append(both, descriptor.PeerAddress("db").String())},
			"web-80-db-5432", "web localhost:80 → db:5432", "nuc-link-web-80-db-5432.service",
		},
		{
			Spec{Client: End{Port: 1001}, Host: End{Container: "db", Port: 5432}, Count: 1, Protocol: TCP, Addresses: both},
			"host-1001-db-5432", "localhost:1001 → db:5432", "nuc-link-host-1001-db-5432.service",
		},
		{
			Spec{Client: End{Port: 8000}, Host: End{Container: "db", Port: 9000}, Count: 11, Protocol: UDP, Addresses: both},
			"host-8000-8010-db-9000-9010-udp", "localhost:8000-8010 → db:9000-9010 (udp)", "nuc-link-host-8000-8010-db-9000-9010-udp.service",
		},
		{
			Spec{Client: End{Port: 80}, Host: End{Container: "web", Port: 80}, Count: 1, Protocol: TCP, Addresses: []string{"0.0.0.0"}},
			"host-0.0.0.0-80-web-80", "0.0.0.0:80 → web:80", "nuc-link-host-0.0.0.0-80-web-80.service",
		},
		{
			Spec{Client: End{Port: 80}, Host: End{Container: "web", Port: 80}, Count: 1, Protocol: TCP, Addresses: []string{"::"}},
			"host-::-80-web-80", "[::]:80 → web:80", "nuc-link-host-::-80-web-80.service",
		},
		{
			Spec{Client: End{Path: "/home/ana/a b/.s.PGSQL.5432"}, Host: End{Container: "db", Port: 5432}, Count: 1, Protocol: TCP},
			"host-s.PGSQL.5432-b4b710-db-5432", "/home/ana/a b/.s.PGSQL.5432 → db:5432", "nuc-link-host-s.PGSQL.5432-b4b710-db-5432.service",
		},
		{
			Spec{Client: End{Container: "web", Port: 80}, Host: End{Path: long}, Count: 1, Protocol: TCP, Addresses: both},
			"web-80-host-" + strings.Repeat("n", 40) + "-f86393", "web localhost:80 → -:" + long, "",
		},
		{
			Spec{Client: End{Container: "web", Port: 80}, Host: End{Container: "db", Port: 81}, Count: 1, Protocol: TCP, Declared: true, Addresses: []string{descriptor.PeerAddress("db").String()}},
			"web-80-db-81", "web " + descriptor.PeerAddress("db").String() + ":80 → db:81", "",
		},
	}
	for _, test := range tests {
		if got := test.spec.Name(); got != test.name {
			t.Errorf("name %q, want %q", got, test.name)
		}
		if got := test.spec.Text(); got != test.text {
			t.Errorf("text %q, want %q", got, test.text)
		}
		if got := unitName(test.spec.Name()); test.unit != "" && got != test.unit || len(got) > 255 {
			t.Errorf("unit %q, want %q", got, test.unit)
		}
	}
}

// TestNames: links that differ have names that differ, which are no longer than
// they must be.
func TestNames(t *testing.T) {
	to := func(client string, port int, host string, hostPort, count int, addresses ...string) Spec {
		if addresses == nil {
			addresses = both
		}
		return Spec{Client: End{Container: client, Port: port}, Host: End{Container: host, Port: hostPort}, Count: count, Protocol: TCP, Addresses: addresses}
	}
	plain := []Spec{
		to("web-2", 80, "db-1", 5432, 1), to("2", 80, "3", 80, 1), to("", 80, "web-80", 80, 1), to("a-80-90", 80, "b", 80, 11),
		to("a", 80, "b", 90, 1, "0.0.0.0"), to("a", 80, "b", 91, 1, Localhost4, Localhost6, descriptor.PeerAddress("b").String()),
	}
	marked := []Spec{
		to("", 80, "web", 80, 1, "127.0.0.2", "127.0.0.3"), to("", 80, "web", 80, 1, "127.0.0.2", "127.0.0.4"),
		to("host", 80, "web", 80, 1), to("web", 80, "host", 80, 1),
		{Client: End{Container: "host", Path: "/run/s"}, Host: End{Container: "web", Port: 80}, Count: 1, Protocol: TCP},
		to("a", 80, "b-80-c", 90, 1), to("a", 80, "81-b-80", 81, 1),
	}
	others := []Spec{
		to("a-80-b", 80, "c", 90, 1), to("a", 1, "2-b", 1, 1), to("a-1", 2, "b", 1, 1), to("a", 80, "b", 80, 2),
		to("", 80, "web", 80, 1), to("web", 80, "", 80, 1),
		{Client: End{Path: "/run/s"}, Host: End{Container: "web", Port: 80}, Count: 1, Protocol: TCP},
	}
	seen := map[string]*Spec{}
	for i, all := range [][]Spec{plain, marked, others} {
		for _, s := range all {
			name := s.Name()
			if other := seen[name]; other != nil {
				t.Errorf("%+v and %+v are both %s", s, *other, name)
			}
			seen[name] = &s
			if short := len(name) == len(s.Client.name(s.Count, s.explicit())+"-"+s.Host.name(s.Count, "")); i == 0 && !short || i == 1 && short {
				t.Errorf("%s: %+v: is longer or shorter than it is to be", name, s)
			}
		}
	}
}

func TestClash(t *testing.T) {
	a := Spec{Client: End{Port: 8000}, Count: 10, Protocol: TCP, Addresses: both}
	tests := []struct {
		name    string
		other   Spec
		address string
		want    bool
	}{
		{"the same", a, Localhost4, true},
		{"overlap", Spec{Client: End{Port: 8009}, Count: 5, Protocol: TCP, Addresses: both}, Localhost4, true},
		{"beside", Spec{Client: End{Port: 8010}, Count: 5, Protocol: TCP, Addresses: both}, Localhost4, false},
		{"another protocol", Spec{Client: End{Port: 8000}, Count: 1, Protocol: UDP, Addresses: both}, Localhost4, false},
		{"another place", Spec{Client: End{Container: "web", Port: 8000}, Count: 1, Protocol: TCP, Addresses: both}, Localhost4, false},
		{"another address", Spec{Client: End{Port: 8000}, Count: 1, Protocol: TCP, Addresses: []string{"127.0.0.2"}}, Localhost4, false},
		{"every address", Spec{Client: End{Port: 8000}, Count: 1, Protocol: TCP, Addresses: []string{"0.0.0.0"}}, Localhost4, true},
		{"every address of the other family", Spec{Client: End{Port: 8000}, Count: 1, Protocol: TCP, Addresses: []string{"::"}}, Localhost4, false},
		{"an optional one", Spec{Client: End{Port: 8000}, Count: 1, Protocol: TCP, Addresses: []string{"127.0.0.2"}, Optional: both}, Localhost6, true},
		{"a path", Spec{Client: End{Path: "/x"}, Count: 1, Protocol: TCP}, Localhost4, false},
	}
	for _, test := range tests {
		if got := a.clash(&test.other, test.address); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

func TestDeclared(t *testing.T) {
	peer := func(name string) []string { return []string{descriptor.PeerAddress(name).String()} }
	d := &descriptor.Descriptor{Name: "app", Links: []descriptor.Link{
		{Listen: 5432, To: "db", Port: 5432, Count: 1, Protocol: TCP},
		{Listen: 80, To: "web", Port: 8080, Count: 2, Protocol: TCP},
		{Listen: 81, To: "db", Port: 81, Count: 1, Protocol: TCP},
		{Listen: 81, To: "dns", Port: 53, Count: 1, Protocol: UDP},
		{Listen: 90, To: "db", Port: 90, Count: 1, Protocol: TCP, Address: "0.0.0.0"},
	}}
	want := []struct {
		name                string
		addresses, optional []string
	}{
		{"app-5432-db-5432", peer("db"), both},
		{"app-80-81-web-8080-8081", peer("web"), nil},
		{"app-81-db-81", peer("db"), nil},
		{"app-81-dns-53-udp", peer("dns"), both},
		{"app-0.0.0.0-90-db-90", []string{"0.0.0.0"}, nil},
	}
	got := Declared(d)
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		if got[i].Name() != w.name || !slices.Equal(got[i].Addresses, w.addresses) || !slices.Equal(got[i].Optional, w.optional) || !got[i].Declared {
			t.Errorf("%+v, want %+v", got[i], w)
		}
	}
	if got[0].status("").Beyond || !got[4].status("").Beyond {
		t.Error("what is beyond loopback is not told")
	}
}

func TestService(t *testing.T) {
	got := service("host-80-web-80", "localhost:80 → web:80", []string{"/opt/nuc", Role}).Arguments()
	want := []string{
		"--user", "--quiet", "--collect", "--unit=nuc-link-host-80-web-80.service", "--description=nuc link localhost:80 → web:80",
		"--service-type=exec", "--property=Restart=on-failure", "--property=RestartSec=100ms", "--property=RestartPreventExitStatus=78",
		"--working-directory=/", "--", "/opt/nuc", "nuc-link",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}
