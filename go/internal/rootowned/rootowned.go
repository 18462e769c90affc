// Package rootowned keeps copies of store paths that belong to a container's
// root. The Nix store belongs to an id that a container does not have, and a
// few programs refuse files that are not root's.
package rootowned

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Cache is a folder of copies for one owner, numeric ids of the host.
type Cache struct {
	Folder   string
	UID, GID int
	// Progress, if not nil, is told of a copy under way.
	Progress func(path string, files int)
}

// Copy returns the copy of a store path and makes it at its first use. Store
// paths never change, so a finished copy is good for ever.
func (c *Cache) Copy(path string) (string, error) {
	dir := filepath.Join(c.Folder, "root-owned", strconv.Itoa(c.UID))
	target := filepath.Join(dir, filepath.Base(path))
	if _, err := os.Lstat(target); err == nil {
		return target, nil
	}
	if _, err := os.Lstat(path); err != nil {
		return "", fmt.Errorf("rootOwned: %s: %w: build it first", path, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("rootOwned: cache folder: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".copying-*")
	if err != nil {
		return "", fmt.Errorf("rootOwned: cache folder: %w", err)
	}
	defer removeAll(tmp)
	whole := filepath.Join(tmp, filepath.Base(path))
	if err := c.copyTree(path, whole); err != nil {
		return "", fmt.Errorf("rootOwned: copying %s: %w", path, err)
	}
	err = rename(whole, target)
	if _, there := os.Lstat(target); err != nil && there != nil {
		return "", fmt.Errorf("rootOwned: %w", err)
	}
	return target, nil // else another start was quicker; its copy is the same
}

// rename needs the folder itself writable, as its ".." changes (rename(2));
// store folders are not.
func rename(from, to string) error {
	st, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if st.IsDir() {
		if err := os.Chmod(from, 0o755); err != nil {
			return err
		}
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if st.IsDir() {
		return os.Chmod(to, st.Mode().Perm())
	}
	return nil
}

func (c *Cache) copyTree(from, to string) error {
	files := 0
	type folder struct {
		path string
		mode fs.FileMode
	}
	var folders []folder
	err := filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		info, err := e.Info()
		if err != nil {
			return err
		}
		switch {
		case e.IsDir():
			folders = append(folders, folder{dst, info.Mode().Perm()})
			err = os.Mkdir(dst, 0o755)
		case e.Type()&fs.ModeSymlink != 0:
			var link string
			if link, err = os.Readlink(p); err == nil {
				err = os.Symlink(link, dst)
			}
		case e.Type().IsRegular():
			err = copyFile(p, dst, info.Mode().Perm())
		default:
			return fmt.Errorf("%s is no file, folder or link", p)
		}
		if err != nil {
			return err
		}
		if files++; c.Progress != nil && files%64 == 0 {
			c.Progress(from, files)
		}
		if c.UID == os.Getuid() {
			return nil
		}
		return os.Lchown(dst, c.UID, c.GID)
	})
	if err != nil {
		return err
	}
	for i := len(folders) - 1; i >= 0; i-- {
		if err := os.Chmod(folders[i].path, folders[i].mode); err != nil {
			return err
		}
	}
	return nil
}

// copyFile shares the data where the file system can (FICLONE, ioctl_ficlone(2)).
func copyFile(from, to string, mode fs.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		_, err = io.Copy(dst, src)
	}
	if cerr := dst.Chmod(mode); err == nil {
		err = cerr
	}
	return errors.Join(err, dst.Close())
}

// removeAll removes folders that are not writable, too.
func removeAll(dir string) {
	_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}
