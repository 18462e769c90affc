package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// outside runs a test on a host of its own, with a web server and a name server
// beyond it.
func outside(t *testing.T, opts ...harness.Option) *harness.H {
	t.Helper()
	h := harness.New(t, append(opts, harness.WithOutside())...)
	h.ServeWeb(h.Outside.Listen("tcp", ":80"))
	zone := records{"outside.test.": {harness.OutsideAddress4, harness.OutsideAddress6}}
	zone.serve(h, h.Outside.Listen("tcp", harness.OutsideOther4+":53"), h.Outside.ListenPacket("udp", harness.OutsideOther4+":53"))
	h.Outside.Resolve("nameserver " + harness.OutsideOther4 + "\nsearch test\noptions edns0\n")
	return h
}

// wayOut is what `nuc status --json` says of it.
type wayOut struct {
	Driver   string `json:"driver"`
	PID      int    `json:"pid"`
	Reason   string `json:"reason"`
	Restarts int    `json:"restarts"`
}

func statusOf(h *harness.H, name string) wayOut {
	h.Helper()
	var status struct {
		Outbound *wayOut `json:"outbound"`
	}
	r := h.Nuc("status", "--json", name)
	if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil {
		h.Fatalf("%v\n%s", err, r)
	}
	if status.Outbound == nil {
		return wayOut{}
	}
	return *status.Outbound
}

func TestOutbound(t *testing.T) {
	for _, tree := range trees {
		t.Run(tree.name, func(t *testing.T) {
			t.Parallel()
			h := outside(t)
			h.Up("web", tree.name, nil)
			leaves(h)
			h.Reboot("web", 2*patience)
			leaves(h)
			if got := statusOf(h, "web"); got.Restarts != 0 {
				h.Errorf("after a reboot inside: %+v", got)
			}
		})
	}
}

// leaves reaches the outside in all ways from container web.
func leaves(h *harness.H) {
	h.Helper()
	h.AwaitOutside("web")
	for _, url := range []string{"http://[" + harness.OutsideAddress6 + "]/", "http://outside.test/", "http://outside/"} {
		if err := h.Curl("web", url); err != nil {
			h.Error(err)
		}
	}
	for family, address := range map[string]string{"ahostsv4": harness.OutsideAddress4, "ahostsv6": harness.OutsideAddress6} {
		if r := h.Exec("web", "getent", family, "outside.test"); !strings.HasPrefix(r.Stdout, address) {
			h.Errorf("%s", r)
		}
	}
	if r := h.Exec("web", "getent", "ahosts", "nowhere.test"); r.Code != 2 || r.Duration > 3*time.Second {
		h.Errorf("a name that there is not:\n%s", r)
	}
	if got := statusOf(h, "web"); got.Driver != "pasta" || got.Reason != "" {
		h.Errorf("status: %+v, want pasta", got)
	}
	if r := h.Nuc("status", "web"); !strings.Contains(r.Stdout, "outbound     pasta, process ") {
		h.Errorf("%s", r)
	}
}

// TestOutboundStream moves data both ways, with TCP and UDP.
func TestOutboundStream(t *testing.T) {
	t.Parallel()
	h := outside(t)
	// One for each address: iperf3 answers datagrams from the first it has.
	for _, address := range []string{harness.OutsideAddress4, harness.OutsideAddress6} {
		h.Outside.Beyond("iperf3", "-s", "-B", address)
	}
	h.Up("web", "trixie", func(d map[string]any) { d["network"] = map[string]any{"mtu": 1500} })
	h.AwaitOutside("web")
	if r := h.Exec("web", "cat", "/sys/class/net/eth0/mtu"); r.Stdout != "1500\n" {
		h.Errorf("network.mtu 1500: %q", r.Stdout)
	}
	for _, flags := range [][]string{{"-c", harness.OutsideAddress4}, {"-R", "-c", harness.OutsideAddress6}, {"-u", "-b", "10M", "-c", harness.OutsideAddress4}} {
		harness.Eventually(h, patience, "iperf3 "+strings.Join(flags, " "), func() bool {
			r := h.Exec("web", append([]string{"iperf3", "-J", "-t", "1"}, flags...)...)
			var report struct {
				End struct {
					SumReceived struct{ Bytes int } `json:"sum_received"`
					Sum         struct{ Bytes int } `json:"sum"`
				} `json:"end"`
			}
			return r.Code == 0 && json.Unmarshal([]byte(r.Stdout), &report) == nil && max(report.End.SumReceived.Bytes, report.End.Sum.Bytes) > 100_000
		})
	}
}

// TestHostOutOfReach is hostile cases 25 and 29.
func TestHostOutOfReach(t *testing.T) {
	for name, options := range map[string][]harness.Option{"user": nil, "root": {harness.AsRoot()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := outside(t, options...)
			const port = 8000
			abstract := "@nuc-test-" + filepath.Base(h.Dir)
			w, beyond := h.Witness(port, abstract), h.WitnessBeyond(port)
			h.Up("web", "trixie", nil)
			h.AwaitOutside("web")
			// What asks does ask: the same streams and datagrams arrive where they may.
			allowed := []string{harness.OutsideAddress4, harness.OutsideAddress6}
			if open := h.Reaches("web", port, allowed); len(open) != len(allowed) {
				h.Errorf("of %q, beyond the host, only %q are reached", allowed, open)
			}
			harness.Eventually(h, patience, "datagrams arrive beyond the host", func() bool { return beyond.Datagrams() == int64(len(allowed)) })
			// And who listens does hear: the host itself.
			own := []string{"127.0.0.1", "::1", harness.HostAddress4, harness.HostAddress6, harness.HostSecond4, harness.HostSecond6}
			for _, address := range own {
				if r := h.Host("bash", "-c", fmt.Sprintf("echo x >/dev/udp/%s/%d && exec 3<>/dev/tcp/%[1]s/%[2]d", address, port)); r.Code != 0 {
					h.Errorf("%s", r)
				}
			}
			const abstractly = `socket(S, AF_UNIX, SOCK_STREAM, 0) && connect(S, pack_sockaddr_un("\0" . $ARGV[0])) or exit 9`
			if r := h.Host("perl", "-MSocket", "-e", abstractly, strings.TrimPrefix(abstract, "@")); r.Code != 0 {
				h.Errorf("%s", r)
			}
			heard := int64(2*len(own) + 1)
			harness.Eventually(h, patience, "all of the host's own is heard", func() bool { return w.Met() == heard && w.Datagrams() == int64(len(own)) })
			w.Forget()
			check := func(when string) {
				h.Helper()
				if open := h.Reaches("web", port, harness.HostAddresses()); len(open) > 0 || w.Met() > 0 {
					h.Errorf("%s: the container reaches the host at %q; %d came through", when, open, w.Met())
				}
			}
			check("as it is")
			h.Must("exec", "web", "nft", "flush", "ruleset")
			check("after nft flush ruleset")
			// An address that the host gets later is its own as well.
			h.Outside.IP("addr add 192.0.2.77/32 dev second")
			harness.Eventually(h, patience, "a new address of the host is out of reach", func() bool {
				return len(h.Reaches("web", port, []string{"192.0.2.77"})) == 0
			})
			w.Forget()
			check("with a new address")
			r := h.Exec("web", "perl", "-MSocket", "-e", abstractly, strings.TrimPrefix(abstract, "@"))
			if r.Code != 9 || w.Met() > 0 {
				h.Errorf("the host's abstract sockets: %s", r)
			}
			// A host name server is asked; what else it serves is not there.
			if err := h.Curl("web", "http://outside.test/"); err != nil {
				h.Error(err)
			}
		})
	}
}

// TestMulticast: what a container sends to everybody does not come to the host.
func TestMulticast(t *testing.T) {
	t.Parallel()
	h := outside(t)
	groups := map[string]string{"udp4": "239.255.77.1", "udp6": "ff05::7701"}
	met := make(chan string, 10)
	listen := func(network, address string) {
		c := h.Outside.JoinOnHost(network, address, 7701)
		go func() {
			buf := make([]byte, 100)
			for {
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				met <- string(buf[:n])
			}
		}()
	}
	for network, group := range groups {
		listen(network, group)
	}
	h.Up("web", "trixie", nil)
	h.AwaitOutside("web")
	for _, to := range []string{"239.255.77.1", "[ff05::7701]", "255.255.255.255"} {
		h.Exec("web", "perl", "-MIO::Socket::IP", "-MSocket=:all", "-e",
			`my $s = IO::Socket::IP->new(PeerHost => $ARGV[0] =~ tr/[]//dr, PeerPort => 7701, Type => SOCK_DGRAM, Broadcast => 1) or die $@; print $s->send($ARGV[0]) // $!`, to)
	}
	select {
	case text := <-met:
		h.Errorf("the host got what was sent to %s", text)
	case <-time.After(time.Second):
	}
	// The host's own do come, so that somebody was there to meet the others.
	h.Host("perl", "-MIO::Socket::IP", "-MSocket=:all", "-e",
		`IO::Socket::IP->new(PeerHost => "239.255.77.1", PeerPort => 7701, Type => SOCK_DGRAM)->send("own")`)
	select {
	case text := <-met:
		if text != "own" {
			h.Errorf("the host got what was sent to %s", text)
		}
	case <-time.After(patience):
		h.Error("not even the host's own comes")
	}
}

// TestHostLoopbackOfRoot: root takes the interface to where the rules aren't, and
// reaches the host's 127.0.0.1 from there with the pastas that status tells of.
func TestHostLoopbackOfRoot(t *testing.T) {
	t.Parallel()
	h := outside(t)
	w := h.Witness(8001, "")
	h.Up("web", "trixie", nil)
	h.AwaitOutside("web")
	const escape = `unshare -n sleep 60 & sleep 0.5
ip link set eth0 netns $!
exec nsenter --net=/proc/$!/ns/net sh -c '
	echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
	ip addr add 10.117.99.100/24 dev eth0
	ip link set eth0 up
	ip route add default via 10.117.99.2
	curl -sS --max-time 5 http://'$0'/'`
	if r := h.Exec("web", "bash", "-c", escape, "127.0.0.1:8001"); r.Duration > patience {
		h.Errorf("%s", r)
	}
	r := h.Nuc("status", "web")
	if told := strings.Contains(r.Stdout, "root in the container can get at the host's 127.0.0.1"); told != (w.Met() > 0) {
		h.Errorf("127.0.0.1 was reached %d times, and status tells of it: %t\n%s", w.Met(), told, r)
	}
}

func TestHostLoopback(t *testing.T) {
	t.Parallel()
	h := outside(t)
	for _, address := range []string{"127.0.0.1:8000", "[::1]:8000"} {
		h.ServeWeb(h.Outside.ListenOnHost("tcp", address))
	}
	w := h.Witness(8001, "")
	h.Up("web", "trixie", func(d map[string]any) { d["network"] = map[string]any{"hostLoopback": true} })
	h.AwaitOutside("web")
	for _, address := range harness.Gateways {
		if err := h.Curl("web", "http://"+net.JoinHostPort(address, "8000")+"/"); err != nil {
			h.Errorf("network.hostLoopback: %v", err)
		}
	}
	others := []string{"127.0.0.1", "::1", harness.HostAddress4, harness.HostAddress6, harness.HostSecond4, harness.HostSecond6}
	if open := h.Reaches("web", 8001, others); len(open) > 0 || w.Met() > 0 {
		h.Errorf("network.hostLoopback opens more than the harness.Gateways: %q", open)
	}
}

func TestWayOutIsKept(t *testing.T) {
	for name, options := range map[string][]harness.Option{"user": nil, "root": {harness.AsRoot()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := outside(t, options...)
			h.Up("web", "trixie", nil)
			h.AwaitOutside("web")
			first := statusOf(h, "web")
			if err := unix.Kill(first.PID, unix.SIGKILL); err != nil {
				h.Fatal(err)
			}
			h.AwaitOutside("web")
			second := statusOf(h, "web")
			if second.Driver != "pasta" || second.PID == first.PID || second.Restarts != 1 {
				h.Errorf("after pasta was killed: %+v, before %+v", second, first)
			}
			if err := h.Curl("web", "http://["+harness.OutsideAddress6+"]/"); err != nil {
				h.Error(err)
			}
			if err := unix.Kill(h.Roles().Supervisor, unix.SIGKILL); err != nil {
				h.Fatal(err)
			}
			harness.Eventually(h, promised, "pasta ends with its supervisor", func() bool {
				return unix.Kill(second.PID, 0) == unix.ESRCH
			})
			h.NothingLeft()
		})
	}
}

// TestNames follows the host's resolv.conf.
func TestNames(t *testing.T) {
	t.Parallel()
	h := outside(t)
	vpn := records{"outside.test.": {harness.OutsideOther4}, "inner.vpn.": {harness.OutsideOther4}}
	// As systemd-resolved listens: on the host's own loopback.
	vpn.serve(h, h.Outside.ListenOnHost("tcp", "127.0.0.53:53"), h.Outside.ListenPacketOnHost("udp", "127.0.0.53:53"))
	h.Up("web", "trixie", nil)
	resolves := func(name, want string) bool {
		r := h.Exec("web", "getent", "ahostsv4", name)
		return strings.HasPrefix(r.Stdout, want)
	}
	harness.Eventually(h, patience, "names resolve", func() bool { return resolves("outside.test", harness.OutsideAddress4) })
	h.Outside.Resolve("nameserver 127.0.0.53\nsearch vpn\noptions edns0 trust-ad\n")
	harness.Eventually(h, patience, "the new server is asked", func() bool { return resolves("outside.test", harness.OutsideOther4) })
	if !resolves("inner", harness.OutsideOther4) {
		h.Errorf("the new search list is not in use:\n%s", h.Exec("web", "cat", "/etc/resolv.conf"))
	}
	if open := h.Reaches("web", 53, []string{"127.0.0.53", harness.Gateways[0]}); len(open) > 0 {
		h.Errorf("the host's name server itself is reached at %q", open)
	}
	// A server that is gone, and then no network: an answer at once.
	h.Outside.Resolve("nameserver 127.0.0.54\n")
	if r := h.Exec("web", "getent", "ahosts", "outside.test"); r.Code != 2 || r.Duration > 3*time.Second {
		h.Errorf("with a server that refuses:\n%s", r)
	}
	h.Outside.Resolve("nameserver 127.0.0.54\nnameserver " + harness.OutsideOther4 + "\n")
	if !resolves("outside.test", harness.OutsideAddress4) {
		h.Error("the second server is not asked when the first refuses")
	}
	h.Outside.Offline()
	if r := h.Exec("web", "getent", "ahosts", "outside.test"); r.Code != 2 || r.Duration > 3*time.Second {
		h.Errorf("without a network:\n%s", r)
	}
}

// TestOffline starts without a network and gets one.
func TestOffline(t *testing.T) {
	t.Parallel()
	h := outside(t)
	h.Outside.Offline()
	h.Up("web", "trixie", nil)
	harness.Eventually(h, patience, "status says that the host is offline", func() bool {
		return strings.Contains(statusOf(h, "web").Reason, "offline")
	})
	h.Outside.Online()
	h.AwaitOutside("web")
	if got := statusOf(h, "web"); got.Driver != "pasta" || got.Reason != "" {
		h.Errorf("back on line: %+v", got)
	}
	harness.Eventually(h, patience, "IPv6 comes back too", func() bool {
		return h.Curl("web", "http://["+harness.OutsideAddress6+"]/") == nil
	})
}

// TestOtherDrivers hides pasta, and then all there is.
func TestOtherDrivers(t *testing.T) {
	t.Parallel()
	h := outside(t)
	h.Outside.Hide("pasta")
	const port = 8000
	w := h.Witness(port, "")
	h.Up("web", "trixie", nil)
	h.AwaitOutside("web")
	if got := statusOf(h, "web"); got.Driver != "slirp4netns" || !strings.Contains(got.Reason, "pasta") {
		h.Errorf("without pasta: %+v", got)
	}
	if err := h.Curl("web", "http://["+harness.OutsideAddress6+"]/"); err != nil {
		h.Error(err)
	}
	if open := h.Reaches("web", port, harness.HostAddresses()); len(open) > 0 || w.Met() > 0 {
		h.Errorf("slirp4netns: the container reaches the host at %q; %d came through", open, w.Met())
	}
	h.Must("stop", "web")
	h.NothingLeft()
	h.Outside.Hide("slirp4netns")
	h.Must("up", "web")
	harness.Eventually(h, patience, "status says what is missing", func() bool {
		got := statusOf(h, "web")
		return got.Driver == "" && strings.Contains(got.Reason, "apt install passt")
	})
	if r := h.Nuc("doctor"); !strings.Contains(r.Stdout, "passt") {
		h.Errorf("doctor does not name passt:\n%s", r)
	}
}

// TestPastas runs the pasta of each Debian release, which know different options.
func TestPastas(t *testing.T) {
	for _, tree := range trees {
		t.Run(tree.name, func(t *testing.T) {
			t.Parallel()
			h := outside(t)
			root := h.Tree(tree.name)
			loader, err := filepath.Glob(root + "/usr/lib/*/ld-linux-*.so*")
			if err != nil || len(loader) != 1 {
				h.Fatalf("the loader of %s: %q, %v", tree.name, loader, err)
			}
			h.Outside.Replace("pasta", h.Write("pasta", fmt.Sprintf(
				"#!/bin/sh\nexec %s --library-path %s --argv0 pasta %s/usr/bin/passt \"$@\"\n", loader[0], filepath.Dir(loader[0]), root), 0o755))
			const port = 8000
			w := h.Witness(port, "")
			h.Up("web", "trixie", nil)
			leaves(h)
			if open := h.Reaches("web", port, harness.HostAddresses()); len(open) > 0 || w.Met() > 0 {
				h.Errorf("the container reaches the host at %q; %d came through", open, w.Met())
			}
			h.Must("stop", "web")
			h.ServeWeb(h.Outside.ListenOnHost("tcp", "127.0.0.1:8001"))
			h.ServeWeb(h.Outside.ListenOnHost("tcp", "[::1]:8001"))
			h.Must("up", h.OnTree("web", "trixie", func(d map[string]any) { d["network"] = map[string]any{"hostLoopback": true} }))
			h.AwaitOutside("web")
			for _, address := range harness.Gateways {
				if err := h.Curl("web", "http://"+net.JoinHostPort(address, "8001")+"/"); err != nil {
					h.Errorf("network.hostLoopback: %v", err)
				}
			}
		})
	}
}

// TestNoOutbound has no interface but the loopback, and no name server.
func TestNoOutbound(t *testing.T) {
	t.Parallel()
	h := outside(t)
	h.Up("web", "trixie", func(d map[string]any) { d["network"] = map[string]any{"outbound": false} })
	if links := h.Must("exec", "web", "sh", "-c", "ls /sys/class/net; cat /etc/resolv.conf"); links != "lo\n# nuc: no way out of this container" {
		h.Errorf("network.outbound false: %q", links)
	}
	if got := statusOf(h, "web"); got != (wayOut{}) {
		h.Errorf("network.outbound false: %+v", got)
	}
}
