package integration

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// Texts that don't fit: into a datagram without EDNS, and into one of 4096 bytes.
var (
	longText = strings.Repeat("long ", 600)
	hugeText = strings.Repeat("huge ", 1000)
)

// dug is what dig says.
type dug struct {
	harness.Result
	answers string // its strings joined
}

var answerLine = regexp.MustCompile(`(?m)^[^;\s]\S*\s+\d+\s+IN\s+(?:A|AAAA|TXT)\s+(.*)$`)

// dig asks, at once: a second try would hide what is lost.
func dig(run client, words ...string) dug {
	r := run("dig", append([]string{"+tries=1", "+time=10"}, words...)...)
	d := dug{Result: r}
	for _, found := range answerLine.FindAllStringSubmatch(r.Stdout, -1) {
		d.answers += strings.ReplaceAll(strings.Trim(found[1], `"`), `" "`, "")
	}
	return d
}

// says tells whether the answer's comments have all of this.
func (d dug) says(texts ...string) bool {
	for _, text := range texts {
		if !strings.Contains(d.Stdout, text) {
			return false
		}
	}
	return d.Code == 0
}

// TestDigInside asks the forwarder that a container has for a name server.
func TestDigInside(t *testing.T) {
	t.Parallel()
	h := harness.New(t, harness.WithOutside())
	zone := records{
		"outside.test.": {harness.OutsideAddress4, harness.OutsideAddress6},
		"long.test.":    {longText}, "huge.test.": {hugeText},
	}
	zone.serve(h, h.Outside.Listen("tcp", harness.OutsideOther4+":53"), h.Outside.ListenPacket("udp", harness.OutsideOther4+":53"))
	h.Outside.Resolve("nameserver " + harness.OutsideOther4 + "\n")
	h.Up("web", "trixie", nil)
	ask := func(words ...string) dug { return dig(inside(h, "web"), append([]string{"@127.1.1.53"}, words...)...) }
	const udp, tcp, truncated = "(127.1.1.53) (UDP)", "(127.1.1.53) (TCP)", "flags: qr tc "
	for _, test := range []struct {
		words   string
		answers string
		says    []string
	}{
		{"outside.test A", harness.OutsideAddress4, []string{udp, "status: NOERROR", "EDNS: version: 0"}},
		{"outside.test AAAA +noedns", harness.OutsideAddress6, []string{udp, "status: NOERROR"}},
		{"+tcp outside.test A", harness.OutsideAddress4, []string{tcp, "status: NOERROR"}},
		{"+tcp outside.test AAAA", harness.OutsideAddress6, []string{tcp, "EDNS: version: 0"}},
		{"nowhere.test A", "", []string{udp, "status: NXDOMAIN"}},
		{"+tcp nowhere.test A", "", []string{tcp, "status: NXDOMAIN"}},
		// What does not fit is left to TCP, by the client's own decision.
		{"+noedns +ignore long.test TXT", "", []string{udp, truncated}},
		{"+noedns long.test TXT", longText, []string{tcp, "Truncated, retrying in TCP mode"}},
		{"+bufsize=4096 +ignore long.test TXT", longText, []string{udp, "udp: 4096"}},
		{"+bufsize=4096 +ignore huge.test TXT", "", []string{udp, truncated}},
		{"+bufsize=4096 huge.test TXT", hugeText, []string{tcp, "Truncated, retrying in TCP mode"}},
		{"+tcp huge.test TXT", hugeText, []string{tcp}},
		// Two questions on one connection.
		{"+tcp +keepopen outside.test A outside.test AAAA", harness.OutsideAddress4 + harness.OutsideAddress6, []string{tcp}},
	} {
		if got := ask(strings.Fields(test.words)...); got.answers != test.answers || !got.says(test.says...) {
			h.Errorf("dig %s: got %.40q…, want %.40q… and %q\n%.2000s", test.words, got.answers, test.answers, test.says, got)
		}
	}
	// As a program asks that knows of no forwarder.
	if got := dig(inside(h, "web"), "+tcp", "outside.test"); got.answers != harness.OutsideAddress4 || !got.says(tcp) {
		h.Errorf("by /etc/resolv.conf: %s", got)
	}

	// The second server, when the first refuses; and none at all.
	h.Outside.Resolve("nameserver 127.0.0.54\nnameserver " + harness.OutsideOther4 + "\n")
	for _, words := range [][]string{{"outside.test"}, {"+tcp", "outside.test"}} {
		if got := ask(words...); got.answers != harness.OutsideAddress4 || got.Duration > 5*time.Second {
			h.Errorf("with a first server that refuses: %s", got)
		}
	}
	// One that is silent: the router drops what is for nobody.
	h.Outside.Resolve("nameserver 198.51.100.99\nnameserver " + harness.OutsideOther4 + "\n")
	for _, words := range [][]string{{"outside.test"}, {"+tcp", "outside.test"}} {
		if got := ask(words...); got.answers != harness.OutsideAddress4 || got.Duration < time.Second || got.Duration > 5*time.Second {
			h.Errorf("with a first server that is silent: %s", got)
		}
	}
	h.Outside.Resolve("nameserver 127.0.0.54\n")
	for _, words := range [][]string{{"outside.test"}, {"+tcp", "outside.test"}} {
		if got := ask(words...); !got.says("status: SERVFAIL") || got.Duration > 5*time.Second {
			h.Errorf("with no server: %s", got)
		}
	}
}

// TestDigLink has a name server in a container, and links of both kinds to it.
func TestDigLink(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("dns", tree, ephemeral)
		h.Up("app", tree, func(d map[string]any) {
			ephemeral(d)
			datagrams := linked(53, "dns", 53)
			datagrams["protocol"] = "udp"
			d["links"] = []any{linked(53, "dns", 53), datagrams}
		})
		text := func(s string) string {
			var parts []string
			for len(s) > 0 {
				n := min(len(s), 250)
				parts, s = append(parts, s[:n]), s[n:]
			}
			return strings.Join(parts, ",")
		}
		install(h, "dns", map[string]string{"/run/dns": "exec dnsmasq --keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null " +
			"--listen-address=127.0.0.1 --bind-interfaces --edns-packet-max=4096 --host-record=outside.test,198.51.100.7,2001:db8:2::7 " +
			"--txt-record='long.test," + text(longText) + "' --txt-record='huge.test," + text(hugeText) + "'\n"},
			"systemd-run --quiet --unit=dns sh /run/dns")
		number := harness.FreePort(h)
		h.Must("link", "--udp", "-", fmt.Sprint(number), "dns", "53")
		h.Must("link", "-", fmt.Sprint(number), "dns", "53")
		for name, at := range map[string]struct {
			run    client
			server []string
		}{
			"host IPv4": {onHost(h), []string{"@127.0.0.1", "-p", fmt.Sprint(number)}},
			"host IPv6": {onHost(h), []string{"@::1", "-p", fmt.Sprint(number)}},
			"app":       {inside(h, "app"), []string{"@127.0.0.1"}},
			"app, name": {inside(h, "app"), []string{"@dns"}},
		} {
			ask := func(words ...string) dug { return dig(at.run, append(at.server, words...)...) }
			harness.Eventually(h, patience, name+" has an answer", func() bool { return ask("outside.test").answers == "198.51.100.7" })
			for _, test := range []struct {
				words   string
				answers string
				says    []string
			}{
				{"outside.test AAAA", "2001:db8:2::7", []string{"(UDP)", "EDNS: version: 0"}},
				{"+tcp outside.test A", "198.51.100.7", []string{"(TCP)"}},
				{"+noedns +ignore long.test TXT", "", []string{"(UDP)", " tc"}},
				{"+noedns long.test TXT", longText, []string{"(TCP)"}},
				{"+bufsize=4096 +ignore long.test TXT", longText, []string{"(UDP)"}},
				{"+bufsize=4096 huge.test TXT", hugeText, []string{"(TCP)"}},
			} {
				if got := ask(strings.Fields(test.words)...); !strings.HasPrefix(got.answers, test.answers) || test.answers == "" && got.answers != "" || !got.says(test.says...) {
					h.Errorf("%s: dig %s: got %.40q…, want %.40q… and %q\n%.2000s", name, test.words, got.answers, test.answers, test.says, got)
				}
			}
		}
	})
}
