package hostile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// ranges puts other files into the places of /etc/subuid and /etc/subgid.
func (p *place) ranges(users, groups string) {
	p.Helper()
	p.Outside.Bind(p.Write("subuid", users, 0o644), "/etc/subuid", 0)
	p.Outside.Bind(p.Write("subgid", groups, 0o644), "/etc/subgid", 0)
}

func subordinateIDs(p *place) {
	h := p.own(harness.WithOutside())
	name, uid, _ := h.User()
	// Who writes to this was run after all.
	trace := filepath.Join(h.Dir, "forked")
	for _, helper := range []string{"newuidmap", "newgidmap"} {
		h.Outside.Replace(helper, h.Write(helper, "#!/bin/sh\ntouch "+trace+"\nexit 1\n", 0o4755))
	}
	good := name + ":200000:65536\n"
	path := h.light("ids", nil)
	for what, files := range map[string][2]string{
		"missing":                {"", ""},
		"users missing":          {"somebody:100000:65536\n", good},
		"groups missing":         {good, "somebody:100000:65536\n"},
		"no number":              {name + ":many:65536\n", good},
		"too few fields":         {name + ":200000\n", good},
		"octal":                  {name + ":0200000:65536\n", good},
		"negative":               {name + ":-1:65536\n", good},
		"beyond the last id":     {name + ":4294967295:65536\n", good},
		"empty":                  {name + ":200000:0\n", good},
		"the host's root":        {name + ":0:65536\n", good},
		"the user's own id":      {fmt.Sprintf("%s:%d:65536\n", name, uid-1), good},
		"another user's":         {"somebody:200100:65536\n" + good, good},
		"twice":                  {good + name + ":200100:10\n", good},
		"another group's":        {good, good + "somebody:265535:1\n"},
		"a megabyte of nonsense": {name + ":" + strings.Repeat("9", 1<<20) + ":1\n", good},
	} {
		h.ranges(files[0], files[1])
		r := h.Nuc("up", path)
		file := "/etc/subuid"
		if files[0] == good {
			file = "/etc/subgid"
		}
		h.refused(r, file, name+":", ":65536")
		if r.Duration > 2*time.Second {
			h.Errorf("%s: refused after %s", what, r.Duration)
		}
		if _, err := os.Stat(trace); err == nil {
			h.Fatalf("%s: a helper was run all the same", what)
		}
		if h.Failed() {
			h.Fatalf("range %s: %.500q", what, files)
		}
	}
	h.NothingLeft()
}

func singleID(p *place) {
	p.Must("up", p.light("single", func(d map[string]any) { d["ids"] = map[string]any{"count": 1} }))
	if got := p.Must("exec", "single", "cat", "/proc/self/setgroups", "/proc/1/setgroups"); got != "deny\ndeny" {
		p.Errorf("setgroups is %q", got)
	}
	for _, file := range []string{"uid_map", "gid_map"} {
		if fields := strings.Fields(p.Must("exec", "single", "cat", "/proc/1/"+file)); len(fields) != 3 || fields[0] != "0" || fields[2] != "1" {
			p.Errorf("%s is %q", file, fields)
		}
	}
	// A group that denies access can't be left.
	for _, attempt := range []string{
		"setpriv --clear-groups true", "setpriv --groups 0 true", "setpriv --init-groups --reuid 0 true",
		"echo allow >/proc/self/setgroups", "unshare -U sh -c 'setpriv --clear-groups true'",
	} {
		if r := p.Exec("single", "sh", "-c", attempt); r.Code == 0 {
			p.Errorf("%s succeeds: %s", attempt, r)
		}
	}
}

func groups(p *place) {
	const foreign = 54321
	// As somebody who is in a group of the host's.
	caller := func(args ...string) harness.Result {
		cmd, release := p.Program(context.Background(), p.Binary(), args...)
		defer release()
		if c := cmd.SysProcAttr.Credential; c != nil {
			c.Groups = append([]uint32{foreign}, c.Groups...)
		}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := p.Launch(cmd)
		if err == nil {
			err = cmd.Wait()
		}
		if err != nil {
			p.Fatalf("nuc %q: %v: %s", args, err, stderr.String())
		}
		return harness.Result{Args: args, Stdout: stdout.String(), Stderr: stderr.String()}
	}
	caller("up", p.light("groups", nil))
	p.sh("groups", "groupadd -g 700 one; groupadd -g 701 two; groupadd -g 702 three; useradd -u 700 -g one -G two member; useradd -u 701 -g three other")
	for user, want := range map[string]string{
		"member": "700 701", "other": "702", "700": "700 701", "member:three": "702", "33": "33", "0": "0", "12345:23456": "23456", "12345": "0",
	} {
		r := caller("exec", "-u", user, "groups", "sh", "-c", `sed -n 's/^Groups:\t//p' /proc/self/status; id -g`)
		lines := strings.Split(r.Stdout, "\n")
		if got := strings.TrimSpace(lines[0]); got != want || !strings.Contains(" "+got+" ", " "+lines[1]+" ") {
			p.Errorf("exec -u %s: the groups are %q with %s as the first, want %q", user, got, lines[1], want)
		}
	}
	if got := p.Must("exec", "groups", "sed", "-n", `s/^Groups:\t//p`, "/proc/1/status"); strings.TrimSpace(got) != "" && strings.TrimSpace(got) != "0" {
		p.Errorf("init is in the groups %q", got)
	}
	// A container's own files say who is who, and may say anything.
	p.sh("groups", `cp /etc/passwd /etc/group /root; mkfifo /etc/fifo
cat >>/etc/passwd <<'END'
big:x:4294967295:4294967296:::
neg:x:-1:-1:::
liar:x:700:0::/proc/self/fd/1:/bin/sh
END
ln -sf fifo /etc/group`)
	for _, user := range []string{"big", "neg", "liar", "4294967295", "-1", "0:4294967295"} {
		if r := p.Nuc("exec", "--user="+user, "groups", "true"); r.Code != 125 || r.Duration > patience/3 {
			p.Errorf("exec -u %s: %s", user, r)
		}
	}
}

func helpers(p *place) {
	h := p.own(harness.WithOutside())
	path := h.light("helpers", nil)
	// A little is the machine's, which other tests keep busy.
	soon := func(r harness.Result, words ...string) {
		h.Helper()
		h.refused(r, words...)
		if r.Duration > 3*time.Second {
			h.Errorf("it took %s: %s", r.Duration, r)
		}
	}
	soon(h.Host("setpriv", "--no-new-privs", h.Binary(), "up", path), "no_new_privs")

	newuidmap, err := exec.LookPath("newuidmap")
	if err != nil {
		h.Fatal(err)
	}
	content, err := os.ReadFile(newuidmap)
	if err != nil {
		h.Fatal(err)
	}
	own := func(name, content string, mode os.FileMode) string {
		file := h.Write(name, content, 0o755)
		if err := os.Chown(file, 0, 0); err != nil {
			h.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			h.Fatal(err)
		}
		return file
	}
	good := own("good", string(content), os.ModeSetuid|0o755)
	replace := func(name, content string, mode os.FileMode) { h.Outside.Replace("newuidmap", own(name, content, mode)) }
	replace("plain", string(content), 0o755)
	soon(h.Nuc("up", path), "newuidmap", "setuid")
	h.Outside.Replace("newuidmap", h.Write("mine", string(content), 0o4755))
	soon(h.Nuc("up", path), "newuidmap", "setuid root")
	hanging, err := os.ReadFile(h.Compile("hanging", "int main() { for (;;) pause(); }"))
	if err != nil {
		h.Fatal(err)
	}
	replace("setuid", string(hanging), os.ModeSetuid|0o755)
	soon(h.Nuc("up", path), "newuidmap", "did not answer within 2 s")
	h.Outside.Hide("newuidmap")
	soon(h.Nuc("up", path), "newuidmap", "uidmap")
	h.Outside.Bind(good, newuidmap, 0) // to clear up with
	h.NothingLeft()
}
