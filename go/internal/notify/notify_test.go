package notify

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestParse(t *testing.T) {
	tests := []struct {
		name, text string
		want       Message
	}{
		{"empty", "", Message{}},
		{"ready", "READY=1", Message{Ready: true}},
		{"ready with an end of line", "READY=1\n", Message{Ready: true}},
		{"not ready", "READY=0", Message{}},
		{"nearly ready", "READY=11\nXREADY=1\nready=1\n READY=1", Message{}},
		{"stopping", "STOPPING=1\nSTATUS=Shutting down", Message{Stopping: true, Status: "Shutting down"}},
		{"reloading", "RELOADING=1\nMONOTONIC_USEC=12", Message{Reloading: true}},
		{"status with an equals sign", "STATUS=a=b", Message{Status: "a=b"}},
		{"the last status stands", "STATUS=a\nSTATUS=b", Message{Status: "b"}},
		{"systemd at the end of its boot", "READY=1\nSTATUS=Startup finished in 1s.\nX_SYSTEMD_UNIT_ACTIVE=x", Message{Ready: true, Status: "Startup finished in 1s."}},
		{"forged pid", "MAINPID=1\nMAINPIDFDID=2\nFDSTORE=1\nERRNO=5\nEXIT_STATUS=0", Message{}},
		{"NUL and bytes that are no text", "READY=1\x00\n\xff\xfe=\n=\n\n", Message{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Parse([]byte(test.text)); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("READY=1\nSTATUS=x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := Parse(data)
		if m.Ready && !strings.Contains("\n"+string(data)+"\n", "\nREADY=1\n") {
			t.Errorf("ready by %q", data)
		}
		if strings.Contains(m.Status, "\n") {
			t.Errorf("status of two lines: %q", m.Status)
		}
	})
}

// listen makes a socket and one that is connected to it.
func listen(t *testing.T) (*Socket, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	s, err := listenAt(path, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

func listenAt(path string, uid, gid int) (*Socket, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return Listen(dir, path, uid, gid)
}

// TestHostileDatagrams is hostile case 31.
func TestHostileDatagrams(t *testing.T) {
	s, c := listen(t)
	if _, err := c.Write(make([]byte, 1<<20)); err == nil {
		t.Error("the kernel took a datagram of 1 MiB: then Receive must be tried with it")
	}
	before := openFiles(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	fds := make([]int, 253)
	for i := range fds {
		fds[i] = int(null.Fd())
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failure error
	err = raw.Control(func(fd uintptr) {
		failure = unix.Sendmsg(int(fd), []byte("STATUS=with descriptors\nMAINPID=1"), unix.UnixRights(fds...), nil, 0)
	})
	null.Close()
	if err := errors.Join(err, failure); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("STATUS=" + strings.Repeat("x", 100_000))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []Message{
		{Status: "with descriptors"},
		{Status: strings.Repeat("x", maxDatagram-len("STATUS="))},
		{},
		{Ready: true},
	} {
		got, err := s.Receive()
		if err != nil || got != want {
			t.Errorf("datagram %d: %.40q of %d bytes, ready %t, %v", i, got.Status, len(got.Status), got.Ready, err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d were: a datagram's descriptors were kept", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestListenOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 64123, 64124
	}
	s, err := listenAt(path, uid, gid)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode != unix.S_IFSOCK|0o600 || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("mode %o of %d:%d, want %o of %d:%d", st.Mode, st.Uid, st.Gid, unix.S_IFSOCK|0o600, uid, gid)
	}
}

// TestListenFails: an init that can't write to its socket never gets ready, so
// that must be told at once.
func TestListenFails(t *testing.T) {
	t.Run("owner that can't be", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("root may give a file to anybody")
		}
		s, err := listenAt(filepath.Join(t.TempDir(), "notify"), 0, 0)
		if err == nil {
			s.Close()
			t.Fatal("no error though the socket can't be given away")
		}
		if !strings.Contains(err.Error(), "notify") {
			t.Errorf("doesn't name the socket: %v", err)
		}
	})
	t.Run("another folder than the path's", func(t *testing.T) {
		elsewhere, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer elsewhere.Close()
		if s, err := Listen(elsewhere, filepath.Join(t.TempDir(), "notify"), os.Getuid(), os.Getgid()); err == nil {
			s.Close()
			t.Error("no error though the socket's mode could not be set")
		}
	})
	t.Run("taken", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "notify")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := listenAt(path, os.Getuid(), os.Getgid()); err == nil {
			s.Close()
			t.Error("no error though something is there")
		}
	})
}

func TestCloseEndsReceive(t *testing.T) {
	s, _ := listen(t)
	ended := make(chan error)
	go func() {
		_, err := s.Receive()
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("Receive returned a message after Close")
	}
}
