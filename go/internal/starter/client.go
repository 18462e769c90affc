package starter

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/idmap"
	"github.com/nix-user-containers/nuc/go/internal/listener"
	"github.com/nix-user-containers/nuc/go/internal/outbound"
	"github.com/nix-user-containers/nuc/go/internal/process"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/userns"
)

// ErrGone is what there is to be said of a starter that was killed: nobody can
// take its place.
var ErrGone = errors.New("the process that starts things for the supervisor was killed: restart the container")

// Client has things started: by the calling process, and after Separate by a
// process of their own.
type Client struct {
	worker

	// Gone, if not nil, is called when the starter was killed.
	Gone func()

	mu sync.Mutex
	// conn leads to the starter; nil before there is one.
	conn    *seqpacket.Conn
	pid     int
	gone    bool
	closed  bool
	renewed bool           // the runtime folder is the starter's
	here    sync.WaitGroup // what this process is about to start
	reading chan struct{}
}

// New has none yet. It takes the program over, nil for one to be made by Prepare.
func New(o Order, program *userns.Program, links Links, progress func(path string, files int)) *Client {
	return &Client{worker: worker{Order: o, program: program, links: links, progress: progress}}
}

// Prepare begins what takes a while and can be done beside other things.
func (c *Client) Prepare() {
	if c.program == nil {
		c.program = userns.CopyProgram()
	}
}

// SetIDs says which ids keepers get, before there is any.
func (c *Client) SetIDs(m idmap.Map) { c.IDs = m }

// begin tells where to start something: at the starter, or, with nil, here, until
// done.
func (c *Client) begin() (conn *seqpacket.Conn, done func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone:
		return nil, nil, ErrGone
	case c.conn != nil:
		return c.conn, func() {}, nil
	}
	c.here.Add(1)
	return nil, c.here.Done, nil
}

// patience is how long a starter may take to be up, and how long things that this
// process is about to start may take to be started.
const patience = 10 * time.Second

// Separate starts the starter, and returns when this process starts nothing any
// more.
func (c *Client) Separate() error {
	image, err := c.program.Wait()
	if err != nil {
		return err
	}
	conn, peer, err := seqpacket.Pair()
	if err != nil {
		return err
	}
	defer peer.Close()
	pid, err := spawn(c.Order, image, peer)
	if err == nil {
		err = conn.Send(c.Order)
	}
	if err == nil {
		_ = conn.Net().SetReadDeadline(time.Now().Add(patience))
		_, err = receive(conn, done, 0)
		_ = conn.Net().SetReadDeadline(time.Time{})
	}
	c.mu.Lock()
	if err == nil && c.closed {
		err = errors.New("the container is just stopping")
	}
	if err != nil {
		c.mu.Unlock()
		conn.Close()
		if pid > 0 {
			_, _ = userns.Reap(pid)
		}
		return fmt.Errorf("starting the starter: %w", err)
	}
	c.conn, c.pid, c.reading = conn, pid, make(chan struct{})
	go c.watch(conn, pid, c.reading)
	c.mu.Unlock()
	started := make(chan struct{})
	go func() {
		c.here.Wait()
		close(started)
	}()
	select {
	case <-started:
	case <-time.After(patience): // Nix takes its time, and runs by now
	}
	return nil
}

func spawn(o Order, image, peer *os.File) (pid int, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	return syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", fdImage), []string{Role, o.Name}, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), fdSocket: peer.Fd(), fdImage: image.Fd()},
		// Its own session: what a terminal sends to nuc is not for it.
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

// watch waits for the starter's end.
func (c *Client) watch(conn *seqpacket.Conn, pid int, over chan struct{}) {
	defer close(over)
	for {
		m, err := conn.Receive()
		if err != nil {
			break
		}
		m.Close()
	}
	c.mu.Lock()
	c.gone = true
	killed := !c.closed
	c.mu.Unlock()
	_, _ = userns.Reap(pid)
	if killed && c.Gone != nil {
		c.Gone()
	}
}

// Processes are those that belong to the supervisor: the starter, if there is one.
func (c *Client) Processes() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || c.gone {
		return nil
	}
	return []int{c.pid}
}

// Close ends the starter, and returns when it has ended.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	conn, reading := c.conn, c.reading
	c.mu.Unlock()
	if conn != nil {
		conn.Close()
		<-reading
	}
	if c.program != nil {
		c.program.Close()
	}
}

// ask sends a request and returns where the answers come.
func ask(conn *seqpacket.Conn, r request, files ...*os.File) (*seqpacket.Conn, error) {
	answers, peer, err := seqpacket.Pair()
	if err != nil {
		return nil, err
	}
	defer peer.Close()
	if err := conn.Send(r, append([]*os.File{peer}, files...)...); err != nil {
		answers.Close()
		return nil, ErrGone
	}
	return answers, nil
}

// answer is a reply with its descriptors.
type answer struct {
	reply
	*seqpacket.Message
}

// receive waits for a reply of one kind, or with "" of any, with so many files; a
// failure is an error.
func receive(conn *seqpacket.Conn, kind string, files int) (*answer, error) {
	m, err := conn.Receive()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, errors.New("it does not answer")
	}
	if err != nil {
		return nil, ErrGone
	}
	a := &answer{Message: m}
	if err := m.Decode(&a.reply); err != nil {
		m.Close()
		return nil, err
	}
	switch {
	case a.Kind == failed:
		err = errors.New(a.Error)
	case kind != "" && a.Kind != kind || len(m.FDs) != files:
		err = fmt.Errorf("starter: %q came with %d descriptors, and %q was expected with %d", a.Kind, len(m.FDs), kind, files)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return a, nil
}

// once is for a request that is answered once, without files.
func once(conn *seqpacket.Conn, r request) (*reply, error) {
	a, err := exchange(conn, r, 0)
	if err != nil {
		return nil, err
	}
	a.Close()
	return &a.reply, nil
}

// exchange is for a request that is answered once, with so many files.
func exchange(conn *seqpacket.Conn, r request, wanted int, files ...*os.File) (*answer, error) {
	answers, err := ask(conn, r, files...)
	if err != nil {
		return nil, err
	}
	defer answers.Close()
	return receive(answers, done, wanted)
}

// Keeper starts a keeper, with a network of its own or the host's.
func (c *Client) Keeper(private bool) (*userns.Child, error) {
	conn, end, err := c.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if conn == nil {
		return c.keeper(private)
	}
	answers, err := ask(conn, request{Op: opKeeper, Private: private})
	if err != nil {
		return nil, err
	}
	a, err := receive(answers, started, 2)
	if err != nil {
		answers.Close()
		return nil, err
	}
	child := &userns.Child{PID: a.PID}
	if child.PIDFD, err = process.New(a.Take(0)); err == nil {
		child.Conn, err = seqpacket.FromFile(a.Take(1))
	}
	a.Message.Close()
	if err != nil {
		answers.Close() // the starter kills it
		return nil, err
	}
	child.Reap = func() (syscall.WaitStatus, error) {
		defer answers.Close()
		return outcome(answers, child.PIDFD)
	}
	return child, nil
}

// outcome waits for the end of a process that the starter has started. If the
// starter ends first, nobody knows the status.
func outcome(answers *seqpacket.Conn, pidfd *os.File) (syscall.WaitStatus, error) {
	a, err := receive(answers, exited, 0)
	if err != nil {
		_ = process.Wait(pidfd)
		return 0, err
	}
	a.Close()
	return syscall.WaitStatus(a.Status), nil
}

// Driver starts a way out.
func (c *Client) Driver(o outbound.Order, user, network, output *os.File) (*outbound.Child, error) {
	conn, end, err := c.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if conn == nil {
		return c.driver(o, user, network, output)
	}
	answers, err := ask(conn, request{Op: opDriver, Driver: o}, user, network, output)
	if err != nil {
		return nil, err
	}
	a, err := receive(answers, started, 1)
	if err != nil {
		answers.Close()
		return nil, err
	}
	pidfd, err := process.New(a.Take(0))
	if err != nil {
		answers.Close()
		return nil, err
	}
	ended := make(chan struct{})
	child := &outbound.Child{PID: a.PID, PIDFD: pidfd, Leaky: a.Leaky, Ended: ended, Status: new(syscall.WaitStatus)}
	go func() {
		defer close(ended)
		defer answers.Close()
		status, err := outcome(answers, pidfd)
		if err != nil { // it died with the starter
			status = syscall.WaitStatus(syscall.SIGKILL)
		}
		*child.Status = status
	}()
	return child, nil
}

// Link makes a link of package link's Spec, in the place of one of its name.
func (c *Client) Link(spec json.RawMessage, over func()) error {
	conn, end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	if conn == nil {
		_, err := c.links.Link(spec, over)
		return err
	}
	answers, err := ask(conn, request{Op: opLink, Link: spec})
	if err != nil {
		return err
	}
	a, err := receive(answers, "", 0)
	if err != nil || a.Kind != started {
		answers.Close()
		return err
	}
	a.Close()
	go func() {
		defer answers.Close()
		if a, err := receive(answers, exited, 0); err == nil {
			a.Close()
			over()
		}
	}()
	return nil
}

// Unlink ends a link; one that is gone is no error.
func (c *Client) Unlink(name string) error {
	conn, end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	if conn == nil {
		return c.unlink(name)
	}
	_, err = once(conn, request{Op: opUnlink, Name: name})
	return err
}

// Protect keeps the store paths of a generation from being collected by Nix.
func (c *Client) Protect(generation int, paths []string) error {
	conn, end, err := c.begin()
	if err != nil {
		return err
	}
	defer end()
	if conn == nil {
		return c.protect(generation, paths)
	}
	_, err = once(conn, request{Op: opProtect, Generation: generation, Paths: paths})
	return err
}

// Copies returns copies of store paths that belong to the container's root, and
// makes those that are missing.
func (c *Client) Copies(paths []string) ([]string, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	conn, end, err := c.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if conn == nil {
		return c.copies(paths)
	}
	r, err := once(conn, request{Op: opCopy, Paths: paths})
	if err != nil {
		return nil, err
	}
	if len(r.Paths) != len(paths) {
		return nil, fmt.Errorf("starter: %d copies came of %d paths", len(r.Paths), len(paths))
	}
	return r.Paths, nil
}

// Sockets looks which sockets are open in the container. Files of processes are
// shown to who might trace them, and a confined process may trace none.
func (c *Client) Sockets(s Sockets) (*Having, error) {
	conn, end, err := c.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if conn == nil {
		return c.sockets(s)
	}
	r, err := once(conn, request{Op: opSockets, Sockets: s})
	if err != nil {
		return nil, err
	}
	if r.Sockets == nil {
		return &Having{}, nil
	}
	return r.Sockets, nil
}

// Holder looks who listens at an address of the host's.
func (c *Client) Holder(a listener.Address) (h listener.Holder) {
	conn, end, err := c.begin()
	if err != nil {
		return h
	}
	defer end()
	if conn == nil {
		return c.holder(a)
	}
	if r, err := once(conn, request{Op: opHolder, Address: a}); err == nil && r.Holder != nil {
		return *r.Holder
	}
	return h
}
