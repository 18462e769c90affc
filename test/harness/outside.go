package harness

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Outside is a host of the test's own and what is beyond it: two network
// namespaces with a cable between them. Every command of the test runs in the
// host's, with an /etc/resolv.conf of the test's own.
type Outside struct {
	t testing.TB
	// host, beyond and mounts are the namespaces.
	host, beyond, mounts *os.File
	resolv               string
	only                 Family
}

// Family is what a host has of the Internet: both families, or one.
type Family int

const (
	BothFamilies Family = iota
	IPv4Only
	IPv6Only
)

// Addresses of an Outside (RFC 5737, RFC 3849). The host has a second network,
// that nobody else is in.
const (
	HostAddress4   = "203.0.113.2"
	HostAddress6   = "2001:db8:1::2"
	HostSecond4    = "192.0.2.1"
	HostSecond6    = "2001:db8:7::1"
	OutsideRouter4 = "203.0.113.1"
	OutsideRouter6 = "2001:db8:1::1"
	// Hosts that are beyond the router.
	OutsideAddress4 = "198.51.100.7"
	OutsideAddress6 = "2001:db8:2::7"
	OutsideOther4   = "198.51.100.8"
	OutsideOther6   = "2001:db8:2::8"
)

// WithOutside runs the test's commands on a host that the test made. It needs
// root; without, the test is skipped.
func WithOutside() Option { return func(o *options) { o.outside = true } }

// WithFamily is WithOutside for a host that has one family only: no IPv6 at all,
// its loopback's included, or no IPv4 but the loopback's.
func WithFamily(only Family) Option {
	return func(o *options) { o.outside, o.family = true, only }
}

// newOutside makes the namespaces, which live as long as they are open.
func newOutside(t testing.TB, only Family, distance time.Duration) *Outside {
	t.Helper()
	o := &Outside{t: t, only: only, resolv: filepath.Join(t.TempDir(), "resolv.conf")}
	o.Resolve("")
	var err error
	open := func(name string) (f *os.File) {
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/" + name)
		}
		return f
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and ended with the goroutine
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		o.beyond = open("net")
		if err = unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			return
		}
		o.host, o.mounts = open("net"), open("mnt")
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount(o.resolv, "/etc/resolv.conf", "", unix.MS_BIND, "")
		}
	}()
	<-done
	t.Cleanup(func() {
		for _, f := range []*os.File{o.host, o.beyond, o.mounts} {
			f.Close()
		}
	})
	if err != nil {
		t.Fatalf("harness: a host of the test's own: %v", err)
	}
	if distance > 0 {
		o.lay(distance)
	} else {
		o.ip(o.host, fmt.Sprintf("link add up0 type veth peer name down0 netns /proc/%d/fd/%d", os.Getpid(), o.beyond.Fd()))
	}
	o.ip(o.host, "link add second type veth peer name unused")
	for _, namespace := range []*os.File{o.host, o.beyond} {
		o.ip(namespace, "link set lo up")
	}
	o.ip(o.beyond, "addr add "+OutsideRouter4+"/24 dev down0", "addr add "+OutsideRouter6+"/64 dev down0 nodad", "link set down0 up")
	for _, address := range []string{OutsideAddress4, OutsideAddress6, OutsideOther4, OutsideOther6} {
		o.ip(o.beyond, "addr add "+address+" dev lo")
	}
	o.ip(o.host, "addr add "+HostAddress4+"/24 dev up0", "addr add "+HostAddress6+"/64 dev up0 nodad", "link set up0 up",
		"addr add "+HostSecond4+"/24 dev second", "addr add "+HostSecond6+"/64 dev second nodad", "link set unused up", "link set second up")
	switch only {
	case IPv4Only:
		if err := o.in(o.host, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0) }); err != nil {
			t.Fatalf("harness: a host without IPv6: %v", err)
		}
	case IPv6Only:
		o.ip(o.host, "-4 addr flush dev up0", "-4 addr flush dev second")
	}
	o.Online()
	return o
}

// Online gives the host its default routes.
func (o *Outside) Online() {
	o.t.Helper()
	if o.only != IPv6Only {
		o.ip(o.host, "route add default via "+OutsideRouter4)
	}
	if o.only != IPv4Only {
		o.ip(o.host, "-6 route add default via "+OutsideRouter6)
	}
}

// Offline takes them.
func (o *Outside) Offline() {
	o.t.Helper()
	if o.only != IPv6Only {
		o.ip(o.host, "route del default")
	}
	if o.only != IPv4Only {
		o.ip(o.host, "-6 route del default")
	}
}

// Resolve replaces what the host's /etc/resolv.conf says.
func (o *Outside) Resolve(text string) {
	o.t.Helper()
	// In place: a bind mount shows the file, not its name.
	if err := os.WriteFile(o.resolv, []byte(text), 0o644); err != nil {
		o.t.Fatalf("harness: %v", err)
	}
}

// IP runs ip(8) on the host, with the words of each line.
func (o *Outside) IP(lines ...string) {
	o.t.Helper()
	o.ip(o.host, lines...)
}

func (o *Outside) ip(namespace *os.File, lines ...string) {
	o.t.Helper()
	for _, line := range lines {
		var out []byte
		err := o.in(namespace, func() (err error) {
			out, err = exec.Command("ip", strings.Fields(line)...).CombinedOutput()
			return err
		})
		if err != nil {
			o.t.Fatalf("harness: ip %s: %v: %s", line, err, out)
		}
	}
}

// in calls f on a thread in a network namespace. Sockets and processes that it
// makes belong there.
func (o *Outside) in(namespace *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// start starts a command on the host.
func (o *Outside) start(cmd *exec.Cmd) error {
	return o.in(o.host, func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(o.mounts.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// Beyond runs a program beyond the host until the test ends.
func (o *Outside) Beyond(name string, args ...string) {
	o.t.Helper()
	cmd := exec.Command(name, args...)
	if err := o.in(o.beyond, cmd.Start); err != nil {
		o.t.Fatalf("harness: %v; scripts/setup test installs it", err)
	}
	o.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// Listen and ListenPacket open a socket beyond the host; it is closed when the
// test ends.
func (o *Outside) Listen(network, address string) net.Listener {
	o.t.Helper()
	return o.listen(o.beyond, network, address)
}

// ListenPacket is Listen for datagrams.
func (o *Outside) ListenPacket(network, address string) net.PacketConn {
	o.t.Helper()
	return o.listenPacket(o.beyond, network, address)
}

// ListenOnHost is Listen for a service of the host itself.
func (o *Outside) ListenOnHost(network, address string) net.Listener {
	o.t.Helper()
	return o.listen(o.host, network, address)
}

// ListenPacketOnHost is ListenOnHost for datagrams.
func (o *Outside) ListenPacketOnHost(network, address string) net.PacketConn {
	o.t.Helper()
	return o.listenPacket(o.host, network, address)
}

// JoinOnHost is ListenPacketOnHost for a multicast group, on the interface that
// leads outside.
func (o *Outside) JoinOnHost(network, group string, port int) (c net.PacketConn) {
	o.t.Helper()
	err := o.in(o.host, func() error {
		up, err := net.InterfaceByName("up0")
		if err == nil {
			c, err = net.ListenMulticastUDP(network, up, &net.UDPAddr{IP: net.ParseIP(group), Port: port})
		}
		return err
	})
	if err != nil {
		o.t.Fatalf("harness: %v", err)
	}
	o.t.Cleanup(func() { c.Close() })
	return c
}

func (o *Outside) listen(namespace *os.File, network, address string) (l net.Listener) {
	o.t.Helper()
	err := o.in(namespace, func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	if err != nil {
		o.t.Fatalf("harness: %v", err)
	}
	o.t.Cleanup(func() { l.Close() })
	return l
}

func (o *Outside) listenPacket(namespace *os.File, network, address string) (c net.PacketConn) {
	o.t.Helper()
	err := o.in(namespace, func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		o.t.Fatalf("harness: %v", err)
	}
	o.t.Cleanup(func() { c.Close() })
	return c
}

// Hide takes a program from the host.
func (o *Outside) Hide(name string) {
	o.t.Helper()
	for {
		var path string
		err := o.in(o.host, func() (err error) {
			if err = unix.Unshare(unix.CLONE_FS); err == nil {
				err = unix.Setns(int(o.mounts.Fd()), unix.CLONE_NEWNS)
			}
			if err == nil {
				if path, err = exec.LookPath(name); err != nil {
					path = ""
					return nil
				}
				err = unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
			}
			return err
		})
		if err != nil {
			o.t.Fatalf("harness: hiding %s: %v", name, err)
		}
		if path == "" {
			return
		}
	}
}

// Replace puts another program in the place of one of the host's.
func (o *Outside) Replace(name, with string) {
	o.t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		o.t.Fatalf("harness: %v", err)
	}
	o.Bind(with, path, 0)
}

// Bind mounts a file or folder over another one of the host's, with the flags of
// mount(2).
func (o *Outside) Bind(source, target string, flags uintptr) {
	o.t.Helper()
	err := o.in(o.host, func() error {
		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Setns(int(o.mounts.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = unix.Mount(source, target, "", unix.MS_BIND, "")
		}
		if err == nil && flags != 0 {
			err = unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
		}
		return err
	})
	if err != nil {
		o.t.Fatalf("harness: %s in the place of %s: %v", source, target, err)
	}
}

// The threads that enter namespaces end with their goroutines, but the main one
// can't: it is what /proc/self shows of the process. So it is kept for main.
func init() { runtime.LockOSThread() }
