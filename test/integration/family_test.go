package integration

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// prompt is how long, in seconds, what needs no waiting may take for a client: a
// family that is missing has it neither wait for an answer nor send again.
const prompt = 0.9

// TestOneFamily: on a host that has IPv4 or IPv6 only, names with addresses of
// both lead out, at once.
func TestOneFamily(t *testing.T) {
	for name, test := range map[string]struct {
		only          harness.Family
		server, own   string
		flag, missing string
		driver        string
	}{
		"IPv4":              {harness.IPv4Only, harness.OutsideOther4, harness.OutsideAddress4, "-4", "-6", "pasta"},
		"IPv6":              {harness.IPv6Only, harness.OutsideOther6, harness.OutsideAddress6, "-6", "-4", "pasta"},
		"IPv4, slirp4netns": {harness.IPv4Only, harness.OutsideOther4, harness.OutsideAddress4, "-4", "-6", "slirp4netns"},
		"IPv6, slirp4netns": {harness.IPv6Only, harness.OutsideOther6, harness.OutsideAddress6, "-6", "-4", "slirp4netns"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.New(t, harness.WithFamily(test.only))
			if test.driver != "pasta" {
				h.Outside.Hide("pasta")
			}
			h.ServeWeb(h.Outside.Listen("tcp", ":80"))
			zone := records{"outside.test.": {harness.OutsideAddress4, harness.OutsideAddress6}, "long.test.": {longText}}
			at := net.JoinHostPort(test.server, "53")
			zone.serve(h, h.Outside.Listen("tcp", at), h.Outside.ListenPacket("udp", at))
			h.Outside.Resolve("nameserver " + test.server + "\noptions edns0\n")
			number := harness.FreePort(h)
			h.Up("web", "trixie", func(d map[string]any) {
				d["network"] = map[string]any{"ports": []any{port(number, 80)}}
				d["ready"] = map[string]any{"units": []string{"nginx.service"}}
			})
			harness.Eventually(h, patience, "the container reaches the outside", func() bool {
				return h.Curl("web", "http://"+net.JoinHostPort(test.own, "80")+"/") == nil
			})
			if got := statusOf(h, "web"); got.Driver != test.driver || got.Restarts != 0 {
				h.Errorf("status: %+v, want %s", got, test.driver)
			}
			fetch := func(flags ...string) (r harness.Result, seconds float64) {
				h.Helper()
				r = h.Exec("web", append([]string{"curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip} %{time_total}"}, flags...)...)
				words := strings.Fields(r.Stdout)
				if len(words) == 0 {
					h.Fatalf("%s", r)
				}
				seconds, err := strconv.ParseFloat(words[len(words)-1], 64)
				if err != nil {
					h.Fatalf("%v\n%s", err, r)
				}
				return r, seconds
			}
			// The least of three: the machine is busy, and a wait would be in each.
			fastest := func(want func(harness.Result) bool, flags ...string) {
				h.Helper()
				least := 100.0
				var r harness.Result
				for range 3 {
					var seconds float64
					if r, seconds = fetch(flags...); !want(r) {
						h.Errorf("%s", r)
						return
					}
					least = min(least, seconds)
				}
				if least > prompt {
					h.Errorf("curl waits for %.2f s for a family that is missing:\n%s", least, r)
				}
			}
			served := func(r harness.Result) bool { return r.Code == 0 && strings.HasPrefix(r.Stdout, "200 "+test.own+" ") }
			fastest(served, "http://outside.test/")
			fastest(served, test.flag, "http://outside.test/")
			const refused = 7 // curl's
			fastest(func(r harness.Result) bool { return r.Code == refused }, test.missing, "http://outside.test/")
			for _, words := range [][]string{{"outside.test", "A"}, {"outside.test", "AAAA"}, {"+tcp", "outside.test", "A"}, {"+noedns", "long.test", "TXT"}} {
				if got := dig(inside(h, "web"), words...); got.answers == "" {
					h.Errorf("%.2000s", got)
				}
			}
			if page := h.Host("curl", "-fsS", "--max-time", "10", fmt.Sprintf("http://127.0.0.1:%d/", number)); !strings.Contains(page.Stdout, "Welcome to nginx") {
				h.Errorf("its port: %s", page)
			}
			// Links have what the host has.
			withLinks(h)
			linked := harness.FreePort(h)
			h.Must("link", "-", fmt.Sprint(linked), "web", "80")
			listen := links(h)[fmt.Sprintf("host-%d-web-80", linked)].Listen
			if want := map[harness.Family]int{harness.IPv4Only: 1, harness.IPv6Only: 2}[test.only]; len(listen) != want {
				h.Errorf("a link listens on %q, want %d addresses", listen, want)
			}
			if page := h.Host("curl", "-fsS", "--max-time", "10", fmt.Sprintf("http://localhost:%d/", linked)); !strings.Contains(page.Stdout, "Welcome to nginx") {
				h.Errorf("its link: %s", page)
			}
		})
	}
}
