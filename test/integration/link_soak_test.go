package integration

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// TestLinkSoak has many short connections go through a link, while its container
// is restarted twice. None may be lost that begins and ends while the container
// is up, and none may hang.
//
// `make soak` runs it for ten minutes at 1,000 connections a second, and then the
// rate counts too; NUC_SOAK sets the time.
func TestLinkSoak(t *testing.T) {
	long, duration := false, 20*time.Second
	if text := os.Getenv("NUC_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("NUC_SOAK: %v", err)
		}
		long, duration = true, d
	}
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, func(d map[string]any) { d["ready"] = map[string]any{"units": []string{"nginx.service"}} })
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		s := &soak{address: fmt.Sprintf("127.0.0.1:%d", number)}
		var restarts sync.WaitGroup
		restarts.Go(func() {
			for range 2 {
				time.Sleep(duration / 3)
				from := time.Now()
				r := h.Nuc("restart", "web")
				harness.Eventually(h, patience, "the link leads to web again", func() bool { return s.connect() == nil })
				s.down(from, time.Now())
				if r.Code != 0 {
					h.Errorf("%s", r)
				}
			}
		})
		const rate = 1000
		begun := time.Now()
		s.run(rate, duration)
		took := time.Since(begun)
		restarts.Wait()
		lost, refused := s.judge()
		h.Logf("%d connections in %s, %d while web was restarted failed", s.count, took.Round(time.Millisecond), refused)
		for i, one := range lost {
			h.Errorf("lost: %s after %s: %v", one.begun.Sub(begun), one.ended.Sub(one.begun), one.err)
			if i == 20 {
				h.Fatalf("and %d more", len(lost)-i)
			}
		}
		if per := float64(s.count) / took.Seconds(); long && per < 0.95*rate {
			h.Errorf("%.0f connections a second, want %d", per, rate)
		}
		if l := links(h)[fmt.Sprintf("host-%d-web-80", number)]; l.Connections != 0 {
			h.Errorf("connections that nobody has are open: %+v", l)
		}
	})
}

type soak struct {
	address string

	mu      sync.Mutex
	count   int
	failed  []attempt
	windows []attempt // in which connections may fail
}

type attempt struct {
	begun, ended time.Time
	err          error
}

// hangs is when a connection counts as hanging.
const hangs = 10 * time.Second

// connect asks for a page and reads all of it.
func (s *soak) connect() error {
	conn, err := net.DialTimeout("tcp", s.address, hangs)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(hangs))
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	page, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(page), "HTTP/1.1 200") || !strings.HasSuffix(string(page), "</html>\n") {
		return fmt.Errorf("an answer of %d bytes", len(page))
	}
	return nil
}

// run connects at a rate, for a time. On a machine that can't keep up, a limited
// number of connections is under way.
func (s *soak) run(rate int, duration time.Duration) {
	var all sync.WaitGroup
	room := make(chan struct{}, 256)
	begun := time.Now()
	for i := 0; time.Since(begun) < duration; i++ {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		room <- struct{}{}
		all.Go(func() {
			from := time.Now()
			err := s.connect()
			<-room
			s.mu.Lock()
			defer s.mu.Unlock()
			s.count++
			if err != nil {
				s.failed = append(s.failed, attempt{from, time.Now(), err})
			}
		})
	}
	all.Wait()
}

func (s *soak) down(from, to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.windows = append(s.windows, attempt{begun: from, ended: to})
}

// judge tells the lost connections from those that had no container.
func (s *soak) judge() (lost []attempt, refused int) {
	for _, f := range s.failed {
		allowed := false
		for _, w := range s.windows {
			allowed = allowed || f.begun.Before(w.ended) && f.ended.After(w.begun)
		}
		if allowed && !errors.Is(f.err, os.ErrDeadlineExceeded) {
			refused++
			continue
		}
		lost = append(lost, f)
	}
	return lost, refused
}
