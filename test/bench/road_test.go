package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// road is how a client on the host reaches a service in a namespace.
type road struct {
	name string
	own  bool // nuc in another way than the first
	// open prepares it. It sets inside and roots, and has the host's port lead to
	// the service's.
	open func(s *session, r *road) error

	port    int // on the host
	service int // the service's, in the namespace
	inside  int // a process in the namespace, 0 for the host
	server  int // the service's process
	// roots are the processes that relay; their descendants do, too.
	roots []int
}

// direct is the subject that has nothing in between: the limit.
const direct = "direct"

// roads are those of a row. Each subject has its own.
func roads() []*road {
	return []*road{
		{name: "nuc", open: portRoad},
		{name: "nuc link", own: true, open: linkRoad},
		{name: direct, open: func(_ *session, r *road) error { r.service = r.port; return nil }},
		{name: "two socats", open: socatRoad},
		{name: "pasta", open: pastaRoad},
		{name: "slirp4netns", open: slirpRoad},
		{name: "socket-proxyd", open: proxydRoad},
		{name: "rootlesskit", open: rootlesskitRoad},
	}
}

// begin opens the road and has the service listen at its end.
func (r *road) begin(s *session, service func(port int) []string) error {
	// Wherever the service is, nobody else has this port.
	r.port, r.service = harness.FreePort(s), harness.FreePort(s)
	if err := r.open(s, r); err != nil {
		return err
	}
	command := service(r.service)
	if r.inside != 0 {
		command = append(within(r.inside), command...)
	}
	if len(command) > 0 {
		pid, err := s.keep(nil, command...)
		if err != nil {
			return err
		}
		r.server = pid
	}
	return r.ready()
}

// ready waits for the service.
func (r *road) ready() error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var c net.Conn
		if c, err = net.DialTimeout("tcp4", fmt.Sprintf("127.0.0.1:%d", r.port), time.Second); err != nil {
			continue
		}
		// A relay may listen before the service does: then this connection ends.
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err = c.Read(make([]byte, 1))
		c.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
	}
	return fmt.Errorf("nothing answers: %w", err)
}

// within runs a command in the network namespace of a process of the user's.
func within(pid int) []string {
	return []string{"nsenter", "-t", strconv.Itoa(pid), "-U", "--preserve-credentials", "-n", "--"}
}

// keep runs a program of the test's user until the row ends. What it said is
// part of the error where it ended at once.
func (s *session) keep(files []*os.File, command ...string) (pid int, err error) {
	if err := installed(command[0]); err != nil {
		return 0, err
	}
	cmd, release := s.H.Program(context.Background(), command[0], command[1:]...)
	defer release()
	said, err := os.CreateTemp("", "nuc-bench-*")
	if err != nil {
		return 0, err
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = said, said, files
	// A session of its own, as nuc's supervisor and the services of a container
	// have: on a busy machine the scheduler shares out by session (autogroup,
	// sched(7)).
	cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setpgid = true, false
	if err := s.H.Launch(cmd); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.Cleanup(func() {
		for _, pid := range family(cmd.Process.Pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-ended
		said.Close()
		os.Remove(said.Name())
	})
	select {
	case err := <-ended:
		ended <- err
		return 0, explain(fmt.Errorf("%s ended: %w", filepath.Base(command[0]), err), said)
	case <-time.After(300 * time.Millisecond):
		return cmd.Process.Pid, nil
	}
}

// namespace makes a network namespace with loopback and returns a process in it.
func (s *session) namespace() (int, error) {
	return s.keep(nil, "unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c", "ip link set lo up && exec sleep infinity")
}

// portRoad is a port of the container's, which its supervisor relays.
func portRoad(s *session, r *road) error {
	return sleeping(s, r, "bench-port", map[string]any{"host": r.port, "container": r.service, "protocol": "tcp"})
}

// linkRoad is `nuc link`, whose process does nothing else.
func linkRoad(s *session, r *road) error {
	const name = "bench-link"
	if err := sleeping(s, r, name); err != nil {
		return err
	}
	s.Cleanup(func() { s.H.Nuc("unlink", "--all") })
	s.H.Must("link", "--ipv4", "-", strconv.Itoa(r.port), name, strconv.Itoa(r.service))
	var links []struct{ PID int }
	if err := json.Unmarshal([]byte(s.H.Must("links", "--json")), &links); err != nil {
		return err
	}
	if len(links) != 1 || links[0].PID == 0 {
		return fmt.Errorf("nuc links tells no process: %+v", links)
	}
	r.roots = []int{links[0].PID}
	return nil
}

// sleeping brings up a container in which nothing runs.
func sleeping(s *session, r *road, name string, ports ...any) error {
	s.H.Up(name, debian, func(d map[string]any) {
		d["root"].(map[string]any)["ephemeral"] = true
		d["system"] = map[string]any{"init": "/bin/sleep", "arguments": []string{"infinity"}, "ttyGroup": 5}
		d["ready"] = map[string]any{"notify": false}
		// Without the way out, which is a process of its own.
		d["network"] = map[string]any{"outbound": false, "ports": append([]any{}, ports...)}
	})
	roles := s.H.Roles(s.containers...)
	s.containers = append(s.containers, roles)
	r.inside, r.roots = roles.Init, []int{roles.Supervisor}
	return nil
}

// socatRoad is what nuc's ancestor did: one at each end of a Unix socket, and a
// process each for a connection.
func socatRoad(s *session, r *road) error {
	inside, err := s.namespace()
	if err != nil {
		return err
	}
	socket := filepath.Join(s.H.Dir, "socat")
	far, err := s.keep(nil, append(within(inside), "socat", "UNIX-LISTEN:"+socket+",fork,backlog=4096", fmt.Sprintf("TCP4:127.0.0.1:%d", r.service))...)
	if err != nil {
		return err
	}
	near, err := s.keep(nil, "socat", fmt.Sprintf("TCP4-LISTEN:%d,bind=127.0.0.1,reuseaddr,fork,backlog=4096", r.port), "UNIX-CONNECT:"+socket)
	r.inside, r.roots = inside, []int{near, far}
	return err
}

func pastaRoad(s *session, r *road) error {
	pid, err := s.keep(nil, "pasta", "--foreground", "--config-net", "-t", fmt.Sprintf("127.0.0.1/%d:%d", r.port, r.service),
		"-T", "none", "-u", "none", "-U", "none", "--", "sleep", "infinity")
	if err != nil {
		return err
	}
	r.roots = []int{pid}
	r.inside, err = descendant(pid, "sleep")
	return err
}

func slirpRoad(s *session, r *road) error {
	inside, err := s.namespace()
	if err != nil {
		return err
	}
	api := filepath.Join(s.H.Dir, "slirp")
	pid, err := s.keep(nil, "slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--api-socket", api,
		"--userns-path", fmt.Sprintf("/proc/%d/ns/user", inside), "--netns-type=path", fmt.Sprintf("/proc/%d/ns/net", inside), "tap0")
	if err != nil {
		return err
	}
	r.inside, r.roots = inside, []int{pid}
	c, err := net.DialTimeout("unix", api, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, err = fmt.Fprintf(c, `{"execute":"add_hostfwd","arguments":{"proto":"tcp","host_addr":"127.0.0.1","host_port":%d,"guest_port":%d}}`, r.port, r.service)
	if err != nil {
		return err
	}
	_ = c.(*net.UnixConn).CloseWrite()
	answer := make([]byte, 1024)
	n, err := c.Read(answer)
	if err == nil && !strings.Contains(string(answer[:n]), "return") {
		err = errors.New(string(answer[:n]))
	}
	return err
}

// proxydRoad has it run in the namespace, with a listener of the host's.
func proxydRoad(s *session, r *road) error {
	inside, err := s.namespace()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		return err
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer file.Close()
	const program = "/lib/systemd/systemd-socket-proxyd"
	if err := installed(program); err != nil {
		return err
	}
	pid, err := s.keep([]*os.File{file}, append(append([]string{"sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh"}, within(inside)...),
		program, "--connections-max=20000", fmt.Sprintf("127.0.0.1:%d", r.service))...)
	r.inside, r.roots = inside, []int{pid}
	return err
}

func rootlesskitRoad(s *session, r *road) error {
	pid, err := s.keep(nil, "rootlesskit", "--net=slirp4netns", "--disable-host-loopback", "--port-driver=builtin",
		"-p", fmt.Sprintf("127.0.0.1:%d:%d/tcp", r.port, r.service), "--state-dir", filepath.Join(s.H.Dir, "rootlesskit"), "sleep", "infinity")
	if err != nil {
		return err
	}
	r.roots = []int{pid}
	r.inside, err = descendant(pid, "sleep")
	return err
}

// descendant waits for a process below another to run a program.
func descendant(pid int, program string) (int, error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		for _, one := range family(pid) {
			if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", one)); err == nil && strings.TrimSpace(string(comm)) == program {
				return one, nil
			}
		}
	}
	return 0, fmt.Errorf("%s did not start", program)
}

// family is a process and all below it.
func family(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, file := range files {
			content, _ := os.ReadFile(file)
			for _, word := range strings.Fields(string(content)) {
				if child, err := strconv.Atoi(word); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}

// processorTime is what the relay used, in seconds: its processes, and those that
// ended below them. The keeper's part of nuc's is that of a child.
func (r *road) processorTime() (float64, error) {
	sum := 0.0
	for _, root := range r.roots {
		for _, pid := range family(root) {
			content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil {
				if pid == root {
					return 0, err
				}
				continue
			}
			// utime, stime, cutime, cstime (proc_pid_stat(5)); the name before may
			// hold spaces.
			fields := strings.Fields(string(content[strings.LastIndexByte(string(content), ')')+1:]))
			for _, ticks := range fields[11:15] {
				n, err := strconv.ParseFloat(ticks, 64)
				if err != nil {
					return 0, err
				}
				sum += n / 100 // USER_HZ
			}
		}
	}
	return sum, nil
}

// memory is the relay's, in MiB (PSS).
func (r *road) memory() (float64, error) {
	sum := 0.0
	for _, root := range r.roots {
		for _, pid := range family(root) {
			one, err := pss(pid)
			if err != nil && pid == root {
				return 0, err
			}
			sum += one
		}
	}
	return sum, nil
}

// client runs a program of the test's user to its end and returns what it
// printed.
func (s *session) client(environment string, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *lap)
	defer cancel()
	cmd, release := s.H.Program(ctx, command[0], command[1:]...)
	defer release()
	if environment != "" {
		cmd.Env = append(cmd.Env, environment)
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := s.H.Launch(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%s %s: %w", strings.TrimSpace(stderr.String()), shorten(strings.TrimSpace(stdout.String()), 160), err)
		}
		return "", err
	}
	return stdout.String(), nil
}
