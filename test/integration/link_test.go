package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// linkStatus is a line of `nuc links --json`.
type linkStatus struct {
	Name        string   `json:"name"`
	Client      string   `json:"client"`
	Protocol    string   `json:"protocol"`
	Listen      []string `json:"listen"`
	Host        string   `json:"host"`
	Target      string   `json:"target"`
	State       string   `json:"state"`
	Reason      string   `json:"reason"`
	Connections int      `json:"connections"`
	Declared    bool     `json:"declared"`
	Pid         int      `json:"pid"`
}

// links are those of `nuc links --json` by name.
func links(h *harness.H) map[string]linkStatus {
	h.Helper()
	var list []linkStatus
	if err := json.Unmarshal([]byte(h.Must("links", "--json")), &list); err != nil {
		h.Fatal(err)
	}
	all := map[string]linkStatus{}
	for _, l := range list {
		all[l.Name] = l
	}
	return all
}

// waitLink waits until a link has a state.
func waitLink(h *harness.H, name, state string) linkStatus {
	h.Helper()
	var last linkStatus
	harness.Eventually(h, patience, "link "+name+" is "+state, func() bool {
		last = links(h)[name]
		return last.State == state
	})
	return last
}

// withLinks ends the links of a test before its containers are looked for.
func withLinks(h *harness.H) {
	h.Cleanup(func() { h.Nuc("unlink", "--all") })
}

// role makes a role that a password opens, and returns the URL's beginning.
func role(h *harness.H, container string) string {
	h.Helper()
	h.Must("exec", "-u", "postgres", container, "psql", "-qXc", "CREATE ROLE test LOGIN PASSWORD 'test'")
	return "postgresql://test:test@"
}

// answers tells whether a query reaches the database at host:port, over the
// host machine.
func answers(h *harness.H, url string) error {
	r := h.Host("psql", "-X", url, "-Atc", "SELECT 6 * 7")
	if r.Stdout != "42\n" {
		return fmt.Errorf("psql:\n%s", r)
	}
	return nil
}

func TestLinkFromHost(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("db", tree, ephemeral)
		url := role(h, "db")
		number := harness.FreePort(h)
		name := fmt.Sprintf("host-%d-db-5432", number)
		made := h.Must("link", "-", fmt.Sprint(number), "db", "5432")
		if want := fmt.Sprintf("%s: 127.0.0.1:%d, [::1]:%d → db:5432", name, number, number); made != want {
			h.Errorf("link says %q, want %q", made, want)
		}
		for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
			if err := answers(h, fmt.Sprintf("%s%s:%d/postgres", url, host, number)); err != nil {
				h.Errorf("%s: %v", host, err)
			}
		}
		for _, address := range otherAddresses(h) {
			if conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, fmt.Sprint(number)), time.Second); err == nil {
				conn.Close()
				h.Errorf("a link without an address listens on %s, too", address)
			}
		}
		again := h.Nuc("link", "-", fmt.Sprint(number), "db", "5432")
		if again.Code != 0 || !strings.Contains(again.Stdout, "is there already") {
			h.Errorf("the same link twice:\n%s", again)
		}
		if l := links(h)[name]; l.State != "listening" || l.Client != "-" || l.Host != "db" || l.Target != "5432" || l.Pid == 0 || len(links(h)) != 1 {
			h.Errorf("links: %+v", links(h))
		}
		h.Must("unlink", name)
		refused(h, number)
		if all := links(h); len(all) != 0 {
			h.Errorf("links after unlink: %+v", all)
		}
	})
}

// refused checks that nobody listens on a port of the host machine's.
func refused(h *harness.H, number int) {
	h.Helper()
	for _, address := range []string{"127.0.0.1", "::1"} {
		if conn, err := net.Dial("tcp", net.JoinHostPort(address, fmt.Sprint(number))); err == nil {
			conn.Close()
			h.Errorf("%s: port %d still listens", address, number)
		}
	}
}

func TestLinkBetweenContainers(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		h.Must("exec", "app", "systemctl", "stop", "nginx")
		h.Must("exec", "web", "sh", "-c", "echo hello from web >/var/www/html/index.html")
		h.Must("link", "app", "80", "web", "80")
		peer := strings.Split(strings.Join(links(h)["app-80-web-80"].Listen, ","), ",")
		if len(peer) != 3 {
			h.Fatalf("listens on %q, want localhost of both families and web's own address", peer)
		}
		for _, where := range peer {
			if r := h.Exec("app", "curl", "-fsS", "--max-time", "20", "http://"+where+"/"); r.Stdout != "hello from web\n" {
				h.Errorf("curl %s in app:\n%s", where, r)
			}
		}
		h.Must("unlink", "app", "80")
		if r := h.Exec("app", "curl", "-fsS", "--max-time", "20", "http://127.0.0.1/"); r.Code != 7 {
			h.Errorf("curl after unlink: want a refused connection\n%s", r)
		}
	})
}

// onTree runs a test on one tree only: what does not depend on the systemd.
func onTree(t *testing.T, test func(h *harness.H, tree string), opts ...harness.Option) {
	t.Parallel()
	test(harness.New(t, opts...), "trixie")
}

func TestLinkToHost(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, ephemeral)
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			h.Fatal(err)
		}
		defer listener.Close()
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, "hello from the host\n")
				c.Close()
			}
		}()
		number := listener.Addr().(*net.TCPAddr).Port
		h.Must("link", "web", "1000", "-", fmt.Sprint(number))
		if r := h.Exec("web", "bash", "-c", "cat </dev/tcp/127.0.0.1/1000"); r.Stdout != "hello from the host\n" {
			h.Errorf("from web to the host:\n%s", r)
		}
	})
}

// echo runs a UDP service that answers in capitals.
func echo(h *harness.H, container string) {
	h.Helper()
	script := `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1:53", Proto => "udp") or die;
		while (defined $s->recv(my $m, 9000)) { $s->send(uc $m) }`
	if r := h.NucInput(script, "exec", container, "sh", "-c", "cat >/run/echo.pl"); r.Code != 0 {
		h.Fatalf("%s", r)
	}
	h.Must("exec", container, "systemd-run", "--quiet", "--unit=echo", "perl", "/run/echo.pl")
}

func TestLinkUDP(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("dns", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		echo(h, "dns")
		h.Must("link", "--udp", "app", "53", "dns", "53")
		ask := func() bool {
			r := h.Exec("app", "perl", "-MIO::Socket::INET", "-e", `$SIG{ALRM} = sub { exit 1 }; alarm 2;
				$s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:53", Proto => "udp") or die;
				$s->send("question"); defined $s->recv($m, 9000) or die; print $m`)
			return r.Stdout == "QUESTION"
		}
		harness.Eventually(h, patience, "an answer comes", ask)
		l := links(h)["app-53-dns-53-udp"]
		if l.Protocol != "udp" || l.Connections == 0 {
			h.Errorf("%+v", l)
		}
		h.Must("restart", "dns")
		echo(h, "dns")
		harness.Eventually(h, patience, "an answer comes after a restart", ask)
		// A real client, whose control connection is TCP on the same port.
		h.Must("exec", "dns", "systemd-run", "--quiet", "iperf3", "-s")
		h.Must("link", "app", "5201", "dns", "5201")
		h.Must("link", "--udp", "app", "5201", "dns", "5201")
		harness.Eventually(h, patience, "iperf3 measures over UDP", func() bool {
			r := h.Exec("app", "iperf3", "-c", "127.0.0.1", "-u", "-b", "10M", "-t", "1")
			return r.Code == 0 && strings.Contains(r.Stdout, " 0/")
		})
	})
}

// TestLinkUDPRestart: a client that goes on sending from one socket reaches the
// service again once its container has been restarted.
func TestLinkUDPRestart(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("dns", tree, ephemeral)
		echo(h, "dns")
		number := harness.FreePort(h)
		h.Must("link", "--udp", "-", fmt.Sprint(number), "dns", "53")
		c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", number))
		if err != nil {
			h.Fatal(err)
		}
		defer c.Close()
		ask := func(word string) bool {
			if _, err := io.WriteString(c, word); err != nil {
				h.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			answer := make([]byte, 100)
			n, err := c.Read(answer)
			return err == nil && string(answer[:n]) == strings.ToUpper(word)
		}
		harness.Eventually(h, patience, "an answer comes", func() bool { return ask("first") })
		ended, gone := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(gone)
			for {
				select {
				case <-ended:
					return
				case <-time.After(20 * time.Millisecond):
					_, _ = io.WriteString(c, "meanwhile")
				}
			}
		}()
		h.Must("restart", "dns")
		echo(h, "dns")
		close(ended)
		<-gone
		harness.Eventually(h, patience, "an answer comes after a restart", func() bool { return ask("second") })
		// A service that is restarted, in a container that goes on.
		h.Must("exec", "dns", "systemctl", "stop", "echo")
		for range 3 {
			ask("nobody")
		}
		echo(h, "dns")
		harness.Eventually(h, patience, "an answer comes after a restart of the service", func() bool { return ask("third") })
	})
}

// TestLinkName: whom a link by hand leads to is known by its name, at an address
// where its port is not one of the container's own.
func TestLinkName(t *testing.T) {
	for _, outbound := range []bool{true, false} {
		t.Run(fmt.Sprintf("outbound %t", outbound), func(t *testing.T) {
			onTree(t, func(h *harness.H, tree string) {
				withLinks(h)
				for _, name := range []string{"web", "app"} {
					h.Up(name, tree, func(d map[string]any) {
						ephemeral(d)
						network := map[string]any{"outbound": outbound}
						if !outbound { // no name server; /etc/hosts is to be nuc's
							network["hosts"] = map[string]any{"other.test": "192.0.2.1"}
						}
						d["network"] = network
					})
				}
				h.Must("exec", "web", "sh", "-c", "echo hello >/var/www/html/index.html")
				h.Must("link", "app", "8080", "web", "80")
				harness.Eventually(h, patience, "app reaches web by its name", func() bool { return get(h, "app", "http://web:8080/") == "hello\n" })
				if r := h.Exec("app", "getent", "ahosts", "app"); !strings.HasPrefix(r.Stdout, "127.0.1.1 ") && r.Code == 0 {
					h.Errorf("its own name:\n%s", r)
				}
				h.Must("restart", "app")
				harness.Eventually(h, patience, "app reaches web by its name after a restart", func() bool { return get(h, "app", "http://web:8080/") == "hello\n" })
				h.Must("unlink", "app-8080-web-80")
				harness.Eventually(h, patience, "the name goes with the link", func() bool { return h.Exec("app", "getent", "hosts", "web").Code == 2 })
			})
		})
	}
}

// TestLinkOfProject names containers by their folders, and a range of ports.
func TestLinkOfProject(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		for _, name := range []string{"cont1", "cont2"} {
			if r := h.Host("mkdir", filepath.Join(h.Dir, name)); r.Code != 0 {
				h.Fatalf("%s", r)
			}
			path := filepath.Join(h.Dir, name, name+".json")
			if r := h.Host("mv", h.OnTree(name, tree, ephemeral), path); r.Code != 0 {
				h.Fatalf("%s", r)
			}
			h.Must("up", path)
		}
		cont1, cont2 := filepath.Join(h.Dir, "cont1"), filepath.Join(h.Dir, "cont2")
		url := role(h, "cont1")
		h.Must("link", "-", "21001", cont1, "5432")
		if err := answers(h, url+"localhost:21001/postgres"); err != nil {
			h.Error(err)
		}
		h.Must("exec", "cont1", "systemctl", "stop", "nginx")
		h.Must("exec", "cont2", "sh", "-c", `for p in 81 82 83; do printf 'server { listen %d; return 200 "port %d\n"; }\n' $p $p; done >/etc/nginx/conf.d/ports.conf && systemctl reload nginx`)
		// By a folder relative to the one that the command is run in.
		h.Must("link", "./cont1", "80", "cont2/", "80")
		h.Must("link", cont1, "8081-8083", cont2, "81-83")
		h.Must("link", "-", "28081-28083", cont2, "81-83")
		if page := get(h, "cont1", "http://localhost/"); !strings.Contains(page, "nginx") {
			h.Errorf("curl in cont1: %q", page)
		}
		for i := 1; i <= 3; i++ {
			want := fmt.Sprintf("port 8%d\n", i)
			if page := get(h, "cont1", fmt.Sprintf("http://localhost:808%d/", i)); page != want {
				h.Errorf("port 808%d in cont1: %q", i, page)
			}
			if page := get(h, "", fmt.Sprintf("http://[::1]:2808%d/", i)); page != want {
				h.Errorf("port 2808%d: %q", i, page)
			}
		}
		if l := links(h)["host-28081-28083-cont2-81-83"]; len(l.Listen) != 2 || l.Listen[0] != "127.0.0.1:28081-28083" || l.Target != "81-83" {
			h.Errorf("%+v", l)
		}
		if r := h.Nuc("unlink", "-", "28081"); r.Code != 0 || len(links(h)) != 3 {
			h.Errorf("%s", r)
		}
		refused(h, 28082)
	})
}

func TestLinkUnix(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("db", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		role(h, "db")
		// Longer than sun_path.
		folder := filepath.Join(h.Dir, strings.Repeat("x", 120))
		if r := h.Host("mkdir", "-m", "700", folder); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		path := filepath.Join(folder, ".s.PGSQL.5432")
		short := filepath.Join(h.Runtime, "pg")
		if r := h.Host("ln", "-s", folder, short); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		h.Setenv("PGPASSWORD", "test")
		h.Must("link", "--unix", path, "-", "db", "5432")
		ask := func() harness.Result {
			return h.Host("psql", "-X", "-h", short, "-U", "test", "-d", "postgres", "-Atc", "SELECT 6 * 7")
		}
		if r := ask(); r.Stdout != "42\n" {
			h.Errorf("psql -h FOLDER:\n%s", r)
		}
		st, err := os.Stat(path)
		if err != nil || st.Mode() != os.ModeSocket|0o600 {
			h.Errorf("the socket's mode: %v, %v", st, err)
		}
		h.Must("unlink", "-", path)
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			h.Errorf("the socket stays after unlink: %v", err)
		}
		// Sockets of containers at both ends: the server knows its peer's user
		// (peer authentication), which is the container's root.
		h.Must("exec", "-u", "postgres", "db", "createuser", "-s", "root")
		h.Must("exec", "app", "sh", "-c", "systemctl stop postgresql@17-main && rm -f /run/postgresql/.s.PGSQL.5432")
		h.Must("link", "app", "/run/postgresql/.s.PGSQL.5432", "db", "/run/postgresql/.s.PGSQL.5432")
		if r := h.Exec("app", "psql", "-X", "-d", "postgres", "-Atc", "SELECT current_user, 6 * 7"); r.Stdout != "root|42\n" {
			h.Errorf("psql over two containers' sockets:\n%s", r)
		}
		if r := h.Exec("app", "stat", "-c", "%a", "/run/postgresql/.s.PGSQL.5432"); r.Stdout != "666\n" {
			h.Errorf("the socket's mode in the container:\n%s", r)
		}
		h.Must("unlink", "app", "/run/postgresql/.s.PGSQL.5432")
		if r := h.Exec("app", "test", "-e", "/run/postgresql/.s.PGSQL.5432"); r.Code != 1 {
			h.Errorf("the socket stays in the container:\n%s", r)
		}
	})
}

// TestLinkLargeRange: a link of thousands of ports is made in good time, also in a
// container.
func TestLinkLargeRange(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		r := h.Nuc("link", "app", "20000-24999", "web", "75-5074")
		if r.Code != 0 {
			h.Fatalf("%s", r)
		}
		h.Logf("5,000 ports in %s", r.Duration)
		if page := get(h, "app", "http://127.0.0.1:20005/"); !strings.Contains(page, "nginx") {
			h.Errorf("%q", page)
		}
		// More than the machine has file descriptors for are refused in a line.
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max > 3*30000 {
			return
		}
		r = h.Nuc("link", "app", "30000-59999", "web", "30000-59999")
		if r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "30000 ports at 3 addresses take 90000 file descriptors") {
			h.Errorf("%s", r)
		}
	})
}

// TestLinkUnixBurst: as many clients as come at once reach a socket in a
// container, and take no thread each.
func TestLinkUnixBurst(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("db", tree, ephemeral)
		script := `use IO::Socket::UNIX; my $l = IO::Socket::UNIX->new(Local => "/run/many", Listen => 4096) or die; my @all;
			while (my $c = $l->accept) { $c->syswrite("x"); push @all, $c }`
		if r := h.NucInput(script, "exec", "db", "sh", "-c", "cat >/run/many.pl"); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		h.Must("exec", "db", "systemd-run", "--quiet", "-p", "LimitNOFILE=4096", "perl", "/run/many.pl")
		harness.Eventually(h, patience, "the service listens", func() bool { return h.Exec("db", "test", "-S", "/run/many").Code == 0 })
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "db", "/run/many")
		const burst = 500
		var all sync.WaitGroup
		keeper, most, done := h.Roles().Keeper, 0, make(chan struct{})
		for range burst {
			all.Go(func() {
				c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", number))
				if err != nil {
					h.Error(err)
					return
				}
				h.Cleanup(func() { c.Close() })
				_ = c.SetDeadline(time.Now().Add(patience))
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					h.Error(err)
				}
			})
		}
		go func() {
			all.Wait()
			close(done)
		}()
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			case <-time.After(time.Millisecond):
				most = max(most, len(threads(h, keeper)))
			}
		}
		if most > 60 {
			h.Errorf("the keeper had %d threads", most)
		}
	})
}
