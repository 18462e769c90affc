package hostile

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// replaced has the root of a container put a link in the place of a folder that
// nuc mounts something on, and wants the next start refused.
func (p *place) replaced(folders map[string]string) {
	p.Helper()
	for folder, target := range folders {
		name := "link" + strings.ReplaceAll(folder, "/", "-")
		p.Must("up", p.light(name, nil))
		// The mount is in the way, but its own.
		p.sh(name, `umount -Rl "$1" && mv "$1" "$1.away" && ln -s "$2" "$1"`, folder, target)
		p.Must("kill", name)
		p.refused(p.Nuc("up", name), folder+" in the container's root is a symbolic link", "remove the link")
		p.intact()
		if status := p.Status(name); status != "failed" {
			p.Errorf("after the refusal, %s is %q", name, status)
		}
	}
}

func proc(p *place) {
	p.replaced(map[string]string{"/proc": p.host})
}

func sysAndDev(p *place) {
	p.replaced(map[string]string{
		"/sys": p.host, "/dev": "../../../../../../../.." + p.host, "/run": "/proc/1/root/run", "/tmp": p.host + "/folder",
	})
}

// escapes are links that lead out of a root, for who joins paths as strings.
func escapes(host string) []string {
	return []string{host, strings.Repeat("../", 20) + host[1:], "/srv/../../../.." + host}
}

func targets(p *place) {
	given := p.MakeDir("given")
	p.Write("given/file", "the source", 0o644)
	p.Must("up", p.light("targets", nil))
	var mounts []any
	for i, link := range escapes(p.host) {
		p.sh("targets", `mkdir -p "$3"; ln -s "$1" "/srv/link$2"`, link, fmt.Sprint(i), p.host)
		mounts = append(mounts, bind(given, fmt.Sprintf("/srv/link%d/new/folder", i)))
	}
	mounts = append(mounts, bind(given, "/srv/../../../../../../../.."+p.host+"/dots"))
	p.Must("kill", "targets")
	path := p.light("targets", func(d map[string]any) { d["mounts"] = mounts })
	if r := p.Nuc("up", path); r.Code != 0 {
		// A path with dots may be refused as such; then it goes without.
		p.refused(r, fmt.Sprintf("mounts[%d].target", len(mounts)-1))
		mounts = mounts[:len(mounts)-1]
		p.Must("up", p.light("targets", func(d map[string]any) { d["mounts"] = mounts }))
	}
	for _, inside := range []string{p.host + "/new/folder/file", "/srv/link0/new/folder/file", "/srv/link1/new/folder/file", "/srv/link2/new/folder/file"} {
		if r := p.Exec("targets", "cat", inside); r.Stdout != "the source" {
			p.Errorf("the mount is not in the container, at %s: %s", inside, r)
		}
	}
}

func dangling(p *place) {
	given := p.MakeDir("given")
	p.Must("up", p.light("dangling", nil))
	p.sh("dangling", `ln -s "$1/nothing" /srv/absolute; ln -s "$2$1/nothing" /srv/relative; ln -s loop /srv/loop; ln -s /proc/1/root/x /srv/magic`,
		p.host, strings.Repeat("../", 20))
	p.Must("kill", "dangling")
	for _, target := range []string{"/srv/absolute", "/srv/absolute/below", "/srv/relative/below", "/srv/loop/below", "/srv/magic/below"} {
		for _, mount := range []map[string]any{bind(given, target), {"kind": "tmpfs", "target": target}, bind(p.Write("file", "", 0o600), target)} {
			p.refused(p.Nuc("up", p.light("dangling", func(d map[string]any) { d["mounts"] = []any{mount} })), "mounts[0]", target, "link")
			p.intact()
		}
	}
}

// swapped has one container swap folders and links in what it shares with
// another, while that one starts.
func swapped(p *place) {
	common, given := p.MakeDir("common"), p.MakeDir("given")
	for _, name := range []string{"a", "c"} {
		p.MakeDir("common/" + name)
	}
	for name, target := range map[string]string{"b": p.host, "d": strings.Repeat("../", 20) + p.host[1:]} {
		if err := os.Symlink(target, filepath.Join(common, name)); err != nil {
			p.Fatal(err)
		}
	}
	share := func(more ...any) func(d map[string]any) {
		return func(d map[string]any) { d["mounts"] = append([]any{bind(common, "/common")}, more...) }
	}
	p.Must("up", p.light("swapper", share()))
	p.install("swapper", "swap")
	racers := []*harness.Process{
		p.Start("exec", "swapper", "/root/swap", "/common/a", "/common/b"), p.Start("exec", "swapper", "/root/swap", "/common/c", "/common/d"),
	}
	for _, r := range racers {
		r.WaitOutput("swapping", patience)
	}
	path := p.light("victim", share(
		bind(given, "/common/a/folder"), bind(given, "/common/c/deep/folder"),
		map[string]any{"kind": "tmpfs", "target": "/common/a/tmpfs"}, bind(p.Write("file", "", 0o600), "/common/c/file"),
	))
	starts := 0
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); starts++ {
		r := p.Nuc("up", path)
		if r.Code != 0 {
			// Refused, as a link led nowhere at the moment.
			p.refused(r, "mounts[")
		} else if r := p.Exec("victim", "test", "-e", p.host+"/file"); r.Code != 1 {
			p.Errorf("start %d shows the host's folder inside: %s", starts, r)
		}
		p.intact()
		if p.Failed() {
			return
		}
		p.Nuc("kill", "victim")
	}
	if starts < 5 {
		p.Errorf("only %d starts in ten seconds", starts)
	}
	for _, r := range racers {
		if !r.Running() {
			p.Errorf("the race was over: %s", r.Output())
		}
	}
}

func fakeNull(p *place) {
	// Inside: what exec hands over and what a start masks is the host's.
	p.Must("up", p.light("null", nil))
	p.sh("null", `umount /dev/null /dev/kmsg; rm -f /dev/null /dev/kmsg; ln -s "$1/file" /dev/null; echo fake >/dev/kmsg`, p.host)
	p.Must("exec", "null", "true")
	p.Must("kill", "null")
	p.Must("up", "null")
	if got := p.Must("exec", "null", "stat", "-c", "%t:%T", "/dev/null", "/dev/kmsg"); got != "1:3\n1:3" {
		p.Errorf("at the next start, /dev/null and /dev/kmsg are %q", got)
	}
	// On the host: a file that only bears the name.
	h := p.own(harness.WithOutside())
	h.Outside.Bind(h.Write("fake", "", 0o666), "/dev/null", 0)
	h.refused(h.Nuc("up", h.light("fake", nil)), "/dev/null is no device node")
	h.Outside.Bind("/dev/zero", "/dev/null", 0)
	h.refused(h.Nuc("up", h.light("fake", nil)), "/dev/null is device 1:5, expected 1:3")
	h.intact()
	h.NothingLeft()
}

func console(p *place) {
	const traps = `cp /etc/passwd /root/passwd
ln -sf /root/passwd /dev/fake
umount /dev/console && rm /dev/console && ln -s /root/passwd /dev/console
rm /dev/ptmx && ln -s /root/passwd /dev/ptmx
umount -l /dev/pts && mkdir -p /dev/pts && for i in ptmx 0 1 2 3; do ln -s /root/passwd /dev/pts/$i; done`
	p.Must("up", p.light("console", nil))
	p.sh("console", traps)
	run, _ := p.StartTerminal(24, 80, "exec", "-t", "console", "sh", "-c", "test -t 0 && test -t 1 && echo a terminal; stty size")
	if r := run.Wait(patience); r.Code != 0 || !strings.Contains(r.Stdout, "a terminal") || !strings.Contains(r.Stdout, "24 80") {
		p.Errorf("exec with a terminal beside a replaced one: %s", r)
	}
	p.sh("console", "cmp /etc/passwd /root/passwd")
	p.Must("kill", "console")
	// And in the root, below what is mounted.
	p.Must("up", "console")
	p.sh("console", `umount -Rl /dev && ln -s "$1/file" /dev/console && ln -s "$1" /dev/pts && ln -s "$1/file" /dev/ptmx`, p.host)
	p.Must("kill", "console")
	p.Must("up", "console")
	if got := p.Must("exec", "console", "stat", "-c", "%F", "/dev/console", "/dev/pts"); got != "character special file\ndirectory" {
		p.Errorf("/dev/console and /dev/pts are %q", got)
	}
}

// fakeProc lays file systems over those files of /proc that other launchers
// write to when they join a container.
func fakeProc(p *place) {
	before := p.kernel()
	p.Must("up", p.light("procfs", nil))
	for _, over := range []string{"/proc/1/attr", "/proc/sys", "/proc"} {
		p.sh("procfs", `mount -t tmpfs fake "$1"`, over)
		p.sh("procfs", `cd "$1"
for f in exec current keycreate sockcreate fscreate kernel/core_pattern kernel/ns_last_pid self/attr/exec self/uid_map \
	self/setgroups self/oom_score_adj self/fd/0 self/comm thread-self/attr/exec 1/root/x sysrq-trigger; do
	mkdir -p "$(dirname "$f")"; ln -sf /root/written "$f" 2>/dev/null || echo untouched >"$f"
done; echo untouched >/root/written; find . -exec touch -hd @1 {} +; touch -d @1 /root/written`, over)
		for _, args := range [][]string{{"-u", "www-data"}, {"-w", "/srv"}, {}} {
			if r := p.Nuc(append(append([]string{"exec"}, args...), "procfs", "true")...); r.Code != 0 && !strings.Contains(r.Stderr, "procfs") {
				p.Errorf("with a tmpfs over %s: %s", over, r)
			}
		}
		run, _ := p.StartTerminal(24, 80, "exec", "-t", "procfs", "/bin/true")
		run.Wait(patience)
		if got := p.sh("procfs", `find "$1" /root/written -newermt @1; cat /root/written`, over); got != "untouched" {
			p.Errorf("joining wrote to a %s that is not of procfs: %q", over, got)
		}
	}
	if after := p.kernel(); after != before {
		p.Errorf("settings of the host's kernel were %q and are %q", before, after)
	}
}

// kernel reads settings of the host's that such attacks have been after.
func (p *place) kernel() string {
	p.Helper()
	var b strings.Builder
	for _, name := range []string{"core_pattern", "modprobe", "sysrq", "poweroff_cmd"} {
		content, err := os.ReadFile("/proc/sys/kernel/" + name)
		if err != nil && !os.IsNotExist(err) {
			p.Fatal(err)
		}
		fmt.Fprintf(&b, "%s=%s", name, content)
	}
	return b.String()
}

func sources(p *place) {
	fifo, sock := filepath.Join(p.Dir, "fifo"), filepath.Join(p.Dir, "socket")
	if err := unix.Mkfifo(fifo, 0o666); err != nil {
		p.Fatal(err)
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		p.Fatal(err)
	}
	defer l.Close()
	loop := filepath.Join(p.Dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		p.Fatal(err)
	}
	for i, source := range []struct{ path, why string }{
		{filepath.Join(p.Dir, "missing"), "no such file"},
		{fifo, "fifo"},
		{sock, "socket"},
		{"/dev/zero", "devices"},
		{loop, "symbolic links"},
		{p.Write("plain", "", 0o600) + "/below", "not a directory"},
	} {
		r := p.Nuc("up", p.light(fmt.Sprintf("source%d", i), func(d map[string]any) { d["mounts"] = []any{bind(source.path, "/mnt")} }))
		p.refused(r, "mounts[0]", source.path, source.why)
	}
}

// locked: neither what the descriptor makes read-only nor what the host's mount
// says can be undone.
func locked(p *place) {
	h := p.own(harness.WithOutside())
	readOnly, flagged := h.MakeDir("ro"), h.MakeDir("flagged")
	for _, file := range []string{"ro/file", "flagged/file"} {
		h.Write(file, secret, 0o644)
	}
	h.Outside.Bind(flagged, flagged, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)
	h.Must("up", h.light("locked", func(d map[string]any) {
		ro := bind(readOnly, "/mnt/ro")
		ro["readOnly"] = true
		d["mounts"] = []any{ro, bind(flagged, "/mnt/flagged")}
	}))
	mounts := func() string {
		return h.sh("locked", `awk '$5 ~ "^(/mnt/|/run/host)" { print $5, $6 }' /proc/self/mountinfo`)
	}
	before := mounts()
	for _, attempt := range []string{
		"mount -o remount,rw,bind $M", "mount -o remount,rw $M", "mount -o remount,bind,suid,dev,exec $M",
		"mount --make-shared $M; mount -o remount,rw,bind $M",
		"mkdir -p /tmp/b && mount --bind $M /tmp/b && mount -o remount,rw,bind /tmp/b",
		"mkdir -p /tmp/r && mount --rbind $M /tmp/r && mount -o remount,rw,bind /tmp/r",
		"unshare -m sh -c 'mount -o remount,rw,bind $M'",
		"unshare -Urm sh -c 'mount -o remount,rw,bind $M'",
		"unshare -Urm --propagation=unchanged sh -c 'umount $M; mount -o remount,rw,bind $M'",
		"mkdir -p /tmp/u /tmp/w /tmp/o && mount -t overlay -o lowerdir=$M,upperdir=$M,workdir=/tmp/w o /tmp/o",
	} {
		for _, mount := range []string{"/mnt/ro", "/mnt/flagged", "/run/host"} {
			r := h.Nuc("exec", "-e", "M="+mount, "locked", "sh", "-c", attempt+`
for d in $M /tmp/b /tmp/r /tmp/o; do rm -f $d/file $d/container-manager && echo written >$d/file; done`)
			if got, err := os.ReadFile(filepath.Join(h.Dir, filepath.Base(mount), "file")); mount != "/run/host" && (err != nil || string(got) != secret) {
				h.Fatalf("%s wrote to %s: %q, %v\n%s", attempt, mount, got, err, r)
			}
			if got := h.Must("exec", "locked", "cat", "/run/host/container-manager"); got != "nuc" {
				h.Fatalf("%s wrote to /run/host: %q\n%s", attempt, got, r)
			}
			h.Exec("locked", "sh", "-c", "umount -l /tmp/b /tmp/r /tmp/o")
		}
	}
	if after := mounts(); after != before {
		h.Errorf("the mounts were\n%s\nand are\n%s", before, after)
	}
	h.intact()
	p.hostSys()
}

// hostSys: with the host's network, /sys is the host's, and cgroups below it are
// the user's own.
func (p *place) hostSys() {
	p.Helper()
	if p.Cgroup == "" {
		return
	}
	p.Must("up", p.light("sys", func(d map[string]any) { d["network"] = map[string]any{"mode": "host"} }))
	p.Exec("sys", "sh", "-c", `umount -Rl /sys/fs/cgroup
for m in $(awk '$5 ~ "^/sys" { print $5 }' /proc/self/mountinfo); do mount -o remount,bind,rw $m; mount -o remount,rw $m; done
mkdir -p /tmp/s && mount --rbind /sys /tmp/s && for m in $(awk '$5 ~ "^/tmp/s" { print $5 }' /proc/self/mountinfo); do mount -o remount,bind,rw $m; done
mkdir "$1/escaped" "/tmp/s/${1#/sys/}/escaped"; echo 1 >"$1/cgroup.max.depth"`, "sh", p.Cgroup)
	if _, err := os.Stat(filepath.Join(p.Cgroup, "escaped")); err == nil {
		p.Error("root of a container with the host's network makes cgroups of the host's")
		_ = os.Remove(filepath.Join(p.Cgroup, "escaped"))
	}
	if depth, err := os.ReadFile(filepath.Join(p.Cgroup, "cgroup.max.depth")); err == nil && strings.TrimSpace(string(depth)) == "1" {
		p.Error("root of a container with the host's network changes cgroups of the host's")
		_ = os.WriteFile(filepath.Join(p.Cgroup, "cgroup.max.depth"), []byte("max"), 0)
	}
}

func insideOnly(p *place) {
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		p.Fatal(err)
	}
	p.sh("web", `mkdir -p /shared/mine && mount --make-rshared / && mount -t tmpfs mine /shared/mine && echo x >/shared/mine/hidden && test -e /shared/mine/hidden`)
	defer p.sh("web", "umount /shared/mine && mount --make-rprivate /")
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		p.Fatal(err)
	}
	for line := range strings.Lines(string(after)) {
		if strings.Contains(line, p.Dir) && !strings.Contains(string(before), line) {
			p.Errorf("the host has got the mount %s", line)
		}
	}
	entries, err := os.ReadDir(filepath.Join(p.Dir, "shared/mine"))
	if err != nil || len(entries) != 0 {
		p.Errorf("the host sees %v, %v in the folder that a tmpfs inside is on", entries, err)
	}
}
