package integration

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// TestLinkRefused: what can't be is refused in one line that says where and why,
// and leaves nothing.
func TestLinkRefused(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		published := harness.FreePort(h)
		h.Up("web", tree, func(d map[string]any) {
			ephemeral(d)
			d["network"] = map[string]any{"ports": []any{port(published, 80)}}
		})
		h.Up("db", tree, ephemeral)
		h.Up("down", tree, ephemeral)
		h.Must("stop", "down")
		listener, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			h.Fatal(err)
		}
		defer listener.Close()
		taken := fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)
		linked := fmt.Sprint(harness.FreePort(h))
		h.Must("link", "-", linked, "db", "5432")
		free := fmt.Sprint(harness.FreePort(h))
		empty := filepath.Join(h.Dir, "empty")
		if r := h.Host("mkdir", empty); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		h.Write("file", "x", 0o600)
		file := filepath.Join(h.Dir, "file")
		project := filepath.Join(h.Dir, "project")
		if r := h.Host("mkdir", project); r.Code != 0 {
			h.Fatalf("%s", r)
		}
		h.Write("project/configuration.nix", "{}", 0o600)

		tests := []struct {
			command string
			code    int
			want    []string
		}{
			{"link - " + free + " wbe 80", 1, []string{"container wbe", "did you mean web?"}},
			{"link - " + free + " down 80", 1, []string{"container down: not running", "nuc up down"}},
			{"link down 80 web 80", 1, []string{"container down: not running"}},
			{"link web 81 web 80", 2, []string{"to itself"}},
			{"link - 8000 - 80", 2, []string{"to itself"}},
			{"link - 8000-8010 web 80-85", 2, []string{"8000-8010 is 11 ports", "80-85 is 6 ports", "equally long"}},
			{"link - 8000-8010 web 80", 2, []string{"80 is 1 port"}},
			{"link - 8010-8000 web 80-90", 2, []string{"8000-8010"}},
			{"link - 65530-65540 web 80-90", 2, []string{`port "65530-65540"`}},
			{"link - 0 web 80", 2, []string{`port "0"`, "1 to 65535"}},
			{"link - 80a web 80", 2, []string{`port "80a"`}},
			{"link - web 80", 2, []string{"3 words", "CLIENT CLIENT-PORT HOST HOST-PORT"}},
			{"link web", 2, []string{"CLIENT CLIENT-PORT HOST HOST-PORT"}},
			{"link --ipv4 --ipv6 - 8000 web 80", 2, []string{"--ipv4 and --ipv6"}},
			{"link --address localhost - 8000 web 80", 2, []string{`address "localhost"`}},
			{"link --ipv6 --address 127.0.0.1 - 8000 web 80", 2, []string{"other family"}},
			{"link --address 192.0.2.77 - " + free + " web 80", 1, []string{"192.0.2.77:" + free, "no such address"}},
			{"link --address 192.0.2.77 web 8000 db 80", 1, []string{"container web: 192.0.2.77:8000", "no such address"}},
			{"link - " + taken + " web 80", 1, []string{"[::1]:" + taken, "listens there already", "user root"}},
			{fmt.Sprintf("link - %d web 80", published), 1, []string{fmt.Sprintf("127.0.0.1:%d", published), "container web listens there already", "nuc stop web"}},
			{"link - " + linked + " web 80", 1, []string{"link host-" + linked + "-db-5432 listens there already", "nuc unlink host-" + linked + "-db-5432"}},
			{"link --address 127.0.0.1 --address ::1 - " + linked + " db 5432", 0, nil}, // the same, said in full
			{"link --ipv4 - " + linked + " db 5432", 1, []string{"link host-" + linked + "-db-5432 listens there already"}},
			{"link web 80 db 80", 1, []string{"container web: 127.0.0.1:80", "nginx (process ", " there) listens there already"}},
			{"link web 8000-8001 db 5432-5433", 0, nil},
			{"link web 8001-8002 db 80-81", 1, []string{"link web-8000-8001-db-5432-5433 listens there already"}},
			{"link --udp --unix /tmp/s - web 80", 2, []string{"/tmp/s", "--udp"}},
			{"link --unix /tmp/s - 80 80", 2, []string{"--unix /tmp/s", "at which end?", "nuc link - /tmp/s 80 80"}},
			{"link --unix /tmp/s - web db", 2, []string{"at which end?"}},
			{"link --unix /tmp/s --unix /tmp/t --unix /tmp/u - web", 2, []string{"3 times"}},
			{"link --ipv4 --unix /tmp/s - web 80", 2, []string{"/tmp/s is a Unix socket"}},
			{"link - /tmp/s web 80-81", 2, []string{"one port"}},
			{"link - " + h.Dir + " web 80", 1, []string{h.Dir + ": is a folder", ".s.PGSQL.5432"}},
			{"link - " + file + " web 80", 1, []string{file, "of that name already"}},
			{"link - " + h.Dir + "/none/s web 80", 1, []string{"no folder " + h.Dir + "/none"}},
			{"link web /none/s db 80", 1, []string{"container web: /none/s: there is no folder /none in the container"}},
			{"link - " + h.Dir + "/" + strings.Repeat("s", 106) + " web 80", 1, []string{"106 bytes", "the kernel takes 105"}},
			{"link web s/s db 80", 1, []string{"container web", "absolute"}},
			{"link - 8000 " + empty + " 80", 1, []string{empty, "is no project"}},
			{"link - 8000 " + h.Dir + "/none 80", 1, []string{h.Dir + "/none", "no such folder"}},
			{"link - 8000 " + project + " 80", 1, []string{"none was started from there yet"}},
			{"unlink", 2, []string{"which link?"}},
			{"unlink host-" + linked + "-bd-5432", 1, []string{"did you mean host-" + linked + "-db-5432?"}},
			{"unlink - 1", 1, []string{"link - 1"}},
			{"unlink wbe 80", 1, []string{"did you mean web?"}},
			{"unlink --all x", 2, []string{"not both"}},
		}
		if os.Geteuid() == 0 {
			tests = append(tests, struct {
				command string
				code    int
				want    []string
			}{"link - 80 web 80", 1, []string{"127.0.0.1:80", "ports below 1024"}})
		}
		for _, test := range tests {
			before := len(links(h))
			r := h.Nuc(strings.Fields(test.command)...)
			if r.Code != test.code {
				h.Errorf("want status %d: %s", test.code, r)
			}
			if test.code == 0 {
				continue
			}
			if lines := strings.Count(r.Stderr, "\n"); lines != 1 || r.Stdout != "" {
				h.Errorf("%d lines, want one: %s", lines, r)
			}
			for _, w := range test.want {
				if !strings.Contains(r.Stderr, w) {
					h.Errorf("want %q: %s", w, r)
				}
			}
			if after := links(h); len(after) != before {
				h.Errorf("%s: leaves a link: %+v", test.command, after)
			}
		}
		if n := len(links(h)); n != 2 {
			h.Errorf("%d links: %+v", n, links(h))
		}
		harness.Eventually(h, patience, "there are no other processes than those of two links", func() bool {
			processes := 0
			for _, p := range h.Processes() {
				if strings.HasPrefix(p.Command, "nuc-link") {
					processes++
				}
			}
			return processes == 2
		})
	})
}

// TestUnlinkStopped: a link ends at once, whatever state its containers are in.
func TestUnlinkStopped(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, ephemeral)
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		h.Must("link", "web", "/run/relayed", "-", "22")
		supervisor := h.Roles().Supervisor
		if err := unix.Kill(supervisor, unix.SIGSTOP); err != nil {
			h.Fatal(err)
		}
		defer func() { _ = unix.Kill(supervisor, unix.SIGCONT) }()
		// This one has the link ask for sockets, which do not come.
		c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", number))
		if err != nil {
			h.Fatal(err)
		}
		defer c.Close()
		time.Sleep(100 * time.Millisecond)
		if r := h.Nuc("unlink", "--all"); r.Code != 0 || r.Duration > 4*time.Second {
			h.Errorf("%s", r)
		}
	})
}

// TestLinkBackground: a link's process has nothing of its maker's environment.
func TestLinkBackground(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, ephemeral)
		h.Must("link", "web", "8080", "-", "22")
		for name, l := range links(h) {
			if environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", l.Pid)); err != nil || len(environment) > 0 {
				h.Errorf("%s: %q, %v", name, environment, err)
			}
		}
	})
}
