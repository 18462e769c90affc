package notify

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzReceive sends datagrams to a live socket, with descriptors: each is read
// as far as is promised, and nothing is left of what came along.
func FuzzReceive(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x"), uint8(0))
	f.Add([]byte("FDSTORE=1\nFDNAME=x"), uint8(3))
	f.Add([]byte{}, uint8(0))
	f.Add(make([]byte, maxDatagram+1), uint8(253))
	path := filepath.Join(f.TempDir(), "notify")
	s, err := listenAt(path, os.Getuid(), os.Getgid())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	raw, err := c.SyscallConn()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, files uint8) {
		before := openFiles(t)
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		var rights []byte
		if files > 0 {
			fds := make([]int, min(files, 253)) // the kernel takes no more
			for i := range fds {
				fds[i] = int(null.Fd())
			}
			rights = unix.UnixRights(fds...)
		}
		var failure error
		err = raw.Control(func(fd uintptr) { failure = unix.Sendmsg(int(fd), data, rights, nil, 0) })
		null.Close()
		if err != nil {
			t.Fatal(err)
		}
		if failure != nil {
			return // larger than the kernel takes
		}
		got, err := s.Receive()
		if want := Parse(data[:min(len(data), maxDatagram)]); err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
	})
}
