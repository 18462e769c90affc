package starter

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/hostfolder"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
	"github.com/nix-user-containers/nuc/go/internal/process"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/userns"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

// TestMain is a starter and its keepers, too.
func TestMain(m *testing.M) {
	var err error
	switch os.Args[0] {
	case Role:
		err = Main(func(Order) Links { return fakeLinks{} })
	case keeper.RoleKeeper:
		// A keeper that says who it is, and ends when its supervisor does.
		var self *userns.Self
		if self, err = userns.Enter(); err == nil {
			_ = self.Conn.Send(map[string]int{"parent": os.Getppid()})
			_, _ = self.Conn.Receive()
			os.Exit(7)
		}
	default:
		leaktest.Main(m)
	}
	if err != nil {
		os.Exit(1)
	}
}

// fakeLinks has a process for a link that sleeps as long as its Spec says, or none.
type fakeLinks struct{}

func (fakeLinks) Link(spec json.RawMessage, exited func()) (bool, error) {
	var s struct{ Sleep string }
	if err := json.Unmarshal(spec, &s); err != nil || s.Sleep == "" {
		return false, err
	}
	cmd := exec.Command("sleep", s.Sleep)
	if err := cmd.Start(); err != nil {
		return false, err
	}
	go func() {
		_ = cmd.Wait()
		exited()
	}()
	return true, nil
}

func (fakeLinks) Unlink(name string) error {
	if name == "none" {
		return os.ErrNotExist
	}
	return errors.New("is busy")
}

// clients are one that starts things itself, and one that has a starter.
func clients(t *testing.T, test func(t *testing.T, c *Client, here bool)) {
	for name, here := range map[string]bool{"here": true, "starter": false} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := Order{Name: "web", Folders: state.Folders{State: filepath.Join(dir, "state"), Runtime: dir, Cache: filepath.Join(dir, "cache")}}
			c := New(o, nil, fakeLinks{}, nil)
			c.Prepare()
			one := func(id int) []idmap.Extent { return []idmap.Extent{{Inside: 0, Outside: uint32(id), Count: 1}} }
			c.SetIDs(idmap.Map{UIDs: one(os.Geteuid()), GIDs: one(os.Getegid())})
			c.Gone = func() { t.Error("it was killed") }
			if !here {
				if err := c.Separate(); err != nil {
					t.Fatal(err)
				}
			}
			defer c.Close()
			test(t, c, here)
		})
	}
}

func TestKeeper(t *testing.T) {
	clients(t, func(t *testing.T, c *Client, here bool) {
		child, err := c.Keeper(false)
		if err != nil {
			t.Fatal(err)
		}
		defer child.Close()
		m, err := child.Conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		var said struct{ Parent int }
		if err := m.Decode(&said); err != nil {
			t.Fatal(err)
		}
		want := os.Getpid()
		if !here {
			want = c.Processes()[0]
		}
		if said.Parent != want {
			t.Errorf("its parent is %d, want %d", said.Parent, want)
		}
		_ = child.Conn.Send(struct{}{})
		if status, err := child.Wait(); err != nil || status.ExitStatus() != 7 {
			t.Errorf("%v, %v", status, err)
		}
	})
}

func TestDriver(t *testing.T) {
	clients(t, func(t *testing.T, c *Client, here bool) {
		if _, err := c.Driver(outbound.Order{Driver: "/bin/sh"}, os.Stdin, os.Stdin, os.Stdin); err == nil || !strings.Contains(err.Error(), "is none") {
			t.Errorf("another program: %v", err)
		}
		driver := ""
		for _, name := range outbound.Programs {
			if _, err := outbound.Find(name); err == nil {
				driver = name
			}
		}
		if driver == "" {
			t.Skip("neither pasta nor slirp4netns is installed")
		}
		// It ends at once, as these are no namespaces, and says why.
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		child, err := c.Driver(outbound.Order{Driver: driver, MTU: 1500}, null, null, w)
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer child.PIDFD.Close()
		select {
		case <-child.Ended:
		case <-time.After(10 * time.Second):
			t.Fatal("it does not end")
		}
		said := make([]byte, 1)
		if n, _ := r.Read(said); n == 0 || child.PID <= 0 || child.Status.ExitStatus() <= 0 {
			t.Errorf("%+v: %v, said %d bytes", child, *child.Status, n)
		}
	})
}

func TestLinks(t *testing.T) {
	clients(t, func(t *testing.T, c *Client, here bool) {
		over := make(chan struct{})
		if err := c.Link(json.RawMessage(`{"sleep":"0.01"}`), func() { close(over) }); err != nil {
			t.Fatal(err)
		}
		select {
		case <-over:
		case <-time.After(10 * time.Second):
			t.Error("its end is not told")
		}
		if err := c.Link(json.RawMessage(`{}`), func() { t.Error("one that is not watched has ended") }); err != nil {
			t.Error(err)
		}
		if err := c.Link(json.RawMessage(`{"sleep":1}`), nil); err == nil {
			t.Error("a link that can't be made was")
		}
		if err := c.Unlink("some"); err == nil || err.Error() != "is busy" {
			t.Error(err)
		}
		if err := c.Unlink("none"); err != nil {
			t.Error(err)
		}
		for _, name := range []string{"", ".", "..", "../web", "a/b"} {
			if err := c.Unlink(name); err == nil || !strings.Contains(err.Error(), "is no link's name") {
				t.Errorf("%q: %v", name, err)
			}
		}
	})
}

func TestProtectAndCopy(t *testing.T) {
	clients(t, func(t *testing.T, c *Client, here bool) {
		for _, path := range []string{"/etc", "--add-root", "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a /x"} {
			if err := c.Protect(1, []string{path}); err == nil || !strings.Contains(err.Error(), "is no store path") {
				t.Errorf("%q: %v", path, err)
			}
		}
		source := filepath.Join(t.TempDir(), "tree")
		if err := os.WriteFile(source, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
		copies, err := c.Copies([]string{source})
		if err != nil || len(copies) != 1 || !strings.HasPrefix(copies[0], c.Folders.Cache) {
			t.Fatalf("%v, %v", copies, err)
		}
		if text, err := os.ReadFile(copies[0]); err != nil || string(text) != "text" {
			t.Errorf("%q, %v", text, err)
		}
		if _, err := c.Copies([]string{source, "/none"}); !strings.Contains(err.Error(), "build it first") {
			t.Error(err)
		}
	})
}

func TestSockets(t *testing.T) {
	clients(t, func(t *testing.T, c *Client, here bool) {
		conn, peer, err := seqpacket.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		defer peer.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(peer.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		having, err := c.Sockets(Sockets{Init: os.Getpid(), Inodes: []uint64{st.Ino, 1}})
		if err != nil || len(having.Init) != 1 || having.Init[0] != st.Ino || len(having.Others) > 0 {
			t.Errorf("%+v, %v", having, err)
		}
		having, err = c.Sockets(Sockets{Init: os.Getppid(), Inodes: []uint64{st.Ino}})
		if err != nil || len(having.Init) > 0 || len(having.Others) != 1 {
			t.Errorf("of the parent: %+v, %v", having, err)
		}
		if _, err := c.Sockets(Sockets{Init: -1}); err == nil {
			t.Error("a process that there is not")
		}
	})
}

// TestFolder: a runtime folder that was removed is made anew, and again.
func TestFolder(t *testing.T) {
	clients(t, func(t *testing.T, c *Client, here bool) {
		container := c.Folders.Container("web")
		if err := os.MkdirAll(container.State, 0o700); err != nil {
			t.Fatal(err)
		}
		lock, err := container.Acquire()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { lock.Close() }()
		inode := func() (st unix.Stat_t) {
			if err := unix.Stat(container.Runtime, &st); err != nil {
				t.Fatal(err)
			}
			return st
		}
		// The folder, and then only the socket in it.
		for _, lost := range []string{container.Runtime, filepath.Join(container.Runtime, "control")} {
			before := inode()
			if err := os.RemoveAll(lost); err != nil {
				t.Fatal(err)
			}
			renewed, control, err := c.Renew(lock, "control")
			if err != nil {
				t.Fatal(err)
			}
			defer control.Close()
			if same := inode().Ino == before.Ino; same != (lost != container.Runtime) {
				t.Errorf("%s was lost, the folder is the same: %t", lost, same)
			}
			if lock = renewed; lock.State == nil || lock.Lost(container, "control") || !container.Held() {
				t.Errorf("after %s was lost: %+v", lost, lock)
			}
			client, err := seqpacket.Dial(lock.Folder, "control")
			if err != nil {
				t.Fatal(err)
			}
			client.Close()
			if accepted, err := control.AcceptUnix(); err != nil {
				t.Error(err)
			} else {
				accepted.Close()
			}
		}
		socket, err := c.Furnish("uuid")
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		if err := c.Publish("hosts", "text"); err != nil {
			t.Error(err)
		}
		if err := c.Publish("../lock", "text"); err == nil {
			t.Error("something else than a file of /run/host was written")
		}
		for name, want := range map[string]string{"container-uuid": "uuid\n", "hosts": "text"} {
			if got, err := os.ReadFile(filepath.Join(hostfolder.Path(container.Runtime), name)); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		said, err := net.Dial("unixgram", hostfolder.Path(container.Runtime)+"/notify")
		if err != nil {
			t.Fatal(err)
		}
		defer said.Close()
		if _, err := said.Write([]byte("READY=1")); err != nil {
			t.Error(err)
		}
		if m, err := socket.Receive(); err != nil || !m.Ready {
			t.Errorf("%+v, %v", m, err)
		}
		if err := c.Tidy(lock); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(container.Runtime); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it stays: %v", err)
		}
	})
}

// TestKilled: what can't be started any more is an error, and what was started is
// known to have ended.
func TestKilled(t *testing.T) {
	c := New(Order{Name: "web"}, nil, fakeLinks{}, nil)
	c.Prepare()
	one := []idmap.Extent{{Inside: 0, Outside: uint32(os.Geteuid()), Count: 1}}
	c.SetIDs(idmap.Map{UIDs: one, GIDs: []idmap.Extent{{Inside: 0, Outside: uint32(os.Getegid()), Count: 1}}})
	gone := make(chan struct{})
	c.Gone = func() { close(gone) }
	if err := c.Separate(); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	child, err := c.Keeper(false)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	if err := unix.Kill(c.Processes()[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("nobody is told")
	}
	if pids := c.Processes(); len(pids) > 0 {
		t.Errorf("still there: %v", pids)
	}
	if _, err := c.Keeper(false); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	if err := c.Link(json.RawMessage(`{"sleep":"0"}`), nil); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	m, err := child.Conn.Receive()
	if err != nil {
		t.Fatalf("the keeper is gone, too: %v", err)
	}
	m.Close()
	_ = child.Conn.Send(struct{}{})
	if _, err := child.Wait(); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if !process.Ended(child.PIDFD) {
		t.Error("Wait has not waited")
	}
}
