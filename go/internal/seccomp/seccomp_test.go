package seccomp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// known are the same tables, as others have read them from the kernel's headers.
var known = [...]*arch.Info{x86_64: arch.X86_64, i386: arch.I386, aarch64: arch.AARCH64, arm: arch.ARM}

// call is what the kernel tells a filter: struct seccomp_data.
type call struct {
	number, arch uint32
	arguments    [6]uint64
}

// filter is an assembled program in a machine of golang.org/x/net.
type filter struct{ vm *bpf.VM }

func filterOf(t testing.TB, machine string) filter {
	t.Helper()
	program := assemble(abis(machine))
	raw := make([]bpf.RawInstruction, 0, len(program))
	for _, i := range program {
		raw = append(raw, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	instructions, all := bpf.Disassemble(raw)
	if !all {
		t.Fatalf("%s: not all of it is BPF: %v", machine, raw)
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatalf("%s: %v", machine, err)
	}
	return filter{vm}
}

// run returns what the filter answers. The machine reads packets, whose numbers
// are big-endian: each word of the structure is written so, in the place where
// it is on a little-endian machine.
func (f filter) run(t testing.TB, c call) uint32 {
	t.Helper()
	data := make([]byte, 64)
	put := func(offset int, word uint32) { binary.BigEndian.PutUint32(data[offset:], word) }
	put(0, c.number)
	put(4, c.arch)
	for i, a := range c.arguments {
		put(16+8*i, uint32(a))
		put(16+8*i+4, uint32(a>>32))
	}
	answer, err := f.vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(answer)
}

func answerText(answer uint32) string {
	if answer == unix.SECCOMP_RET_ALLOW {
		return "allow"
	}
	return fmt.Sprintf("%#x (%v)", answer, unix.Errno(answer&0xffff))
}

// machines and the ways into their kernels.
var machines = map[string][]abi{"amd64": {x86_64, i386}, "arm64": {aarch64, arm}}

func TestNumbers(t *testing.T) {
	column := func(name string, a abi, got uint32) {
		want, there := known[a].SyscallNames[name]
		switch {
		case a == aarch64 && name == "clock_settime64": // asm-generic/unistd.h has it for 32-bit machines only
		case there && got != uint32(want):
			t.Errorf("%s on %s is %d here, want %d", name, known[a].Name, int32(got), want)
		case !there && got != none:
			t.Errorf("%s on %s is %d here, and unknown to others", name, known[a].Name, got)
		}
	}
	for _, a := range []abi{x86_64, i386, aarch64, arm} {
		if audit[a] == 0 {
			t.Errorf("%s has no audit architecture", known[a].Name)
		}
		column("ioctl", a, ioctl[a])
		for _, d := range denied {
			column(d.name, a, d.numbers[a])
		}
	}
}

// TestEveryCall asks for each number that there is, and beyond, on each machine.
func TestEveryCall(t *testing.T) {
	for machine, abis := range machines {
		f := filterOf(t, machine)
		for _, a := range abis {
			want := map[uint32]uint32{}
			for _, d := range denied {
				want[d.numbers[a]] = unix.SECCOMP_RET_ERRNO | uint32(d.errno)
			}
			want[none] = unix.SECCOMP_RET_ALLOW
			for number := range uint32(2000) {
				expected, found := want[number]
				if !found {
					expected = unix.SECCOMP_RET_ALLOW
				}
				if got := f.run(t, call{number: number, arch: audit[a]}); got != expected {
					t.Errorf("%s: %s (%d): %s, want %s", known[a].Name, known[a].SyscallNumbers[int(number)], number, answerText(got), answerText(expected))
				}
			}
			if got := f.run(t, call{number: none, arch: audit[a]}); got != unix.SECCOMP_RET_ALLOW {
				t.Errorf("%s: a call that a debugger takes back: %s", known[a].Name, answerText(got))
			}
		}
	}
}

// TestNoWayAround: whatever an ABI is called, it has the same rules or none.
func TestNoWayAround(t *testing.T) {
	amd64, arm64 := filterOf(t, "amd64"), filterOf(t, "arm64")
	refused := uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.ENOSYS)
	for number := range uint32(2000) {
		if got := amd64.run(t, call{number: 0x40000000 | number, arch: unix.AUDIT_ARCH_X86_64}); got != refused {
			t.Errorf("x32's %d: %s", number, answerText(got))
		}
	}
	random := rand.New(rand.NewPCG(18, 7))
	own := map[uint32]bool{}
	for _, a := range audit {
		own[a] = true
	}
	others := []uint32{
		0, none, unix.AUDIT_ARCH_X86_64 &^ 0x40000000, unix.AUDIT_ARCH_I386 | 0x80000000, unix.AUDIT_ARCH_ARMEB,
		unix.AUDIT_ARCH_MIPS64, unix.AUDIT_ARCH_PPC64LE, unix.AUDIT_ARCH_RISCV64, unix.AUDIT_ARCH_S390X,
	}
	for range 10_000 {
		others = append(others, random.Uint32())
	}
	for _, other := range others {
		if own[other] {
			continue
		}
		for name, f := range map[string]filter{"amd64": amd64, "arm64": arm64} {
			c := call{number: random.Uint32N(500), arch: other}
			if got := f.run(t, c); got != refused {
				t.Errorf("%s: call %d of the unknown architecture %#x: %s", name, c.number, other, answerText(got))
			}
		}
	}
	// One machine's ABIs are strangers on another.
	if got := amd64.run(t, call{number: 63, arch: unix.AUDIT_ARCH_AARCH64}); got != refused {
		t.Errorf("an AArch64 call on amd64: %s", answerText(got))
	}
	if got := arm64.run(t, call{number: 0, arch: unix.AUDIT_ARCH_X86_64}); got != refused {
		t.Errorf("an x86-64 call on arm64: %s", answerText(got))
	}
}

// TestArguments: they decide for ioctl only, and of it the lower half of the
// request only (hostile case 18).
func TestArguments(t *testing.T) {
	random := rand.New(rand.NewPCG(18, 7))
	refused := uint32(unix.SECCOMP_RET_ERRNO) | uint32(unix.EPERM)
	for machine, abis := range machines {
		f := filterOf(t, machine)
		for _, a := range abis {
			for range 1000 {
				var arguments [6]uint64
				for i := range arguments {
					arguments[i] = random.Uint64()
				}
				for _, request := range []uint32{unix.TIOCSTI, tiocLinux} {
					arguments[1] = random.Uint64()<<32 | uint64(request)
					if got := f.run(t, call{number: ioctl[a], arch: audit[a], arguments: arguments}); got != refused {
						t.Fatalf("%s: ioctl %#x: %s", known[a].Name, arguments[1], answerText(got))
					}
					for _, near := range []uint64{uint64(request) << 32, uint64(request) + 1, uint64(request) - 1, uint64(request) | 1<<31, unix.TCGETS} {
						arguments[1] = near
						if got := f.run(t, call{number: ioctl[a], arch: audit[a], arguments: arguments}); got != unix.SECCOMP_RET_ALLOW {
							t.Fatalf("%s: ioctl %#x: %s", known[a].Name, near, answerText(got))
						}
					}
					arguments[1] = uint64(request)
					number := random.Uint32N(460)
					want := f.run(t, call{number: number, arch: audit[a]})
					if got := f.run(t, call{number: number, arch: audit[a], arguments: arguments}); number != ioctl[a] && got != want {
						t.Fatalf("%s: call %d: %s, and %s with other arguments", known[a].Name, number, answerText(want), answerText(got))
					}
				}
			}
		}
	}
}

// TestKernelKnowsAnswers: loads, jumps and returns are what the kernel sees
// through, so that it runs the filter for ioctl only.
func TestKernelKnowsAnswers(t *testing.T) {
	for machine := range machines {
		program := assemble(abis(machine))
		if len(program) > unix.BPF_MAXINSNS {
			t.Errorf("%s: %d instructions", machine, len(program))
		}
		for i, in := range program {
			switch in.Code {
			case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
				if in.K != offsetNumber && in.K != offsetArch && in.K != offsetRequest {
					t.Errorf("%s: %d: loads from %d", machine, i, in.K)
				}
			case unix.BPF_JMP | unix.BPF_K | unix.BPF_JEQ, unix.BPF_JMP | unix.BPF_K | unix.BPF_JGE, unix.BPF_RET | unix.BPF_K:
			default:
				t.Errorf("%s: %d: %#x is none of the instructions of seccomp_is_const_allow (kernel/seccomp.c)", machine, i, in.Code)
			}
		}
	}
}

func TestOtherMachines(t *testing.T) {
	if program := assemble(abis("riscv64")); program != nil {
		t.Errorf("a filter without rules: %v", program)
	}
}

// TestDocumented: what is denied, and with which error, is in the security
// model, and nothing else.
func TestDocumented(t *testing.T) {
	text, err := os.ReadFile("../../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## System calls\n")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]string{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 {
			continue
		}
		for i, word := range strings.Split(cells[0], "`") {
			if i%2 == 1 {
				documented[word] = cells[1]
			}
		}
	}
	want := map[string]string{"ioctl": "EPERM"}
	for _, d := range denied {
		want[d.name] = unix.ErrnoName(d.errno)
	}
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("docs/security.md, System calls: want (-) got (+):\n%s", diff)
	}
}
