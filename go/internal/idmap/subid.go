package idmap

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// entry is a range of subordinate ids.
type entry struct {
	owner string
	start uint32
	count uint32
	line  int // in its file, from 1; 0 if it is from elsewhere
}

func (e entry) end() uint64 { return uint64(e.start) + uint64(e.count) }

func (e entry) overlaps(start, end uint64) bool {
	return uint64(e.start) < end && start < e.end()
}

func (e entry) String() string { return fmt.Sprintf("%s:%d:%d", e.owner, e.start, e.count) }

// flaw is a line that can't be understood.
type flaw struct {
	owner string
	line  int
	text  string
	why   string
}

// parse reads a file of the form owner:start:count (subuid(5)). Lines that
// can't be understood are returned aside: what is wrong with another user's
// line is not ours to complain about.
func parse(data string) (entries []entry, flaws []flaw) {
	line := 0
	for text := range strings.Lines(data) {
		line++
		text = strings.TrimSuffix(text, "\n")
		owner, _, _ := strings.Cut(text, ":")
		name := strings.TrimSpace(owner)
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		e, err := parseEntry(text)
		if err != nil {
			flaws = append(flaws, flaw{owner: name, line: line, text: text, why: err.Error()})
			continue
		}
		e.line = line
		entries = append(entries, e)
	}
	return entries, flaws
}

func parseEntry(text string) (entry, error) {
	f := strings.Split(text, ":")
	if len(f) != 3 {
		return entry{}, errors.New("is not NAME:START:COUNT")
	}
	if strings.TrimSpace(f[0]) != f[0] {
		return entry{}, errors.New("has blanks around the name")
	}
	start, err := parseID(f[1])
	if err != nil {
		return entry{}, fmt.Errorf("start %w", err)
	}
	count, err := parseID(f[2])
	if err != nil {
		return entry{}, fmt.Errorf("count %w", err)
	}
	if count == 0 {
		return entry{}, errors.New("count is 0")
	}
	// The last id of all, 2^32-1, means none (setresuid(2)).
	if uint64(start)+uint64(count) > 1<<32-1 {
		return entry{}, errors.New("goes beyond the last id, 4294967294")
	}
	return entry{owner: f[0], start: start, count: count}, nil
}

// parseID takes decimal digits only: newuidmap reads a leading 0 as octal, so
// that the two would not mean the same range.
func parseID(s string) (uint32, error) {
	if s == "" {
		return 0, errors.New("is missing")
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%.40q is no number", s)
		}
	}
	if len(s) > 1 && s[0] == '0' {
		return 0, fmt.Errorf("%.40q begins with a 0", s)
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%.40q is greater than 4294967295", s)
	}
	return uint32(n), nil
}

// load reads the file and checks the user's ranges. No range at all is no
// error here.
func (s *side) load(o Options) error {
	data, err := os.ReadFile(s.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("subordinate %s ids: %w", s.what, err)
	}
	return s.read(o, string(data))
}

func (s *side) read(o Options, data string) error {
	entries, flaws := parse(data)
	s.all = entries
	uid := strconv.FormatUint(uint64(o.UID), 10)
	own := func(owner string) bool { return owner == uid || o.User != "" && owner == o.User }
	for _, f := range flaws {
		if own(f.owner) {
			return refuse(fmt.Sprintf("correct it, for example to %s:%d:%d (`sudoedit %s`)", o.who(), free(entries, o), full, s.file),
				"%s:%d: %.80q %s", s.file, f.line, f.text, f.why)
		}
	}
	var ranges []entry
	for _, e := range entries {
		if own(e.owner) {
			ranges = append(ranges, e)
		}
	}
	if len(ranges) == 0 {
		var err error
		if ranges, err = s.elsewhere(o); err != nil {
			return err
		}
	}
	for i, r := range ranges {
		if err := s.check(o, r, ranges[:i], own); err != nil {
			return err
		}
	}
	s.ranges = merge(ranges)
	return nil
}

// elsewhere asks getsubids(1), which knows NSS sources; for root it falls back
// to the default range.
func (s *side) elsewhere(o Options) ([]entry, error) {
	var found []entry
	if getsubids := findProgram("getsubids", o.Path); getsubids != "" && o.User != "" {
		args := []string{"getsubids", o.User}
		if s.flag != "" {
			args = []string{"getsubids", s.flag, o.User}
		}
		out, err := ask(getsubids, args...)
		if errors.As(err, new(hungError)) {
			return nil, refuse("bring up the directory service that it asks (subid in /etc/nsswitch.conf)", "subordinate %s ids: %s %v", s.what, getsubids, err)
		}
		if err == nil { // it fails when it knows no range
			found = parseAnswer(out, o.User)
		}
	}
	if len(found) == 0 && o.UID == 0 {
		found = []entry{{owner: "root", start: RootStart, count: RootCount}}
	}
	return found, nil
}

// parseAnswer reads lines of the form "0: alice 100000 65536" (getsubids(1)).
func parseAnswer(out, user string) []entry {
	var found []entry
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 4 || f[1] != user {
			continue
		}
		if e, err := parseEntry(user + ":" + f[2] + ":" + f[3]); err == nil {
			found = append(found, e)
		}
	}
	return found
}

// check refuses a range that would let the container be somebody else.
func (s *side) check(o Options, r entry, earlier []entry, own func(string) bool) error {
	where := s.file
	if r.line > 0 {
		where += ":" + strconv.Itoa(r.line)
	}
	instead := fmt.Sprintf("give %s another, for example %s:%d:%d (`sudoedit %s`)", o.who(), o.who(), free(s.all, o), full, s.file)
	if r.start == 0 {
		return refuse(instead, "%s: range %s contains the host's root, which must never be in a container", where, r)
	}
	if o.UID != 0 && r.overlaps(uint64(s.own), uint64(s.own)+1) {
		return refuse(instead, "%s: range %s contains %s's own %s id %d", where, r, o.who(), s.what, s.own)
	}
	for _, e := range earlier {
		if e.overlaps(uint64(r.start), r.end()) {
			return refuse("remove one of the two or "+instead, "%s: range %s overlaps line %d, %s, of the same user", where, r, e.line, e)
		}
	}
	for _, e := range s.all {
		if !own(e.owner) && e.overlaps(uint64(r.start), r.end()) {
			return refuse(instead, "%s: range %s overlaps line %d, %s, of another user, whose files the container could then write", where, r, e.line, e)
		}
	}
	return nil
}

// merge joins ranges that follow each other, as extents are scarce.
func merge(ranges []entry) []entry {
	var merged []entry
	for _, r := range ranges {
		if n := len(merged); n > 0 && merged[n-1].end() == uint64(r.start) {
			merged[n-1].count += r.count
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// free is where a new range of 65536 can start: after all ranges of the file,
// or in the first gap if there is no room there.
func free(entries []entry, o Options) uint64 {
	taken := append([]entry{
		{start: 0, count: 100000}, // where useradd begins (SUB_UID_MIN, login.defs(5))
		{start: RootStart, count: RootCount},
		{start: o.UID, count: 1},
		{start: o.GID, count: 1},
	}, entries...)
	isFree := func(start uint64) bool {
		if start+full > 1<<32-1 {
			return false
		}
		for _, e := range taken {
			if e.overlaps(start, start+full) {
				return false
			}
		}
		return true
	}
	after := uint64(100000)
	for _, e := range entries {
		after = max(after, e.end())
	}
	if isFree(after) {
		return after
	}
	best := uint64(1) << 32
	for _, e := range taken {
		if end := e.end(); end < best && isFree(end) {
			best = end
		}
	}
	return best
}

// addLine is the command that gives the user a range in the files.
func addLine(o Options, files []string, users, groups *side) string {
	start := free(append(append([]entry{}, users.all...), groups.all...), o)
	return fmt.Sprintf("echo '%s:%d:%d' | sudo tee -a %s", o.who(), start, full, strings.Join(files, " "))
}
