package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/test/jail"
)

// What a container's files and a descriptor's targets are made of.
var parts = []string{
	"a", "b", "c", "..", ".", "host", "folder", "file", "sources", "root", "/", "//", "proc", "self", "fd", "1", "etc", "dev", "sys",
	"run", "tmp", "usr", "\xff", strings.Repeat("x", 255), strings.Repeat("y", 256), " ", "...", "hostname", "localtime",
}

// script reads what a fuzzer wrote as a program that makes files.
type script struct{ left []byte }

func (s *script) next(n int) int {
	if len(s.left) == 0 {
		return 0
	}
	b := int(s.left[0])
	s.left = s.left[1:]
	return b % n
}

// path is a relative one, of up to n parts.
func (s *script) path(n int) string {
	names := make([]string, 1+s.next(n))
	for i := range names {
		names[i] = parts[s.next(len(parts))]
	}
	return strings.Join(names, "/")
}

// make makes what a container leaves in its root: links, folders, files. It goes
// where a process goes whose root that is.
func (s *script) make(t testing.TB, root, dir string) {
	t.Helper()
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for range 24 {
		if len(s.left) == 0 {
			return
		}
		kind := s.next(8)
		folder, name := filepath.Split("/" + s.path(4))
		parent, err := unix.Openat2(fd, folder, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
		if err != nil {
			continue
		}
		switch kind {
		case 0, 1:
			_ = unix.Mkdirat(parent, name, 0o755)
		case 2:
			_ = unix.Mknodat(parent, name, unix.S_IFREG|0o644, 0)
		case 3:
			_ = unix.Mknodat(parent, name, unix.S_IFIFO|0o644, 0)
		case 4:
			_ = unix.Symlinkat(dir+"/"+s.path(3), parent, name)
		default:
			_ = unix.Symlinkat(strings.Repeat("../", s.next(6))+s.path(3), parent, name)
		}
		unix.Close(parent)
	}
}

// seeds are programs that make something: the corpus of good starts.
var seeds = [][]byte{
	{},
	{0, 0, 0, 5, 0, 1, 5, 1, 5, 6},                // a/, b → ../../…host/folder
	{5, 0, 16, 4, 2, 3, 3, 5, 0, 5, 13},           // etc → upwards
	{4, 0, 12, 1, 5, 6, 4, 0, 19, 0, 5},           // proc and run → host
	{0, 0, 17, 5, 1, 17, 0, 0, 0, 5},              // dev/a → host
	{0, 0, 16, 4, 1, 16, 27, 1, 5, 7},             // etc/hostname → host/file
	{5, 0, 0, 0, 0, 1, 5, 0, 1, 0, 0, 0},          // a → b, b → a
	{5, 0, 0, 0, 3, 12, 13, 14, 15, 2, 0, 2, 0},   // a → proc/self/fd/1
	{0, 0, 0, 0, 1, 0, 1, 5, 2, 0, 1, 2, 3, 3, 5}, // a/b/c → ../../host
}

var targets = []string{
	"/a", "/a/b/c", "/b/file", "/../../host/new", "/a/../../../host/folder", "/etc/hostname", "/proc/self/fd/1", "/c/", "//", "",
	"/dev/a", "relative", "/a\x00b", "/" + strings.Repeat("../", 64) + "host/new", "/" + strings.Repeat("d/", 200),
}

// FuzzTargets: wherever the links of a container's files lead, no mount lands
// outside its root, and nothing is made or written there.
func FuzzTargets(f *testing.F) {
	for i, s := range seeds {
		for j, target := range targets {
			f.Add(s, target, byte(i+j))
		}
	}
	jail.Seeds(f)
	var p *place
	var folder, file int
	var neighbours, before []string
	if jail.Inside() {
		p = newPlace(f)
		folder, file = openSource(f, p.dir+"/sources/folder"), openSource(f, p.dir+"/sources/file")
		neighbours, before = p.neighbours(f), mountPoints(f)
	}
	f.Fuzz(func(t *testing.T, program []byte, target string, how byte) {
		if !jail.Inside() {
			return
		}
		defer empty(t, p.root)
		(&script{program}).make(t, p.root, p.dir)
		err := (&place{tree: p.tree}).try(target, how, folder, file)
		if err != nil && severalLines(err, target) {
			t.Errorf("an error of several lines: %q", err)
		}
		added := mountPoints(t)[len(before):]
		for _, m := range slices.Backward(added) {
			if m != p.root && !strings.HasPrefix(m, p.root+"/") {
				t.Errorf("mounted on %s", m)
			}
			if err := unix.Unmount(unescape(m), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				t.Fatalf("unmounting %s: %v", m, err)
			}
		}
		if err != nil && len(added) > 0 {
			t.Errorf("%v; and %q were mounted", err, added)
		}
		if got := p.neighbours(t); !slices.Equal(got, neighbours) {
			t.Errorf("next to the root is %q, was %q", got, neighbours)
		}
	})
}

// severalLines tells whether an error has lines though no name in it has: those
// of a descriptor don't.
func severalLines(err error, names ...any) bool {
	return strings.Contains(err.Error(), "\n") && !strings.Contains(fmt.Sprint(names...), "\n")
}

// try has something done with a target.
func (p *place) try(target string, how byte, folder, file int) error {
	switch how % 7 {
	case 0:
		return userMount(p.tree, descriptor.Mount{Kind: descriptor.KindTmpfs, Target: target}, -1)
	case 1:
		return bind(p.tree, target, folder, true, false)
	case 2:
		return bind(p.tree, target, file, false, false)
	case 3:
		return p.tree.mountNew(target, "tmpfs", plain)
	case 4:
		return p.tree.replaceFile(target, "container's")
	case 5:
		return p.tree.replaceLink(target, ownLinks+"x", true)
	}
	return p.tree.replaceLink(target, ownLinks+"x", false)
}

// unescape undoes what proc(5) does to a mount point's blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

func empty(t testing.TB, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(folder, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzBuild puts whole roots together, on folders that a container has filled:
// what the new root shows is the container's and what the plan names, it has
// nothing above it, and next to it nothing has changed.
func FuzzBuild(f *testing.F) {
	for i, s := range seeds {
		f.Add(s, targets[i], targets[i+3], "/etc/hostname", byte(i))
	}
	jail.Seeds(f)
	var p *place
	var neighbours, before []string
	if jail.Inside() {
		p = newPlace(f)
		for _, d := range []string{"base", "run"} {
			if err := os.Mkdir(filepath.Join(p.dir, d), 0o755); err != nil {
				f.Fatal(err)
			}
		}
		neighbours, before = p.neighbours(f), mountPoints(f)
	}
	f.Fuzz(func(t *testing.T, program []byte, first, second, written string, how byte) {
		if !jail.Inside() {
			return
		}
		defer empty(t, p.root)
		(&script{program}).make(t, p.root, p.dir)
		plan := Plan{
			Base: p.dir + "/base", HostFolder: p.dir + "/run", Folder: p.root,
			Mounts: []descriptor.Mount{
				{Kind: descriptor.KindBind, Source: p.dir + "/sources/folder", Target: first, ReadOnly: true},
				{Kind: descriptor.KindTmpfs, Target: second},
				{Kind: descriptor.KindBind, Source: p.dir + "/sources/file", Target: second + "/x", ReadOnly: how&1 != 0},
			},
			Files: map[string]string{written: "container's\n"}, Links: map[string]string{"/etc/hosts": "hosts"},
			DefaultLinks: map[string]string{written + "y": "x"}, Localtime: "../usr/share/zoneinfo/UTC",
		}
		if how&2 != 0 {
			plan.Devices = []string{"/dev/null"}
		}
		if how&4 != 0 {
			plan.RootOwned = []Replacement{{Path: first + "/y", Copy: p.dir + "/sources/folder"}}
		}
		if err := apart(func() error { return plan.tryBuild(p) }); err != nil {
			t.Error(err)
		}
		if got := mountPoints(t); !slices.Equal(got, before) {
			t.Errorf("mounts are %q, were %q", got, before)
		}
		if got := p.neighbours(t); !slices.Equal(got, neighbours) {
			t.Errorf("next to the root is %q, was %q", got, neighbours)
		}
	})
}

// apart calls f on a thread with a mount namespace of its own, and closes what
// f opens: a container's first process leaves that to its execve.
func apart(f func() error) error {
	open := files()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	err := <-done
	for _, fd := range files() {
		if !slices.Contains(open, fd) {
			unix.Close(fd)
		}
	}
	return err
}

func files() []int {
	entries, _ := os.ReadDir("/proc/self/fd")
	var fds []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if _, err2 := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && err2 == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// tryBuild builds the root, and looks around where that was done.
func (p *Plan) tryBuild(at *place) error {
	sources, err := p.Open()
	if err != nil {
		return err
	}
	var outside, folder unix.Stat_t
	if err := errors.Join(unix.Stat(at.dir, &outside), unix.Stat(at.dir+"/sources/folder", &folder)); err != nil {
		return err
	}
	term, err := p.Build(sources)
	if term != nil {
		for _, f := range []*os.File{term.Master, term.Slave, term.Devpts} {
			defer f.Close()
		}
	}
	if err != nil {
		if severalLines(err, p.Mounts, p.Files, p.DefaultLinks, p.RootOwned) {
			return fmt.Errorf("an error of several lines: %q", err)
		}
		return nil
	}
	// A link to the root may have been a target: what covers the root then is what
	// the plan has there, and no more of the host's.
	var root, above unix.Stat_t
	if err := errors.Join(unix.Stat("/", &root), unix.Stat("/..", &above)); err != nil {
		return err
	}
	if above.Dev == outside.Dev && above.Ino != root.Ino && above.Ino != folder.Ino {
		return errors.New("the host's files are above the root")
	}
	// Of this thread, whose /proc is not to be relied upon: a link may be there.
	fd, err := unix.Openat2(unix.AT_FDCWD, "/proc/thread-self/mountinfo", &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err == unix.ELOOP {
		fd, err = unix.Open("/proc/thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer f.Close()
	data := make([]byte, 1<<20)
	n, err := f.Read(data)
	if err != nil {
		return err
	}
	// What is of the host's file system, by its device and its path there.
	own := fmt.Sprintf("%d:%d", unix.Major(outside.Dev), unix.Minor(outside.Dev))
	allowed := []string{p.Folder, p.HostFolder, at.dir + "/sources/folder", at.dir + "/sources/file"}
	for line := range strings.Lines(string(data[:n])) {
		fields := strings.Split(line, " ")
		if fields[2] == own && !slices.Contains(allowed, unescape(fields[3])) && !strings.HasPrefix(fields[3], "/dev/") {
			return fmt.Errorf("the host's %s is mounted on %s", fields[3], fields[4])
		}
	}
	return nil
}
