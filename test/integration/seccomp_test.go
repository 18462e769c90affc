package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// callTest is a system call, by its name and its number among those of i386 (0:
// not there), and how it is to end.
type callTest struct {
	name      string
	i386      int
	arguments string
	want      unix.Errno
	// free tells that the kernel, whatever its settings are, ends it in another
	// way for these arguments.
	free bool
}

// denied are ended by the filter.
var denied = []callTest{
	{"add_key", 286, "1 1 1 1 -3", unix.ENOSYS, true},
	{"keyctl", 288, "0 -3 0", unix.ENOSYS, true},
	{"request_key", 287, "1 1 1 -3", unix.ENOSYS, true},
	{"bpf", 357, "-1", unix.EPERM, false},
	{"perf_event_open", 336, "0", unix.EPERM, true},
	{"userfaultfd", 374, "-1", unix.EPERM, false},
	{"io_uring_setup", 425, "0", unix.ENOSYS, true},
	{"io_uring_enter", 426, "-1", unix.ENOSYS, true},
	{"io_uring_register", 427, "-1", unix.ENOSYS, true},
	{"open_by_handle_at", 342, "-1", unix.EPERM, true},
	{"kexec_load", 283, "", unix.EPERM, false},
	{"kexec_file_load", 0, "-1 -1", unix.EPERM, false},
	{"init_module", 128, "", unix.EPERM, false},
	{"finit_module", 350, "-1", unix.EPERM, false},
	{"delete_module", 129, "", unix.EPERM, false},
	{"settimeofday", 79, "1", unix.EPERM, true},
	{"clock_settime", 264, "999", unix.EPERM, true},
	{"swapon", 87, "", unix.EPERM, false},
	{"swapoff", 115, "", unix.EPERM, false},
	{"acct", 51, "", unix.EPERM, false},
	{"quotactl", 131, "-1", unix.ENOSYS, true},
	{"quotactl_fd", 443, "-1", unix.ENOSYS, true},
	{"syslog", 103, "-1", unix.EPERM, false},
	{"ioctl", 54, "-1 0x5412", unix.EPERM, true}, // TIOCSTI
	{"ioctl", 54, "-1 0x541c", unix.EPERM, true}, // TIOCLINUX
}

// deniedHere are calls that AArch64 doesn't have.
var deniedHere = []callTest{
	{"lookup_dcookie", 253, "", unix.ENOSYS, false},
	{"nfsservctl", 169, "", unix.ENOSYS, false},
	{"_sysctl", 149, "", unix.ENOSYS, false},
	{"sysfs", 135, "3", unix.ENOSYS, false},
	{"ustat", 62, "", unix.ENOSYS, false},
	{"uselib", 86, "", unix.ENOSYS, false},
	{"iopl", 110, "4", unix.EPERM, true},
	{"ioperm", 101, "-1 -1", unix.EPERM, true},
}

// allowed are not, for all that they look alike.
var allowed = []callTest{
	{"getpid", 20, "", 0, true},
	{"ioctl", 54, "-1 0x5413", unix.EBADF, true},
	{"personality", 136, "0x0040000", 0, true}, // ADDR_NO_RANDOMIZE, for debuggers
	{"adjtimex", 124, "0", unix.EFAULT, true},
	{"clock_adjtime", 343, "0 0", unix.EFAULT, true},
}

// callsProgram makes the program that calls; the folder is to be mounted.
func callsProgram(h *harness.H) (folder string) {
	h.Helper()
	folder = h.Folder("program")
	if err := os.Chmod(folder, 0o755); err != nil { // for the container's other users
		h.Fatal(err)
	}
	cmd := exec.Command("gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", filepath.Join(folder, "calls"), "testdata/calls.c")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("gcc testdata/calls.c: %v: %s", err, out)
	}
	return folder
}

// withCalls mounts the program of callsProgram.
func withCalls(folder, filter string) func(d map[string]any) {
	return func(d map[string]any) {
		ephemeral(d)
		d["mounts"] = []any{map[string]any{"source": folder, "target": "/srv/program", "readOnly": true}}
		if filter != "" {
			d["security"] = map[string]any{"seccomp": filter}
		}
	}
}

// tryCalls has a command of nuc's, which ends with the program, make calls, and
// returns how they ended.
func tryCalls(h *harness.H, lines []string, command ...string) []unix.Errno {
	h.Helper()
	r := h.NucInput(strings.Join(lines, "\n")+"\n", append(command, "/srv/program/calls")...)
	words := strings.Fields(r.Stdout)
	if r.Code != 0 || len(words) != len(lines) {
		h.Fatalf("%d calls: %s", len(lines), r)
	}
	var ends []unix.Errno
	for _, word := range words {
		n, err := strconv.Atoi(word)
		if err != nil {
			h.Fatalf("%s", r)
		}
		ends = append(ends, unix.Errno(n))
	}
	return ends
}

// callsAs are the lines for one way into the kernel.
func callsAs(way string, calls []callTest) (lines []string, kept []callTest) {
	for _, c := range calls {
		name := c.name
		if way == "int80" {
			if c.i386 == 0 {
				continue
			}
			name = strconv.Itoa(c.i386)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", way, name, c.arguments))
		kept = append(kept, c)
	}
	return lines, kept
}

func errnoName(e unix.Errno) string {
	if e == 0 {
		return "success"
	}
	return unix.ErrnoName(e)
}

// checkCalls tries calls by every way into the kernel that there is.
func checkCalls(h *harness.H, who string, calls []callTest, command ...string) {
	h.Helper()
	ways := []string{"native"}
	if runtime.GOARCH == "amd64" {
		ways = append(ways, "int80")
		// Kernels may be without the calls of i386 (ia32_emulation=0).
		if r := h.NucInput("int80 20\n", append(command, "/srv/program/calls")...); r.Code != 0 {
			h.Logf("no int 0x80 here: %s", r)
			ways = ways[:1]
		}
		if end := tryCalls(h, []string{"x32 getpid"}, command...); end[0] != unix.ENOSYS {
			h.Errorf("%s: getpid of x32: %s, want ENOSYS", who, errnoName(end[0]))
		}
	}
	for _, way := range ways {
		lines, kept := callsAs(way, calls)
		for i, end := range tryCalls(h, lines, command...) {
			if end != kept[i].want {
				h.Errorf("%s: %s, %s(%s): %s, want %s", who, way, kept[i].name, kept[i].arguments, errnoName(end), errnoName(kept[i].want))
			}
		}
	}
}

func TestSeccomp(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, withCalls(callsProgram(h), ""))
		calls := append(append([]callTest{}, denied...), allowed...)
		if runtime.GOARCH == "amd64" {
			calls = append(calls, deniedHere...)
		}
		checkCalls(h, "exec", calls, "exec", "web")
		checkCalls(h, "exec -u nobody", calls, "exec", "-u", "nobody", "web")
		checkCalls(h, "a service", calls, "exec", "web", "systemd-run", "--quiet", "--wait", "--pipe")
		checkCalls(h, "root of a nested user namespace", calls, "exec", "web", "unshare", "--user", "--map-root-user")

		// Hostile case 18: the kernel looks at the lower half of the request only.
		for _, request := range []string{"0x100005412", "0x7fffffff00005412", "-4294945774", "0x90000541c"} {
			if end := tryCalls(h, []string{"native ioctl -1 " + request}, "exec", "web"); end[0] != unix.EPERM {
				h.Errorf("ioctl with request %s: %s, want EPERM", request, errnoName(end[0]))
			}
		}

		for _, file := range []string{"/proc/1/status", "/proc/self/status"} {
			status := h.Must("exec", "web", "cat", file)
			for _, want := range []string{"Seccomp:\t2", "Seccomp_filters:\t1", "NoNewPrivs:\t0"} {
				if !strings.Contains(status, want) {
					h.Errorf("%s lacks %q:\n%s", file, want, status)
				}
			}
		}
		h.Must("exec", "web", "sh", "-c", "useradd dev && echo 'dev ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/dev")
		if got := h.Must("exec", "-u", "dev", "web", "sudo", "id", "-u"); got != "0" {
			h.Errorf("sudo makes uid %s", got)
		}
		checkFilterShown(h, "web", "default")
		if units := h.Must("exec", "web", "systemctl", "--failed", "--no-legend"); units != "" {
			h.Errorf("failed units: %s", units)
		}
	})
}

// checkFilterShown looks at what status says.
func checkFilterShown(h *harness.H, name, want string) {
	h.Helper()
	var status struct{ Seccomp string }
	if err := json.Unmarshal([]byte(h.Must("status", "--json", name)), &status); err != nil || status.Seccomp != want {
		h.Errorf("status --json: seccomp is %q, %v, want %q", status.Seccomp, err, want)
	}
	if text := h.Must("status", name); !strings.Contains(text, fmt.Sprintf("%-12s %s\n", "seccomp", want)) {
		h.Errorf("status doesn't say that seccomp is %s:\n%s", want, text)
	}
}

func TestSeccompOff(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		path := h.Up("web", tree, withCalls(callsProgram(h), "off"))
		lines, calls := callsAs("native", denied)
		for i, end := range tryCalls(h, lines, "exec", "web") {
			if calls[i].free && end == calls[i].want {
				h.Errorf("%s(%s): %s, as if there were a filter", calls[i].name, calls[i].arguments, errnoName(end))
			}
		}
		if status := h.Must("exec", "web", "cat", "/proc/1/status"); !strings.Contains(status, "Seccomp:\t0") {
			h.Errorf("init is under a filter:\n%s", status)
		}
		checkFilterShown(h, "web", "off")
		if got := h.Must("inspect", "web", "--query", "security.seccomp"); got != "off" {
			h.Errorf("inspect says %q", got)
		}

		// Another filter takes a restart.
		filtered := h.Descriptor("web", func(d map[string]any) {
			d["root"] = map[string]any{"tree": h.Tree(tree)}
			withCalls(filepath.Join(h.Dir, "program"), "default")(d)
		})
		if filtered != path {
			h.Fatalf("%s is not %s", filtered, path)
		}
		r := h.Nuc("switch", path)
		if !strings.Contains(r.Stdout+r.Stderr, "security.seccomp") {
			h.Errorf("switch doesn't say that the filter takes a restart:\n%s", r)
		}
		checkFilterShown(h, "web", "off")
		h.Must("restart", "web")
		checkFilterShown(h, "web", "default")
		checkCalls(h, "after a restart", denied, "exec", "web")
	})
}

// sandbox are systemd's options for a service that is to have nothing.
var sandbox = []string{
	"AmbientCapabilities=", "CapabilityBoundingSet=", "DevicePolicy=closed", "DynamicUser=yes",
	"InaccessiblePaths=/srv/closed", "KeyringMode=private", "LockPersonality=yes",
	"MemoryDenyWriteExecute=yes", "NoExecPaths=/tmp", "NoNewPrivileges=yes", "PrivateDevices=yes",
	"PrivateIPC=yes", "PrivateMounts=yes", "PrivateNetwork=yes", "PrivateTmp=yes", "PrivateUsers=yes",
	"ProcSubset=pid", "ProtectClock=yes", "ProtectControlGroups=yes", "ProtectHome=tmpfs",
	"ProtectHostname=yes", "ProtectKernelLogs=yes", "ProtectKernelModules=yes",
	"ProtectKernelTunables=yes", "ProtectProc=invisible", "ProtectSystem=strict", "ReadOnlyPaths=/var",
	"RemoveIPC=yes", "RestrictAddressFamilies=AF_UNIX", "RestrictNamespaces=yes",
	"RestrictRealtime=yes", "RestrictSUIDSGID=yes", "RuntimeDirectory=sandbox", "StateDirectory=sandbox",
	"SystemCallArchitectures=native", "SystemCallErrorNumber=EPERM", "SystemCallFilter=@system-service",
	"SystemCallFilter=~@privileged", "TemporaryFileSystem=/opt", "UMask=0077",
}

func TestSandboxedUnit(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		h.Up("web", tree, withCalls(callsProgram(h), ""))
		h.Must("exec", "web", "mkdir", "/srv/closed")
		command := []string{"exec", "web", "systemd-run", "--quiet", "--wait", "--pipe"}
		for _, option := range sandbox {
			command = append(command, "--property="+option)
		}
		// Its own filter is there, beside the container's, and so is all else.
		r := h.Nuc(append(command, "sh", "-c", `set -e
			test "$(id -u)" -ge 61184
			touch "$STATE_DIRECTORY/file" "$RUNTIME_DIRECTORY/file"
			! touch /etc/file && ! ls /srv/closed && ! test -e /proc/1 && ! test -e /proc/net && ! unshare --user true
			test "$(readlink /proc/self/ns/net)" != "$0"
			grep -E '^(CapEff|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status`, h.Must("exec", "web", "readlink", "/proc/self/ns/net"))...)
		var filters int
		status := strings.Join(strings.Fields(r.Stdout), " ")
		if _, err := fmt.Sscanf(status, "CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 Seccomp_filters: %d", &filters); r.Code != 0 || err != nil || filters < 10 {
			h.Fatalf("%v, %d filters: %s", err, filters, r)
		}
		// systemd's filter lets keys pass, not mounts.
		ends := tryCalls(h, []string{"native keyctl 0 -3 0", "native ioctl -1 0x5412", "native getpid", "native personality 0x0040000"}, command...)
		if want := fmt.Sprint([]unix.Errno{unix.ENOSYS, unix.EPERM, 0, unix.EPERM}); fmt.Sprint(ends) != want {
			h.Errorf("calls in the sandbox ended with %v, want %v", ends, want)
		}
	})
}

// TestKeyringIsLeft is hostile case 17: the filter, which denies to ask for keys,
// comes after the caller's session keyring was left, not instead of it.
func TestKeyringIsLeft(t *testing.T) {
	h := harness.New(t)
	path := h.OnTree("web", "trixie", ephemeral)
	// A key that only who has the keyring is shown in /proc/keys (keyctl(2)).
	script := fmt.Sprintf(`
		syscall(%[1]d, 1, 0) > 0 or die "KEYCTL_JOIN_SESSION_KEYRING: $!\n";
		my ($type, $name, $secret) = ("user", "nuc-it-secret", "hush");
		my $key = syscall(%[2]d, $type, $name, $secret, 4, -3);
		$key > 0 or die "add_key: $!\n";
		syscall(%[1]d, 5, $key, 0x3f000000) == 0 or die "KEYCTL_SETPERM: $!\n";
		exec "sh", "-ec", "grep -c nuc-it-secret /proc/keys; exec \"\$@\"", "sh", @ARGV or die $!;`,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY)
	cmd, release := h.Program(t.Context(), "perl", "-e", script, h.Binary(), "up", path)
	out, err := cmd.CombinedOutput()
	release()
	if err != nil || !strings.HasPrefix(string(out), "1\n") {
		t.Fatalf("up by a caller with a key: %v: %s", err, out)
	}
	for _, command := range []string{
		"grep -q nuc-it-secret /proc/keys",
		"systemd-run --quiet --wait -p KeyringMode=inherit grep -q nuc-it-secret /proc/keys",
	} {
		if r := h.Exec("web", "sh", "-c", "test -e /proc/keys || exit 9; "+command); r.Code != 1 {
			t.Errorf("%s: the caller's key is there: %s", command, r)
		}
	}
}
