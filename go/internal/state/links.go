package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"golang.org/x/sys/unix"
)

// links, in the runtime folder, has a folder for each link. No container's name
// begins with a dot.
const links = ".links"

// Link is the runtime folder of a link, which need not exist.
type Link struct {
	Name   string
	Folder string
}

// Link names the folder of one link.
func (f Folders) Link(name string) Link {
	return Link{Name: name, Folder: filepath.Join(f.Runtime, links, name)}
}

// Links lists those there are, sorted.
func (f Folders) Links() ([]Link, error) {
	entries, err := os.ReadDir(filepath.Join(f.Runtime, links))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var all []Link
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, f.Link(e.Name()))
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// LockLinks makes the folder of the links and keeps others from making or
// removing one until it is closed.
func (f Folders) LockLinks() (*os.File, error) {
	path := filepath.Join(f.Runtime, links)
	for {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("runtime folder: %w", err)
		}
		dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue // the last link is just removing it
		}
		if err != nil {
			return nil, fmt.Errorf("runtime folder: %w", err)
		}
		if err := flock(dir, unix.LOCK_EX); err != nil {
			dir.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		if sameFile(int(dir.Fd()), path) {
			return dir, nil
		}
		dir.Close()
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err != unix.EINTR {
			return err
		}
	}
}

// Acquire makes the link's folder and takes its lock, ErrHeld if somebody has it.
func (l Link) Acquire() (*Lock, error) { return acquireFolder(l.Folder) }

// Held tells whether the link's lock is held: whether its process runs.
func (l Link) Held() bool { return heldFolder(l.Folder) }

// Holder returns the pid of the link's process, as Container.Holder does.
func (l Link) Holder() int { return holderOf(l.Folder) }

// Write replaces a file of the link's folder.
func (l Link) Write(name string, data []byte) error {
	return writeFile(filepath.Join(l.Folder, name), data)
}

// Read returns a file of the link's folder.
func (l Link) Read(name string) ([]byte, error) { return os.ReadFile(filepath.Join(l.Folder, name)) }

// Remove removes the link's folder, whose lock is held, and that of the links
// where it was the last.
func (l Link) Remove(lock *Lock) error {
	err := lock.Tidy()
	parent := filepath.Dir(l.Folder)
	dir, oerr := os.Open(parent)
	if oerr != nil {
		return err
	}
	defer dir.Close()
	// Whoever has it is making a link, which removes the folder in its time.
	if flock(dir, unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = unix.Rmdir(parent)
	}
	return err
}

// UnlockLinks ends LockLinks, and removes the folder of the links if none is left.
func UnlockLinks(dir *os.File) {
	_ = unix.Rmdir(dir.Name()) // not where there are some
	dir.Close()
}
