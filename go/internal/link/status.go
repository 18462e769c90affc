package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// State is what a link is doing.
type State string

// States of a link. A killed one has no process and nobody who starts it anew.
const (
	Listening State = "listening"
	Waiting   State = "waiting"
	Killed    State = "killed"
)

// Status is a link's account of itself.
type Status struct {
	Name     string `json:"name"`
	Client   string `json:"client"` // - or a container
	Protocol string `json:"protocol"`
	// Listen are the places it listens on now: address:port, of a range
	// address:first-last, or a path.
	Listen []string `json:"listen"`
	// Beyond tells that one of them is no loopback address, nor a Unix socket.
	Beyond bool   `json:"beyondLoopback,omitempty"`
	Host   string `json:"host"`   // - or a container
	Target string `json:"target"` // port, of a range first-last, or a path
	State  State  `json:"state"`
	// Reason says what it waits for.
	Reason string `json:"reason,omitempty"`
	// Connections that are open now, or clients of a UDP link.
	Connections int    `json:"connections"`
	Declared    bool   `json:"declared,omitempty"`
	Unit        string `json:"unit,omitempty"` // of the user's systemd
	Process     int    `json:"pid,omitempty"`
}

// status is what can be said of a link without asking it.
func (s *Spec) status(name string) *Status {
	return &Status{
		Name: name, Client: s.Client.Place(), Protocol: s.Protocol, Listen: []string{}, Host: s.Host.Place(),
		Beyond: slices.ContainsFunc(slices.Concat(s.Addresses, s.Optional), func(a string) bool { return !isLoopback(a) }),
		Target: s.Host.what(s.Count), State: Killed, Reason: "its process was killed", Declared: s.Declared,
	}
}

// Names of a link's files.
const (
	specFile      = "spec.json"
	controlSocket = "control"
	reportSocket  = "report"
	unitFile      = "unit" // the unit's name, where systemd runs the process
	logFile       = "log"  // where it does not
)

// Operations of a Command.
const (
	opStatus = "status" // answered by a Status
	opEnd    = "end"    // the connection ends when the link has
)

// command is what a link's process is asked for.
type command struct {
	Op string `json:"op"`
}

// Read returns what a link is; os.ErrNotExist where there is none of the name.
func Read(l state.Link) (*Spec, error) {
	data, err := l.Read(specFile)
	if err != nil {
		return nil, err
	}
	var s Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("link %s: %s: %w", l.Name, specFile, err)
	}
	return &s, nil
}

// Query asks a link's process, or says that it was killed.
func Query(l state.Link) (*Status, error) {
	s, err := Read(l)
	if err != nil {
		return nil, err
	}
	st := s.status(l.Name)
	st.Unit = managed(l)
	conn, err := connect(l)
	if err == nil {
		defer conn.Close()
		_ = conn.Net().SetDeadline(time.Now().Add(2 * time.Second))
		if err = conn.Send(command{Op: opStatus}); err == nil {
			var m *seqpacket.Message
			if m, err = conn.Receive(); err == nil {
				defer m.Close()
				return st, m.Decode(st)
			}
		}
	}
	if l.Held() {
		st.State, st.Process, st.Reason = Waiting, l.Holder(), "its process to answer"
	} else if st.Unit != "" && restarting(st.Unit) {
		st.State, st.Reason = Waiting, "systemd to start it anew"
	}
	return st, nil
}

// All asks all links at once.
func All(f state.Folders) ([]Status, error) {
	folders, err := f.Links()
	if err != nil {
		return nil, err
	}
	found := make([]*Status, len(folders))
	errs := make([]error, len(folders))
	var asking sync.WaitGroup
	for i, l := range folders {
		asking.Go(func() { found[i], errs[i] = Query(l) })
	}
	asking.Wait()
	all := []Status{}
	for i, st := range found {
		switch err := errs[i]; {
		case err == nil:
			all = append(all, *st)
		case !errors.Is(err, os.ErrNotExist): // it is just being made, or removed
			return nil, err
		}
	}
	return all, nil
}

func connect(l state.Link) (*seqpacket.Conn, error) {
	dir, err := os.OpenFile(l.Folder, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return seqpacket.Dial(dir, controlSocket)
}

// Remove ends a link and returns when nothing of it is left.
func Remove(f state.Folders, l state.Link) error {
	making, err := f.LockLinks()
	if err != nil {
		return err
	}
	defer state.UnlockLinks(making)
	return end(l)
}

func end(l state.Link) error {
	// Not only the process: systemd may be about to start it anew.
	if unit := managed(l); unit != "" {
		if err := stopUnit(unit); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
	}
	if conn, err := connect(l); err == nil {
		defer conn.Close()
		_ = conn.Net().SetDeadline(time.Now().Add(10 * time.Second))
		if conn.Send(command{Op: opEnd}) == nil {
			_, err := conn.Receive()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("link %s: its process (%d) does not end: kill it", l.Name, l.Holder())
			}
		}
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		lock, err := l.Acquire()
		if err == nil {
			err = l.Remove(lock)
			lock.Close()
			return err
		}
		if !errors.Is(err, state.ErrHeld) {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s: its process (%d) does not end: kill it", l.Name, l.Holder())
		}
	}
}
