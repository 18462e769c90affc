package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// handedOver is an entry of network.ports that init gets the socket of.
func handedOver(number int, protocol string) map[string]any {
	return map[string]any{"host": number, "container": number, "protocol": protocol, "handOver": true}
}

// install writes files into a container and runs a command in it.
func install(h *harness.H, name string, files map[string]string, command string) {
	h.Helper()
	for path, text := range files {
		if r := h.NucInput(text, "exec", name, "sh", "-c", "cat >"+path); r.Code != 0 {
			h.Fatalf("%s", r)
		}
	}
	h.Must("exec", name, "sh", "-ec", command)
}

// portsOf is what status says of a container's ports.
func portsOf(h *harness.H, name string) []statusPort {
	h.Helper()
	r := h.Nuc("status", "--json", name)
	var st struct {
		Ports []statusPort `json:"ports"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &st); err != nil {
		h.Fatalf("nuc status --json: %v\n%s", err, r)
	}
	return st.Ports
}

type statusPort struct {
	Protocol  string `json:"protocol"`
	Address   string `json:"address"`
	Host      int    `json:"host"`
	Container int    `json:"container"`
	Count     int    `json:"count"`
	Unclaimed bool   `json:"unclaimed"`
}

// nginxOn has nginx serve a socket that systemd gives it: it takes what is named
// in NGINX, as for an upgrade of itself, if it is to listen there.
func nginxOn(number int) map[string]string {
	return map[string]string{
		"/etc/nginx/handed.conf": fmt.Sprintf(`
pid /run/handed.pid;
daemon off;
events {}
http {
	access_log /var/log/nginx/handed.log;
	server {
		listen 127.0.0.1:%d;
		return 200 "handed to $server_addr for $remote_addr\n";
	}
}
`, number),
		"/etc/systemd/system/handed.socket": fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\n[Install]\nWantedBy=sockets.target\n", number),
		"/etc/systemd/system/handed.service": "[Service]\nEnvironment=NGINX=3;\n" +
			"ExecStart=/usr/sbin/nginx -c /etc/nginx/handed.conf\n",
	}
}

// TestHandOver: a socket of the host's namespace is what nginx in the container
// accepts from, so that it sees who the client is.
func TestHandOver(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		web, each, syslog := harness.FreePort(h), harness.FreePort(h), harness.FreePort(h)
		path := h.OnTree("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{"ports": []any{handedOver(web, "tcp"), handedOver(each, "tcp"), handedOver(syslog, "udp")}}
		})
		curl := func(number int) harness.Result {
			return h.Host("curl", "-sS", "--max-time", "40", "--interface", "127.0.0.7", fmt.Sprintf("http://127.0.0.1:%d/", number))
		}

		// Nobody in the tree knows of these sockets yet.
		r := h.Nuc("up", path)
		warning := fmt.Sprintf("ListenStream=127.0.0.1:%d", web)
		if r.Code != 0 || !strings.Contains(r.Stderr, warning) || !strings.Contains(r.Stderr, "ListenDatagram") {
			h.Errorf("up with sockets that no unit has: want a warning with %s\n%s", warning, r)
		}
		if r := curl(web); r.Code == 0 || r.Duration > 10*time.Second {
			h.Errorf("a client of a socket that nobody has: want it refused at once\n%s", r)
		}
		if r := h.Nuc("status", "web"); !strings.Contains(r.Stdout, warning) {
			h.Errorf("status doesn't warn of %s\n%s", warning, r)
		}

		install(h, "web", nginxOn(web), "systemctl enable handed.socket")
		install(h, "web", map[string]string{
			"/etc/systemd/system/each.socket":    fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\nAccept=yes\n[Install]\nWantedBy=sockets.target\n", each),
			"/etc/systemd/system/each@.service":  "[Service]\nStandardInput=socket\nExecStart=/bin/sh -c 'echo hello $REMOTE_ADDR'\n",
			"/etc/systemd/system/syslog2.socket": fmt.Sprintf("[Socket]\nListenDatagram=127.0.0.1:%d\n[Install]\nWantedBy=sockets.target\n", syslog),
			"/etc/systemd/system/syslog2.service": "[Service]\nStandardInput=socket\nStandardOutput=journal\n" +
				"ExecStart=/bin/dd bs=1500 count=1 of=/run/datagram\n",
		}, "systemctl enable each.socket syslog2.socket")
		if r := h.Nuc("restart", "web"); r.Code != 0 || r.Stderr != "" {
			h.Errorf("a restart with the units enabled: want no warning\n%s", r)
		}
		serves := func() {
			h.Helper()
			if r := curl(web); r.Stdout != "handed to 127.0.0.1 for 127.0.0.7\n" {
				h.Errorf("nginx on a socket that was handed over:\n%s", r)
			}
		}
		serves()
		harness.Eventually(h, patience, "nginx logs the client's address", func() bool {
			return strings.HasPrefix(h.Must("exec", "web", "cat", "/var/log/nginx/handed.log"), "127.0.0.7 ")
		})
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", each))
		if err != nil {
			h.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		reply := make([]byte, 64)
		if n, err := conn.Read(reply); string(reply[:n]) != "hello 127.0.0.1\n" {
			h.Errorf("a unit with Accept=yes says %q, %v", reply[:n], err)
		}
		datagram, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", syslog))
		if err != nil {
			h.Fatal(err)
		}
		defer datagram.Close()
		fmt.Fprint(datagram, "a datagram")
		harness.Eventually(h, patience, "the datagram arrives", func() bool {
			return h.Exec("web", "cat", "/run/datagram").Stdout == "a datagram"
		})

		// A reboot inside: whoever comes meanwhile waits.
		h.Exec("web", "touch", "/run/before")
		h.Exec("web", "systemctl", "reboot")
		harness.Eventually(h, 2*patience, "the reboot begins", func() bool { return h.Exec("web", "test", "-e", "/run/before").Code != 0 })
		serves()
		h.WaitState("web", 2*patience, "ready")
		serves()

		// What is handed over can't change live, and what else there is can.
		other := harness.FreePort(h)
		h.OnTree("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{"ports": []any{handedOver(web, "tcp"), handedOver(each, "tcp"), handedOver(syslog, "udp"), handedOver(other, "tcp"), port(harness.FreePort(h), 80)}}
		})
		if r := h.Nuc("switch", "web"); r.Code != 0 || !strings.Contains(r.Stdout, "needs restart: network.ports[].handOver") {
			h.Errorf("%s", r)
		}
		if listens(other) {
			h.Error("a socket to be handed over is open before the restart")
		}
		if ports := portsOf(h, "web"); len(ports) != 4 || ports[0].Container != 80 {
			h.Errorf("after the switch: %+v", ports)
		}
		serves()

		// A unit that is stopped closes its socket, which nothing brings back but
		// a boot: clients are told.
		h.Must("exec", "web", "systemctl", "stop", "handed.socket")
		serves() // by the service, which goes on
		h.Must("exec", "web", "systemctl", "stop", "handed.service")
		harness.Eventually(h, patience, "status warns of a socket unit that was stopped", func() bool {
			return strings.Contains(h.Nuc("status", "web").Stdout, warning)
		})
		if r := curl(web); r.Code == 0 || r.Duration > 10*time.Second {
			h.Errorf("a client of a socket unit that was stopped: want it refused at once\n%s", r)
		}
		h.Must("restart", "web")
		serves()
	})
}

// TestHandOverIdle: a client that has said all it has to say, and waits for the
// answer, is one, also where its connection is none of nuc's.
func TestHandOverIdle(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	number := harness.FreePort(h)
	first := harness.FreePort(h)
	path := h.OnTree("web", "trixie", func(d map[string]any) {
		d["network"] = map[string]any{"ports": []any{activating(first, 80), handedOver(number, "tcp")}, "idleStopSeconds": 2}
	})
	h.Must("up", path)
	h.Must("exec", "web", "true")
	install(h, "web", map[string]string{
		"/etc/systemd/system/slow.socket":   fmt.Sprintf("[Socket]\nListenStream=127.0.0.1:%d\nAccept=yes\n[Install]\nWantedBy=sockets.target\n", number),
		"/etc/systemd/system/slow@.service": "[Service]\nStandardInput=socket\nExecStart=/bin/sh -c 'asked=$(cat); sleep 7; echo answer to $asked'\n",
	}, "systemctl enable slow.socket")
	h.WaitState("web", patience, "listening")
	if r := h.Host("curl", "-sS", "--max-time", "50", fmt.Sprintf("http://127.0.0.1:%d/", first)); r.Code != 0 {
		t.Errorf("%s", r)
	}

	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", number))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	fmt.Fprint(conn, "a question")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); string(answer) != "answer to a question\n" {
		t.Errorf("%q, %v", answer, err)
	}
	h.WaitState("web", patience, "listening")
}
