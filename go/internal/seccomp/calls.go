package seccomp

import "golang.org/x/sys/unix"

// none stands where an architecture does not have a call.
const none = ^uint32(0)

// denial is a call that the filter answers with an error, and its number by
// architecture: x86-64, i386, AArch64, ARM.
type denial struct {
	name    string
	errno   unix.Errno
	numbers [4]uint32
}

// denied are the calls that are denied whatever their arguments are.
//
// ENOSYS stands where programs know kernels that were built without the call,
// and then do without it; runc and crun, for one, take no other error of keyctl.
// EPERM is what the kernel itself says to those who lack the right.
//
// adjtimex and clock_adjtime only read unless a field in memory says otherwise,
// which a filter can't see; to set, the kernel asks for the host's CAP_SYS_TIME.
var denied = [...]denial{
	// Keys belong to the user, whom the kernel does not tell from the container's
	// root: a search finds those of the host's sessions.
	{"add_key", unix.ENOSYS, [4]uint32{248, 286, 217, 309}},
	{"keyctl", unix.ENOSYS, [4]uint32{250, 288, 219, 311}},
	{"request_key", unix.ENOSYS, [4]uint32{249, 287, 218, 310}},

	// Code and counters in the kernel, where mistakes have been many.
	{"bpf", unix.EPERM, [4]uint32{321, 357, 280, 386}},
	{"perf_event_open", unix.EPERM, [4]uint32{298, 336, 241, 364}},
	{"userfaultfd", unix.EPERM, [4]uint32{323, 374, 282, 388}},
	{"io_uring_setup", unix.ENOSYS, [4]uint32{425, 425, 425, 425}},
	{"io_uring_enter", unix.ENOSYS, [4]uint32{426, 426, 426, 426}},
	{"io_uring_register", unix.ENOSYS, [4]uint32{427, 427, 427, 427}},

	// A file by its number, past the folders above it.
	{"open_by_handle_at", unix.EPERM, [4]uint32{304, 342, 265, 371}},

	// The machine's own: its kernel, clock, swap, accounting, quotas, I/O ports.
	{"kexec_load", unix.EPERM, [4]uint32{246, 283, 104, 347}},
	{"kexec_file_load", unix.EPERM, [4]uint32{320, none, 294, 401}},
	{"init_module", unix.EPERM, [4]uint32{175, 128, 105, 128}},
	{"finit_module", unix.EPERM, [4]uint32{313, 350, 273, 379}},
	{"delete_module", unix.EPERM, [4]uint32{176, 129, 106, 129}},
	{"settimeofday", unix.EPERM, [4]uint32{164, 79, 170, 79}},
	{"stime", unix.EPERM, [4]uint32{none, 25, none, none}},
	{"clock_settime", unix.EPERM, [4]uint32{227, 264, 112, 262}},
	{"clock_settime64", unix.EPERM, [4]uint32{none, 404, none, 404}},
	{"swapon", unix.EPERM, [4]uint32{167, 87, 224, 87}},
	{"swapoff", unix.EPERM, [4]uint32{168, 115, 225, 115}},
	{"acct", unix.EPERM, [4]uint32{163, 51, 89, 51}},
	{"quotactl", unix.ENOSYS, [4]uint32{179, 131, 60, 131}},
	{"quotactl_fd", unix.ENOSYS, [4]uint32{443, 443, 443, 443}},
	{"syslog", unix.EPERM, [4]uint32{103, 103, 116, 103}},
	{"iopl", unix.EPERM, [4]uint32{172, 110, none, none}},
	{"ioperm", unix.EPERM, [4]uint32{173, 101, none, none}},

	// Leftovers that kernels go without, sooner or later.
	{"lookup_dcookie", unix.ENOSYS, [4]uint32{212, 253, 18, 249}},
	{"nfsservctl", unix.ENOSYS, [4]uint32{180, 169, 42, 169}},
	{"_sysctl", unix.ENOSYS, [4]uint32{156, 149, none, 149}},
	{"sysfs", unix.ENOSYS, [4]uint32{139, 135, none, 135}},
	{"ustat", unix.ENOSYS, [4]uint32{136, 62, none, 62}},
	{"uselib", unix.ENOSYS, [4]uint32{134, 86, none, 86}},
	{"vm86", unix.ENOSYS, [4]uint32{none, 166, none, none}},
	{"vm86old", unix.ENOSYS, [4]uint32{none, 113, none, none}},
}

// ioctl is looked into: these requests type into the terminal that they are
// made on, which may be one of the host's.
var (
	ioctl    = [4]uint32{16, 54, 29, 54}
	requests = [...]uint32{unix.TIOCSTI, tiocLinux}
)

// tiocLinux is TIOCLINUX (ioctl_console(2)), which pastes the selection.
const tiocLinux = 0x541c
