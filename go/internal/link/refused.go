package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/listener"
	"github.com/nix-user-containers/nuc/go/internal/socket"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// listen opens listeners of the client's, at a place and the ports after it, or
// none. The error is one line that says where, why, and what to do.
func (p *process) listen(place socket.Place, count int) ([]*os.File, error) {
	name := p.spec.Client.Container
	if name == "" && place.Network != socket.Unix {
		files, _, err := listener.OpenRange(listener.Address{Protocol: p.spec.Protocol, Host: netip.MustParseAddr(place.Address), Port: place.Port}, count)
		return files, err
	}
	if name == "" {
		file, err := socket.Listen(place, nil)
		return []*os.File{file}, p.refused(place, err)
	}
	if place.Network == socket.Unix {
		place.Mode = 0o666 // the container's own users are those who connect
	}
	files, err := supervisor.Listen(p.ctx, p.f.Container(name), place, count)
	return files, p.refused(place, err)
}

// refusedError is a place that can't be listened on.
type refusedError struct {
	text string
	err  error
}

func (e refusedError) Error() string { return e.text }
func (e refusedError) Unwrap() error { return e.err }

// refused explains why a place can't be listened on; nil is no error.
func (p *process) refused(place socket.Place, err error) error {
	if err == nil {
		return nil
	}
	name := p.spec.Client.Container
	var taken supervisor.RefusedError
	if errors.As(err, &taken) && taken.Port != 0 {
		place.Port = taken.Port
	}
	where, in, see := place.String(), "", ""
	if name != "" {
		where, in, see = "container "+name+": "+where, " in the container", "nuc exec "+name+" ss -lnp"
	}
	other := ""
	if errors.Is(err, unix.EADDRINUSE) {
		other = p.holder(place.Address)
	}
	why := err.Error()
	switch {
	case other != "":
		why = fmt.Sprintf("link %s listens there already: end it with `nuc unlink %s`, or choose another place", other, other)
	case errors.Is(err, unix.EADDRINUSE) && place.Network == socket.Unix:
		why = fmt.Sprintf("there is something of that name already%s: remove it, or choose another path", in)
	case taken.Holder != "":
		why = taken.Holder + " listens there already: stop it, or choose another port"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		why = fmt.Sprintf("no file descriptor is left for it: link fewer ports than %d", p.spec.Count)
	case errors.Is(err, unix.EADDRINUSE):
		why = fmt.Sprintf("something listens there already (`%s` shows what): stop it, or choose another port", see)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		why = fmt.Sprintf("there is no folder %s%s: make it, or choose another path", path.Dir(place.Path), in)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		why = "the container has no such address"
	case errors.Is(err, unix.EACCES) && place.Network != socket.Unix:
		why = "it is in the host's network, where the port needs a right that you don't have: choose a higher one"
	}
	return refusedError{where + ": " + why, err}
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
