package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// debian is the tree of most rows.
const debian = "trixie"

// floor makes the namespaces and the id map of a container and mounts nothing.
// Without --propagation, unshare(1) would make the host's mounts private.
var floor = []string{
	"--user", "--map-root-user", "--map-auto", "--net", "--mount", "--propagation", "unchanged",
	"--pid", "--ipc", "--uts", "--cgroup", "--fork",
}

// startTrue starts a container that ends at once: everything is set up and
// taken down. What it writes goes to a tmpfs, as a persistent layer is synced to
// its disk at the end (ovl_put_super in the kernel): that would measure the disk
// and what else was written to it.
func startTrue() *row {
	var descriptor, tree string
	own := &subject{Name: "nuc", run: func(s *session) (float64, error) { return s.clock(s.H.Binary(), "start", descriptor) }}
	bwrap := &subject{
		Name:    "bwrap, one id",
		prepare: func(*session) error { return installed("bwrap") },
		run: func(s *session) (float64, error) {
			return s.clock("bwrap", "--unshare-all", "--uid", "0", "--gid", "0", "--ro-bind", tree, "/",
				"--proc", "/proc", "--dev", "/dev", "--tmpfs", "/run", "--tmpfs", "/tmp", "/bin/true")
		},
	}
	podman := &subject{
		Name: "podman",
		prepare: func(s *session) error {
			// It leaves a process behind that keeps its user namespace, until
			// it is told to migrate.
			s.Cleanup(func() { _, _ = s.clock("podman", "system", "migrate") })
			return installed("podman")
		},
		run: func(s *session) (float64, error) {
			return s.clock("podman", "run", "--rm", "--network=none", "--log-driver=none", "--rootfs", tree+":O", "/bin/true")
		},
	}
	return &row{
		Name: "start-true", Unit: "ms", About: "/bin/true as init, everything set up and taken down",
		Subjects: []*subject{
			own,
			{Name: "unshare", run: timed("unshare", append(floor, "/bin/true")...)},
			bwrap,
			bundled("runc", &tree),
			bundled("crun", &tree),
			podman,
		},
		Wanted: []wanted{{AtMost: 1.8, Of: "unshare"}, {AtMost: 0.4, Of: "runc"}},
		runs:   41, warmUps: 3,
		setUp: func(s *session) error {
			tree = s.H.Tree(debian)
			descriptor = s.H.OnTree("bench-true", debian, func(d map[string]any) {
				d["system"] = map[string]any{"init": "/bin/true", "ttyGroup": 5}
				d["root"].(map[string]any)["ephemeral"] = true
				d["network"] = map[string]any{"outbound": false}
			})
			return nil
		},
	}
}

// bundled is a runtime that takes an OCI bundle.
func bundled(runtime string, tree *string) *subject {
	var bundle, state string
	n := 0
	return &subject{
		Name: runtime,
		prepare: func(s *session) error {
			if err := installed(runtime); err != nil {
				return err
			}
			state = filepath.Join(s.H.Runtime, runtime)
			config, err := s.bundle(runtime, *tree)
			bundle = filepath.Dir(config)
			return err
		},
		run: func(s *session) (float64, error) {
			n++
			return s.clock(runtime, "--root", state, "run", "--bundle", bundle, "bench-"+strconv.Itoa(n))
		},
	}
}

// bundle writes what `runtime spec --rootless` gives, with the container's ids
// and tree.
func (s *session) bundle(runtime, tree string) (string, error) {
	dir := filepath.Join(s.H.Dir, runtime)
	if _, err := s.clock("mkdir", dir); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *lap)
	defer cancel()
	cmd, release := s.H.Program(ctx, runtime, "spec", "--rootless")
	defer release()
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("spec: %w: %s", err, text)
	}
	config := filepath.Join(dir, "config.json")
	content, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	var spec map[string]any
	if err := json.Unmarshal(content, &spec); err != nil {
		return "", err
	}
	process, linux := spec["process"].(map[string]any), spec["linux"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/true"}
	spec["root"] = map[string]any{"path": tree, "readonly": true}
	linux["namespaces"] = append(linux["namespaces"].([]any), map[string]any{"type": "network"})
	name, uid, gid := s.H.User()
	for kind, own := range map[string]int{"uid": uid, "gid": gid} {
		first, count, err := subordinate("/etc/sub"+kind, name)
		if err != nil {
			return "", err
		}
		linux[kind+"Mappings"] = []map[string]any{
			{"containerID": 0, "hostID": own, "size": 1},
			{"containerID": 1, "hostID": first, "size": count - 1},
		}
	}
	if content, err = json.MarshalIndent(spec, "", "  "); err != nil {
		return "", err
	}
	return config, os.WriteFile(config, content, 0o644)
}

// subordinate is a user's first range in subuid(5).
func subordinate(path, user string) (first, count int, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(content)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 || f[0] != user {
			continue
		}
		if first, err = strconv.Atoi(f[1]); err != nil {
			return 0, 0, err
		}
		count, err = strconv.Atoi(f[2])
		return first, count, err
	}
	return 0, 0, fmt.Errorf("%s has no range in %s", user, path)
}

// script boots a tree the shortest way there is: unshare(1) and the mounts
// that systemd insists on, in a shell.
const script = `set -e
cd "$1"
mount -t tmpfs -o mode=0755 nuc base
mkdir base/upper base/work base/root
mount -t overlay -o "lowerdir=$2,upperdir=base/upper,workdir=base/work,userxattr" nuc base/root
cd base/root
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755,nosuid,nodev nuc run
mount -t tmpfs -o mode=1777,nosuid,nodev nuc tmp
mount -t tmpfs -o mode=0755,nosuid nuc dev
for device in null zero full random urandom tty console kmsg; do
	: >"dev/$device"
done
for device in null zero full random urandom tty; do
	mount --bind "/dev/$device" "dev/$device"
done
mount --bind /dev/null dev/console
mount --bind /dev/null dev/kmsg
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
ln -s pts/ptmx dev/ptmx
mkdir dev/pts dev/shm dev/mqueue run/host
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev nuc dev/shm
mount -t mqueue -o nosuid,nodev,noexec mqueue dev/mqueue
mount --bind "$1/host" run/host
hostname bench
pivot_root . .
umount -l .
exec env -i container=bench NOTIFY_SOCKET=/run/host/notify PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=xterm-256color \
	chroot / /sbin/init
`

// startSystemd starts a whole system, to the READY=1 of its init. Its root is
// ephemeral, so that every start finds the same.
func startSystemd() *row {
	const name = "bench-systemd"
	var descriptor string
	bare := &bareSystem{}
	return &row{
		Name: "start-systemd", Unit: "ms", About: "Debian's systemd to ready, with PostgreSQL and nginx",
		Subjects: []*subject{
			{Name: "nuc", run: func(s *session) (float64, error) {
				took, err := s.clock(s.H.Binary(), "up", descriptor)
				if err == nil {
					_, err = s.clock(s.H.Binary(), "kill", name)
				}
				return took, err
			}},
			{Name: "unshare script", prepare: bare.prepare, run: bare.run},
		},
		Wanted: []wanted{{AtMost: 1.03, Of: "unshare script"}},
		runs:   15, warmUps: 1,
		setUp: func(s *session) error {
			descriptor = s.H.OnTree(name, debian, func(d map[string]any) {
				d["root"].(map[string]any)["ephemeral"] = true
				d["network"] = map[string]any{"outbound": false}
			})
			return nil
		},
	}
}

// bareSystem runs script.
type bareSystem struct {
	dir, tree string
}

func (b *bareSystem) prepare(s *session) error {
	b.tree = s.H.Tree(debian)
	b.dir = filepath.Join(s.H.Dir, "bare")
	for _, dir := range []string{b.dir, filepath.Join(b.dir, "base"), filepath.Join(b.dir, "host")} {
		if _, err := s.clock("mkdir", dir); err != nil {
			return err
		}
	}
	return nil
}

func (b *bareSystem) run(s *session) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *lap)
	defer cancel()
	socket := filepath.Join(b.dir, "host", "notify")
	_ = os.Remove(socket)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: socket})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_, uid, gid := s.H.User()
	if err := os.Chown(socket, uid, gid); err != nil {
		return 0, err
	}
	_ = conn.SetReadDeadline(time.Now().Add(*lap))
	cmd, release := s.H.Program(ctx, "unshare", append(append([]string{}, floor...), "--kill-child", "--", "sh", "-c", script, "sh", b.dir, b.tree)...)
	defer release()
	said, err := os.CreateTemp("", "nuc-bench-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd.Stderr = said
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		conn.Close() // ends the wait below, should it still go on
	}()
	took, err := awaitReady(conn, began)
	_ = cmd.Process.Kill()
	status := <-ended
	if err != nil {
		return 0, explain(status, said)
	}
	return took, b.settle(s)
}

// settle waits until the system is gone, as it would disturb the next run, and
// removes the cgroups that it leaves.
func (b *bareSystem) settle(s *session) error {
	for deadline := time.Now().Add(10 * time.Second); len(s.H.Processes()) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("still runs after its end")
		}
	}
	var left []string
	_ = filepath.WalkDir(s.H.Cgroup, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != s.H.Cgroup {
			left = append(left, path)
		}
		return nil
	})
	for _, path := range slices.Backward(left) { // deepest first
		_ = os.Remove(path)
	}
	return nil
}

func awaitReady(conn *net.UnixConn, began time.Time) (float64, error) {
	buffer := make([]byte, 4096)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return 0, err
		}
		if bytes.Contains(append([]byte("\n"), buffer[:n]...), []byte("\nREADY=1")) {
			return float64(time.Since(began)) / float64(time.Millisecond), nil
		}
	}
}
