package relay

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// TestCloseIdle closes a relay again and again while clients come and go: none of
// them may be accepted and then ended.
func TestCloseIdle(t *testing.T) {
	before := sockets(t)
	service := listen(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := service.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	listener, address := listening(t)
	serve := func() *Server {
		s := &Server{Listener: dup(t, listener), Target: func() []End { return []End{to(service.Addr())} }}
		go s.Serve()
		return s
	}
	s := serve()
	ask := func(c net.Conn, text string) error {
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		answer := make([]byte, len(text))
		_, err := io.ReadFull(c, answer)
		return err
	}
	resting, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(resting, "first"); err != nil {
		t.Fatal(err)
	}
	if s.CloseIdle() {
		t.Fatal("a relay with a connection counts as idle")
	}
	if err := ask(resting, "second"); err != nil {
		t.Errorf("after CloseIdle of one that is not: %v", err)
	}
	if other, err := dial(address); err != nil {
		t.Error(err)
	} else {
		if err := ask(other, "third"); err != nil {
			t.Errorf("a client after that: %v", err)
		}
		other.Close()
	}
	resting.Close()

	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c, err := dial(address)
				if err == nil {
					err = ask(c, fmt.Sprint(i))
					c.Close()
				}
				if err != nil {
					t.Errorf("a client of a relay that is closed when idle: %v", err)
					return
				}
				time.Sleep(time.Duration(i%5) * 100 * time.Microsecond)
			}
		})
	}
	closed := 0
	for end := time.Now().Add(10 * time.Second); closed < 100 && time.Now().Before(end); {
		if s.CloseIdle() {
			closed++
			s = serve()
		}
	}
	close(stop)
	clients.Wait()
	if closed == 0 {
		t.Error("it was never idle")
	}
	s.Close()
	listener.Close()
	service.Close()
	serving.Wait()
	if after := sockets(t); after != before {
		t.Errorf("%d sockets are open, %d were", after, before)
	}
}

// dup returns another file of the same socket.
func dup(t *testing.T, f *os.File) *os.File {
	t.Helper()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	copied, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

func TestPacketsCloseIdle(t *testing.T) {
	p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) { p.Timeout = 50 * time.Millisecond })
	asks(t, p.client("127.0.0.1"), "x")
	for end := time.Now().Add(10 * time.Second); !p.server.CloseIdle(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is never idle")
		}
		if open := p.server.Open(); open == 0 {
			continue
		}
	}
	if open := p.server.Open(); open != 0 {
		t.Errorf("closed as idle, with %d associations", open)
	}
	<-p.served
}
