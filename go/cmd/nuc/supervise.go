package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/console"
	"github.com/nix-user-containers/nuc/go/internal/credential"
	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/notify"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/starter"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

const roleSupervisor = "nuc-supervisor"

// What stands where in the table of file descriptors of a supervisor that was
// forked.
const (
	fdReport  = 3
	fdProgram = 4
)

// launchOrder is what a supervisor in the background is told by `nuc up`.
type launchOrder struct {
	Source []byte `json:"source"`
	Origin []byte `json:"origin,omitempty"`
	// Nuc is its own path, which the copy that is executed does not know.
	Nuc       string `json:"nuc"`
	StorePath string `json:"storePath,omitempty"`
	// Credentials is what `nuc up` has gathered.
	Credentials *credential.Set `json:"credentials,omitempty"`
	Folders     state.Folders   `json:"folders"`
	LogLevel    string          `json:"logLevel"`
	LogJSON     bool            `json:"logJSON"`
	// Lease is for the pidfds that come with the order.
	Lease supervisor.LeaseOrder `json:"lease"`
}

// statusTold is the exit status of a supervisor that could not start its
// container, and whose `nuc up` has told why: it is not started anew.
const statusTold = 78

// commission is what a supervisor in the background has to do.
type commission struct {
	launchOrder
	// report is the connection to the `nuc up` that waits, nil without one.
	report *seqpacket.Conn
	// message has the pidfds of leases; nil without report.
	message *seqpacket.Message
	// program is the sealed copy of nuc, if that is what is executed.
	program *userns.Program
	// service is the systemd that runs the supervisor, nil where none does.
	service *notify.Manager
}

// forked is the commission of a supervisor that `nuc up` has forked.
func forked() (*commission, error) {
	_ = unix.CloseRange(fdReport, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	c := &commission{program: userns.ProgramFrom(os.NewFile(fdProgram, "nuc-image"))}
	// Executing the copy, which can't be read, takes the user's own /proc/PID
	// from the user; a supervisor has nothing to hide from its user.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	var err error
	if c.report, err = seqpacket.FromFile(os.NewFile(fdReport, "report")); err != nil {
		return nil, err
	}
	return c, c.receive()
}

// receive takes the order of the `nuc up` that waits.
func (c *commission) receive() error {
	var err error
	if c.message, err = c.report.Receive(); err != nil {
		return err
	}
	return c.message.Decode(&c.launchOrder)
}

// served is the commission of a supervisor that is a service: `nuc up` gives
// it, or the container starts as it was started last.
func served(name string) (*commission, error) {
	c := &commission{service: notify.FindManager()}
	folders, err := state.FindFolders(os.Getenv, os.Getenv("HOME"), os.Getuid())
	if err != nil {
		return nil, err
	}
	if c.report = commissioner(folders.Runtime, name); c.report != nil {
		return c, c.receive()
	}
	t, err := (&context{folders: folders}).kept(name)
	if err != nil {
		return nil, err
	}
	if err := awaitNeeds(folders, t.descriptor); err != nil {
		return nil, err
	}
	nuc, err := ownPath()
	if err != nil {
		return nil, err
	}
	c.launchOrder = launchOrder{
		Source: t.source, Nuc: nuc, StorePath: t.storePath, Folders: folders,
		LogLevel: os.Getenv("NUC_LOG_LEVEL"), Lease: supervisor.LeaseOrder{Keep: true},
	}
	return c, nil
}

// awaitNeeds refuses a start of systemd's while something that the container
// depends on is not up. systemd has started that first, and goes on whatever came
// of it: a unit that has to be there (Requires=) could not be one that is not
// enabled.
func awaitNeeds(folders state.Folders, d *descriptor.Descriptor) error {
	for _, name := range d.DependsOn {
		if need := folders.Container(name); !isUp(need) {
			what := "not known"
			if st := statusOf(need); st != nil {
				what = string(st.State)
			}
			return fmt.Errorf("container %s: not started, as %s, which it depends on, is %s", d.Name, name, what)
		}
	}
	return nil
}

// supervisorMain is a supervisor in the background.
func supervisorMain() error {
	var c *commission
	var err error
	if os.Args[0] == roleSupervisor {
		c, err = forked()
	} else {
		if len(os.Args) != 3 {
			return exitStatus{statusUsage, nil}
		}
		c, err = served(os.Args[2])
	}
	if err == nil {
		err = c.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nuc: "+printable(err.Error())) // a service's journal
	}
	return err
}

func (c *commission) run() error {
	fail := func(err error) error {
		if c.report == nil {
			return err
		}
		var held supervisor.HeldError
		_ = c.report.Send(supervisor.Status{State: supervisor.Failed, Reason: err.Error(), Held: errors.As(err, &held)})
		return exitStatus{statusTold, err}
	}
	if c.message != nil {
		defer c.message.Close()
	}
	d, err := descriptor.Read(c.Source)
	if err != nil {
		return fail(err)
	}
	container := c.Folders.Container(d.Name)
	environment := os.Environ()
	credential.Hide(d.Credentials) // systemd may have them of the user's session
	signal.Ignore(unix.SIGHUP)
	var output io.Writer = &lateFile{path: filepath.Join(container.State, "supervisor.log")}
	o := supervisor.Options{
		Descriptor: d, Source: c.Source, Origin: c.Origin, StorePath: c.StorePath, Container: container,
		Report: c.report, Restart: true, Lease: &c.Lease, Confine: true,
		Starter: newStarter(starter.Order{Name: d.Name, Folders: c.Folders, Nuc: c.Nuc}, c.program, nil),
	}
	if c.message != nil {
		o.LeasedTo = c.message.TakeAll()
	}
	o.Credentials = func() (*credential.Set, error) {
		if c.Credentials != nil {
			return c.Credentials, nil
		}
		return credential.Source{Environment: environment, Unattended: true}.Gather(d.Credentials)
	}
	if c.service != nil {
		defer c.service.Close()
		o.Manager = c.service
		o.Output = &console.Lines{W: os.Stdout}
		output = io.MultiWriter(output, os.Stderr)
	}
	o.Log = hclog.New(&hclog.LoggerOptions{Name: "nuc", Level: hclog.LevelFromString(c.LogLevel), Output: output, JSONFormat: c.LogJSON})
	o.Links = declaredLinks(o.Starter, o.Log)
	exit, err := supervisor.Start(o, func(s *supervisor.Supervisor) { go stopOnSignal(s, unix.SIGINT, unix.SIGTERM) })
	if errors.Is(err, starter.ErrGone) {
		return err // systemd may start another one
	}
	if err != nil {
		return fail(err)
	}
	if !exit.Clean && !exit.Asked {
		return exitStatus{statusDied, fmt.Errorf("container %s: %s", d.Name, exit.Reason)}
	}
	return nil
}

// lateFile is a log that is made when there is something to say: by then its
// folder is there, and a start that is refused leaves no file.
type lateFile struct {
	path string
	file *os.File
}

func (l *lateFile) Write(p []byte) (int, error) {
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return 0, err
		}
		l.file = f
	}
	return l.file.Write(p)
}
