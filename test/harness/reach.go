package harness

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Gateways are the addresses of the host in a container's network.
var Gateways = []string{"10.117.99.2", "fd6e:7563::2"}

// HostAddresses are all that could be the host, seen from a container of an
// Outside.
func HostAddresses() []string {
	return append([]string{
		"127.0.0.1", "::1", "0.0.0.0", "127.1.1.53", "10.117.99.3", "fd00::2", "169.254.1.1",
		HostAddress4, HostAddress6, HostSecond4, HostSecond6,
	}, Gateways...)
}

// greeting is what a web server of ServeWeb's says.
const greeting = "hello from the outside"

// ServeWeb has a web server at a listener, until the test ends.
func (h *H) ServeWeb(l net.Listener) {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, greeting)
	})}
	go func() { _ = server.Serve(l) }()
	h.Cleanup(func() { server.Close() })
}

// Curl fetches a page of such a web server from inside a container.
func (h *H) Curl(name, url string) error {
	h.Helper()
	r := h.Exec(name, "curl", "-gsS", "--max-time", "10", url)
	if r.Code != 0 || !strings.Contains(r.Stdout, greeting) {
		return fmt.Errorf("curl %s: status %d after %s: %s%s", url, r.Code, r.Duration.Round(time.Millisecond), r.Stdout, r.Stderr)
	}
	return nil
}

// AwaitOutside waits until a container reaches the outside, where there has to be
// a web server: nobody waits for that at its start.
func (h *H) AwaitOutside(name string) {
	h.Helper()
	const patience = 30 * time.Second
	Eventually(h, patience, "the container reaches the outside", func() bool {
		return h.Curl(name, "http://"+OutsideAddress4+"/") == nil
	})
	Eventually(h, patience, "the container has IPv6, which comes second", func() bool {
		return h.Exec(name, "ip", "-6", "route", "show", "default").Stdout != ""
	})
}

// Witness is a service that tells whether it was reached.
type Witness struct{ streams, datagrams atomic.Int64 }

// Met is how often it was reached, and Datagrams how often by one.
func (w *Witness) Met() int64       { return w.streams.Load() + w.datagrams.Load() }
func (w *Witness) Datagrams() int64 { return w.datagrams.Load() }

// Forget has it reached by nobody.
func (w *Witness) Forget() {
	w.streams.Store(0)
	w.datagrams.Store(0)
}

// Witness listens with everything that the test's own host has: streams and
// datagrams on a port of both families and, unless it is "", an abstract socket.
// Nobody in a container may reach it.
func (h *H) Witness(port int, abstract string) *Witness {
	h.Helper()
	address := fmt.Sprintf(":%d", port)
	w := &Witness{}
	w.hear(h.Outside.ListenOnHost("tcp", address), h.Outside.ListenPacketOnHost("udp", address))
	if abstract != "" {
		w.accept(h.Outside.ListenOnHost("unix", abstract))
	}
	return w
}

// WitnessBeyond listens to streams and datagrams beyond the host. Containers may
// reach it, which shows what a Witness would see.
func (h *H) WitnessBeyond(port int) *Witness {
	h.Helper()
	address := fmt.Sprintf(":%d", port)
	w := &Witness{}
	w.hear(h.Outside.Listen("tcp", address), h.Outside.ListenPacket("udp", address))
	return w
}

func (w *Witness) hear(l net.Listener, p net.PacketConn) {
	w.accept(l)
	go func() {
		for buf := make([]byte, 1500); ; w.datagrams.Add(1) {
			if _, _, err := p.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
}

func (w *Witness) accept(l net.Listener) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.streams.Add(1)
			c.Close()
		}
	}()
}

// Reaches sends from a container to a port of each address with TCP and UDP, all
// at once, and tells which took a connection.
func (h *H) Reaches(name string, port int, addresses []string) []string {
	h.Helper()
	const script = `for a; do
	(timeout 2 bash -c "exec 3<>/dev/tcp/$a/$PORT" 2>/dev/null && echo "$a") &
	(timeout 2 bash -c "echo x >/dev/udp/$a/$PORT" 2>/dev/null) &
done; wait`
	r := h.Nuc(append([]string{"exec", "-e", "PORT=" + strconv.Itoa(port), name, "bash", "-c", script, "bash"}, addresses...)...)
	if r.Code != 0 {
		h.Fatalf("%s", r)
	}
	return strings.Fields(r.Stdout)
}
