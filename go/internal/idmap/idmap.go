// Package idmap decides which user and group ids of the host a container gets,
// and writes them to a new user namespace (user_namespaces(7)).
//
// Plan refuses what can't work before anything is started: it reads files, and
// at most asks getsubids(1). Write is on the start path of a container and
// costs two concurrent runs of a setuid helper.
package idmap

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Real files of a host (subuid(5), subgid(5)).
const (
	SubUIDFile = "/etc/subuid"
	SubGIDFile = "/etc/subgid"
)

// What root's containers get when neither file has an entry for root: the last
// 64 Ki of the range that systemd sets aside for containers
// (https://systemd.io/UIDS-GIDS), where systemd-nspawn looks last.
const (
	RootStart = 1878982656
	RootCount = 65536
)

const (
	// full is how many ids there are that a program of 16-bit ids knows.
	full = 65536
	// overflow is nobody and nogroup: what the kernel shows for each id that
	// is not mapped (/proc/sys/kernel/overflowuid).
	overflow = 65534
	// dynamicEnd is after the last id of DynamicUser= (systemd.exec(5)).
	dynamicEnd = 65520
	// maxExtents is the kernel's limit since Linux 4.15, UID_GID_MAP_MAX_EXTENTS.
	maxExtents = 340
)

// Extent maps Count consecutive ids from Inside on to the host's from Outside
// on: a line of /proc/PID/uid_map.
type Extent struct{ Inside, Outside, Count uint32 }

// Map is what a container's ids are on the host.
type Map struct {
	UIDs, GIDs []Extent
	// Full tells that 0 to 65535 are all mapped, users and groups.
	Full bool
	// Short is empty, or one line that says what won't work with this map.
	Short string
}

// RootUID is the host's uid of the container's root.
func (m Map) RootUID() uint32 { uid, _ := m.HostUID(0); return uid }

// RootGID is the host's gid of the container's root group.
func (m Map) RootGID() uint32 { gid, _ := m.HostGID(0); return gid }

// HostUID is the host's uid of a container's; false if it isn't mapped.
func (m Map) HostUID(inside uint32) (uint32, bool) { return outward(m.UIDs, inside) }

// HostGID is the host's gid of a container's; false if it isn't mapped.
func (m Map) HostGID(inside uint32) (uint32, bool) { return outward(m.GIDs, inside) }

// ContainerUID is the container's uid of a host's; false if it isn't mapped.
func (m Map) ContainerUID(host uint32) (uint32, bool) { return inward(m.UIDs, host) }

// ContainerGID is the container's gid of a host's; false if it isn't mapped.
func (m Map) ContainerGID(host uint32) (uint32, bool) { return inward(m.GIDs, host) }

// Refusal is an error in two parts, which together are one line.
type Refusal struct {
	// Problem says what is wrong and where; Remedy what to do, mostly a command.
	Problem, Remedy string
}

func (r *Refusal) Error() string { return r.Problem + ": " + r.Remedy }

// Parts returns the two parts.
func (r *Refusal) Parts() (problem, remedy string) { return r.Problem, r.Remedy }

func refuse(remedy, format string, args ...any) error {
	return &Refusal{Problem: fmt.Sprintf(format, args...), Remedy: remedy}
}

func outward(extents []Extent, id uint32) (uint32, bool) {
	for _, e := range extents {
		if id >= e.Inside && id-e.Inside < e.Count {
			return e.Outside + (id - e.Inside), true
		}
	}
	return 0, false
}

func inward(extents []Extent, id uint32) (uint32, bool) {
	for _, e := range extents {
		if id >= e.Outside && id-e.Outside < e.Count {
			return e.Inside + (id - e.Outside), true
		}
	}
	return 0, false
}

// Options of Plan.
type Options struct {
	// UID and GID are the host's, of who runs the container.
	UID, GID uint32
	// User is the name of UID; empty if it has none.
	User string
	// Count is how many ids are wanted, 0 to Count-1.
	Count int
	// SubUID and SubGID are the files to read.
	SubUID, SubGID string
	// Path is where getsubids is looked for, in the form of $PATH.
	Path string
}

// PlanFor plans for the calling process and the real files.
func PlanFor(count int) (Map, error) {
	uid := uint32(os.Getuid())
	o := Options{
		UID: uid, GID: uint32(os.Getgid()), User: userName("/etc/passwd", uid), Count: count,
		SubUID: SubUIDFile, SubGID: SubGIDFile, Path: os.Getenv("PATH"),
	}
	m, err := Plan(o)
	if err == nil && uid == 0 {
		err = m.checkOwn("/proc/self/uid_map", "/proc/self/gid_map")
	}
	return m, err
}

// userName asks the file first: running id(1), which asks all of NSS, costs
// more than a whole start of a container's namespaces.
func userName(passwd string, uid uint32) string {
	data, err := os.ReadFile(passwd)
	if err == nil {
		want := strconv.FormatUint(uint64(uid), 10)
		for line := range strings.Lines(string(data)) {
			if f := strings.Split(line, ":"); len(f) >= 3 && f[2] == want && f[0] != "" {
				return f[0]
			}
		}
	}
	id := findProgram("id", os.Getenv("PATH"))
	if id == "" {
		return ""
	}
	out, err := ask(id, "id", "-un")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// checkOwn finds that root is only root of a user namespace, which can't hand
// on what it doesn't have.
func (m Map) checkOwn(uidMap, gidMap string) error {
	for _, k := range []struct {
		what, own string
		extents   []Extent
	}{{"user", uidMap, m.UIDs}, {"group", gidMap, m.GIDs}} {
		data, err := os.ReadFile(k.own)
		if err != nil {
			continue // no user namespaces in this kernel; clone says so
		}
		var own []Extent
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			inside, err1 := strconv.ParseUint(f[0], 10, 32)
			count, err2 := strconv.ParseUint(f[2], 10, 32)
			if err1 == nil && err2 == nil {
				own = append(own, Extent{uint32(inside), uint32(inside), uint32(count)})
			}
		}
		for _, e := range k.extents {
			_, first := outward(own, e.Outside)
			_, last := outward(own, e.Outside+e.Count-1)
			if !first || !last {
				file := SubUIDFile
				if k.what == "group" {
					file = SubGIDFile
				}
				return refuse(fmt.Sprintf("give root a range from within it in %s, as in root:START:COUNT", file),
					"%s ids %d to %d are not mapped where nuc runs (%s): root here is root of a user namespace",
					k.what, e.Outside, e.Outside+e.Count-1, k.own)
			}
		}
	}
	return nil
}

// Plan decides on the ids. Its errors are one line that names the file, the
// line in it, and the line to add.
//
// Unprivileged, container 0 is the user and 1 on are the user's subordinate
// ids; run by root, all are subordinate, as the host's root must never be in a
// container. If they don't reach 65534, the last one is put there: nobody would
// otherwise own every file of the host that shows in the container.
func Plan(o Options) (Map, error) {
	if o.Count < 1 {
		return Map{}, fmt.Errorf("ids.count: %d: a container needs at least one id", o.Count)
	}
	users := side{what: "user", file: o.SubUID, own: o.UID}
	groups := side{what: "group", file: o.SubGID, own: o.GID, flag: "-g"}
	if o.UID != 0 && o.Count == 1 {
		return finish(o, &users, &groups), nil
	}
	for _, s := range []*side{&users, &groups} {
		if err := s.load(o); err != nil {
			return Map{}, err
		}
	}
	if err := missing(o, &users, &groups); err != nil {
		return Map{}, err
	}
	return finish(o, &users, &groups), nil
}

// missing refuses when users or groups have no range, with one command for
// both files where both lack it.
func missing(o Options, users, groups *side) error {
	var files []string
	for _, s := range []*side{users, groups} {
		if len(s.ranges) == 0 {
			files = append(files, s.file)
		}
	}
	if len(files) == 0 {
		return nil
	}
	return refuse(addLine(o, files, users, groups), "%s: no range for %s, so a container has no ids but one",
		strings.Join(files, ", "), o.who())
}

// who names the user as the files do.
func (o Options) who() string {
	if o.User != "" {
		return o.User
	}
	return strconv.FormatUint(uint64(o.UID), 10)
}

// side is users or groups.
type side struct {
	what string
	file string
	own  uint32
	flag string // of getsubids
	all  []entry
	// ranges are the user's, in the order of the file, adjacent ones merged.
	ranges []entry
}

// finish puts the ranges together.
func finish(o Options, users, groups *side) Map {
	var m Map
	var notes []string
	m.Full = true
	for _, s := range []*side{users, groups} {
		extents, n := s.extents(o)
		if s == users {
			m.UIDs = extents
		} else {
			m.GIDs = extents
		}
		if n < full {
			m.Full = false
		}
		if note := s.short(o, n, users, groups); note != "" {
			notes = append(notes, note)
		}
	}
	// Mostly both files say the same, and one line is enough.
	if len(notes) > 0 {
		m.Short = notes[0]
	}
	return m
}

// short says what n ids are too few for.
func (s *side) short(o Options, n int, users, groups *side) string {
	switch {
	case n >= dynamicEnd:
		return ""
	case n == 1:
		return fmt.Sprintf("the container has a single %s id: services with a user of their own (dbus, nscd, postgresql) and DynamicUser= won't work", s.what)
	case n >= o.Count:
		return fmt.Sprintf("the container has %d %s ids, as ids.count says: ids from %d on but for nobody's %d don't exist in it and DynamicUser= won't work", n, s.what, n-1, overflow)
	}
	return fmt.Sprintf("%s: the container gets %d of %d %s ids: ids from %d on but for nobody's %d don't exist in it and DynamicUser= won't work: %s",
		s.file, n, o.Count, s.what, n-1, overflow, addLine(o, []string{s.file}, users, groups))
}

// extents lays the ranges out and counts the ids.
func (s *side) extents(o Options) ([]Extent, int) {
	pool := make([]entry, 0, len(s.ranges)+1)
	if o.UID != 0 {
		pool = append(pool, entry{start: s.own, count: 1})
	}
	pool = append(pool, s.ranges...)
	for {
		extents, n := layOut(pool, o.Count)
		if fits(extents) {
			return extents, n
		}
		pool = pool[:len(pool)-1]
	}
}

func layOut(pool []entry, wanted int) ([]Extent, int) {
	total := uint64(0)
	for _, r := range pool {
		total += uint64(r.count)
	}
	n := min(total, uint64(wanted))
	aside := n > 1 && n <= overflow
	low := n
	if aside {
		low--
	}
	var extents []Extent
	inside := uint64(0)
	for _, r := range pool {
		take := min(uint64(r.count), low-inside)
		if take > 0 {
			extents = append(extents, Extent{uint32(inside), r.start, uint32(take)})
			inside += take
		}
		if inside == low && aside && take < uint64(r.count) {
			extents = append(extents, Extent{overflow, r.start + uint32(take), 1})
			break
		}
	}
	return extents, int(n)
}

// fits tells whether the kernel takes the map: it must be written at once and
// be smaller than a page (map_write in kernel/user_namespace.c).
func fits(extents []Extent) bool {
	return len(extents) <= maxExtents && len(text(extents)) < os.Getpagesize()
}

func text(extents []Extent) string {
	var b []byte
	for _, e := range extents {
		b = strconv.AppendUint(b, uint64(e.Inside), 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(e.Outside), 10)
		b = append(b, ' ')
		b = strconv.AppendUint(b, uint64(e.Count), 10)
		b = append(b, '\n')
	}
	return string(b)
}
