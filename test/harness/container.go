package harness

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Entry is one line of `nuc ps --json`.
type Entry struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// Status is what `nuc ps -a --json` says of a container, "" where it lists none.
func (h *H) Status(name string) string {
	h.Helper()
	r := h.Nuc("ps", "-a", "--json")
	if r.Code != 0 {
		h.Fatalf("%s", r)
	}
	var entries []Entry
	if err := json.Unmarshal([]byte(r.Stdout), &entries); err != nil {
		h.Fatalf("nuc ps --json: %v\n%s", err, r)
	}
	for _, entry := range entries {
		if entry.Name == name {
			return entry.State
		}
	}
	return ""
}

// WaitState waits until a container has one of the states.
func (h *H) WaitState(name string, timeout time.Duration, states ...string) {
	h.Helper()
	var status string
	for deadline := time.Now().Add(timeout); ; time.Sleep(50 * time.Millisecond) {
		status = h.Status(name)
		if slices.Contains(states, status) {
			return
		}
		if time.Now().After(deadline) {
			h.Fatalf("%s is %q after %s, want %s", name, status, timeout, strings.Join(states, " or "))
		}
	}
}

// Up brings a Debian container up and returns its descriptor's path.
func (h *H) Up(name, tree string, mutate func(d map[string]any)) string {
	h.Helper()
	path := h.OnTree(name, tree, mutate)
	h.Must("up", path)
	return path
}

// Reboot reboots a container from inside and waits until it is ready again.
func (h *H) Reboot(name string, timeout time.Duration) {
	h.Helper()
	var st struct {
		State   string
		Reboots int
	}
	ask := func() bool {
		return json.Unmarshal([]byte(h.Nuc("status", name, "--json").Stdout), &st) == nil
	}
	ask()
	before := st.Reboots
	h.Exec(name, "systemctl", "reboot") // which may end with the boot
	Eventually(h, timeout, name+" has rebooted and is ready", func() bool {
		return ask() && st.State == "ready" && st.Reboots > before
	})
}

// Exec runs a command in a container, to its end.
func (h *H) Exec(name string, command ...string) Result {
	h.Helper()
	return h.Nuc(append([]string{"exec", name}, command...)...)
}

// Inside is a process of the test's seen from the host.
type Inside struct {
	Pid     int
	Parent  int
	Command string
	UID     int  // on the host
	Init    bool // pid 1 of its own pid namespace
}

// Processes lists what runs for the test's containers, supervisors included.
func (h *H) Processes() []Inside {
	h.Helper()
	var found []Inside
	for _, pid := range h.processes() {
		p := Inside{Pid: pid, Parent: parent(pid), Command: describe(pid), UID: -1}
		content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(content), "\n") {
			fields := strings.Fields(line)
			switch {
			case len(fields) > 1 && fields[0] == "Uid:":
				p.UID, _ = strconv.Atoi(fields[1])
			case len(fields) > 2 && fields[0] == "NSpid:":
				p.Init = fields[len(fields)-1] == "1"
			}
		}
		found = append(found, p)
	}
	return found
}

// Roles are the host pids of one container's own processes. There is no Starter
// before the container is up, nor where the kernel has no Landlock.
type Roles struct{ Supervisor, Starter, Keeper, Init int }

// Roles finds them by descent: init is pid 1 of its namespace, the keeper its
// parent, the supervisor the keeper's or, from the second run on, the starter's.
// The test must run one container only, besides others that are known.
func (h *H) Roles(others ...Roles) Roles {
	h.Helper()
	var roles Roles
	starters := map[int]int{} // their supervisors
	for _, p := range h.Processes() {
		known := slices.ContainsFunc(others, func(other Roles) bool { return other.Init == p.Pid })
		switch {
		case strings.HasPrefix(p.Command, "nuc-starter "):
			starters[p.Pid] = p.Parent
		case p.Init && !known:
			if roles.Init != 0 {
				h.Fatalf("several inits run: %d and %d", roles.Init, p.Pid)
			}
			roles = Roles{Init: p.Pid, Keeper: p.Parent, Supervisor: parent(p.Parent)}
		}
	}
	if supervisor := starters[roles.Supervisor]; supervisor != 0 {
		roles.Supervisor = supervisor
	}
	for pid, supervisor := range starters {
		if supervisor == roles.Supervisor {
			roles.Starter = pid
		}
	}
	if roles.Init == 0 || roles.Keeper <= 1 || roles.Supervisor <= 1 {
		h.Fatalf("no supervisor, keeper and init run: %+v of %+v", roles, h.Processes())
	}
	return roles
}

// FreePort is a TCP port of 127.0.0.1 that nobody listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}
