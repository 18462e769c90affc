package supervisor

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
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
	kept, err := socketsOf(init)
	if err != nil || commandOf(init) == "systemd-shutdow" {
		return // it has just ended, or is what systemd ends as
	}
	var others map[uint64]bool
	found := false
	for _, p := range handed {
		inode, err := inodeOf(p.socket)
		if err != nil {
			continue
		}
		if !kept[inode] && others == nil {
			others = socketsBelow(init)
		}
		s.mu.Lock()
		switch {
		case s.status.Init != init || !s.isUp(): // another boot's, meanwhile
		case kept[inode] || others[inode]:
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

// socketsBelow lists those of all descendants of a process: a service goes on
// with what it has when its socket unit is stopped.
func socketsBelow(pid int) map[uint64]bool {
	entries, _ := os.ReadDir("/proc")
	parents := map[int]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// Behind the name, which may hold anything (proc_pid_stat(5)).
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 {
			parents[child], _ = strconv.Atoi(fields[1])
		}
	}
	found := map[uint64]bool{}
	for child := range parents {
		for p := parents[child]; p > 1; p = parents[p] {
			if p == pid {
				sockets, _ := socketsOf(child)
				maps.Copy(found, sockets)
				break
			}
		}
	}
	return found
}

// socketsOf lists the sockets that a process has open, by inode.
func socketsOf(pid int) (map[uint64]bool, error) {
	folder := fmt.Sprintf("/proc/%d/fd", pid)
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	found := map[uint64]bool{}
	for _, f := range files {
		name, err := os.Readlink(folder + "/" + f.Name())
		if err != nil || !strings.HasPrefix(name, "socket:") {
			continue
		}
		var inode uint64
		if n, _ := fmt.Sscanf(name, "socket:[%d]", &inode); n == 1 {
			found[inode] = true
		}
	}
	return found, nil
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
