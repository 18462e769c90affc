package descriptor

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// The C library keeps the kernel's first two real-time signals (32 and 33) for
// itself, so systemd's SIGRTMIN is 34 (signal(7)).
const (
	sigRTMin    = 34
	maxRTOffset = 64 - sigRTMin
)

var signals = []struct {
	name   string
	number syscall.Signal
}{
	{"SIGHUP", syscall.SIGHUP},
	{"SIGINT", syscall.SIGINT},
	{"SIGQUIT", syscall.SIGQUIT},
	{"SIGILL", syscall.SIGILL},
	{"SIGTRAP", syscall.SIGTRAP},
	{"SIGABRT", syscall.SIGABRT},
	{"SIGBUS", syscall.SIGBUS},
	{"SIGFPE", syscall.SIGFPE},
	{"SIGKILL", syscall.SIGKILL},
	{"SIGUSR1", syscall.SIGUSR1},
	{"SIGSEGV", syscall.SIGSEGV},
	{"SIGUSR2", syscall.SIGUSR2},
	{"SIGPIPE", syscall.SIGPIPE},
	{"SIGALRM", syscall.SIGALRM},
	{"SIGTERM", syscall.SIGTERM},
	{"SIGCHLD", syscall.SIGCHLD},
	{"SIGCONT", syscall.SIGCONT},
	{"SIGSTOP", syscall.SIGSTOP},
	{"SIGTSTP", syscall.SIGTSTP},
	{"SIGTTIN", syscall.SIGTTIN},
	{"SIGTTOU", syscall.SIGTTOU},
	{"SIGURG", syscall.SIGURG},
	{"SIGXCPU", syscall.SIGXCPU},
	{"SIGXFSZ", syscall.SIGXFSZ},
	{"SIGVTALRM", syscall.SIGVTALRM},
	{"SIGPROF", syscall.SIGPROF},
	{"SIGWINCH", syscall.SIGWINCH},
	{"SIGIO", syscall.SIGIO},
	{"SIGPWR", syscall.SIGPWR},
	{"SIGSYS", syscall.SIGSYS},
}

// ParseSignal returns the signal of a name as in signal(7): SIGTERM, SIGRTMIN,
// SIGRTMIN+0 to SIGRTMIN+30.
func ParseSignal(name string) (syscall.Signal, error) {
	if offset, found := strings.CutPrefix(name, "SIGRTMIN"); found {
		if offset == "" {
			return sigRTMin, nil
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(offset, "+"), 10, 8)
		if err != nil || n > maxRTOffset || offset != "+"+strconv.FormatUint(n, 10) {
			return 0, fmt.Errorf("signal %s: real-time signals are SIGRTMIN+0 to SIGRTMIN+%d", abbreviate(name), maxRTOffset)
		}
		return sigRTMin + syscall.Signal(n), nil
	}
	for _, s := range signals {
		if s.name == name {
			return s.number, nil
		}
	}
	return 0, fmt.Errorf("signal %s: no name of a signal, such as SIGTERM or SIGRTMIN+3", abbreviate(name))
}

// RealTime tells the signals that have a meaning to systemd alone (systemd(1)).
func RealTime(signal syscall.Signal) bool { return signal >= sigRTMin }
