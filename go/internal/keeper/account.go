package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// account is who a command runs as.
type account struct {
	UID, GID    int
	Groups      []uint32
	Name        string
	Home, Shell string
}

// maxDatabase bounds /etc/passwd and /etc/group of a container, in bytes.
const maxDatabase = 4 << 20

// findUser looks USER[:GROUP] up in the container's own /etc/passwd and
// /etc/group. The calling thread is in the container.
func findUser(spec string) (account, error) {
	passwd, err := readDatabase("/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := readDatabase("/etc/group")
	if err != nil {
		return account{}, err
	}
	return lookUp(spec, passwd, group)
}

// lookUp reads what may be anything: the container writes both.
func lookUp(spec string, passwd, group []byte) (account, error) {
	if spec == "" {
		spec = "0"
	}
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		if errors.Is(err, user.ErrNoPasswdEntries) || errors.Is(err, user.ErrNoGroupEntries) {
			return account{}, fmt.Errorf("user %q: the container has no such user or group: see its /etc/passwd", spec)
		}
		return account{}, fmt.Errorf("user %q: %w: see /etc/passwd and /etc/group of the container", spec, err)
	}
	// The library takes any number of a file for an id. -1, as 32 bits, would
	// leave the thread the user that it is (setresuid(2)): run by root, the host's.
	if !userns.IsID(found.Uid) || !userns.IsID(found.Gid) {
		return account{}, fmt.Errorf("user %q: is %d:%d, which are no ids: see /etc/passwd and /etc/group of the container", spec, found.Uid, found.Gid)
	}
	a := account{UID: found.Uid, GID: found.Gid, Home: found.Home, Shell: "/bin/sh"}
	// The primary group is among the supplementary ones, as initgroups(3)
	// leaves them.
	a.Groups = append(a.Groups, uint32(found.Gid))
	for _, g := range found.Sgids {
		if g != found.Gid && userns.IsID(g) {
			a.Groups = append(a.Groups, uint32(g))
		}
	}
	entries, _ := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == found.Uid })
	if len(entries) > 0 {
		a.Name = entries[0].Name
		if strings.HasPrefix(entries[0].Shell, "/") {
			a.Shell = entries[0].Shell
		}
	} else if found.Uid == 0 {
		a.Name, a.Home = "root", "/root"
	}
	return a, nil
}

// readDatabase reads a file that the container controls: it must be a regular
// one, since opening or reading another kind may never return.
func readDatabase(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxDatabase {
		return nil, fmt.Errorf("%s of the container is no regular file of at most 4 MiB", name)
	}
	return io.ReadAll(io.LimitReader(f, maxDatabase))
}

// defaultPath covers NixOS and the FHS.
const defaultPath = "/run/wrappers/bin:/run/current-system/sw/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is built, never inherited: what the keeper has is the host's.
func environment(a account, added []string) []string {
	env := []string{"PATH=" + defaultPath, "HOME=" + a.Home, "SHELL=" + a.Shell, "container=nuc"}
	if a.Name != "" {
		env = append(env, "USER="+a.Name, "LOGNAME="+a.Name)
	}
	env = append(env, added...)
	// The last of a name stands, where it is. There may be a million of them.
	kept, seen := make([]string, 0, len(env)), make(map[string]bool, len(env))
	for _, e := range slices.Backward(env) {
		name, _, _ := strings.Cut(e, "=")
		if !seen[name] {
			seen[name] = true
			kept = append(kept, e)
		}
	}
	slices.Reverse(kept)
	return kept
}
