package state

import (
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Watch sees what happens in a container's runtime folder and to it, whether it
// is there yet or not.
type Watch struct {
	folder string
	// Events that are asked for in the folder, and in the one above.
	inside, above uint32
	file          *os.File
}

// A socket has the change of its mode (IN_ATTRIB) behind it once it listens.
const appears = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ATTRIB

// disappears is asked of the folder above as well: what is open has its own end
// (IN_DELETE_SELF) only when it is closed.
const disappears = unix.IN_DELETE | unix.IN_MOVED_FROM

// Watch begins to watch for what is made.
func (c Container) Watch() (*Watch, error) { return c.watch(appears, unix.IN_CREATE) }

// WatchRemoval begins to watch for what is removed.
func (c Container) WatchRemoval() (*Watch, error) { return c.watch(disappears, disappears) }

func (c Container) watch(inside, above uint32) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &Watch{folder: c.Runtime, inside: inside | unix.IN_ONLYDIR, above: above | unix.IN_ONLYDIR, file: os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(c.Runtime), w.above); err != nil {
		w.Close()
		return nil, &os.PathError{Op: "inotify_add_watch", Path: filepath.Dir(c.Runtime), Err: err}
	}
	return w, w.enter()
}

// enter watches the folder itself if it is there: a new one after each start. The
// one above may be new as well.
func (w *Watch) enter() error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		_, _ = unix.InotifyAddWatch(int(fd), filepath.Dir(w.folder), w.above)
		_, _ = unix.InotifyAddWatch(int(fd), w.folder, w.inside)
	})
}

// Wait waits until something has happened since Watch or the last Wait, or the
// time is over (0: for ever), or Close is called: then it fails.
func (w *Watch) Wait(timeout time.Duration) error {
	deadline := time.Time{}
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	if err := w.file.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err := w.file.Read(make([]byte, 4096))
	if err != nil && !os.IsTimeout(err) {
		return err
	}
	return w.enter()
}

// Close ends the watch, and a Wait that is under way.
func (w *Watch) Close() { w.file.Close() }
