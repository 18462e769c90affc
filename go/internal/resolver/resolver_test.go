package resolver

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func servers(addresses ...string) (list []netip.Addr) {
	for _, a := range addresses {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func TestParse(t *testing.T) {
	own := servers("127.0.0.1")
	tests := []struct {
		text string
		want Config
	}{
		{"", Config{Servers: own}},
		{"# nameserver 192.0.2.1\n; nameserver 192.0.2.2\n", Config{Servers: own}},
		{
			"nameserver 192.0.2.1 # first\n  nameserver\t2001:db8::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n",
			Config{Servers: servers("192.0.2.1", "2001:db8::1", "fe80::1%eth0")},
		},
		{"nameserver localhost\nnameserver\nnameserver 192.0.2.256\nsortlist 1\n", Config{Servers: own}},
		{"domain a.example\nsearch b.example  c.example\noptions edns0 trust-ad\n", Config{Servers: own, Search: "b.example c.example", Options: "edns0 trust-ad"}},
		{"search a\r\ndomain b", Config{Servers: own, Search: "b"}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, Parse(test.text), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%q: want (-) got (+):\n%s", test.text, diff)
		}
	}
	got := Config{Search: "a b", Options: "edns0"}.File("why", servers("127.1.1.53")...)
	if want := "# why\nnameserver 127.1.1.53\nsearch a b\noptions edns0\n"; got != want {
		t.Errorf("File: %q, want %q", got, want)
	}
}

func TestHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	h := &Host{Path: path}
	step := func(what, server string, news bool) {
		t.Helper()
		c, changed := h.Current()
		if c.Servers[0].String() != server || changed != news {
			t.Errorf("%s: %v, news %t, want %s, %t", what, c.Servers, changed, server, news)
		}
	}
	step("no file", "127.0.0.1", true)
	step("still none", "127.0.0.1", false)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nameserver 192.0.2.1\n")
	step("a file", "192.0.2.1", true)
	step("the same", "192.0.2.1", false)
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write("nameserver 192.0.2.2\n")
	step("another of the same size", "192.0.2.2", true)
	write("nameserver 192.0.2.3\n" + strings.Repeat("#", maxFile))
	step("an endless one", "127.0.0.1", true)
}

func TestFailure(t *testing.T) {
	question := "\x07outside\x04test\x00\x00\x01\x00\x01"
	tests := []struct{ name, query, want string }{
		{
			"a question, with EDNS", "\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01" + question + "\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00",
			"\x12\x34\x81\x82\x00\x01\x00\x00\x00\x00\x00\x00" + question,
		},
		{"no question", "\x12\x34\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x12\x34\x80\x82\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"a question that is cut off", "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fabc", "\x12\x34\x81\x82\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"more questions than there are", "\x12\x34\x01\x00\xff\xff\x00\x00\x00\x00\x00\x00" + question, "\x12\x34\x81\x82\x00\x00\x00\x00\x00\x00\x00\x00"},
	}
	for _, test := range tests {
		if got := failure([]byte(test.query)); !bytes.Equal(got, []byte(test.want)) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	for _, bad := range []string{"", "\x12\x34", "\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00"} {
		if isQuery([]byte(bad)) {
			t.Errorf("%q passes for a query", bad)
		}
	}
}

func TestFound(t *testing.T) {
	const head, question = "\x12\x34\x81\x80\x00\x01", "\x07OUTside\x04test\x00\x00\x01\x00\x01"
	const alias = "\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x00\x00\x04\x01a\xc0\x0c"
	const four = "\x01a\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\xc6\x33\x64\x07"
	const six = "\x00\x00\x1c\x00\x01\x00\x00\x00\x00\x00\x10\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07"
	tests := []struct {
		name, message string
		want          []netip.Addr
	}{
		{"an alias and both families", head + "\x00\x03\x00\x00\x00\x00" + question + alias + four + six, servers("198.51.100.7", "2001:db8::7")},
		{"more than there are", head + "\x00\x09\x00\x00\x00\x00" + question + four, servers("198.51.100.7")},
		{"one that is cut off", head + "\x00\x01\x00\x00\x00\x00" + question + four[:len(four)-1], nil},
		{"another class", head + "\x00\x01\x00\x00\x00\x00" + question + strings.Replace(four, "\x00\x01\x00\x01", "\x00\x01\x00\x03", 1), nil},
		{"none", head + "\x00\x00\x00\x00\x00\x00" + question, nil},
	}
	for _, test := range tests {
		name, got := found([]byte(test.message))
		if name != "outside.test" || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v, want %v", test.name, name, got, test.want)
		}
	}
}

func TestLocal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("search One.example two.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &Forwarder{Host: &Host{Path: path}, Local: func(name string) (netip.Addr, bool) {
		return netip.MustParseAddr("127.64.1.2"), name == "db"
	}}
	query := func(name string, kind byte) string {
		m := "\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x00"
		for label := range strings.SplitSeq(name, ".") {
			m += string(rune(len(label))) + label
		}
		return m + "\x00\x00" + string(rune(kind)) + "\x00\x01"
	}
	for _, name := range []string{"db", "DB", "db.one.example", "db.two.example"} {
		four := f.local([]byte(query(name, typeA)))
		if asked, got := found(four); !isAnswer(four, []byte(query(name, typeA))) || code(four) != 0 || asked != strings.ToLower(name) || !slices.Equal(got, servers("127.64.1.2")) {
			t.Errorf("%s: %q", name, four)
		}
		// Not NXDOMAIN, which would be of all types.
		if six := f.local([]byte(query(name, typeAAAA))); six == nil || code(six) != 0 || !bytes.HasSuffix(six, []byte("\x00\x1c\x00\x01")) {
			t.Errorf("%s, IPv6: %q", name, six)
		}
	}
	for _, other := range []string{query("web", typeA), query("db.three.example", typeA), query("db", 15), query("db", typeA)[:19]} {
		if m := f.local([]byte(other)); m != nil {
			t.Errorf("%q for %q, which is the servers' to answer", m, other)
		}
	}
}

// TestStream asks over TCP, where the one server there is refuses connections.
func TestStream(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("nameserver 127.99.98.97\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	packets, stream, _, address := listening(t)
	f := &Forwarder{Host: &Host{Path: path}, Local: func(name string) (netip.Addr, bool) {
		return netip.MustParseAddr("127.64.1.2"), name == "db"
	}}
	if err := f.Serve(packets, stream); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	dial := func() *net.TCPConn {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		return c.(*net.TCPConn)
	}
	const head, tail = "\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x00", "\x00\x00\x01\x00\x01"
	db, web := head+"\x02db"+tail, head+"\x03web"+tail
	both := "\x00" + string(rune(len(db))) + db + "\x00" + string(rune(len(web))) + web

	c := dial()
	for part := range strings.SplitSeq(both, "") {
		if _, err := io.WriteString(c, part); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.CloseWrite()
	answers := &talker{Conn: c}
	if m, err := answers.receive(); err != nil || code(m) != 0 || !bytes.HasSuffix(m, []byte("\x7f\x40\x01\x02")) {
		t.Errorf("a name that is known: %q, %v", m, err)
	}
	if m, err := answers.receive(); err != nil || code(m) != servfail {
		t.Errorf("a name that nobody can be asked for: %q, %v", m, err)
	}
	if m, err := answers.receive(); !errors.Is(err, io.EOF) {
		t.Errorf("after all that was asked: %q, %v", m, err)
	}
	for _, bad := range []string{"\x00\x00", "\x00\x02no", "\x00\x0c\x12\x34\x81\x80\x00\x00\x00\x00\x00\x00\x00\x00"} {
		c := dial()
		_, _ = io.WriteString(c, bad)
		if m, err := (&talker{Conn: c}).receive(); err == nil {
			t.Errorf("%q is answered: %q", bad, m)
		}
	}
	// More than there may be at once are closed, and the others served.
	for range maxQueries + 10 {
		dial()
	}
	last := dial()
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
}

func FuzzFound(f *testing.F) {
	f.Add([]byte("\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\xc6\x33\x64\x07"))
	f.Fuzz(func(_ *testing.T, m []byte) {
		found(m)
		if isQuery(m) {
			local(m, func(string) (netip.Addr, bool) { return netip.MustParseAddr("127.64.1.2"), true })
		}
	})
}

func FuzzFailure(f *testing.F) {
	f.Add([]byte("\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x07outside\x04test\x00\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, query []byte) {
		if !isQuery(query) {
			return
		}
		m := failure(query)
		if !isAnswer(m, query) || code(m) != servfail || len(m) > len(query) {
			t.Errorf("%q for %q", m, query)
		}
	})
}
