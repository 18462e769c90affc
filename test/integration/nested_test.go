package integration

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// developer is the user of the nested tree, with ids of the container's for its
// own containers and a systemd of its own. Overlays don't go over the container's
// own overlay, so the images are in plain folders.
const developer = `set -e
	useradd -m -s /bin/sh -u 1000 dev
	echo dev:10000:50000 >/etc/subuid
	cp /etc/subuid /etc/subgid
	mkdir -p /etc/containers
	printf '[storage]\ndriver = "vfs"\n' >/etc/containers/storage.conf
	loginctl enable-linger dev`

// TestPodmanInside has a user of the container build and run containers.
func TestPodmanInside(t *testing.T) {
	h := harness.New(t)
	h.Up("web", "nested", func(d map[string]any) {
		ephemeral(d)
		d["devices"] = []string{"/dev/net/tun"}
		d["mounts"] = []any{map[string]any{"source": h.Folder("images"), "target": "/srv/images"}}
	})
	h.Must("exec", "web", "sh", "-c", developer+"; chown dev:dev /srv/images")
	harness.Eventually(h, patience, "the user's systemd runs", func() bool {
		return h.Exec("web", "systemctl", "is-active", "user@1000.service").Code == 0
	})
	dev := func(command string) harness.Result {
		return h.Nuc("exec", "-u", "dev", "-e", "XDG_RUNTIME_DIR=/run/user/1000", "web", "sh", "-c", command)
	}
	// Podman limits the tasks of what it runs, for which not each host has a
	// controller to delegate.
	const run = "podman run --rm --pids-limit 0 "
	type step struct{ name, command, want string }
	steps := []step{
		{
			"import", `set -e
			mkdir -p root/bin root/tmp
			cp /bin/busybox root/bin
			for name in cat grep id sh sleep wget; do ln -s busybox root/bin/$name; done
			tar -C root -cf - . | podman import -q - small >import && grep -c ^sha256: import`, "1\n",
		},
		{"ids", run + "--network none small sh -c 'id; cat /proc/self/uid_map' | tr -s ' '", "uid=0 gid=0\n 0 1000 1\n 1 10000 50000\n"},
		{"another user", run + "--network none --user 33:33 small id", "uid=33 gid=33 groups=33\n"},
		{"podman's filter beside the container's", run + "--network none small grep Seccomp_filters: /proc/self/status", "Seccomp_filters:\t2\n"},
		{"a folder", run + "--network none --rootfs $PWD/root id", "uid=0 gid=0\n"},
		{
			"a network", "mkdir www && echo page >www/index.html && busybox httpd -p 8000 -h www && " +
				run + "small wget -q -O - http://host.containers.internal:8000/", "page\n",
		},
		{
			"build", `printf 'FROM small\nRUN echo built >/tmp/file\nCMD ["cat", "/tmp/file"]\n' >Containerfile
			podman build -q --network none -t built . >/dev/null && ` + run + "built", "built\n",
		},
		{
			"exec", `set -e
			podman run -d --name long --pids-limit 0 --network none small sleep 1000 >/dev/null
			podman exec long sh -c 'cat /proc/1/cmdline' | tr '\0' ' '
			podman rm -f -t 0 long >/dev/null`, "sleep 1000 ",
		},
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(h.Dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type != unix.OVERLAYFS_SUPER_MAGIC { // there, overlays don't go either
		steps = append(steps, step{
			"images in a folder of the host", `set -e
			podman="podman --root /srv/images --storage-driver overlay"
			tar -C root -cf - . | $podman import -q - small >/dev/null
			$podman run --rm --pids-limit 0 --network none small grep -o '^overlay / overlay' /proc/mounts
			$podman rmi -a -f >/dev/null`, "overlay / overlay\n",
		})
	}
	for _, step := range steps {
		if r := dev(step.command); r.Code != 0 || r.Stdout != step.want {
			h.Fatalf("%s: want %q\n%s", step.name, step.want, r)
		}
	}
}

// TestDebuggersInside has strace and gdb work on what runs in the container.
func TestDebuggersInside(t *testing.T) {
	h := harness.New(t)
	h.Up("web", "nested", ephemeral)
	h.Must("exec", "web", "sh", "-c", developer)
	for _, user := range []string{"root", "dev"} {
		exec := func(command string) harness.Result {
			return h.Nuc("exec", "-u", user, "web", "sh", "-c", command)
		}
		// An injected result is a call that strace takes back.
		r := exec("cd; touch kept; strace -f -o trace -e trace=unlinkat,execve -e inject=unlinkat:retval=0 sh -c 'rm kept' && ls kept && cat trace")
		if r.Code != 0 || !strings.HasPrefix(r.Stdout, "kept\n") || !strings.Contains(r.Stdout, "(INJECTED)") || strings.Count(r.Stdout, "execve(") < 2 {
			h.Errorf("%s: strace: %s", user, r)
		}
		r = exec(`gdb --batch -ex starti -ex 'set $first = $pc' -ex stepi -ex 'print $pc != $first' -ex continue /bin/true 2>&1`)
		if r.Code != 0 || !strings.Contains(r.Stdout, "$1 = 1\n") || !strings.Contains(r.Stdout, "exited normally") || strings.Contains(r.Stdout, "randomization") {
			h.Errorf("%s: gdb: %s", user, r)
		}
	}
	// Attaching asks for rights that the host may leave to root only (yama).
	r := h.Exec("web", "sh", "-c", `sleep 1000 & gdb --batch -p $! -ex 'print $pc' -ex detach 2>&1; kill $!`)
	if r.Code != 0 || !strings.Contains(r.Stdout, "detached") {
		h.Errorf("gdb -p: %s", r)
	}
}
