package descriptor

import (
	"encoding/json"
	"net/netip"
	"testing"
)

// TestPeerAddress: nix/tests/unit.nix holds Nix against the same file.
func TestPeerAddress(t *testing.T) {
	var addresses map[string]string
	if err := json.Unmarshal([]byte(readFile(t, "testdata/peers.json")), &addresses); err != nil || len(addresses) < 5 {
		t.Fatalf("%d addresses, %v", len(addresses), err)
	}
	for name, want := range addresses {
		if got := PeerAddress(name); got.String() != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	// A container's own loopback address and the whole of 127.0.0.0/16 aren't given away.
	for _, name := range []string{"", "db", "cache"} {
		if a := PeerAddress(name); !netip.MustParsePrefix("127.64.0.0/10").Contains(a) {
			t.Errorf("%q: %s", name, a)
		}
	}
}
