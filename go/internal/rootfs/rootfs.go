// Package rootfs puts a container's root file system together, in the
// container's own mount namespace, and makes it the root. It promises that no
// mount lands outside that root whatever its files are, and that nothing of
// the host stays reachable from it.
package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/credential"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

// Plan is all that the container's first process needs to know. Paths are of
// the host's mount namespace.
type Plan struct {
	// Base is a folder that the root is mounted on.
	Base string `json:"base"`
	// Folder is the root itself, or empty for a tmpfs. With Lower, it is the
	// folder that holds the overlay's upper layer, in upper and work.
	Folder    string `json:"folder,omitempty"`
	Lower     string `json:"lower,omitempty"`
	SizeBytes int64  `json:"sizeBytes,omitempty"`

	Mounts    []descriptor.Mount `json:"mounts,omitempty"`
	RootOwned []Replacement      `json:"rootOwned,omitempty"`
	Devices   []string           `json:"devices,omitempty"`
	TTYGroup  int                `json:"ttyGroup"`
	// HostFolder becomes /run/host.
	HostFolder string `json:"hostFolder"`
	// HostNetwork means that the network namespace is the host's, so that no
	// sysfs can be made: it would show another namespace's devices.
	HostNetwork bool `json:"hostNetwork,omitempty"`
	// Credentials are in files of /run/host/credentials, by name.
	Credentials map[string]credential.Value `json:"credentials,omitempty"`
	// Files are written to the root at each start, by path.
	Files map[string]string `json:"files,omitempty"`
	// Links are files of /run/host that are linked to at each start, by path:
	// what the launcher changes there is seen at once.
	Links map[string]string `json:"links,omitempty"`
	// DefaultLinks are such where the root has nothing of its own at the path.
	DefaultLinks map[string]string `json:"defaultLinks,omitempty"`
	// KeepJournal has journald keep its journal in the root, not on /run, so that
	// it can be read when the container has stopped (Storage=auto of
	// journald.conf(5)).
	KeepJournal bool `json:"keepJournal,omitempty"`
	// Localtime is where /etc/localtime points; empty leaves it alone.
	Localtime string `json:"localtime,omitempty"`
}

// Journal is where a kept journal is.
const Journal = "/var/log/journal"

// OpenJournal opens the folder of the journal in the root of a container that does
// not run, or in the upper layer of its overlay. What a container has put there in
// its place is refused, as are links on the way.
func OpenJournal(root *os.File) (*os.File, error) {
	defer runtime.KeepAlive(root)
	fd, err := openJournal(int(root.Fd()), unix.O_RDONLY)
	if err != nil {
		return nil, &os.PathError{Op: "open in the container's root", Path: Journal, Err: err}
	}
	return os.NewFile(uintptr(fd), Journal), nil
}

// HasJournal tells whether there is one to open.
func HasJournal(root string) bool {
	dir, err := openFolder("root", root)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	fd, err := openJournal(dir, unix.O_PATH)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

func openJournal(root int, how uint64) (int, error) {
	return unix.Openat2(root, Journal[1:], &unix.OpenHow{
		Flags: how | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// Replacement is a copy, owned by the container's root, of a store path.
type Replacement struct {
	Path string `json:"path"`
	Copy string `json:"copy"`
}

// Sources are the host's files that a plan names, opened.
//
// They are opened before the process becomes the container's root, because
// where nuc runs as root that is a user who can't enter root's folders.
type Sources struct {
	base, folder, lower, host int
	sys                       int // of the host, where its network is shared
	mounts                    []int
	rootOwned                 []int
	devices                   []int
	basic                     [len(basicDevices)]int
	// locked are mounts of what is read-only, by the source's descriptor.
	locked map[int]int
}

var basicDevices = [...]struct {
	name         string
	major, minor uint32
}{
	// Their numbers are fixed (Linux, Documentation/admin-guide/devices.txt):
	// a file that only bears the name is refused (CVE-2025-31133).
	{"null", 1, 3},
	{"zero", 1, 5},
	{"full", 1, 7},
	{"random", 1, 8},
	{"urandom", 1, 9},
	{"tty", 5, 0},
}

// Open opens what the plan names.
func (p *Plan) Open() (*Sources, error) {
	s := &Sources{folder: -1, lower: -1, sys: -1}
	var err error
	if s.base, err = openFolder("runtime folder", p.Base); err != nil {
		return nil, err
	}
	if s.host, err = openFolder("runtime folder", p.HostFolder); err != nil {
		return nil, err
	}
	if p.Folder != "" {
		if s.folder, err = openFolder("state folder", p.Folder); err != nil {
			return nil, err
		}
	}
	if p.Lower != "" {
		if s.lower, err = openFolder("root.tree", p.Lower); err != nil {
			return nil, err
		}
	}
	for i, m := range p.Mounts {
		fd := -1
		if m.Kind == descriptor.KindBind {
			fd, err = openPath(m.Source)
			if err != nil && !(m.Optional && errors.Is(err, unix.ENOENT)) {
				return nil, fmt.Errorf("mounts[%d]: source %s: %w: make it, or set optional", i, m.Source, err)
			}
			if err == nil {
				if err := bindable(fd); err != nil {
					return nil, fmt.Errorf("mounts[%d]: source %s is %w", i, m.Source, err)
				}
			}
		}
		s.mounts = append(s.mounts, fd)
	}
	for _, r := range p.RootOwned {
		fd, err := openPath(r.Copy)
		if err != nil {
			return nil, fmt.Errorf("rootOwned: %s: its copy %s: %w", r.Path, r.Copy, err)
		}
		s.rootOwned = append(s.rootOwned, fd)
	}
	if p.HostNetwork {
		if s.sys, err = openFolder("the host's", "/sys"); err != nil {
			return nil, err
		}
	}
	for i, d := range basicDevices {
		if s.basic[i], err = openDevice("/dev/"+d.name, unix.Mkdev(d.major, d.minor)); err != nil {
			return nil, err
		}
	}
	for i, d := range p.Devices {
		fd, err := openDevice(d, 0)
		if err != nil {
			return nil, fmt.Errorf("devices[%d]: %w", i, err)
		}
		s.devices = append(s.devices, fd)
	}
	return s, nil
}

func openPath(p string) (int, error) {
	return unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0)
}

func openFolder(what, p string) (int, error) {
	fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, fmt.Errorf("%s %s: %w", what, p, err)
	}
	return fd, nil
}

// openDevice opens a device node; a number other than 0 must be its own.
func openDevice(p string, number uint64) (int, error) {
	fd, err := openPath(p)
	if err != nil {
		return -1, fmt.Errorf("device %s: %w", p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		unix.Close(fd)
		return -1, fmt.Errorf("device %s is no device node", p)
	}
	if number != 0 && (kind != unix.S_IFCHR || st.Rdev != number) {
		unix.Close(fd)
		return -1, fmt.Errorf("device %s is device %d:%d, expected %d:%d", p,
			unix.Major(st.Rdev), unix.Minor(st.Rdev), unix.Major(number), unix.Minor(number))
	}
	return fd, nil
}

// bindable refuses sources that would surprise: a symbolic link can't be one
// (it was followed), a fifo or socket is no data.
func bindable(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return errors.New("a fifo: bind the folder that holds it")
	case unix.S_IFSOCK:
		return errors.New("a socket, which its maker replaces at its next start: bind the folder that holds it")
	case unix.S_IFCHR, unix.S_IFBLK:
		return errors.New("a device node: name it in devices")
	}
	return nil
}

// Terminal is the container's console: both ends of a terminal in the
// container's own devpts, and that devpts.
type Terminal struct {
	Master, Slave *os.File
	Devpts        *os.File
}

func (t *Terminal) close() {
	for _, f := range []*os.File{t.Master, t.Slave, t.Devpts} {
		f.Close() // a nil one, too
	}
}

// Build puts the root together and makes it the process's root. The process
// must be uid 0 of its user namespace and alone in its mount namespace.
func (p *Plan) Build(s *Sources) (*Terminal, error) {
	// Mounts of the host go on arriving here otherwise (mount_namespaces(7)).
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("making the mounts private: %w", err)
	}
	var err error
	if s.locked, err = locked(s.base, p.readOnly(s)); err != nil {
		return nil, err
	}
	root, err := p.rootMount(s)
	if err != nil {
		return nil, err
	}
	t := tree{fd: root}
	term, err := p.kernelFolders(t, s)
	if err != nil {
		return nil, err
	}
	if err := p.finish(t, s); err != nil {
		term.close()
		return nil, err
	}
	return term, nil
}

// finish adds what is the plan's own, and enters the root.
func (p *Plan) finish(t tree, s *Sources) error {
	if err := p.userMounts(t, s); err != nil {
		return err
	}
	if err := p.writeFiles(t); err != nil {
		return err
	}
	if err := enter(t.fd); err != nil {
		return err
	}
	// What systemd mounts for a service in its own place, credentials above all,
	// gets to the others as mounts are shared, which systemd leaves to a container
	// manager (mount_setup in its src/shared/mount-setup.c).
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("sharing the mounts among the container's services: %w", err)
	}
	return nil
}

// readOnly lists what the container's root must not be able to write to.
func (p *Plan) readOnly(s *Sources) []source {
	sources := []source{{what: "/run/host", fd: s.host}}
	if p.HostNetwork {
		// Cgroups below it are the user's, and so root's of the container.
		sources = append(sources, source{"/sys", s.sys, true})
	}
	for i, m := range p.Mounts {
		if m.Kind == descriptor.KindBind && m.ReadOnly && s.mounts[i] >= 0 {
			sources = append(sources, source{fmt.Sprintf("mounts[%d]: %s", i, m.Source), s.mounts[i], m.Recursive})
		}
	}
	for i, r := range p.RootOwned {
		sources = append(sources, source{what: "rootOwned: " + r.Path, fd: s.rootOwned[i]})
	}
	return sources
}

// rootMount makes the root's mount, mounted on the base.
func (p *Plan) rootMount(s *Sources) (int, error) {
	const attr = unix.MOUNT_ATTR_NODEV
	var mnt int
	var err error
	switch {
	case p.Lower != "":
		mnt, err = p.overlay(s)
	case p.Folder == "":
		mnt, err = newMount("tmpfs", attr, append([]string{"mode", "0755", "source", "nuc"}, sizeOption(p.SizeBytes)...)...)
	default:
		if mnt, err = clone(s.folder, false); err == nil {
			err = restrict(mnt, attr, false)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("root file system: %w", err)
	}
	if err := unix.MoveMount(mnt, "", s.base, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return -1, fmt.Errorf("root file system: move_mount: %w", err)
	}
	return mnt, nil
}

// overlay lays a writable layer over the tree (Linux 5.11 allows it in a user
// namespace; userxattr, as trusted.* attributes are the host's).
func (p *Plan) overlay(s *Sources) (int, error) {
	upper := s.folder
	if p.Folder == "" {
		// Older kernels want the layers mounted, so the tmpfs goes on the base
		// first, below the overlay.
		tmp, err := newMount("tmpfs", unix.MOUNT_ATTR_NODEV, append([]string{"mode", "0755", "source", "nuc"}, sizeOption(p.SizeBytes)...)...)
		if err != nil {
			return -1, err
		}
		if err := unix.MoveMount(tmp, "", s.base, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
			return -1, fmt.Errorf("tmpfs: move_mount: %w", err)
		}
		for _, dir := range []string{"upper", "work"} {
			if err := unix.Mkdirat(tmp, dir, 0o755); err != nil {
				return -1, os.NewSyscallError("mkdirat", err)
			}
		}
		upper = tmp
	}
	// Paths through descriptors need no escaping of ":" and ",".
	mnt, err := newMount("overlay", unix.MOUNT_ATTR_NODEV,
		"source", "nuc",
		"lowerdir", fdPath(s.lower),
		"upperdir", fdPath(upper)+"/upper",
		"workdir", fdPath(upper)+"/work",
		"userxattr", "")
	if err != nil {
		return -1, fmt.Errorf("overlay over %s: %w", p.Lower, err)
	}
	return mnt, nil
}

// userMounts attaches what the descriptor asks for, in its order.
func (p *Plan) userMounts(t tree, s *Sources) error {
	for i, m := range p.Mounts {
		if m.Kind == descriptor.KindBind && s.mounts[i] < 0 {
			continue // optional, and not there
		}
		var err error
		if mnt, ok := s.locked[s.mounts[i]]; ok && m.Kind == descriptor.KindBind {
			err = mountOn(t, m.Target, s.mounts[i], mnt)
		} else {
			err = userMount(t, m, s.mounts[i])
		}
		if err != nil {
			return fmt.Errorf("mounts[%d]: %s: %w", i, m.Target, err)
		}
	}
	for i, r := range p.RootOwned {
		if err := mountOn(t, r.Path, s.rootOwned[i], s.locked[s.rootOwned[i]]); err != nil {
			return fmt.Errorf("rootOwned: %s: %w", r.Path, err)
		}
	}
	for i, d := range p.Devices {
		target, err := t.file(d)
		if err != nil {
			return fmt.Errorf("devices[%d]: %w", i, err)
		}
		mnt, err := clone(s.devices[i], false)
		if err != nil {
			return fmt.Errorf("devices[%d]: %s: %w", i, d, err)
		}
		if err := attach(mnt, target); err != nil {
			return fmt.Errorf("devices[%d]: %s: %w", i, d, err)
		}
	}
	return nil
}

func userMount(t tree, m descriptor.Mount, source int) error {
	if m.Kind == descriptor.KindBind {
		return bind(t, m.Target, source, m.ReadOnly, m.Recursive)
	}
	attr := unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID
	if m.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	target, err := t.folder(m.Target, 0o755)
	if err != nil {
		return err
	}
	mnt, err := newMount("tmpfs", attr, append([]string{"mode", "0755", "source", "nuc"}, sizeOption(m.SizeBytes)...)...)
	if err != nil {
		return err
	}
	return attach(mnt, target)
}

// bind mounts what source is open on.
func bind(t tree, target string, source int, readOnly, recursive bool) error {
	mnt, err := bindMount(source, readOnly, recursive)
	if err != nil {
		return err
	}
	return mountOn(t, target, source, mnt)
}

// bindMount makes a mount of what source is open on. Attributes are only ever
// added, so what the host locked (read-only, nosuid, noexec) stays.
func bindMount(source int, readOnly, recursive bool) (int, error) {
	mnt, err := clone(source, recursive)
	if err != nil {
		return -1, err
	}
	attr := uint64(unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID)
	if readOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if err := restrict(mnt, attr, recursive); err != nil {
		unix.Close(mnt)
		return -1, err
	}
	return mnt, nil
}

// mountOn attaches a mount of source, which is closed.
func mountOn(t tree, target string, source, mnt int) error {
	var st unix.Stat_t
	if err := unix.Fstat(source, &st); err != nil {
		unix.Close(mnt)
		return err
	}
	at, err := -1, error(nil)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		at, err = t.folder(target, 0o755)
	} else {
		at, err = t.file(target)
	}
	if err != nil {
		unix.Close(mnt)
		return err
	}
	return attach(mnt, at)
}

func (p *Plan) writeFiles(t tree) error {
	for name, content := range p.Files {
		if err := t.replaceFile(name, content); err != nil {
			return err
		}
	}
	for name, file := range p.Links {
		if err := t.replaceLink(name, ownLinks+file, true); err != nil {
			return err
		}
	}
	for name, file := range p.DefaultLinks {
		if err := t.replaceLink(name, ownLinks+file, false); err != nil {
			return err
		}
	}
	if p.KeepJournal {
		// A root that has something else there does without.
		if journal, err := t.folder(Journal, 0o755); err == nil {
			unix.Close(journal)
		}
	}
	if p.Localtime == "" {
		return nil
	}
	dir, err := t.folder("/etc", 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	// Only a link to a zone that the container has means anything to it.
	zone, err := t.open(path.Join("/etc", p.Localtime), inRoot)
	if err != nil {
		return nil
	}
	unix.Close(zone)
	buf := make([]byte, 256)
	n, err := unix.Readlinkat(dir, "localtime", buf)
	if err == nil && string(buf[:n]) == p.Localtime || err != nil && err != unix.ENOENT {
		return nil
	}
	_ = unix.Unlinkat(dir, "localtime", 0)
	if err := unix.Symlinkat(p.Localtime, dir, "localtime"); err != nil {
		return &os.PathError{Op: "symlink in the container's root", Path: "/etc/localtime", Err: err}
	}
	return nil
}

// enter makes the root the process's root and lets go of the old one.
func enter(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// The old root goes on top of the new one and is unmounted there
	// (pivot_root(2), NOTES), so no folder is needed for it.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the host's root: %w", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}
