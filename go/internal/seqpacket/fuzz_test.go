package seqpacket

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzReceive sends what another process could: whatever comes, a message is of
// bounded size, holds what was sent, and no descriptor outlives it.
func FuzzReceive(f *testing.F) {
	for _, seed := range []struct {
		data  string
		files uint8
		kind  uint8
	}{
		{`{"op":"namespaces"}`, 1, 0},
		{"{}", 0, 0},
		{"x", MaxFDs, 0},
		{"x", MaxFDs + 1, 0},
		{"x", 253, 0},
		{string([]byte{large}), 0, 0},
		{string([]byte{large}), 1, 0},
		{string([]byte{large}), 1, 1},
		{string([]byte{large}) + `{"op":"exec"}`, MaxFDs + 1, 2},
		{string([]byte{large}) + "huge", 2, 3},
		{string([]byte{large}), 1, 4},
		{string([]byte{large}), 1, 5},
	} {
		f.Add([]byte(seed.data), seed.files, seed.kind)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { null.Close() })
	f.Fuzz(func(t *testing.T, data []byte, files, kind uint8) {
		if len(data) == 0 {
			return // the end of a connection
		}
		before := openFiles(t)
		c, peer, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		fds := make([]int, min(files, 253)) // the kernel takes no more
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		packet, want := data, data
		var special *os.File
		if len(fds) > 0 && data[0] == large {
			// The rest is in a file, or in something that looks like one.
			packet, want = data[:1], data[1:]
			special = source(t, kind, want)
			fds[0] = int(special.Fd())
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		err = unix.Sendmsg(int(peer.Fd()), packet, rights, nil, 0)
		if special != nil {
			special.Close()
		}
		if err != nil {
			c.Close()
			peer.Close()
			t.Skip(err) // larger than the kernel takes
		}
		m, err := c.Receive()
		switch {
		case err == nil && (len(m.FDs) > MaxFDs || len(m.Data) > MaxMessage):
			t.Errorf("%d bytes, %d descriptors", len(m.Data), len(m.FDs))
		case err == nil && !bytes.Equal(m.Data, want) && kind%6 < 2:
			t.Errorf("%q, want %q", m.Data, want)
		case err != nil && m != nil:
			t.Errorf("a message and %v", err)
		case err != nil && len(packet) <= maxInline && len(fds) <= MaxFDs && data[0] != large:
			t.Errorf("refused: %v", err)
		}
		if m != nil {
			var v any
			_ = m.Decode(&v)
			m.Close()
		}
		c.Close()
		peer.Close()
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
	})
}

// source makes what a large message's JSON may be claimed to be in.
func source(t *testing.T, kind uint8, data []byte) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("message", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "message")
	if _, err := memory.Write(data); err != nil {
		t.Fatal(err)
	}
	var other *os.File
	switch kind % 6 {
	case 0, 1:
		return memory
	case 2: // nothing in it but size
		err = memory.Truncate(MaxMessage)
	case 3:
		err = memory.Truncate(MaxMessage + 1)
	case 4:
		var w *os.File
		other, w, err = os.Pipe() // which nobody ever writes to
		w.Close()
	case 5:
		other, err = os.Open("/")
	}
	if err != nil {
		t.Fatal(err)
	}
	if other == nil {
		return memory
	}
	memory.Close()
	return other
}
