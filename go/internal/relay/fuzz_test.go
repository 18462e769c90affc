package relay

import (
	"bytes"
	"net/netip"
	"testing"
)

// FuzzProxyHeader: a service that reads a header reads the addresses that were
// put in, and nothing of what the client sends.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte{192, 0, 2, 1}, uint16(1), []byte{127, 0, 0, 1}, uint16(65535))
	f.Add(make([]byte, 16), uint16(0), make([]byte, 16), uint16(80))
	f.Add([]byte{192, 0, 2, 1}, uint16(1), make([]byte, 16), uint16(2))
	f.Add([]byte{}, uint16(0), []byte{}, uint16(0))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x01\x02\x03\x04"), uint16(1), []byte{1, 2, 3, 4}, uint16(2))
	f.Fuzz(func(t *testing.T, from []byte, fromPort uint16, to []byte, toPort uint16) {
		a, _ := netip.AddrFromSlice(from)
		b, _ := netip.AddrFromSlice(to)
		source, target := netip.AddrPortFrom(a.Unmap(), fromPort), netip.AddrPortFrom(b.Unmap(), toPort)
		header := proxyHeader(source, target)
		r := bytes.NewReader(append(header, "what the client sends"...))
		got, err := readIntroduction(r)
		if err != nil || r.Len() != len("what the client sends") {
			t.Fatalf("%q: %v, %d bytes left", header, err, r.Len())
		}
		both := source.IsValid() && target.IsValid() && source.Addr().Is4() == target.Addr().Is4()
		if got.local == both || both && (got.from != source || got.to != target) {
			t.Errorf("%+v, want %s and %s", got, source, target)
		}
	})
}
