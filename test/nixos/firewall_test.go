package nixos

import (
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// neighbour is a network namespace that reaches the container as another host
// would: over an interface that isn't the loopback.
const neighbour = `set -e
unshare -n sleep 600 &
there=$!
while [ "$(readlink /proc/$there/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do sleep 0.01; done
ip link add wall type veth peer name door netns $there
ip addr add 10.99.0.1/24 dev wall
ip link set wall up
nsenter -t $there -n ip addr add 10.99.0.2/24 dev door
nsenter -t $there -n ip link set door up
get() { "$@" curl -sS --max-time 10 -o /dev/null -w '%{http_code}' "http://$host:$port/" 2>&1 || true; }
for host in 127.0.0.1 10.99.0.1; do
	for port in 8080 8081; do
		if [ $host = 127.0.0.1 ]; then echo "$host:$port $(get)"; else echo "$host:$port $(get nsenter -t $there -n)"; fi
	done
done
kill $there`

// TestFirewall: NixOS' own firewall, turned on, opens what it was told to open.
func TestFirewall(t *testing.T) {
	p := booted(t)
	walled := p.build(t, "walled")
	h := harness.New(t)
	h.Must("up", h.Descriptor("walled", func(d map[string]any) { p.fromStore(t, d, walled) }))
	isRunning(t, h, "walled")
	r := h.Exec("walled", "bash", "-c", neighbour)
	got := map[string]string{}
	for line := range strings.Lines(r.Stdout) {
		address, answer, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[address] = answer
	}
	for address, want := range map[string]string{
		"127.0.0.1:8080": "200", "127.0.0.1:8081": "200", "10.99.0.1:8080": "200",
	} {
		if got[address] != want {
			t.Errorf("%s answers %q, want %s", address, got[address], want)
		}
	}
	// curl's 7 is a connection that was refused, and at once.
	if answer := got["10.99.0.1:8081"]; !strings.HasPrefix(answer, "curl: (7)") {
		t.Errorf("a port that isn't opened answers another host %q", answer)
	}
	if t.Failed() {
		t.Logf("%s%s", r, h.Exec("walled", "iptables", "-S").Stdout)
	}
	// Its users are those of the configuration, also after one came by hand.
	h.Must("exec", "walled", "su", "dora", "-c", "true")
	h.Must("exec", "walled", "useradd", "eve")
	h.Must("restart", "walled")
	isRunning(t, h, "walled")
	h.Must("exec", "walled", "id", "dora")
	if r := h.Exec("walled", "id", "eve"); r.Code != 1 {
		t.Errorf("a user that the configuration doesn't know is there after a boot: %s", r)
	}
	h.Must("exec", "walled", "systemctl", "stop", "firewall.service")
	if r := h.Exec("walled", "iptables", "-S", "INPUT"); strings.Contains(r.Stdout, "nixos-fw") {
		t.Errorf("the rules are still there: %s", r)
	}
}
