package hostile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// port is an entry of network.ports.
func port(host, container int) map[string]any {
	return map[string]any{"host": host, "container": container}
}

func hostAddresses(p *place) {
	h := p.own(harness.WithOutside())
	h.ServeWeb(h.Outside.Listen("tcp", ":80"))
	const number = 8000
	w := h.Witness(number, "@"+filepath.Base(h.Dir))
	inside := func(name string, attempts ...string) {
		h.Helper()
		h.AwaitOutside(name)
		for _, attempt := range append([]string{"true"}, attempts...) {
			h.Exec(name, "sh", "-c", attempt)
			if open := h.Reaches(name, number, harness.HostAddresses()); len(open) > 0 || w.Met() > 0 {
				h.Errorf("after %s, %s reaches the host at %q; %d came through", attempt, name, open, w.Met())
			}
		}
	}
	h.Up("plain", "trixie", nil)
	// What programs do without ill will; root has more, see docs/security.md.
	inside("plain", "nft flush ruleset", "systemctl restart systemd-networkd", "ip route flush cache")
	h.Must("kill", "plain")
	// Who is not to be trusted is given limits, and then root does not undo them.
	h.Up("limited", "trixie", func(d map[string]any) {
		d["network"] = map[string]any{"allow": []string{"0.0.0.0/0", "::/0"}}
	})
	inside("limited", "nft flush ruleset", "nft delete table inet nuc", "ip link set eth0 name mine", "ip link set lo down",
		"ip netns add mine && ip link set eth0 netns mine", "unshare -Urn sh -c 'ip link add x type veth peer name y netns /proc/1/ns/net'",
		"ip route add local 203.0.113.2 dev lo; ip addr add 203.0.113.9/24 dev eth0", "ip neigh replace 10.117.99.2 lladdr 02:00:00:00:00:01 dev eth0")
}

func loopbackOnly(p *place) {
	h := p.own(harness.WithOutside())
	tcp, udp, activated := harness.FreePort(h), harness.FreePort(h), harness.FreePort(h)
	h.Must("up", h.light("ports", func(d map[string]any) {
		ports := []any{port(tcp, 80), map[string]any{"host": udp, "container": 53, "protocol": "udp"}}
		d["network"] = map[string]any{"outbound": false, "ports": ports}
	}), h.light("listening", func(d map[string]any) {
		a := port(activated, 80)
		a["socketActivation"] = true
		d["network"] = map[string]any{"outbound": false, "ports": []any{a}}
	}))
	for _, name := range []string{"ports", "listening"} {
		for _, one := range h.statusOf(name).Ports {
			if one.Address != "127.0.0.1" {
				h.Errorf("%s says it listens on %s", name, one.Address)
			}
		}
	}
	found := 0
	for line := range strings.Lines(h.Host("ss", "-Hlntu").Stdout) {
		fields := strings.Fields(line)
		for _, number := range []int{tcp, udp, activated} {
			if len(fields) > 4 && strings.HasSuffix(fields[4], fmt.Sprintf(":%d", number)) {
				found++
				if fields[4] != fmt.Sprintf("127.0.0.1:%d", number) {
					h.Errorf("a port without an address listens on %s", fields[4])
				}
			}
		}
	}
	if found != 3 {
		h.Errorf("%d of three ports listen:\n%s", found, h.Host("ss", "-Hlntu"))
	}
}

func portsRefused(p *place) {
	h := p.own(harness.WithOutside())
	taken := h.Outside.ListenOnHost("tcp", "127.0.0.1:7999")
	defer taken.Close()
	ports := func(ports ...any) string {
		return h.light("ports", func(d map[string]any) { d["network"] = map[string]any{"outbound": false, "ports": ports} })
	}
	h.refused(h.Nuc("up", ports(port(8001, 80), port(7999, 81))), "network.ports[1]", "7999", "listens there already")
	h.refused(h.Nuc("up", ports(port(8001, 80), port(80, 80))), "network.ports[1]", "80")
	h.refused(h.Nuc("up", ports(port(8001, 80), port(8001, 81))), "network.ports[1].host", "8001")
	h.refused(h.Nuc("up", ports(port(8001, 80), map[string]any{"host": 8002, "container": 80, "address": "198.51.100.1"})), "network.ports[1]", "198.51.100.1")
	h.NothingLeft()
	if listening := h.Host("ss", "-Hlnt").Stdout; strings.Contains(listening, ":8001") {
		h.Errorf("a port that was opened first stays: %s", listening)
	}
	h.Must("up", ports(port(8001, 80)))
}

func slowClients(p *place) {
	kinds := []string{"flood", "sink", "half", "talk"}
	numbers := map[string]int{}
	var ports []any
	for i, kind := range kinds {
		numbers[kind] = harness.FreePort(p)
		ports = append(ports, port(numbers[kind], 7000+i))
	}
	p.Must("up", p.light("server", func(d map[string]any) { d["network"] = map[string]any{"outbound": false, "ports": ports} }))
	p.install("server", "server")
	for i, kind := range kinds {
		p.Start("exec", "server", "/root/server", kind, strconv.Itoa(7000+i)).WaitOutput("serving", patience)
	}
	dial := func(kind string) *net.TCPConn {
		p.Helper()
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", numbers[kind]), patience)
		if err != nil {
			p.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		return c.(*net.TCPConn)
	}
	st := p.statusOf("server")
	before := p.memory(st.Supervisor, "VmRSS")
	var all sync.WaitGroup
	defer all.Wait()
	open := make(chan struct{})
	defer close(open)
	for range 200 {
		// One that never reads what never ends, and one that writes to who never reads.
		flood, sink := dial("flood"), dial("sink")
		all.Go(func() {
			<-open
			flood.Close()
			sink.Close()
		})
		go func() { _, _ = sink.Write(make([]byte, 4<<20)) }()
	}
	// End-of-file passes through while they are there: the client's first,
	const size = 3 << 20
	half := dial("half")
	defer half.Close()
	if _, err := half.Write(make([]byte, size)); err != nil {
		p.Fatal(err)
	}
	if err := half.CloseWrite(); err != nil {
		p.Fatal(err)
	}
	if answer, err := io.ReadAll(half); err != nil || string(answer) != fmt.Sprintf("got %d\n", size) {
		p.Errorf("after the client's end-of-file: %q, %v", answer, err)
	}
	// and the server's.
	talk := dial("talk")
	defer talk.Close()
	if answer, err := io.ReadAll(talk); err != nil || string(answer) != "first\n" {
		p.Errorf("before the server's end-of-file: %q, %v", answer, err)
	}
	if _, err := talk.Write(make([]byte, size)); err != nil {
		p.Error(err)
	}
	if err := talk.CloseWrite(); err != nil {
		p.Error(err)
	}
	harness.Eventually(p, patience, "the server hears what comes after its own end-of-file", func() bool {
		return p.Exec("server", "cat", "/root/heard").Stdout == fmt.Sprintf("%d\n", size)
	})
	// A connection has two sockets and at most a pipe with 64 KiB in it.
	if now := p.memory(st.Supervisor, "VmHWM"); now > before+(48<<10) {
		p.Errorf("the supervisor had %d KiB and took %d for 400 slow connections", before, now)
	}
	if n := p.openFiles(st.Supervisor); n > 400*4+200 {
		p.Errorf("the supervisor has %d files open for 400 connections", n)
	}
}

func abstractSockets(p *place) {
	name := "nuc-hostile-" + filepath.Base(p.Dir)
	l, err := net.Listen("unix", "@"+name)
	if err != nil {
		p.Fatal(err)
	}
	defer l.Close()
	if table, err := os.ReadFile("/proc/net/unix"); err != nil || !bytes.Contains(table, []byte(name)) {
		p.Fatalf("the host itself does not see it: %v", err)
	}
	if table := p.Must("exec", "web", "cat", "/proc/net/unix", "/proc/1/net/unix"); strings.Contains(table, name) {
		p.Error("a container sees the host's abstract sockets")
	}
	const dial = `socket(S, AF_UNIX, $ARGV[0], 0) or exit 8; connect(S, pack_sockaddr_un("\0" . $ARGV[1])) and exit 0; exit 9`
	for _, kind := range []string{"1", "2", "5"} { // stream, datagram, seqpacket
		if r := p.Exec("web", "perl", "-MSocket", "-e", dial, kind, name); r.Code != 9 {
			p.Errorf("an abstract socket of the host's, kind %s: %s", kind, r)
		}
	}
}

// strangers are other users at the door, and the container's own root.
func strangers(p *place) {
	h := p.own()
	h.Must("up", h.light("web", nil), h.light("db", nil))
	h.Must("link", "web", "8000", "db", "80")
	defer h.Must("unlink", "web-8000-db-80")
	sockets := map[string]string{filepath.Join(h.Runtime, "nuc/web/control"): `{"op":"status"}`}
	links, err := filepath.Glob(filepath.Join(h.Runtime, "nuc/.links/*/control"))
	if err != nil || len(links) != 1 {
		h.Fatalf("%q, %v", links, err)
	}
	sockets[links[0]] = `{"op":"status"}`
	client := h.attack("control")
	for path, request := range sockets {
		var folder, file unix.Stat_t
		if err := errors.Join(unix.Stat(filepath.Dir(path), &folder), unix.Stat(path, &file)); err != nil {
			h.Fatal(err)
		}
		if folder.Mode != unix.S_IFDIR|0o700 || file.Mode != unix.S_IFSOCK|0o600 {
			h.Errorf("%s has mode %o in a folder of mode %o", path, file.Mode, folder.Mode)
		}
		if r := h.Host(client, path, request); !strings.Contains(r.Stdout, "answer of") || strings.Contains(r.Stdout, "answer of 0") {
			h.Errorf("the user's own request is not answered: %s", r)
		}
		// The container's users are others on the host.
		stranger := []string{"unshare", "setpriv", "--reuid=33", "--regid=33", "--clear-groups", client, path, request}
		if r := h.Nuc(stranger...); r.Code != 3 || !strings.Contains(r.Stderr, "Permission denied") {
			h.Errorf("uid 33 of the container's opens %s: %s", path, r)
		}
		// And were the doors open, there is still the one who asks who it is.
		opened := map[string]os.FileMode{path: 0o666}
		for folder := filepath.Dir(path); strings.HasPrefix(folder, h.Runtime); folder = filepath.Dir(folder) {
			opened[folder] = 0o711
		}
		for name, mode := range opened {
			if err := os.Chmod(name, mode); err != nil {
				h.Fatal(err)
			}
		}
		if err := os.Chmod(h.Dir, 0o711); err != nil {
			h.Fatal(err)
		}
		r := h.Host("sh", "-c", `exec 9<"$1"; shift; exec "$@"`, "sh", h.Runtime, client, path, request) // the user's own, as before
		if !strings.Contains(r.Stdout, "answer of") {
			h.Errorf("%s", r)
		}
		asStranger(h, client, path, request)
		for name := range opened {
			mode := os.FileMode(0o700)
			if name == path {
				mode = 0o600
			}
			if err := os.Chmod(name, mode); err != nil {
				h.Fatal(err)
			}
		}
	}
	if got := h.sh("web", `find / -xdev -name control -type s; ls /proc/[0-9]*/root/*/*/nuc 2>/dev/null | head`); got != "" {
		h.Errorf("the container sees %q", got)
	}
}

// asStranger has another user connect, who finds all doors open.
func asStranger(h *place, args ...string) {
	h.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	// The way to the program leads through the user's home.
	program, err := os.Open(args[0])
	if err != nil {
		h.Fatal(err)
	}
	defer program.Close()
	cmd.Path, cmd.ExtraFiles = "/proc/self/fd/3", []*os.File{program}
	out, err := cmd.CombinedOutput()
	if text := string(out); !strings.Contains(text, "connected") || !strings.Contains(text, "answer of 0 bytes") && !strings.Contains(text, "answer of -1 bytes") {
		h.Errorf("uid %d at %s: want it hung up on: %v\n%s", nobody, args[1], err, out)
	}
}

// control speaks to a supervisor.
type control struct {
	p  *place
	fd int
}

func (p *place) control(name string) control {
	p.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		p.Fatal(err)
	}
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(p.Runtime, "nuc", name, "control")})
	}
	if err != nil {
		unix.Close(fd)
		p.Fatal(err)
	}
	return control{p, fd}
}

// ask sends a request with files and returns the answer, with how many files came
// along; "" where the other side has hung up.
func (c control) ask(request []byte, files ...*os.File) (string, int) {
	c.p.Helper()
	defer unix.Close(c.fd)
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(c.fd, request, rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return "", 0
	}
	buf, oob := make([]byte, 64<<10), make([]byte, 4096)
	n, oobn, _, _, err := unix.Recvmsg(c.fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if errors.Is(err, unix.EAGAIN) {
		c.p.Fatalf("no answer to %.200q", request)
	}
	came := 0
	if messages, err := unix.ParseSocketControlMessage(oob[:max(oobn, 0)]); err == nil {
		for i := range messages {
			got, _ := unix.ParseUnixRights(&messages[i])
			for _, fd := range got {
				unix.Close(fd)
				came++
			}
		}
	}
	return string(buf[:max(n, 0)]), came
}

func foreignFiles(p *place) {
	p.Must("up", p.light("sockets", nil))
	st := p.statusOf("sockets")
	open := func(path string, flags int) *os.File {
		p.Helper()
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			p.Fatal(err)
		}
		p.Cleanup(func() { f.Close() })
		return f
	}
	folder, device, file := open("/", os.O_RDONLY), open("/dev/zero", os.O_RDWR), open(p.Write("plain", "x", 0o600), os.O_RDWR)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	defer l.Close()
	listening, err := l.(*net.TCPListener).File()
	if err != nil {
		p.Fatal(err)
	}
	defer listening.Close()
	many := make([]*os.File, 100)
	for i := range many {
		many[i] = device
	}
	request := func(op string, members map[string]any) []byte {
		all := map[string]any{"op": op}
		for k, v := range members {
			all[k] = v
		}
		text, err := json.Marshal(all)
		if err != nil {
			p.Fatal(err)
		}
		return text
	}
	listen := request("listen", map[string]any{"listen": map[string]any{"network": "tcp4", "address": "127.0.0.1", "port": 9999}})
	run := request("exec", map[string]any{"exec": map[string]any{"arguments": []string{"/bin/true"}}})
	memfd, err := unix.MemfdCreate("huge", unix.MFD_CLOEXEC)
	if err != nil {
		p.Fatal(err)
	}
	huge := os.NewFile(uintptr(memfd), "huge")
	defer huge.Close()
	if err := huge.Truncate(1 << 40); err != nil {
		p.Fatal(err)
	}
	files, memory, keeper := p.openFiles(st.Supervisor), p.memory(st.Supervisor, "VmRSS"), p.openFiles(parentOf(p, st.Init))
	for _, try := range []struct {
		what    string
		request []byte
		files   []*os.File
		// want is in the answer; "" means that the other side hangs up, or answers
		// without doing anything.
		want string
	}{
		{"a listener comes along with listen", listen, []*os.File{listening}, "takes no file descriptors"},
		{"files come along with listen", listen, []*os.File{file, folder, device}, "takes no file descriptors"},
		{"a folder as standard input", run, []*os.File{folder, file, file}, "is a folder of the host"},
		{"a device as standard output", run, []*os.File{file, device, file}, "is a device of the host"},
		{"two files for three", run, []*os.File{file, file}, "not understood"},
		{"no files", run, nil, "not understood"},
		{"more files than there is room for", run, many, ""},
		{"a lease of what is no process", request("lease", map[string]any{"lease": map[string]any{"keepSeconds": 0}}), []*os.File{file, listening}, "failed"},
		{"a large message that is a folder", []byte{1}, []*os.File{folder}, ""},
		{"a large message of a terabyte", []byte{1}, []*os.File{huge}, ""},
		{"a large message without a file", []byte{1}, nil, ""},
		{"no JSON", []byte("nonsense"), []*os.File{file}, ""},
		{"nothing", nil, nil, ""},
		{"an unknown request", request("mount", nil), []*os.File{folder}, "not understood"},
		{"a boot", request("boot", map[string]any{"boot": map[string]any{}}), []*os.File{folder}, "not understood"},
		{"another's way to leave", request("leave", nil), nil, "not understood"},
		{"namespaces", request("namespaces", nil), nil, "not understood"},
		{"limits", request("limit", map[string]any{"limit": map[string]any{"rules": []any{}}}), nil, "not understood"},
		{"too many sockets", request("sockets", map[string]any{"sockets": map[string]any{"network": "tcp4", "count": 100000}}), nil, "failed"},
		{"sockets of another kind", request("sockets", map[string]any{"sockets": map[string]any{"network": "netlink", "count": 1}}), nil, "failed"},
		{"a path through /proc", request("dial", map[string]any{"dial": map[string]any{"path": "/proc/1/root/run/systemd/private"}}), nil, "failed"},
	} {
		answer, came := p.control("sockets").ask(try.request, try.files...)
		if came != 0 || !strings.Contains(answer, try.want) || try.want == "" && answer != "" && !strings.Contains(answer, "failed") {
			p.Errorf("%s: %d files, %.300q, want %q", try.what, came, answer, try.want)
		}
	}
	// One that connects and says nothing is not waited for, ever.
	silent := p.control("sockets")
	defer unix.Close(silent.fd)
	p.Must("exec", "sockets", "true")
	harness.Eventually(p, patience, "what came along is closed", func() bool {
		return p.openFiles(st.Supervisor) <= files+2 && p.openFiles(parentOf(p, st.Init)) <= keeper+2
	})
	if now := p.memory(st.Supervisor, "VmRSS"); now > memory+(32<<10) {
		p.Errorf("the supervisor had %d KiB and has %d", memory, now)
	}
	if after := p.statusOf("sockets"); after.Init != st.Init {
		p.Errorf("before %+v, after %+v", st, after)
	}
}

func parentOf(p *place, pid int) int {
	p.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		p.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var parent int
		if _, err := fmt.Sscanf(lines.Text(), "PPid:%d", &parent); err == nil {
			return parent
		}
	}
	p.Fatalf("process %d has no parent", pid)
	return 0
}
