package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is a container's root while it is being put together. Every path below
// it is resolved by the kernel against the root's descriptor (openat2(2),
// RESOLVE_IN_ROOT): symbolic links in it are a container's own doing and end
// inside it, wherever they point.
type tree struct {
	fd int
}

const inRoot = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

// open opens an existing path below the root as O_PATH.
func (t tree) open(p string, resolve uint64) (int, error) {
	// EAGAIN: a rename or mount elsewhere raced with a ".." (openat2(2)).
	for range 128 {
		fd, err := unix.Openat2(t.fd, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve})
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// folder opens the folder p and makes it, with its parents, where it is missing.
func (t tree) folder(p string, mode uint32) (int, error) {
	fd, err := t.open(p, inRoot)
	if err == unix.ENOENT {
		fd, err = t.makeFolder(p, mode)
	}
	if err != nil {
		return -1, t.explain(p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return -1, fmt.Errorf("%s in the container's root is no folder", p)
	}
	return fd, nil
}

// makeFolder makes the last missing part of p. A dangling link on the way
// exists for mkdirat and not for openat2: it is reported, not followed.
func (t tree) makeFolder(p string, mode uint32) (int, error) {
	parent, name := path.Split(path.Clean("/" + p))
	dir, err := t.open(parent, inRoot)
	if err == unix.ENOENT {
		dir, err = t.makeFolder(parent, mode)
	}
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	if err := unix.Mkdirat(dir, name, mode); err != nil {
		if err == unix.EEXIST {
			return -1, errDangling
		}
		return -1, err
	}
	return unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | unix.O_DIRECTORY | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
}

// file opens p, to mount something on it, and makes an empty file where there
// is nothing.
func (t tree) file(p string) (int, error) {
	fd, err := t.open(p, inRoot)
	if err == unix.ENOENT {
		var dir int
		parent, name := path.Split(path.Clean("/" + p))
		if dir, err = t.folder(parent, 0o755); err != nil {
			return -1, err
		}
		defer unix.Close(dir)
		fd, err = makeFile(dir, name)
	}
	return fd, t.explain(p, err)
}

// makeFile makes an empty file called name in a folder and returns it as O_PATH.
func makeFile(dir int, name string) (int, error) {
	if err := unix.Mknodat(dir, name, unix.S_IFREG|0o644, 0); err != nil {
		if err == unix.EEXIST {
			return -1, errDangling
		}
		return -1, err
	}
	return unix.Openat(dir, name, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
}

var errDangling = errors.New("a symbolic link that leads nowhere")

func (t tree) explain(p string, err error) error {
	switch err {
	case nil:
		return nil
	case errDangling:
		return fmt.Errorf("%s in the container's root goes through %w: remove the link", p, err)
	case unix.ELOOP:
		return fmt.Errorf("%s in the container's root goes through a link that can't be followed: remove the link", p)
	}
	return &os.PathError{Op: "resolve in the container's root", Path: p, Err: err}
}

// apiFolder opens a folder that a kernel file system goes on. It must be a real
// folder: a link there is an attack (CVE-2019-19921) or a mistake, as pid 1
// would find something else than what it was given.
func (t tree) apiFolder(p string) (int, error) {
	fd, err := t.open(p, inRoot|unix.RESOLVE_NO_SYMLINKS)
	if err == unix.ENOENT {
		fd, err = t.makeFolder(p, 0o755)
	}
	if err == unix.ELOOP {
		return -1, fmt.Errorf("/%s in the container's root is a symbolic link and must be a folder: remove the link", strings.TrimPrefix(p, "/"))
	}
	if err == nil {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
			unix.Close(fd)
			return -1, fmt.Errorf("/%s in the container's root must be a folder: remove what is there", strings.TrimPrefix(p, "/"))
		}
	}
	return fd, t.explain(p, err)
}

// ownLinks is what the targets of the launcher's own links begin with.
const ownLinks = "/run/host/"

// foreign tells whether there is a link, or something that is no file, that is
// not the launcher's: then it is the system's own affair. A link of the
// launcher's is removed.
func foreign(dir int, name string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Mode&unix.S_IFMT == unix.S_IFREG {
		return false, nil //nolint:nilerr // nothing is there
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), ownLinks) {
		return true, nil //nolint:nilerr // it is no link
	}
	return false, unix.Unlinkat(dir, name, 0)
}

// replaceFile writes a small file in the root's /etc, unless what is in its
// place is foreign.
func (t tree) replaceFile(p, content string) error {
	parent, name := path.Split(p)
	dir, err := t.folder(parent, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if left, err := foreign(dir, name); left || err != nil {
		return err
	}
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   unix.O_RDWR | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK,
		Mode:    0o644,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return &os.PathError{Op: "write in the container's root", Path: p, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, len(content)+1)
	if n, err := unix.Pread(fd, buf, 0); err == nil && string(buf[:n]) == content {
		return nil
	}
	if _, err := unix.Pwrite(fd, []byte(content), 0); err != nil {
		return &os.PathError{Op: "write in the container's root", Path: p, Err: err}
	}
	return os.NewSyscallError("ftruncate", unix.Ftruncate(fd, int64(len(content))))
}

// replaceLink makes a link to a file of the launcher's, unless what is in its
// place is foreign; without replace, unless anything is.
func (t tree) replaceLink(p, target string, replace bool) error {
	parent, name := path.Split(p)
	dir, err := t.folder(parent, 0o755)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if left, err := foreign(dir, name); left || err != nil {
		return err
	}
	if replace {
		err = unix.Unlinkat(dir, name, 0)
	}
	if err == nil || err == unix.ENOENT {
		err = unix.Symlinkat(target, dir, name)
	}
	if err == unix.EEXIST && !replace {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "link in the container's root", Path: p, Err: err}
	}
	return nil
}
