package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// linked declares a link.
func linked(listen int, to string, port int) map[string]any {
	return map[string]any{"listen": listen, "to": to, "port": port}
}

func TestDeclaredLinks(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		app := h.OnTree("app", tree, func(d map[string]any) {
			ephemeral(d)
			d["links"] = []any{linked(6432, "db", 5432)}
		})
		h.Must("up", app)
		if l := waitLink(h, "app-6432-db-5432", "waiting"); !l.Declared || l.Reason != "container db to run" {
			h.Errorf("before there is a db: %+v", l)
		}
		harness.Eventually(h, patience, "it listens on localhost too, now that app is up", func() bool {
			return len(links(h)["app-6432-db-5432"].Listen) == 3
		})
		if r := h.Exec("app", "psql", "-h", "db", "-p", "6432"); r.Code == 0 || strings.Contains(r.Stderr, "could not translate") {
			h.Errorf("psql, before there is a db:\n%s", r)
		}
		h.Up("db", tree, nil)
		role(h, "db")
		waitLink(h, "app-6432-db-5432", "listening")
		ask := func() string {
			return h.Exec("app", "psql", "-X", "postgresql://test:test@db:6432/postgres", "-Atc", "SELECT 6 * 7").Stdout
		}
		harness.Eventually(h, patience, "app reaches db by its name", func() bool { return ask() == "42\n" })
		if r := h.Exec("app", "psql", "-X", "postgresql://test:test@localhost:6432/postgres", "-Atc", "SELECT 6 * 7"); r.Stdout != "42\n" {
			h.Errorf("by localhost:\n%s", r)
		}
		if r := h.Nuc("status", "app"); !strings.Contains(r.Stdout, "→ db:5432") {
			h.Errorf("status does not show the link:\n%s", r)
		}
		for _, command := range [][]string{{"unlink", "app-6432-db-5432"}, {"unlink", "app", "6432"}} {
			if r := h.Nuc(command...); r.Code != 1 || !strings.Contains(r.Stderr, "is declared in container app") {
				h.Errorf("unlink of a declared link:\n%s", r)
			}
		}
		h.Must("unlink", "--all")
		h.Must("restart", "db")
		harness.Eventually(h, patience, "app reaches db after a restart of db", func() bool { return ask() == "42\n" })
		h.Must("restart", "app")
		harness.Eventually(h, patience, "app reaches db after a restart of app", func() bool { return ask() == "42\n" })

		// Its process is started anew, whoever kills it.
		old := links(h)["app-6432-db-5432"].Pid
		if err := unix.Kill(old, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
		harness.Eventually(h, patience, "app reaches db with a new process", func() bool {
			return links(h)["app-6432-db-5432"].Pid != old && ask() == "42\n"
		})

		// A switch changes links, live.
		h.OnTree("app", tree, func(d map[string]any) {
			ephemeral(d)
			d["links"] = []any{linked(7432, "db", 5432), map[string]any{"listen": 53, "to": "dns", "protocol": "udp"}}
		})
		h.Must("switch", "app")
		waitLink(h, "app-7432-db-5432", "listening")
		waitLink(h, "app-53-dns-53-udp", "waiting")
		harness.Eventually(h, patience, "the old link has ended", func() bool { return links(h)["app-6432-db-5432"].Name == "" })
		if r := h.Exec("app", "psql", "-X", "postgresql://test:test@db:7432/postgres", "-Atc", "SELECT 6 * 7"); r.Stdout != "42\n" {
			h.Errorf("after a switch:\n%s", r)
		}
		h.Must("stop", "app")
		if all := links(h); len(all) != 0 {
			h.Errorf("links of a stopped container: %+v", all)
		}
	})
}

// TestDeclaredLinksEnd: whatever ends a container ends the links it declares.
func TestDeclaredLinksEnd(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		app := h.OnTree("app", tree, func(d map[string]any) {
			ephemeral(d)
			d["links"] = []any{linked(81, "db", 81), linked(82, "db", 82)}
		})
		for kind, of := range map[string]func(harness.Roles) int{
			"supervisor": func(r harness.Roles) int { return r.Supervisor },
			"keeper":     func(r harness.Roles) int { return r.Keeper },
			"init":       func(r harness.Roles) int { return r.Init },
		} {
			h.Must("up", app)
			waitLink(h, "app-81-db-81", "waiting")
			waitLink(h, "app-82-db-82", "waiting")
			if err := unix.Kill(of(h.Roles()), unix.SIGKILL); err != nil {
				h.Fatal(err)
			}
			h.WaitState("app", patience, "failed")
			h.NothingLeft()
			if h.Failed() {
				h.Fatalf("after the %s was killed", kind)
			}
		}
		h.Must("up", app)
		h.Must("kill", "app")
		h.NothingLeft()
	})
}

// TestDeclaredLinkTakesOver: one that was made by hand before makes way.
func TestDeclaredLinkTakesOver(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("db", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		h.Must("link", "app", "81", "db", "81")
		h.OnTree("app", tree, func(d map[string]any) {
			ephemeral(d)
			d["links"] = []any{linked(81, "db", 81)}
		})
		h.Must("switch", "app")
		harness.Eventually(h, patience, "the link is the declared one", func() bool { return links(h)["app-81-db-81"].Declared })
	})
}

// TestDeclaredLinkBesideOwn: a port of localhost is the container's own service's
// that wants it, and the peer's at the peer's name.
func TestDeclaredLinkBesideOwn(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		h.Up("db", tree, nil)
		h.Must("exec", "-u", "postgres", "db", "psql", "-qXc", "CREATE ROLE test LOGIN PASSWORD 'test'", "-c", "CREATE DATABASE peer")
		h.Up("app", tree, func(d map[string]any) {
			d["links"] = []any{linked(5432, "db", 5432)}
			d["ready"] = map[string]any{"units": []string{"postgresql.service"}}
		})
		own := func(when string) {
			h.Helper()
			if r := h.Exec("app", "systemctl", "is-active", "postgresql@17-main"); r.Stdout != "active\n" {
				h.Fatalf("%s, app's own PostgreSQL does not run:\n%s", when, r)
			}
			harness.Eventually(h, patience, when+", db is the other one", func() bool {
				return h.Exec("app", "psql", "-X", "postgresql://test:test@db/peer", "-Atc", "SELECT 6 * 7").Stdout == "42\n"
			})
			if r := h.Exec("app", "psql", "-X", "postgresql://test:test@localhost/peer", "-Atc", "SELECT 6 * 7"); r.Code == 0 {
				h.Errorf("%s, localhost is the other one", when)
			}
			if r := h.Exec("app", "psql", "-X", "postgresql://test:test@127.0.0.1/peer", "-Atc", "SELECT 6 * 7"); !strings.Contains(r.Stderr, "authentication failed") {
				h.Errorf("%s, app's own PostgreSQL does not answer on 127.0.0.1:\n%s", when, r)
			}
		}
		own("at first")
		h.Reboot("app", 2*patience)
		own("after a reboot inside")
		h.Must("restart", "app")
		own("after a restart")
	})
}

func TestDependsOn(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		needs := func(name string, others ...string) string {
			return h.OnTree(name, tree, func(d map[string]any) {
				ephemeral(d)
				d["ready"] = map[string]any{"units": []string{"nginx.service"}}
				if len(others) > 0 {
					d["dependsOn"] = others
				}
			})
		}
		started := func(name string) string {
			h.Helper()
			var st struct{ Started string }
			if err := json.Unmarshal([]byte(h.Must("status", name, "--json")), &st); err != nil {
				h.Fatal(err)
			}
			return st.Started
		}
		db, cache, app := needs("db"), needs("cache", "db"), needs("app", "cache")
		if r := h.Nuc("up", app); r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "container app: depends on cache") || !strings.Contains(r.Stderr, "not known") {
			h.Errorf("an unknown dependency:\n%s", r)
		}
		h.NothingLeft()
		r := h.Nuc("up", app, cache, db)
		lines := strings.Split(r.Stdout, "\n")
		if r.Code != 0 || len(lines) != 4 || !strings.HasPrefix(lines[0], "db: ready") || !strings.HasPrefix(lines[1], "cache: ready") || !strings.HasPrefix(lines[2], "app: ready") {
			h.Errorf("want db, cache, app to be ready in this order:\n%s", r)
		}
		times := []string{started("db"), started("cache"), started("app")}
		if !slices.IsSorted(times) {
			h.Errorf("started at %q", times)
		}
		h.Must("stop", "--all")
		if r := h.Nuc("up", "app", "--no-wait"); r.Code != 0 || !strings.Contains(r.Stdout, "db: ready") || !strings.Contains(r.Stdout, "cache: ready") {
			h.Errorf("dependencies that are known are started too:\n%s", r)
		}
		h.Must("up", "app")
		h.Must("stop", "--all")

		// What waits for a container that fails is not started.
		h.OnTree("db", tree, func(d map[string]any) {
			d["system"] = map[string]any{"init": "/bin/false", "ttyGroup": 5}
			d["root"].(map[string]any)["ephemeral"] = true
		})
		r = h.Nuc("up", app, cache, db)
		if r.Code != 1 || !strings.Contains(r.Stderr, "container cache: not started, as db, which it depends on, failed") ||
			!strings.Contains(r.Stderr, "container app: not started, as cache, which it depends on, failed") {
			h.Errorf("a dependency that fails:\n%s", r)
		}
		h.NothingLeft()

		r = h.Nuc("up", needs("db", "app"), cache, app)
		if r.Code != 1 || strings.Count(r.Stderr, "\n") != 1 || !strings.Contains(r.Stderr, "db → app → cache → db") {
			h.Errorf("a cycle:\n%s", r)
		}
		h.NothingLeft()
	})
}

// TestLinkBeyondLoopback: listening for others is asked for, and shown.
func TestLinkBeyondLoopback(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, ephemeral)
		number := harness.FreePort(h)
		h.Must("link", "--address", "0.0.0.0", "-", fmt.Sprint(number), "web", "80")
		for _, address := range otherAddresses(h) {
			if strings.Contains(address, ":") {
				continue
			}
			if page := get(h, "", fmt.Sprintf("http://%s:%d/", address, number)); !strings.Contains(page, "nginx") {
				h.Errorf("from %s: %q", address, page)
			}
		}
		if r := h.Nuc("ps"); !strings.Contains(r.Stdout, fmt.Sprintf("0.0.0.0:%d→80 (link)", number)) {
			h.Errorf("ps does not show it:\n%s", r)
		}
		if r := h.Nuc("links"); !strings.Contains(r.Stdout, fmt.Sprintf("0.0.0.0:%d", number)) {
			h.Errorf("links does not show it:\n%s", r)
		}
	})
}

// TestLinkStartsContainer: a link's client starts a container as one of its
// ports does, and keeps it up.
func TestLinkStartsContainer(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		published, number := harness.FreePort(h), harness.FreePort(h)
		h.Up("web", tree, func(d map[string]any) {
			ephemeral(d)
			d["network"] = map[string]any{
				"ports":           []any{map[string]any{"host": published, "container": 80, "socketActivation": true}},
				"idleStopSeconds": 1,
			}
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
		})
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		for range 2 {
			h.WaitState("web", patience, "listening")
			r := h.Host("curl", "-fsS", "--max-time", "60", fmt.Sprintf("http://127.0.0.1:%d/", number))
			if !strings.Contains(r.Stdout, "nginx") {
				h.Errorf("%s", r)
			}
		}
	})
}

// TestLinkWhileStopping: a client that comes while a container that clients start
// is just stopped waits for its next run.
func TestLinkWhileStopping(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		published, number := harness.FreePort(h), harness.FreePort(h)
		// nginx has gone long before the container has.
		slow := h.Write("slow.service", "[Unit]\nBefore=nginx.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\nExecStop=sleep 3\n", 0o644)
		h.Up("web", tree, func(d map[string]any) {
			ephemeral(d)
			d["network"] = map[string]any{
				"ports":           []any{activating(published, 8000)},
				"idleStopSeconds": 1,
			}
			d["mounts"] = []any{
				map[string]any{"source": slow, "target": "/etc/systemd/system/slow.service", "readOnly": true},
				map[string]any{"source": h.Write("nginx.conf", severalNginx, 0o644), "target": "/etc/nginx/conf.d/several.conf", "readOnly": true},
			}
			d["ready"] = map[string]any{"units": []string{"nginx.service"}}
		})
		h.Must("link", "-", fmt.Sprint(number), "web", "8000")
		get := func(when string) {
			h.Helper()
			r := h.Host("curl", "-fsS", "--max-time", "60", fmt.Sprintf("http://127.0.0.1:%d/", number))
			if !strings.Contains(r.Stdout, "port 8000") {
				h.Errorf("%s:\n%s", when, r)
			}
		}
		get("the first")
		h.Must("exec", "web", "systemctl", "start", "slow")
		h.WaitState("web", patience, "stopping")
		time.Sleep(time.Second)
		if status := h.Status("web"); status != "stopping" {
			h.Fatalf("web is %q, not stopping still", status)
		}
		get("while it is stopping")
	})
}
