package starter

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// What stands where in a starter's table of file descriptors.
const (
	fdSocket = 3
	fdImage  = 4
)

// Main is the life of a starter. It returns when the supervisor is gone.
func Main(links func(Order) Links) error {
	debug.SetGCPercent(20) // it waits, and its memory is all that it costs
	_ = unix.CloseRange(fdSocket, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	// Executing a copy that can't be read takes the user's own /proc/PID from
	// the user (proc(5)); a starter has nothing to hide from its user.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	conn, err := seqpacket.FromFile(os.NewFile(fdSocket, "supervisor"))
	if err != nil {
		return fmt.Errorf("this is an inner part of nuc, not to be called by hand: %w", err)
	}
	m, err := conn.Receive()
	if err != nil {
		return err
	}
	w := &worker{}
	if err := m.Decode(&w.Order); err != nil {
		return err
	}
	m.Close()
	w.program, w.links = userns.ProgramFrom(os.NewFile(fdImage, "nuc-image")), links(w.Order)
	if err := conn.Send(reply{Kind: done}); err != nil {
		return err
	}
	for {
		m, err := conn.Receive()
		if err != nil {
			return nil
		}
		var r request
		file := m.Take(0)
		if file == nil || m.Decode(&r) != nil {
			if file != nil {
				file.Close()
			}
			m.Close()
			continue
		}
		answers, err := seqpacket.FromFile(file)
		if err != nil {
			m.Close()
			continue
		}
		go func() {
			defer answers.Close()
			defer m.Close()
			if err := w.serve(answers, &r, m); err != nil {
				_ = answers.Send(reply{Kind: failed, Error: err.Error()})
			}
		}()
	}
}

// serve does what is asked for, and answers; an error is for the caller to tell.
func (w *worker) serve(answers *seqpacket.Conn, r *request, m *seqpacket.Message) error {
	files := m.FDs[1:]
	switch r.Op {
	case opKeeper:
		return w.serveKeeper(answers, r)
	case opDriver:
		if len(files) != 3 {
			return fmt.Errorf("driver: %d descriptors came", len(files))
		}
		child, err := w.driver(r.Driver, files[0], files[1], files[2])
		if err != nil {
			return err
		}
		m.Close()
		defer child.PIDFD.Close()
		_ = answers.Send(reply{Kind: started, PID: child.PID, Leaky: child.Leaky}, child.PIDFD)
		<-child.Ended
		_ = answers.Send(reply{Kind: exited, Status: int(*child.Status)})
		return nil
	case opLink:
		over := make(chan struct{}, 1)
		watched, err := w.links.Link(r.Link, func() { over <- struct{}{} })
		if err != nil || !watched {
			return tell(answers, reply{}, err)
		}
		_ = answers.Send(reply{Kind: started})
		gone := make(chan struct{})
		go func() {
			_, _ = answers.Receive()
			close(gone)
		}()
		select {
		case <-over:
			_ = answers.Send(reply{Kind: exited})
		case <-gone:
		}
		return nil
	case opUnlink:
		return tell(answers, reply{}, w.unlink(r.Name))
	case opProtect:
		return tell(answers, reply{}, w.protect(r.Generation, r.Paths))
	case opCopy:
		paths, err := w.copies(r.Paths)
		return tell(answers, reply{Paths: paths}, err)
	case opSockets:
		having, err := w.sockets(r.Sockets)
		return tell(answers, reply{Sockets: having}, err)
	case opRenew:
		return w.serveRenew(answers, r.Name, files)
	case opFurnish:
		return w.serveFurnish(answers, r.UUID)
	case opPublish:
		return tell(answers, reply{}, w.publish(r.Name, r.Text))
	case opTidy:
		if len(files) != 2 {
			return fmt.Errorf("tidy: %d descriptors came", len(files))
		}
		return tell(answers, reply{}, (&state.Lock{File: files[0], Folder: files[1]}).Tidy())
	case opHolder:
		h := w.holder(r.Address)
		return tell(answers, reply{Holder: &h}, nil)
	}
	return fmt.Errorf("request %q is not understood", r.Op)
}

// tell sends the one answer to a request, unless there is an error.
func tell(answers *seqpacket.Conn, r reply, err error) error {
	if err == nil {
		r.Kind = done
		err = answers.Send(r)
	}
	return err
}

// serveKeeper answers twice. A keeper of whom nobody can be told is killed.
func (w *worker) serveKeeper(answers *seqpacket.Conn, r *request) error {
	child, err := w.keeper(r.Private)
	if err != nil {
		return err
	}
	defer child.PIDFD.Close()
	conn, err := child.Conn.File()
	child.Conn.Close()
	if err == nil {
		err = answers.Send(reply{Kind: started, PID: child.PID}, child.PIDFD, conn)
		conn.Close()
	}
	if err != nil {
		child.Kill()
	}
	status, _ := child.Wait()
	_ = answers.Send(reply{Kind: exited, Status: int(status)})
	return nil
}
