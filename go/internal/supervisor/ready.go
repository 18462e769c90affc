package supervisor

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/notify"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
)

// readNotifications follows what init says until the socket is closed.
func (s *Supervisor) readNotifications(socket *notify.Socket) {
	for {
		m, err := socket.Receive()
		if err != nil {
			return
		}
		if m.Status != "" {
			s.change(func(st *Status) { st.Doing = m.Status })
		}
		if m.Stopping {
			s.change(func(st *Status) { st.State = Stopping })
		}
		if m.Ready {
			select {
			case s.announced <- struct{}{}:
			default:
			}
		}
	}
}

// awaitReady waits for what the descriptor calls ready, or for the end of init.
// A container that is late is running, not dead, and becomes ready when init
// says so after all.
func (s *Supervisor) awaitReady(begun time.Time, stopped <-chan struct{}) {
	timeout := time.Duration(s.descriptor().Ready.TimeoutSeconds) * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	late := context.AfterFunc(ctx, func() {
		s.enter(phaseUp) // whoever waits has waited long enough
		s.change(func(st *Status) {
			if st.State == Starting {
				st.State = Running
			}
		})
	})
	if s.descriptor().Ready.Notify {
		s.change(func(st *Status) { st.Waiting = "init to report that it has started everything" })
		select {
		case <-s.announced:
		case <-stopped:
			late()
			return
		}
	}
	if !s.awaitUnits(ctx, stopped) {
		late()
		return
	}
	late()
	s.enter(phaseUp)
	s.checkHandedOver(true)
	s.change(func(st *Status) {
		if st.State == Starting || st.State == Running {
			st.State, st.Waiting = Ready, ""
			st.ReadySeconds = time.Since(begun).Seconds()
		}
	})
}

// awaitUnits asks systemd for the units that must be active. It asks again
// until they are: systemctl has no call that waits for units it did not start.
// It gives up when the time is over.
func (s *Supervisor) awaitUnits(ctx context.Context, stopped <-chan struct{}) bool {
	units := s.descriptor().Ready.Units
	for pause := 20 * time.Millisecond; len(units) > 0; pause = min(2*pause, 500*time.Millisecond) {
		out, _, err := s.Run(ctx, append([]string{"systemctl", "is-active", "--"}, units...)...)
		if err == nil {
			units = inactive(units, out)
			if len(units) == 0 {
				return true
			}
		}
		s.change(func(st *Status) { st.Waiting = strings.Join(units, ", ") })
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		case <-stopped:
			return false
		}
	}
	return true
}

// inactive returns the units whose line of `systemctl is-active` isn't "active".
func inactive(units []string, output string) []string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	var left []string
	for i, u := range units {
		if i >= len(lines) || lines[i] != "active" {
			left = append(left, u)
		}
	}
	return left
}

// maxOutput bounds what Run returns of a command's output, in bytes.
const maxOutput = 256 << 10

// Run runs a command in the container and returns its standard output.
func (s *Supervisor) Run(ctx context.Context, arguments ...string) (string, syscall.WaitStatus, error) {
	reply, peer, err := seqpacket.Pair()
	if err != nil {
		return "", 0, err
	}
	defer peer.Close()
	request := keeper.Request{Op: keeper.OpExec, Exec: &keeper.Exec{Arguments: arguments}}
	return output(ctx, reply, func(stdio ...*os.File) error {
		return s.ask(request, append([]*os.File{peer}, stdio...)...)
	})
}

// Run runs a command in a running container, from another process than its
// supervisor's, and returns its standard output. It starts no container.
func Run(ctx context.Context, c state.Container, e keeper.Exec) (string, syscall.WaitStatus, error) {
	conn, err := Connect(c)
	if err != nil {
		return "", 0, err
	}
	return output(ctx, conn, func(stdio ...*os.File) error {
		return conn.Send(Command{Request: keeper.Request{Op: keeper.OpExec, Exec: &e}, Passive: true}, stdio...)
	})
}

// output sends the request for a command, reads what it prints and waits for
// its end. It closes reply.
func output(ctx context.Context, reply *seqpacket.Conn, send func(stdio ...*os.File) error) (string, syscall.WaitStatus, error) {
	defer reply.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return "", 0, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return "", 0, err
	}
	defer r.Close()
	err = send(null, w, null)
	w.Close()
	if err != nil {
		return "", 0, err
	}
	stop := context.AfterFunc(ctx, func() {
		reply.Close()
		r.Close()
	})
	defer stop()
	var out bytes.Buffer
	_, _ = io.Copy(&out, io.LimitReader(r, maxOutput))
	status, err := Outcome(reply, nil)
	return out.String(), status, err
}

// CommandError is a command that could not be run in a container; Status is the
// exit status that says so.
type CommandError struct {
	Text   string
	Status int
}

func (e CommandError) Error() string { return e.Text }

// Outcome follows an exec's connection to the command's end. Started, if not
// nil, is called when the command runs, with its terminal if it has one.
func Outcome(reply *seqpacket.Conn, started func(terminal *os.File)) (syscall.WaitStatus, error) {
	for {
		m, err := reply.Receive()
		if err != nil {
			return 0, CommandError{Text: "the container stopped before the command ended", Status: 125}
		}
		var r keeper.Reply
		if err := m.Decode(&r); err != nil {
			m.Close()
			return 0, err
		}
		switch r.Kind {
		case keeper.Started:
			terminal := m.Take(0)
			m.Close()
			if started != nil {
				started(terminal)
			} else if terminal != nil {
				terminal.Close()
			}
		case keeper.Exited:
			m.Close()
			return syscall.WaitStatus(r.Status), nil
		default:
			m.Close()
			return 0, CommandError{Text: r.Error, Status: r.Status}
		}
	}
}
