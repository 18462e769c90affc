package harness

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// WithDistance is WithOutside, with a cable that takes time, each way. Between a
// pair of veths the answer is there in 2 µs. No network is that near, and pasta takes
// what answers within 10 µs for the host itself.
func WithDistance(d time.Duration) Option {
	return func(o *options) { o.outside, o.distance = true, d }
}

// lay lays a cable between the host's up0 and down0 beyond.
func (o *Outside) lay(distance time.Duration) {
	o.t.Helper()
	up, down := o.plug(o.host, "up0"), o.plug(o.beyond, "down0")
	o.t.Cleanup(func() {
		up.Close()
		down.Close()
	})
	go carry(up, down, distance)
	go carry(down, up, distance)
}

// plug makes an interface whose frames are read and written, which takes several
// segments in one as network cards do.
func (o *Outside) plug(namespace *os.File, name string) (f *os.File) {
	o.t.Helper()
	err := o.in(namespace, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("/dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err == nil {
			err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil {
		o.t.Fatalf("harness: interface %s: %v", name, err)
	}
	return f
}

// frame is on its way.
type frame struct {
	bytes []byte
	due   time.Time
}

// Sizes of a cable: the longest frame is a segment of 64 KiB with its headers, and
// what is on the way is bounded as it is in a switch.
const (
	maxFrame = 64<<10 + 256
	onTheWay = 4096
)

// carry returns when the cable is pulled out.
func carry(from, to *os.File, distance time.Duration) {
	way, free := make(chan frame, onTheWay), make(chan []byte, onTheWay)
	defer close(way)
	go func() {
		for f := range way {
			// The runtime's timers are too coarse: a millisecond where nothing runs.
			for left := time.Until(f.due); left > 0; left = time.Until(f.due) {
				pause := unix.NsecToTimespec(int64(left))
				_ = unix.Nanosleep(&pause, nil)
			}
			// What is not taken is lost, as on any network.
			_, _ = to.Write(f.bytes)
			select {
			case free <- f.bytes[:cap(f.bytes)]:
			default:
			}
		}
	}()
	for {
		var buf []byte
		select {
		case buf = <-free:
		default:
			buf = make([]byte, maxFrame)
		}
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		way <- frame{buf[:n], time.Now().Add(distance)}
	}
}
