package userns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Program is a sealed copy in the making.
type Program struct {
	made  chan struct{}
	image *os.File
	err   error
}

// CopyProgram begins an Image that is made beside what else there is to do: it
// takes milliseconds. It can be started any number of times before it is closed.
func CopyProgram() *Program {
	p := &Program{made: make(chan struct{})}
	go func() {
		p.image, p.err = Image()
		close(p.made)
	}()
	return p
}

// ProgramFrom takes a copy over that another process has made with Image.
func ProgramFrom(image *os.File) *Program {
	p := &Program{made: make(chan struct{}), image: image}
	close(p.made)
	return p
}

// Wait returns the copy, which stays the Program's.
func (p *Program) Wait() (*os.File, error) {
	<-p.made
	return p.image, p.err
}

// Close waits for the copy and closes it.
func (p *Program) Close() {
	<-p.made
	if p.image != nil {
		p.image.Close()
	}
}

// Image returns a sealed copy of the running program (memfd_create(2)), to be
// executed as /proc/self/fd/N.
//
// Sealed, because a process in a container that gets hold of /proc/PID/exe may
// write to it once nothing executes it any more (CVE-2019-5736). And executable
// but not readable (mode 0111): executing a file that one may not read makes
// the kernel take the memory's owner from the user namespace that may
// (would_dump in fs/exec.c, Linux 4.10), here the host's. So root of the
// container, though it has CAP_SYS_PTRACE over the keeper's user namespace,
// can't trace, read or dump a keeper's child that has entered the container
// and not executed its program yet.
func Image() (*os.File, error) {
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	defer exe.Close()
	st, err := exe.Stat()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("nuc", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // MFD_EXEC came with Linux 6.3
		fd, err = unix.MemfdCreate("nuc", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("making a sealed copy of nuc: memfd_create: %w (sysctl vm.memfd_noexec must not be 2)", err)
	}
	image := os.NewFile(uintptr(fd), "nuc-image")
	for left := st.Size(); left > 0; {
		n, err := unix.Sendfile(fd, int(exe.Fd()), nil, int(left))
		if err == nil && n == 0 {
			err = unix.EIO
		}
		if err != nil {
			image.Close()
			return nil, fmt.Errorf("making a sealed copy of nuc: %w", err)
		}
		left -= int64(n)
	}
	err = unix.Fchmod(fd, 0o111)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		image.Close()
		return nil, fmt.Errorf("sealing the copy of nuc: %w", err)
	}
	return image, nil
}
