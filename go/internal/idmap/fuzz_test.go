package idmap

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// FuzzPlan: whatever stands in the files, a container gets no id twice, none of
// the host's root, and none that is not its user's.
func FuzzPlan(f *testing.F) {
	for _, seed := range []struct {
		users, groups string
		uid, gid      uint32
		count         int
	}{
		{"alice:100000:65536\n", "alice:100000:65536\n", 1000, 1000, 65536},
		{"alice:100000:65536\n", "1000:200000:10\n", 1000, 1001, 65536},
		{"alice:100000:10\nalice:100010:10\nbob:300000:65536\nalice:200000:3\n", "alice:1:65533\n", 1000, 0, 70000},
		{"alice:0:65536\n", "alice:100000:65536\n", 1000, 1000, 65536},
		{"alice:100000:65536\nbob:100500:1\n", "alice:4294901759:65536\n", 1000, 1000, 65536},
		{"root:1:1000\n0:5000:70000\n", "", 0, 0, 65536},
		{"", "", 0, 0, 65536},
		{"", "", 1000, 1000, 1},
		{"bob:1878982656:5\n", "", 0, 0, 100},
		{strings.Repeat("alice:4294900000:1\nalice:1:1\n", 2), "alice:500:5\n", 1000, 1000, 65536},
	} {
		f.Add(seed.users, seed.groups, seed.uid, seed.gid, seed.count)
	}
	var many strings.Builder
	for i := range 400 {
		many.WriteString("alice:" + strings.Repeat("9", 1+i%8) + strings.Repeat("0", i%2) + ":1\n")
	}
	f.Add(many.String(), many.String(), uint32(1000), uint32(1000), 65536)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, users, groups string, uid, gid uint32, count int) {
		if uid == math.MaxUint32 || gid == math.MaxUint32 {
			return // no ids (setresuid(2))
		}
		o := Options{UID: uid, GID: gid, User: "alice", Count: count, SubUID: filepath.Join(dir, "subuid"), SubGID: filepath.Join(dir, "subgid")}
		if uid == 0 {
			o.User = "root"
		}
		for file, text := range map[string]string{o.SubUID: users, o.SubGID: groups} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m, err := Plan(o)
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 4096+len(users)+len(groups) {
				t.Errorf("error %q", err)
			}
			return
		}
		if strings.Contains(m.Short, "\n") {
			t.Errorf("a note of several lines: %q", m.Short)
		}
		for _, side := range []struct {
			extents []Extent
			file    string
			own     uint32
		}{{m.UIDs, users, uid}, {m.GIDs, groups, gid}} {
			entries, _ := parse(side.file)
			checkAll(t, o, side.extents, entries, side.own)
		}
		if o.UID == 0 && (m.RootUID() == 0 || m.RootGID() == 0) {
			t.Errorf("the host's root is in the container: %+v", m)
		}
	})
}

func checkAll(t *testing.T, o Options, extents []Extent, entries []entry, own uint32) {
	t.Helper()
	if !fits(extents) || len(extents) == 0 || extents[0].Inside != 0 {
		t.Fatalf("%d extents: %+v", len(extents), extents)
	}
	total := uint64(0)
	for i, e := range extents {
		total += uint64(e.Count)
		inside, outside := uint64(e.Inside)+uint64(e.Count), uint64(e.Outside)+uint64(e.Count)
		if e.Count == 0 || inside > max(uint64(o.Count), overflow+1) || outside > math.MaxUint32 {
			t.Fatalf("extent %+v of %d ids", e, o.Count)
		}
		for _, other := range extents[:i] {
			if uint64(other.Inside) < inside && uint64(e.Inside) < uint64(other.Inside)+uint64(other.Count) ||
				uint64(other.Outside) < outside && uint64(e.Outside) < uint64(other.Outside)+uint64(other.Count) {
				t.Fatalf("%+v and %+v overlap", other, e)
			}
		}
		if o.UID != 0 && e == (Extent{0, own, 1}) {
			continue
		}
		if e.Outside == 0 {
			t.Fatalf("the host's root is in the container: %+v", e)
		}
		checkOwner(t, o, e, entries)
	}
	if total > uint64(o.Count) {
		t.Fatalf("%d ids, %d were wanted", total, o.Count)
	}
}

// checkOwner: each of the ids is one of the user's and of nobody else's.
func checkOwner(t *testing.T, o Options, e Extent, entries []entry) {
	t.Helper()
	left, ranges := uint64(0), 0
	start, end := uint64(e.Outside), uint64(e.Outside)+uint64(e.Count)
	for _, r := range entries {
		if !r.overlaps(start, end) {
			continue
		}
		if r.owner != o.User && r.owner != strconv.FormatUint(uint64(o.UID), 10) {
			t.Fatalf("%+v holds ids of %s", e, r)
		}
		ranges++
		left += min(end, r.end()) - max(start, uint64(r.start))
	}
	if ranges == 0 && o.UID == 0 && start >= RootStart && end <= RootStart+RootCount {
		return // root's default
	}
	if left != uint64(e.Count) {
		t.Fatalf("%d ids of %+v are of a range of the user's", left, e)
	}
}
