package integration

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// answering answers datagrams; it is perl, which every tree has.
const answering = `use IO::Socket::INET;
my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 9000, Proto => "udp") or die $!;
while (defined $s->recv(my $b, 1500)) { $s->send("echo $b") }
`

const severalNginx = `server {
	listen 127.0.0.1:8000;
	listen 127.0.0.1:8001;
	listen 127.0.0.1:8002;
	return 200 "port $server_port\n";
}
server {
	listen 127.0.0.1:8100 proxy_protocol;
	return 200 "client $proxy_protocol_addr\n";
}
`

// TestPortKinds: UDP, ranges, numbers that the kernel chooses, and the PROXY
// protocol; and what of them a live switch keeps.
func TestPortKinds(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		chosen := func(container, count int, protocol string) map[string]any {
			return map[string]any{"host": 0, "container": container, "count": count, "protocol": protocol}
		}
		proxied := chosen(8100, 1, "tcp")
		proxied["proxyProtocol"] = true
		describe := func(ports ...any) string {
			return h.OnTree("web", tree, func(d map[string]any) { d["network"] = map[string]any{"ports": ports} })
		}
		up := h.Must("up", describe(chosen(8000, 3, "tcp"), proxied, chosen(9000, 1, "udp")))
		ports := portsOf(h, "web")
		if len(ports) != 3 || ports[0].Host == 0 || ports[0].Count != 3 || ports[2].Protocol != "udp" {
			h.Fatalf("%+v", ports)
		}
		for _, want := range []string{
			fmt.Sprintf("127.0.0.1:%d-%d→8000-8002", ports[0].Host, ports[0].Host+2),
			fmt.Sprintf("127.0.0.1:%d→9000/udp", ports[2].Host),
		} {
			if shown := h.Must("ps"); !strings.Contains(up, want) || !strings.Contains(shown, want) {
				h.Errorf("want %q\nup: %s\nps: %s", want, up, shown)
			}
		}
		if got := h.Must("inspect", "web", "--query", "network.ports.0.host"); got != fmt.Sprint(ports[0].Host) {
			h.Errorf("inspect says port %s, status %d", got, ports[0].Host)
		}
		install(h, "web", map[string]string{"/etc/nginx/conf.d/several.conf": severalNginx, "/root/echo.pl": answering},
			"systemctl reload nginx; systemd-run --unit=echo perl /root/echo.pl")
		curl := func(number int) string {
			return h.Host("curl", "-sS", "--max-time", "20", "--interface", "127.0.0.2", fmt.Sprintf("http://127.0.0.1:%d/", number)).Stdout
		}
		serves := func() {
			h.Helper()
			for i := range 3 {
				want := fmt.Sprintf("port %d\n", 8000+i)
				harness.Eventually(h, patience, want, func() bool { return curl(ports[0].Host+i) == want })
			}
			if got := curl(ports[1].Host); got != "client 127.0.0.2\n" {
				h.Errorf("by the PROXY protocol nginx hears %q", got)
			}
		}
		serves()
		datagrams, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", ports[2].Host))
		if err != nil {
			h.Fatal(err)
		}
		defer datagrams.Close()
		answer := func() bool {
			_ = datagrams.SetDeadline(time.Now().Add(time.Second))
			fmt.Fprint(datagrams, "hello")
			reply := make([]byte, 64)
			n, _ := datagrams.Read(reply)
			return string(reply[:n]) == "echo hello"
		}
		harness.Eventually(h, patience, "a datagram comes back", answer)

		// A connection of a port that stays goes on through a switch.
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", ports[0].Host+1))
		if err != nil {
			h.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(2 * patience))
		lines := bufio.NewReader(conn)
		request := func() string {
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			for {
				line, err := lines.ReadString('\n')
				if err != nil || strings.HasPrefix(line, "port ") {
					return line
				}
			}
		}
		if got := request(); got != "port 8001\n" {
			h.Errorf("%q", got)
		}
		// It begins with one port less and has another one besides.
		added := harness.FreePort(h)
		describe(chosen(9000, 1, "udp"), port(added, 80), proxied, map[string]any{"host": ports[0].Host + 1, "container": 8001, "count": 2})
		h.Must("switch", "web")
		if got := request(); got != "port 8001\n" {
			h.Errorf("after a switch that keeps its port, a connection says %q", got)
		}
		now := portsOf(h, "web")
		if len(now) != 4 || now[0].Host != ports[2].Host || now[2].Host != ports[1].Host || now[3].Host != ports[0].Host+1 || now[3].Count != 2 {
			h.Errorf("before the switch %+v, after it %+v", ports, now)
		}
		if listens(ports[0].Host) || !listens(added) {
			h.Errorf("the switch kept port %d or has not opened port %d", ports[0].Host, added)
		}
		if !answer() {
			h.Error("the association did not outlive the switch")
		}
		// All or nothing; and who has it is told.
		taken, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			h.Fatal(err)
		}
		defer taken.Close()
		describe(chosen(8000, 3, "tcp"), port(taken.Addr().(*net.TCPAddr).Port, 80))
		r := h.Nuc("switch", "web")
		if r.Code != 1 || !strings.Contains(r.Stderr, "network.ports[1]: ") || !strings.Contains(r.Stderr, "listens there already") {
			h.Errorf("%s", r)
		}
		if _, uid, _ := h.User(); uid == os.Getuid() && !strings.Contains(r.Stderr, fmt.Sprint(os.Getpid())) {
			h.Errorf("want process %d named as who has the port:\n%s", os.Getpid(), r)
		}
		if after := portsOf(h, "web"); fmt.Sprint(after) != fmt.Sprint(now) {
			h.Errorf("a switch that failed made %+v of %+v", after, now)
		}
		if got := request(); got != "port 8001\n" {
			h.Errorf("after a switch that failed, a connection says %q", got)
		}
	})
}
