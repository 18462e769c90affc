package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Events are what the kernel refused the payload, and all below it, since it
// was made.
type Events struct {
	// OOMKills counts processes killed for want of memory (memory.events).
	OOMKills uint64
	// TasksRefused counts processes and threads that could not be started for
	// tasksMax (pids.events).
	TasksRefused uint64
}

// Events reads the counts of now: 0 without the controllers.
func (g *Group) Events() Events {
	var e Events
	if g.path.Payload == "" {
		return e
	}
	if n := value(g.path.Payload, "memory.events", "oom_kill"); n != nil {
		e.OOMKills = *n
	}
	if n := value(g.path.Payload, "pids.events", "max"); n != nil {
		e.TasksRefused = *n
	}
	return e
}

// OOMUnits names the units of the payload whose processes were killed for want
// of memory, sorted; one whose cgroup systemd has removed by now is not among
// them.
func (g *Group) OOMUnits() []string {
	var names []string
	for _, u := range Units(g.path.Payload) {
		if n := value(u.Path, "memory.events", "oom_kill"); n != nil && *n > 0 {
			names = append(names, u.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Watch calls changed whenever the kernel has changed one of the files that
// Events reads, from a goroutine of its own, until stop, which waits for it.
// Nothing is polled: the kernel tells inotify(7) of these files
// (Documentation/admin-guide/cgroup-v2.rst, "memory.events"). Without the
// controllers it does nothing.
func (g *Group) Watch(changed func()) (stop func(), err error) {
	var files []string
	for _, name := range []string{"memory.events", "pids.events"} {
		if g.path.Payload != "" && has(g.path.Payload, name) {
			files = append(files, filepath.Join(g.path.Payload, name))
		}
	}
	if len(files) == 0 {
		return func() {}, nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return func() {}, fmt.Errorf("watching %s: inotify_init: %w: raise fs.inotify.max_user_instances", files[0], err)
	}
	inotify := os.NewFile(uintptr(fd), "inotify")
	for _, file := range files {
		if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
			inotify.Close()
			return func() {}, &os.PathError{Op: "inotify_add_watch", Path: file, Err: err}
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			// What is in the events says no more than that there are some.
			if _, err := inotify.Read(buf); err != nil {
				return
			}
			changed()
		}
	}()
	return func() {
		inotify.Close()
		<-done
	}, nil
}
