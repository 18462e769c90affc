package link

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// refusedError is a place that can't be listened on: one line that says where,
// why, and what to do.
type refusedError struct {
	text string
	err  error
}

func (e refusedError) Error() string { return e.text }
func (e refusedError) Unwrap() error { return e.err }

// refused explains why a place can't be listened on.
func (p *process) refused(place socket.Place, err error) error {
	where, in := place.String(), ""
	if p.spec.Client.Container != "" {
		where, in = "container "+p.spec.Client.Container+": "+where, " in the container"
	}
	say := func(format string, a ...any) error {
		return refusedError{where + ": " + fmt.Sprintf(format, a...), err}
	}
	switch {
	case errors.Is(err, supervisor.ErrNotRunning):
		return say("%v", err)
	case place.Network == socket.Unix:
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			if other := p.holder(place.Address); other != "" {
				return say("link %s listens there already: end it with `nuc unlink %s`", other, other)
			}
			return say("something has that name already%s: remove it, or choose another path", in)
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return say("there is no folder %s%s: make it, or choose another path", path.Dir(place.Path), in)
		}
		return say("%v", err)
	case errors.Is(err, unix.EADDRINUSE):
		if other := p.holder(place.Address); other != "" {
			return say("link %s listens there already: end it with `nuc unlink %s`, or choose another port", other, other)
		}
		if in != "" {
			return say("something listens there already (`nuc exec %s ss -lnp` shows what): stop it, or choose another port", p.spec.Client.Container)
		}
		return say("something listens there already (`ss -lnp` shows what): stop it, or choose another port")
	case errors.Is(err, unix.EACCES):
		return say("ports below %s need a right that you don't have: choose a higher port", firstUnprivileged())
	case errors.Is(err, unix.EADDRNOTAVAIL):
		if in != "" {
			return say("the container has no such address")
		}
		return say("this machine has no such address")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return say("no file descriptor is left for it (%v): make the range smaller, or raise the limit with `ulimit -n`", err)
	}
	return say("%v", err)
}

// holder is the link that listens at an address, "" if it is none.
func (p *process) holder(address string) string {
	others, _ := p.f.Links()
	for _, l := range others {
		if l.Name == p.name {
			continue
		}
		if s, err := Read(l); err == nil && p.spec.clash(s, address) {
			return l.Name
		}
	}
	return ""
}

func firstUnprivileged() string {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return "1024"
	}
	return string(data[:len(data)-1])
}
