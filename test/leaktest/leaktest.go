// Package leaktest fails a test run that leaves file descriptors or goroutines
// behind. A launcher that leaks a descriptor leaks it into containers.
package leaktest

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long what is closing has to be gone; goroutines and the
// kernel's closing of sockets lag behind the test that ended them.
const patience = 2 * time.Second

// Main runs the tests of a package and exits with their status, or with 1 if
// they left file descriptors or goroutines that were not there before. It is
// all that a TestMain needs to do.
func Main(m *testing.M) {
	os.Exit(Run(m, func() {}))
}

// Run is Main for a TestMain that has to clean up after its tests: cleanup
// runs before the count. It returns the status to exit with.
func Run(m *testing.M, cleanup func()) int {
	before := take()
	status := m.Run()
	cleanup()
	leaks := before.leaks()
	for deadline := time.Now().Add(patience); len(leaks) > 0 && time.Now().Before(deadline); leaks = before.leaks() {
		time.Sleep(10 * time.Millisecond)
	}
	for _, leak := range leaks {
		fmt.Fprintln(os.Stderr, "leaktest:", leak)
	}
	if len(leaks) > 0 && status == 0 {
		status = 1
	}
	return status
}

// snapshot is what a process holds: descriptors by number, goroutines by id.
type snapshot struct {
	files      map[int]string
	goroutines map[string]string
}

func take() snapshot {
	// The runtime opens its poller at the first use and keeps it.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	return snapshot{files: files(), goroutines: goroutines()}
}

func (s snapshot) leaks() []string {
	var leaks []string
	for fd, name := range files() {
		if s.files[fd] != name {
			leaks = append(leaks, fmt.Sprintf("file descriptor %d was left open: %s", fd, name))
		}
	}
	for id, stack := range goroutines() {
		if _, known := s.goroutines[id]; !known && !lasting(stack) {
			leaks = append(leaks, "goroutine was left running:\n"+stack)
		}
	}
	return leaks
}

// lasting tells the goroutines that the standard library starts once for the
// life of the process.
func lasting(stack string) bool {
	return strings.Contains(stack, "os/signal.loop") || strings.Contains(stack, "runtime.ensureSigM")
}

// files names the open descriptors as proc(5) does. No garbage collection
// comes before it: a finalizer would close what a test forgot.
func files() map[int]string {
	open := map[int]string{}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return open
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd == int(dir.Fd()) {
			continue
		}
		if target, err := os.Readlink("/proc/self/fd/" + name); err == nil {
			open[fd] = target
		}
	}
	return open
}

// goroutines maps the ids of all goroutines but the caller's to their stacks.
func goroutines() map[string]string {
	buffer := make([]byte, 1<<16)
	for {
		n := runtime.Stack(buffer, true)
		if n < len(buffer) {
			buffer = buffer[:n]
			break
		}
		buffer = make([]byte, 2*len(buffer))
	}
	stacks := map[string]string{}
	for i, stack := range strings.Split(string(buffer), "\n\n") {
		fields := strings.Fields(stack)
		if i == 0 || len(fields) < 2 {
			continue
		}
		stacks[fields[1]] = stack
	}
	return stacks
}
