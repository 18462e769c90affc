package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// removed is how the names of folders begin that are being removed: whatever
// stops the removal, what is left is no container any more.
const removed = ".removed-"

// Forget removes what nuc knows of the container and keeps its root file
// system. The caller holds the lock.
func (c Container) Forget() error {
	c.dropUnfinished()
	for _, name := range []string{"current", "current.new", "exit.json", "origin.json", "supervisor.log", built} {
		if err := os.RemoveAll(filepath.Join(c.State, name)); err != nil {
			return fmt.Errorf("state folder: %w", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(c.State, generations)); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	// It goes where there is nothing to keep: a container with an ephemeral root.
	if entries, err := os.ReadDir(c.State); err == nil && len(entries) == 1 && entries[0].Name() == "uuid" {
		_ = os.Remove(filepath.Join(c.State, "uuid"))
	}
	_ = os.Remove(c.State)
	return nil
}

// SetAside takes the container's state folder out of sight, in one step, to be
// removed by RemoveAside. The caller holds the lock.
func (c Container) SetAside() error {
	aside, err := os.MkdirTemp(filepath.Dir(c.State), removed+c.Name+"-*")
	if err == nil {
		err = os.Rename(c.State, filepath.Join(aside, c.Name))
	}
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// Aside lists the folders that SetAside made and nobody has removed yet.
func (f Folders) Aside() ([]string, error) {
	entries, err := os.ReadDir(f.State)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var folders []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), removed) {
			folders = append(folders, filepath.Join(f.State, e.Name()))
		}
	}
	return folders, nil
}

// RemoveTree removes a folder and all in it, never following a symbolic link
// out of it. Progress, if not nil, is told how many files are gone.
func RemoveTree(path string, progress func(files int)) error {
	fd, err := unix.Open(path, folderFlags, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	// Each command that removes state removes what an earlier one left, too: one
	// of two at a time would take from the other what it is just looking at.
	for unix.Flock(fd, unix.LOCK_EX) == unix.EINTR {
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Nlink == 0 {
		return nil
	}
	if err := empty(fd, "", progress); err != nil {
		return fmt.Errorf("removing %s: %w", path, err)
	}
	if err := unix.Rmdir(path); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: path, Err: err}
	}
	return nil
}

const folderFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// empty removes all entries of a folder but one. Folders in it that are not
// empty are moved to the top and emptied there in their turn: so whatever depth
// a container has nested them to, only two are open at a time.
func empty(top int, keep string, progress func(int)) error {
	e := &emptying{top: top, progress: progress}
	if err := e.clear(top, keep); err != nil {
		return err
	}
	for len(e.moved) > 0 {
		name := e.moved[len(e.moved)-1]
		e.moved = e.moved[:len(e.moved)-1]
		if err := e.folder(name); err != nil {
			return err
		}
	}
	return nil
}

type emptying struct {
	top      int
	moved    []string // folders in top, waiting
	names    int
	files    int
	progress func(int)
}

// folder removes a folder of the top.
func (e *emptying) folder(name string) error {
	sub, err := unix.Openat(e.top, name, folderFlags, 0)
	if err == unix.EACCES && unix.Fchmodat(e.top, name, 0o700, 0) == nil {
		sub, err = unix.Openat(e.top, name, folderFlags, 0)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	err = e.clear(sub, "")
	unix.Close(sub)
	if err != nil {
		return err
	}
	return e.attempt(e.top, name, func() error { return unix.Unlinkat(e.top, name, unix.AT_REMOVEDIR) })
}

// clear removes the entries of a folder, or moves them to the top.
func (e *emptying) clear(folder int, keep string) error {
	fd, err := unix.Openat(folder, ".", folderFlags, 0)
	if err == unix.EACCES && unix.Fchmod(folder, 0o700) == nil {
		fd, err = unix.Openat(folder, ".", folderFlags, 0)
	}
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	dir := os.NewFile(uintptr(fd), "folder")
	defer dir.Close()
	// Once for all: deleting while reading may skip entries (readdir(3)).
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == keep {
			continue
		}
		err := e.attempt(folder, name, func() error { return e.entry(folder, name) })
		if err != nil {
			return err
		}
		if e.files++; e.progress != nil && e.files%1024 == 0 {
			e.progress(e.files)
		}
	}
	return nil
}

func (e *emptying) entry(folder int, name string) error {
	err := unix.Unlinkat(folder, name, 0)
	if err != unix.EISDIR {
		return err
	}
	err = unix.Unlinkat(folder, name, unix.AT_REMOVEDIR)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	for {
		aside := removed + strconv.Itoa(e.names)
		e.names++
		// RENAME_NOREPLACE: a container may have thought of that name as well.
		err := unix.Renameat2(folder, name, e.top, aside, unix.RENAME_NOREPLACE)
		if err == nil {
			e.moved = append(e.moved, aside)
		}
		if err != unix.EEXIST {
			return err
		}
	}
}

// attempt removes what forbids a removal, and tries once more: the immutable
// and append-only flags of a file or folder, or of the folder that it is in
// (chattr(1); systemd sets the first one on /var/empty), and missing rights of
// a folder.
func (e *emptying) attempt(folder int, name string, do func() error) error {
	err := do()
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err == unix.EPERM || err == unix.EACCES {
		_ = clearFlags(folder, ".")
		_ = clearFlags(folder, name)
		var st unix.Stat_t
		if unix.Fstat(folder, &st) == nil && st.Mode&0o700 != 0o700 {
			_ = unix.Fchmod(folder, 0o700)
		}
		if unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			_ = unix.Fchmodat(folder, name, 0o700, 0)
		}
		again := do()
		if again == nil || again == unix.ENOENT {
			return nil
		}
	}
	where := name
	if path, rerr := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", folder)); rerr == nil {
		where = filepath.Join(path, name)
	}
	if err == unix.EPERM {
		return fmt.Errorf("%s: %w: if it is immutable (lsattr shows i or a), only root can remove it: sudo chattr -R -ia %s", where, err, filepath.Dir(where))
	}
	return &os.PathError{Op: "remove", Path: where, Err: err}
}

// forbidding are FS_IMMUTABLE_FL and FS_APPEND_FL (linux/fs.h).
const forbidding = 0x10 | 0x20

// clearFlags takes the flags off that forbid a removal (ioctl_iflags(2)). Only
// root of the host may.
func clearFlags(folder int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil // no other kind has them, and opening one may wait
	}
	fd, err := unix.Openat(folder, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	if flags&forbidding == 0 {
		return nil
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^forbidding))
}
