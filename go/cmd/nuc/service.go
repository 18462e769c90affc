package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
	"github.com/nix-user-containers/nuc/go/internal/unit"
)

// manager is the systemd of the user with this runtime folder if containers are to be its services, nil
// elsewhere. Root's are processes: they are to outlast root's sessions.
func manager(runtime string) *unit.Manager {
	if os.Getuid() == 0 {
		return nil
	}
	return unit.Of(runtime, os.Getuid())
}

// unitName is the name of a container's unit. nuc-link-… is a link's.
func unitName(name string) string {
	if strings.HasPrefix(name, "link-") {
		return "nuc--" + name + ".service" // no link's or container's name begins with -
	}
	return "nuc-" + name + ".service"
}

// service is a container's supervisor as a service.
//
// In a scope, systemd would end all processes at once (SIGTERM to the container's
// systemd, which executes itself anew then, and to the D-Bus that it waits for):
// of a service, it is the supervisor alone that is asked to stop.
//
// The supervisor itself starts a container again that has ended; systemd does so
// with a supervisor that was killed.
func service(d *descriptor.Descriptor, program string, restart bool) unit.Service {
	s := unit.Service{
		Name: unitName(d.Name), Description: "nuc container " + d.Name, Notify: true,
		Properties: []string{
			"Slice=nuc.slice", "Delegate=yes", "KillMode=mixed",
			// How long a start may take is for ready.timeoutSeconds to say.
			"TimeoutStartSec=infinity",
			fmt.Sprintf("TimeoutStopSec=%d", d.System.Stop.TimeoutSeconds+supervisor.LeaveSeconds),
			// A process of the container's that is killed for want of memory is
			// the container's own affair.
			"OOMPolicy=continue",
		},
		Command: []string{program, roleSupervisor, d.Name},
	}
	if d.WatchdogSeconds > 0 {
		s.Properties = append(s.Properties, fmt.Sprintf("WatchdogSec=%d", d.WatchdogSeconds))
	}
	if restart && d.Restart != descriptor.RestartNo {
		s.Properties = append(s.Properties, "Restart=on-failure", "RestartSec=1s",
			fmt.Sprintf("RestartPreventExitStatus=%d %d", statusDied, statusTold))
	}
	for _, name := range d.DependsOn {
		s.After = append(s.After, unitName(name))
	}
	// By what folders and programs are found, Nix among them; all else is the
	// manager's.
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if slices.Contains(handedOn, name) || strings.HasPrefix(name, "NUC_") && name != inScope {
			s.Environment = append(s.Environment, e)
		}
	}
	slices.Sort(s.Environment)
	return s
}

// renewUnit has the file of an enabled container say what its descriptor says now.
func (c *context) renewUnit(d *descriptor.Descriptor) error {
	m, units := manager(c.folders.Runtime), unit.Folder(os.Getenv)
	if m == nil || !unit.Enabled(units, unitName(d.Name)) {
		return nil
	}
	program, err := ownPath()
	if err != nil {
		return err
	}
	return m.Write(units, service(d, program, true))
}

var handedOn = []string{
	"PATH", "HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME",
	"NIX_REMOTE", "NIX_STATE_DIR", "NIX_STORE_DIR",
}

// ownPath is the path of nuc's program: the one it is found by if that is the
// same, as a profile's outlives the store path that it leads to.
func ownPath() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	found, err := exec.LookPath("nuc")
	if err != nil || !filepath.IsAbs(found) {
		return self, nil
	}
	a, aerr := os.Stat(self)
	b, berr := os.Stat(found)
	if aerr == nil && berr == nil && os.SameFile(a, b) {
		return found, nil
	}
	return self, nil
}

// errFaster says that another start of the container has begun.
var errFaster = errors.New("another start was faster")

// connectTime is how long a service may take to its first word.
const connectTime = 30 * time.Second

// waiting is the name of a socket in the runtime folder at which a `nuc up` waits
// for the supervisor that it has started as a service. A container's name has no
// dot.
func waiting(name string) string { return fmt.Sprintf(".up-%s.%d", name, os.Getpid()) }

// serve starts a container's supervisor as a service of the user's systemd.
func (c *context) serve(m *unit.Manager, t *target, o startOptions) (*seqpacket.Conn, error) {
	program, err := ownPath()
	if err != nil {
		return nil, err
	}
	folder, err := os.Open(c.folders.Runtime)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	socket := waiting(t.descriptor.Name)
	reports, err := seqpacket.Listen(folder, socket)
	if err != nil {
		return nil, err
	}
	defer os.Remove(filepath.Join(c.folders.Runtime, socket))
	defer reports.Close()
	// The leases of a supervisor that was killed are lost: none would end a
	// container that was started again.
	s := service(t.descriptor, program, len(o.leased) == 0)
	start := func() error { return m.Start(s) }
	units, declared := unit.Folder(os.Getenv), ""
	if unit.Enabled(units, s.Name) {
		s = service(t.descriptor, program, true) // as nuc enable makes it
		if err := m.Write(units, s); err != nil {
			return nil, err
		}
		start = func() error { return m.StartFile(s.Name) }
	}
	deadline := time.Now().Add(connectTime)
	for ended := 0; ; {
		failed := start()
		if failed != nil && declared == "" && unit.IsThere(failed) {
			if declared = m.Declared(units, s.Name); declared != "" {
				// What it executes is its own affair: the container that comes up is
				// joined as any other that runs.
				start = func() error { return m.StartFile(s.Name) }
				failed = start()
			}
		}
		if failed != nil && declared != "" {
			return nil, fmt.Errorf("%s, as %s declares it: %w", s.Name, declared, failed)
		}
		if failed == nil {
			ended++
		}
		if failed != nil && !m.Known(s.Name) && !unit.IsThere(failed) {
			return nil, failed
		}
		conn, err := awaitService(m, s.Name, t, reports, failed == nil)
		switch {
		case conn != nil || err != nil:
			return conn, err
		case time.Now().After(deadline) || ended > 2:
			return nil, fmt.Errorf("unit %s does not answer: see `journalctl --user -u %s`", s.Name, s.Name)
		}
	}
}

// awaitService waits for a supervisor's connection, as long as the service that
// was started runs; or for a moment, where there was one already: the last run's,
// which is just ending, or another start's. That may come here as well. It
// returns nothing when it is to be started again.
func awaitService(m *unit.Manager, name string, t *target, reports *net.UnixListener, started bool) (*seqpacket.Conn, error) {
	for end := time.Now().Add(connectTime); time.Now().Before(end); {
		wait := 50 * time.Millisecond
		if started {
			wait = time.Second
		}
		_ = reports.SetDeadline(time.Now().Add(wait))
		conn, err := seqpacket.Accept(reports)
		switch {
		case err == nil:
			return conn, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		case t.container.Held():
			return nil, errFaster
		case !started || !m.Active(name):
			return nil, nil
		}
	}
	return nil, nil
}

// commissioner is the `nuc up` that waits for the supervisor of a container, nil
// where systemd has started that by itself. What is left of one that was killed
// is removed.
func commissioner(runtime, name string) *seqpacket.Conn {
	sockets, _ := filepath.Glob(filepath.Join(runtime, ".up-"+name+".*"))
	if len(sockets) == 0 {
		return nil
	}
	folder, err := os.Open(runtime)
	if err != nil {
		return nil
	}
	defer folder.Close()
	for _, socket := range sockets {
		conn, err := seqpacket.Dial(folder, filepath.Base(socket))
		if err == nil {
			return conn
		}
		_ = os.Remove(socket)
	}
	return nil
}
