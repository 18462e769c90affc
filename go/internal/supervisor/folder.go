package supervisor

import (
	"errors"
	"fmt"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/state"
)

// watchedFolder is the watch on the container's runtime folder.
type watchedFolder struct {
	watch *state.Watch
	done  chan struct{} // closed when nobody watches any more
}

// watchFolder has the runtime folder made anew when somebody removes it, so that
// commands go on finding the container. Where it can't be watched, that is
// forgone.
func (s *Supervisor) watchFolder() {
	watch, err := s.o.Container.WatchRemoval()
	if err != nil {
		s.log.Warn("the runtime folder is not watched", "error", err)
		return
	}
	s.folder = watchedFolder{watch, make(chan struct{})}
	go func() {
		defer close(s.folder.done)
		for wait := time.Duration(0); watch.Wait(wait) == nil; {
			wait = s.keepFolder()
		}
	}()
}

func (s *Supervisor) unwatchFolder() {
	if s.folder.watch != nil {
		s.folder.watch.Close()
		<-s.folder.done
	}
}

// removalTime is for whoever removes the folder to come to an end with all of it.
const removalTime = 200 * time.Millisecond

// keepFolder looks whether the folder is lost, and makes it anew. It returns when
// to look again, 0 for when something happens there.
func (s *Supervisor) keepFolder() time.Duration {
	if !s.folderLost() {
		return 0
	}
	time.Sleep(removalTime)
	s.updating.Lock()
	defer s.updating.Unlock()
	err := s.renewFolder()
	switch {
	case errors.Is(err, state.ErrHeld): // by who has just looked for the container
		return 10 * time.Millisecond
	case err != nil:
		s.log.Warn("the runtime folder was removed and can't be made anew", "container", s.o.Container.Name, "error", err)
		return 5 * time.Second
	}
	s.warn(fmt.Sprintf("its runtime folder %s was removed: it was made anew, but what is in /run/host of the container, such as its name servers, comes back with a restart", s.o.Container.Runtime))
	return removalTime // whether it stays, and to watch the new one
}

func (s *Supervisor) folderLost() bool {
	s.updating.Lock()
	defer s.updating.Unlock()
	return s.lock.Lost(s.o.Container, ControlSocket)
}

// renewFolder is called with updating held.
func (s *Supervisor) renewFolder() error {
	lock, control, err := s.starter.Renew(s.lock, ControlSocket)
	if err != nil {
		return err
	}
	s.lock = lock
	s.control.Close()
	s.control = control
	go s.acceptClients(control)
	if s.notify == nil {
		return nil // nothing runs
	}
	// For a reboot inside. What the running system has is the folder that is gone.
	s.notify.Close()
	if s.notify, err = s.starter.Furnish(s.uuid); err != nil {
		return err
	}
	go s.readNotifications(s.notify)
	return nil
}
