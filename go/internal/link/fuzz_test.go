package link

import (
	"path"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/go/internal/socket"
)

// FuzzName: a link's name is one for a folder and a unit, whatever socket it
// leads to.
func FuzzName(f *testing.F) {
	f.Add("/home/ana/a b/.s.PGSQL.5432", "web", 80, 1, true)
	f.Add("/x/..\n", "", 65535, 1, false)
	f.Add("/"+strings.Repeat("é", 52), strings.Repeat("a", 63), 1, 1, true)
	f.Fuzz(func(t *testing.T, name, container string, port, count int, udp bool) {
		if (socket.Place{Network: socket.Unix, Path: name}).Check() != nil || port < 1 || count < 1 || port+count > 65536 {
			return
		}
		if len(container) > 63 || strings.Trim(container, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(container, "-") {
			return
		}
		s := Spec{Client: End{Path: name}, Host: End{Container: container, Port: port}, Count: count, Protocol: TCP}
		if udp {
			s.Protocol = UDP
		}
		got := s.Name()
		for _, r := range got {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(":-_.", r) {
				t.Errorf("%q has %q", got, r)
			}
		}
		if len("nuc-link-"+got+".service") > 255 || path.Base(got) != got || strings.HasPrefix(got, ".") {
			t.Errorf("%q is no name", got)
		}
	})
}
