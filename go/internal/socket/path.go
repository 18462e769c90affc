package socket

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// longest is how long the name of a Unix socket may be in its folder: sun_path
// (unix(7)) holds 108 bytes with the last NUL, and the name begins with "./".
// How long the folder's path is does not matter, as the thread goes there.
const longest = 105

// dialTimeout is how long a service may leave its backlog full.
const dialTimeout = 5 * time.Second

// split cuts a socket's path into its folder and its name.
func split(name string) (folder, base string, err error) {
	folder, base = path.Split(name)
	switch {
	case !path.IsAbs(name):
		return "", "", fmt.Errorf("socket %q: an absolute path was expected", name)
	case strings.ContainsRune(name, 0):
		return "", "", fmt.Errorf("socket %q: contains NUL", name)
	case base == "" || base == "." || base == "..":
		return "", "", fmt.Errorf("socket %s: is a folder: name a file in it", name)
	case len(base) > longest:
		return "", "", fmt.Errorf("socket %s: its name is of %d bytes, and the kernel takes %d: choose a shorter one", name, len(base), longest)
	case len(name) >= unix.PathMax:
		return "", "", fmt.Errorf("socket: its path is of %d bytes, and the kernel takes %d: choose a shorter one", len(name), unix.PathMax-1)
	}
	return folder, "./" + base, nil
}

// onThread calls f on a thread whose root, folder, umask and mount namespace
// are its own. The thread ends with it.
func onThread(enter, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_FS))
		if err == nil && enter != nil {
			err = enter()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// goTo makes the socket's folder the thread's, without the magic links of /proc.
func goTo(folder string) error {
	fd, err := unix.Openat2(unix.AT_FDCWD, folder, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return &os.PathError{Op: "open", Path: folder, Err: err}
	}
	defer unix.Close(fd)
	return os.NewSyscallError("fchdir", unix.Fchdir(fd))
}

func bindPath(f *os.File, p Place) error {
	folder, name, err := split(p.Path)
	if err != nil {
		return err
	}
	if err := goTo(folder); err != nil {
		return err
	}
	mode := p.Mode
	if mode == 0 {
		mode = 0o600
	}
	unix.Umask(0o777 &^ int(mode)) // so that nobody connects before its time
	return control(f, func(fd int) error {
		err := unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		if err == unix.EADDRINUSE && abandoned(name) {
			_ = unix.Unlink(name)
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
		}
		if err != nil {
			return os.NewSyscallError("bind", err)
		}
		return os.NewSyscallError("listen", unix.Listen(fd, backlog))
	})
}

// abandoned tells whether the file is a socket that nobody listens on.
func abandoned(name string) bool {
	var st unix.Stat_t
	if unix.Lstat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return false
	}
	f, err := open(Unix)
	if err != nil {
		return false
	}
	defer f.Close()
	err = control(f, func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: name}) })
	return errors.Is(err, unix.ECONNREFUSED)
}

// Dial connects to a Unix stream socket; enter is as for Listen.
func Dial(name string, enter func() error) (*os.File, error) {
	folder, base, err := split(name)
	if err != nil {
		return nil, err
	}
	f, err := open(Unix)
	if err != nil {
		return nil, err
	}
	if enter == nil && len(name) <= longest {
		// No thread for what happens at each connection.
		err = connect(f, name)
	} else {
		err = onThread(enter, func() error {
			if err := goTo(folder); err != nil {
				return err
			}
			return connect(f, base)
		})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("socket %s: %w", name, err)
	}
	return f, nil
}

// connect waits while the backlog is full, which a non-blocking socket does not
// (connect(2), EAGAIN).
func connect(f *os.File, name string) error {
	return control(f, func(fd int) error {
		wait := unix.NsecToTimeval(int64(dialTimeout))
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
		if err := unix.SetNonblock(fd, false); err != nil {
			return err
		}
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: name})
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{})
		if nerr := unix.SetNonblock(fd, true); err == nil {
			err = nerr
		}
		return os.NewSyscallError("connect", err)
	})
}

// Remove removes a socket that nobody listens on any more; enter is as for
// Listen. Anything else stays.
func Remove(name string, enter func() error) error {
	folder, base, err := split(name)
	if err != nil {
		return err
	}
	return onThread(enter, func() error {
		if err := goTo(folder); err != nil {
			return err
		}
		if !abandoned(base) {
			return nil
		}
		return os.NewSyscallError("unlink", unix.Unlink(base))
	})
}
