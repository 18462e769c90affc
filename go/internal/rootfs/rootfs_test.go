package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/credential"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/test/jail"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

// within is set in a copy of the test binary that is root of its own user,
// mount, pid, ipc and network namespaces, as a container's first process is.
const within = "ROOTFS_TEST_WITHIN"

func TestMain(m *testing.M) {
	jail.Enter()
	if jail.Inside() || os.Getenv(within) != "" {
		os.Exit(m.Run()) // what is opened goes with the execve of a container's init
	}
	leaktest.Main(m)
}

// outside runs the calling test in namespaces. It tells whether that was done,
// and there is nothing else to do.
func outside(t *testing.T) bool {
	t.Helper()
	if os.Getenv(within) != "" {
		return false
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), within+"=1", "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET | unix.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	var start *os.PathError
	if errors.As(err, &start) && errors.Is(err, syscall.EPERM) {
		t.Skipf("no user namespace can be made here: %v", err)
	}
	if err != nil {
		t.Fatalf("in namespaces: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Skipf("in namespaces: %s", out)
	}
	return true
}

// place is a root with what is next to it, which must stay as it is.
type place struct {
	dir, root string
	tree      tree
}

func newPlace(t testing.TB) *place {
	t.Helper()
	dir := t.TempDir()
	p := &place{dir: dir, root: filepath.Join(dir, "root")}
	for _, d := range []string{p.root, filepath.Join(dir, "host/folder"), filepath.Join(dir, "sources/folder")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"host/file", "host/folder/file", "sources/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("host's"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(p.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fd)
		for _, m := range slices.Backward(mountPoints(t)) {
			if strings.HasPrefix(m, dir+"/") {
				_ = unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
			}
		}
	})
	p.tree = tree{fd: fd}
	return p
}

// neighbours lists what is next to the root, with contents.
func (p *place) neighbours(t testing.TB) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(p.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == p.root {
			return errors.Join(err, fs.SkipDir)
		}
		text := path
		if e.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(data)
		}
		found = append(found, text)
		return nil
	})
	if err != nil && !errors.Is(err, fs.SkipDir) {
		t.Fatal(err)
	}
	return found
}

// mountPoints lists the process's, in their order.
func mountPoints(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for line := range strings.Lines(string(data)) {
		points = append(points, strings.Split(line, " ")[4]) // a path may hold other blanks
	}
	return points
}

func openSource(t testing.TB, path string) int {
	t.Helper()
	fd, err := openPath(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
}

// TestTargets is hostile cases 3 and 4.
func TestTargets(t *testing.T) {
	if outside(t) {
		return
	}
	tests := []struct {
		name, target string
		make         func(t *testing.T, p *place)
		want         string // below the root; empty where it is refused
		refusal      string
	}{
		{"plain", "/srv/data", nil, "srv/data", ""},
		{"upwards", "/../../../host/folder", nil, "host/folder", ""},
		{"upwards in the middle", "/a/../../../host/new", nil, "host/new", ""},
		{"absolute link", "/srv", func(t *testing.T, p *place) {
			link(t, filepath.Join(p.dir, "host/folder"), p.root+"/srv")
			if err := os.MkdirAll(filepath.Join(p.root, p.dir, "host/folder"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "DIR/host/folder", ""},
		{"relative link upwards", "/srv/new", func(t *testing.T, p *place) {
			link(t, "../../../host", p.root+"/srv")
			if err := os.Mkdir(p.root+"/host", 0o755); err != nil {
				t.Fatal(err)
			}
		}, "host/new", ""},
		{"link that exists on the host only", "/srv", func(t *testing.T, p *place) {
			link(t, filepath.Join(p.dir, "host/folder"), p.root+"/srv")
		}, "", "leads nowhere"},
		{"dangling in the middle", "/srv/x/y", func(t *testing.T, p *place) { link(t, "/none", p.root+"/srv") }, "", "leads nowhere"},
		{"loop", "/a/x", func(t *testing.T, p *place) { link(t, "b", p.root+"/a"); link(t, "a", p.root+"/b") }, "", "can't be followed"},
		{"magic link", "/srv", func(t *testing.T, p *place) {
			if err := os.Mkdir(p.root+"/proc", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := p.tree.mountNew("proc", "proc", noExec); err != nil {
				t.Skip(err)
			}
			link(t, "/proc/self/root", p.root+"/srv")
		}, "", "can't be followed"},
		{"file in the way", "/srv", func(t *testing.T, p *place) { write(t, p.root+"/srv", "") }, "", "no folder"},
		{"file on the way", "/srv/x", func(t *testing.T, p *place) { write(t, p.root+"/srv", "") }, "", "not a directory"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			if test.make != nil {
				test.make(t, p)
			}
			neighbours, mounts := p.neighbours(t), mountPoints(t)
			err := userMount(p.tree, descriptor.Mount{Kind: "tmpfs", Target: test.target}, -1)
			added := mountPoints(t)[len(mounts):]
			if test.want == "" {
				if err == nil || !strings.Contains(err.Error(), test.refusal) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %q", err, test.refusal)
				}
				if len(added) > 0 {
					t.Errorf("mounted: %q", added)
				}
			} else {
				want := filepath.Join(p.root, strings.ReplaceAll(test.want, "DIR", p.dir))
				if err != nil || !slices.Equal(added, []string{want}) {
					t.Errorf("%v; mounted on %q, want %q", err, added, want)
				}
			}
			if got := p.neighbours(t); !slices.Equal(got, neighbours) {
				t.Errorf("next to the root is %q, was %q", got, neighbours)
			}
		})
	}
}

// TestNothingLandsOutside tries random targets in random trees of links.
func TestNothingLandsOutside(t *testing.T) {
	if outside(t) {
		return
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 1))
	p := newPlace(t)
	neighbours, before := p.neighbours(t), mountPoints(t)
	folder, file := openSource(t, p.dir+"/sources/folder"), openSource(t, p.dir+"/sources/file")
	words := []string{"a", "b", "c", "..", ".", "host", "folder", "file", "root", strings.TrimPrefix(p.dir, "/")}
	path := func(n int) string {
		var parts []string
		for range 1 + random.IntN(n) {
			parts = append(parts, words[random.IntN(len(words))])
		}
		return strings.Join(parts, "/")
	}
	done, refused := 0, 0
	for range 150 {
		for range random.IntN(10) {
			// Made by the container, so by paths that end in its root.
			at := filepath.Join(p.root, filepath.Join("/", path(3)))
			if real, err := filepath.EvalSymlinks(filepath.Dir(at)); err != nil || real != p.root && !strings.HasPrefix(real, p.root+"/") {
				continue
			}
			switch random.IntN(4) {
			case 0:
				_ = os.Mkdir(at, 0o755)
			case 1:
				_ = os.Symlink(p.dir+"/"+path(2), at)
			default:
				_ = os.Symlink(strings.Repeat("../", random.IntN(6))+path(3), at)
			}
		}
		for range 10 {
			target := "/" + path(5)
			var err error
			switch random.IntN(6) {
			case 0:
				err = userMount(p.tree, descriptor.Mount{Kind: "tmpfs", Target: target}, -1)
			case 1:
				err = bind(p.tree, target, folder, true, false)
			case 2:
				err = bind(p.tree, target, file, false, false)
			case 3:
				err = p.tree.mountNew(target, "tmpfs", plain)
			case 4:
				err = p.tree.replaceFile(target, "container's")
			case 5:
				err = p.tree.replaceLink(target, ownLinks+"x", random.IntN(2) == 0)
			}
			if err != nil {
				refused++
			} else {
				done++
			}
		}
		added := mountPoints(t)[len(before):]
		for _, m := range added {
			if m != p.root && !strings.HasPrefix(m, p.root+"/") {
				t.Fatalf("seed %d: mounted on %s", seed, m)
			}
		}
		for len(added) > 0 {
			var err error
			for _, m := range slices.Backward(added) {
				if e := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); e != nil {
					err = fmt.Errorf("unmounting %s: %w", m, e)
				}
			}
			// Those below one that covers the root can't be named before it is gone.
			left := mountPoints(t)[len(before):]
			if len(left) == len(added) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			added = left
		}
		if got := p.neighbours(t); !slices.Equal(got, neighbours) {
			t.Fatalf("seed %d: next to the root is %q, was %q", seed, got, neighbours)
		}
		if random.IntN(3) == 0 {
			entries, _ := os.ReadDir(p.root)
			for _, e := range entries {
				_ = os.RemoveAll(filepath.Join(p.root, e.Name()))
			}
		}
	}
	if done < 100 || refused < 100 {
		t.Errorf("seed %d: %d targets were taken and %d refused, which tests little", seed, done, refused)
	}
}

// TestAPIFolders is hostile cases 1 and 2.
func TestAPIFolders(t *testing.T) {
	for _, name := range []string{"proc", "sys", "dev", "run", "tmp"} {
		t.Run(name, func(t *testing.T) {
			for _, target := range []string{"/", "../host/folder", "/none"} {
				p := newPlace(t)
				link(t, target, filepath.Join(p.root, name))
				if fd, err := p.tree.apiFolder(name); err == nil {
					unix.Close(fd)
					t.Errorf("a link to %s was followed", target)
				} else if !strings.Contains(err.Error(), "/"+name) || !strings.Contains(err.Error(), "link") {
					t.Errorf("%v, want it to name /%s", err, name)
				}
			}
			p := newPlace(t)
			write(t, filepath.Join(p.root, name), "")
			if fd, err := p.tree.apiFolder(name); err == nil || !strings.Contains(err.Error(), "must be a folder") {
				unix.Close(fd)
				t.Errorf("a file: %v", err)
			}
			p = newPlace(t)
			fd, err := p.tree.apiFolder(name)
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			if st, err := os.Lstat(filepath.Join(p.root, name)); err != nil || !st.IsDir() {
				t.Errorf("it was not made: %v", err)
			}
		})
	}
}

// TestOpenDevice is hostile case 6.
func TestOpenDevice(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/file", "")
	link(t, "/dev/zero", dir+"/null")
	tests := []struct {
		name, path string
		number     uint64
		refusal    string
	}{
		{"null", "/dev/null", unix.Mkdev(1, 3), ""},
		{"any number", "/dev/zero", 0, ""},
		{"a file", dir + "/file", unix.Mkdev(1, 3), "is no device node"},
		{"a file, any number", dir + "/file", 0, "is no device node"},
		{"a link to another", dir + "/null", unix.Mkdev(1, 3), "is device 1:5, expected 1:3"},
		{"missing", dir + "/none", 0, "no such file"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fd, err := openDevice(test.path, test.number)
			if err == nil {
				unix.Close(fd)
			}
			if (err == nil) != (test.refusal == "") || err != nil && !strings.Contains(err.Error(), test.refusal) {
				t.Errorf("%v, want %q", err, test.refusal)
			}
		})
	}
}

// TestSources is hostile case 9.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		mount   descriptor.Mount
		refusal string
	}{
		{descriptor.Mount{Source: dir}, ""},
		{descriptor.Mount{Source: dir + "/none", Optional: true}, ""},
		{descriptor.Mount{Source: dir + "/none"}, "make it, or set optional"},
		{descriptor.Mount{Source: dir + "/fifo"}, "a fifo"},
		{descriptor.Mount{Source: dir + "/fifo", Optional: true}, "a fifo"},
		{descriptor.Mount{Source: "/dev/null"}, "name it in devices"},
	}
	for _, test := range tests {
		test.mount.Kind, test.mount.Target = descriptor.KindBind, "/x"
		p := Plan{Base: dir, HostFolder: dir, Mounts: []descriptor.Mount{test.mount}}
		_, err := p.Open()
		if (err == nil) != (test.refusal == "") || err != nil && (!strings.Contains(err.Error(), test.refusal) || !strings.Contains(err.Error(), "mounts[0]: source "+test.mount.Source)) {
			t.Errorf("%+v: %v, want %q", test.mount, err, test.refusal)
		}
		// A first process that fails ends; this one goes on.
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			fd, err := strconv.Atoi(e.Name())
			if err != nil {
				t.Fatal(err)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_PATH != 0 {
				unix.Close(fd)
			}
		}
	}
}

func TestReplaceFile(t *testing.T) {
	p := newPlace(t)
	etc := filepath.Join(p.root, "etc")
	write(t, etc+"/longer", strings.Repeat("x", 100))
	link(t, p.dir+"/host/file", etc+"/link")
	link(t, "/none", etc+"/dangling")
	if err := unix.Mkfifo(etc+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	neighbours := p.neighbours(t)
	for _, name := range []string{"new", "longer", "link", "dangling", "fifo", "new", "sub/new"} {
		if err := p.tree.replaceFile("/etc/"+name, "text\n"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"new", "longer", "sub/new"} {
		if data, err := os.ReadFile(filepath.Join(etc, name)); err != nil || string(data) != "text\n" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	for _, name := range []string{"link", "dangling"} {
		if st, err := os.Lstat(filepath.Join(etc, name)); err != nil || st.Mode()&os.ModeSymlink == 0 {
			t.Errorf("%s is a link no more: %v", name, err)
		}
	}
	if got := p.neighbours(t); !slices.Equal(got, neighbours) {
		t.Errorf("next to the root is %q, was %q", got, neighbours)
	}
}

func TestReplaceLink(t *testing.T) {
	p := newPlace(t)
	etc := filepath.Join(p.root, "etc")
	for _, name := range []string{"file", "default-file"} {
		write(t, filepath.Join(etc, name), "system's\n")
	}
	for _, name := range []string{"foreign", "default-foreign"} {
		link(t, "../run/systemd/resolve/stub-resolv.conf", filepath.Join(etc, name))
	}
	for _, name := range []string{"own", "default-own", "no-more"} {
		link(t, ownLinks+"before", filepath.Join(etc, name))
	}
	for _, name := range []string{"new", "file", "foreign", "own", "sub/new"} {
		for range 2 {
			if err := p.tree.replaceLink("/etc/"+name, ownLinks+"now", true); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, name := range []string{"default-new", "default-file", "default-foreign", "default-own"} {
		if err := p.tree.replaceLink("/etc/"+name, ownLinks+"now", false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := p.tree.replaceFile("/etc/no-more", "text\n"); err != nil {
		t.Error(err)
	}
	const foreign = "../run/systemd/resolve/stub-resolv.conf"
	for name, want := range map[string]string{
		"new": ownLinks + "now", "file": ownLinks + "now", "foreign": foreign, "own": ownLinks + "now", "sub/new": ownLinks + "now",
		"default-new": ownLinks + "now", "default-foreign": foreign, "default-own": ownLinks + "now",
	} {
		if got, err := os.Readlink(filepath.Join(etc, name)); got != want {
			t.Errorf("%s leads to %q, want %q: %v", name, got, want, err)
		}
	}
	for name, want := range map[string]string{"default-file": "system's\n", "no-more": "text\n"} {
		st, err := os.Lstat(filepath.Join(etc, name))
		data, rerr := os.ReadFile(filepath.Join(etc, name))
		if err != nil || rerr != nil || !st.Mode().IsRegular() || string(data) != want {
			t.Errorf("%s: %q, %v, %v, want the file %q", name, data, err, rerr, want)
		}
	}
}

// TestBindKeepsLocks is hostile case 10.
func TestBindKeepsLocks(t *testing.T) {
	if outside(t) {
		return
	}
	p := newPlace(t)
	source := p.dir + "/sources/folder"
	if err := unix.Mount(source, source, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	const locked = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("", source, "", unix.MS_BIND|unix.MS_REMOUNT|locked, ""); err != nil {
		t.Fatal(err)
	}
	if err := bind(p.tree, "/x", openSource(t, source), false, false); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(p.root+"/x", &st); err != nil {
		t.Fatal(err)
	}
	if st.Flags&locked != locked {
		t.Errorf("flags %#x, want %#x among them", st.Flags, locked)
	}
}

// TestBuild puts a whole root together and looks around in it.
func TestBuild(t *testing.T) {
	if outside(t) {
		return
	}
	dir := t.TempDir()
	for _, d := range []string{"base", "host", "host/credentials"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir+"/host/container-manager", "nuc\n")
	write(t, dir+"/source/secret", "x")
	write(t, dir+"/source/file", "")
	p := Plan{
		Base: dir + "/base", HostFolder: dir + "/host",
		Mounts: []descriptor.Mount{
			{Kind: descriptor.KindBind, Source: dir + "/source", Target: "/srv/bound", ReadOnly: true},
			{Kind: descriptor.KindBind, Source: dir + "/none", Target: "/srv/none", Optional: true},
			{Kind: descriptor.KindBind, Source: dir + "/source/secret", Target: "/srv/bound/file", ReadOnly: true, Recursive: true},
			{Kind: "tmpfs", Target: "/srv/tmpfs", SizeBytes: 1 << 20},
		},
		Files:       map[string]string{"/etc/hostname": "web\n"},
		Credentials: map[string]credential.Value{"db password": []byte("x\x00\n"), "-": nil},
	}
	sources, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	term, err := p.Build(sources)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir("/")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"dev", "etc", "proc", "run", "srv", "sys", "tmp"}; !slices.Equal(names, want) {
		t.Errorf("the root holds %q, want %q", names, want)
	}
	for _, m := range mountPoints(t) {
		if strings.Contains(m, dir) {
			t.Errorf("the host's %s is reachable", m)
		}
	}
	for path, want := range map[string]string{"/etc/hostname": "web\n", "/run/host/container-manager": "nuc\n", "/srv/bound/secret": "x", "/run/host/credentials/db password": "x\x00\n", "/run/host/credentials/-": ""} {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
	// What the container's root would try (hostile case 10).
	for _, path := range []string{"/srv/bound", "/srv/bound/file", "/run/host"} {
		for _, flags := range []uintptr{0, unix.MS_NOSUID | unix.MS_NODEV} {
			if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err == nil {
				t.Errorf("%s could be made writable (%#x)", path, flags)
			}
		}
		if err := unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err == nil {
			t.Errorf("%s could be made writable by mount_setattr", path)
		}
	}
	for _, path := range []string{"/srv/bound/new", "/run/host/new", "/run/host/credentials/new", "/sys/new"} {
		if os.WriteFile(path, nil, 0o600) == nil {
			t.Errorf("%s could be made", path)
		}
	}
	if entries, err := os.ReadDir(dir + "/host/credentials"); err == nil {
		t.Errorf("the host has the credentials %v", entries)
	}
	checkCredentials(t)
	if _, err := os.Lstat("/srv/none"); err == nil {
		t.Error("an optional mount without source left its target")
	}
	for _, d := range basicDevices {
		var st unix.Stat_t
		if err := unix.Stat("/dev/"+d.name, &st); err != nil || st.Rdev != unix.Mkdev(d.major, d.minor) {
			t.Errorf("/dev/%s: %d:%d, %v", d.name, unix.Major(st.Rdev), unix.Minor(st.Rdev), err)
		}
	}
	var console, slave unix.Stat_t
	if err := errors.Join(unix.Stat("/dev/console", &console), unix.Fstat(int(term.Slave.Fd()), &slave)); err != nil || console.Rdev != slave.Rdev {
		t.Errorf("/dev/console is another terminal: %v", err)
	}
	if fd, err := unix.Open("/..", unix.O_PATH, 0); err == nil {
		var up, root unix.Stat_t
		if err := errors.Join(unix.Fstat(fd, &up), unix.Stat("/", &root)); err != nil || up.Ino != root.Ino || up.Dev != root.Dev {
			t.Errorf("there is something above the root: %v", err)
		}
		unix.Close(fd)
	}
}

// checkCredentials looks at how credentials are mounted, and whose they are.
func checkCredentials(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if fields[4] != "/run/host/credentials" {
			continue
		}
		found = true
		if fields[5] != "ro,nosuid,nodev,noexec,relatime" || !strings.Contains(line, " - ramfs ") {
			t.Errorf("mounted as %s", line)
		}
	}
	if !found {
		t.Error("no mount for credentials")
	}
	for path, want := range map[string]uint32{"/run/host/credentials": unix.S_IFDIR | 0o500, "/run/host/credentials/db password": unix.S_IFREG | 0o400} {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Mode != want || st.Uid != 0 || st.Gid != 0 {
			t.Errorf("%s: mode %o, owner %d:%d, %v", path, st.Mode, st.Uid, st.Gid, err)
		}
	}
}
