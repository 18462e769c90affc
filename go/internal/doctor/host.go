package doctor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/landlock"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
)

func overlay(e *Environment) verdict {
	major, minor, err := release(e.Release)
	if err == nil && (major < 5 || major == 5 && minor < 11) {
		return verdict{Failed, fmt.Sprintf("Linux %s mounts no overlay in a user namespace, which works since 5.11: root.tree can't be used", e.Release), "install a newer kernel and boot it"}
	}
	data, err := os.ReadFile(e.path("/proc/filesystems"))
	if err != nil {
		return verdict{Warning, err.Error(), "mount /proc"}
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 && f[len(f)-1] == "overlay" {
			return ok("the kernel has it")
		}
	}
	return verdict{Warning, "the kernel has not loaded it: containers with root.tree may not start", "sudo modprobe overlay && echo overlay | sudo tee /etc/modules-load.d/nuc.conf"}
}

func delegation(e *Environment) verdict {
	x, controllers, err := e.Cgroup()
	if err != nil && e.exists(fmt.Sprintf("/run/user/%d/systemd/private", e.UID)) {
		if _, lerr := e.LookPath("systemd-run"); lerr == nil {
			return ok("%s is not delegated, but your systemd gives each container one of its own", x)
		}
	}
	if err != nil {
		return failed(Warning, err, "")
	}
	// What systemd's units and the descriptor's limits use most.
	for _, needed := range []string{"memory", "pids", "cpu"} {
		if !slices.Contains(controllers, needed) {
			return verdict{Warning, fmt.Sprintf("%s is delegated with the controllers %q, without %s: limits that need it can't be set", x, strings.Join(controllers, " "), needed), e.Controller(x, needed)}
		}
	}
	return ok("%s, with %s", x, strings.Join(controllers, " "))
}

func tun(e *Environment) verdict {
	const device = "/dev/net/tun"
	fd, err := unix.Open(e.path(device), unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		unix.Close(fd)
		return ok("can be opened")
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return verdict{Warning, fmt.Sprintf("%s: %v: containers have no outbound network", device, err), "sudo chmod 666 " + device}
	}
	return verdict{Warning, fmt.Sprintf("%s: %v: containers have no outbound network", device, err), "sudo modprobe tun && echo tun | sudo tee /etc/modules-load.d/nuc-tun.conf"}
}

func confinement(e *Environment) verdict {
	version, err := e.Landlock()
	remedy := "boot a kernel that has it (CONFIG_SECURITY_LANDLOCK, since Linux 5.13)"
	if errors.Is(err, landlock.ErrOff) {
		remedy = "add landlock to the list of lsm= on the kernel's command line (cat /sys/kernel/security/lsm shows the others), and reboot"
	}
	if err != nil {
		return verdict{Warning, fmt.Sprintf("%v: supervisors and links keep all rights of yours", err), remedy}
	}
	return ok("version %d", version)
}

// runtimeFolder looks where package state looks.
func runtimeFolder(e *Environment) verdict {
	xdg := e.Getenv("XDG_RUNTIME_DIR")
	login := fmt.Sprintf("/run/user/%d", e.UID)
	if strings.HasPrefix(xdg, "/") {
		if err := e.own(xdg); err != nil {
			return verdict{Failed, fmt.Sprintf("XDG_RUNTIME_DIR: %v", err), e.otherRuntimeFolder(login)}
		}
		return ok("%s/nuc", strings.TrimSuffix(xdg, "/"))
	}
	if e.own(login) == nil {
		return ok("XDG_RUNTIME_DIR is not set; %s/nuc is used, as it is there", login)
	}
	folder := fmt.Sprintf("/tmp/nuc-%d", e.UID)
	if e.UID == 0 {
		folder = "/run/nuc"
	}
	err := e.own(folder)
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return verdict{Failed, fmt.Sprintf("XDG_RUNTIME_DIR is not set, and what nuc would use instead can't be: %v", err), `mkdir -p -m 0700 "$HOME/.nuc-run" && export XDG_RUNTIME_DIR="$HOME/.nuc-run"`}
	case e.UID == 0:
		return ok("%s", folder)
	}
	return verdict{Warning, fmt.Sprintf("XDG_RUNTIME_DIR is not set and there is no %s: %s is used", login, folder), "log in through ssh, a console or machinectl shell (su and sudo make no session), or sudo loginctl enable-linger " + e.who()}
}

func (e *Environment) otherRuntimeFolder(login string) string {
	if e.own(login) == nil {
		return "export XDG_RUNTIME_DIR=" + login
	}
	return "unset XDG_RUNTIME_DIR"
}

// own refuses a folder that isn't the user's alone.
func (e *Environment) own(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(e.path(path), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is no folder", path)
	case int(st.Uid) != e.UID:
		return fmt.Errorf("%s belongs to uid %d, not to you (uid %d)", path, st.Uid, e.UID)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s has mode %04o: others can write to it; it must be 0700", path, st.Mode&0o7777)
	}
	return nil
}

func (e *Environment) who() string {
	if e.User != "" {
		return e.User
	}
	return fmt.Sprint(e.UID)
}

func userManager(e *Environment) verdict {
	switch {
	case !e.exists("/run/systemd/system"):
		return verdict{Warning, "this host does not run systemd: containers started in the background are ordinary processes and don't come back after a boot", "start them from what your host starts services with"}
	case e.UID == 0:
		return ok("root's units are the system's own")
	}
	lingers := e.User != "" && e.exists("/var/lib/systemd/linger/"+e.User)
	enable := "sudo loginctl enable-linger " + e.who()
	switch {
	case !e.exists(fmt.Sprintf("/run/user/%d/systemd/private", e.UID)):
		return verdict{Warning, "no systemd user manager runs for you: containers started in the background are ordinary processes", enable}
	case !lingers:
		return verdict{Warning, "your systemd user manager runs while you are logged in: containers end when you log out", enable}
	}
	return ok("it runs from boot on (lingering)")
}

func pasta(e *Environment) verdict {
	const remedy = "sudo apt install passt (Fedora: sudo dnf install passt)"
	found := map[string]string{}
	for _, name := range outbound.Programs {
		if path, err := e.Driver(name); err == nil {
			found[name] = path
		}
	}
	better, other := outbound.Programs[0], outbound.Programs[1]
	switch {
	case found[better] != "":
		return ok("%s", found[better])
	case found[other] != "":
		return verdict{Warning, fmt.Sprintf("pasta is not installed: containers have their outbound network by %s, which is slower", found[other]), remedy}
	}
	return verdict{Warning, "neither pasta nor slirp4netns is installed: containers have no outbound network", remedy}
}

func nix(e *Environment) verdict {
	return e.program("nix", "descriptors can't be built here, but those that are there can be started", "sh <(curl -L https://nixos.org/nix/install) --daemon")
}

func (e *Environment) program(name, without, remedy string) verdict {
	path, err := e.LookPath(name)
	if err != nil {
		return verdict{Warning, fmt.Sprintf("%s is not on PATH: %s", name, without), remedy}
	}
	return ok("%s", path)
}
