// Package harness runs bin/nuc for tests as the unprivileged user it is made
// for. Run by root, it makes that user, its subordinate ids and a delegated
// cgroup; run by anyone else, that is who it uses. When a test ends it removes
// the test's containers and fails the test if any process, mount, cgroup or
// file in the runtime folder is left.
package harness

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// H is one test's place: its user, folders and cgroup.
type H struct {
	testing.TB

	// State, Cache and Runtime are the XDG_STATE_HOME, XDG_CACHE_HOME and
	// XDG_RUNTIME_DIR of every command.
	State   string
	Cache   string
	Runtime string
	// Dir is a folder of the user's own, and the working directory.
	Dir string
	// Cgroup is the delegated cgroup, or "" where there is none.
	Cgroup string
	// Outside is the test's own host and what is beyond, nil unless WithOutside.
	Outside *Outside

	user   *account
	cgroup *delegated
	env    map[string]string
	made   []string // folders that end with the test

	mu         sync.Mutex
	containers []string
	running    []*Process
}

// Option changes what New makes.
type Option func(*options)

type options struct {
	ranges   Ranges
	noCgroup bool
	root     bool
	login    bool
	outside  bool
	family   Family
	distance time.Duration
}

// WithRanges runs the test as a user with that many subordinate ids. It needs
// root; without, the test is skipped.
func WithRanges(ranges Ranges) Option { return func(o *options) { o.ranges = ranges } }

// WithoutCgroup runs commands where no cgroup is delegated to the user.
func WithoutCgroup() Option { return func(o *options) { o.noCgroup = true } }

// AsRoot runs commands as root. Without root, the test is skipped.
func AsRoot() Option { return func(o *options) { o.root = true } }

// AtLogin runs commands with the caller's runtime folder, which has their systemd:
// containers are its services.
func AtLogin() Option { return func(o *options) { o.login = true } }

// New prepares the place of one test.
func New(t testing.TB, opts ...Option) *H {
	t.Helper()
	o := options{ranges: FullRange}
	for _, opt := range opts {
		opt(&o)
	}
	root := os.Geteuid() == 0
	if !root && (o.root || o.outside || o.ranges != FullRange) {
		t.Skip("needs root: it makes a user of its own, or runs nuc as root, or on a host of its own")
	}
	h := &H{TB: t}
	if o.outside {
		h.Outside = newOutside(t, o.family, o.distance)
	}
	switch {
	case o.root || !root:
		h.user = present(t)
	default:
		h.user = shared.account(t, o.ranges)
	}
	shared.prepare(t)

	// State lives in the user's home, as it does for a person: /tmp may be a
	// tmpfs. The runtime folder's path is short, since sockets are in it.
	h.Dir = h.folder(filepath.Join(h.user.home, ".cache", "nuc-it"), "")
	h.State = h.mkdir(filepath.Join(h.Dir, "state"))
	h.Cache = h.mkdir(filepath.Join(h.Dir, "cache"))
	if o.login {
		h.Runtime = loginFolder(t)
	} else {
		h.Runtime = h.folder("/tmp", "nuc-it-")
	}
	if root && !o.noCgroup {
		h.cgroup = delegate(t, filepath.Base(h.Dir), h.user)
		h.Cgroup = h.cgroup.path
	}
	h.env = map[string]string{
		"HOME":            h.user.home,
		"USER":            h.user.name,
		"LOGNAME":         h.user.name,
		"SHELL":           "/bin/bash",
		"LANG":            "C.UTF-8",
		"PATH":            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"XDG_STATE_HOME":  h.State,
		"XDG_CACHE_HOME":  h.Cache,
		"XDG_RUNTIME_DIR": h.Runtime,
	}
	t.Cleanup(h.finish)
	return h
}

// Sub is the same place for a subtest. What the subtest starts ends with it; that
// nothing is left is looked at when the test itself ends.
func (h *H) Sub(t testing.TB) *H {
	t.Helper()
	sub := &H{
		TB: t, State: h.State, Cache: h.Cache, Runtime: h.Runtime, Dir: h.Dir, Cgroup: h.Cgroup,
		user: h.user, cgroup: h.cgroup, env: maps.Clone(h.env),
	}
	if h.Outside != nil {
		outside := *h.Outside
		outside.t = t
		sub.Outside = &outside
	}
	t.Cleanup(sub.end)
	return sub
}

// Setenv sets a variable for the commands that follow; "" removes it.
func (h *H) Setenv(name, value string) {
	if value == "" {
		delete(h.env, name)
		return
	}
	h.env[name] = value
}

// Getenv is a variable of the commands'.
func (h *H) Getenv(name string) string { return h.env[name] }

// User is the name and the numeric ids of who runs nuc.
func (h *H) User() (name string, uid, gid int) {
	return h.user.name, int(h.user.uid), int(h.user.gid)
}

// folder makes a new folder of the user's own, mode 0700, that ends with the test.
func (h *H) folder(parent, prefix string) string {
	h.Helper()
	if parent != "/tmp" {
		h.own(filepath.Dir(parent))
		h.own(parent)
	}
	path, err := os.MkdirTemp(parent, prefix+"*")
	if err != nil {
		h.Fatalf("harness: %v", err)
	}
	h.chown(path)
	h.made = append(h.made, path)
	return path
}

func (h *H) own(path string) {
	h.Helper()
	if _, err := os.Lstat(path); err != nil {
		h.mkdir(path)
	}
}

func (h *H) mkdir(path string) string {
	h.Helper()
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		h.Fatalf("harness: %v", err)
	}
	h.chown(path)
	return path
}

// MakeDir makes a folder of the user's own in Dir and returns its path.
func (h *H) MakeDir(name string) string {
	h.Helper()
	return h.mkdir(filepath.Join(h.Dir, name))
}

func (h *H) chown(path string) {
	h.Helper()
	if err := os.Lchown(path, int(h.user.uid), int(h.user.gid)); err != nil {
		h.Fatalf("harness: %v", err)
	}
}

// Write makes a file of the user's own in Dir and returns its path.
func (h *H) Write(name, content string, mode os.FileMode) string {
	h.Helper()
	path := filepath.Join(h.Dir, name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		h.Fatalf("harness: %v", err)
	}
	if err := os.Chmod(path, mode); err != nil {
		h.Fatalf("harness: %v", err)
	}
	h.chown(path)
	return path
}

// Folder makes a folder of the user's own in Dir, if it isn't there, and returns
// its path.
func (h *H) Folder(name string) string {
	h.Helper()
	return h.mkdir(filepath.Join(h.Dir, name))
}

// Descriptor writes the descriptor of a Debian container and returns its path.
// mutate, unless nil, changes it first; it has no root until mutate gives it a
// tree (see OnTree). The container is removed when the test ends.
func (h *H) Descriptor(name string, mutate func(d map[string]any)) string {
	h.Helper()
	d := map[string]any{
		"version": 1,
		"name":    name,
		"system":  map[string]any{"init": "/sbin/init", "ttyGroup": 5},
	}
	if mutate != nil {
		mutate(d)
	}
	content, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		h.Fatalf("harness: descriptor of %s: %v", name, err)
	}
	h.Own(name)
	return h.Write(name+".json", string(content)+"\n", 0o600)
}

// OnTree is Descriptor for a container on a Debian tree.
func (h *H) OnTree(name, tree string, mutate func(d map[string]any)) string {
	h.Helper()
	path := h.Tree(tree)
	return h.Descriptor(name, func(d map[string]any) {
		d["root"] = map[string]any{"tree": path}
		if mutate != nil {
			mutate(d)
		}
	})
}

// Section returns an object of a descriptor, made if it isn't there.
func Section(d map[string]any, name string) map[string]any {
	section, ok := d[name].(map[string]any)
	if !ok {
		section = map[string]any{}
		d[name] = section
	}
	return section
}

// Own has the container of that name removed when the test ends.
func (h *H) Own(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, known := range h.containers {
		if known == name {
			return
		}
	}
	h.containers = append(h.containers, name)
}

// end removes what the test has started.
func (h *H) end() {
	if h.Failed() {
		h.explain()
	}
	for _, process := range h.running {
		process.end()
	}
	for _, name := range h.containers {
		h.remove(name)
	}
}

// finish removes the test's containers, then fails the test for what is left.
func (h *H) finish() {
	h.end()
	for _, leftover := range h.settle() {
		h.Errorf("left behind: %s", leftover)
	}
	if h.cgroup != nil {
		if err := h.cgroup.remove(); err != nil {
			h.Errorf("harness: %v", err)
		}
	}
	for _, path := range h.made {
		if err := h.discard(path); err != nil {
			h.Errorf("harness: %v", err)
		}
	}
}

// loginFolder is the runtime folder of the caller's login.
func loginFolder(t testing.TB) string {
	t.Helper()
	path := fmt.Sprintf("/run/user/%d", os.Geteuid())
	if _, err := os.Stat(filepath.Join(path, "systemd/private")); err != nil || os.Geteuid() == 0 {
		t.Fatalf("harness: no systemd of uid %d is at %s: log in as a user, by ssh", os.Geteuid(), path)
	}
	return path
}

// remove ends a container and forgets its files. Where the test did so itself
// there is nothing to do; what nuc says then doesn't matter, what is left does.
func (h *H) remove(name string) {
	known := h.Nuc("ps", "-a", "-q")
	for _, line := range strings.Fields(known.Stdout) {
		if line != name {
			continue
		}
		h.Nuc("kill", name)
		if r := h.Nuc("rm", "--state", "--yes", name); r.Code != 0 {
			h.Errorf("harness: %s", r)
		}
	}
}

// explain shows what nuc knows about the containers of a failed test.
func (h *H) explain() {
	h.Logf("%s", h.Nuc("ps", "-a"))
	for _, name := range h.containers {
		if _, err := os.Stat(filepath.Join(h.Runtime, "nuc", name)); err == nil {
			h.Logf("%s", h.Nuc("logs", "-n", "40", name))
		}
	}
}

// discard removes a folder whose files may belong to subordinate ids.
func (h *H) discard(path string) error {
	if os.Geteuid() != 0 {
		h.Nuc("unshare", "--", "rm", "-rf", "--one-file-system", path)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("folder of the test: %w", err)
	}
	return nil
}
