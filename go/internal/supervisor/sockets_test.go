package supervisor

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/keeper"
	"github.com/nix-user-containers/nuc/go/internal/seqpacket"
	"github.com/nix-user-containers/nuc/go/internal/socket"
)

// TestReceiveSockets is hostile case 32: what comes must be what was asked for.
func TestReceiveSockets(t *testing.T) {
	made, err := socket.Make(socket.TCP4, 1)
	if err != nil {
		t.Fatal(err)
	}
	listening, err := socket.Listen(socket.Place{Network: socket.TCP4, Address: "127.0.0.1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, f := range []*os.File{made[0], listening, r, w} {
			f.Close()
		}
	}()
	started := keeper.Reply{Kind: keeper.Started}
	tests := []struct {
		name  string
		reply keeper.Reply
		files []*os.File
		want  error // errors.Is; nil with ok
		ok    bool
	}{
		{"right", started, []*os.File{made[0]}, nil, true},
		{"none", started, nil, nil, false},
		{"too many", started, []*os.File{made[0], made[0]}, nil, false},
		{"listening", started, []*os.File{listening}, nil, false},
		{"a pipe", started, []*os.File{r}, nil, false},
		{"refused", keeper.Reply{Kind: keeper.Failed, Error: "bind: taken", Errno: int(unix.EADDRINUSE)}, nil, unix.EADDRINUSE, false},
		{"refused with files", keeper.Reply{Kind: keeper.Failed, Error: "x"}, []*os.File{w}, RefusedError{Text: "x"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := socketsBy(t.Context(), func(keeper.Request) (*seqpacket.Conn, error) {
				conn, peer, err := seqpacket.Pair()
				if err != nil {
					return nil, err
				}
				other, err := seqpacket.FromFile(peer)
				if err != nil {
					return nil, err
				}
				defer other.Close()
				return conn, other.Send(test.reply, test.files...)
			}, socket.TCP4, 1)
			if (err == nil) != test.ok || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("%v, %v", got, err)
			}
			for _, f := range got {
				f.Close()
			}
		})
	}
	_, err = socketsBy(t.Context(), func(keeper.Request) (*seqpacket.Conn, error) {
		conn, peer, err := seqpacket.Pair()
		peer.Close()
		return conn, err
	}, socket.TCP4, 1)
	if !errors.Is(err, ErrNotRunning) {
		t.Errorf("a keeper that is gone: %v", err)
	}
}

func TestSocketsOfStopped(t *testing.T) {
	s := idle(t)
	if f, err := Sockets(t.Context(), s.o.Container, socket.TCP4, 1); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := Listen(t.Context(), s.o.Container, keeper.Listen{Network: socket.TCP4, Address: "127.0.0.1"}, 1); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v, %v", f, err)
	}
	if f, err := DialUnix(t.Context(), s.o.Container, "/x"); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v, %v", f, err)
	}
	if err := Forget(t.Context(), s.o.Container, "/x"); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}
