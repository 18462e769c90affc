package state

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holderIn finds the pid of the flock on a file in the text of /proc/locks:
//
//	1: FLOCK  ADVISORY  WRITE 708 00:13:15113 0 EOF
//
// with the device as hexadecimal major:minor. The pid is 0 or -1 where the
// holder is in another pid namespace.
func holderIn(table string, dev, ino uint64) int {
	for _, line := range strings.Split(table, "\n") {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		id := strings.Split(f[5], ":")
		if len(id) != 3 {
			continue
		}
		major, err1 := strconv.ParseUint(id[0], 16, 32)
		minor, err2 := strconv.ParseUint(id[1], 16, 32)
		inode, err3 := strconv.ParseUint(id[2], 10, 64)
		if err1 != nil || err2 != nil || err3 != nil || inode != ino ||
			uint32(major) != unix.Major(dev) || uint32(minor) != unix.Minor(dev) {
			continue
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			return pid
		}
	}
	return 0
}
