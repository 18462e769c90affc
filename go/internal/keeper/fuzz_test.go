package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/nft"
	"github.com/nix-user-containers/nuc/go/internal/rootfs"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/userns"
	"github.com/nix-user-containers/nuc/test/jail"
)

// patience is how long the keeper may take for an answer, on a machine that has
// better to do.
const patience = 30 * time.Second

// maxResident is more memory than any message may cost, in bytes.
const maxResident = 256 << 20

// guarded is a live keeper, with a container that is up or without.
type guarded struct {
	child *userns.Child
	dir   string
	// files is how many it has open at rest, processes how many children.
	files, processes int
	// init answers for the container that is up.
	init   *seqpacket.Conn
	inputs int
}

// plan is of a root with the programs that the jail has.
func (g *guarded) plan(t testing.TB, folder string) rootfs.Plan {
	t.Helper()
	p := rootfs.Plan{Base: g.dir + "/base", HostFolder: g.dir + "/run", Folder: g.dir + "/" + folder}
	for _, d := range []string{p.Base, p.HostFolder, p.Folder} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix"} {
		st, err := os.Lstat(d)
		if err == nil && st.Mode()&os.ModeSymlink != 0 {
			target, err := os.Readlink(d)
			if err == nil {
				err = os.Symlink(target, p.Folder+d)
			}
			if err != nil && !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
		} else if err == nil {
			p.Mounts = append(p.Mounts, descriptor.Mount{Kind: descriptor.KindBind, Source: d, Target: d, Recursive: true, ReadOnly: true})
		}
	}
	return p
}

// guard starts a keeper.
func guard(t testing.TB, dir string, up bool) *guarded {
	t.Helper()
	ids := []idmap.Extent{{Inside: 0, Outside: 0, Count: jail.IDs()}}
	child, err := userns.Start(userns.Options{
		Arguments: []string{RoleKeeper}, Map: idmap.Map{UIDs: ids, GIDs: ids}, Cloneflags: unix.CLONE_NEWNET,
	})
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{child: child, dir: dir}
	if err := child.Conn.Send(Guard{PrivateNetwork: true}); err != nil {
		t.Fatal(err)
	}
	// What it opens once and keeps.
	for _, r := range []Request{{Op: OpNamespaces}, {Op: OpLimit, Limit: &Limit{}}, {Op: OpSockets, Sockets: &Sockets{Network: "tcp4", Count: 1}}} {
		g.ask(t, r)
	}
	if up {
		g.boot(t)
	}
	// What it is about to close is not at rest.
	for still := 0; still < 50; still++ {
		if files, processes := g.openFiles(t), g.children(t); files != g.files || processes != g.processes {
			g.files, g.processes, still = files, processes, 0
		}
		time.Sleep(time.Millisecond)
	}
	return g
}

// ask sends a request of this file's own, and returns the first reply.
func (g *guarded) ask(t testing.TB, r Request) Reply {
	t.Helper()
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = g.child.Conn.Send(r, peer)
	peer.Close()
	if err != nil {
		t.Fatalf("%s: %v", r.Op, err)
	}
	_ = conn.Net().SetDeadline(time.Now().Add(patience))
	m, err := conn.Receive()
	if err != nil {
		t.Fatalf("%s: no answer: %v", r.Op, err)
	}
	defer m.Close()
	var reply Reply
	if err := m.Decode(&reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

// boot has a container up that does nothing.
func (g *guarded) boot(t testing.TB) {
	t.Helper()
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip(err)
	}
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		t.Fatal(err)
	}
	err = g.child.Conn.Send(Request{Op: OpBoot, Boot: &Boot{Plan: g.plan(t, "up"), Hostname: "up", Init: program, Arguments: []string{"infinity"}}}, peer)
	peer.Close()
	if err != nil {
		t.Fatal(err)
	}
	m, err := conn.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var reply Reply
	if err := m.Decode(&reply); err != nil || reply.Kind != Started {
		t.Fatalf("boot: %+v, %v", reply, err)
	}
	g.init = conn
}

// end is the supervisor's.
func (g *guarded) end(t testing.TB) {
	t.Helper()
	if g == nil {
		return
	}
	g.child.Close()
	if g.init != nil {
		g.init.Close()
	}
	status, err := g.child.Wait()
	if err != nil || !status.Exited() || status.ExitStatus() != 0 {
		t.Errorf("the keeper ended with %#x, %v", status, err)
	}
}

func (g *guarded) openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.child.PID))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func (g *guarded) children(t testing.TB) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", g.child.PID))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, task := range tasks {
		data, _ := os.ReadFile(task) // a thread may have ended
		n += len(strings.Fields(string(data)))
	}
	return n
}

// rest waits until the keeper has nothing to do, and looks at what it holds.
func (g *guarded) rest(t *testing.T) {
	t.Helper()
	if reply := g.ask(t, Request{Op: OpNamespaces}); reply.Kind != Started {
		t.Errorf("the keeper answers %+v", reply)
	}
	deadline := time.Now().Add(patience)
	files, processes := g.openFiles(t), g.children(t)
	for ; (files > g.files || processes != g.processes) && time.Now().Before(deadline); files, processes = g.openFiles(t), g.children(t) {
		time.Sleep(time.Millisecond)
	}
	if files > g.files || processes != g.processes {
		t.Errorf("the keeper has %d files open and %d children, %d and %d before", files, processes, g.files, g.processes)
	}
	g.files = min(g.files, files) // it was slow to close what it had at first
	var size, resident int
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", g.child.PID))
	if err == nil {
		_, err = fmt.Sscan(string(data), &size, &resident)
	}
	if err != nil {
		t.Fatal(err)
	}
	if resident*os.Getpagesize() > maxResident {
		t.Errorf("the keeper takes %d MiB of memory", resident*os.Getpagesize()>>20)
	}
}

// file makes something to be sent along. The first is where the answer goes: it
// returns the other end, nil where no answer can come.
func file(t *testing.T, kind byte) (sent *os.File, answer *seqpacket.Conn, more []io.Closer) {
	t.Helper()
	var err error
	switch kind % 12 {
	case 0:
		answer, sent, err = seqpacket.Pair()
	case 1:
		sent, err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
	case 2:
		var w *os.File
		sent, w, err = os.Pipe()
		more = append(more, w)
	case 3:
		sent, err = os.Open("/")
	case 4:
		sent, err = os.Open("/dev/zero")
	case 5:
		// Full, and nobody reads it.
		var conn *seqpacket.Conn
		if conn, sent, err = seqpacket.Pair(); err == nil {
			for unix.Sendto(int(sent.Fd()), make([]byte, 4096), unix.MSG_DONTWAIT, nil) == nil {
			}
			more = append(more, conn)
		}
	case 6:
		// Nobody is there any more.
		var conn *seqpacket.Conn
		if conn, sent, err = seqpacket.Pair(); err == nil {
			conn.Close()
		}
	case 7, 8, 9:
		family, typ := unix.AF_UNIX, []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_STREAM}[kind%12-7]
		if kind%12 == 9 {
			family = unix.AF_INET
		}
		var fd int
		fd, err = unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
		sent = os.NewFile(uintptr(fd), "socket")
	case 10:
		var fd int
		if fd, err = unix.MemfdCreate("memory", unix.MFD_CLOEXEC); err == nil {
			sent = os.NewFile(uintptr(fd), "memory")
			_, err = sent.WriteString(`{"op":"namespaces"}`)
		}
	case 11:
		var fd int
		fd, err = unix.PidfdOpen(os.Getpid(), 0)
		sent = os.NewFile(uintptr(fd), "pidfd")
	}
	if err != nil {
		t.Fatal(err)
	}
	return sent, answer, more
}

// follow reads the answer to its end. What has been started is killed.
func follow(t *testing.T, conn *seqpacket.Conn, boot bool, signal []byte) {
	t.Helper()
	_ = conn.Net().SetDeadline(time.Now().Add(patience))
	for {
		m, err := conn.Receive()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("not answered to the end: %v", err)
		}
		var r Reply
		if err := m.Decode(&r); err != nil {
			t.Fatalf("%q: %v", m.Data, err)
		}
		switch {
		case r.Kind == Failed && r.Error != "" && r.Status != 0 && len(m.FDs) == 0:
		case r.Kind == Exited && len(m.FDs) == 0:
		case r.Kind == Started && boot && len(m.FDs) == 3:
			_ = unix.PidfdSendSignal(int(m.FDs[0].Fd()), unix.SIGKILL, nil, 0)
		case r.Kind == Started:
			if len(signal) > 0 {
				_ = conn.SendRaw(signal)
			}
			_ = conn.Send(Signal{Signal: int(unix.SIGKILL)})
		default:
			t.Errorf("answered by %q and %d descriptors", m.Data, len(m.FDs))
		}
		m.Close()
	}
}

// FuzzKeeper speaks to live keepers, whose containers are in namespaces as ever:
// whatever comes, a keeper lives on, answers or hangs up, and holds nothing
// afterwards that it didn't before.
func FuzzKeeper(f *testing.F) {
	dir := "/tmp"
	if jail.Inside() {
		dir = f.TempDir()
	}
	g := &guarded{dir: dir}
	for _, r := range []Request{
		{Op: OpNamespaces},
		{Op: OpSockets, Sockets: &Sockets{Network: "tcp4", Count: 3}},
		{Op: OpSockets, Sockets: &Sockets{Network: "udp6", Count: MaxSockets}},
		{Op: OpSockets, Sockets: &Sockets{Network: "unix", Count: -1}},
		{Op: OpListen, Listen: &Listen{Network: "tcp4", Address: "127.0.0.1", Port: 80}},
		{Op: OpListen, Listen: &Listen{Network: "tcp6", Address: "::", Both: true}},
		{Op: OpListen, Listen: &Listen{Network: "unix", Path: "/run/socket", Mode: 0o666}},
		{Op: OpDial, Dial: &Dial{Path: "/run/socket"}},
		{Op: OpDial, Dial: &Dial{Path: "/proc/1/root/run/socket"}},
		{Op: OpForget, Dial: &Dial{Path: "/run/socket"}},
		{Op: OpLimit, Limit: &Limit{Rules: []nft.Rule{
			{To: netip.MustParsePrefix("10.0.0.0/8"), Protocol: "tcp", First: 443, Last: 444, Accept: true},
			{To: netip.MustParsePrefix("2001:db8::/32")},
			{To: nft.All4},
			{},
		}}},
		{Op: OpExec, Exec: &Exec{Arguments: []string{"sleep", "60"}}},
		{Op: OpExec, Exec: &Exec{Arguments: []string{"true"}, Environment: []string{"A=1", "A=2", "PATH=/bin", "=", "x"}, Folder: "/proc/self/fd/1", User: "0:0"}},
		{Op: OpExec, Exec: &Exec{Terminal: true, Rows: 24, Columns: 80, User: "nobody"}},
		{Op: OpExec},
		{Op: OpBoot},
		{Op: OpBoot, Boot: &Boot{Hostname: "x", Init: "/bin/true"}},
		{Op: OpBoot, Boot: &Boot{Hostname: strings.Repeat("x", 65), Init: "/bin/true", Plan: rootfs.Plan{Base: "/tmp", HostFolder: "/tmp"}}},
		{Op: OpBoot, Boot: &Boot{Listeners: 2, Rows: 1, Columns: 1, Init: "/proc/self/exe", Plan: rootfs.Plan{Base: "/tmp", HostFolder: "/proc/self/fd", Folder: "/", Devices: []string{"/dev/null"}}}},
		{Op: OpBoot, Boot: &Boot{Init: "/bin/sleep", Arguments: []string{"60"}, Plan: g.seedPlan(f)}},
		{Op: "none"},
	} {
		data, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		for _, kinds := range []string{"\x00", "\x00\x01\x02\x01", "\x05", "\x06\x02", "\x07\x01\x01\x02\x02"} {
			f.Add(data, []byte(kinds), []byte(`{"signal":15}`), len(kinds)%2 == 0)
		}
		f.Add(data, []byte("\x00"), []byte{}, true)
		f.Add(data, []byte("\x00\x02\x01\x01"), []byte("x"), true)
	}
	// A message is small, and what is made of it may not be.
	for _, r := range []string{`{"op":"limit","limit":{"rules":[{}` + strings.Repeat(",{}", 300_000) + "]}}", `{"op":"exec","exec":{"environment":["0"` + strings.Repeat(`,"ab"`, 100_000) + "]}}"} {
		f.Add([]byte(r), []byte{0}, []byte{}, true)
	}
	f.Add([]byte{1}, []byte{10, 0}, []byte{}, false)
	f.Add([]byte{1}, []byte{2, 0}, []byte{}, false)
	f.Add([]byte{1}, []byte{}, []byte{}, true)
	f.Add([]byte(`{"op":"exec","exec":{}}`), make([]byte, seqpacket.MaxFDs+1), []byte{}, true)
	f.Add([]byte(`{"op":"leave"}`), []byte{0}, []byte{}, true)
	jail.Seeds(f)
	var keepers [2]*guarded
	f.Cleanup(func() {
		for _, g := range keepers {
			g.end(f)
		}
	})
	f.Fuzz(func(t *testing.T, data, kinds, signal []byte, up bool) {
		if !jail.Inside() {
			return
		}
		var r Request
		err := json.Unmarshal(data, &r)
		if len(data) == 0 || err == nil && r.Op == OpLeave && len(kinds) == 0 {
			return // it is told to end
		}
		at := &keepers[0]
		if up {
			at = &keepers[1]
		}
		// What programs in the container may have left doesn't add up.
		if *at == nil || (*at).inputs == 5000 {
			(*at).end(t)
			*at = guard(t, dir, up)
		}
		g := *at
		g.inputs++
		var files []*os.File
		var more []io.Closer
		var answer *seqpacket.Conn
		for i, kind := range kinds[:min(len(kinds), 252)] {
			sent, conn, others := file(t, kind)
			files = append(files, sent)
			more = append(more, others...)
			if conn != nil {
				more = append(more, conn)
			}
			if i == 0 {
				answer = conn
			}
		}
		_ = g.child.Conn.Net().SetWriteDeadline(time.Now().Add(patience))
		err = g.child.Conn.SendRaw(data, files...)
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			t.Fatalf("the keeper takes no requests: %v", err)
		}
		if answer != nil {
			follow(t, answer, r.Op == OpBoot, signal)
		}
		for _, c := range more {
			c.Close()
		}
		if up && r.Op == OpBoot {
			if reply := g.ask(t, Request{Op: OpListen, Listen: &Listen{Network: "unix", Path: "/run/listening"}}); reply.Kind != Started {
				t.Errorf("what is up is not to be entered any more: %+v", reply)
			}
		}
		if r.Op == OpLimit {
			if reply := g.ask(t, Request{Op: OpLimit, Limit: &Limit{Rules: []nft.Rule{{To: nft.All4, Accept: true}}}}); reply.Kind != Started {
				t.Errorf("rules can't be set any more: %+v", reply)
			}
		}
		g.rest(t)
	})
}

// seedPlan is a plan that can be carried out.
func (g *guarded) seedPlan(f *testing.F) rootfs.Plan {
	f.Helper()
	if !jail.Inside() {
		return rootfs.Plan{} // the targets' folders are those of the jail
	}
	return g.plan(f, "seed")
}

// FuzzLookUp reads a container's own users and groups.
func FuzzLookUp(f *testing.F) {
	const passwd = "root:x:0:0::/root:/bin/bash\nalice:x:1000:100:A:/home/alice:/bin/zsh\nodd:x:1001:1001::/:nologin\nbroken\n"
	const group = "root:x:0:\nusers:x:100:\nwheel:x:10:alice,bob\ndocker:x:20:bob\nstaff:x:-1:alice\n"
	for _, spec := range []string{"", "alice", "1000", "alice:docker", "7:8", "mallory", "-1", "alice:", ":", "0:4294967296", "2147483648"} {
		f.Add(spec, []byte(passwd), []byte(group))
	}
	f.Add("alice", []byte("alice:x:4294967295:-5::\x00:/\n"), []byte("x:x:99999999999999999999:alice\n"))
	f.Fuzz(func(t *testing.T, spec string, passwd, group []byte) {
		a, err := lookUp(spec, passwd, group)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		if a.UID < 0 || a.UID > math.MaxInt32 || a.GID < 0 || a.GID > math.MaxInt32 {
			t.Errorf("ids that there aren't: %+v", a)
		}
		if len(a.Groups) == 0 || a.Groups[0] != uint32(a.GID) || !strings.HasPrefix(a.Shell, "/") {
			t.Errorf("%+v", a)
		}
		if strings.ContainsAny(a.Name+a.Home+a.Shell, "\n") {
			t.Errorf("%+v", a)
		}
	})
}
