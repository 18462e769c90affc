package rootowned

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// store makes a store path: read-only, with links in and out of it.
func store(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(filepath.Join(path, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, mode := range map[string]os.FileMode{"bin/sudo": 0o555, "conf": 0o444, "secret": 0o400} {
		if err := os.WriteFile(filepath.Join(path, file), []byte("the "+file), mode); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"in": "bin/sudo", "out": "/etc/passwd", "nowhere": "../../none"} {
		if err := os.Symlink(target, filepath.Join(path, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", ""} {
		if err := os.Chmod(filepath.Join(path, dir), 0o555); err != nil {
			t.Fatal(err)
		}
	}
	writable(t, path)
	return path
}

// writable makes folders such that the test's own can be removed in the end.
func writable(t *testing.T, dir string) {
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				return os.Chmod(p, 0o700)
			}
			return nil
		})
	})
}

func cache(t *testing.T) *Cache {
	t.Helper()
	c := &Cache{Folder: filepath.Join(t.TempDir(), "cache"), UID: os.Getuid(), GID: os.Getgid()}
	writable(t, c.Folder)
	return c
}

// describe lists a tree with modes, owners and contents.
func describe(t *testing.T, top string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(top, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		text := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			text, err = os.Readlink(p)
		case unix.S_IFREG:
			var data []byte
			data, err = os.ReadFile(p)
			text = string(data)
		}
		rel, _ := filepath.Rel(top, p)
		found[rel] = fmt.Sprintf("%o %d:%d %s", st.Mode, st.Uid, st.Gid, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCopy(t *testing.T) {
	path := store(t, "4yzd-sudo")
	c := cache(t)
	copied, err := c.Copy(path)
	if err != nil {
		t.Fatal(err)
	}
	want := describe(t, path)
	if diff := cmp.Diff(want, describe(t, copied)); diff != "" {
		t.Error(diff)
	}
	if len(want) != 8 {
		t.Errorf("%d entries were compared, want 8", len(want))
	}
	if st, err := os.Stat(filepath.Dir(copied)); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("others may enter the cache: %v, %v", st.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(copied), ".copying-*")); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func TestCopyOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files away")
	}
	path := store(t, "4yzd-sudo")
	c := cache(t)
	c.UID, c.GID = 64123, 64124
	copied, err := c.Copy(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range describe(t, copied) {
		if !strings.Contains(text, " 64123:64124 ") {
			t.Errorf("%s is %s", name, text)
		}
	}
	c.UID = 64125
	other, err := c.Copy(path)
	if err != nil || other == copied {
		t.Errorf("two owners share %s, %v", other, err)
	}
}

// TestCopyOnce: a finished copy is good for ever, an unfinished one is none.
func TestCopyOnce(t *testing.T) {
	path := store(t, "4yzd-sudo")
	c := cache(t)
	first, err := c.Copy(path)
	if err != nil {
		t.Fatal(err)
	}
	var before, after unix.Stat_t
	if err := unix.Stat(first, &before); err != nil {
		t.Fatal(err)
	}
	again, err := c.Copy(path)
	if err != nil || again != first {
		t.Errorf("%s, %v, want %s", again, err, first)
	}
	if err := unix.Stat(first, &after); err != nil || after.Ino != before.Ino {
		t.Errorf("copied again: %v", err)
	}
}

func TestCopyFileOrLink(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "abc-file")
	if err := os.WriteFile(file, []byte("x"), 0o444); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "abc-link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	c := cache(t)
	for _, path := range []string{file, link} {
		copied, err := c.Copy(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(describe(t, path), describe(t, copied)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestCopyAtOnce(t *testing.T) {
	path := store(t, "4yzd-sudo")
	c := cache(t)
	want := describe(t, path)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			copied, err := c.Copy(path)
			if err != nil {
				t.Error(err)
				return
			}
			for name, text := range want {
				if _, err := os.Lstat(filepath.Join(copied, name)); err != nil {
					t.Errorf("not whole when it is returned: %s, %s, %v", name, text, err)
				}
			}
		})
	}
	all.Wait()
	entries, err := os.ReadDir(filepath.Join(c.Folder, "root-owned", fmt.Sprint(c.UID)))
	if err != nil || len(entries) != 1 {
		t.Errorf("in the cache are %v, %v, want the copy alone", entries, err)
	}
	if diff := cmp.Diff(want, describe(t, filepath.Join(c.Folder, "root-owned", fmt.Sprint(c.UID), "4yzd-sudo"))); diff != "" {
		t.Error(diff)
	}
}

func TestCopyFails(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "abc-fifo")
	if err := errors.Join(os.Mkdir(fifo, 0o755), unix.Mkfifo(filepath.Join(fifo, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want string
	}{
		{"missing", filepath.Join(t.TempDir(), "abc-none"), "build it first"},
		{"fifo", fifo, "is no file, folder or link"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := cache(t)
			copied, err := c.Copy(test.path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s, %v, want one line with %q and the path", copied, err, test.want)
			}
			if left, _ := filepath.Glob(filepath.Join(c.Folder, "root-owned/*/*")); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
	t.Run("cache is no folder", func(t *testing.T) {
		c := cache(t)
		if err := os.WriteFile(c.Folder, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Copy(store(t, "abc")); err == nil || !strings.Contains(err.Error(), "cache folder") {
			t.Error(err)
		}
	})
}

func TestProgress(t *testing.T) {
	path := filepath.Join(t.TempDir(), "abc-many")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := os.WriteFile(filepath.Join(path, fmt.Sprint(i)), nil, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	c := cache(t)
	var told []int
	c.Progress = func(p string, files int) {
		if p != path {
			t.Errorf("told of %s", p)
		}
		told = append(told, files)
	}
	if _, err := c.Copy(path); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{64, 128, 192}, told); diff != "" {
		t.Error(diff)
	}
}
