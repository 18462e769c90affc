package userns

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// withheld are the capabilities that a container never gets, though they mean
// little in a user namespace. systemd decides by them what to try:
// sys_rawio makes it mount debugfs, which fails; sys_module load modules;
// sys_time set the clock; the audit ones open the audit socket.
var withheld = [...]uintptr{
	unix.CAP_SYS_RAWIO, unix.CAP_SYS_MODULE, unix.CAP_SYS_TIME,
	unix.CAP_AUDIT_CONTROL, unix.CAP_AUDIT_READ, unix.CAP_AUDIT_WRITE,
}

// network are the capabilities over a network namespace: to configure it, and to
// send what its rules don't see. Withheld, nobody in the container changes what
// its network may reach, in nested user namespaces neither: what they own are
// other networks, with no way to this one.
var network = [...]uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}

// LimitThread takes the withheld capabilities out of the calling thread's
// bounding set and clears what an exec would carry over (the ambient and
// inheritable sets). The thread must be locked; its children inherit all of it.
// With fixedNetwork, the rights over the network are withheld too.
func LimitThread(fixedNetwork bool) error {
	drop := withheld[:]
	if fixedNetwork {
		drop = append(slices.Clone(drop), network[:]...)
	}
	for _, c := range drop {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_CAP_AMBIENT", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}
