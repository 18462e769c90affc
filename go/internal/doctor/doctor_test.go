package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/landlock"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// healthy is a host on which nothing is to be done.
func healthy(t *testing.T) *Environment {
	t.Helper()
	root := t.TempDir()
	e := &Environment{
		Root: root, UID: os.Getuid(), User: "alice", Release: "6.1.0-18-amd64",
		Getenv:    func(string) string { return "" },
		LookPath:  func(name string) (string, error) { return "/usr/bin/" + name, nil },
		Driver:    func(name string) (string, error) { return "/usr/bin/" + name, nil },
		Namespace: func() error { return nil },
		Capable:   func() error { return nil },
		Map:       func(idmap.Map) error { return nil },
		Helpers:   func(idmap.Map) error { return nil },
		Landlock:  func() (int, error) { return 7, nil },
		Plan: func(int) (idmap.Map, error) {
			return idmap.Map{UIDs: []idmap.Extent{{Inside: 0, Outside: 100000, Count: 65536}}}, nil
		},
		Cgroup:     func() (string, []string, error) { return "/x", []string{"cpu", "memory", "pids"}, nil },
		Controller: func(_, controller string) string { return "delegate " + controller },
	}
	for name, text := range map[string]string{
		"proc/filesystems": "nodev\tproc\nnodev\toverlay\n", "proc/self/ns/user": "", "dev/net/tun": "", "run/systemd/system/x": "",
		"proc/sys/user/max_user_namespaces": "100\n", "proc/sys/kernel/seccomp/actions_avail": "kill_process trap errno allow\n",
	} {
		put(t, e, name, text)
	}
	return e
}

func put(t *testing.T, e *Environment, name, text string) {
	t.Helper()
	path := filepath.Join(e.Root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, e *Environment, name string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(e.Root, name)); err != nil {
		t.Fatal(err)
	}
}

func TestChecks(t *testing.T) {
	user := func(e *Environment) { e.UID = 1000 }
	tests := []struct {
		name, code, state, detail, remedy string
		change                            func(t *testing.T, e *Environment)
	}{
		{"new kernel", "kernel", OK, "6.1.0-18-amd64", "", nil},
		{"just new enough", "kernel", OK, "5.12", "", func(_ *testing.T, e *Environment) { e.Release = "5.12" }},
		{"old kernel", "kernel", Failed, "mount_setattr", "newer kernel", func(_ *testing.T, e *Environment) { e.Release = "5.10.0-28" }},
		{"no kernel", "kernel", Warning, "can't be read", "newer kernel", func(_ *testing.T, e *Environment) { e.Release = "x" }},
		{"namespaces", "user-namespaces", OK, "was started", "", nil},
		{"namespaces not built in", "user-namespaces", Failed, "CONFIG_USER_NS", "boot a kernel", func(t *testing.T, e *Environment) {
			e.Namespace = func() error { return unix.EINVAL }
			take(t, e, "proc/self/ns")
		}},
		{"namespaces off", "user-namespaces", Failed, "max_user_namespaces is 0", "user.max_user_namespaces=65536", func(t *testing.T, e *Environment) {
			e.Namespace = func() error { return unix.ENOSPC }
			put(t, e, "proc/sys/user/max_user_namespaces", "0\n")
		}},
		{"namespaces used up", "user-namespaces", Failed, "is 100", "user.max_user_namespaces=65536", func(_ *testing.T, e *Environment) {
			e.Namespace = func() error { return unix.ENOSPC }
		}},
		{"Debian's switch", "user-namespaces", Failed, "unprivileged_userns_clone is 0", "kernel.unprivileged_userns_clone=1", func(t *testing.T, e *Environment) {
			user(e)
			e.Namespace = func() error { return unix.EPERM }
			put(t, e, "proc/sys/kernel/unprivileged_userns_clone", "0\n")
		}},
		{"Debian's switch for root", "user-namespaces", Failed, "unprivileged_userns_clone is 0", "kernel.unprivileged_userns_clone=1", func(t *testing.T, e *Environment) {
			put(t, e, "proc/sys/kernel/unprivileged_userns_clone", "0\n")
		}},
		{"seccomp", "user-namespaces", Failed, "seccomp", "outside of the container", func(_ *testing.T, e *Environment) {
			e.Namespace = func() error { return unix.EPERM }
		}},
		{"AppArmor", "apparmor", Failed, "apparmor_restrict_unprivileged_userns is 1", "/etc/apparmor.d/nuc", func(t *testing.T, e *Environment) {
			user(e)
			e.Capable = func() error { return unix.EACCES }
			put(t, e, "proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
		}},
		{"AppArmor with a profile", "apparmor", OK, "has a profile", "", func(t *testing.T, e *Environment) {
			user(e)
			put(t, e, "proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
		}},
		{"filters", "seccomp", OK, "has them", "", nil},
		{"no filters", "seccomp", Failed, "CONFIG_SECCOMP_FILTER", "boot a kernel", func(t *testing.T, e *Environment) { take(t, e, "proc/sys/kernel/seccomp") }},
		{"ids", "subordinate-ids", OK, "up to 165535 of the host", "", nil},
		{"few ids", "subordinate-ids", Warning, "only 1", "echo alice:1:65536 | sudo tee -a /etc/subuid", func(_ *testing.T, e *Environment) {
			e.Plan = func(int) (idmap.Map, error) {
				return idmap.Map{Short: "only 1: echo alice:1:65536 | sudo tee -a /etc/subuid"}, nil
			}
		}},
		{"no ids", "subordinate-ids", Failed, "malformed", "", func(_ *testing.T, e *Environment) {
			e.Plan = func(int) (idmap.Map, error) { return idmap.Map{}, errors.New("malformed") }
		}},
		{"helpers", "id-helpers", OK, "was mapped", "", nil},
		{"no helpers", "id-helpers", Failed, "newuidmap", "apt install uidmap", func(_ *testing.T, e *Environment) {
			e.Helpers = func(idmap.Map) error { return errors.New("newuidmap is not there") }
		}},
		{"helpers that fail", "id-helpers", Failed, "refused", "reinstall uidmap", func(_ *testing.T, e *Environment) {
			e.Map = func(idmap.Map) error { return errors.New("refused") }
		}},
		{"overlay", "overlay", OK, "has it", "", nil},
		{"no overlay", "overlay", Warning, "not loaded", "modprobe overlay", func(t *testing.T, e *Environment) { put(t, e, "proc/filesystems", "nodev\toverlayfs\n") }},
		{"cgroup", "cgroup", OK, "/x, with", "", nil},
		{"no memory controller", "cgroup", Warning, "without memory", "delegate memory", func(_ *testing.T, e *Environment) {
			e.Cgroup = func() (string, []string, error) { return "/x", []string{"pids", "cpu"}, nil }
		}},
		{"no cgroup", "cgroup", Warning, "not delegated", "", func(_ *testing.T, e *Environment) {
			e.Cgroup = func() (string, []string, error) { return "", nil, errors.New("not delegated") }
		}},
		{"tun", "tun", OK, "can be opened", "", nil},
		{"no tun", "tun", Warning, "no outbound network", "modprobe tun", func(t *testing.T, e *Environment) { take(t, e, "dev/net") }},
		{"runtime folder is a file", "runtime-folder", Failed, "is no folder", "unset XDG_RUNTIME_DIR", func(t *testing.T, e *Environment) {
			put(t, e, "run/mine", "")
			e.Getenv = func(string) string { return "/run/mine" }
		}},
		{"Landlock", "landlock", OK, "version 7", "", nil},
		{"no Landlock", "landlock", Warning, "has no Landlock", "CONFIG_SECURITY_LANDLOCK", func(_ *testing.T, e *Environment) {
			e.Landlock = func() (int, error) { return 0, landlock.ErrNone }
		}},
		{"Landlock off", "landlock", Warning, "booted without", "lsm=", func(_ *testing.T, e *Environment) {
			e.Landlock = func() (int, error) { return 0, landlock.ErrOff }
		}},
		{"no systemd", "user-manager", Warning, "does not run systemd", "", func(t *testing.T, e *Environment) { take(t, e, "run/systemd") }},
		{"no user manager", "user-manager", Warning, "no systemd user manager", "enable-linger alice", func(_ *testing.T, e *Environment) { user(e) }},
		{"lingering", "user-manager", OK, "from boot on", "", func(t *testing.T, e *Environment) {
			user(e)
			put(t, e, "run/user/1000/systemd/private", "")
			put(t, e, "var/lib/systemd/linger/alice", "")
		}},
		{"nix", "nix", OK, "/usr/bin/nix", "", nil},
		{"pasta", "pasta", OK, "/usr/bin/pasta", "", nil},
		{"neither pasta nor slirp4netns", "pasta", Warning, "neither pasta nor slirp4netns", "install passt", func(_ *testing.T, e *Environment) {
			e.Driver = func(string) (string, error) { return "", errors.New("none") }
		}},
		{"slirp4netns", "pasta", Warning, "by /usr/bin/slirp4netns", "install passt", func(_ *testing.T, e *Environment) {
			e.Driver = func(name string) (string, error) {
				if name == "pasta" {
					return "", errors.New("none")
				}
				return "/usr/bin/" + name, nil
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e := healthy(t)
			if test.change != nil {
				test.change(t, e)
			}
			checks := Run(*e)
			i := slices.IndexFunc(checks, func(c Check) bool { return c.Code == test.code })
			if i < 0 {
				t.Fatalf("no check %s", test.code)
			}
			c := checks[i]
			if c.State != test.state || !strings.Contains(c.Detail, test.detail) || !strings.Contains(c.Remedy, test.remedy) {
				t.Errorf("%+v", c)
			}
			if c.State == OK && c.Remedy != "" {
				t.Errorf("a remedy for what is well: %s", c.Remedy)
			}
			if Healthy(checks) != !slices.ContainsFunc(checks, func(c Check) bool { return c.State == Failed }) {
				t.Error("healthy, or not, against what the checks say")
			}
			for _, c := range checks {
				if c.Detail == "" || c.Title == "" || strings.Contains(c.Detail, "\n") {
					t.Errorf("not one line: %+v", c)
				}
			}
		})
	}
}

// TestHost tries this very host: whatever it is like, nothing is left.
func TestHost(t *testing.T) {
	checks := Run(Host())
	if len(checks) != len(table) {
		t.Errorf("%d checks, want %d", len(checks), len(table))
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a process was left: %d, %v", pid, err)
	}
}

func TestRelease(t *testing.T) {
	for text, want := range map[string][2]int{"6.1.0-18-amd64": {6, 1}, "5.12": {5, 12}, "6.18-rc1": {6, 18}, "6.18+": {6, 18}} {
		if major, minor, err := release(text); err != nil || major != want[0] || minor != want[1] {
			t.Errorf("%s: %d, %d, %v", text, major, minor, err)
		}
	}
	for _, text := range []string{"", "6", "x.y", "6.", "6.x"} {
		if _, _, err := release(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
