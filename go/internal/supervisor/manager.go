package supervisor

import (
	"fmt"
	"strings"
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
	ready, said := false, ""
	for {
		st := s.Status()
		var lines strings.Builder
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
