package vm

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is how long a boot may take: a minute without KVM, beside another, and
// four where others want the processors as well.
const bootTime = 8 * time.Minute

// machine is the virtual machine. Its disk is this run's copy; it survives
// reboots and power cuts, which are two runs of qemu.
type machine struct {
	name   string
	folder string // of this run: disk, journal, sockets
	// console is what the machine says: where it stays when the run fails, even if
	// that is by its time limit, which lets nobody copy anything.
	console string
	key     string
	kernel  string
	tree    string // tarball of the containers' root file system

	processors int
	qemu       *exec.Cmd
	stopped    chan struct{} // closed when qemu has ended
	port       string        // of the machine's sshd, on the host's loopback
	root       *session      // stays while the machine is up

	boots, connections int
}

// machines are those that no test has. Two of one processor each get a quarter more
// done than one of two, whose emulation has them wait for each other; TestBench has
// one of two.
var machines, all = func() (chan *machine, []*machine) {
	free, all := make(chan *machine, 2), []*machine(nil)
	for i := range cap(free) {
		m := &machine{name: strconv.Itoa(i + 1), processors: 1}
		free <- m
		all = append(all, m)
	}
	return free, all
}()

// up returns a machine that is the test's until it ends, booted if it is not up.
// The test is a parallel one from here on.
func up(t *testing.T) *machine {
	t.Helper()
	m := taken(t)
	m.up(t)
	return m
}

// taken is up without the boot.
func taken(t *testing.T) *machine {
	t.Helper()
	t.Parallel()
	m := <-machines
	t.Cleanup(func() { machines <- m })
	if m.folder == "" {
		m.install(t)
	}
	return m
}

// up boots the machine if it is not up.
func (m *machine) up(t testing.TB) {
	t.Helper()
	if !m.running() {
		m.boot(t)
	}
}

// install copies the cached machine.
func (m *machine) install(t testing.TB) {
	t.Helper()
	cached := prepared(t, "NUC_MACHINE")
	m.tree = prepared(t, "NUC_MACHINE_TREE")
	m.key, m.kernel = filepath.Join(cached, "key"), filepath.Join(cached, "kernel")
	folder, err := os.MkdirTemp("/tmp", "nuc-vm-*")
	if err != nil {
		t.Fatal(err)
	}
	m.folder = folder
	if m.console, err = m.kept("console"); err != nil {
		t.Fatal(err)
	}
	// This run's alone: qemu appends to it at each boot.
	os.Remove(m.console)
	if out, err := exec.Command("cp", "--reflink=auto", "--sparse=always", filepath.Join(cached, "disk"), m.path("disk")).CombinedOutput(); err != nil {
		t.Fatalf("copying the disk: %v: %s", err, out)
	}
	if err := os.Chmod(m.path("disk"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) path(name string) string { return filepath.Join(m.folder, name) }

func (m *machine) running() bool {
	if m.qemu == nil {
		return false
	}
	select {
	case <-m.stopped:
		return false
	default:
		return true
	}
}

// accelerator is KVM where the processor has it. A kernel can emulate it where
// that is missing, but not all that a Linux of today executes.
func accelerator() string {
	flags, _ := os.ReadFile("/proc/cpuinfo")
	if regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`).Match(flags) && unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil {
		return "kvm"
	}
	return "tcg,thread=multi"
}

// cpu is one without AVX where it is emulated: what the C library does with that
// is helper calls there, and everything takes a third longer.
func cpu() string {
	if accelerator() == "kvm" {
		return "max"
	}
	return "Nehalem"
}

// boot starts the machine and waits until all of it is up.
func (m *machine) boot(t testing.TB) {
	t.Helper()
	began := time.Now()
	m.boots++
	monitor := m.path("monitor")
	os.Remove(monitor)
	m.qemu = exec.Command("qemu-system-x86_64",
		"-accel", accelerator(), "-cpu", cpu(), "-smp", strconv.Itoa(m.processors), "-m", "2048",
		"-machine", "pc", "-nodefaults", "-display", "none",
		// A reboot ends it as well: the next boot is another run.
		"-no-reboot",
		"-kernel", m.kernel,
		// The kernel's check of its timer panics where an emulated second is short of
		// ticks.
		"-append", "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check",
		// Flushes need not reach the host's disk: what is lost in a power cut is
		// what the machine had not written, and the host stays up.
		"-drive", "if=none,id=disk,format=raw,cache=unsafe,discard=unmap,file="+m.path("disk"),
		// Its driver and that of the file system are part of the kernel.
		"-device", "nvme,drive=disk,serial=disk",
		"-drive", "if=none,id=tree,format=raw,readonly=on,file="+m.tree,
		"-device", "virtio-blk-pci,drive=tree,serial=tree",
		"-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22",
		"-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci",
		"-chardev", "file,id=console,append=on,path="+m.console, "-serial", "chardev:console",
		"-monitor", "unix:"+monitor+",server=on,wait=off")
	var said bytes.Buffer
	m.qemu.Stderr = &said
	// It ends with the test, however that ends.
	m.qemu.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := m.qemu.Start(); err != nil {
		m.qemu = nil
		t.Fatalf("qemu: %v", err)
	}
	stopped, qemu := make(chan struct{}), m.qemu
	m.stopped = stopped
	go func() {
		_ = qemu.Wait()
		close(stopped)
	}()
	m.port = ""
	for deadline := time.Now().Add(bootTime); m.running(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the machine did not come up in %s", bootTime)
		}
		if m.port == "" {
			m.port = forwarded(monitor)
			continue
		}
		s, err := m.connect("root")
		if err != nil {
			continue
		}
		m.root = s
		s.must(t, `systemctl is-system-running --wait || systemctl --failed --no-pager >&2; test "$(systemctl is-system-running)" = running`)
		t.Logf("machine %s: boot %d took %s (%s)", m.name, m.boots, time.Since(began).Round(time.Millisecond), accelerator())
		return
	}
	console, _ := os.ReadFile(m.console)
	t.Fatalf("qemu ended: %s; the console:\n%s", said.String(), console[max(0, len(console)-4096):])
}

// forwarded asks qemu which port of the host leads to the machine, "" as long
// as it does not answer.
func forwarded(monitor string) string {
	conn, err := net.Dial("unix", monitor)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, "info usernet\n")
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		// TCP[HOST_FORWARD]  12  127.0.0.1 33445  10.0.2.15  22  0  0
		if f := strings.Fields(lines.Text()); len(f) > 5 && f[0] == "TCP[HOST_FORWARD]" && f[5] == "22" {
			return f[3]
		}
	}
	return ""
}

// off waits until the machine has gone off or is about to boot anew.
func (m *machine) off(t testing.TB, within time.Duration) {
	t.Helper()
	select {
	case <-m.stopped:
	case <-time.After(within):
		t.Fatalf("the machine still runs after %s", within)
	}
	m.root.close()
}

// end takes the machine down after the last test.
func (m *machine) end() {
	if m.folder == "" || !m.running() {
		return
	}
	if m.root != nil {
		if out, err := m.root.ssh("journalctl -b --no-pager -o short-monotonic").Output(); err == nil {
			_ = os.WriteFile(m.path("journal"), out, 0o600)
		}
		m.root.close()
	}
	_ = m.qemu.Process.Kill()
	<-m.stopped
}

// kept is the path of a log of the machine's that outlives the run.
func (m *machine) kept(name string) (string, error) {
	path, err := filepath.Abs(filepath.Join("../../build", "vm-"+m.name+"-"+name+".log"))
	if err != nil {
		return "", err
	}
	return path, os.MkdirAll(filepath.Dir(path), 0o755)
}

// keepLogs keeps what the machine said, of a run that failed, or removes it.
func (m *machine) keepLogs(failed bool) {
	if m.folder == "" {
		return
	}
	if !failed {
		os.Remove(m.console)
		return
	}
	fmt.Printf("machine %s, its console: %s\n", m.name, m.console)
	content, err := os.ReadFile(m.path("journal"))
	if err != nil {
		return
	}
	path, err := m.kept("journal")
	if err == nil {
		err = os.WriteFile(path, content, 0o644)
	}
	if err == nil {
		fmt.Printf("machine %s, its journal: %s\n", m.name, path)
	}
}
