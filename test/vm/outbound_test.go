package vm

import (
	"strings"
	"testing"
)

// TestOutbound has Debian's pasta, under its AppArmor profile, take a
// container's connections to a network that the host alone reaches.
func TestOutbound(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	m.root.must(t, `ip netns add outside && ip link add out type veth peer name in netns outside &&
		ip addr add 192.0.2.1/24 dev out && ip link set out up &&
		ip -n outside addr add 192.0.2.2/24 dev in && ip -n outside link set in up && ip -n outside link set lo up &&
		for where in "ip netns exec outside" ""; do
			$where systemd-run --scope --quiet systemd-socket-activate -l 7000 --inetd -a -- /bin/echo "hello from ${where:+outside}" >/dev/null 2>&1 &
		done`)
	m.root.eventually(t, patience, "ss -Hltn sport = :7000 | grep -q . && ip netns exec outside ss -Hltn sport = :7000 | grep -q .")
	t.Cleanup(func() { m.root.must(t, "pkill -f '[s]ystemd-socket-activate'; ip netns del outside") })
	ana.must(t, "grep -qx 'hello from outside' </dev/tcp/192.0.2.2/7000 && grep -qx 'hello from ' </dev/tcp/127.0.0.1/7000")
	ana.up(t, small("a"))
	if st := ana.must(t, "nuc status a --json"); !strings.Contains(st, `"pasta`) {
		t.Errorf("the way out is not pasta's: %s", st)
	}
	ana.must(t, `nuc exec a bash -c 'exec 3<>/dev/tcp/192.0.2.2/7000 && cat <&3' | grep -qx 'hello from outside'`)
	// What listens on the host's loopback is not for the container, by its own
	// addresses and by its gateway's.
	for _, address := range []string{"127.0.0.1", "::1", "10.117.99.2", "fd6e:7563::2"} {
		if r := ana.run(t, "timeout 20 nuc exec a bash -c 'exec 3<>/dev/tcp/"+address+"/7000 && cat <&3'"); r.code == 0 {
			t.Errorf("the host at %s: %s", address, r)
		}
	}
}
