package link

import (
	"context"
	"errors"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/go/internal/supervisor"
)

// Bounds of the pauses between attempts at what failed.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// follow calls seen with a container's status at each change, and with nil when
// the container does not run: at once if it is so, and when it ends. It sees an
// end by the end of its connection to the supervisor, and a start by what
// appears in the runtime folder, and does nothing between the two. It returns
// when the context ends; with once, when the container does not run.
func follow(ctx context.Context, c state.Container, once bool, seen func(*supervisor.Status)) {
	f := &follower{container: c, pause: firstPause}
	defer f.unwatch()
	for told := false; ctx.Err() == nil; {
		conn, err := supervisor.Connect(c)
		if err == nil {
			f.unwatch()
			told = f.receive(ctx, conn, seen)
			continue
		}
		if !told {
			seen(nil)
			told = true
		}
		if once {
			return
		}
		f.wait(ctx, err)
	}
}

type follower struct {
	container state.Container
	watch     *state.Watch
	pause     time.Duration
}

// receive follows one run of a container. It tells whether its end was told.
func (f *follower) receive(ctx context.Context, conn *seqpacket.Conn, seen func(*supervisor.Status)) bool {
	begun, up := time.Now(), false
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	err := conn.Send(supervisor.Command{Request: keeper.Request{Op: supervisor.OpFollow}})
	for err == nil {
		var m *seqpacket.Message
		if m, err = conn.Receive(); err != nil {
			break
		}
		var st supervisor.Status
		err = m.Decode(&st)
		m.Close()
		switch {
		case err != nil || st.State == "": // not understood, by another version of nuc
			err = errors.New("no status")
		case st.State != supervisor.Stopped && st.State != supervisor.Failed:
			up = true
			seen(&st)
		case up:
			up = false
			seen(nil)
		}
	}
	if up {
		seen(nil)
	}
	if time.Since(begun) > lastPause {
		f.pause = firstPause
	} else if ctx.Err() == nil {
		f.sleep(ctx)
	}
	return true
}

// wait waits for a start.
func (f *follower) wait(ctx context.Context, failure error) {
	if f.watch == nil {
		watch, err := f.container.Watch()
		if err != nil {
			f.sleep(ctx) // no inotify instance is left to the user
			return
		}
		// It may have started before it was watched: another look first.
		f.watch = watch
		return
	}
	timeout := time.Duration(0)
	if !errors.Is(failure, supervisor.ErrNotRunning) {
		timeout = lastPause
	}
	defer context.AfterFunc(ctx, f.watch.Close)()
	if f.watch.Wait(timeout) != nil {
		f.unwatch()
		f.sleep(ctx)
	}
}

func (f *follower) unwatch() {
	if f.watch != nil {
		f.watch.Close()
		f.watch = nil
	}
}

// sleep pauses, longer each time.
func (f *follower) sleep(ctx context.Context) {
	select {
	case <-time.After(f.pause):
	case <-ctx.Done():
	}
	f.pause = min(2*f.pause, lastPause)
}
