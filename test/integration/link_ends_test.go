package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// TestLinkUnixEnds: from the host machine to PostgreSQL's own socket, which knows
// its peer, with folders and a project that have spaces in their names.
func TestLinkUnixEnds(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		project := h.Folder("my project")
		path := filepath.Join(project, "db.json")
		if r := h.Host("mv", h.OnTree("db", tree, ephemeral), path); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		h.Must("up", path)
		h.Must("exec", "-u", "postgres", "db", "createuser", "-s", "root")
		folder := filepath.Join(project, "run here")
		if r := h.Host("mkdir", folder); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		const socket = ".s.PGSQL.5432"
		made := h.Must("link", "--unix", filepath.Join(folder, socket), "--unix", "/run/postgresql/"+socket, "-", project)
		all := links(h)
		if len(all) != 1 {
			h.Fatalf("%s\n%+v", made, all)
		}
		ask := func(query string) harness.Result {
			return h.Host("psql", "-X", "-h", folder, "-U", "root", "-d", "postgres", "-Atc", query)
		}
		if r := ask("SELECT current_user, inet_client_addr() IS NULL"); r.Stdout != "root|t\n" {
			h.Errorf("psql -h FOLDER, by the peer's user:\n%s", r)
		}
		// More than a socket's buffer.
		if r := ask("SELECT length(repeat('x', 50000000)), repeat('y', 5000000)"); len(r.Stdout) != len("50000000|")+5_000_000+1 {
			h.Errorf("a large answer has %d bytes, status %d: %s", len(r.Stdout), r.Code, r.Stderr)
		}
		// A number at the host machine, the socket in the container.
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), project+"/", "/run/postgresql/"+socket)
		if r := h.Host("psql", "-X", "-h", "localhost", "-p", fmt.Sprint(number), "-U", "root", "-d", "postgres", "-Atc", "SELECT 6 * 7"); r.Stdout != "42\n" {
			h.Errorf("from a port to the socket:\n%s", r)
		}
		h.Must("restart", "db")
		h.Must("exec", "-u", "postgres", "db", "createuser", "-s", "root")
		harness.Eventually(h, patience, "the socket leads to db after a restart", func() bool { return ask("SELECT 6 * 7").Stdout == "42\n" })
		for name := range links(h) {
			h.Must("unlink", name)
		}
		if left := h.Host("ls", "-A", folder); left.Stdout != "" {
			h.Errorf("after unlink the folder has %s", left)
		}
	})
}

// TestLinkFamilies: one family alone, and containers that have but one.
func TestLinkFamilies(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, func(d map[string]any) {
			ephemeral(d)
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
		})
		h.Up("app", tree, ephemeral)
		h.Must("exec", "app", "systemctl", "stop", "nginx")
		page := func(container, host string, number int) bool {
			h.Helper()
			return strings.Contains(get(h, container, "http://"+net.JoinHostPort(host, fmt.Sprint(number))+"/"), "Welcome to nginx")
		}
		for flag, want := range map[string]map[string]bool{
			"--ipv6": {"127.0.0.1": false, "::1": true},
			"--ipv4": {"127.0.0.1": true, "::1": false},
		} {
			number := harness.FreePort(h)
			h.Must("link", flag, "-", fmt.Sprint(number), "web", "80")
			h.Must("link", flag, "app", fmt.Sprint(number), "web", "80")
			for host, served := range want {
				if page("", host, number) != served || page("app", host, number) != served {
					h.Errorf("link %s: %s, want it to listen there: %t", flag, host, served)
				}
			}
		}

		// The service listens on one of localhost's addresses only.
		install(h, "web", map[string]string{"/etc/nginx/conf.d/one.conf": `
			server { listen [::1]:86 ipv6only=on; return 200 "Welcome to nginx by 6"; }
			server { listen 127.0.0.1:84; return 200 "Welcome to nginx by 4"; }
		`}, "systemctl reload nginx")
		for _, target := range []string{"86", "84"} {
			number := harness.FreePort(h)
			h.Must("link", "-", fmt.Sprint(number), "web", target)
			harness.Eventually(h, patience, "port "+target+" of one family is found", func() bool { return page("", "127.0.0.1", number) && page("", "::1", number) })
		}

		// Without IPv6 inside, at either end.
		for _, name := range []string{"app", "web"} {
			h.Must("exec", name, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6")
			if r := h.Exec(name, "ip", "-6", "-o", "addr", "show", "lo"); r.Stdout != "" {
				h.Fatalf("%s still has IPv6: %s", name, r)
			}
		}
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		if !page("", "127.0.0.1", number) || !page("", "::1", number) {
			h.Error("a container without IPv6 is not reached from the host machine")
		}
		h.Must("link", "app", "8080", "web", "80")
		if !page("app", "127.0.0.1", 8080) {
			h.Errorf("a container without IPv6 has no link: %+v", links(h)["app-8080-web-80"])
		}
		r := h.Nuc("link", "--ipv6", "app", "8081", "web", "80")
		if r.Code == 0 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "::1") {
			h.Errorf("link --ipv6 in a container without: want one line that says so\n%s", r)
		}
		if _, made := links(h)["app-8081-web-80"]; made {
			h.Error("a link that could not listen is there")
		}
	})
}

// ending is a service in a container that tells how its clients end, and ends in
// the way that a client asks for.
const ending = `use Socket qw(:all); use IO::Socket::INET; $| = 1; $SIG{PIPE} = "IGNORE";
my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1:7000", Listen => 100, ReuseAddr => 1) or die;
while (my $c = $l->accept) {
	next if fork;
	my $order = <$c>;
	if ($order eq "sum\n") { # until the client is done; the answer comes after
		my $n = 0; while (my $got = read($c, my $b, 65536)) { $n += $got } print "sum $n\n"; syswrite($c, "$n\n");
	} elsif ($order eq "close\n") { # done first, and goes on reading
		syswrite($c, "the end\n"); shutdown($c, 1);
		my $n = 0; while (my $got = read($c, my $b, 65536)) { $n += $got } print "after the end $n\n";
	} elsif ($order eq "reset\n") {
		setsockopt($c, SOL_SOCKET, SO_LINGER, pack("ii", 1, 0)); close $c;
	} elsif ($order eq "wait\n") {
		my $got = sysread($c, my $b, 1); print defined $got ? "wait end\n" : "wait $!\n";
	}
	exit 0;
}
`

// TestLinkEnds: half-closed connections and resets go through a link, in both
// directions.
func TestLinkEnds(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("box", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		install(h, "box", map[string]string{"/run/ending": ending}, "systemd-run --quiet --unit=ending perl /run/ending")
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "box", "7000")
		h.Must("link", "app", "7000", "box", "7000")
		told := func(what string) {
			h.Helper()
			harness.Eventually(h, patience, "the service tells "+what, func() bool {
				return strings.Contains(h.Exec("box", "journalctl", "-u", "ending", "-o", "cat").Stdout, what+"\n")
			})
		}
		dial := func(order string) *net.TCPConn {
			h.Helper()
			c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", number))
			if err != nil {
				h.Fatal(err)
			}
			h.Cleanup(func() { c.Close() })
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := io.WriteString(c, order+"\n"); err != nil {
				h.Fatal(err)
			}
			return c.(*net.TCPConn)
		}
		harness.Eventually(h, patience, "the service listens", func() bool {
			r := h.Host("bash", "-c", fmt.Sprintf("printf 'sum\\nhello' | nc -N 127.0.0.1 %d", number))
			return r.Code == 0 && r.Stdout == "5\n"
		})

		const much = 20_000_000
		sum := fmt.Sprintf("(echo sum; head -c %d /dev/zero)", much)
		if r := h.Host("bash", "-c", sum+fmt.Sprintf(" | nc -N localhost %d", number)); r.Stdout != fmt.Sprintln(much) {
			h.Errorf("nc -N, which is done before the answer comes:\n%s", r)
		}
		r := h.Exec("app", "perl", "-MIO::Socket::INET", "-e", `my $s = IO::Socket::INET->new("127.0.0.1:7000") or die;
			print $s "sum\n", "x" x 20_000_000; $s->flush; shutdown($s, 1); print <$s>`)
		if r.Stdout != fmt.Sprintln(much) {
			h.Errorf("the same between containers:\n%s", r)
		}
		told(fmt.Sprint("sum ", much))

		c := dial("close")
		if end, err := io.ReadAll(c); string(end) != "the end\n" || err != nil {
			h.Errorf("a service that is done first: %q, %v", end, err)
		}
		time.Sleep(200 * time.Millisecond)
		if _, err := c.Write(make([]byte, 1_000_000)); err != nil {
			h.Errorf("what a client sends after the service is done: %v", err)
		}
		c.Close()
		told("after the end 1000000")

		if _, err := dial("reset").Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			h.Errorf("a service's reset is %v for its client", err)
		}
		for reset, want := range map[bool]string{true: "wait Connection reset by peer", false: "wait end"} {
			c := dial("wait")
			time.Sleep(200 * time.Millisecond) // it has read the order
			if reset {
				_ = c.SetLinger(0)
			}
			c.Close()
			told(want)
		}
		harness.Eventually(h, patience, "nothing of them is left in the links", func() bool {
			for _, l := range links(h) {
				if l.Connections != 0 {
					return false
				}
			}
			return true
		})
	})
}
