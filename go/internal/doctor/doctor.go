// Package doctor looks at everything that nuc needs of a host and says, of each
// thing, what it is like and what to do about it. It is a table of checks: a
// code, a title and a function each.
package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/idmap"
)

// States of a check.
const (
	OK      = "ok"
	Warning = "warning" // nuc works, but for what Detail says
	Failed  = "failed"  // no container can be started
)

// Check is the outcome of one check. Detail is one line; Remedy is empty where
// nothing is to be done, and a command wherever one does it.
type Check struct {
	Code   string `json:"code"`
	Title  string `json:"title"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// Environment is what the checks look at.
type Environment struct {
	// Root is put before the paths of files: "" for the host's.
	Root   string
	UID    int
	User   string // name of UID, "" if it has none
	Getenv func(string) string
	// LookPath is exec.LookPath's job.
	LookPath func(string) (string, error)
	// Driver is outbound.Find's.
	Driver func(string) (string, error)
	// Release is the kernel's (uname -r).
	Release string
	// Namespace makes a process in a new user namespace; Capable one that uses
	// its rights there; Map one whose ids are the map's.
	Namespace func() error
	Capable   func() error
	Map       func(idmap.Map) error
	// Plan is idmap.PlanFor.
	Plan func(count int) (idmap.Map, error)
	// Helpers is idmap.Map.Check.
	Helpers func(idmap.Map) error
	// Landlock is landlock.ABI.
	Landlock func() (int, error)
	// Cgroup is cgroup.Delegated, Controller cgroup.MissingController.
	Cgroup     func() (x string, controllers []string, err error)
	Controller func(x, controller string) string
}

// verdict is the part of a Check that its function decides.
type verdict struct{ state, detail, remedy string }

func ok(format string, args ...any) verdict {
	return verdict{state: OK, detail: fmt.Sprintf(format, args...)}
}

// table is in the order in which things are to be put right.
var table = []struct {
	code, title string
	check       func(*Environment) verdict
}{
	{"kernel", "Linux 5.12 or newer", kernel},
	{"user-namespaces", "user namespaces are allowed", userNamespaces},
	{"apparmor", "AppArmor lets user namespaces have rights", appArmor},
	{"seccomp", "filters of system calls", seccompFilters},
	{"subordinate-ids", "subordinate user and group ids", subordinateIDs},
	{"id-helpers", "newuidmap and newgidmap work", idHelpers},
	{"overlay", "overlay file system", overlay},
	{"cgroup", "delegated cgroup with controllers", delegation},
	{"tun", "/dev/net/tun", tun},
	{"landlock", "Landlock, to confine what runs for containers", confinement},
	{"runtime-folder", "runtime folder", runtimeFolder},
	{"user-manager", "systemd user manager that stays", userManager},
	{"pasta", "pasta, for outbound network", pasta},
	{"nix", "nix", nix},
}

// Run does all checks.
func Run(env Environment) []Check {
	checks := make([]Check, 0, len(table))
	for _, row := range table {
		v := row.check(&env)
		checks = append(checks, Check{Code: row.code, Title: row.title, State: v.state, Detail: v.detail, Remedy: v.remedy})
	}
	return checks
}

// Healthy tells whether nothing has failed.
func Healthy(checks []Check) bool {
	for _, c := range checks {
		if c.State == Failed {
			return false
		}
	}
	return true
}

// failed makes a verdict of an error, with the remedy that it knows.
func failed(state string, err error, remedy string) verdict {
	var parts interface{ Parts() (string, string) }
	if errors.As(err, &parts) {
		detail, known := parts.Parts()
		return verdict{state, detail, known}
	}
	return verdict{state, err.Error(), remedy}
}

func (e *Environment) path(p string) string { return filepath.Join(e.Root, p) }

func (e *Environment) exists(p string) bool {
	_, err := os.Stat(e.path(p))
	return err == nil
}

// sysctl reads a setting; -1 if the kernel has no such one.
func (e *Environment) sysctl(name string) int {
	data, err := os.ReadFile(e.path("/proc/sys/" + strings.ReplaceAll(name, ".", "/")))
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return -1
	}
	return n
}

func setSysctl(name, value string) string {
	return fmt.Sprintf("echo '%s=%s' | sudo tee -a /etc/sysctl.d/90-nuc.conf && sudo sysctl -p /etc/sysctl.d/90-nuc.conf", name, value)
}

// release reads major and minor of a kernel release: 6.1.0-18-amd64.
func release(text string) (major, minor int, err error) {
	first, rest, _ := strings.Cut(text, ".")
	second := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		second = rest[:i]
	}
	if major, err = strconv.Atoi(first); err == nil {
		minor, err = strconv.Atoi(second)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("kernel release %q can't be read", text)
	}
	return major, minor, nil
}

func kernel(e *Environment) verdict {
	const remedy = "install a newer kernel and boot it (Debian 11: sudo apt install -t bullseye-backports linux-image-amd64)"
	major, minor, err := release(e.Release)
	switch {
	case err != nil:
		return verdict{Warning, err.Error(), remedy}
	case major < 5 || major == 5 && minor < 12:
		return verdict{Failed, fmt.Sprintf("Linux %s has no mount_setattr(2), which is there since 5.12", e.Release), remedy}
	}
	return ok("Linux %s", e.Release)
}

func userNamespaces(e *Environment) verdict {
	err := e.Namespace()
	if err == nil && e.sysctl("kernel.unprivileged_userns_clone") == 0 {
		return verdict{Failed, "root may make user namespaces, and a container's root, who makes one for what is mounted read-only, may not: kernel.unprivileged_userns_clone is 0", setSysctl("kernel.unprivileged_userns_clone", "1")}
	}
	if err == nil {
		return ok("a process in a new user namespace was started")
	}
	detail := fmt.Sprintf("a process in a new user namespace could not be started: %v", err)
	switch {
	case !e.exists("/proc/self/ns/user"):
		return verdict{Failed, detail + ": this kernel has none (CONFIG_USER_NS)", "boot a kernel that has user namespaces, such as your distribution's"}
	case e.sysctl("user.max_user_namespaces") == 0:
		return verdict{Failed, detail + ": user.max_user_namespaces is 0", setSysctl("user.max_user_namespaces", "65536")}
	case e.sysctl("kernel.unprivileged_userns_clone") == 0:
		return verdict{Failed, detail + ": kernel.unprivileged_userns_clone is 0", setSysctl("kernel.unprivileged_userns_clone", "1")}
	case e.restricted() && e.UID != 0:
		return verdict{Failed, detail + ": AppArmor forbids it", profile}
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return verdict{Failed, fmt.Sprintf("%s: the limit user.max_user_namespaces is %d", detail, e.sysctl("user.max_user_namespaces")), setSysctl("user.max_user_namespaces", "65536")}
	}
	return verdict{Failed, detail + ": no setting of the kernel forbids it, so a seccomp filter or security module does", "start nuc outside of the container or sandbox that it is in, or that one with less restriction (docker run --security-opt seccomp=unconfined)"}
}

// profile allows nuc alone what Ubuntu (since 23.10) denies to all programs.
const profile = `printf 'abi <abi/4.0>,\nprofile nuc %s flags=(unconfined) {\n  userns,\n}\n' "$(readlink -f "$(command -v nuc)")" | sudo tee /etc/apparmor.d/nuc && sudo apparmor_parser -r /etc/apparmor.d/nuc`

func (e *Environment) restricted() bool {
	return e.sysctl("kernel.apparmor_restrict_unprivileged_userns") == 1
}

func appArmor(e *Environment) verdict {
	if e.UID == 0 {
		return ok("does not matter to root")
	}
	err := e.Capable()
	switch {
	case err == nil && e.restricted():
		return ok("user namespaces are restricted (kernel.apparmor_restrict_unprivileged_userns), but nuc has a profile that allows them")
	case err == nil:
		return ok("user namespaces are not restricted")
	case e.restricted():
		return verdict{Failed, fmt.Sprintf("kernel.apparmor_restrict_unprivileged_userns is 1: a process in a user namespace has no rights there (%v)", err), profile}
	}
	return verdict{Failed, fmt.Sprintf("a process in a user namespace has no rights there: %v; no setting of AppArmor says so", err), "look at user-namespaces above, and for a denial of another security module with sudo dmesg | tail"}
}

func seccompFilters(e *Environment) verdict {
	data, err := os.ReadFile(e.path("/proc/sys/kernel/seccomp/actions_avail"))
	if err != nil || !slices.Contains(strings.Fields(string(data)), "errno") {
		return verdict{Failed, "this kernel has none (CONFIG_SECCOMP_FILTER): containers start with security.seccomp \"off\" only", "boot a kernel that has them, such as your distribution's"}
	}
	return ok("this kernel has them")
}

func subordinateIDs(e *Environment) verdict {
	const wanted = 65536
	m, err := e.Plan(wanted)
	if err != nil {
		return failed(Failed, err, "")
	}
	if m.Short != "" {
		detail, command, found := strings.Cut(m.Short, ": echo ")
		if found {
			command = "echo " + command
		}
		return verdict{Warning, detail, command}
	}
	last := m.UIDs[len(m.UIDs)-1]
	return ok("%d ids, up to %d of the host", wanted, last.Outside+last.Count-1)
}

func idHelpers(e *Environment) verdict {
	m, err := e.Plan(65536)
	if err != nil {
		return verdict{Warning, "not tried, as there are no subordinate ids to map", "look at subordinate-ids above"}
	}
	if err := e.Helpers(m); err != nil {
		return failed(Failed, err, "sudo apt install uidmap")
	}
	if err := e.Namespace(); err != nil {
		return verdict{Warning, "not tried, as there is no user namespace to map", "look at user-namespaces above"}
	}
	if err := e.Map(m); err != nil {
		return failed(Failed, err, "compare /etc/subuid, /etc/subgid and /etc/passwd with what it says; then sudo apt install --reinstall uidmap")
	}
	if e.UID == 0 {
		return ok("root needs none; a process was mapped")
	}
	return ok("a process was mapped")
}
