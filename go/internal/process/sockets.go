package process

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
)

// Sockets lists the sockets that a process has open, by inode.
func Sockets(pid int) (map[uint64]bool, error) {
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

// SocketsBelow lists those of all descendants of a process.
func SocketsBelow(pid int) map[uint64]bool {
	entries, _ := os.ReadDir("/proc")
	parents := map[int]int{}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// Behind the name, which may hold anything (proc_pid_stat(5)).
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) > 1 {
			parents[child], _ = strconv.Atoi(fields[1])
		}
	}
	found := map[uint64]bool{}
	for child := range parents {
		for p := parents[child]; p > 1; p = parents[p] {
			if p == pid {
				sockets, _ := Sockets(child)
				maps.Copy(found, sockets)
				break
			}
		}
	}
	return found
}
