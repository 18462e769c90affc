package integration

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// port is one entry of network.ports.
func port(host, container int) map[string]any {
	return map[string]any{"host": host, "container": container, "protocol": "tcp"}
}

func TestPorts(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		database, web := harness.FreePort(h), harness.FreePort(h)
		h.Up("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{"ports": []any{port(database, 5432), port(web, 80)}}
		})
		h.Must("exec", "-u", "postgres", "web", "psql", "-qXc", "CREATE ROLE test LOGIN PASSWORD 'test'")
		url := fmt.Sprintf("postgresql://test:test@127.0.0.1:%d/postgres", database)
		if r := h.Host("psql", "-X", url, "-Atc", "SELECT 6 * 7, inet_server_port()"); r.Stdout != "42|5432\n" {
			h.Errorf("psql through port %d:\n%s", database, r)
		}
		if r := h.Host("curl", "-fsS", "--max-time", "20", fmt.Sprintf("http://127.0.0.1:%d/", web)); !strings.Contains(r.Stdout, "Welcome to nginx") {
			h.Errorf("curl through port %d:\n%s", web, r)
		}
		for _, address := range otherAddresses(h) {
			conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, strconv.Itoa(web)), time.Second)
			if err == nil {
				conn.Close()
				h.Errorf("a port without an address listens on %s, too", address)
			}
		}
		h.Must("stop", "web")
		for _, number := range []int{database, web} {
			if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", number)); err == nil {
				conn.Close()
				h.Errorf("port %d still listens after stop", number)
			}
		}
	})
}

// otherAddresses are the host's addresses that are not its loopback's.
func otherAddresses(h *harness.H) []string {
	h.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		h.Fatal(err)
	}
	var others []string
	for _, address := range addresses {
		if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() {
			others = append(others, ip.IP.String())
		}
	}
	return others
}

func TestPortTaken(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			h.Fatal(err)
		}
		defer listener.Close()
		taken := listener.Addr().(*net.TCPAddr).Port
		r := h.Nuc("up", h.OnTree("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{"ports": []any{port(taken, 80)}}
		}))
		if r.Code == 0 || !strings.Contains(r.Stderr, strconv.Itoa(taken)) {
			h.Errorf("up with port %d, which is taken: want a failure that names it\n%s", taken, r)
		}
		h.NothingLeft()
	})
}

func TestPrivateNetwork(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			h.Fatal(err)
		}
		defer listener.Close()
		h.Up("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{"outbound": false}
		})
		if links := h.Must("exec", "web", "sh", "-c", "ls /sys/class/net"); links != "lo" {
			h.Errorf("a private network has the links %q, want lo alone", links)
		}
		if r := h.Exec("web", "sh", "-c", "ip -o addr show lo | grep -c 'inet 127.0.0.1/8'"); r.Stdout != "1\n" {
			h.Errorf("loopback isn't up:\n%s", r)
		}
		number := listener.Addr().(*net.TCPAddr).Port
		if r := h.Exec("web", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", number)); r.Code == 0 {
			h.Error("the container reaches a port of the host's loopback")
		}
	})
}

func TestHostNetwork(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		host, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			h.Fatal(err)
		}
		// Not systemd: its PostgreSQL would take a port of the host's.
		h.Up("web", tree, func(d map[string]any) {
			d["system"] = map[string]any{
				"init": "/bin/sleep", "arguments": []string{"600"}, "ttyGroup": 5,
			}
			d["network"] = map[string]any{"mode": "host"}
			d["ready"] = map[string]any{"notify": false}
		})
		if got := h.Must("exec", "web", "readlink", "/proc/self/ns/net"); got != host {
			h.Errorf("network mode host: the namespace is %s, the host's %s", got, host)
		}
	})
}
