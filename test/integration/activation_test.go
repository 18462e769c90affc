package integration

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// activating is an entry of network.ports whose first client starts the container.
func activating(host, container int) map[string]any {
	p := port(host, container)
	p["socketActivation"] = true
	return p
}

// onlySupervisor fails the test if anything of a listening container runs but
// its supervisor.
func onlySupervisor(h *harness.H) {
	h.Helper()
	harness.Eventually(h, patience, "nothing runs but the supervisor, with its starter", func() bool {
		return !slices.ContainsFunc(h.Processes(), func(p harness.Inside) bool {
			return !strings.Contains(p.Command, "nuc-supervisor") && !strings.Contains(p.Command, "nuc-starter")
		})
	})
	for _, left := range h.Leftovers() {
		if strings.Contains(left, "payload") || strings.HasPrefix(left, "mount ") {
			h.Errorf("a listening container has %s", left)
		}
	}
}

// TestSocketActivation: clients start the container, wait until it is ready, and
// it goes when they have gone for a while.
func TestSocketActivation(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		web, database, plain := harness.FreePort(h), harness.FreePort(h), harness.FreePort(h)
		path := h.OnTree("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{
				"ports":           []any{activating(web, 80), activating(database, 5432), port(plain, 80)},
				"idleStopSeconds": 3,
			}
			d["ready"] = map[string]any{"units": []string{"nginx.service", "postgresql.service"}}
		})
		curl := func(number int) harness.Result {
			return h.Host("curl", "-sS", "--max-time", "50", fmt.Sprintf("http://127.0.0.1:%d/", number))
		}
		r := h.Nuc("up", path)
		if want := fmt.Sprintf("web: listening, 127.0.0.1:%d→80, ", web); r.Code != 0 || !strings.HasPrefix(r.Stdout, want) || r.Duration > 5*time.Second {
			h.Errorf("up: want %q at once\n%s", want, r)
		}
		if status := h.Status("web"); status != "listening" {
			h.Errorf("after up, web is %q, want listening", status)
		}
		onlySupervisor(h)
		// A port that does not start it tells its clients.
		if r := curl(plain); r.Code == 0 || r.Duration > 5*time.Second {
			h.Errorf("a port without socketActivation: want its client refused at once\n%s", r)
		}
		if r := h.Nuc("logs", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "only listens") {
			h.Errorf("logs of a listening container:\n%s", r)
		}
		if status := h.Status("web"); status != "listening" {
			h.Errorf("ps, logs or a refused client have started it: %q", status)
		}

		// Three at once start one container, and all are served.
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if r := curl(web); !strings.Contains(r.Stdout, "Welcome to nginx") {
					h.Errorf("a client that started it:\n%s", r)
				}
			})
		}
		all.Wait()
		first := h.Roles()
		if r := curl(plain); !strings.Contains(r.Stdout, "Welcome to nginx") {
			h.Errorf("the other port, now that it runs:\n%s", r)
		}
		h.Must("exec", "-u", "postgres", "web", "psql", "-qXc", "CREATE ROLE test LOGIN PASSWORD 'test'")

		// A connection at rest is a use, and so is a command.
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", web))
		if err != nil {
			h.Fatal(err)
		}
		shell := h.Start("exec", "web", "sleep", "11")
		time.Sleep(6 * time.Second) // twice what is idle
		conn.Close()
		if status := h.Status("web"); status != "ready" {
			h.Errorf("with a client and a command, web is %q", status)
		}
		if r := shell.Wait(patience); r.Code != 0 {
			h.Errorf("a command was ended by the idle stop:\n%s", r)
		}
		h.WaitState("web", patience, "listening")
		onlySupervisor(h)

		// The next one gets through, to what was written before.
		url := fmt.Sprintf("postgresql://test:test@127.0.0.1:%d/postgres", database)
		if r := h.Host("psql", "-X", url, "-Atc", "SELECT 6 * 7"); r.Stdout != "42\n" {
			h.Errorf("psql after an idle stop:\n%s", r)
		}
		if second := h.Roles(); second.Supervisor != first.Supervisor || second.Init == first.Init {
			h.Errorf("before the idle stop %+v, after it %+v", first, second)
		}
		h.WaitState("web", patience, "listening")

		// A command starts it as well, and stop ends it wholly, listening or not.
		if r := h.Exec("web", "systemctl", "is-active", "nginx"); r.Stdout != "active\n" {
			h.Errorf("exec in a listening container:\n%s", r)
		}
		h.Must("stop", "web")
		h.NothingLeft()
		h.Must("up", "web")
		h.Must("stop", "web")
		if status := h.Status("web"); status != "stopped" {
			h.Errorf("after a stop while it listened, web is %q", status)
		}
		h.NothingLeft()
		if listens(web) {
			h.Error("its port still listens")
		}

		// A switch of a listening container changes its ports, and starts nothing.
		h.Must("up", "web")
		moved := harness.FreePort(h)
		h.OnTree("web", tree, func(d map[string]any) {
			d["network"] = map[string]any{"ports": []any{activating(moved, 80), activating(database, 5432)}, "idleStopSeconds": 3}
			d["ready"] = map[string]any{"units": []string{"nginx.service", "postgresql.service"}}
			d["mounts"] = []any{map[string]any{"kind": "tmpfs", "target": "/scratch"}}
		})
		if r := h.Nuc("switch", "web"); r.Code != 0 || r.Stdout != "web: generation 2 comes up when a client starts it\n" {
			h.Errorf("switch of a listening container:\n%s", r)
		}
		onlySupervisor(h)
		if r := curl(moved); !strings.Contains(r.Stdout, "Welcome to nginx") || listens(web) {
			h.Errorf("after the switch:\n%s", r)
		}
		h.Must("exec", "web", "mountpoint", "/scratch")
		h.WaitState("web", patience, "listening")

		// Nothing is left of a supervisor that is killed while it listens.
		if err := unix.Kill(runOf(h, "web").SupervisorPid, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
		harness.Eventually(h, promised, "the supervisor is gone", func() bool { return len(h.Processes()) == 0 })
		if status := h.Status("web"); status != "failed" {
			h.Errorf("after its supervisor was killed, web is %q", status)
		}
		h.NothingLeft()
	})
}

// TestActivationFails: the client is told, the reason is shown, and the next one
// tries again.
func TestActivationFails(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		web := harness.FreePort(h)
		source := h.Write("init", "#!/bin/sh\necho 'no such luck'\nexit 7\n", 0o755)
		h.Must("up", h.OnTree("web", tree, func(d map[string]any) {
			harness.Section(d, "system")["init"] = "/usr/local/sbin/failing"
			d["mounts"] = []any{map[string]any{"source": source, "target": "/usr/local/sbin/failing", "readOnly": true}}
			d["network"] = map[string]any{"ports": []any{activating(web, 80)}}
		}))
		curl := func() harness.Result {
			return h.Host("curl", "-sS", "--max-time", "30", fmt.Sprintf("http://127.0.0.1:%d/", web))
		}
		// A reset may reach curl before it has seen that it is connected, or before
		// it has sent anything.
		refused := func(r harness.Result) bool { return r.Code == 56 || r.Code == 55 || r.Code == 7 }
		if r := curl(); !refused(r) {
			h.Errorf("the client of a start that fails: want a reset\n%s", r)
		}
		h.WaitState("web", patience, "listening")
		r := h.Nuc("status", "web")
		for _, want := range []string{"the last start failed: init exited with status 7"} {
			if r.Code != 3 || !strings.Contains(r.Stdout, want) {
				h.Errorf("status: want %q\n%s", want, r)
			}
		}
		if r := curl(); !refused(r) || r.Duration > 5*time.Second {
			h.Errorf("within the pause, a client is to be refused at once\n%s", r)
		}
		if r := h.Exec("web", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "init exited with status 7") {
			h.Errorf("exec:\n%s", r)
		}
		onlySupervisor(h)

		// Once it can start, it does.
		h.Write("init", "#!/bin/sh\nexec /sbin/init\n", 0o755)
		harness.Eventually(h, 2*patience, "a client gets through", func() bool {
			return strings.Contains(curl().Stdout, "Welcome to nginx")
		})
		if r := h.Nuc("status", "web"); r.Code != 0 || strings.Contains(r.Stdout, "failed") {
			h.Errorf("after a start that worked:\n%s", r)
		}
	})
}
