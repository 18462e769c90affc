// Package landlock takes from the running process, all threads and all that it
// starts, whatever its work does not need (landlock(7)): files and folders, and
// where the kernel can, TCP ports, signals and the sockets of others. There is no
// way back, and no setuid program helps any more (no_new_privs).
//
// What is open stays usable. A path is looked up once, when the process is
// confined: rules are about what is there then, and what is below.
package landlock

import (
	"errors"
	"fmt"
	"os"
	"time"

	library "github.com/landlock-lsm/go-landlock/landlock"
	kernel "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Rules are what a process may still do. Paths that are missing are left out.
type Rules struct {
	// Read are files, and folders with all that is below: not to be executed.
	Read []string
	// Write are folders in which all but devices may be made, changed and removed.
	Write []string
	// Use are files and devices to be read and written.
	Use []string
	// List are folders whose entries may be listed, and those of folders below.
	List []string
	// Sockets are folders in which Unix sockets may be made and files removed.
	Sockets []string
	// Tidy are folders that empty folders may be removed from.
	Tidy []string
	// Connect are folders with Unix sockets to connect to (Linux 7.1; before, any).
	Connect []string
	// TCP, if not nil, lists the only TCP ports that there are (Linux 6.7).
	TCP *Ports
	// NoSignals: none may be sent to other processes (Linux 6.12).
	NoSignals bool
}

// Ports are those to listen on and those to connect to.
type Ports struct{ Bind, Connect []uint16 }

const (
	toRead = kernel.AccessFSReadFile | kernel.AccessFSReadDir
	toUse  = kernel.AccessFSReadFile | kernel.AccessFSWriteFile | kernel.AccessFSTruncate
	// toChange is without device nodes. Truncating a file is a right of its own
	// since ABI 3, and part of writing before.
	toChange = toRead | kernel.AccessFSWriteFile | kernel.AccessFSTruncate |
		kernel.AccessFSRemoveDir | kernel.AccessFSRemoveFile | kernel.AccessFSMakeDir | kernel.AccessFSMakeReg |
		kernel.AccessFSMakeSock | kernel.AccessFSMakeFifo | kernel.AccessFSMakeSym | kernel.AccessFSRefer
)

// What there is to be said of a kernel without Landlock.
var (
	ErrNone = errors.New("the kernel has no Landlock")
	ErrOff  = errors.New("the kernel was booted without Landlock")
)

// ABI is the version that the running kernel has (landlock_create_ruleset(2)), or
// one of the two errors.
func ABI() (int, error) {
	version, err := kernel.LandlockGetABIVersion()
	switch err {
	case nil:
		return version, nil
	case unix.ENOSYS:
		return 0, ErrNone
	case unix.EOPNOTSUPP:
		return 0, ErrOff
	}
	return 0, fmt.Errorf("landlock: %w", err)
}

// Confine confines the process, as far as the kernel can, and returns the ABI.
// After an error, it is not confined.
func Confine(r Rules) (abi int, err error) {
	if abi, err = ABI(); err != nil {
		return 0, err
	}
	_, _ = time.Now().Zone() // Go reads the zone at its first use
	c := library.Config{HandledAccessFS: library.V9.HandledAccessFS, Scoped: kernel.ScopeAbstractUnixSocket}
	if r.NoSignals {
		c.Scoped |= kernel.ScopeSignal
	}
	if r.TCP != nil {
		c.HandledAccessNet = kernel.AccessNetBindTCP | kernel.AccessNetConnectTCP
	}
	if err := c.BestEffort().Restrict(r.list(abi)...); err != nil {
		return 0, err
	}
	return abi, nil
}

// list is what the library takes.
func (r Rules) list(abi int) []library.Rule {
	var all []library.Rule
	allow := func(rights library.AccessFSSet, paths []string) {
		if abi < 2 {
			// Moving files between folders is never allowed then, and the library
			// would rather not confine than refuse what is asked for.
			rights &^= kernel.AccessFSRefer
		}
		for _, path := range paths {
			rights := rights
			st, err := os.Stat(path)
			if err != nil {
				continue
			}
			if !st.IsDir() {
				rights &= toUse // the kernel takes no others
			}
			all = append(all, library.PathAccess(rights, path).IgnoreIfMissing())
		}
	}
	allow(toRead, r.Read)
	allow(toChange, r.Write)
	allow(toUse, r.Use)
	allow(kernel.AccessFSReadDir, r.List)
	allow(kernel.AccessFSMakeSock|kernel.AccessFSRemoveFile, r.Sockets)
	allow(kernel.AccessFSRemoveDir, r.Tidy)
	allow(kernel.AccessFSResolveUnix, r.Connect)
	if r.TCP != nil {
		for _, port := range r.TCP.Bind {
			all = append(all, library.BindTCP(port))
		}
		for _, port := range r.TCP.Connect {
			all = append(all, library.ConnectTCP(port))
		}
	}
	return all
}
