package listener

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder is who has a port, as far as it can be known: processes of other users
// don't show their files.
type Holder struct {
	PID     int    // 0 if it is not known
	Inside  int    // the number that it has in its own pid namespace
	Command string // the process's name
	// Container is set where it is a container's supervisor.
	Container string
	// Link is set where it is a link's process.
	Link string
	// User is whose socket it is, where no more is known.
	User string
}

func (h Holder) String() string {
	switch {
	case h.Container != "":
		return "container " + h.Container
	case h.Link != "":
		return "link " + h.Link
	case h.PID != 0:
		return fmt.Sprintf("%s (process %d)", h.Command, h.PID)
	case h.User != "":
		return "a process of " + h.User
	}
	return "something"
}

func (h Holder) remedy(a Address) string {
	switch {
	case h.Container != "":
		return fmt.Sprintf("stop it with `nuc stop %s`", h.Container)
	case h.Link != "":
		return fmt.Sprintf("end it with `nuc unlink %s`", h.Link)
	case h.PID != 0:
		return "stop it"
	}
	kind := "t"
	if a.Protocol == "udp" {
		kind = "u"
	}
	return fmt.Sprintf("see what with `sudo ss -l%snp sport = :%d`", kind, a.Port)
}

// Roles are the first argument of a container's supervisor in the background
// and of a link's process; the second is the name.
const (
	roleSupervisor = "nuc-supervisor"
	roleLink       = "nuc-link"
)

// Find asks the kernel who listens at an address that is taken, in the caller's
// network.
func Find(a Address) Holder {
	state := stateListening
	if a.Protocol == "udp" {
		state = stateUnconnected
	}
	found := sockets("/proc/net", a, func(e entry) bool { return e.state == state })
	if len(found) == 0 {
		return Holder{}
	}
	if pid := holding(found[0].inode); pid != 0 {
		return describe(pid)
	}
	if u, err := user.LookupId(found[0].uid); err == nil {
		return Holder{User: "user " + u.Username}
	}
	return Holder{User: "uid " + found[0].uid}
}

// entry is a socket; its inode is 0 if no process has it.
type entry struct{ state, uid, inode string }

// States of a socket in the tables of proc(5), after TCP_LISTEN and so on of
// linux/tcp_states.h. TCP_CLOSE is what an unconnected UDP socket is in.
const (
	stateListening   = "0A"
	stateEstablished = "01"
	stateFinWait1    = "04"
	stateFinWait2    = "05"
	stateUnconnected = "07"
	stateCloseWait   = "08"
)

// sockets lists those whose own address meets another: it is the same, or one of
// them is every address.
func sockets(folder string, a Address, wanted func(entry) bool) []entry {
	var found []entry
	for _, name := range []string{a.Protocol, a.Protocol + "6"} {
		data, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 10 || !wanted(entry{f[3], f[7], f[9]}) {
				continue
			}
			host, port, ok := parseLocal(f[1])
			if ok && port == a.Port && (host == a.Host || host.IsUnspecified() || a.Host.IsUnspecified()) {
				found = append(found, entry{f[3], f[7], f[9]})
			}
		}
	}
	return found
}

// Connected tells whether a stream's client is connected to an address, whoever
// listens there, also if one side has said all that it has to say. One that the
// service has left to the kernel, to be ended, is not.
func Connected(a Address) bool {
	return a.Protocol == "tcp" && len(sockets("/proc/net", a, entry.open)) > 0
}

// open tells a connection that somebody has, or that waits to be accepted, which
// has no inode either.
func (e entry) open() bool {
	switch e.state {
	case stateEstablished, stateCloseWait:
		return true
	case stateFinWait1, stateFinWait2:
		return e.inode != "0"
	}
	return false
}

// parseLocal reads an address of /proc/net/tcp: hexadecimal, each group of four
// bytes in the machine's order, which is little-endian on all that nuc runs on.
func parseLocal(text string) (netip.Addr, int, bool) {
	host, number, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(number, 16, 16)
	raw, herr := hex.DecodeString(host)
	if err != nil || herr != nil {
		return netip.Addr{}, 0, false
	}
	for group := range slices.Chunk(raw, 4) {
		slices.Reverse(group)
	}
	address, ok := netip.AddrFromSlice(raw)
	return address.Unmap(), int(port), ok
}

// holding finds the process that has a socket open, 0 if it is not to be seen.
func holding(inode string) int {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		files, err := os.ReadDir(process + "/fd")
		if err != nil {
			continue
		}
		for _, f := range files {
			if target, err := os.Readlink(process + "/fd/" + f.Name()); err == nil && target == "socket:["+inode+"]" {
				pid, _ := strconv.Atoi(filepath.Base(process))
				return pid
			}
		}
	}
	return 0
}

func describe(pid int) Holder {
	h := Holder{PID: pid, Inside: pid, Command: "process"}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range strings.Lines(string(data)) {
			// NSpid: its number in each pid namespace, the innermost last (Linux 4.1).
			if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" {
				h.Inside, _ = strconv.Atoi(f[len(f)-1])
			}
		}
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		h.Command = strings.TrimSpace(string(data))
	}
	if data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		arguments := strings.Split(string(data), "\x00")
		for role, name := range map[string]*string{roleSupervisor: &h.Container, roleLink: &h.Link} {
			if i := slices.Index(arguments, role); i >= 0 && i+1 < len(arguments) {
				*name = arguments[i+1]
			}
		}
	}
	return h
}
