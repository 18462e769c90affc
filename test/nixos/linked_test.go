package nixos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// TestLinked boots two containers: one has nuc.handOver, with which clients reach
// its socket units without a relay, the other nuc.links to it.
func TestLinked(t *testing.T) {
	p := booted(t)
	back, front := p.build(t, "back"), p.build(t, "front")
	h := harness.New(t)
	key, err := os.ReadFile(filepath.Join(p.Store, "key"))
	if err != nil {
		t.Fatal(err)
	}
	identity := h.Write("key", string(key), 0o600)
	up := func(name, descriptor string) {
		t.Helper()
		path := h.Descriptor(name, func(d map[string]any) { p.fromStore(t, d, descriptor) })
		// A socket that no unit has would be warned of.
		if r := h.Nuc("up", path); r.Code != 0 || strings.Contains(r.Stderr, "ListenStream") {
			t.Fatalf("%s", r)
		}
		isRunning(t, h, name)
	}
	up("back", back)
	up("front", front)

	// As back.nix has them; the client's address is its own.
	const ssh, hello = 28222, 28223
	serves := func(when string) {
		t.Helper()
		r := h.Host("ssh", "-F", "/dev/null", "-i", identity, "-p", fmt.Sprint(ssh), "-b", "127.0.0.9", "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile="+h.Dir+"/known", "ana@127.0.0.1", "id -un; echo $SSH_CONNECTION; exit 37")
		lines := strings.Split(r.Stdout, "\n")
		if r.Code != 37 || len(lines) < 2 || lines[0] != "ana" || !strings.HasPrefix(lines[1], "127.0.0.9 ") || !strings.HasSuffix(lines[1], fmt.Sprint(" 127.0.0.1 ", ssh)) {
			t.Errorf("%s: sshd on a socket that was handed over: %s", when, r)
		}
		if r := h.Host("bash", "-c", fmt.Sprintf("cat </dev/tcp/127.0.0.1/%d", hello)); r.Stdout != "hello 127.0.0.1\n" {
			t.Errorf("%s: a unit of one's own: %s", when, r)
		}
		harness.Eventually(t, patience, when+": front reaches back by its name", func() bool {
			return h.Exec("front", "curl", "-sS", "--max-time", "10", "http://back:8080/").Stdout == "served from the store"
		})
	}
	serves("at first")
	if r := h.Exec("front", "curl", "-sS", "--max-time", "10", "http://localhost:8080/"); r.Stdout != "served from the store" {
		t.Errorf("by localhost: %s", r)
	}
	if r := h.Nuc("links"); !strings.Contains(r.Stdout, "front-8080-back-8080") || !strings.Contains(r.Stdout, "listening") {
		t.Errorf("%s", r)
	}
	h.Reboot("back", 2*patience)
	serves("after a reboot inside")
	h.Must("restart", "back")
	serves("after a restart")
}
