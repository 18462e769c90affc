package starter

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/gcroot"
	"github.com/nix-user-containers/nuc/go/internal/hostfolder"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/listener"
	"github.com/nix-user-containers/nuc/go/internal/notify"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
	"github.com/nix-user-containers/nuc/go/internal/process"
	"github.com/nix-user-containers/nuc/go/internal/rootowned"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// Links makes and ends links of a container's. Package link, which does it, knows
// of supervisors, and so can't be known here.
type Links interface {
	// Link makes a link of a Spec, in the place of one of its name. Exited is called
	// when its process has ended, if it is watched: where no systemd does that.
	Link(spec json.RawMessage, exited func()) (watched bool, err error)
	// Unlink ends a link; os.ErrNotExist where there is none.
	Unlink(name string) error
}

// worker does what is asked for, in the calling process.
type worker struct {
	Order
	program *userns.Program
	links   Links
	// progress is told of copies under way; it may be nil.
	progress func(path string, files int)
}

func (w *worker) keeper(private bool) (*userns.Child, error) {
	var flags uintptr
	if private {
		flags = unix.CLONE_NEWNET
	}
	return userns.Start(userns.Options{
		Arguments:  []string{keeper.RoleKeeper, w.Name},
		Cloneflags: flags,
		Map:        w.IDs,
		Program:    w.program,
	})
}

func (w *worker) driver(o outbound.Order, user, network, output *os.File) (*outbound.Child, error) {
	return o.Launch(user, network, output)
}

// protect keeps the store paths of a generation from being collected.
func (w *worker) protect(generation int, paths []string) error {
	for _, path := range paths {
		if !slices.Equal(gcroot.Paths([]byte(path)), []string{path}) {
			return fmt.Errorf("%q is no store path", path)
		}
	}
	return gcroot.Add(w.Folders.Container(w.Name).Root(generation), paths)
}

// copies are those of store paths that belong to the container's root.
func (w *worker) copies(paths []string) ([]string, error) {
	cache := rootowned.Cache{Folder: w.Folders.Cache, UID: int(w.IDs.RootUID()), GID: int(w.IDs.RootGID()), Progress: w.progress}
	var made []string
	for _, path := range paths {
		c, err := cache.Copy(path)
		if err != nil {
			return nil, err
		}
		made = append(made, c)
	}
	return made, nil
}

// sockets looks whether anybody in the container has them: a service goes on with
// what it has when its socket unit is stopped.
func (w *worker) sockets(s Sockets) (*Having, error) {
	own, err := process.Sockets(s.Init)
	if err != nil {
		return nil, err
	}
	var h Having
	var below map[uint64]bool
	for _, inode := range s.Inodes {
		switch {
		case own[inode]:
			h.Init = append(h.Init, inode)
			continue
		case below == nil:
			below = process.SocketsBelow(s.Init)
		}
		if below[inode] {
			h.Others = append(h.Others, inode)
		}
	}
	return &h, nil
}

// runtime is the container's runtime folder.
func (w *worker) runtime() string { return w.Folders.Container(w.Name).Runtime }

// furnish fills /run/host.
func (w *worker) furnish(uuid string) (*notify.Socket, error) {
	return hostfolder.Make(w.runtime(), uuid, int(w.IDs.RootUID()), int(w.IDs.RootGID()))
}

// publish puts a file into /run/host.
func (w *worker) publish(name, text string) error {
	if !plain(name) {
		return fmt.Errorf("%q is no file's name", name)
	}
	return hostfolder.Publish(w.runtime(), name, text)
}

// plain tells whether a name is one of an entry of a folder.
func plain(name string) bool {
	return filepath.IsLocal(name) && filepath.Base(name) == name && name != "."
}

func (w *worker) holder(a listener.Address) listener.Holder { return listener.Find(a) }

// unlink takes a link that is gone for one that was ended.
func (w *worker) unlink(name string) error {
	if !plain(name) {
		return fmt.Errorf("%q is no link's name", name)
	}
	err := w.links.Unlink(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
