package hostile

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// status is what `nuc status --json` says.
type status struct {
	State      string `json:"state"`
	Supervisor int    `json:"supervisorPid"`
	Init       int    `json:"initPid"`
	Doing      string `json:"doing"`
	Ports      []struct {
		Address string `json:"address"`
		Host    int    `json:"host"`
	} `json:"ports"`
}

func (p *place) statusOf(name string) status {
	p.Helper()
	var st status
	r := p.Nuc("status", "--json", name)
	if err := json.Unmarshal([]byte(r.Stdout), &st); err != nil {
		p.Fatalf("%v\n%s", err, r)
	}
	return st
}

// joins has commands join a container while an attack looks on, and returns what
// that has to say.
func (p *place) joins(name, attack string, commands ...[]string) string {
	p.Helper()
	const seconds = 6
	looking := p.Start("exec", name, "/root/"+attack, strconv.Itoa(seconds))
	looking.WaitOutput("looking", patience)
	joined := 0
	for looking.Running() {
		for _, command := range commands {
			p.Nuc(append([]string{"exec"}, command...)...)
			joined++
		}
	}
	if joined < 10 {
		p.Errorf("only %d commands joined", joined)
	}
	return looking.Wait(patience).Stdout
}

func overwrite(p *place) {
	p.Must("up", p.light("overwritten", nil))
	p.install("overwritten", "overwrite")
	// What has the interpreter /proc/self/exe runs the program that executes it.
	if r := p.NucInput("#!/proc/self/exe nuc-keeper\n", "exec", "overwritten", "sh", "-c", "cat >/root/again; chmod 755 /root/again; ln -sf /proc/self/exe /root/linked"); r.Code != 0 {
		p.Fatalf("%s", r)
	}
	said := p.joins("overwritten", "overwrite", []string{"overwritten", "/root/again"}, []string{"overwritten", "/bin/true"}, []string{"overwritten", "/root/linked"})
	var closed, opened, written int
	if _, err := fmt.Sscanf(said[strings.Index(said, "closed"):], "closed %d opened %d written %d", &closed, &opened, &written); err != nil {
		p.Fatalf("%v: %q", err, said)
	}
	if written != 0 {
		p.Errorf("nuc's program was written to %d times", written)
	}
	if closed == 0 || opened == 0 {
		p.Errorf("what joins was met %d times, and nuc as an interpreter %d times: nothing was tried", closed, opened)
	}
}

func workingFolder(p *place) {
	p.sh("web", `for i in {0..20}; do ln -sfn /proc/self/fd/$i /srv/fd$i; done; ln -sfn /proc/self/cwd /srv/cwd`)
	for i := range 21 {
		for _, folder := range []string{fmt.Sprintf("/proc/self/fd/%d", i), fmt.Sprintf("/srv/fd%d", i), fmt.Sprintf("/proc/thread-self/fd/%d/../..", i)} {
			r := p.Nuc("exec", "-w", folder, "web", "pwd", "-P")
			if r.Code != 125 || !strings.Contains(r.Stderr, folder) || strings.Count(r.Stderr, "\n") != 1 {
				p.Errorf("working directory %s: %s", folder, r)
			}
		}
	}
	for _, folder := range []string{"/proc/self/root", "/proc/self/cwd", "/srv/cwd", "/proc/1/cwd", "/proc/self/task/1/root"} {
		if r := p.Nuc("exec", "-w", folder, "web", "pwd", "-P"); r.Code != 125 || !strings.Contains(r.Stderr, folder) {
			p.Errorf("working directory %s: %s", folder, r)
		}
	}
	for _, program := range []string{"/proc/self/exe", "/proc/self/fd/3", "/proc/self/root/bin/true"} {
		if r := p.Exec("web", program); r.Code != 126 && r.Code != 127 || !strings.Contains(r.Stderr, program) {
			p.Errorf("program %s: %s", program, r)
		}
	}
	// The user's home is the container's word, too.
	p.sh("web", `useradd -o -u 4711 -d /proc/self/fd/5 -s /bin/sh lost`)
	if r := p.Nuc("exec", "-u", "lost", "web", "pwd", "-P"); r.Stdout != "/\n" {
		p.Errorf("a home below /proc: %s", r)
	}
}

func openFiles(p *place) {
	marker := p.Write("marker", secret, 0o600)
	caller := func(args ...string) harness.Result {
		const script = `for i in {10..59}; do eval "exec $i<>$0"; done; exec 60</ 61</tmp 62<. ; exec "$@"`
		return p.Host("bash", append([]string{"-c", script, marker, p.Binary()}, args...)...)
	}
	if r := caller("up", p.light("files", nil)); r.Code != 0 {
		p.Fatalf("%s", r)
	}
	if got := p.sh("files", "ls /proc/1/fd | xargs"); got != "0 1 2" {
		p.Errorf("init has open %s", got)
	}
	// ls has the folder that it lists open.
	if r := caller("exec", "files", "ls", "-1", "/proc/self/fd"); r.Stdout != "0\n1\n2\n3\n" {
		p.Errorf("a command has open: %s", r)
	}
	if got := p.sh("files", `readlink /proc/[0-9]*/fd/* | grep -F "$1" || echo none`, marker); got != "none" {
		p.Errorf("processes have open %s", got)
	}
	for _, folder := range []string{"/", p.Dir} {
		// A folder leads to the host's whole file system, so it is not handed over.
		r := p.Host("bash", "-c", `exec "$0" exec files sh -c 'ls -l /proc/self/fd/; ls /proc/self/fd/0/..' <"$1"`, p.Binary(), folder)
		if strings.Contains(r.Stdout, "0 -> /") || strings.Contains(r.Stdout, filepath.Base(p.Dir)) {
			p.Errorf("a folder of the host's is the standard input: %s", r)
		}
	}
}

func peek(p *place) {
	p.Must("up", p.light("peeked", nil))
	p.install("peeked", "peek")
	said := p.joins("peeked", "peek", []string{"-e", "PASSWORD=" + secret, "peeked", "/bin/true"}, []string{"-u", "www-data", "peeked", "/bin/true"})
	if strings.Contains(said, "leak: ") {
		p.Errorf("a process of nuc's was open: %.1000s", said)
	}
	var closed, seized, leaks int
	if _, err := fmt.Sscanf(said[strings.LastIndex(said, "closed"):], "closed %d seized %d leaks %d", &closed, &seized, &leaks); err != nil {
		p.Fatalf("%v: %q", err, said)
	}
	if closed == 0 {
		p.Error("no process was met before it had executed its program: nothing was tried")
	}
}

// environment: container web was started with a secret in the environment.
func environment(p *place) {
	p.Setenv("SECRET", secret)
	for _, script := range []string{
		`cat /proc/1/environ`, `env`, `cat /proc/self/environ`, `cat /proc/[0-9]*/environ`, `cat /proc/[0-9]*/cmdline`,
		`systemctl show-environment`, `cat /run/host/* 2>/dev/null`, `systemd-run -q --wait --pipe env`,
	} {
		r := p.Exec("web", "sh", "-c", script)
		if r.Code > 1 || r.Stdout == "" {
			p.Errorf("%s", r)
		}
		if strings.Contains(r.Stdout, secret) || strings.Contains(r.Stdout, "SECRET=") {
			p.Errorf("%s shows the caller's environment: %.2000s", script, r)
		}
	}
	if got := p.Must("exec", "-e", "SECRET", "web", "printenv", "SECRET"); got != secret {
		p.Errorf("what is named is not passed on: %q", got)
	}
}

func keyring(p *place) {
	give, file := p.attack("key"), filepath.Join(p.Dir, "key-number")
	caller := func(args ...string) harness.Result {
		return p.Host(give, append([]string{"give", file, secret, p.Binary()}, args...)...)
	}
	numbers := func() []string {
		content, err := os.ReadFile(file)
		if err != nil {
			p.Fatal(err)
		}
		return append([]string{"/root/key", "take"}, append(strings.Fields(string(content)), secret)...)
	}
	for name, filter := range map[string]string{"keys": "default", "keys-unfiltered": "off"} {
		if r := caller("up", p.filtered(name, filter)); r.Code != 0 {
			p.Fatalf("%s", r)
		}
		p.install(name, "key")
		tries := []harness.Result{p.Exec(name, numbers()...)} // of the start's session
		// The exec's own session: the command has to know the key's number.
		p.sh(name, `printf '#!/bin/sh\nread a; exec /root/key take $a `+secret+`\n' >/root/ask; chmod 755 /root/ask`)
		tries = append(tries, p.Host("sh", "-c", `exec "$1" give "$2" "$3" sh -c 'exec "$0" exec "$2" /root/ask <"$1"' "$4" "$2" "$5"`,
			"sh", give, file, secret, p.Binary(), name))
		for _, r := range tries {
			if r.Code != 0 || !strings.Contains(r.Stdout, "leaks 0") {
				p.Errorf("the caller's session keyring: %s", r)
			}
		}
	}
}

// filtered is light with a filter of system calls, or without.
func (p *place) filtered(name, filter string) string {
	p.Helper()
	return p.light(name, func(d map[string]any) { d["security"] = map[string]any{"seccomp": filter} })
}

func typing(p *place) {
	typed := filepath.Join(p.Dir, "typed")
	shell, terminal := p.StartHostTerminal(24, 200, "bash", "--norc", "--noprofile", "-i")
	attack := p.attack("tiocsti")
	for name, filter := range map[string]string{"filtered": "default", "unfiltered": "off"} {
		p.Must("up", p.filtered(name, filter))
		content, err := os.ReadFile(attack)
		if err != nil {
			p.Fatal(err)
		}
		if r := p.NucInput(string(content), "exec", name, "sh", "-ec", "cat >/root/tiocsti; chmod 755 /root/tiocsti"); r.Code != 0 {
			p.Fatalf("%s", r)
		}
		for _, option := range []string{"-t", "-T"} {
			after := "after" + option + name
			terminal.Type(fmt.Sprintf("%s exec %s %s /root/tiocsti $'touch %s\\n'; echo %s\n", p.Binary(), option, name, typed, after))
			shell.WaitOutput("\n"+after, patience)
			if !strings.Contains(shell.Output(), "tried") {
				p.Errorf("nothing was tried: %s", shell.Output())
			}
		}
		// As -T, but in the background and after nuc has gone.
		terminal.Type(fmt.Sprintf("%s exec -T %s sh -c '(sleep 1; /root/tiocsti \"touch %s\n\") & sleep 0.1'; sleep 2; echo later-%s\n", p.Binary(), name, typed, name))
		shell.WaitOutput("\nlater-"+name, patience)
	}
	terminal.Type("exit\n")
	shell.Wait(patience)
	if _, err := os.Stat(typed); err == nil {
		p.Errorf("a command was typed in the caller's shell:\n%s", shell.Output())
	}
	if !strings.Contains(shell.Output(), "typed 0") {
		p.Errorf("the filter lets it type in its own terminal:\n%s", shell.Output())
	}
}

// nasty commands a terminal, hides text and is no text.
const nasty = "\x1b]0;owned\x07\x1b[2J\u009b31m\xff\xfe\u202ereversed\x7f\x00\x08 end"

// clean fails the test if what nuc printed commands a terminal.
func (p *place) clean(r harness.Result) {
	p.Helper()
	for i, c := range r.Stdout + r.Stderr {
		if c != '\n' && c != '\t' && !unicode.IsPrint(c) || c == utf8.RuneError && !strings.HasPrefix((r.Stdout + r.Stderr)[i:], "\ufffd") {
			p.Errorf("byte %d of what nuc %s prints is %U: %q", i, strings.Join(r.Args, " "), c, r.Stdout+r.Stderr)
			return
		}
	}
}

func escapeSequences(p *place) {
	said := strings.ReplaceAll(nasty, "\x00", "")
	p.Must("up", p.light("nasty", nil))
	p.Must("exec", "-e", "NOTIFY_SOCKET=/run/host/notify", "nasty", "systemd-notify", "--status="+said)
	harness.Eventually(p, patience, "the status came", func() bool { return strings.Contains(p.statusOf("nasty").Doing, "owned") })
	// Names of processes, cgroups and units; lines of the journal.
	p.sh("web", `(exec -a "$1" sleep 60 >/dev/null 2>&1) & disown; mkdir -p "/sys/fs/cgroup/system.slice/$2.service"; echo $! >"/sys/fs/cgroup/system.slice/$2.service/cgroup.procs"
printf '%s\n' "$1" | systemd-cat -t "$2"; printf '%s\n' "$1" | logger -t nasty
systemd-run -q --unit=nasty --description="$2" -p SyslogIdentifier="x" sh -c 'printf "%s\n" "$1"; exit 1' sh "$1"`, said, strings.NewReplacer("\xff", "", "\xfe", "").Replace(said))
	defer p.sh("web", "systemctl reset-failed")
	p.Must("exec", "web", "journalctl", "--sync")
	for _, args := range [][]string{
		{"status", "nasty"},
		{"status", "--json", "nasty"},
		{"ps"},
		{"ps", "--json"},
		{"status", "web"},
		{"status", "--json", "web"},
		{"stats", "--units", "web"},
		{"stats", "--units", "--json", "web"},
		{"logs", "web"},
		{"logs", "-n", "20", "web"},
		{"logs", "-u", "nasty", "web"},
		{"graph"},
		{"links"},
		{"links", "--json"},
		{"exec", "web", said},
		{"exec", "-u", said, "web", "true"},
		{"status", said},
		{"validate", said},
	} {
		r := p.Nuc(args...)
		if r.Stdout+r.Stderr == "" {
			p.Errorf("%s", r)
		}
		r.Args = args[:1]
		p.clean(r)
		if strings.Contains(strings.Join(args, " "), "--json") && !json.Valid([]byte(r.Stdout)) {
			p.Errorf("no JSON: %q", r.Stdout)
		}
	}
	// What a start that failed had to say.
	r := p.Nuc("up", p.light("words", func(d map[string]any) {
		delete(d, "ready")
		d["system"] = map[string]any{"init": "/bin/sh", "arguments": []string{"-c", `printf "%b\n" "\033]0;owned\007\033[2J\377\376last words\010"; exit 1`}, "ttyGroup": 5}
	}))
	if r.Code == 0 || !strings.Contains(r.Stderr, "last words") {
		p.Errorf("%s", r)
	}
	p.clean(r)
	p.clean(p.Nuc("status", "words"))
}

func noise(p *place) {
	p.Must("up", p.light("noise", nil))
	st := p.statusOf("noise")
	p.sh("noise", `for i in 1 2 3; do echo warm; done >/dev/console`)
	before := p.memory(st.Supervisor, "VmRSS")
	for what, script := range map[string]string{
		"1 GB without a newline":      `head -c 1G /dev/zero | tr '\0' x >/dev/console`,
		"as many lines as go through": `timeout 3 yes >/dev/console || true`,
		"words of 100 kB of init's":   `for i in {1..20}; do NOTIFY_SOCKET=/run/host/notify systemd-notify --status="$(head -c 100000 /dev/zero | tr '\0' x)" & done; wait`,
	} {
		r := p.Exec("noise", "bash", "-c", script)

		if r.Code != 0 {
			p.Errorf("%s: %s", what, r)
		}
		if r := p.Nuc("ps"); r.Code != 0 || r.Duration > patience/3 {
			p.Errorf("beside %s: %s", what, r)
		}
	}
	if peak := p.memory(st.Supervisor, "VmHWM"); peak > before+(32<<10) {
		p.Errorf("the supervisor had %d KiB and took %d", before, peak)
	}
	for _, args := range [][]string{{"status", "noise"}, {"status", "--json", "noise"}} {
		if r := p.Nuc(args...); len(r.Stdout) > 16<<10 {
			p.Errorf("nuc %q says %d bytes", args, len(r.Stdout))
		}
	}
}

// forgedWords: the notification socket is init's, and root is who init is.
func forgedWords(p *place) {
	p.install("web", "notify")
	st := p.statusOf("web")
	files, memory := p.openFiles(st.Supervisor), p.memory(st.Supervisor, "VmRSS")
	r := p.Exec("web", "/root/notify")
	if r.Code != 0 || !strings.Contains(r.Stdout, "done") || !strings.Contains(r.Stdout, "253 files: Success") || !strings.Contains(r.Stdout, "forged: Success") {
		p.Fatalf("%s", r)
	}
	harness.Eventually(p, patience, "the last word came", func() bool { return p.statusOf("web").Doing == "flood" })
	after := p.statusOf("web")
	if after.Init != st.Init || after.Supervisor != st.Supervisor || after.State != st.State {
		p.Errorf("before %+v, after %+v", st, after)
	}
	// Others of the suite may be asking at the moment.
	harness.Eventually(p, patience, "what came along is closed", func() bool { return p.openFiles(st.Supervisor) <= files+20 })
	if now := p.memory(st.Supervisor, "VmRSS"); now > memory+(32<<10) {
		p.Errorf("the supervisor had %d KiB and has %d", memory, now)
	}
}

// bombs are limited by what the test can: where controllers are delegated, by the
// descriptor, else by resource limits.
func bombs(p *place) {
	h := p.own()
	limited := strings.Contains(h.controllers(), "pids") && strings.Contains(h.controllers(), "memory")
	rlimits := "ulimit -u 300; ulimit -v 400000; "
	h.Up("bombs", "trixie", func(d map[string]any) {
		d["network"] = map[string]any{"outbound": false}
		if limited {
			rlimits = ""
			d["resources"] = map[string]any{"tasksMax": 300, "memoryMax": 400 << 20}
		}
	})
	bomb := []*harness.Process{
		h.Start("exec", "-u", "www-data", "bombs", "bash", "-c", rlimits+`f() { f | f & }; while :; do f; sleep 0.5; done`),
		h.Start("exec", "-u", "www-data", "bombs", "bash", "-c", rlimits+`while :; do head -c 2G /dev/zero | tail -n 1; done`),
	}
	harness.Eventually(h, patience, "the bomb has gone off", func() bool {
		n := 0
		for _, q := range h.Processes() {
			if strings.Contains(q.Command, "bash") {
				n++
			}
		}
		return n > 100
	})
	for _, args := range [][]string{{"ps"}, {"status", "bombs"}, {"exec", "bombs", "true"}} {
		if r := h.Nuc(args...); r.Duration > patience || r.Code != 0 && !limited {
			h.Errorf("beside bombs: %s", r)
		}
	}
	if r := h.Nuc("stop", "bombs"); r.Code != 0 || r.Duration > 2*patience {
		h.Errorf("%s", r)
	}
	for _, b := range bomb {
		b.Wait(patience)
	}
	h.NothingLeft()
}

// controllers are those that the test's cgroup can hand on.
func (p *place) controllers() string {
	content, _ := os.ReadFile(filepath.Join(p.Cgroup, "cgroup.subtree_control"))
	return string(content)
}

// leaf: root of the container owns the cgroups that exec goes through.
func leaf(p *place) {
	h := p.own()
	h.Up("leaf", "trixie", func(d map[string]any) { d["network"] = map[string]any{"outbound": false} })
	for _, attempt := range []string{
		"true",
		// systemd has done that where there are controllers.
		"for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$c; done >/sys/fs/cgroup/cgroup.subtree_control",
		"systemctl daemon-reexec",
		"mkdir -p /sys/fs/cgroup/a/b/c && echo $$ >/sys/fs/cgroup/a/b/c/cgroup.procs",
		"mkdir -p /sys/fs/cgroup/nuc-exec/below",
	} {
		h.Exec("leaf", "sh", "-c", attempt)
		got := h.Must("exec", "leaf", "sed", "-n", "s/^0:://p", "/proc/self/cgroup")
		if got == "/" || got == "/init.scope" || !strings.HasPrefix(got, "/nuc-exec") {
			h.Errorf("after %s, a command is in %q", attempt, got)
		}
	}
	// It can shut itself off from exec. That is told, and it still stops.
	h.Exec("leaf", "sh", "-c", "echo threaded >/sys/fs/cgroup/nuc-exec/below/cgroup.type; for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$c; done >/sys/fs/cgroup/nuc-exec/cgroup.subtree_control")
	if r := h.Exec("leaf", "true"); r.Code != 0 {
		h.refused(r, "leaf", "cgroup")
	}
	if r := h.Nuc("stop", "leaf"); r.Code != 0 || r.Duration > patience {
		h.Errorf("%s", r)
	}
	h.NothingLeft()
}

// recycled has a stranger get the numbers of processes that nuc knew.
func recycled(p *place) {
	if os.Geteuid() != 0 {
		p.Skip("needs root: it says which number the next process gets")
	}
	h := p.own()
	lessee := h.StartHost("sleep", "600")
	h.Must("up", "--lease", strconv.Itoa(lessee.Pid()), h.light("recycled", func(d map[string]any) { d["restart"] = "no" }))
	roles := h.Roles()
	if err := unix.Kill(roles.Supervisor, unix.SIGKILL); err != nil {
		h.Fatal(err)
	}
	lessee.Signal(unix.SIGKILL)
	lessee.Wait(patience)
	var strangers []int
	for _, pid := range []int{roles.Supervisor, roles.Keeper, roles.Init, lessee.Pid()} {
		if stranger := h.stranger(pid); stranger {
			strangers = append(strangers, pid)
		}
	}
	if len(strangers) == 0 {
		h.Fatal("no number was had again")
	}
	for _, args := range [][]string{
		{"ps", "-a"},
		{"status", "recycled"},
		{"stop", "recycled"},
		{"kill", "recycled"},
		{"unlink", "recycled"},
		{"up", "recycled"},
		{"kill", "recycled"},
		{"rm", "--state", "--yes", "recycled"},
	} {
		h.Nuc(args...)
	}
	for _, pid := range strangers {
		if command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(command), "sleep") {
			h.Errorf("the stranger that has number %d now was signalled: %q, %v", pid, command, err)
		}
	}
}

// stranger starts a process of the user's with that number, if it can be had.
func (p *place) stranger(pid int) bool {
	p.Helper()
	harness.Eventually(p, promised, "the number is free", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	for range 50 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			p.Fatal(err)
		}
		cmd, release := p.Program(context.Background(), "/bin/sleep", "601")
		cmd.SysProcAttr.UseCgroupFD = false // not of the test's, which waits for the end of its own
		err := cmd.Start()
		release()
		if err != nil {
			p.Fatal(err)
		}
		if cmd.Process.Pid == pid {
			p.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			return true
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if unix.Kill(pid, 0) != unix.ESRCH {
			return false // another process was faster
		}
	}
	return false
}
