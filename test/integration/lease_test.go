package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// leaseStatus is what `nuc status --json` says of leases.
type leaseStatus struct {
	State  string `json:"state"`
	Reason string `json:"reason"`
	Leased bool   `json:"leased"`
	Leases []struct {
		PID         int    `json:"pid"`
		Command     string `json:"command"`
		KeepSeconds int    `json:"keepSeconds"`
	} `json:"leases"`
	StopsAt *time.Time `json:"stopsAt"`
}

func leasesOf(h *harness.H, name string) leaseStatus {
	h.Helper()
	r := h.Nuc("status", name, "--json")
	var st leaseStatus
	if r.Stdout == "" { // nobody knows it yet
		return st
	}
	if err := json.Unmarshal([]byte(r.Stdout), &st); err != nil {
		h.Fatalf("%v\n%s", err, r)
	}
	return st
}

// awaitLeases waits for a container to have as many leases.
func awaitLeases(h *harness.H, name string, want int) leaseStatus {
	h.Helper()
	var st leaseStatus
	harness.Eventually(h, patience, fmt.Sprintf("%s has %d leases", name, want), func() bool {
		st = leasesOf(h, name)
		return len(st.Leases) == want
	})
	return st
}

// someone is a process that a test leases a container to.
func someone(h *harness.H) *harness.Process {
	h.Helper()
	return h.StartHost("sleep", "1000")
}

func pidOf(p *harness.Process) string { return strconv.Itoa(p.Pid()) }

func TestLease(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", nil)
	one, two := someone(h), someone(h)
	if r := h.Nuc("up", path, "--lease", pidOf(one), "--keep", "1s"); r.Code != 0 || !strings.Contains(r.Stdout, "web: ready") {
		t.Fatalf("%s", r)
	}
	st := leasesOf(h, "web")
	if !st.Leased || len(st.Leases) != 1 || st.Leases[0].PID != one.Pid() || st.Leases[0].Command != "sleep" || st.Leases[0].KeepSeconds != 1 || st.StopsAt != nil {
		t.Fatalf("%+v", st)
	}
	if text := h.Must("status", "web"); !shows(text, "lease", "process "+pidOf(one)+" (sleep)") || !shows(text, "stops", "1s after the end of the last lease") {
		t.Errorf("%s", text)
	}
	// A second one, and the same twice.
	for range 2 {
		h.Must("up", "web", "--lease", pidOf(two), "--keep", "2s")
	}
	if st := leasesOf(h, "web"); len(st.Leases) != 2 {
		t.Fatalf("%+v", st)
	}
	one.Signal(unix.SIGKILL)
	awaitLeases(h, "web", 1)
	// A restart takes them along.
	h.Must("restart", "web")
	if st := leasesOf(h, "web"); !st.Leased || len(st.Leases) != 1 || st.Leases[0].PID != two.Pid() {
		t.Fatalf("after a restart: %+v", st)
	}
	two.Signal(unix.SIGTERM)
	ended := time.Now()
	if st := awaitLeases(h, "web", 0); st.State == "ready" && st.StopsAt == nil {
		t.Errorf("%+v", st)
	}
	h.WaitState("web", patience, "stopped")
	if lasted := time.Since(ended); lasted < 2*time.Second {
		t.Errorf("stopped after %s, want the 2 s that the last lease said", lasted)
	}
	if st := leasesOf(h, "web"); !strings.Contains(st.Reason, "last lease") {
		t.Errorf("%+v", st)
	}
	h.NothingLeft()
}

// A container that somebody has started for good is never stopped by a lease.
func TestLeaseTakenOver(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", func(d map[string]any) { lite(d) })
	h.Must("up", path)
	one := someone(h)
	h.Must("up", path, "--lease", pidOf(one), "--keep", "0s")
	if st := leasesOf(h, "web"); st.Leased || len(st.Leases) != 1 {
		t.Fatalf("%+v", st)
	}
	one.Signal(unix.SIGKILL)
	awaitLeases(h, "web", 0)
	h.Must("stop", "web")

	two, three := someone(h), someone(h)
	h.Must("up", path, "--lease", pidOf(two), "--lease", pidOf(three), "--keep", "0s")
	if st := leasesOf(h, "web"); !st.Leased || len(st.Leases) != 2 {
		t.Fatalf("%+v", st)
	}
	h.Must("up", path)
	two.Signal(unix.SIGKILL)
	three.Signal(unix.SIGKILL)
	awaitLeases(h, "web", 0)
	if status := h.Status("web"); status != "ready" {
		t.Errorf("web is %q", status)
	}
}

// What is started while it stops comes up anew, and ten at once are one.
func TestLeaseAtOnce(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", func(d map[string]any) {
		lite(d)
		// Stops a while after it is asked to.
		d["system"].(map[string]any)["arguments"] = []string{"-c", `trap 'sleep 1; exit 0' TERM; systemd-notify --ready; while :; do sleep 0.05; done`}
	})
	for round := range 3 {
		var holders, starts []*harness.Process
		for range 10 {
			p := someone(h)
			holders = append(holders, p)
			starts = append(starts, h.Start("up", path, "--lease", pidOf(p), "--keep", "0s"))
		}
		for _, p := range starts {
			if r := p.Wait(patience); r.Code != 0 {
				t.Errorf("round %d: %s", round, r)
			}
		}
		if st := leasesOf(h, "web"); st.State != "ready" || len(st.Leases) != 10 {
			t.Errorf("round %d: %+v", round, st)
		}
		h.Roles() // fails if there are two
		for _, p := range holders {
			p.Signal(unix.SIGKILL)
		}
		h.WaitState("web", patience, "stopping", "stopped")
	}
	h.WaitState("web", patience, "stopped")
	h.NothingLeft()
}

func TestDetach(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	port := harness.FreePort(h)
	path := h.OnTree("web", "trixie", func(d map[string]any) {
		d["network"] = map[string]any{"ports": []any{map[string]any{"host": port, "container": 80}}}
	})
	one := someone(h)
	up := func() harness.Result {
		// Under direnv, fd 3 and the others are pipes that it waits for the end of.
		return h.Host("bash", "-c", `out=$(exec 3>&1; "$@" 2>&1 4>&1 9>&1); code=$?; printf %s "$out"; exit $code`, "up",
			h.Binary(), "up", "--detach", path, "--lease", pidOf(one), "--keep", "0s")
	}
	// The first start fails, as somebody has the port.
	taken, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	if r := up(); r.Code != 0 || r.Stdout != "" {
		t.Fatalf("%s", r)
	}
	h.WaitState("web", patience, "failed")
	if st := leasesOf(h, "web"); !strings.Contains(st.Reason, strconv.Itoa(port)) {
		t.Errorf("status does not say why: %+v", st)
	}
	taken.Close()
	r := up()
	if r.Code != 0 || strings.Count(r.Stdout, "\n") != 0 || !strings.Contains(r.Stdout, "container web: ended last time") || !strings.Contains(r.Stdout, strconv.Itoa(port)) {
		t.Errorf("the next start: want one line that says what failed:\n%s", r)
	}
	h.WaitState("web", 2*patience, "ready")
	if r := up(); r.Code != 0 || r.Stdout != "" {
		t.Errorf("while it runs:\n%s", r)
	}
	awaitLeases(h, "web", 1)

	// It does not wait for ready, which this one never is.
	two := someone(h)
	never := h.OnTree("never", "trixie", func(d map[string]any) {
		d["system"] = map[string]any{"init": "/bin/sleep", "arguments": []string{"600"}, "ttyGroup": 5}
		d["ready"] = map[string]any{"timeoutSeconds": 600}
	})
	if r := h.Nuc("up", "--detach", never, "--lease", pidOf(two), "--keep", "0s"); r.Code != 0 {
		t.Errorf("%s", r)
	}
	awaitLeases(h, "never", 1)
	if st := h.Nuc("ps", "-a"); !strings.Contains(st.Stdout, "never  starting") {
		t.Errorf("want never to be starting:\n%s", st)
	}
	h.Must("kill", "never")

	// Another descriptor is told at once, and leased all the same.
	other := h.OnTree("web", "trixie", func(d map[string]any) { d["network"] = map[string]any{"mode": "host"} })
	if r := h.Nuc("up", "--detach", other, "--lease", pidOf(two), "--keep", "0s"); r.Code != 1 || !strings.Contains(r.Stderr, "another descriptor") {
		t.Errorf("%s", r)
	}
	awaitLeases(h, "web", 2)
	one.Signal(unix.SIGKILL)
	two.Signal(unix.SIGKILL)
	h.WaitState("web", patience, "stopped")
	h.NothingLeft()
}

func TestLeaseRefused(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", lite)
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		flags []string
		code  int
		want  string
	}{
		{[]string{"--lease", strconv.Itoa(gone.Process.Pid)}, 1, "there is none"},
		{[]string{"--lease", "0"}, 2, "expected the number of a process, or shell"},
		{[]string{"--lease", "shel"}, 2, `"shel"`},
		{[]string{"--lease=-1"}, 2, "expected the number"},
		{[]string{"--keep", "3s"}, 2, "add --lease"},
		{[]string{"--lease", "shell", "--keep=-3s"}, 2, "below 0"},
		{[]string{"--lease", "shell", "--keep", "3"}, 2, "--keep"},
	}
	if os.Geteuid() == 0 {
		tests = append(tests, struct {
			flags []string
			code  int
			want  string
		}{[]string{"--lease", "1"}, 1, "belongs to uid 0"})
	}
	for _, test := range tests {
		for _, more := range [][]string{nil, {"--detach"}} {
			r := h.Nuc(append(append([]string{"up", path}, test.flags...), more...)...)
			if r.Code != test.code || !strings.Contains(r.Stderr, test.want) {
				t.Errorf("want status %d and %q:\n%s", test.code, test.want, r)
			}
		}
	}
	if left := h.Must("ps", "-a", "-q"); left != "" {
		t.Errorf("something was started: %s", left)
	}
}

// needing are a container and one that needs it, each up at once.
func needing(h *harness.H) (database, web string) {
	database = h.OnTree("database", "trixie", lite)
	return database, h.OnTree("web", "trixie", func(d map[string]any) {
		lite(d)
		d["dependsOn"] = []string{"database"}
	})
}

// A dependency that a restart brings up is there to stay, as with up.
func TestRestartKeepsDependency(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	database, web := needing(h)
	h.Must("up", database, web)
	h.Must("stop", "database")
	h.Must("restart", "web")
	if st := leasesOf(h, "database"); st.State != "ready" || st.Leased || st.StopsAt != nil {
		t.Errorf("after `nuc restart web`, the database that it needs: %+v", st)
	}
	// Of several, those stop first that need others.
	h.Must("restart", "database", "web")
	for _, name := range []string{"database", "web"} {
		if st := leasesOf(h, name); st.State != "ready" || st.Leased {
			t.Errorf("%s after a restart of both: %+v", name, st)
		}
	}
}

// What a leased container needs runs for the same processes: also where it was up
// already, and where nothing is waited for.
func TestLeaseOfDependency(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	database, web := needing(h)
	one, two := someone(h), someone(h)
	h.Must("up", database, web, "--lease", pidOf(one), "--keep", "0s")
	h.Must("up", "--detach", "web", "--lease", pidOf(two), "--keep", "0s")
	awaitLeases(h, "database", 2)
	one.Signal(unix.SIGKILL)
	for _, name := range []string{"database", "web"} {
		if st := awaitLeases(h, name, 1); st.State != "ready" || st.Leases[0].PID != two.Pid() {
			t.Errorf("%s, when the first of its processes has ended: %+v", name, st)
		}
	}
	two.Signal(unix.SIGKILL)
	for _, name := range []string{"database", "web"} {
		h.WaitState(name, patience, "stopped")
	}
}

// Leases are bounded: a restart takes all of them along.
func TestManyLeases(t *testing.T) {
	t.Parallel()
	h := harness.New(t)
	path := h.OnTree("web", "trixie", lite)
	var flags []string
	for range 32 {
		flags = append(flags, "--lease", pidOf(someone(h)))
	}
	h.Must(append([]string{"up", path}, flags...)...)
	flags = flags[:0]
	for range 32 {
		flags = append(flags, "--lease", pidOf(someone(h)))
	}
	h.Must(append([]string{"up", path}, flags...)...)
	r := h.Nuc("up", path, "--lease", pidOf(someone(h)))
	if r.Code != 1 || !strings.Contains(r.Stderr, "64 leases already") || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("%s", r)
	}
	h.Must("restart", "web")
	awaitLeases(h, "web", 64)
}
