package idmap

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// files writes a subuid and a subgid file.
func files(t *testing.T, subuid, subgid string) (string, string) {
	t.Helper()
	dir := t.TempDir()
	var paths [2]string
	for i, text := range []string{subuid, subgid} {
		paths[i] = filepath.Join(dir, []string{"subuid", "subgid"}[i])
		if err := os.WriteFile(paths[i], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths[0], paths[1]
}

func TestPlan(t *testing.T) {
	const uid, gid = 1000, 1001
	tests := []struct {
		name   string
		subuid string // subgid says the same
		count  int
		root   bool
		want   []Extent // users; groups differ in the first, which is gid
		full   bool
		short  []string
	}{
		{
			name: "whole", subuid: "alice:100000:65536\n", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 100000, 65535}}, full: true,
		},
		{
			name: "by number", subuid: "1000:100000:65536\n", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 100000, 65535}}, full: true,
		},
		{
			name: "one short of whole: 65535 is missing", subuid: "alice:100000:65534\n", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 100000, 65534}},
		},
		{
			name: "two short: nobody is the last", subuid: "alice:100000:65533\n", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 100000, 65532}, {65534, 165532, 1}},
		},
		{
			name:   "several ranges, by name and number, adjacent ones become one",
			subuid: "alice:100000:1000\nbob:300000:65536\n1000:101000:1000\nalice:200000:63535\n", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 100000, 2000}, {2001, 200000, 63535}}, full: true,
		},
		{
			name: "too short", subuid: "alice:100000:4095\n", count: 65536,
			want:  []Extent{{0, uid, 1}, {1, 100000, 4094}, {65534, 104094, 1}},
			short: []string{"DynamicUser", "4096 of 65536", "echo 'alice:104095:65536' | sudo tee -a "},
		},
		{
			name: "nobody is the first of the next range", subuid: "alice:100000:10\nalice:200000:1\n", count: 65536,
			want:  []Extent{{0, uid, 1}, {1, 100000, 10}, {65534, 200000, 1}},
			short: []string{"DynamicUser"},
		},
		{
			name: "few are wanted", subuid: "alice:100000:65536\n", count: 1000,
			want:  []Extent{{0, uid, 1}, {1, 100000, 998}, {65534, 100998, 1}},
			short: []string{"DynamicUser", "ids.count"},
		},
		{
			name: "a range of one", subuid: "alice:100000:1\n", count: 65536,
			want:  []Extent{{0, uid, 1}, {65534, 100000, 1}},
			short: []string{"DynamicUser"},
		},
		{
			name: "more than 65536", subuid: "alice:100000:200000\n", count: 100000,
			want: []Extent{{0, uid, 1}, {1, 100000, 99999}}, full: true,
		},
		{
			name: "up to the last id", subuid: "alice:4294901759:65536\n", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 4294901759, 65535}}, full: true,
		},
		{
			name: "others' nonsense", subuid: "bob\n:::\nbob:x:y\n# alice:1:2\n\nbob:99999999999:1\nalice:100000:65536\n", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 100000, 65535}}, full: true,
		},
		{
			name: "no newline at the end", subuid: "bob:165536:65536\nalice:100000:65536", count: 65536,
			want: []Extent{{0, uid, 1}, {1, 100000, 65535}}, full: true,
		},
		{
			name: "single id without any range", subuid: "", count: 1,
			want: []Extent{{0, uid, 1}}, short: []string{"single user id", "DynamicUser"},
		},
		{
			name: "root's default", root: true, subuid: "alice:100000:65536\n", count: 65536,
			want: []Extent{{0, 1878982656, 65536}}, full: true,
		},
		{
			name: "root's own", root: true, subuid: "root:500000:65536\n", count: 65536,
			want: []Extent{{0, 500000, 65536}}, full: true,
		},
		{
			name: "root's own, short", root: true, subuid: "root:500000:100\n", count: 65536,
			want:  []Extent{{0, 500000, 99}, {65534, 500099, 1}},
			short: []string{"DynamicUser", "echo 'root:500100:65536'"},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := Options{UID: uid, GID: gid, User: "alice", Count: test.count}
			if test.root {
				o.UID, o.GID, o.User = 0, 0, "root"
			}
			o.SubUID, o.SubGID = files(t, test.subuid, test.subuid)
			m, err := Plan(o)
			if err != nil {
				t.Fatal(err)
			}
			groups := append([]Extent{}, test.want...)
			if !test.root {
				groups[0].Outside = gid
			}
			if d := cmp.Diff(test.want, m.UIDs); d != "" {
				t.Errorf("users (-want +got):\n%s", d)
			}
			if d := cmp.Diff(groups, m.GIDs); d != "" {
				t.Errorf("groups (-want +got):\n%s", d)
			}
			if m.Full != test.full {
				t.Errorf("Full is %v", m.Full)
			}
			if (m.Short == "") != (len(test.short) == 0) || strings.Contains(m.Short, "\n") {
				t.Errorf("Short is %q", m.Short)
			}
			for _, want := range test.short {
				if !strings.Contains(m.Short, want) {
					t.Errorf("Short doesn't say %q: %s", want, m.Short)
				}
			}
			if m.RootUID() != test.want[0].Outside || m.RootGID() != groups[0].Outside {
				t.Errorf("root is %d:%d", m.RootUID(), m.RootGID())
			}
			if host, ok := m.HostUID(0); test.root && (!ok || host == 0) {
				t.Errorf("container root is host uid %d, %v", host, ok)
			}
		})
	}
}

// TestHostileSubIDs is hostile case 21: subuid or subgid missing, malformed or
// overlapping.
func TestHostileSubIDs(t *testing.T) {
	const good = "alice:100000:65536\n"
	tests := []struct {
		name           string
		subuid, subgid string
		root           bool
		want           []string
	}{
		{name: "no entry at all", want: []string{"subuid, ", "subgid: no range for alice", "echo 'alice:100000:65536' | sudo tee -a ", "subuid ", "subgid"}},
		{name: "no entry among others", subuid: "bob:100000:65536\ncarol:165536:65536\n", subgid: good, want: []string{"subuid: no range", "'alice:231072:65536' | sudo tee -a"}},
		{name: "no group entry", subuid: good, subgid: "bob:200000:65536\n", want: []string{"subgid: no range", "'alice:265536:65536'"}},
		{name: "no room after the last", subuid: "bob:4294901759:65536\n", subgid: good, want: []string{"'alice:165536:65536'"}},
		{name: "only the name", subuid: "bob:1:1\nalice\n", subgid: good, want: []string{"subuid:2:", `"alice"`, "NAME:START:COUNT", "alice:100000:65536"}},
		{name: "four fields", subuid: "alice:100000:65536:1\n", subgid: good, want: []string{"subuid:1:"}},
		{name: "no count", subuid: "alice:100000:\n", subgid: good, want: []string{"subuid:1:", "count is missing"}},
		{name: "no number", subuid: "alice:x:65536\n", subgid: good, want: []string{"subuid:1:", `start "x" is no number`}},
		{name: "negative", subuid: "alice:-5:65536\n", subgid: good, want: []string{"subuid:1:", `"-5"`}},
		{name: "octal", subuid: "alice:0100000:65536\n", subgid: good, want: []string{"subuid:1:", "begins with a 0"}},
		{name: "hexadecimal", subuid: "alice:0x100000:65536\n", subgid: good, want: []string{"subuid:1:", "no number"}},
		{name: "carriage return", subuid: "alice:100000:65536\r\n", subgid: good, want: []string{"subuid:1:", `\r`}},
		{name: "blank before", subuid: " alice:100000:65536\n", subgid: good, want: []string{"subuid:1:", "blanks"}},
		{name: "count 0", subuid: "alice:100000:0\n", subgid: good, want: []string{"subuid:1:", "count is 0"}},
		{name: "overflow", subuid: "alice:4294901760:65536\n", subgid: good, want: []string{"subuid:1:", "4294967294"}},
		{name: "overflow of 32 bits", subuid: "alice:4294967296:65536\n", subgid: good, want: []string{"subuid:1:", "greater than"}},
		{name: "overflow of 64 bits", subuid: "alice:99999999999999999999999:1\n", subgid: good, want: []string{"subuid:1:", "greater than"}},
		{name: "malformed by number", subuid: good, subgid: "1000:nope:1\n" + good, want: []string{"subgid:1:"}},
		{name: "overlaps itself", subuid: good + "alice:165535:10\n", subgid: good, want: []string{"subuid:2:", "overlaps line 1", "same user"}},
		{name: "the same by number", subuid: good + "1000:100000:65536\n", subgid: good, want: []string{"subuid:2:", "overlaps line 1", "same user"}},
		{name: "overlaps another's", subuid: "bob:165535:65536\n" + good, subgid: good, want: []string{"subuid:2:", "overlaps line 1", "another user", "alice:231071:65536"}},
		{name: "overlaps another's, groups", subuid: good, subgid: good + "bob:99999:2\n", want: []string{"subgid:1:", "overlaps line 2", "another user"}},
		{name: "contains root", subuid: "alice:0:65536\n", subgid: good, want: []string{"subuid:1:", "host's root"}},
		{name: "contains the user", subuid: "alice:1000:1\n", subgid: good, want: []string{"subuid:1:", "own user id 1000"}},
		{name: "contains the user's group", subuid: good, subgid: "alice:900:200\n", want: []string{"subgid:1:", "own group id 1001"}},
		{name: "root: contains root", root: true, subuid: "root:0:65536\n", want: []string{"subuid:1:", "host's root"}},
		{name: "root: default is another's", root: true, subuid: "bob:1878982000:65536\n", want: []string{"subuid:", "overlaps line 1", "another user"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := Options{UID: 1000, GID: 1001, User: "alice", Count: 65536}
			if test.root {
				o.UID, o.GID, o.User = 0, 0, "root"
			}
			o.SubUID, o.SubGID = files(t, test.subuid, test.subgid)
			m, err := Plan(o)
			if err == nil {
				t.Fatalf("planned %+v", m)
			}
			oneLine(t, err, test.want...)
		})
	}
	t.Run("file missing", func(t *testing.T) {
		_, err := Plan(Options{UID: 1000, GID: 1000, User: "alice", Count: 65536, SubUID: "/nonexistent/subuid", SubGID: "/nonexistent/subgid"})
		oneLine(t, err, "/nonexistent/subuid", "echo 'alice:100000:65536' | sudo tee -a /nonexistent/subuid /nonexistent/subgid")
	})
	t.Run("file unreadable", func(t *testing.T) {
		_, err := Plan(Options{UID: 1000, GID: 1000, User: "alice", Count: 65536, SubUID: t.TempDir(), SubGID: "/nonexistent/subgid"})
		oneLine(t, err, "subordinate user ids")
	})
	t.Run("user without a name", func(t *testing.T) {
		subuid, subgid := files(t, "", "")
		_, err := Plan(Options{UID: 4711, GID: 4711, Count: 65536, SubUID: subuid, SubGID: subgid})
		oneLine(t, err, "echo '4711:100000:65536'")
	})
	t.Run("count 0", func(t *testing.T) {
		_, err := Plan(Options{UID: 1000, GID: 1000, User: "alice"})
		oneLine(t, err, "ids.count: 0")
	})
}

func oneLine(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one that says %q", want)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("several lines: %q", err)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error doesn't say %q: %v", w, err)
		}
	}
}

func TestManyRanges(t *testing.T) {
	var subid strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&subid, "alice:%d:1\n", 2000000000+2*i)
	}
	o := Options{UID: 1000, GID: 1000, User: "alice", Count: 65536}
	o.SubUID, o.SubGID = files(t, subid.String(), subid.String())
	m, err := Plan(o)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.UIDs); n > maxExtents || n < 100 {
		t.Errorf("%d extents", n)
	}
	if size := len(text(m.UIDs)); size >= os.Getpagesize() {
		t.Errorf("map of %d bytes: the kernel takes less than a page", size)
	}
	if last := m.UIDs[len(m.UIDs)-1]; last.Inside != overflow || last.Count != 1 {
		t.Errorf("last extent is %+v, want nobody's", last)
	}
	if m.Short == "" {
		t.Error("doesn't say that it is short")
	}
}

func TestTranslate(t *testing.T) {
	m := Map{
		UIDs: []Extent{{0, 1000, 1}, {1, 100000, 9}, {65534, 100009, 1}},
		GIDs: []Extent{{0, 100, 1}, {1, 200000, 4294767295 - 1}},
	}
	for inside, want := range map[uint32]uint32{0: 1000, 1: 100000, 9: 100008, 65534: 100009} {
		host, ok := m.HostUID(inside)
		if !ok || host != want {
			t.Errorf("HostUID(%d) is %d, %v", inside, host, ok)
		}
		back, ok := m.ContainerUID(want)
		if !ok || back != inside {
			t.Errorf("ContainerUID(%d) is %d, %v", want, back, ok)
		}
	}
	for _, inside := range []uint32{10, 65533, 65535, 4294967295} {
		if host, ok := m.HostUID(inside); ok {
			t.Errorf("HostUID(%d) is %d", inside, host)
		}
	}
	for _, host := range []uint32{0, 1, 999, 1001, 99999, 100010} {
		if inside, ok := m.ContainerUID(host); ok {
			t.Errorf("ContainerUID(%d) is %d", host, inside)
		}
	}
	if gid, ok := m.HostGID(4294767294); !ok || gid != 4294967293 {
		t.Errorf("HostGID of the last is %d, %v", gid, ok)
	}
	if gid, ok := m.ContainerGID(100); !ok || gid != 0 {
		t.Errorf("ContainerGID(100) is %d, %v", gid, ok)
	}
}

func TestGetSubIDs(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\n" + `
case "$*" in
alice) echo "0: alice 300000 40000"; echo "1: alice 400000 40000";;
"-g alice") echo "0: alice 500000 65536";;
*) echo "Error fetching ranges" >&2; exit 1;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "getsubids"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	o := Options{UID: 1000, GID: 1001, User: "alice", Count: 65536, Path: "relative:" + dir}
	o.SubUID, o.SubGID = files(t, "bob:100000:65536\n", "bob:100000:65536\n")
	m, err := Plan(o)
	if err != nil {
		t.Fatal(err)
	}
	want := Map{
		UIDs: []Extent{{0, 1000, 1}, {1, 300000, 40000}, {40001, 400000, 25535}},
		GIDs: []Extent{{0, 1001, 1}, {1, 500000, 65535}}, Full: true,
	}
	if d := cmp.Diff(want, m); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	o.User = "carol"
	_, err = Plan(o)
	oneLine(t, err, "no range for carol")
	// The file goes before the directory service.
	o.User = "bob"
	if m, err = Plan(o); err != nil || m.UIDs[1].Outside != 100000 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestGetSubIDsHangs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "getsubids"), []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	o := Options{UID: 1000, GID: 1001, User: "alice", Count: 65536, Path: dir + ":/bin"}
	o.SubUID, o.SubGID = files(t, "", "")
	within2s(t, func() {
		_, err := Plan(Options{UID: o.UID, GID: o.GID, User: o.User, Count: o.Count, SubUID: o.SubUID, SubGID: o.SubGID, Path: o.Path})
		oneLine(t, err, "getsubids", "2 s")
	})
	noChildren(t)
}

func TestUserName(t *testing.T) {
	passwd := filepath.Join(t.TempDir(), "passwd")
	if err := os.WriteFile(passwd, []byte("root:x:0:0::/:/bin/sh\n# x:x:10\nshort:x\nalice:x:1000:1000::/:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := userName(passwd, 1000); got != "alice" {
		t.Errorf("user 1000 is %q", got)
	}
	// Not in the file: id(1) says who the caller is.
	if got := userName("/nonexistent", uint32(os.Getuid())); got == "" {
		t.Error("the caller has no name")
	}
}

func TestRootOfNamespace(t *testing.T) {
	own := filepath.Join(t.TempDir(), "map")
	if err := os.WriteFile(own, []byte("         0       1000          1\n         1     100000      65536\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	inside := Map{UIDs: []Extent{{0, 1, 1000}}, GIDs: []Extent{{0, 1, 1000}}}
	if err := inside.checkOwn(own, own); err != nil {
		t.Errorf("ids that are there: %v", err)
	}
	outside := Map{UIDs: []Extent{{0, 1, 1000}}, GIDs: []Extent{{0, RootStart, RootCount}}}
	oneLine(t, outside.checkOwn(own, own), "group ids 1878982656 to 1879048191", "/etc/subgid", "root:START:COUNT")
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"alice:100000:65536\n", "alice:100000:65536", "alice\n", "alice:0:0\n", ":::\n", "alice:4294967295:1\n",
		"#alice:1:2\n\n\nbob:99999999999999999999:1\nalice:1:2\n1000:3:4", " alice:1:2\r\n", "alice:1:2:3", "\x00:\xff:1\n", "alice:07:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data string) {
		entries, flaws := parse(data)
		lines := strings.Split(data, "\n")
		seen := map[int]bool{}
		for _, e := range entries {
			// What is accepted is the line itself, read in one way only.
			if e.line < 1 || e.line > len(lines) || e.String() != lines[e.line-1] {
				t.Fatalf("line %d is read as %q", e.line, e)
			}
			if e.count == 0 || e.end() > 1<<32-1 || e.owner == "" {
				t.Fatalf("accepted %q", e)
			}
			seen[e.line] = true
		}
		for _, f := range flaws {
			if seen[f.line] || f.why == "" || f.owner == "" {
				t.Fatalf("flaw %+v", f)
			}
		}
		s := side{what: "user", file: "subuid", own: 1000}
		o := Options{UID: 1000, GID: 1000, User: "alice", Count: 65536}
		if err := s.read(o, data); err != nil {
			oneLine(t, err, s.file)
			return
		}
		if len(s.ranges) == 0 {
			return
		}
		extents, _ := s.extents(o)
		checkExtents(t, extents)
	})
}

// checkExtents holds what the kernel and the security of the host want of any
// map.
func checkExtents(t *testing.T, extents []Extent) {
	t.Helper()
	if !fits(extents) {
		t.Fatalf("the kernel does not take %d extents", len(extents))
	}
	for i, e := range extents {
		if e.Count == 0 || e.Outside == 0 || i > 0 && (e.Outside <= 1000 && uint64(e.Outside)+uint64(e.Count) > 1000) {
			t.Fatalf("extent %d is %+v", i, e)
		}
		for _, before := range extents[:i] {
			if before.Inside < e.Inside+e.Count && e.Inside < before.Inside+before.Count ||
				uint64(before.Outside) < uint64(e.Outside)+uint64(e.Count) && uint64(e.Outside) < uint64(before.Outside)+uint64(before.Count) {
				t.Fatalf("extents %+v and %+v overlap", before, e)
			}
		}
	}
	if _, ok := outward(extents, overflow); !ok {
		t.Fatalf("nobody is not mapped: %+v", extents)
	}
}
