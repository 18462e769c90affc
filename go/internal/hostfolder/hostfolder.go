// Package hostfolder makes what is /run/host in a container: a folder in its
// runtime folder, of the files that systemd's container interface asks for
// (https://systemd.io/CONTAINER_INTERFACE), and some of nuc's own.
package hostfolder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/notify"
)

// Path is where it is, of a container with that runtime folder.
func Path(runtime string) string { return filepath.Join(runtime, "host") }

// Make makes and fills it, and listens at the notification socket in it, which
// the uid and the gid may write to.
func Make(runtime, uuid string, uid, gid int) (*notify.Socket, error) {
	dir := Path(runtime)
	for _, d := range []string{dir, filepath.Join(dir, "credentials")} {
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("runtime folder: %w", err)
		}
		if err := unix.Chmod(d, 0o755); err != nil {
			return nil, fmt.Errorf("runtime folder: %w", err)
		}
	}
	content := map[string]string{"container-manager": "nuc\n", "container-uuid": uuid + "\n"}
	if release, err := os.ReadFile("/etc/os-release"); err == nil {
		content["os-release"] = string(release)
	}
	for name, text := range content {
		if err := Publish(runtime, name, text); err != nil {
			return nil, err
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	folder := os.NewFile(uintptr(fd), dir)
	defer folder.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/notify", fd)
	if err := unix.Unlinkat(fd, "notify", 0); err != nil && err != unix.ENOENT { // an earlier run's
		return nil, &os.PathError{Op: "unlink", Path: dir + "/notify", Err: err}
	}
	socket, err := notify.Listen(folder, path, uid, gid)
	if err != nil {
		return nil, fmt.Errorf("notification socket in %s: %w", dir, err)
	}
	return socket, nil
}

// Publish puts a file into it. No link that might be there is followed.
func Publish(runtime, name, text string) error {
	path := filepath.Join(Path(runtime), name)
	part := path + ".part"
	_ = os.Remove(part)
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err == nil {
		_, err = f.WriteString(text)
		if err == nil {
			err = f.Chmod(0o644) // whatever the umask is
		}
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		return fmt.Errorf("runtime folder: %w", err)
	}
	return nil
}
