// Package cgroup gives one container a cgroup of its own (cgroup v2, cgroups(7)):
// limits, a way to kill everything at once, and numbers.
//
// It works below X, the cgroup in which nuc was started, if that is delegated:
// writable by the user. Two layouts:
//
//	X alone (a systemd unit)     X with others in it (a shell)
//	X/supervisor  nuc, keeper    X/nuc-NAME/supervisor
//	X/payload     the container  X/nuc-NAME/payload
//
// A cgroup that hands controllers down may hold no process ("no internal
// processes", Documentation/admin-guide/cgroup-v2.rst), so the supervisor moves
// to its leaf before controllers are enabled. It stays in X, and has no leaf,
// where there is no useful controller to enable: a move between cgroups waits for an RCU
// grace period, about 8 ms, more than all else of a start.
//
// Nothing delegated is no error: a Group without a cgroup does nothing, and its
// Missing says why.
package cgroup

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/fault"
)

// Names of the two leaves.
const (
	supervisorLeaf = "supervisor"
	payloadLeaf    = "payload"
)

// maxInner bounds the search for a name that no living container has.
const maxInner = 9

// Path says which cgroups a Group has made, for another process to remove
// (Sweep); without Payload, that Inner and what is in it are about to be made. Its
// zero value is no cgroup at all.
type Path struct {
	// X is the delegated cgroup, as an absolute path in the file system, and so
	// are the others.
	X string `json:"x,omitempty"`
	// Inner holds the leaves: X itself or a child.
	Inner string `json:"inner,omitempty"`
	// Supervisor is empty if the supervisor was not moved.
	Supervisor string `json:"supervisor,omitempty"`
	Payload    string `json:"payload,omitempty"`
	// Enabled are the controllers that were enabled in X.
	Enabled []string `json:"enabled,omitempty"`
}

// Group is the cgroup of one container.
type Group struct {
	path    Path
	payload *os.File
	missing string
	// shared tells that X has other processes, so nothing can be enabled in it.
	shared bool
	kernel kernel
	// intend is told of Inner before that is made.
	intend func(Path) error
}

// kernel is where the files of proc(5) are and who asks: other ones in tests.
type kernel struct {
	proc    string // of this process
	pid     int
	with    []int // processes that go where this one goes
	systemd bool  // the host runs systemd (sd_booted(3))
	move    bool  // even if there is nothing useful to enable
}

func running() kernel {
	_, err := os.Stat("/run/systemd/system")
	return kernel{proc: "/proc/self", pid: os.Getpid(), systemd: err == nil}
}

// Missing is empty, or one line that says why the container has no cgroup and
// what to do about it.
func (g *Group) Missing() string { return g.missing }

// Path is where the payload's cgroup is in the file system, "" without one.
func (g *Group) Path() string { return g.path.Payload }

// Description says what Sweep has to remove.
func (g *Group) Description() Path { return g.path }

// Payload is the payload's folder, open for reading, for CLONE_INTO_CGROUP and
// mkdirat; nil without one. It belongs to the Group.
func (g *Group) Payload() *os.File { return g.payload }

// Open finds the cgroup of the calling process and makes the container's, after
// removing what a killed supervisor of the same name left there. It moves the
// calling process, and with it others that belong to it, if that gives the
// container controllers. The error is for a name that can't be one; all else that
// goes wrong is Missing. Intend is told what Sweep needs to know if the calling
// process is killed before it has a Description.
func Open(name string, intend func(Path) error, with ...int) (*Group, error) {
	k := running()
	k.with = with
	return open(k, name, intend)
}

func open(k kernel, name string, intend func(Path) error) (*Group, error) {
	if name == "" || strings.ContainsAny(name, "/\x00\n.") {
		return nil, fmt.Errorf("cgroup: %q can't be part of its name", name)
	}
	g := &Group{kernel: k, intend: intend}
	own, err := k.own()
	if err == nil {
		err = g.make(own, name)
	}
	if err != nil {
		g.path, g.missing = Path{}, err.Error()
	}
	return g, nil
}

// Refusal says why there is no cgroup, in two parts that together are one line.
type Refusal struct {
	// Problem says what is wrong and where; Remedy what to do, mostly a command.
	Problem, Remedy string
}

func (r *Refusal) Error() string { return r.Problem + ": " + r.Remedy }

// Parts returns the two parts.
func (r *Refusal) Parts() (problem, remedy string) { return r.Problem, r.Remedy }

const (
	consequence = "the container has no limits and no accounting, and a systemd in it does not start"
	ownScope    = "start it with systemd-run --user --scope -p Delegate=yes nuc …"
)

func refuse(remedy, format string, args ...any) error {
	return &Refusal{Problem: fmt.Sprintf(format, args...) + ": " + consequence, Remedy: remedy}
}

// Delegated tells which cgroup Open would use and which controllers there are
// in it; or, as an error, a *Refusal mostly, what Missing would say. It changes nothing.
func Delegated() (x string, controllers []string, err error) {
	g := &Group{kernel: running()}
	own, err := g.kernel.own()
	if err != nil {
		return "", nil, err
	}
	if err := g.writable(own); err != nil {
		return own, nil, err
	}
	return own, words(own, "cgroup.controllers"), nil
}

// MissingController says how x, which Delegated returned without a controller,
// gets it.
func MissingController(x, controller string) (remedy string) {
	g := &Group{path: Path{X: x, Payload: x}, kernel: running()}
	return g.remedy(controller)
}

// ours tells whether a process is this one, or belongs to it.
func (k kernel) ours(pid int) bool { return pid == k.pid || slices.Contains(k.with, pid) }

// own finds the cgroup that the process is in.
func (k kernel) own() (string, error) {
	membership, err := os.ReadFile(filepath.Join(k.proc, "cgroup"))
	if err != nil {
		return "", fmt.Errorf("cgroup: %w: %s", err, consequence)
	}
	mounts, err := os.ReadFile(filepath.Join(k.proc, "mountinfo"))
	if err != nil {
		return "", fmt.Errorf("cgroup: %w: %s", err, consequence)
	}
	return find(membership, mounts)
}

// find reads /proc/PID/cgroup and /proc/PID/mountinfo (proc(5)).
func find(membership, mounts []byte) (string, error) {
	var own string
	for line := range bytes.Lines(membership) {
		if path, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			own = strings.TrimSuffix(string(path), "\n")
		}
	}
	mounted := false
	lines := bufio.NewScanner(bytes.NewReader(mounts))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		f := strings.Fields(before)
		if !strings.HasPrefix(after, "cgroup2 ") || len(f) < 5 {
			continue
		}
		mounted = true
		root, point := unescape(f[3]), unescape(f[4])
		rest, ok := strings.CutPrefix(own, strings.TrimSuffix(root, "/"))
		if !ok || rest != "" && rest[0] != '/' || strings.HasPrefix(rest, "/..") {
			continue // another part of the tree than ours
		}
		return filepath.Join(point, rest), nil
	}
	switch {
	case !mounted || own == "":
		return "", refuse("boot with systemd.unified_cgroup_hierarchy=1, or sudo mount -t cgroup2 none /sys/fs/cgroup", "cgroup: no cgroup2 file system is mounted")
	default:
		return "", refuse(ownScope, "cgroup: %s, which nuc is in, is outside of what is mounted here", own)
	}
}

// unescape undoes mountinfo's octal escapes (blank, tab, newline, backslash).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// make makes the container's cgroups below the process's own.
func (g *Group) make(own, name string) error {
	x := own
	// A unit with DelegateSubgroup=supervisor (systemd 254) is in its leaf from
	// the first; nothing has to be moved then.
	inLeaf := false
	if filepath.Base(own) == supervisorLeaf {
		parent := filepath.Dir(own)
		if g.writable(parent) == nil && len(processes(parent)) == 0 && g.free(filepath.Join(parent, payloadLeaf)) {
			x, inLeaf = parent, true
		}
	}
	if err := g.writable(x); err != nil {
		return err
	}
	g.path.X = x
	sweepable(x)
	alone := inLeaf
	if !inLeaf {
		pids, err := readProcesses(x)
		if err != nil {
			return refuse(ownScope, "cgroup %s: %v", x, err)
		}
		alone = len(pids) > 0 && !slices.ContainsFunc(pids, func(pid int) bool { return !g.kernel.ours(pid) })
	}
	g.shared = !alone
	// The root of the hierarchy is exempt from the rule, and has no type.
	_, err := os.Lstat(filepath.Join(x, "cgroup.type"))
	exempt := errors.Is(err, os.ErrNotExist)
	toEnable := without(words(x, "cgroup.controllers"), words(x, "cgroup.subtree_control"))
	move := (slices.ContainsFunc(toEnable, useful) || g.kernel.move) && alone && !exempt && !inLeaf

	if err := g.leaves(name, alone, move); err != nil {
		g.undo()
		return fmt.Errorf("cgroup %s: %w: %s", x, err, consequence)
	}
	if move || inLeaf || exempt {
		for _, c := range toEnable {
			if enable(x, c) == nil {
				g.path.Enabled = append(g.path.Enabled, c)
			}
		}
	}
	if g.path.Inner != x {
		for _, c := range words(g.path.Inner, "cgroup.controllers") {
			_ = enable(g.path.Inner, c) // what is missing is told by Check
		}
	}
	fd, err := unix.Open(g.path.Payload, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		g.undo()
		return fmt.Errorf("cgroup %s: %w", g.path.Payload, err)
	}
	g.payload = os.NewFile(uintptr(fd), g.path.Payload)
	// It is empty before the first boot and between two: without a lock another
	// start of that name (of another state folder) would take it for a leftover.
	_ = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	return nil
}

// sweepable lets the keeper of a killed supervisor remove what is in x. Root of
// the host needs no permission to; the keeper has root's uid and, in its user
// namespace, none of root's capabilities. The top of the hierarchy has mode
// 0555 (kernfs), which its owner's permission is missing in: it gives nobody
// anything but that.
func sweepable(x string) {
	var st unix.Stat_t
	if os.Geteuid() == 0 && unix.Stat(x, &st) == nil && st.Uid == 0 && st.Mode&unix.S_IWUSR == 0 {
		_ = unix.Chmod(x, st.Mode&0o7777|unix.S_IWUSR)
	}
}

// leaves makes the inner cgroup and the leaves, and moves the process.
func (g *Group) leaves(name string, alone, move bool) error {
	x := g.path.X
	if alone && g.free(filepath.Join(x, supervisorLeaf)) && g.free(filepath.Join(x, payloadLeaf)) {
		if err := g.intend(Path{X: x, Inner: x}); err != nil {
			return err
		}
		g.path.Inner = x
	} else if err := g.inner(name); err != nil {
		return err
	}
	payload := filepath.Join(g.path.Inner, payloadLeaf)
	if err := mkdir(payload); err != nil {
		return err
	}
	g.path.Payload = payload
	fault.At("leaves")
	// Below a cgroup with processes and enabled controllers there can only be
	// threads; no container could be started in it.
	if kind := words(payload, "cgroup.type"); len(kind) > 0 && !slices.Equal(kind, []string{"domain"}) {
		return fmt.Errorf("is in threaded mode (%s is %q)", payload, strings.Join(kind, " "))
	}
	if !move {
		return nil
	}
	leaf := filepath.Join(g.path.Inner, supervisorLeaf)
	if err := mkdir(leaf); err != nil {
		return err
	}
	g.path.Supervisor = leaf
	return join(leaf, g.kernel.with...)
}

// inner makes X/nuc-NAME. Another one of that name may be alive: a container
// of another state folder.
func (g *Group) inner(name string) error {
	for i := 1; i <= maxInner; i++ {
		dir := filepath.Join(g.path.X, "nuc-"+name)
		if i > 1 {
			dir += "." + strconv.Itoa(i)
		}
		if !g.free(dir) {
			continue
		}
		err := g.intend(Path{X: g.path.X, Inner: dir})
		if err == nil {
			err = mkdir(dir)
		}
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err == nil {
			g.path.Inner = dir
		}
		return err
	}
	return fmt.Errorf("nuc-%s and its like are all in use by other containers of that name", name)
}

// free removes leftovers, which are empty, and tells whether the name is free.
// A folder that the process itself is in is in use.
func (g *Group) free(dir string) bool {
	_, err := os.Lstat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true
	}
	if filepath.Base(dir) == supervisorLeaf && slices.ContainsFunc(processes(dir), g.kernel.ours) {
		return true
	}
	return !locked(dir) && !locked(filepath.Join(dir, payloadLeaf)) && removeTree(dir) == nil
}

// locked tells whether a Group has a payload's folder.
func locked(dir string) bool {
	fd, err := openFolder(unix.AT_FDCWD, dir)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// undo takes back what a failed make did.
func (g *Group) undo() {
	p := g.path
	_ = remove(p, 0)
	g.path = Path{}
}

// writable tells why a cgroup is not delegated.
func (g *Group) writable(dir string) error {
	for _, name := range []string{"", "cgroup.procs", "cgroup.subtree_control"} {
		err := unix.Faccessat(unix.AT_FDCWD, filepath.Join(dir, name), unix.W_OK, unix.AT_EACCESS)
		if err == nil {
			continue
		}
		if err == unix.EROFS {
			return refuse("remount it read-write, or start the container that nuc is in with a writable one", "cgroup %s is mounted read-only", dir)
		}
		return refuse(g.kernel.delegation(dir), "cgroup %s is not delegated to uid %d (%s: %v)", dir, os.Geteuid(), filepath.Join(dir, name), err)
	}
	return nil
}

// delegation is how to get a delegated cgroup.
func (k kernel) delegation(dir string) string {
	if k.systemd {
		return ownScope
	}
	uid := os.Geteuid()
	own := filepath.Join(dir, fmt.Sprintf("nuc-%d", uid))
	return fmt.Sprintf("sudo sh -c 'mkdir -p %s && cd %s && chown %d . cgroup.procs cgroup.threads cgroup.subtree_control && echo '$$' >cgroup.procs' in the shell that starts it", own, own, uid)
}

// Chown gives the payload's cgroup to the container's root, which systemd in
// it needs to be: the folder and what the kernel lists as to be delegated,
// without the limits. Needed only when nuc runs as root.
func (g *Group) Chown(uid, gid uint32) error {
	if g.payload == nil || int(uid) == os.Geteuid() {
		return nil
	}
	names := []string{"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}
	if list, err := os.ReadFile("/sys/kernel/cgroup/delegate"); err == nil {
		names = strings.Fields(string(list))
	}
	for _, name := range append([]string{"."}, names...) {
		if !filepath.IsLocal(name) {
			continue
		}
		err := unix.Fchownat(int(g.payload.Fd()), name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && err != unix.ENOENT { // the file of a controller that isn't there
			return &os.PathError{Op: "chown", Path: filepath.Join(g.path.Payload, name), Err: err}
		}
	}
	return nil
}

// String is the JSON text of the description.
func (p Path) String() string {
	data, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// useful tells controllers that the descriptor's limits or systemd's units use.
func useful(controller string) bool {
	switch controller {
	case "cpu", "cpuset", "io", "memory", "pids":
		return true
	}
	return false
}

func mkdir(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// join moves the calling process, all its threads, and others, which may have
// ended by now.
func join(dir string, with ...int) error {
	path := filepath.Join(dir, "cgroup.procs")
	for _, pid := range with {
		if err := write(path, strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return write(path, "0")
}

func enable(dir, controller string) error {
	return write(filepath.Join(dir, "cgroup.subtree_control"), "+"+controller)
}

// write writes with one write(2) and never creates a file.
func write(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func words(dir, name string) []string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil
	}
	return strings.Fields(string(data))
}

func without(all, some []string) []string {
	return slices.DeleteFunc(all, func(s string) bool { return slices.Contains(some, s) })
}

func processes(dir string) []int {
	pids, _ := readProcesses(dir)
	return pids
}

// readProcesses lists the processes of a cgroup; 0 is one of another pid
// namespace.
func readProcesses(dir string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		pid, err := strconv.Atoi(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "cgroup.procs"), err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
