package supervisor

import (
	"fmt"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/socket"
)

// tellManager keeps the service manager that runs the supervisor informed, until
// the container has ended: READY=1 when the start is over, as it is for who
// waits in `nuc up`, and what the container does.
//
// STOPPING=1 comes at the very end: from there on systemd counts TimeoutStopSec,
// which is nothing that `nuc stop --timeout` knows.
func (s *Supervisor) tellManager() {
	changes, cancel := s.subscribe()
	defer cancel()
	ready, stopping, said := false, false, ""
	for {
		st := s.Status()
		var lines strings.Builder
		if st.State == Stopping && !stopping {
			// The unit has the time of the descriptor that it was made of.
			left := time.Duration(s.descriptor().System.Stop.TimeoutSeconds+LeaveSeconds) * time.Second
			fmt.Fprintf(&lines, "EXTEND_TIMEOUT_USEC=%d\n", left.Microseconds())
		}
		stopping = st.State == Stopping
		if !ready && st.State != Starting && st.State != Failed && st.State != Stopped {
			ready = true
			lines.WriteString("READY=1\n")
		}
		if text := managerStatus(&st); text != said {
			said = text
			fmt.Fprintf(&lines, "STATUS=%s\n", text)
		}
		if lines.Len() > 0 {
			if err := s.o.Manager.Tell(lines.String()); err != nil {
				s.log.Warn("could not tell systemd", "error", err)
			}
		}
		select {
		case <-changes:
		case <-s.ended:
			return
		}
	}
}

// LeaveSeconds is how long a supervisor may take to stop besides what its
// container does.
const LeaveSeconds = 15

// sayAlive tells the service manager again and again that all is well, as long as
// the supervisor's state can be had and the keeper answers.
func (s *Supervisor) sayAlive() {
	ticks := time.NewTicker(s.o.Manager.Watchdog / 3)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-s.ended:
			return
		}
		if !s.answers() {
			continue
		}
		if err := s.o.Manager.Tell("WATCHDOG=1\n"); err != nil {
			s.log.Warn("could not tell systemd", "error", err)
		}
	}
}

func (s *Supervisor) answers() bool {
	if !s.hasKeeper() {
		return true
	}
	files, err := s.Sockets(socket.UDP4, 1)
	for _, f := range files {
		f.Close()
	}
	return err == nil || !s.hasKeeper()
}

func (s *Supervisor) hasKeeper() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeper != nil
}

// leaveManager says that the supervisor is about to end. READY=1 once more, as
// one that is stopped while it starts has not failed.
func (s *Supervisor) leaveManager() {
	for _, word := range []string{"READY=1\n", "STOPPING=1\n"} {
		if err := s.o.Manager.Tell(word); err != nil {
			s.log.Warn("could not tell systemd", "error", err)
		}
	}
}

// managerStatus is one line about a container. Init's own words can have any bytes.
func managerStatus(st *Status) string {
	text := string(st.State)
	if st.State == Starting && st.Waiting != "" {
		text += ", waiting for " + st.Waiting
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
