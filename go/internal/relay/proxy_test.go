package relay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// introduction is what a header of the PROXY protocol says.
type introduction struct {
	local    bool
	from, to netip.AddrPort
}

// readIntroduction parses a header, by the words of haproxy's proxy-protocol.txt
// (section 2.2) and with nothing of the relay's.
func readIntroduction(r io.Reader) (introduction, error) {
	var in introduction
	fixed := make([]byte, 16)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return in, err
	}
	if !bytes.Equal(fixed[:12], []byte{0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a}) {
		return in, fmt.Errorf("signature %x", fixed[:12])
	}
	if version := fixed[12] >> 4; version != 2 {
		return in, fmt.Errorf("version %d", version)
	}
	rest := make([]byte, binary.BigEndian.Uint16(fixed[14:]))
	if _, err := io.ReadFull(r, rest); err != nil {
		return in, err
	}
	command, family, transport := fixed[12]&0xf, fixed[13]>>4, fixed[13]&0xf
	if command == 0 {
		in.local = true
		return in, nil
	}
	size := map[byte]int{1: 4, 2: 16}[family]
	if command != 1 || size == 0 || transport != 1 || len(rest) != 2*size+4 {
		return in, fmt.Errorf("command %d, family %d, transport %d, %d bytes", command, family, transport, len(rest))
	}
	from, _ := netip.AddrFromSlice(rest[:size])
	to, _ := netip.AddrFromSlice(rest[size : 2*size])
	in.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(rest[2*size:]))
	in.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(rest[2*size+2:]))
	return in, nil
}

func TestProxyProtocol(t *testing.T) {
	folder := t.TempDir()
	tests := []struct {
		name, network, bound, dialled string
	}{
		{"IPv4", "tcp4", "127.0.0.1:0", "127.0.0.1"},
		{"another address", "tcp4", "0.0.0.0:0", "127.0.0.3"},
		{"IPv6", "tcp6", "[::1]:0", "::1"},
		{"IPv4 on IPv6", "tcp", "[::]:0", "127.0.0.1"},
		{"Unix", "unix", filepath.Join(folder, "socket"), ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			service := listen(t)
			defer service.Close()
			l, err := net.Listen(test.network, test.bound)
			if err != nil {
				t.Fatal(err)
			}
			file, err := l.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			if tcp, ok := l.Addr().(*net.TCPAddr); ok {
				address = net.JoinHostPort(test.dialled, fmt.Sprint(tcp.Port))
				l.Close()
			} else {
				l.(*net.UnixListener).SetUnlinkOnClose(false)
				l.Close()
			}
			s := &Server{Listener: file, Target: func() []End { return []End{to(service.Addr())} }, ProxyProtocol: true}
			go s.Serve()
			defer s.Close()
			c, err := net.Dial(strings.TrimRight(test.network, "46"), address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// A service may speak first, so the header doesn't wait for the client.
			_ = service.SetDeadline(time.Now().Add(20 * time.Second))
			accepted, err := service.AcceptTCP()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			_ = accepted.SetDeadline(time.Now().Add(20 * time.Second))
			reader := bufio.NewReader(accepted)
			got, err := readIntroduction(reader)
			if err != nil {
				t.Fatal(err)
			}
			want := introduction{local: test.network == "unix"}
			if !want.local {
				want.from, want.to = netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
			}
			if got != want {
				t.Errorf("the header says %+v, want %+v", got, want)
			}
			fmt.Fprintln(c, "hello")
			if line, err := reader.ReadString('\n'); line != "hello\n" {
				t.Errorf("%q, %v after the header", line, err)
			}
		})
	}
}
