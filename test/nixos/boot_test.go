package nixos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// patience is for what takes seconds on a busy machine.
const patience = 60 * time.Second

// web is the booted container.
type web struct {
	*harness.H
	place
	key                      string
	database, old, next, ssh int // ports of the host
}

// TestBoot is one container's life, step by step: each needs those before it.
func TestBoot(t *testing.T) {
	p := booted(t)
	first, second, broken := p.build(t, "first"), p.build(t, "second"), p.build(t, "broken")
	h := harness.New(t)
	w := &web{
		H: h, place: p,
		database: harness.FreePort(h), old: harness.FreePort(h), next: harness.FreePort(h), ssh: harness.FreePort(h),
	}
	key, err := os.ReadFile(filepath.Join(p.Store, "key"))
	if err != nil {
		t.Fatal(err)
	}
	w.key = h.Write("key", string(key), 0o600)

	from, to := w.toplevel(first), w.toplevel(second)
	switched := w.write("second", second, map[int]int{5432: w.database, 8081: w.next, 22: w.ssh})
	failing := w.write("broken", broken, map[int]int{5432: w.database, 8080: w.old, 22: w.ssh})
	h.Own("web")
	r := h.Nuc("up", w.write("first", first, map[int]int{5432: w.database, 8080: w.old, 22: w.ssh}))
	if r.Code != 0 {
		t.Fatalf("%s", r)
	}
	t.Logf("ready after %s", r.Duration.Round(10*time.Millisecond))
	steps := []struct {
		name string
		step func(t *testing.T)
	}{
		{"Running", w.running},
		{"Units", func(t *testing.T) {
			w.active(t, "postgresql", "nginx", "sshd", "redis", "hardened", "realtime", "fallback")
		}},
		{"Store", w.storeIsNobodys},
		{"Database", w.queries},
		{"Web", func(t *testing.T) { w.serves(t, w.old, w.next) }},
		{"Login", w.logsIn},
		{"Sudo", w.sudo},
		{"RootOwned", w.rootOwned},
		{"NoLogin", w.noLogin},
		{"Hardened", w.hardened},
		{"Realtime", w.realtime},
		{"Fallback", w.fallback},
		{"DryActivate", func(t *testing.T) { w.dryActivate(t, switched, from) }},
		{"Switch", func(t *testing.T) {
			w.reports(t, w.switches(t, 2, "switch", switched), "restarted: nginx.service", "stopped: redis.service")
		}},
		{"Diff", w.diff},
		{"AfterSwitch", func(t *testing.T) {
			w.current(t, to)
			w.serves(t, w.next, w.old)
			w.active(t, "postgresql", "nginx", "sshd", "hardened")
			w.gone(t, "redis")
			w.queries(t)
			if r := h.Exec("web", "id", "-u", "cleo"); r.Code != 0 {
				t.Errorf("the new generation's user isn't there: %s", r)
			}
			w.running(t)
		}},
		{"Rollback", func(t *testing.T) {
			w.reports(t, w.switches(t, 1, "rollback", "web"), "restarted: nginx.service", "started: redis.service")
		}},
		{"AfterRollback", func(t *testing.T) { w.isFirst(t, from) }},
		{"FailedSwitch", func(t *testing.T) { w.fails(t, failing) }},
		{"RollbackOfFailed", func(t *testing.T) {
			w.switches(t, 1, "rollback", "web", "--to", "1")
			w.isFirst(t, from)
		}},
		{"Stop", w.stops},
	}
	for _, s := range steps {
		if !t.Run(s.name, s.step) {
			t.Logf("journal:\n%s", h.Nuc("logs", "-n", "60", "web").Stdout)
			return
		}
	}
}

// TestBootShortRange boots where 4096 ids are all there is: nobody and nogroup
// are 65534 in NixOS, and real all the same.
func TestBootShortRange(t *testing.T) {
	p := booted(t)
	short := p.build(t, "short")
	h := harness.New(t, harness.WithRanges(harness.ShortRange))
	h.Must("up", h.Descriptor("short", func(d map[string]any) { p.fromStore(h, d, short) }))
	isRunning(t, h, "short")
	h.Must("exec", "short", "systemctl", "is-active", "postgresql.service", "nginx.service", "nscd.service")
	r := h.Exec("short", "sh", "-c", "touch /tmp/f && chown nobody:nogroup /tmp/f && stat -c %u:%g:%U:%G /tmp/f")
	if r.Stdout != "65534:65534:nobody:nogroup\n" {
		t.Errorf("%s", r)
	}
}

// toplevel is the system of a descriptor in the store.
func (w *web) toplevel(descriptor string) string {
	w.Helper()
	d, err := w.place.Read(descriptor)
	if err != nil {
		w.Fatal(err)
	}
	toplevel, _ := harness.Section(d, "system")["toplevel"].(string)
	if !strings.HasPrefix(toplevel, "/nix/store/") {
		w.Fatalf("system.toplevel of %s is %q", descriptor, toplevel)
	}
	return toplevel
}

// write makes a file of a descriptor in the store, with free ports of the host
// for those that the services declare.
func (w *web) write(name, storePath string, hosts map[int]int) string {
	w.Helper()
	d := map[string]any{}
	w.fromStore(w, d, storePath)
	declared, _ := harness.Section(d, "network")["ports"].([]any)
	if len(declared) != len(hosts) {
		w.Errorf("the ports of the services are %v, want those of %v", declared, hosts)
	}
	for _, entry := range declared {
		port := entry.(map[string]any)
		container, _ := port["container"].(float64)
		host := hosts[int(container)]
		if host == 0 {
			w.Errorf("nothing was to listen on the declared port %v", port)
		}
		port["host"] = host
	}
	content, err := json.Marshal(d)
	if err != nil {
		w.Fatal(err)
	}
	return w.Write(name+".json", string(content), 0o600)
}

func (w *web) running(t *testing.T) { isRunning(t, w.H, "web") }

func isRunning(t *testing.T, h *harness.H, name string) {
	t.Helper()
	r := h.Exec(name, "systemctl", "is-system-running", "--wait")
	if strings.TrimSpace(r.Stdout) != "running" {
		t.Errorf("%s%s", r, h.Exec(name, "systemctl", "status", "--failed", "--no-pager", "--full").Stdout)
	}
}

func (w *web) active(t *testing.T, units ...string) {
	t.Helper()
	for _, unit := range units {
		if r := w.Exec("web", "systemctl", "is-active", unit+".service"); r.Stdout != "active\n" {
			t.Errorf("%s", r)
		}
	}
}

func (w *web) gone(t *testing.T, unit string) {
	t.Helper()
	if r := w.Exec("web", "systemctl", "is-active", unit+".service"); r.Stdout != "inactive\n" {
		t.Errorf("%s", r)
	}
}

// storeIsNobodys shows that what follows works on a store that isn't the
// container's root's, as a multi-user Nix has it.
func (w *web) storeIsNobodys(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the store belongs to the user who boots: as root, it belongs to another")
	}
	r := w.Exec("web", "stat", "-Lc", "%U:%G", "/run/current-system")
	if r.Stdout != "nobody:nogroup\n" {
		t.Errorf("%s", r)
	}
	if r := w.Exec("web", "touch", "/nix/store/written"); r.Code == 0 {
		t.Errorf("the store can be written to: %s", r)
	}
}

func (w *web) queries(t *testing.T) {
	url := fmt.Sprintf("postgresql://app@127.0.0.1:%d/app", w.database)
	r := w.Host("psql", "-X", url, "-Atc", "SELECT 6 * 7, current_user, inet_server_port()")
	if r.Stdout != "42|app|5432\n" {
		t.Errorf("%s", r)
	}
}

// serves looks for nginx behind one port, and for nobody behind the other.
func (w *web) serves(t *testing.T, here, notThere int) {
	t.Helper()
	get := func(port int) harness.Result {
		return w.Host("curl", "-fsS", "--max-time", "10", fmt.Sprintf("http://127.0.0.1:%d/", port))
	}
	harness.Eventually(t, patience, "nginx answers", func() bool {
		return get(here).Stdout == "served from the store"
	})
	if r := get(notThere); r.Code == 0 {
		t.Errorf("nginx answers at the other port, too: %s", r)
	}
}

// remote runs a command through sshd, in a login shell as a person has it.
func (w *web) remote(user, command string) harness.Result {
	return w.Host("ssh", "-F", "none", "-i", w.key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR",
		"-p", fmt.Sprint(w.ssh), user+"@127.0.0.1", "bash -lc '"+command+"'")
}

func (w *web) logsIn(t *testing.T) {
	started := time.Now()
	r := w.remote("ana", "id -un; loginctl --no-legend list-sessions")
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	if r.Code != 0 || lines[0] != "ana" || len(lines) < 2 || !strings.Contains(lines[1], "ana") {
		t.Errorf("want ana with a session of logind's: %s", r)
	}
	// logind that can't be reached costs PAM half a minute and more.
	if took := time.Since(started); took > 20*time.Second {
		t.Errorf("a login took %s", took)
	}
	if r := w.remote("ben", "true"); r.Code == 0 {
		t.Error("ben, who has no key, is let in")
	}
}

func (w *web) sudo(t *testing.T) {
	if r := w.remote("ana", "sudo -n id -u"); r.Stdout != "0\n" {
		t.Errorf("sudo in a login: %s", r)
	}
	if r := w.Exec("web", "su", "-", "ana", "-c", "sudo -n id -u"); r.Stdout != "0\n" {
		t.Errorf("sudo after su: %s", r)
	}
	if r := w.Nuc("exec", "-u", "ana", "web", "sudo", "-n", "id", "-u"); r.Stdout != "0\n" {
		t.Errorf("sudo through nuc exec: %s", r)
	}
	if r := w.Nuc("exec", "-u", "ben", "web", "sudo", "-n", "id", "-u"); r.Code == 0 {
		t.Errorf("sudo for ben, who isn't in wheel: %s", r)
	}
}

// rootOwned: sudo checks the owner of each file that it reads. One of two that
// lie in the store is declared to be root's.
func (w *web) rootOwned(t *testing.T) {
	if os.Getenv("NUC_STORE_AT_NIX") == "" {
		t.Skip("the launcher copies from /nix/store, and the tests' store isn't there")
	}
	if r := w.Nuc("exec", "-u", "ben", "web", "sh", "-c", "sudo -n whoami"); r.Stdout != "root\n" {
		t.Errorf("what a root-owned file allows: %s", r)
	}
	if r := w.Nuc("exec", "-u", "ben", "web", "sh", "-c", "sudo -n uname"); r.Code == 0 || !strings.Contains(r.Stderr, "owned by uid") {
		t.Errorf("what a file of nobody's would allow: %s", r)
	}
}

// noLogin: PAM refuses login(1), even of root's; nuc login is no login of PAM's.
func (w *web) noLogin(t *testing.T) {
	// script(1) gives login the terminal that it insists on.
	try := func(program string) string {
		r := w.Exec("web", "timeout", "20", "script", "-qec", program+" && echo let-in", "/dev/null")
		return r.Stdout + r.Stderr
	}
	if said := try("login -f root"); strings.Contains(said, "let-in") || !strings.Contains(said, "Authentication") && !strings.Contains(said, "Permission denied") {
		t.Errorf("login: want a refusal of PAM's:\n%s", said)
	}
	if said := try("su -l ana -c true"); !strings.Contains(said, "let-in") {
		t.Errorf("su: %s", said)
	}
	if r := w.NucInput("id -un\n", "login", "web"); r.Code != 0 || r.Stdout != "root\n" {
		t.Errorf("%s", r)
	}
	if r := w.Exec("web", "sh", "-c", "pgrep -a getty"); r.Code == 0 {
		t.Errorf("%s", r)
	}
}

// hardened reads from inside the unit's sandbox that it is one.
func (w *web) hardened(t *testing.T) {
	pid := strings.TrimSpace(w.Must("exec", "web", "systemctl", "show", "-P", "MainPID", "hardened"))
	status := w.Must("exec", "web", "cat", "/proc/"+pid+"/status")
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"} {
		if !strings.Contains(status, want) {
			t.Errorf("want %q in the service's status:\n%s", want, status)
		}
	}
	user := w.Must("exec", "web", "stat", "-c", "%u", "/proc/"+pid)
	var uid int
	if _, err := fmt.Sscan(user, &uid); err != nil || uid < 61184 || uid > 65519 {
		t.Errorf("DynamicUser has the id %q (%v)", user, err)
	}
	for _, path := range []string{"/etc/written", "/home/written", "/usr/written"} {
		if r := w.Exec("web", "nsenter", "-t", pid, "-m", "touch", path); r.Code == 0 {
			t.Errorf("the sandbox lets %s be written", path)
		}
	}
}

func (w *web) realtime(t *testing.T) {
	pid := strings.TrimSpace(w.Must("exec", "web", "systemctl", "show", "-P", "MainPID", "realtime"))
	if r := w.Exec("web", "chrt", "-p", pid); !strings.Contains(r.Stdout, "SCHED_OTHER") {
		t.Errorf("%s", r)
	}
}

// fallback: the sandbox is off where it was asked to be, and on elsewhere.
func (w *web) fallback(t *testing.T) {
	for property, want := range map[string]string{
		"ProcSubset": "all", "ProtectProc": "default", "ProtectControlGroups": "no", "ProtectHome": "yes",
	} {
		if r := w.Exec("web", "systemctl", "show", "-P", property, "fallback"); strings.TrimSpace(r.Stdout) != want {
			t.Errorf("%s is not %s: %s", property, want, r)
		}
	}
}

func (w *web) dryActivate(t *testing.T, descriptor, from string) {
	r := w.Nuc("switch", descriptor, "--dry-activate")
	for _, want := range []string{"nginx.service", "redis.service", "network.ports"} {
		if r.Code != 0 || !strings.Contains(r.Stdout, want) {
			t.Errorf("want %s to be named: %s", want, r)
		}
	}
	w.current(t, from)
	w.active(t, "redis")
	w.serves(t, w.old, w.next)
}

// switches runs one of nuc's commands that change the system.
func (w *web) switches(t *testing.T, generation int, command ...string) harness.Result {
	t.Helper()
	pid := func() string { return w.Must("exec", "web", "systemctl", "show", "-P", "MainPID", "postgresql") }
	before := pid()
	r := w.Nuc(command...)
	if r.Code != 0 || !strings.Contains(r.Stdout, fmt.Sprintf("generation %d", generation)) {
		t.Fatalf("%s", r)
	}
	t.Logf("switched in %s", r.Duration.Round(10*time.Millisecond))
	if after := pid(); after != before {
		t.Errorf("postgresql, which didn't change, was restarted: %s is now %s", before, after)
	}
	return r
}

// reports looks for units, each the only one of which a thing is said that
// changed by the test's doing.
func (w *web) reports(t *testing.T, r harness.Result, lines ...string) {
	t.Helper()
	for _, line := range lines {
		what, unit, _ := strings.Cut(line, ": ")
		found := false
		for said := range strings.Lines(r.Stdout) {
			if list, ok := strings.CutPrefix(said, "web: "+what+": "); ok {
				found = slices.Contains(strings.Split(strings.TrimSpace(list), ", "), unit)
			}
		}
		if !found {
			t.Errorf("want %q to be reported: %s", line, r)
		}
	}
	for said := range strings.Lines(r.Stdout) {
		if strings.HasPrefix(said, "web: failed: ") || strings.HasPrefix(said, "web: ") && strings.Contains(said, "postgresql.service") {
			t.Errorf("reported without having happened: %q", said)
		}
	}
}

// diff has real units and real packages differ: the second system has no redis.
func (w *web) diff(t *testing.T) {
	if os.Getenv("NUC_STORE_AT_NIX") != "" { // else Nix doesn't know the packages
		if err := harness.NixDaemon(t); err != nil {
			t.Fatal(err)
		}
		w.Setenv("NIX_REMOTE", "daemon")
		defer w.Setenv("NIX_REMOTE", "")
	}
	r := w.Nuc("diff", "web")
	for _, want := range []string{
		"generation 1 → 2", "descriptor ~ network.ports", "descriptor ~ system.toplevel", "unit       ~ nginx.service\n", "unit       - redis.service\n",
	} {
		if r.Code != 0 || !strings.Contains(r.Stdout, want) {
			t.Errorf("want %q: %s", want, r)
		}
	}
	for _, unwanted := range []string{"wants/redis.service", "postgresql.service"} {
		if strings.Contains(r.Stdout, unwanted) {
			t.Errorf("%q is in the difference: %s", unwanted, r)
		}
	}
	if os.Getenv("NUC_STORE_AT_NIX") == "" {
		return
	}
	found := false
	for line := range strings.Lines(r.Stdout) {
		found = found || strings.HasPrefix(line, "package    redis: ") && strings.Contains(line, "∅")
	}
	if !found {
		t.Errorf("want redis among the packages that are gone: %s", r)
	}
}

func (w *web) isFirst(t *testing.T, from string) {
	t.Helper()
	w.current(t, from)
	w.serves(t, w.old, w.next)
	w.active(t, "postgresql", "nginx", "sshd", "redis", "hardened")
	if r := w.Exec("web", "id", "-u", "cleo"); r.Code == 0 {
		t.Errorf("the other generation's user is still there: %s", r)
	}
	w.running(t)
}

func (w *web) fails(t *testing.T, descriptor string) {
	r := w.Nuc("switch", descriptor)
	if r.Code != 4 || !strings.Contains(r.Stderr, "nuc rollback web") || !strings.Contains(r.Stdout+r.Stderr, "broken.service") {
		t.Errorf("want status 4, the failed unit and how to go back: %s", r)
	}
	if !strings.Contains(r.Stdout, "web: failed: broken.service\n") {
		t.Errorf("want broken.service reported as failed: %s", r)
	}
	// What did work goes on.
	w.serves(t, w.old, w.next)
	w.queries(t)
}

func (w *web) current(t *testing.T, toplevel string) {
	t.Helper()
	if got := w.Must("exec", "web", "readlink", "/run/current-system"); got != toplevel {
		t.Errorf("the current system is %s, not %s", got, toplevel)
	}
}

func (w *web) stops(t *testing.T) {
	r := w.Nuc("stop", "web")
	if r.Code != 0 {
		t.Errorf("%s", r)
	}
	t.Logf("stopped in %s", r.Duration.Round(10*time.Millisecond))
	if status := w.Status("web"); status != "stopped" {
		t.Errorf("the container is %q", status)
	}
}
