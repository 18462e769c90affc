// Package state holds what nuc keeps on disk: where its folders are, the lock
// that says who runs a container, a container's generations and its last exit.
//
// Whether a container runs is asked of the kernel (a held lock), never of a
// file's content.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"

	"golang.org/x/sys/unix"
)

// Folders are nuc's three folders (XDG base directory specification).
type Folders struct {
	State   string // $XDG_STATE_HOME/nuc
	Runtime string // $XDG_RUNTIME_DIR/nuc
	Cache   string // $XDG_CACHE_HOME/nuc
}

// FindFolders says where nuc's folders are, and makes the runtime folder if it
// is missing. Relative XDG values are ignored, as the specification asks.
func FindFolders(getenv func(string) string, home string, uid int) (Folders, error) {
	xdg := func(name, fallback string) string {
		if v := getenv(name); filepath.IsAbs(v) {
			return v
		}
		return filepath.Join(home, fallback)
	}
	if home == "" && !(filepath.IsAbs(getenv("XDG_STATE_HOME")) && filepath.IsAbs(getenv("XDG_CACHE_HOME"))) {
		return Folders{}, errors.New("HOME is not set: nuc does not know where its state folder is; set HOME or XDG_STATE_HOME and XDG_CACHE_HOME")
	}
	runtime, err := runtimeFolder(getenv("XDG_RUNTIME_DIR"), uid)
	if err != nil {
		return Folders{}, err
	}
	return Folders{
		State:   filepath.Join(xdg("XDG_STATE_HOME", ".local/state"), "nuc"),
		Runtime: runtime,
		Cache:   filepath.Join(xdg("XDG_CACHE_HOME", ".cache"), "nuc"),
	}, nil
}

// runtimeFolder tries $XDG_RUNTIME_DIR, then the folder that pam_systemd makes
// (a shell under su or sudo lacks the variable but must see the same
// containers), then a folder of the user's own.
//
// Root's containers outlast its sessions, and logind removes /run/user/0 with the
// last of them: so they are elsewhere.
func runtimeFolder(xdg string, uid int) (string, error) {
	user := filepath.Join("/run/user", strconv.Itoa(uid))
	if filepath.IsAbs(xdg) && (uid != 0 || filepath.Clean(xdg) != user) {
		return ownFolder(filepath.Join(xdg, "nuc"), uid)
	}
	if uid == 0 {
		return ownFolder("/run/nuc", uid)
	}
	if checkOwn(user, uid) == nil {
		return ownFolder(filepath.Join(user, "nuc"), uid)
	}
	return ownFolder(filepath.Join("/tmp", "nuc-"+strconv.Itoa(uid)), uid)
}

func ownFolder(path string, uid int) (string, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("runtime folder %s: %s does not exist: unset XDG_RUNTIME_DIR or make that folder", path, filepath.Dir(path))
		}
		return "", fmt.Errorf("runtime folder: %w", err)
	}
	return path, checkOwn(path, uid)
}

// checkOwn refuses a folder that somebody else made or can write to: sockets
// in it command containers.
func checkOwn(path string, uid int) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("runtime folder %s is no folder: remove it, or set XDG_RUNTIME_DIR", path)
	case int(st.Uid) != uid:
		return fmt.Errorf("runtime folder %s belongs to uid %d, not to you (uid %d): set XDG_RUNTIME_DIR to a folder of your own", path, st.Uid, uid)
	case st.Mode&0o077 != 0:
		return fmt.Errorf("runtime folder %s can be entered by others (mode %04o): chmod 700 it", path, st.Mode&0o7777)
	}
	return nil
}

// Names lists the containers that have a state folder, and those that have
// only a runtime folder, sorted.
func (f Folders) Names() ([]string, error) {
	seen := map[string]bool{}
	for _, dir := range []string{f.State, f.Runtime} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() && e.Name()[0] != '.' {
				seen[e.Name()] = true
			}
		}
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	sort.Strings(names)
	return names, nil
}

// Container names the two folders of one container; neither need exist.
func (f Folders) Container(name string) Container {
	return Container{
		Name:    name,
		State:   filepath.Join(f.State, name),
		Runtime: filepath.Join(f.Runtime, name),
	}
}

// Container is the folders of one container.
type Container struct {
	Name    string
	State   string
	Runtime string
}

// Exists tells whether the container was ever started, or failed to, and was not
// removed since.
func (c Container) Exists() bool {
	return isFolder(filepath.Join(c.State, generations)) || c.LastExit() != nil
}

// Built tells whether nuc build keeps a descriptor for the container, which need
// not have been started.
func (c Container) Built() bool {
	_, err := os.Lstat(filepath.Join(c.State, built))
	return err == nil
}

// BuiltRoot is the link that keeps what nuc build built from being collected.
func (c Container) BuiltRoot() string { return filepath.Join(c.State, built) }

const built = "built"

// HasState tells whether the container has a state folder: what was removed
// without its state has one, and exists no more.
func (c Container) HasState() bool { return isFolder(c.State) }

func isFolder(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// ErrHeld is returned by Acquire while another process holds the lock.
var ErrHeld = errors.New("held")

// Lock is a held container.
type Lock struct {
	// Folder is the runtime folder, open.
	Folder *os.File
	// File is the lock itself: whoever has it open keeps the container held.
	File *os.File
	// State is the container's state folder, locked as well, nil where there is
	// none: so no second start writes there after somebody has removed the runtime
	// folder of the first.
	State *os.File
}

// Acquire makes the runtime folder and takes the container's lock. It returns
// ErrHeld if somebody has it; Holder says who.
func (c Container) Acquire() (*Lock, error) {
	l, err := acquireFolder(c.Runtime)
	if err != nil {
		return nil, err
	}
	if err := l.lockState(c.State); err != nil && !errors.Is(err, os.ErrNotExist) {
		_ = l.Tidy()
		l.Close()
		return nil, err
	}
	return l, nil
}

// AcquireRuntime makes the runtime folder and takes the lock in it alone: for a
// container whose state folder is locked already.
func (c Container) AcquireRuntime() (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(c.Runtime), 0o700); err != nil {
		return nil, fmt.Errorf("runtime folder: %w", err)
	}
	return acquireFolder(c.Runtime)
}

// Renews tells whether Renew makes another folder, or only something in it is
// gone. That is as good as a new one, and its lock may be held by the keeper as
// well, so that it could not be taken again.
func (l *Lock) Renews(c Container) bool {
	return !sameFile(int(l.File.Fd()), filepath.Join(c.Runtime, "lock"))
}

// Replace has the lock of a new runtime folder in the place of an old one's. The
// state folder stays locked all the while; l is closed.
func (l *Lock) Replace(renewed *Lock) {
	renewed.State, l.State = l.State, nil
	l.Close()
}

// HoldState makes the container's state folder if it is missing, and locks it.
func (l *Lock) HoldState(c Container) error {
	if l.State != nil {
		return nil
	}
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		return err
	}
	return l.lockState(c.State)
}

func (l *Lock) lockState(path string) error {
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if err := flock(dir, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if err == unix.EWOULDBLOCK {
			return ErrHeld
		}
		return os.NewSyscallError("flock", err)
	}
	l.State = dir
	return nil
}

// Lost tells whether the runtime folder is not there any more, or its lock or
// the socket called name in it.
func (l *Lock) Lost(c Container, name string) bool {
	if !sameFile(int(l.File.Fd()), filepath.Join(c.Runtime, "lock")) {
		return true
	}
	_, err := os.Lstat(filepath.Join(c.Runtime, name))
	return errors.Is(err, os.ErrNotExist)
}

// Renew makes a runtime folder anew that was lost, and takes its lock.
func (l *Lock) Renew(c Container) (*Lock, error) {
	if !l.Renews(c) {
		return l, nil
	}
	renewed, err := c.AcquireRuntime()
	if err != nil {
		return nil, err
	}
	l.Replace(renewed)
	return renewed, nil
}

func acquireFolder(path string) (*Lock, error) {
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("runtime folder: %w", err)
		}
		dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // the last holder is just removing it
		}
		if err != nil {
			return nil, fmt.Errorf("runtime folder: %w", err)
		}
		fd, err := unix.Openat(int(dir.Fd()), "lock", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
		if err == unix.ENOENT {
			dir.Close()
			continue
		}
		if err != nil {
			dir.Close()
			return nil, &os.PathError{Op: "open", Path: filepath.Join(path, "lock"), Err: err}
		}
		l := &Lock{Folder: dir, File: os.NewFile(uintptr(fd), "lock")}
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			l.Close()
			if err == unix.EWOULDBLOCK {
				return nil, ErrHeld
			}
			return nil, os.NewSyscallError("flock", err)
		}
		// The last holder may have removed the file between our open and our
		// lock: then what we hold is not what the next one will find.
		if sameFile(fd, filepath.Join(path, "lock")) {
			return l, nil
		}
		l.Close()
	}
}

func sameFile(fd int, path string) bool {
	var a, b unix.Stat_t
	return unix.Fstat(fd, &a) == nil && unix.Stat(path, &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}

// Close releases the lock, unless another process has the files open too.
func (l *Lock) Close() {
	l.File.Close()
	l.Folder.Close()
	if l.State != nil {
		l.State.Close()
	}
}

// Holder returns the pid that took the lock, or 0 if nobody holds it or it
// can't be told. The kernel's own table is asked (/proc/locks, proc_locks(5)).
func (c Container) Holder() int {
	if pid := holderOf(c.Runtime); pid != 0 {
		return pid
	}
	return holderOfFile(c.State)
}

func holderOf(folder string) int { return holderOfFile(filepath.Join(folder, "lock")) }

func holderOfFile(path string) int {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	data, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	return holderIn(string(data), st.Dev, st.Ino)
}

// Held tells whether the container's lock is held.
func (c Container) Held() bool { return heldFolder(c.Runtime) || heldFile(c.State) }

func heldFolder(folder string) bool { return heldFile(filepath.Join(folder, "lock")) }

func heldFile(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	// A shared lock asked for in passing could make a start that comes at the
	// same moment fail, so it is only asked for where the table has no answer.
	if holderOfFile(path) != 0 {
		return true
	}
	return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// Tidy removes what a container leaves in its runtime folder when it stops, and
// the folder. The caller must hold the lock.
func (l *Lock) Tidy() error {
	// Its files are closed when it is collected, which it may be from the last
	// use of it on: os.File.Fd keeps nothing.
	defer runtime.KeepAlive(l)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", l.Folder.Fd()))
	if err != nil {
		return err
	}
	return tidy(int(l.Folder.Fd()), path)
}

func tidy(folder int, path string) error {
	if err := empty(folder, "lock", nil); err != nil {
		return err
	}
	// Last, as it ends the lock's meaning; a start that waits for it retries.
	if err := unix.Unlinkat(folder, "lock", 0); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "unlink", Path: filepath.Join(path, "lock"), Err: err}
	}
	if err := unix.Rmdir(path); err != nil && err != unix.ENOENT && err != unix.ENOTEMPTY {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}
