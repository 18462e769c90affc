package descriptor

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Allow is one place that the way out leads to.
type Allow struct {
	// Prefix holds the addresses; it is invalid where Host is set.
	Prefix netip.Prefix
	// Host is a name, which always has a port.
	Host string
	// Port is 0 for every port and every protocol.
	Port uint16
	// Protocol is tcp or udp, or "" for both.
	Protocol string
}

// ParseAllow reads an entry of network.allow: 192.0.2.1, 10.0.0.0/8,
// 10.0.0.0/8:443, [2001:db8::/32]:443, example.org:443, and each port with
// /tcp or /udp after it.
func ParseAllow(s string) (Allow, error) {
	a, good, remedy := parseAllow(s)
	if good {
		return a, nil
	}
	p := Problem{Value: abbreviate(strconv.Quote(s)), Expected: ruleAllow.expected(), Remedy: remedy}
	return Allow{}, fmt.Errorf("%s", p)
}

func parseAllow(s string) (a Allow, good bool, remedy string) {
	target, port, hasPort := s, "", false
	if inner, found := strings.CutPrefix(s, "["); found {
		var rest string
		target, rest, found = strings.Cut(inner, "]")
		port, hasPort = strings.CutPrefix(rest, ":")
		switch {
		case !found:
			return a, false, "close the bracket"
		case !strings.Contains(target, ":"):
			return a, false, "brackets are for IPv6"
		case rest == "":
			return a, false, "write " + abbreviate(target)
		case !hasPort:
			return a, false, ""
		}
	} else if strings.Count(s, ":") == 1 {
		target, port, hasPort = strings.Cut(s, ":")
	}
	if hasPort {
		number, protocol, said := strings.Cut(port, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 || number[0] == '0' {
			return a, false, "a port is a number from 1 to 65535"
		}
		if said && protocol != TCP && protocol != UDP {
			return a, false, "what follows the port is /tcp or /udp"
		}
		a.Port, a.Protocol = uint16(n), protocol
	}
	_, err := netip.ParseAddr(target)
	isName := err != nil && !strings.ContainsAny(target, ":/")
	if isName {
		a.Host = target
		good, remedy = checkHostName(target)
	} else {
		a.Prefix, good, remedy = parsePrefix(target)
	}
	switch {
	case target == "localhost" || a.Prefix.Addr().IsLoopback():
		return a, false, "the container has its own loopback; network.hostLoopback is for the host's"
	case good && isName && !hasPort:
		return a, false, "a name needs a port: " + target + ":443"
	}
	return a, good, remedy
}

// parsePrefix reads an address or a network.
func parsePrefix(s string) (p netip.Prefix, good bool, remedy string) {
	var err error
	if strings.Contains(s, "/") {
		p, err = netip.ParsePrefix(s)
	} else {
		var address netip.Addr
		address, err = netip.ParseAddr(s)
		if address.Zone() != "" {
			return p, false, "leave the zone out"
		}
		p = netip.PrefixFrom(address, address.BitLen())
	}
	if err != nil {
		// 2001:db8::/32:443
		if i := strings.LastIndexByte(s, ':'); i > 0 {
			if _, err := netip.ParsePrefix(s[:i]); err == nil {
				return p, false, "write " + abbreviate("["+s[:i]+"]"+s[i:])
			}
		}
		return p, false, ""
	}
	switch {
	case p.Addr().Is4In6():
		return p, false, "write it as IPv4"
	case p.Masked() != p:
		return p, false, "write " + p.Masked().String()
	}
	return p, true, ""
}

// checkHostName takes what can stand in hosts(5) and be looked up.
func checkHostName(s string) (good bool, remedy string) {
	if lower := strings.ToLower(s); lower != s {
		if good, _ = checkHostName(lower); good {
			return false, "write " + lower
		}
		return false, ""
	}
	if s == "" || len(s) > 253 || s == "localhost" {
		return false, ""
	}
	digits := false
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false, ""
		}
		digits = true
		for i := range len(label) {
			c := label[i]
			if c >= '0' && c <= '9' {
				continue
			}
			digits = false
			if (c < 'a' || c > 'z') && c != '-' && c != '_' {
				return false, ""
			}
		}
	}
	// It would be taken for an address.
	return !digits, ""
}
