package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// undoing is what root of a container tries, so that the limits are no more. The
// control is the same where it has to be done differently without limits: undone
// afterwards, with an object of one's own, or without a user namespace, whose
// rights never reach what is outside of it.
var undoing = []struct{ attempt, control string }{
	{attempt: "nft flush ruleset"},
	// That table is the keeper's, limits or not.
	{"nft delete table inet nuc", "nft add table inet mine && nft delete table inet mine"},
	{attempt: "nft add table inet mine"},
	{attempt: "ip route add 198.51.100.8 dev lo"},
	{"ip link set eth0 name mine", "ip link set eth0 name mine && ip link set mine name eth0"},
	{attempt: "ip link add x type veth peer name y"},
	{"unshare -Ur nft flush ruleset", "nft flush ruleset"},
	{"exec 3</proc/1/ns/net; unshare -Ur nsenter --net=/proc/self/fd/3 nft flush ruleset", "exec 3</proc/1/ns/net; nsenter --net=/proc/self/fd/3 nft flush ruleset"},
	{
		"exec 3</proc/1/ns/net; unshare -Urn ip link add in type veth peer name out netns /proc/self/fd/3",
		"exec 3</proc/1/ns/net; unshare -n ip link add in type veth peer name out netns /proc/self/fd/3",
	},
	{attempt: "systemd-run --wait -q -p AmbientCapabilities=CAP_NET_ADMIN -p CapabilityBoundingSet=~ nft flush ruleset"},
	// A frame that the rules of the IP layer don't see.
	{attempt: `perl -e 'socket(S, 17, 3, 0) or exit 1'`},
	{attempt: `perl -e 'socket(S, 2, 3, 255) or exit 1'`},
	// To where there are no rules. It does not come back, so this is the last.
	{attempt: "unshare -Urn sleep 5 & sleep 0.5; ip link set eth0 netns $!"},
}

// TestAllow limits the way out, and has the container's root try to undo it.
func TestAllow(t *testing.T) {
	for name, options := range map[string][]harness.Option{"user": nil, "root": {harness.AsRoot()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := outside(t, options...)
			h.ServeWeb(h.Outside.Listen("tcp", ":81"))
			h.ServeWeb(h.Outside.Listen("tcp", ":82"))
			h.Up("web", "trixie", allowing(harness.OutsideAddress4+":80/tcp", "2001:db8:2::/64", "outside.test:81"))
			h.AwaitOutside("web")
			harness.Eventually(h, patience, "the name is allowed once it is looked up", func() bool {
				return h.Curl("web", "http://outside.test:81/") == nil
			})
			check := func(when string) {
				h.Helper()
				for _, open := range []string{
					harness.OutsideAddress4 + ":80", harness.OutsideAddress4 + ":81", "[" + harness.OutsideAddress6 + "]:80",
					"[" + harness.OutsideOther6 + "]:82", "outside.test:81",
				} {
					if err := h.Curl("web", "http://"+open+"/"); err != nil {
						h.Errorf("%s: allowed: %v", when, err)
					}
				}
				const refused = 7 // curl's
				for _, shut := range []string{
					harness.OutsideAddress4 + ":82", harness.OutsideOther4 + ":80", harness.OutsideRouter4 + ":80", "[" + harness.OutsideRouter6 + "]:80",
				} {
					if r := h.Exec("web", "curl", "-gsS", "--max-time", "10", "http://"+shut+"/"); r.Code != refused {
						h.Errorf("%s: not allowed, and not refused at once:\n%s", when, r)
					}
				}
			}
			check("as it is")
			// What fails here is done in a container without limits, so that it is not
			// the command that fails.
			h.Up("free", "trixie", ephemeral)
			h.AwaitOutside("free")
			for _, test := range undoing {
				if test.control == "" {
					test.control = test.attempt
				}
				if r := h.Exec("free", "sh", "-c", test.control); r.Code != 0 {
					h.Errorf("%s fails without network.allow:\n%s", test.control, r)
				}
				if r := h.Exec("web", "sh", "-c", test.attempt); r.Code == 0 {
					h.Errorf("%s succeeds inside:\n%s", test.attempt, r)
				}
			}
			check("after all attempts")
			if left := h.Must("exec", "web", "sh", "-c", "grep -h CapBnd /proc/1/status /proc/self/status | sort -u | wc -l"); left != "1" {
				h.Errorf("init and exec have not the same rights: %s", left)
			}
			// Other limits come at once.
			h.Must("switch", "web", h.OnTree("web", "trixie", allowing(harness.OutsideAddress4+":82")))
			harness.Eventually(h, patience, "the new limit is in force", func() bool {
				return h.Curl("web", "http://"+harness.OutsideAddress4+":82/") == nil && h.Curl("web", "http://"+harness.OutsideAddress4+":80/") != nil
			})
		})
	}
}

// TestAllowName: a name is allowed once it can be looked up, and where it leads to
// next as soon as the container knows of it.
func TestAllowName(t *testing.T) {
	t.Parallel()
	h := outside(t)
	h.ServeWeb(h.Outside.Listen("tcp", ":81"))
	h.Outside.Resolve("nameserver " + harness.OutsideAddress4 + "\n") // where nobody answers yet
	h.Up("web", "trixie", allowing(harness.OutsideAddress4+":80", "moving.test:81"))
	h.AwaitOutside("web")
	time.Sleep(2 * time.Second)
	at := harness.OutsideAddress4 + ":53"
	records{"moving.test.": {harness.OutsideAddress4}}.serve(h, h.Outside.Listen("tcp", at), h.Outside.ListenPacket("udp", at))
	harness.Eventually(h, patience, "the name is allowed once its server is up", func() bool {
		return h.Curl("web", "http://"+harness.OutsideAddress4+":81/") == nil
	})
	if h.Curl("web", "http://"+harness.OutsideOther4+":81/") == nil {
		h.Error("an address is open that the name does not lead to")
	}
	if r := h.Nuc("status", "web"); strings.Contains(r.Stdout, "moving.test") {
		h.Errorf("a server that came late is held against the name:\n%s", r)
	}
	at = harness.OutsideAddress6
	records{"moving.test.": {harness.OutsideOther4}}.serve(h, h.Outside.Listen("tcp", "["+at+"]:53"), h.Outside.ListenPacket("udp", "["+at+"]:53"))
	h.Outside.Resolve("nameserver " + at + "\n")
	for _, url := range []string{"http://moving.test:81/", "http://" + harness.OutsideOther4 + ":81/", "http://" + harness.OutsideAddress4 + ":81/"} {
		if err := h.Curl("web", url); err != nil {
			h.Errorf("once the name leads elsewhere: %v", err)
		}
	}
	at = harness.OutsideOther6
	records{"moving.test.": {harness.OutsideAddress6}}.serve(h, h.Outside.Listen("tcp", "["+at+"]:53"), h.Outside.ListenPacket("udp", "["+at+"]:53"))
	h.Outside.Resolve("nameserver " + at + "\n")
	if got := dig(inside(h, "web"), "+tcp", "moving.test", "AAAA"); got.answers != harness.OutsideAddress6 {
		h.Errorf("over TCP: %s", got)
	}
	if err := h.Curl("web", "http://["+harness.OutsideAddress6+"]:81/"); err != nil {
		h.Errorf("told over TCP where the name leads: %v", err)
	}
}

// TestAllowMany: a long list is in force as a short one is.
func TestAllowMany(t *testing.T) {
	t.Parallel()
	h := outside(t)
	h.ServeWeb(h.Outside.Listen("tcp", ":81"))
	var entries []string
	for i := range 1000 {
		entries = append(entries, fmt.Sprintf("198.18.%d.%d:443/tcp", i>>8, i&0xff))
	}
	h.Up("web", "trixie", allowing(append(entries, harness.OutsideAddress4+":80")...))
	h.AwaitOutside("web")
	for _, shut := range []string{harness.OutsideAddress4 + ":81", harness.OutsideOther4 + ":80"} {
		if h.Curl("web", "http://"+shut+"/") == nil {
			h.Errorf("%s is open", shut)
		}
	}
}

func allowing(entries ...string) func(d map[string]any) {
	return func(d map[string]any) { d["network"] = map[string]any{"allow": entries} }
}

// TestAllowHost opens the one address of the host that is named.
func TestAllowHost(t *testing.T) {
	t.Parallel()
	h := outside(t)
	h.ServeWeb(h.Outside.ListenOnHost("tcp", ":8000"))
	h.Up("web", "trixie", allowing("192.0.2.0/24", harness.OutsideAddress4, harness.HostAddress4+":8000"))
	h.AwaitOutside("web")
	if err := h.Curl("web", "http://"+harness.HostAddress4+":8000/"); err != nil {
		h.Error(err)
	}
	if h.Curl("web", "http://"+harness.HostSecond4+":8000/") == nil {
		h.Error("a network that an address of the host's is in opens that address")
	}
}

// TestDeclaredNames has names in /etc/hosts, and changes them live.
func TestDeclaredNames(t *testing.T) {
	t.Parallel()
	h := outside(t)
	h.Outside.Resolve("")
	network := func(members map[string]any) func(d map[string]any) {
		return func(d map[string]any) { d["network"], d["dependsOn"] = members, []string{"db"} }
	}
	h.Up("db", "trixie", ephemeral)
	h.Up("web", "trixie", network(map[string]any{
		"hosts": map[string]any{"mail.internal": harness.OutsideAddress4, "six.internal": harness.OutsideAddress6},
	}))
	address := func(name string) string {
		fields := strings.Fields(h.Exec("web", "getent", "ahosts", name).Stdout)
		if len(fields) == 0 {
			return ""
		}
		return fields[0]
	}
	for name, want := range map[string]string{
		"mail.internal": harness.OutsideAddress4, "six.internal": harness.OutsideAddress6, "web": "127.0.1.1", "outside.test": "",
	} {
		if got := address(name); got != want {
			h.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if peer := net.ParseIP(address("db")); peer == nil || !peer.IsLoopback() || peer.String() == "127.0.0.1" {
		h.Errorf("db, which web depends on, is %v, want a loopback address of its own", peer)
	}
	h.AwaitOutside("web")
	r := h.Nuc("switch", "web", h.OnTree("web", "trixie", network(map[string]any{
		"hosts": map[string]any{"mail.internal": harness.OutsideOther4}, "dns": []string{harness.OutsideOther4},
	})))
	if r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, "restart") {
		h.Errorf("names don't change live: %s", r)
	}
	for name, want := range map[string]string{"mail.internal": harness.OutsideOther4, "six.internal": ""} {
		if got := address(name); got != want {
			h.Errorf("after the switch, %s is %q, want %q", name, got, want)
		}
	}
	if err := h.Curl("web", "http://outside.test/"); err != nil {
		h.Errorf("network.dns is not asked: %v", err)
	}
}
