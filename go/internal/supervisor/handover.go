package supervisor

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/starter"
)

// maxHandedOver is how many sockets travel with the request to boot, beside the
// place for the answer and the cgroup.
const maxHandedOver = seqpacket.MaxFDs - 2

// handedOver are the ports whose sockets init gets, in their order.
func (s *Supervisor) handedOver() []*port {
	var handed []*port
	for _, p := range s.ports() {
		if p.target.Load().declared.HandOver {
			handed = append(handed, p)
		}
	}
	return handed
}

// isUnclaimed tells of a socket that was handed over and is nobody's inside.
func (s *Supervisor) isUnclaimed(p *port) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unclaimed[p]
}

// How often it is seen whether init still has what it was given, and how long a
// socket must be missing: init closes them on its way to a reboot, too.
const (
	checkPause   = 5 * time.Second
	missingSince = 10 * time.Second
)

// checkHandedOver finds the sockets that nobody in the container has. systemd
// closes the ones that no socket unit has the address of, and that of a unit
// which is stopped (socket_distribute_fds in its src/core/socket.c). The
// supervisor's own copy would then have clients wait for ever: they are refused
// instead, until the next boot hands the socket over again. Sure is to be said
// where init has just taken what it wants.
func (s *Supervisor) checkHandedOver(sure bool) {
	handed := s.handedOver()
	s.mu.Lock()
	init, up := s.status.Init, s.isUp()
	s.mu.Unlock()
	if len(handed) == 0 || !up {
		return
	}
	asked := starter.Sockets{Init: init}
	inodes := map[*port]uint64{}
	for _, p := range handed {
		if inode, err := inodeOf(p.socket); err == nil {
			inodes[p] = inode
			asked.Inodes = append(asked.Inodes, inode)
		}
	}
	having, err := s.starter.Sockets(asked)
	if err != nil || commandOf(init) == "systemd-shutdow" {
		return // it has just ended, or is what systemd ends as
	}
	found := false
	for p, inode := range inodes {
		s.mu.Lock()
		switch {
		case s.status.Init != init || !s.isUp(): // another boot's, meanwhile
		case slices.Contains(having.Init, inode) || slices.Contains(having.Others, inode):
			delete(s.missing, p)
		case s.missing[p].IsZero() && !sure:
			s.missing[p] = time.Now()
		case !s.unclaimed[p] && (sure || time.Since(s.missing[p]) >= missingSince):
			s.unclaimed[p], found = true, true
		}
		s.mu.Unlock()
	}
	if found {
		s.showPorts()
		s.arrange()
	}
}

// isUp is called with mu held.
func (s *Supervisor) isUp() bool {
	return s.phase == phaseUp && s.status.Init != 0 && s.status.State != Stopping
}

// watchHandedOver checks until init ends.
func (s *Supervisor) watchHandedOver(stopped <-chan struct{}) {
	if len(s.handedOver()) == 0 {
		return
	}
	tick := time.NewTicker(checkPause)
	defer tick.Stop()
	for {
		select {
		case <-stopped:
			return
		case <-tick.C:
			s.checkHandedOver(false)
		}
	}
}

// forgetUnclaimed is for a new init, which gets all sockets.
func (s *Supervisor) forgetUnclaimed() {
	s.mu.Lock()
	some := len(s.unclaimed) > 0
	s.unclaimed, s.missing = map[*port]bool{}, map[*port]time.Time{}
	s.mu.Unlock()
	if some {
		s.showPorts()
		s.arrange()
	}
}

// commandOf is a process's name, of which the kernel keeps 15 bytes.
func commandOf(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(name))
}

func inodeOf(file *os.File) (uint64, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	var failure error
	if err := raw.Control(func(fd uintptr) { failure = unix.Fstat(int(fd), &st) }); err != nil {
		return 0, err
	}
	return st.Ino, failure
}
