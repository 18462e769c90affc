//go:build faults

package fault

import (
	"os"
	"os/signal"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// variable names, in the environment, the point at which to stand still.
const variable = "NUC_FAULT"

// prefix begins the name that the thread has meanwhile, in /proc/PID/task/TID/comm
// (proc_pid_comm(5)): that can be seen of processes whose other files are closed.
// Together with the point's name it has 15 bytes at most.
const prefix = "nuc@"

var once sync.Once

// At stands still if the point is the one that is asked for, the first time, until
// SIGCONT comes. Only the calling goroutine does: SIGSTOP would not hold a pid 1
// that sends it to itself (pid_namespaces(7)).
func At(point string) {
	if os.Getenv(variable) != point {
		return
	}
	once.Do(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before := make([]byte, 16)
		_ = unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&before[0])), 0, 0, 0)
		released := make(chan os.Signal, 1)
		signal.Notify(released, unix.SIGCONT)
		name := append([]byte(prefix+point), 0)
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0)
		<-released
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&before[0])), 0, 0, 0)
		signal.Stop(released)
	})
}

// Environment is what a child has to be given.
func Environment() []string {
	if point := os.Getenv(variable); point != "" {
		return []string{variable + "=" + point}
	}
	return nil
}
