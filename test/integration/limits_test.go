package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestShortIDRange(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		r := h.Nuc("up", h.OnTree("web", tree, nil))
		if r.Code != 0 {
			h.Fatalf("%s", r)
		}
		status := h.Nuc("status", "web")
		if !strings.Contains(r.Stderr+status.Stdout, "DynamicUser") {
			h.Errorf("neither up nor status says that DynamicUser won't work:\n%s\n%s", r, status)
		}
		if got := h.Must("exec", "-u", "nobody", "web", "sh", "-c", "id -u; id -g"); got != "65534\n65534" {
			h.Errorf("nobody is %q, want 65534 and 65534", got)
		}
		h.Must("exec", "web", "systemctl", "is-active", "nginx.service", "postgresql.service")
		// nobody is a real id: what it writes is its own.
		if r := h.Exec("web", "sh", "-c", "touch /srv/file && chown nobody:nogroup /srv/file && stat -c %u:%g /srv/file"); r.Stdout != "65534:65534\n" {
			h.Errorf("a file given to nobody:\n%s", r)
		}
	}, harness.WithRanges(harness.ShortRange))
}

func TestNoIDRange(t *testing.T) {
	h := harness.New(t, harness.WithRanges(harness.NoRange))
	name, _, _ := h.User()
	// Nothing of the tree is looked at: any folder will do.
	r := h.Nuc("up", h.Descriptor("web", func(d map[string]any) {
		d["root"] = map[string]any{"tree": h.Dir}
	}))
	if r.Code == 0 || !strings.Contains(r.Stderr, "/etc/subuid") || !strings.Contains(r.Stderr, name+":") {
		t.Errorf("up without subordinate ids: want a failure that names the line to add to /etc/subuid\n%s", r)
	}
	if r.Duration > 2*time.Second {
		t.Errorf("the refusal took %s", r.Duration)
	}
	h.NothingLeft()
}

// systemd makes a cgroup for itself before all else, and gives up where it
// can't; any other init needs none.
func TestWithoutCgroup(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, func(d map[string]any) {
			d["system"] = map[string]any{"init": "/bin/sleep", "arguments": []string{"600"}, "ttyGroup": 5}
			d["ready"] = map[string]any{"notify": false}
		})
		if status := h.Nuc("status", "web"); !strings.Contains(status.Stdout, "cgroup") {
			h.Errorf("status doesn't say that no cgroup is delegated:\n%s", status)
		}
		h.Must("exec", "web", "true")
		h.Must("kill", "web")
		r := h.Nuc("up", h.OnTree("system", tree, nil))
		for _, want := range []string{"init.scope", "is not delegated", "cgroup.procs"} {
			if r.Code == 0 || !strings.Contains(r.Stderr, want) {
				h.Errorf("up of a systemd without a cgroup: want systemd's last words, the cause and the remedy (%q)\n%s", want, r)
			}
		}
		h.NothingLeft()
	}, harness.WithoutCgroup())
}

func TestAsRoot(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, nil)
		for _, file := range []string{"uid_map", "gid_map"} {
			for _, line := range strings.Split(h.Must("exec", "web", "cat", "/proc/1/"+file), "\n") {
				if fields := strings.Fields(line); len(fields) != 3 || fields[1] == "0" {
					h.Errorf("%s maps the host's root: %q", file, line)
				}
			}
		}
		for _, p := range h.Processes() {
			if p.Init && p.UID == 0 {
				h.Errorf("init runs as the host's root: %+v", p)
			}
		}
		// The host's root is nobody inside: exec must not leave a command with it.
		if got := h.Must("exec", "web", "sh", "-c", "id -u; id -g; grep -c '^CapEff:.*[1-9a-f]' /proc/self/status"); got != "0\n0\n1" {
			h.Errorf("exec as the container's root: uid, gid and whether it has rights: %q, want 0, 0 and 1", got)
		}
		if got := h.Must("exec", "-u", "www-data", "web", "id", "-u"); got != "33" {
			h.Errorf("exec -u www-data: uid %s, want 33", got)
		}
		if err := unix.Kill(h.Roles().Supervisor, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
		h.NothingLeft()
	}, harness.AsRoot())
}

func TestResources(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		delegated := slices.Contains(controllers(h), "memory")
		limit := func(optional bool) func(map[string]any) {
			return func(d map[string]any) {
				d["resources"] = map[string]any{"memoryMax": 1 << 30, "optional": optional}
			}
		}
		r := h.Nuc("up", h.OnTree("strict", tree, limit(false)))
		if delegated {
			if r.Code != 0 {
				h.Fatalf("%s", r)
			}
			if got := h.Must("exec", "strict", "cat", "/sys/fs/cgroup/memory.max"); got != "1073741824" {
				h.Errorf("memory.max is %q, want 1073741824", got)
			}
		} else if r.Code == 0 || !strings.Contains(r.Stderr, "memory") {
			h.Errorf("memoryMax without a memory controller: want a refusal that names it\n%s", r)
		}
		h.Must("up", h.OnTree("loose", tree, limit(true)))
	})
}

// controllers are those that the test's cgroup has.
func controllers(h *harness.H) []string {
	h.Helper()
	if h.Cgroup == "" {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(h.Cgroup, "cgroup.subtree_control"))
	if err != nil {
		h.Fatal(err)
	}
	return strings.Fields(string(content))
}

func TestBadDescriptor(t *testing.T) {
	const good = `"version":1,"name":"web","system":{"init":"/sbin/init"}`
	tests := []struct {
		name    string
		content string
		want    []string // each in the one line that refuses it
	}{
		{"no JSON", `nonsense`, []string{"JSON"}},
		{"empty", ``, nil},
		{"trailing data", `{` + good + `} {}`, nil},
		{"unknown key", `{` + good + `,"colour":"red"}`, []string{"colour"}},
		{"unknown key inside", `{` + good + `,"network":{"mod":"host"}}`, []string{"network.mod"}},
		{"duplicate key", `{` + good + `,"name":"b"}`, []string{"name"}},
		{"wrong type", `{` + good + `,"ids":{"count":"many"}}`, []string{"ids.count", "many"}},
		{"other version", `{"version":7,"name":"web","system":{"init":"/sbin/init"}}`, []string{"version", "7"}},
		{"no name", `{"version":1,"system":{"init":"/sbin/init"}}`, []string{"name"}},
		{"name with a path", `{"version":1,"name":"../x","system":{"init":"/sbin/init"}}`, []string{"name", "../x"}},
		{"name with a dash first", `{"version":1,"name":"-x","system":{"init":"/sbin/init"}}`, []string{"name", "-x"}},
		{"long name", `{"version":1,"name":"` + strings.Repeat("a", 300) + `","system":{"init":"/sbin/init"}}`, []string{"name"}},
		{"relative init", `{"version":1,"name":"web","system":{"init":"sbin/init"}}`, []string{"system.init", "sbin/init"}},
		{"NUL in a path", `{"version":1,"name":"web","system":{"init":"/sbin\u0000/init"}}`, []string{"system.init"}},
		{"unknown signal", `{"version":1,"name":"web","system":{"init":"/sbin/init","stop":{"signal":"SIGNO"}}}`, []string{"system.stop.signal", "SIGNO"}},
		{"relative tree", `{` + good + `,"root":{"tree":"debian"}}`, []string{"root.tree", "debian"}},
		{"mount kind", `{` + good + `,"mounts":[{"kind":"nfs","target":"/mnt"}]}`, []string{"mounts", "nfs"}},
		{"relative mount target", `{` + good + `,"mounts":[{"kind":"tmpfs","target":"mnt"}]}`, []string{"mounts", "mnt"}},
		{"bind without a source", `{` + good + `,"mounts":[{"kind":"bind","target":"/mnt"}]}`, []string{"mounts", "source"}},
		{"network mode", `{` + good + `,"network":{"mode":"bridge"}}`, []string{"network.mode", "bridge"}},
		{"port out of range", `{` + good + `,"network":{"ports":[{"host":70000,"container":80,"protocol":"tcp"}]}}`, []string{"network.ports", "70000"}},
		{"port twice", `{` + good + `,"network":{"ports":[{"host":8080,"container":80,"protocol":"tcp"},{"host":8080,"container":81,"protocol":"tcp"}]}}`, []string{"network.ports", "8080"}},
		{"protocol", `{` + good + `,"network":{"ports":[{"host":8080,"container":80,"protocol":"sctp"}]}}`, []string{"network.ports", "sctp"}},
		{"address", `{` + good + `,"network":{"ports":[{"host":8080,"container":80,"protocol":"tcp","address":"localhost"}]}}`, []string{"network.ports", "localhost"}},
		{"ranges that overlap", `{` + good + `,"network":{"ports":[{"host":8000,"container":80,"count":11},{"host":8010,"container":81}]}}`, []string{"network.ports[1].host", "8010"}},
		{"hand-over to another port", `{` + good + `,"network":{"ports":[{"host":8080,"container":80,"handOver":true}]}}`, []string{"network.ports[0].host", "handOver"}},
		{"host network with a limit", `{` + good + `,"network":{"mode":"host","allow":["10.0.0.0/8"]}}`, []string{"network.allow", "private"}},
		{"allowed name without a port", `{` + good + `,"network":{"allow":["example.org"]}}`, []string{"network.allow[0]", "example.org:443"}},
		{"idle without activation", `{` + good + `,"network":{"idleStopSeconds":60}}`, []string{"network.idleStopSeconds", "socketActivation"}},
		{"link to itself", `{` + good + `,"links":[{"listen":80,"to":"web"}]}`, []string{"links[0].to", "web"}},
		{"link twice", `{` + good + `,"links":[{"listen":80,"to":"db"},{"listen":80,"to":"db","port":81}]}`, []string{"links[1].listen", "db"}},
		{"link to a folder", `{` + good + `,"links":[{"listen":80,"to":"~/db"}]}`, []string{"links[0].to", "~/db"}},
		{"depends on itself", `{` + good + `,"dependsOn":["web"]}`, []string{"dependsOn[0]", "web"}},
		{"negative memory", `{` + good + `,"resources":{"memoryMax":-1}}`, []string{"resources.memoryMax", "-1"}},
		{"too large", `{` + good + `,"devices":["/dev/` + strings.Repeat("a", 5<<20) + `"]}`, nil},
	}
	h := harness.New(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := h.Write("bad.json", test.content, 0o600)
			for _, command := range []string{"validate", "up", "start"} {
				r := h.Nuc(command, path)
				if r.Code == 0 {
					t.Errorf("nuc %s accepts it", command)
				}
				said := strings.TrimSpace(r.Stdout + r.Stderr)
				if said == "" || len(said) > 1000 || strings.Contains(said, "\n") {
					t.Errorf("nuc %s: want one line, at most 1000 characters:\n%.1200s", command, said)
				}
				for _, want := range test.want {
					if !strings.Contains(said, want) {
						t.Errorf("nuc %s doesn't name %q:\n%.1200s", command, want, said)
					}
				}
			}
		})
	}

	path := h.Write("several.json", `{"version":2,"name":"X","system":{"init":"init"},"colour":1}`, 0o600)
	r := h.Nuc("validate", path)
	for _, want := range []string{"version", "name", "system.init", "colour"} {
		if !strings.Contains(r.Stdout+r.Stderr, want) {
			t.Errorf("validate says all problems at once, but not %s:\n%s", want, r)
		}
	}
	if r := h.Nuc("validate", h.Write("good.json", `{`+good+`}`, 0o600)); r.Code != 0 || r.Stdout != "ok\n" {
		t.Errorf("validate of a good descriptor: want ok\n%s", r)
	}
	h.NothingLeft()
}
