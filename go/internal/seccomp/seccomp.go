// Package seccomp holds the filter of system calls that all processes of a
// container are under, from init on (seccomp(2)).
//
// It denies what a container for development has no use for and what reaches
// past its namespaces: see calls.go. All else is allowed, also what later kernels
// add: services have filters of their own for more (systemd's SystemCallFilter=).
package seccomp

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// abi is one of the ways into the kernel that an architecture has, as columns of
// calls.go.
type abi int

const (
	x86_64 abi = iota
	i386
	aarch64
	arm
)

// audit is how the kernel tells a filter the ABI of a call.
var audit = [...]uint32{
	x86_64:  unix.AUDIT_ARCH_X86_64,
	i386:    unix.AUDIT_ARCH_I386,
	aarch64: unix.AUDIT_ARCH_AARCH64,
	arm:     unix.AUDIT_ARCH_ARM,
}

// abis are those that processes of a machine can use, at any time and whatever
// they were built for: a 64-bit program gets at the i386 calls by int 0x80.
func abis(machine string) []abi {
	switch machine {
	case "amd64":
		return []abi{x86_64, i386}
	case "arm64":
		return []abi{aarch64, arm}
	}
	return nil
}

// x32 marks the calls of the x32 ABI, which has x86-64's audit architecture.
const x32 = 0x40000000

// Where seccomp_data has what, on little-endian machines.
const (
	offsetNumber = 0
	offsetArch   = 4
	// The request of an ioctl is an unsigned int: the kernel doesn't look at the
	// other half of the register, and so the filter must not either.
	offsetRequest = 16 + 8
)

// Load puts the calling thread, and with it what it executes and forks, under
// the filter. The thread must be locked and have CAP_SYS_ADMIN over its user
// namespace: without, it would take no_new_privs, and sudo would not work
// anywhere in the container.
func Load() error {
	filter := assemble(abis(runtime.GOARCH))
	if filter == nil {
		return fmt.Errorf("seccomp filter: there is none for %s: set security.seccomp to \"off\"", runtime.GOARCH)
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// Kernels before 5.16 make all processes under a filter slower, against
	// speculation, unless told not to (Linux 4.17); the filter keeps no secrets
	// of a process from itself.
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, uintptr(unsafe.Pointer(&program)))
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, unix.EINVAL), errors.Is(errno, unix.ENOSYS):
		return fmt.Errorf("seccomp filter: %w: this kernel has none (CONFIG_SECCOMP_FILTER): set security.seccomp to \"off\"", errno)
	}
	return fmt.Errorf("seccomp filter: %w", errno)
}

// assemble makes the program: a search tree for each ABI.
//
// The kernel runs it for ioctl only: that all else has one answer whatever the
// arguments are, it finds out when the program is loaded, as long as that is made
// of loads, jumps and returns (Linux 5.11). For that it goes through the program
// for each number of a call there is, and that is most of what loading costs:
// 0.1 ms, twice that by one comparison after the other.
func assemble(abis []abi) []unix.SockFilter {
	if len(abis) == 0 {
		return nil
	}
	p := program{}
	p.load(offsetArch)
	for _, a := range abis {
		other := p.unless(unix.BPF_JEQ, audit[a])
		p.load(offsetNumber)
		if a == x86_64 {
			p.refuseX32()
		}
		p.search(rules(a))
		p.land(other)
	}
	// No machine has another ABI today; what knows no rules has no calls.
	p.answer(fail(unix.ENOSYS))
	return p
}

// rule is what is done with one call.
type rule struct {
	number uint32
	// errno is the answer, 0 of ioctl, whose request decides.
	errno unix.Errno
}

// rules are those of an ABI, by number.
func rules(a abi) []rule {
	list := make([]rule, 0, len(denied)+1)
	for i := range denied {
		if d := &denied[i]; d.numbers[a] != none {
			list = append(list, rule{d.numbers[a], d.errno})
		}
	}
	list = append(list, rule{number: ioctl[a]})
	slices.SortFunc(list, func(a, b rule) int { return int(a.number) - int(b.number) })
	return list
}

// program is classic BPF (seccomp(2)).
type program []unix.SockFilter

// search ends in an answer for each number.
func (p *program) search(rules []rule) {
	const few = 3
	if len(rules) > few {
		middle := len(rules) / 2
		lower := p.unless(unix.BPF_JGE, rules[middle].number)
		p.search(rules[middle:])
		p.land(lower)
		p.search(rules[:middle])
		return
	}
	for _, r := range rules {
		if r.errno != 0 {
			p.when(unix.BPF_JEQ, r.number, fail(r.errno))
			continue
		}
		other := p.unless(unix.BPF_JEQ, r.number)
		p.load(offsetRequest)
		for _, request := range requests {
			p.when(unix.BPF_JEQ, request, fail(unix.EPERM))
		}
		p.answer(unix.SECCOMP_RET_ALLOW)
		p.land(other)
	}
	p.answer(unix.SECCOMP_RET_ALLOW)
}

// refuseX32 lets through the number by which a debugger makes a call be none.
func (p *program) refuseX32() {
	other := p.unless(unix.BPF_JGE, x32)
	p.when(unix.BPF_JEQ, none, unix.SECCOMP_RET_ALLOW)
	p.answer(fail(unix.ENOSYS))
	p.land(other)
}

func fail(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

func (p *program) add(code uint16, k uint32, yes, no uint8) {
	*p = append(*p, unix.SockFilter{Code: code, Jt: yes, Jf: no, K: k})
}

func (p *program) load(offset uint32) { p.add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset, 0, 0) }

func (p *program) answer(action uint32) { p.add(unix.BPF_RET|unix.BPF_K, action, 0, 0) }

// when answers if what was loaded compares so with k.
func (p *program) when(comparison uint16, k, action uint32) {
	p.add(unix.BPF_JMP|unix.BPF_K|comparison, k, 0, 1)
	p.answer(action)
}

// unless jumps, to where land is called with its result, if what was loaded
// doesn't compare so with k.
func (p *program) unless(comparison uint16, k uint32) (jump int) {
	p.add(unix.BPF_JMP|unix.BPF_K|comparison, k, 0, 0)
	return len(*p) - 1
}

// land is at most 255 instructions after its jump: half of an ABI's are.
func (p *program) land(jump int) { (*p)[jump].Jf = uint8(len(*p) - jump - 1) }
