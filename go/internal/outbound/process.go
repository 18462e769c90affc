package outbound

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names of the drivers.
const (
	pasta = "pasta"
	slirp = "slirp4netns"
)

// Programs are the drivers' names, the better one first.
var Programs = []string{pasta, slirp}

// given is a folder with pasta, set at link time by packages that bring it: a
// wrapper that sets PATH would cost every command a shell.
var given string

// places are looked at where PATH has nothing, as a user's service may have a
// short one: NixOS's first.
var places = []string{"/run/current-system/sw/bin", "/usr/local/bin", "/usr/bin", "/bin"}

// Find looks a driver up, on PATH and where systems have their programs.
func Find(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err == nil && filepath.IsAbs(found) {
		return found, nil
	}
	for _, dir := range append([]string{given}, places...) {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(found) {
			return found, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// driver is one that was found.
type driver struct {
	name string
	// instead says why the one before it is not in use.
	instead string
}

func find() []driver {
	var found []driver
	for _, name := range Programs {
		if _, err := Find(name); err == nil {
			found = append(found, driver{name: name})
		}
	}
	return found
}

// IsLeaky tells a pasta that takes packets for the host's loopback addresses to
// them, by an option that came later than the end of that. Some don't know their
// own version.
func IsLeaky(path string) bool {
	help, err := exec.Command(path, "--help").CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		return false
	}
	return len(help) > 0 && !bytes.Contains(help, []byte("--map-host-loopback"))
}

// Order is all that is to be said about a driver to be started.
type Order struct {
	Driver       string `json:"driver"`
	MTU          int    `json:"mtu"`
	HostLoopback bool   `json:"hostLoopback,omitempty"`
	// Terse drops the option by which pastas of before 2024 write their errors to
	// standard error; later ones do anyway, and mean to refuse it some day.
	Terse bool `json:"terse,omitempty"`
	// Gap asks whether the driver is leaky.
	Gap bool `json:"gap,omitempty"`
}

// terse is for the next Order.
var terse atomic.Bool

// Both programs get the namespaces as standard input and output, the only
// descriptors that pasta does not close before it opens them (2024 on). They
// can't be named by the keeper's pid: its /proc is closed to its own user.
const (
	networkPath = "/proc/self/fd/0"
	userPath    = "/proc/self/fd/1"
)

func (o Order) arguments() []string {
	if o.Driver == slirp {
		// Its sandbox fails where namespaces are given by path (1.2, 1.3).
		args := []string{
			slirp, "--configure", "--mtu=" + strconv.Itoa(o.MTU), "--enable-ipv6", "--enable-seccomp",
			"--cidr=" + network4.String(), "--userns-path=" + userPath, "--netns-type=path",
		}
		if !o.HostLoopback {
			args = append(args, "--disable-host-loopback")
		}
		return append(args, networkPath, Interface)
	}
	args := []string{
		pasta, "--foreground", "--config-net", "--no-netns-quit",
		// Neither direction is forwarded. -T and -U are the path from the
		// container's loopback to the host's, open by default.
		"-t", "none", "-u", "none", "-T", "none", "-U", "none",
		// A DHCP client inside gets the addresses that are there already.
		"--no-dhcpv6", "--no-ra",
		"-m", strconv.Itoa(o.MTU), "-I", Interface,
		"-a", address4.String(), "-n", strconv.Itoa(network4.Bits()), "-g", Gateway4.String(),
		"-a", address6.String(), "-g", Gateway6.String(),
		"--userns", userPath, "--netns", networkPath,
	}
	if !o.HostLoopback {
		args = append(args, "--no-map-gw")
	}
	if os.Geteuid() == 0 {
		// As nobody, its default, it could not enter a namespace of root's. It
		// gives its rights up and leaves the file system by itself.
		args = append(args, "--runas", "0:0")
	}
	if !o.Terse {
		args = append(args, "--stderr")
	}
	return args
}

// Child is a driver that was launched.
type Child struct {
	PID   int
	PIDFD *os.File
	// Leaky tells of a driver that was asked about.
	Leaky bool
	// Ended is closed when it has ended, with Status.
	Ended  <-chan struct{}
	Status *syscall.WaitStatus
}

// Launch starts the driver; output is what it says. It dies with the calling
// process: the thread that forked it stays, since its end would be the signal too
// (prctl(2), PR_SET_PDEATHSIG). Entering a user namespace of the same owner keeps
// it.
func (o Order) Launch(user, network, output *os.File) (*Child, error) {
	if !slices.Contains(Programs, o.Driver) {
		return nil, fmt.Errorf("driver %q: is none", o.Driver)
	}
	path, err := Find(o.Driver)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	c := &Child{Ended: ended, Status: new(syscall.WaitStatus)}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		pidfd := -1
		pid, err := syscall.ForkExec(path, o.arguments(), &syscall.ProcAttr{
			Dir:   "/",
			Env:   []string{"PATH=/usr/bin:/bin", "LANG=C"},
			Files: []uintptr{network.Fd(), user.Fd(), output.Fd()},
			// Its own session: what a terminal sends to nuc is not for it.
			Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL, PidFD: &pidfd},
		})
		if err != nil {
			started <- fmt.Errorf("%s: %w", path, err)
			return
		}
		c.PID, c.PIDFD = pid, os.NewFile(uintptr(pidfd), "pidfd")
		started <- nil
		for {
			_, err := syscall.Wait4(pid, c.Status, 0, nil)
			if err != syscall.EINTR {
				break
			}
		}
		close(ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	c.Leaky = o.Gap && o.Driver == pasta && IsLeaky(path)
	return c, nil
}

// process is a running driver.
type process struct {
	*Child
	name  string
	ended chan struct{}

	mu     sync.Mutex
	killed bool
	output bytes.Buffer
}

// start starts the driver.
func (d driver) start(o Options) (*process, error) {
	p := &process{name: d.name, ended: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	order := Order{Driver: d.name, MTU: o.MTU, HostLoopback: o.HostLoopback, Terse: terse.Load(), Gap: !o.Fixed && !o.HostLoopback}
	p.Child, err = o.Launch(order, o.User, o.Network, w)
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		p.read(r)
		close(read)
	}()
	go func() {
		<-p.Ended
		// Its children have the pipe, too, and may live a moment longer.
		r.Close()
		<-read
		p.PIDFD.Close()
		close(p.ended)
	}()
	return p, nil
}

// maxOutput bounds what is kept of a driver's words, in bytes.
const maxOutput = 16 << 10

func (p *process) read(r *os.File) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		p.mu.Lock()
		p.output.Write(buf[:n])
		if extra := p.output.Len() - maxOutput; extra > 0 {
			p.output.Next(extra)
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// kill ends it and waits.
func (p *process) kill() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	_ = unix.PidfdSendSignal(int(p.PIDFD.Fd()), unix.SIGKILL, nil, 0)
	<-p.ended
}

// reason says why it ended, "" if it was killed by kill.
func (p *process) reason() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killed {
		return ""
	}
	text := p.output.String()
	if p.name == pasta && strings.Contains(text, "stderr") && strings.Contains(text, "option") {
		terse.Store(true)
	}
	how := fmt.Sprintf("exited with status %d", p.Status.ExitStatus())
	if p.Status.Signaled() {
		how = "was killed by " + unix.SignalName(p.Status.Signal())
	}
	if word := lastWord(text); word != "" && !p.Status.Signaled() {
		how += ": " + word
	}
	return how
}

// lastWord is the line of a driver's output that tells most: the last that is
// about no syslog.
func lastWord(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		line := strings.TrimSpace(lines[i])
		if line != "" && !strings.Contains(line, "syslog") {
			return strings.ToValidUTF8(line, "?")
		}
	}
	return ""
}
