package vm

import (
	"strings"
	"testing"
	"time"
)

// quick is how long a command of the host may take while a container does its
// worst within its limits: an emulated second is short.
const quick = 20 * time.Second

// TestLimits starts a container in a login session: it is a service of the
// user's systemd, and what it may use is what its descriptor says.
func TestLimits(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, web("web", 8080).with("resources", map[string]any{
		"memoryMax": 400 << 20, "cpuQuotaPercent": 120, "tasksMax": 256,
	}))
	if page := ana.must(t, "curl -sS http://127.0.0.1:8080/"); !strings.Contains(page, "Welcome to nginx") {
		t.Errorf("nginx's page is %q", page)
	}
	st := ana.status(t, "web")
	if len(st.Warnings) > 0 {
		t.Errorf("warnings: %q", st.Warnings)
	}
	if want := "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/nuc.slice/nuc-web.service/payload"; st.Cgroup != want {
		t.Errorf("the cgroup is %s, want %s", st.Cgroup, want)
	}
	for file, want := range map[string]string{"memory.max": "419430400", "cpu.max": "120000 100000", "pids.max": "256"} {
		if got := ana.must(t, "cat "+st.Cgroup+"/"+file); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	// A second login sees the same containers.
	if got := m.login(t, "ana").must(t, "nuc ps -q"); got != "web" {
		t.Errorf("another session sees %q", got)
	}

	t.Run("memory", func(t *testing.T) {
		// More than the limit, from within a service, whose end systemd tells.
		r := ana.run(t, `nuc exec web systemd-run --unit=bomb --wait -p Restart=no -- dd if=/dev/zero of=/dev/null bs=900M count=1`)
		if r.code == 0 {
			t.Errorf("900 MiB fit into 400: %s", r)
		}
		if events := ana.must(t, "grep -w oom_kill "+st.Cgroup+"/memory.events"); events == "oom_kill 0" {
			t.Errorf("nothing was killed for want of memory: %s", events)
		}
		if got := ana.must(t, "nuc exec web systemctl show -P Result bomb"); got != "oom-kill" {
			t.Errorf("systemd says of the unit: %q", got)
		}
		if again := ana.status(t, "web"); again.InitPid != st.InitPid {
			t.Errorf("init is another process: %+v", again)
		}
		if log := m.root.must(t, "journalctl -b -k -o cat --no-pager | grep -c 'Memory cgroup out of memory'"); log == "0" {
			t.Error("the kernel did not kill within the container's cgroup")
		}
	})

	t.Run("processes", func(t *testing.T) {
		ana.must(t, `nuc exec web systemd-run --unit=fork -p TasksMax=infinity -- sh -c 'f() { f & f & wait; }; f'`)
		ana.eventually(t, patience, "test $(cat "+st.Cgroup+"/pids.current) -ge 250")
		for _, script := range []string{"true", "nuc ps"} {
			if r := ana.run(t, script); r.code != 0 || r.took > quick {
				t.Errorf("the host beside a fork bomb: %s", r)
			}
		}
		if r := ana.run(t, "nuc stop web"); r.code != 0 || r.took > patience {
			t.Errorf("%s", r)
		}
		if st := ana.status(t, "web"); st.State != "stopped" {
			t.Errorf("%+v", st)
		}
		m.nothingLeft(t)
	})
}
