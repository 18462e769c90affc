package resolver

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzParse: what a host's file says can be said to a container, and means the
// same there.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"nameserver 192.0.2.1 # first\nsearch a b\noptions edns0\n", "nameserver fe80::1%eth0\n", "domain x\rsearch y", "nameserver\x00 1.1.1.1\n", "search \u2028x\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Parse(text)
		if len(c.Servers) < 1 || len(c.Servers) > maxServers || strings.ContainsAny(c.Search+c.Options, "\n#;") {
			t.Errorf("%q is %+q", text, c)
		}
		again := Parse(c.File("why", c.Servers...))
		if again.Search != c.Search || again.Options != c.Options || len(again.Servers) != len(c.Servers) {
			t.Errorf("%+q is written as %+q", c, again)
		}
	})
}

// FuzzForwarder sends packets to a live forwarder, whose one server does not
// answer: it goes on answering queries, which is with SERVFAIL, and nothing else.
func FuzzForwarder(f *testing.F) {
	f.Add([]byte("\x12\x34\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x07outside\x04test\x00\x00\x01\x00\x01"))
	f.Add([]byte("\x12\x34\x81\x20\x00\x01\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("short"))
	f.Add([]byte{})
	host := filepath.Join(f.TempDir(), "resolv.conf")
	// Of this machine, and nobody listens there: it says so at once.
	if err := os.WriteFile(host, []byte("nameserver 127.99.98.97\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	packets, stream, address, _ := listening(f)
	forwarder := &Forwarder{Host: &Host{Path: host}}
	if err := forwarder.Serve(packets, stream); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(forwarder.Close)
	client, err := net.Dial("udp", address)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { client.Close() })
	f.Fuzz(func(t *testing.T, query []byte) {
		if len(query) > 1400 {
			return
		}
		if _, err := client.Write(query); err != nil {
			t.Fatal(err)
		}
		last := []byte("\xff\xfe\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		if bytes.HasPrefix(query, last[:2]) {
			last[0] = 0
		}
		if _, err := client.Write(last); err != nil {
			t.Fatal(err)
		}
		answered := map[[2]byte]bool{}
		buf := make([]byte, 1<<16)
		_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
		for !answered[[2]byte(last)] || isQuery(query) && !answered[[2]byte(query)] {
			n, err := client.Read(buf)
			if err != nil {
				t.Fatalf("not answered, but %v: %v", answered, err)
			}
			m := buf[:n]
			if !isAnswer(m, last) && !(isQuery(query) && isAnswer(m, query)) || code(m) != servfail {
				t.Fatalf("%q for %q", m, query)
			}
			answered[[2]byte(m)] = true
		}
	})
}

// listening makes sockets for a forwarder.
func listening(t testing.TB) (packets, stream *os.File, udp, tcp string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if packets, err = c.(*net.UDPConn).File(); err != nil {
		t.Fatal(err)
	}
	if stream, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	return packets, stream, c.LocalAddr().String(), l.Addr().String()
}
