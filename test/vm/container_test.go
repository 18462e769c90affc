package vm

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// patience is for what takes no time but on a machine that is emulated.
const patience = time.Minute

// descriptor is a container's, as JSON has it.
type descriptor map[string]any

// web runs all of a small Debian that has nginx.
func web(name string, port int) descriptor {
	return descriptor{
		"version": 1, "name": name,
		"system":  map[string]any{"init": "/sbin/init"},
		"network": map[string]any{"ports": []any{map[string]any{"host": port, "container": 80}}},
		"ready":   map[string]any{"units": []string{"nginx.service"}, "timeoutSeconds": 180},
	}
}

// small runs systemd and next to nothing under it.
func small(name string) descriptor {
	return descriptor{
		"version": 1, "name": name,
		"system": map[string]any{"init": "/sbin/init", "arguments": []string{"--unit=basic.target"}},
		"ready":  map[string]any{"timeoutSeconds": 180},
	}
}

// light runs a shell that waits, without a network, as that is a process more.
// Generation makes it differ.
func light(name string, generation int) descriptor {
	return descriptor{
		"version": 1, "name": name,
		"system": map[string]any{
			"init": "/bin/sh", "arguments": []string{"-c", "trap 'exit 0' TERM; sleep infinity & wait"},
			"stop": map[string]any{"signal": "SIGTERM"}, "switch": []string{"/bin/echo", strconv.Itoa(generation)},
		},
		"ready":   map[string]any{"notify": false},
		"network": map[string]any{"outbound": false},
	}
}

func (d descriptor) with(key string, value any) descriptor {
	d = maps.Clone(d)
	d[key] = value
	return d
}

// equip logs a user in who has nuc and a tree, and checks afterwards that
// nothing of nuc's is left.
func (m *machine) equip(t testing.TB, user string) *session {
	t.Helper()
	if m.root.run(t, "test -x /usr/local/bin/nuc").code != 0 {
		m.place(t, "bin/nuc", "/usr/local/bin/nuc")
	}
	s := m.login(t, user)
	if s.run(t, "test -e tree").code != 0 {
		m.root.must(t, "chmod 644 /dev/disk/by-id/virtio-tree")
		s.must(t, `rm -rf tree.part && mkdir tree.part && cd tree.part &&
			nuc unshare sh -c 'tar --numeric-owner -xpf - "--exclude=./dev/*" && chown 0:0 . && chmod 755 .' </dev/disk/by-id/virtio-tree &&
			cd && sync && mv tree.part tree && sync`)
	}
	t.Cleanup(func() { m.clear(t) })
	return s
}

// place puts a program of the repository's into the machine.
func (m *machine) place(t testing.TB, program, path string) {
	t.Helper()
	binary, err := os.ReadFile(filepath.Join("../..", program))
	if err != nil {
		t.Fatalf("%v; make build and test/vm/run make it", err)
	}
	m.root.put(t, path+".new", string(binary))
	// A power cut must not leave half of it.
	m.root.must(t, fmt.Sprintf("chmod 755 %[1]s.new && sync && mv %[1]s.new %[1]s && sync", path))
}

// clear removes every user's containers and tells what they left.
func (m *machine) clear(t testing.TB) {
	t.Helper()
	m.up(t)
	m.root.must(t, `for user in ana bo; do
		rm -f /var/lib/systemd/linger/$user
		runuser -u $user -- sh -c 'cd; export XDG_RUNTIME_DIR=/run/user/$(id -u); test -d $XDG_RUNTIME_DIR || unset XDG_RUNTIME_DIR
			nuc kill --all && nuc ps -aq | xargs -r nuc rm --state --yes'
	done >&2`)
	m.nothingLeft(t)
}

// nothingLeft fails the test if anything outside of state folders is left.
func (m *machine) nothingLeft(t testing.TB) {
	t.Helper()
	r := m.root.run(t, `
		left() {
			pgrep -fa '(^| )nuc-(keeper|supervisor) '
			find /sys/fs/cgroup -type d -path '*/payload' -o -type d -name 'nuc-*'
			find /run/user/*/nuc /tmp/nuc-* -mindepth 1
			cat /proc/[0-9]*/mountinfo | grep /nuc/ | sort -u
		} 2>/dev/null
		for i in $(seq 50); do test -z "$(left)" && exit; sleep 0.2; done; left`)
	if r.stdout != "" {
		t.Errorf("left of nuc:\n%s", r.stdout)
	}
}

// describe writes a descriptor and returns its path.
func (s *session) describe(t testing.TB, d descriptor) string {
	t.Helper()
	if d["root"] == nil {
		d = d.with("root", map[string]any{"tree": "/home/" + s.user + "/tree"})
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/home/%s/%s.json", s.user, d["name"])
	s.put(t, path, string(text))
	return path
}

// up starts a container and waits until it is ready.
func (s *session) up(t testing.TB, d descriptor) {
	t.Helper()
	s.must(t, "nuc up "+s.describe(t, d))
}

// status is what `nuc ps --json` says of a container that nuc knows.
type status struct {
	Name, State, Reason, Cgroup string
	Started                     time.Time
	SupervisorPid, InitPid      int
	Generation                  int
	Warnings                    []string
	Restarts                    int
	Confinement                 struct{ Landlock, StarterPid int }
}

func (s *session) status(t testing.TB, name string) status {
	t.Helper()
	var all []status
	text := s.must(t, "nuc ps -a --json")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for _, one := range all {
		if one.Name == name {
			return one
		}
	}
	t.Fatalf("no container %s in %s", name, text)
	return status{}
}
