package harness

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Ranges says how many subordinate ids the user of a test has.
type Ranges int

const (
	// FullRange is what useradd gives a person: 65536 ids.
	FullRange Ranges = 65536
	// ShortRange is too short for 65534 (nobody) to be in it.
	ShortRange Ranges = 4096
	// NoRange is a user without a line in /etc/subuid and /etc/subgid.
	NoRange Ranges = 0
)

// account is a user of the host that runs nuc in tests.
type account struct {
	name   string
	home   string
	uid    uint32
	gid    uint32
	groups []uint32
	lock   *os.File // held while this process uses the account
}

// present is the account of the calling user.
func present(t testing.TB) *account {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatalf("harness: who is running this: %v", err)
	}
	return read(t, u)
}

// lookup describes an existing user.
func lookup(t testing.TB, name string) *account {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
	return read(t, u)
}

func read(t testing.TB, u *user.User) *account {
	t.Helper()
	a := &account{name: u.Username, home: u.HomeDir, uid: number(t, u.Uid), gid: number(t, u.Gid)}
	groups, err := u.GroupIds()
	if err != nil {
		t.Fatalf("harness: groups of %s: %v", u.Username, err)
	}
	for _, group := range groups {
		a.groups = append(a.groups, number(t, group))
	}
	return a
}

func number(t testing.TB, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatalf("harness: the id %q is no number", s)
	}
	return uint32(n)
}

// claim finds or makes a user that no other test process is using. Users stay
// on the machine with their unpacked trees, which the next run uses again.
func claim(t testing.TB, ranges Ranges) *account {
	t.Helper()
	prefix := "nuc-it-"
	switch ranges {
	case ShortRange:
		prefix = "nuc-it-short-"
	case NoRange:
		prefix = "nuc-it-none-"
	}
	for i := 1; i <= 64; i++ {
		name := prefix + strconv.Itoa(i)
		lock := lockFile(t, name)
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			lock.Close()
			continue
		}
		ensure(t, name, ranges)
		a := lookup(t, name)
		a.lock = lock
		return a
	}
	t.Fatalf("harness: all 64 users %s1… are in use by other test processes", prefix)
	return nil
}

func lockFile(t testing.TB, name string) *os.File {
	t.Helper()
	path := filepath.Join("/run/lock", name)
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatalf("harness: lock of the user %s: %v", name, err)
	}
	return lock
}

// ensure makes the user with ranges of the given length, one process at a time:
// useradd and usermod give up when another holds /etc/passwd.
func ensure(t testing.TB, name string, ranges Ranges) {
	t.Helper()
	lock := lockFile(t, "nuc-it-users")
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("harness: %v", err)
	}
	if _, err := user.Lookup(name); err != nil {
		command(t, "useradd", "--create-home", "--shell", "/bin/bash",
			"--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0", name)
	}
	for _, kind := range []string{"uid", "gid"} {
		path := "/etc/sub" + kind
		own, end := subordinate(t, path, name)
		want := int64(ranges)
		if len(own) == 0 && want == 0 || len(own) == 1 && own[0].count == want {
			continue
		}
		for _, r := range own {
			command(t, "usermod", "--del-sub"+kind+"s", fmt.Sprintf("%d-%d", r.first, r.first+r.count-1), name)
		}
		if want > 0 {
			command(t, "usermod", "--add-sub"+kind+"s", fmt.Sprintf("%d-%d", end, end+want-1), name)
		}
	}
}

// idRange is one line of subuid(5).
type idRange struct{ first, count int64 }

// subordinate reads a user's ranges, and the first id after everybody's.
func subordinate(t testing.TB, path, name string) (own []idRange, end int64) {
	t.Helper()
	end = 100000
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) != 3 {
			continue
		}
		first, err1 := strconv.ParseInt(fields[1], 10, 64)
		count, err2 := strconv.ParseInt(fields[2], 10, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		if fields[0] == name {
			own = append(own, idRange{first, count})
		}
		end = max(end, first+count)
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("harness: %s: %v", path, err)
	}
	return own, end
}

func command(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("harness: %s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
