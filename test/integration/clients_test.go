package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// client runs a program as one of a service's: on the host machine, or in a
// container.
type client func(program string, args ...string) harness.Result

// onHost and inside are the two kinds of clients.
func onHost(h *harness.H) client { return h.Host }

func inside(h *harness.H, container string) client {
	return func(program string, args ...string) harness.Result {
		return h.Exec(container, append([]string{program}, args...)...)
	}
}

// TestRedis: single commands, a bulk of them without waiting, and what a server
// pushes to clients that only listen.
func TestRedis(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		relayed, linked := harness.FreePort(h), harness.FreePort(h)
		h.Up("cache", tree, func(d map[string]any) {
			ephemeral(d)
			d["network"] = map[string]any{"ports": []any{port(relayed, 6379)}}
		})
		h.Up("app", tree, ephemeral)
		h.Must("exec", "cache", "systemctl", "start", "redis-server")
		h.Must("link", "-", fmt.Sprint(linked), "cache", "6379")
		h.Must("link", "app", "6379", "cache", "6379")
		const many = 100_000
		for name, way := range map[string]struct {
			run    client
			number int
			listen *harness.Process
		}{
			"port":      {onHost(h), relayed, h.StartHost("redis-cli", "-p", fmt.Sprint(relayed), "SUBSCRIBE", "news")},
			"link":      {onHost(h), linked, h.StartHost("redis-cli", "-p", fmt.Sprint(linked), "SUBSCRIBE", "news")},
			"container": {inside(h, "app"), 6379, h.Start("exec", "app", "redis-cli", "SUBSCRIBE", "news")},
		} {
			redis := func(args ...string) string {
				h.Helper()
				r := way.run("redis-cli", append([]string{"-p", fmt.Sprint(way.number)}, args...)...)
				if r.Code != 0 {
					h.Errorf("%s: %s", name, r)
				}
				return strings.TrimSpace(r.Stdout)
			}
			if set, got := redis("SET", "greeting", "hello "+name), redis("GET", "greeting"); set != "OK" || got != "hello "+name {
				h.Errorf("%s: SET says %q, GET %q", name, set, got)
			}
			redis("FLUSHALL")
			r := way.run("bash", "-c", fmt.Sprintf(
				`awk 'BEGIN { for (i = 0; i < %d; i++) printf "SET key:%%d %%0100d\r\n", i, i }' | redis-cli -p %d --pipe`, many, way.number))
			if want := fmt.Sprintf("errors: 0, replies: %d\n", many); r.Code != 0 || !strings.HasSuffix(r.Stdout, want) {
				h.Errorf("%s: redis-cli --pipe: want %q\n%s", name, want, r)
			}
			if got := redis("DBSIZE"); got != fmt.Sprint(many) {
				h.Errorf("%s: after %d SETs there are %s keys", name, many, got)
			}
			way.listen.WaitOutput("subscribe", patience)
			if got := redis("PUBLISH", "news", "from the "+name); got != "3" {
				h.Errorf("%s: PUBLISH reaches %s clients, want 3", name, got)
			}
			way.listen.WaitOutput("from the "+name, patience)
		}
	})
}

// TestWrk: 200 clients at once, none of which sees an error.
func TestWrk(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		relayed, linked := harness.FreePort(h), harness.FreePort(h)
		h.Up("web", tree, func(d map[string]any) {
			ephemeral(d)
			d["network"] = map[string]any{"ports": []any{port(relayed, 80)}}
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
		})
		h.Must("link", "-", fmt.Sprint(linked), "web", "80")
		for name, number := range map[string]int{"port": relayed, "link": linked} {
			// No figure, so time is no error: how long an answer takes is the machine's.
			r := h.Host("wrk", "-c", "200", "-t", "2", "-d", "4s", "--timeout", "40s", fmt.Sprintf("http://127.0.0.1:%d/", number))
			if r.Code != 0 || !strings.Contains(r.Stdout, "requests in") || strings.Contains(r.Stdout, " 0 requests in") ||
				strings.Contains(r.Stdout, "Socket errors") || strings.Contains(r.Stdout, "Non-2xx") {
				h.Errorf("%s: %s", name, r)
			}
		}
	})
}

// TestSSH: a terminal, exit statuses, files, and what ssh forwards itself.
func TestSSH(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("box", tree, func(d map[string]any) {
			ephemeral(d)
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
		})
		key := h.Dir + "/key"
		if r := h.Host("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		install(h, "box", map[string]string{"/run/authorized": h.Host("cat", key+".pub").Stdout},
			"mkdir -p -m 700 /root/.ssh; cp /run/authorized /root/.ssh/authorized_keys; systemctl start ssh")
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "box", "22")
		options := []string{
			"-F", "/dev/null", "-i", key, "-o", "UserKnownHostsFile=" + h.Dir + "/known", "-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes",
		}
		ssh := func(more ...string) []string {
			return append(append(append([]string{}, options...), "-p", fmt.Sprint(number)), more...)
		}
		const box = "root@127.0.0.1"
		if r := h.Host("ssh", ssh(box, "echo out; echo err >&2; exit 37")...); r.Code != 37 || r.Stdout != "out\n" || !strings.HasSuffix(r.Stderr, "err\n") {
			h.Errorf("%s", r)
		}
		shell, terminal := h.StartHostTerminal(31, 97, "ssh", ssh("-tt", box)...)
		shell.WaitOutput("root@", patience)
		terminal.Type("stty size\n")
		shell.WaitOutput("31 97", patience)
		terminal.Type("exit 41\n")
		if r := shell.Wait(patience); r.Code != 41 {
			h.Errorf("the shell's status: %s", r)
		}

		const size = 50 << 20
		if r := h.Host("dd", "if=/dev/urandom", "of="+h.Dir+"/sent", "bs=1M", fmt.Sprint("count=", size>>20)); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		scp := append(append([]string{}, options...), "-q", "-P", fmt.Sprint(number))
		for _, way := range [][]string{{h.Dir + "/sent", box + ":/var/tmp/file"}, {box + ":/var/tmp/file", h.Dir + "/received"}} {
			if r := h.Host("scp", append(scp, way...)...); r.Code != 0 {
				h.Errorf("%s", r)
			}
		}
		if r := h.Host("cmp", h.Dir+"/sent", h.Dir+"/received"); r.Code != 0 {
			h.Errorf("what came back is something else: %s", r)
		}
		if r := h.Exec("box", "stat", "-c", "%s", "/var/tmp/file"); r.Stdout != fmt.Sprintln(size) {
			h.Errorf("%s", r)
		}

		// Ways within the way: to the container's nginx, and back to the host machine.
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			h.Fatal(err)
		}
		h.ServeWeb(l)
		local := harness.FreePort(h)
		forward := h.StartHost("ssh", ssh("-N", "-o", "ExitOnForwardFailure=yes", "-L", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:80", local),
			"-R", "127.0.0.1:9000:"+l.Addr().String(), box)...)
		harness.Eventually(h, patience, "ssh -L leads to the container's nginx", func() bool {
			if !forward.Running() {
				h.Fatalf("%s", forward.Wait(patience))
			}
			return strings.Contains(get(h, "", fmt.Sprintf("http://127.0.0.1:%d/", local)), "Welcome to nginx")
		})
		if err := h.Curl("box", "http://127.0.0.1:9000/"); err != nil {
			h.Errorf("ssh -R: %v", err)
		}
	})
}

// proxying is nginx in front of a peer that is known by its name.
const proxying = `
events {}
http {
	access_log off;
	server {
		listen 8080;
		location / {
			proxy_pass http://web:80;
			proxy_set_header X-Real-IP $remote_addr;
		}
	}
}
`

// TestProxy: nginx in one container serves what another one has.
func TestProxy(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		front := harness.FreePort(h)
		nginx := h.Write("nginx.conf", proxying, 0o644)
		h.Up("web", tree, func(d map[string]any) { d["ready"] = map[string]any{"units": []string{"nginx.service"}} })
		install(h, "web", map[string]string{"/etc/nginx/conf.d/hello.conf": `server {
			listen 81;
			root /var/www/html;
			location = /hello { return 200 "web for $http_x_real_ip by $http_host\n"; }
		}`}, "dd if=/dev/urandom of=/var/www/html/big bs=1M count=50 status=none; systemctl reload nginx")
		h.Up("front", tree, func(d map[string]any) {
			ephemeral(d)
			d["dependsOn"] = []string{"web"}
			d["links"] = []any{linked(80, "web", 81)}
			d["network"] = map[string]any{"ports": []any{port(front, 8080)}}
			d["mounts"] = []any{map[string]any{"source": nginx, "target": "/etc/nginx/nginx.conf", "readOnly": true}}
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
		})
		url := fmt.Sprintf("http://127.0.0.1:%d", front)
		harness.Eventually(h, patience, "the host machine reaches web through front", func() bool {
			return get(h, "", url+"/hello") == "web for 127.0.0.1 by web\n"
		})
		want := strings.Fields(h.Must("exec", "web", "sha256sum", "/var/www/html/big"))[0]
		if r := h.Host("bash", "-c", "curl -fsS --max-time 50 "+url+"/big | sha256sum"); !strings.HasPrefix(r.Stdout, want+" ") {
			h.Errorf("50 MB through two nginx and a link: want %s\n%s", want, r)
		}
		// Many at once, each its own connection to the peer.
		r := h.Host("wrk", "-c", "50", "-t", "2", "-d", "2s", "--timeout", "40s", url+"/hello")
		if r.Code != 0 || strings.Contains(r.Stdout, "Socket errors") || strings.Contains(r.Stdout, "Non-2xx") {
			h.Errorf("%s", r)
		}
		h.Must("restart", "web")
		harness.Eventually(h, patience, "front answers after a restart of web", func() bool {
			r := h.Host("curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", url+"/hello")
			if r.Code != 0 || r.Stdout == "504" {
				h.Fatalf("nginx waited for web, instead of being refused:\n%s", r)
			}
			return r.Stdout == "200"
		})
	})
}

// TestIperf: streams through a link, one way, the other, and both at a time.
func TestIperf(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("box", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		h.Must("exec", "box", "systemd-run", "--quiet", "iperf3", "-s")
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "box", "5201")
		h.Must("link", "app", "5201", "box", "5201")
		for name, way := range map[string]struct {
			run    client
			number int
		}{"host": {onHost(h), number}, "app": {inside(h, "app"), 5201}} {
			for _, options := range [][]string{nil, {"-R"}, {"--bidir"}, {"-P", "4"}} {
				what := fmt.Sprintf("%s: iperf3 %s", name, strings.Join(options, " "))
				var r harness.Result
				var bytes []int
				// It has one client at a time, and a while passes before it has let go.
				for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
					r = way.run("iperf3", append([]string{"-J", "-t", "1", "-c", "127.0.0.1", "-p", fmt.Sprint(way.number)}, options...)...)
					var report struct {
						Error string
						End   struct {
							Received struct{ Bytes int }  `json:"sum_received"`
							Reverse  *struct{ Bytes int } `json:"sum_received_bidir_reverse"`
						}
					}
					err := json.Unmarshal([]byte(r.Stdout), &report)
					if err == nil && report.Error == "" && r.Code == 0 {
						bytes = append(bytes, report.End.Received.Bytes)
						if report.End.Reverse != nil {
							bytes = append(bytes, report.End.Reverse.Bytes)
						}
						break
					}
					busy := strings.Contains(report.Error, "busy") || strings.Contains(report.Error, "refused") || strings.Contains(report.Error, "reset")
					if !busy || time.Now().After(deadline) {
						h.Errorf("%s\n%s", what, r)
						break
					}
				}
				for _, n := range bytes {
					if n < 1_000_000 {
						h.Errorf("%s: %d bytes arrived", what, n)
					}
				}
				if options != nil && options[0] == "--bidir" && len(bytes) != 2 {
					h.Errorf("%s: want two directions\n%s", what, r)
				}
			}
		}
	})
}
