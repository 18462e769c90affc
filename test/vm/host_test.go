package vm

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestForbidden has the kernel refuse user namespaces in both ways that Debian's
// has: nuc doctor's remedy is applied as it stands, and works. The third way,
// kernel.apparmor_restrict_unprivileged_userns, is in Ubuntu's kernels alone.
func TestForbidden(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	path := ana.describe(t, small("a"))
	for _, name := range []string{"user.max_user_namespaces", "kernel.unprivileged_userns_clone"} {
		t.Run(name, func(t *testing.T) {
			was := m.root.must(t, "sysctl -n "+name)
			t.Cleanup(func() { m.root.must(t, "rm -f /etc/sysctl.d/90-nuc.conf && sysctl -w "+name+"="+was) })
			m.root.must(t, "sysctl -w "+name+"=0")
			if r := ana.run(t, "nuc up "+path); r.code != 1 || r.stdout != "" {
				t.Errorf("%s", r)
			} else {
				one(t, r.stderr)
			}
			m.nothingLeft(t)
			remedy := remedy(t, ana, "user-namespaces")
			if !strings.Contains(remedy, name) {
				t.Fatalf("the remedy doesn't name %s: %s", name, remedy)
			}
			ana.must(t, remedy)
			ana.must(t, "nuc doctor && nuc up a && nuc stop a")
		})
	}
}

// remedy is what nuc doctor says is to be done about a failed check.
func remedy(t testing.TB, s *session, code string) string {
	t.Helper()
	r := s.run(t, "nuc doctor --json")
	var checks []struct{ Code, State, Remedy string }
	if err := json.Unmarshal([]byte(r.stdout), &checks); err != nil {
		t.Fatalf("%v: %s", err, r)
	}
	for _, check := range checks {
		if check.Code == code && check.State == "failed" && r.code == 1 {
			return check.Remedy
		}
	}
	t.Fatalf("%s has not failed: %s", code, r)
	return ""
}

// TestDelegation asks for a controller that systemd does not delegate to users
// by itself (user@.service: cpu memory pids), and follows the advice.
func TestDelegation(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	path := ana.describe(t, small("a").with("resources", map[string]any{"ioWeight": 200}))
	r := ana.run(t, "nuc up "+path)
	one(t, r.stderr)
	advice := regexp.MustCompile(`(sudo sh -c '.*'), then log in anew`).FindStringSubmatch(r.stderr)
	if r.code != 1 || advice == nil {
		t.Fatalf("%s", r)
	}
	m.nothingLeft(t)
	t.Cleanup(func() {
		m.root.must(t, "rm -r /etc/systemd/system/user@.service.d && systemctl daemon-reload && systemctl stop user@1000.service")
	})
	ana.must(t, advice[1])
	ana.close()
	m.root.eventually(t, patience, "! test -d /run/user/1000")
	ana = m.login(t, "ana")
	ana.must(t, "nuc up "+path)
	if got := ana.must(t, "cat "+ana.status(t, "a").Cgroup+"/io.weight"); got != "default 200" {
		t.Errorf("io.weight is %q", got)
	}
}

// TestDiskFull has no block left in the state folder: what was there stays as it
// is, and each command says why it can't.
func TestDiskFull(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	m.root.must(t, `truncate -s 4M /var/small.img && mkfs.ext4 -q /var/small.img &&
		mkdir -p /mnt/small && mount -o loop /var/small.img /mnt/small && chown ana: /mnt/small`)
	t.Cleanup(func() { m.root.must(t, "umount /mnt/small && rm /var/small.img") })
	const env = "export XDG_STATE_HOME=/mnt/small; "
	t.Cleanup(func() { ana.run(t, env+"nuc kill --all; nuc ps -aq | xargs -r nuc rm --state --yes") })
	ephemeral := map[string]any{"tree": "/home/ana/tree", "ephemeral": true}
	ana.must(t, env+"nuc up "+ana.describe(t, small("a").with("root", ephemeral)))

	// What the file system gives back when a write has failed is taken as well.
	const fill = "cd /mnt/small && ! cat /dev/zero >fill 2>/dev/null && i=0 && while dd if=/dev/zero of=fill-$i bs=1 count=1 conv=fsync 2>/dev/null; do i=$((i+1)); done"
	if r := ana.run(t, fill); r.code != 0 {
		t.Fatalf("%s", r)
	}
	changed := small("a").with("root", ephemeral).with("resources", map[string]any{"tasksMax": 300})
	for _, script := range []string{
		"nuc switch " + ana.describe(t, changed),
		"nuc up " + ana.describe(t, small("b").with("root", ephemeral)),
	} {
		r := ana.run(t, env+script)
		if r.code != 1 || !strings.Contains(r.stderr, "no space left") {
			t.Errorf("%s", r)
		}
		one(t, r.stderr)
	}
	kept := func(want string) {
		t.Helper()
		if got := ana.must(t, env+"nuc ps -a --json | tr -d ' \\n' | grep -o '\"name\":[^,]*,\"state\":[^,]*,\"generation\":[0-9]*'"); got != want {
			t.Errorf("nuc ps says %s, want %s", got, want)
		}
	}
	kept(`"name":"a","state":"ready","generation":1`)
	ana.must(t, env+"nuc exec a true && nuc inspect a && nuc stop a")
	ana.must(t, env+"nuc ps -a && rm /mnt/small/fill* && nuc up a && nuc generations a | grep -c . && nuc stop a")
	kept(`"name":"a","state":"stopped","generation":1`)
}

// TestClock sets the clock a day ahead and two days back while a container runs.
func TestClock(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, small("a"))
	t.Cleanup(func() { m.root.must(t, fmt.Sprintf("date -s @%d", time.Now().Unix())) })
	for _, jump := range []string{"1 day", "2 days ago"} {
		m.root.must(t, "date -s '"+jump+"'")
		if up := ana.must(t, "nuc ps | awk '$1 == \"a\" { print $3 }'"); !regexp.MustCompile(`^([0-9]+s|[0-9]m)$`).MatchString(up) {
			t.Errorf("%s: up for %q", jump, up)
		}
		ana.must(t, "nuc exec a true && nuc status a && nuc logs -n 1 a")
		ana.must(t, "nuc restart a")
	}
	if r := ana.run(t, "nuc stop a"); r.code != 0 || r.took > patience {
		t.Errorf("%s", r)
	}
}
