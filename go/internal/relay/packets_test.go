package relay

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packetPath is a relay of datagrams to an echo.
type packetPath struct {
	t       *testing.T
	server  *Packets
	address netip.AddrPort // the relay's
	service *net.UDPConn
	served  chan struct{}
}

// newPacketPath has a relay that is bound to address (ADDRESS:0), and that
// change, unless nil, changes before it serves.
func newPacketPath(t *testing.T, address string, change func(p *Packets)) *packetPath {
	t.Helper()
	before := sockets(t)
	p := &packetPath{t: t, served: make(chan struct{})}
	p.service = packetListener(t, "127.0.0.1:0")
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		echo(p.service)
	}()
	listener := packetListener(t, address)
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	p.address = listener.LocalAddr().(*net.UDPAddr).AddrPort()
	listener.Close()
	p.server = &Packets{
		Listener: file,
		Target:   func() []End { return []End{packetsTo(p.service.LocalAddr())} },
		Timeout:  time.Minute,
		Warn:     func(what string, err error) { t.Errorf("%s: %v", what, err) },
	}
	if change != nil {
		change(p.server)
	}
	go func() {
		p.server.Serve()
		close(p.served)
	}()
	t.Cleanup(func() {
		p.server.Close()
		<-p.served
		p.service.Close()
		<-echoed
		if open := p.server.Open(); open != 0 {
			t.Errorf("%d associations are left after Close", open)
		}
		if after := sockets(t); after != before {
			t.Errorf("%d sockets are open, %d were", after, before)
		}
	})
	return p
}

func packetListener(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// echo answers each datagram with the same.
func echo(c *net.UDPConn) {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = c.WriteToUDPAddrPort(buffer[:n], from)
		}
	}
}

func packetsTo(address net.Addr) End {
	udp := address.(*net.UDPAddr).AddrPort()
	if udp.Addr().Is4() {
		return End{
			Take:    func() (*os.File, error) { return socket(unix.AF_INET, unix.SOCK_DGRAM) },
			Address: &unix.SockaddrInet4{Port: int(udp.Port()), Addr: udp.Addr().As4()},
		}
	}
	return End{
		Take:    func() (*os.File, error) { return socket(unix.AF_INET6, unix.SOCK_DGRAM) },
		Address: &unix.SockaddrInet6{Port: int(udp.Port()), Addr: udp.Addr().As16()},
	}
}

// client is connected, so that it only hears answers from where it asked.
func (p *packetPath) client(host string) *net.UDPConn {
	p.t.Helper()
	c, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(host), Port: int(p.address.Port())})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	return c
}

// asks sends one datagram and wants it back.
func asks(t *testing.T, c *net.UDPConn, text string) {
	t.Helper()
	if err := tryAsk(c, []byte(text), 10*time.Second); err != nil {
		t.Fatal(err)
	}
}

func tryAsk(c *net.UDPConn, data []byte, patience time.Duration) error {
	if _, err := c.Write(data); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	buffer := make([]byte, 1<<16)
	n, err := c.Read(buffer)
	if err != nil {
		return err
	}
	if !bytes.Equal(buffer[:n], data) {
		return fmt.Errorf("%d bytes came back, other than the %d sent", n, len(data))
	}
	return nil
}

// eventuallyAsks asks until there is an answer: a datagram, or an answer to one
// from before, may be lost.
func eventuallyAsks(t *testing.T, c *net.UDPConn, otherwise string) {
	t.Helper()
	for i, deadline := 0, time.Now().Add(10*time.Second); tryAsk(c, fmt.Append(nil, "now ", i), 200*time.Millisecond) != nil; i++ {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}

func TestPackets(t *testing.T) {
	var mu sync.Mutex
	var changes []int
	p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) {
		p.Changed = func(open int) {
			mu.Lock()
			changes = append(changes, open)
			mu.Unlock()
		}
	})
	first, second := p.client("127.0.0.1"), p.client("127.0.0.1")
	for i := range 100 {
		asks(t, first, fmt.Sprint("first ", i))
		asks(t, second, fmt.Sprint("second ", i))
	}
	for _, size := range []int{0, 1, 1472, 9000, 65507} {
		if err := tryAsk(first, bytes.Repeat([]byte{'x'}, size), 10*time.Second); err != nil {
			t.Errorf("a datagram of %d bytes: %v", size, err)
		}
	}
	if open := p.server.Open(); open != 2 {
		t.Errorf("%d associations for two clients", open)
	}
	p.server.Close()
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(changes) != "[1 0]" {
		t.Errorf("changes were told as %v, want 1 and 0", changes)
	}
}

// TestPacketBurst: as many as the sockets' buffers hold come back, each once.
func TestPacketBurst(t *testing.T) {
	p := newPacketPath(t, "127.0.0.1:0", nil)
	c := p.client("127.0.0.1")
	asks(t, c, "first")
	const burst = 100
	for i := range burst {
		if _, err := fmt.Fprintf(c, "%03d", i); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	buffer := make([]byte, 100)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for len(seen) < burst {
		n, err := c.Read(buffer)
		if err != nil {
			t.Fatalf("%v after %d of %d", err, len(seen), burst)
		}
		if seen[string(buffer[:n])] {
			t.Fatalf("%s came twice", buffer[:n])
		}
		seen[string(buffer[:n])] = true
	}
}

// TestPacketAddresses: an answer comes from where the question went, whatever
// the listener is bound to.
func TestPacketAddresses(t *testing.T) {
	tests := []struct{ bound, client string }{
		{"127.0.0.1:0", "127.0.0.1"},
		{"0.0.0.0:0", "127.0.0.1"},
		{"0.0.0.0:0", "127.0.0.2"},
		{"[::1]:0", "::1"},
		{"[::]:0", "::1"},
		{"[::]:0", "127.0.0.1"},
		{"[::]:0", "127.1.2.3"},
	}
	for _, test := range tests {
		t.Run(test.bound+" "+test.client, func(t *testing.T) {
			p := newPacketPath(t, test.bound, nil)
			c := p.client(test.client)
			asks(t, c, "one")
			asks(t, c, "two")
			if open := p.server.Open(); open != 1 {
				t.Errorf("%d associations for one client", open)
			}
		})
	}
}

func TestPacketTimeout(t *testing.T) {
	gone := make(chan struct{}, 1)
	p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) {
		p.Timeout = time.Second
		p.Changed = func(open int) {
			if open == 0 {
				gone <- struct{}{}
			}
		}
	})
	c := p.client("127.0.0.1")
	// Traffic keeps it.
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		asks(t, c, "x")
		select {
		case <-gone:
			t.Fatal("an association with traffic was ended")
		default:
		}
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatal("an idle association is never ended")
	}
	asks(t, c, "again")
}

func TestPacketClients(t *testing.T) {
	p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) { p.MaxClients = 3 })
	var clients []*net.UDPConn
	for i := range 3 {
		clients = append(clients, p.client("127.0.0.1"))
		asks(t, clients[i], "x")
	}
	asks(t, clients[0], "the first is no longer the one that is idle longest")
	for i := range 10 {
		asks(t, p.client("127.0.0.1"), fmt.Sprint(i))
		asks(t, clients[0], "x")
		if open := p.server.Open(); open != 3 {
			t.Fatalf("%d associations, want 3", open)
		}
	}
}

// TestPacketRefused: a service that comes late is found by a client that asks
// again, and nobody is told before.
func TestPacketRefused(t *testing.T) {
	for _, name := range []string{"one end", "two ends"} {
		t.Run(name, func(t *testing.T) {
			reserved := packetListener(t, "127.0.0.1:0")
			address := reserved.LocalAddr()
			reserved.Close()
			ends := []End{packetsTo(address)}
			if name == "two ends" {
				ends = append(ends, packetsTo(&net.UDPAddr{IP: net.IPv6loopback, Port: address.(*net.UDPAddr).Port}))
			}
			p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) { p.Target = func() []End { return ends } })
			c := p.client("127.0.0.1")
			for range 5 {
				if err := tryAsk(c, []byte("x"), 20*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("%v, want silence", err)
				}
			}
			late, err := net.ListenUDP("udp4", address.(*net.UDPAddr))
			if err != nil {
				t.Skip("somebody else has the port now")
			}
			done := make(chan struct{})
			go func() {
				echo(late)
				close(done)
			}()
			defer func() {
				late.Close()
				<-done
			}()
			eventuallyAsks(t, c, "a client that asks again isn't answered")
		})
	}
}

// TestPacketMoves: a client that goes on sending from one socket reaches the
// service where it is now, also if it had an answer from where it was.
func TestPacketMoves(t *testing.T) {
	for _, ends := range []int{1, 2} {
		t.Run(fmt.Sprint(ends), func(t *testing.T) {
			var mu sync.Mutex
			var target []End
			lead := func(to *net.UDPConn) {
				mu.Lock()
				defer mu.Unlock()
				at := to.LocalAddr().(*net.UDPAddr)
				target = []End{packetsTo(at), packetsTo(&net.UDPAddr{IP: net.IPv6loopback, Port: at.Port})}[:ends]
			}
			p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) {
				p.Target = func() []End {
					mu.Lock()
					defer mu.Unlock()
					return target
				}
			})
			lead(p.service)
			c := p.client("127.0.0.1")
			asks(t, c, "before")

			other := packetListener(t, "127.0.0.1:0")
			done := make(chan struct{})
			go func() {
				echo(other)
				close(done)
			}()
			defer func() {
				other.Close()
				<-done
			}()
			lead(other)
			asks(t, c, "still at the first one, which is there")
			p.server.Forget()
			eventuallyAsks(t, c, "the client does not reach the other one")
			if open := p.server.Open(); open != 1 {
				t.Errorf("%d associations for one client", open)
			}

			late := packetListener(t, "127.0.0.1:0")
			go echo(late)
			defer late.Close()
			other.Close()
			lead(late)
			eventuallyAsks(t, c, "the client hears no more once the service that answered has gone")
		})
	}
}

// TestPacketEnds: the first datagram reaches the end that takes it.
func TestPacketEnds(t *testing.T) {
	six := packetListener(t, "[::1]:0")
	done := make(chan struct{})
	go func() {
		echo(six)
		close(done)
	}()
	t.Cleanup(func() {
		six.Close()
		<-done
	})
	nobody := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1).To4(), Port: six.LocalAddr().(*net.UDPAddr).Port}
	gone := End{Take: func() (*os.File, error) { return nil, unix.ENXIO }}
	p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) {
		p.Target = func() []End { return []End{gone, packetsTo(nobody), packetsTo(six.LocalAddr())} }
	})
	c := p.client("127.0.0.1")
	asks(t, c, "first")
	asks(t, c, "second")
}

// TestPacketsWait: what comes before there is a socket is sent once there is one.
func TestPacketsWait(t *testing.T) {
	wait := make(chan struct{})
	p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) {
		ends := p.Target()
		take := ends[0].Take
		ends[0].Take = func() (*os.File, error) {
			<-wait
			return take()
		}
		p.Target = func() []End { return ends }
	})
	c := p.client("127.0.0.1")
	for i := range 3 {
		fmt.Fprint(c, i)
	}
	close(wait)
	buffer := make([]byte, 10)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	for i := range 3 {
		if n, err := c.Read(buffer); err != nil || string(buffer[:n]) != fmt.Sprint(i) {
			t.Fatalf("%s, %v, want %d", buffer[:n], err, i)
		}
	}
}

func TestPacketsUnreachable(t *testing.T) {
	warned := make(chan error, 10)
	p := newPacketPath(t, "127.0.0.1:0", func(p *Packets) {
		p.Target = func() []End { return nil }
		p.Warn = func(_ string, err error) { warned <- err }
	})
	c := p.client("127.0.0.1")
	for range 5 {
		fmt.Fprint(c, "x")
	}
	<-warned
	quietly := time.After(50 * time.Millisecond)
	select {
	case err := <-warned:
		t.Errorf("the same is said for each datagram: %v", err)
	case <-quietly:
	}
}

func TestPacketsCloseWhileBusy(t *testing.T) {
	for range 20 {
		p := newPacketPath(t, "127.0.0.1:0", nil)
		c := p.client("127.0.0.1")
		stop := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					fmt.Fprint(c, "x")
				}
			}
		})
		time.Sleep(time.Millisecond)
		p.server.Close()
		close(stop)
		all.Wait()
	}
}

func TestPacketsNeverServed(t *testing.T) {
	l := packetListener(t, "127.0.0.1:0")
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p := &Packets{Listener: file}
	p.Close()
	p.Close()
	p.Serve()
}
