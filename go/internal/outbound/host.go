package outbound

import (
	"bufio"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Host follows the host's routes and addresses. It sleeps until one changes.
type Host struct {
	socket *os.File
	ended  chan struct{}

	mu        sync.Mutex
	followers map[chan struct{}]bool
}

// FollowHost begins to follow (rtnetlink(7)).
func FollowHost() (*Host, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	const groups = unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	h := &Host{socket: os.NewFile(uintptr(fd), "rtnetlink"), ended: make(chan struct{}), followers: map[chan struct{}]bool{}}
	go h.run()
	return h, nil
}

func (h *Host) run() {
	defer close(h.ended)
	buf := make([]byte, 8<<10)
	for {
		// What it says does not matter, and what is cut off neither.
		if _, err := h.socket.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		h.mu.Lock()
		for c := range h.followers {
			select {
			case c <- struct{}{}:
			default:
			}
		}
		h.mu.Unlock()
	}
}

// Follow returns a channel that gets a word after changes, and how to leave.
func (h *Host) Follow() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	h.mu.Lock()
	h.followers[c] = true
	h.mu.Unlock()
	return c, func() {
		h.mu.Lock()
		delete(h.followers, c)
		h.mu.Unlock()
	}
}

// Close ends it.
func (h *Host) Close() {
	h.socket.Close()
	<-h.ended
}

// Addresses are the host's own, each once, but for those of its loopback network
// and IPv6's link-local ones.
func Addresses() ([]netip.Addr, error) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var addresses []netip.Addr
	for _, a := range found {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ip = ip.Unmap()
		if ok && !ip.IsLoopback() && !(ip.Is6() && ip.IsLinkLocalUnicast()) {
			addresses = append(addresses, ip)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses), nil
}

// routes tells which families have a default route that a driver can use. With
// IPv6, pasta wants a link-local address where it leads, which appears a moment
// after the link does.
type routes struct{ v4, v6 bool }

// netFolder is proc_net(5)'s.
const netFolder = "/proc/net"

// defaultRoutes reads proc_net(5)'s route, ipv6_route and if_inet6.
func defaultRoutes(folder string) routes {
	const up, reject = 0x1, 0x200 // RTF_UP, RTF_REJECT of linux/route.h
	const linkLocal = "20"        // IPV6_ADDR_LINKLOCAL of net/ipv6.h
	var r routes
	links := map[string]bool{}
	each(filepath.Join(folder, "if_inet6"), func(f []string) {
		if len(f) > 5 && f[3] == linkLocal {
			links[f[5]] = true
		}
	})
	each(filepath.Join(folder, "route"), func(f []string) {
		if len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" && flags(f[3])&(up|reject) == up {
			r.v4 = true
		}
	})
	each(filepath.Join(folder, "ipv6_route"), func(f []string) {
		if len(f) > 9 && strings.Trim(f[0], "0") == "" && f[1] == "00" && flags(f[8])&(up|reject) == up && links[f[9]] {
			r.v6 = true
		}
	})
	return r
}

func flags(hex string) uint64 {
	n, _ := strconv.ParseUint(hex, 16, 64)
	return n
}

func each(path string, line func(fields []string)) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line(strings.Fields(lines.Text()))
	}
}
