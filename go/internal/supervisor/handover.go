package supervisor

import (
	"fmt"
	"os"
	"strings"

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

// checkHandedOver finds the sockets that init has not kept. systemd closes the
// ones that no socket unit has the address of, and that of a unit which is
// stopped (socket_distribute_fds in its src/core/socket.c). The supervisor's own
// copy would then have clients wait for ever: they are refused instead, until
// the next boot hands the socket over again.
func (s *Supervisor) checkHandedOver() {
	handed := s.handedOver()
	s.mu.Lock()
	up, init := s.phase == phaseUp, s.status.Init
	s.mu.Unlock()
	if len(handed) == 0 || !up || init == 0 {
		return
	}
	kept, err := socketsOf(init)
	if err != nil {
		s.log.Warn("handed over ports", "container", s.o.Container.Name, "error", err)
		return
	}
	found := false
	for _, p := range handed {
		inode, err := inodeOf(p.socket)
		if err != nil || kept[inode] || s.isUnclaimed(p) {
			continue
		}
		found = true
		s.mu.Lock()
		s.unclaimed[p] = true
		s.mu.Unlock()
	}
	if found {
		s.showPorts()
		s.arrange()
	}
}

// forgetUnclaimed is for a new init, which gets all sockets.
func (s *Supervisor) forgetUnclaimed() {
	s.mu.Lock()
	some := len(s.unclaimed) > 0
	s.unclaimed = map[*port]bool{}
	s.mu.Unlock()
	if some {
		s.showPorts()
		s.arrange()
	}
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
