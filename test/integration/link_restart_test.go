package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

// promptly checks that a connection to a port of the host machine's is refused,
// or ends, at once: whoever has no service behind a link must not wait.
func promptly(h *harness.H, number int) {
	h.Helper()
	begun := time.Now()
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", number), 5*time.Second)
	if err == nil {
		var answer []byte
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if answer, err = io.ReadAll(conn); len(answer) > 0 {
			h.Errorf("somebody answers while the container does not run: %q", answer)
		}
		conn.Close()
	}
	if took := time.Since(begun); took > 3*time.Second {
		h.Errorf("a client hangs for %s while the container does not run: %v", took, err)
	}
}

// promptlyInside is promptly for a client in a container: curl says how long it
// took, and by its status that it was refused (7), or closed without an answer
// (52) or with a reset (56).
func promptlyInside(h *harness.H, container string, number int) {
	h.Helper()
	r := h.Exec(container, "curl", "-s", "--max-time", "20", "-w", "%{time_total}", fmt.Sprintf("http://127.0.0.1:%d/", number))
	took, err := strconv.ParseFloat(r.Stdout, 64)
	if err != nil || took > 3 || !slices.Contains([]int{7, 52, 56}, r.Code) {
		h.Errorf("a client in %s is not refused or closed at once:\n%s", container, r)
	}
}

// get fetches a page as a container's client, or the host machine's ("").
func get(h *harness.H, container, url string) string {
	h.Helper()
	arguments := []string{"-fsS", "--max-time", "5", url}
	if container == "" {
		return h.Host("curl", arguments...).Stdout
	}
	return h.Exec(container, append([]string{"curl"}, arguments...)...).Stdout
}

// TestLinkSurvives: a link outlives whatever happens to its containers.
func TestLinkSurvives(t *testing.T) {
	onTrees(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, nil)
		h.Up("app", tree, ephemeral)
		h.Must("exec", "web", "sh", "-c", "echo hello >/var/www/html/index.html")
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		h.Must("link", "app", "8080", "web", "80")
		fromHost, fromApp := fmt.Sprintf("host-%d-web-80", number), "app-8080-web-80"
		process := links(h)[fromApp].Pid
		served := func(what string) {
			h.Helper()
			for _, name := range []string{fromHost, fromApp} {
				waitLink(h, name, "listening")
			}
			harness.Eventually(h, patience, what+": the host machine reaches web", func() bool {
				return get(h, "", fmt.Sprintf("http://127.0.0.1:%d/", number)) == "hello\n"
			})
			harness.Eventually(h, patience, what+": app reaches web", func() bool {
				return get(h, "app", "http://127.0.0.1:8080/") == "hello\n"
			})
		}
		served("at first")

		// One that is connected, and says nothing, sees the end.
		idle, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", number))
		if err != nil {
			h.Fatal(err)
		}
		defer idle.Close()
		harness.Eventually(h, patience, "the idle connection is relayed", func() bool { return links(h)[fromHost].Connections == 1 })
		h.Must("stop", "web")
		_ = idle.SetDeadline(time.Now().Add(promised))
		if _, err := idle.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			h.Errorf("an open connection is not ended with its container: %v", err)
		}
		for _, name := range []string{fromHost, fromApp} {
			if l := waitLink(h, name, "waiting"); l.Reason != "container web to run" {
				h.Errorf("%s waits for %q", name, l.Reason)
			}
		}
		promptly(h, number)
		promptlyInside(h, "app", 8080)
		h.Must("up", "web")
		served("after a stop of web")

		h.Must("stop", "app")
		if l := waitLink(h, fromApp, "waiting"); l.Reason != "container app to run" || len(l.Listen) != 0 {
			h.Errorf("%+v", l)
		}
		h.Must("up", "app")
		served("after a stop of app")

		h.Must("restart", "web")
		served("after a restart of web")

		h.Reboot("web", 2*patience)
		served("after a reboot inside web")

		if links(h)[fromApp].Pid != process {
			h.Error("the link's process is another one")
		}
	})
}

// TestLinkSurvivesKills kills what a container consists of.
func TestLinkSurvivesKills(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, nil)
		h.Must("exec", "web", "sh", "-c", "echo hello >/var/www/html/index.html")
		number := harness.FreePort(h)
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		name := fmt.Sprintf("host-%d-web-80", number)
		kinds := map[string]func(harness.Roles) int{
			"supervisor": func(r harness.Roles) int { return r.Supervisor },
			"keeper":     func(r harness.Roles) int { return r.Keeper },
			"init":       func(r harness.Roles) int { return r.Init },
		}
		for kind, of := range kinds {
			idle, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", number))
			if err != nil {
				h.Fatal(err)
			}
			harness.Eventually(h, patience, "the idle connection is relayed", func() bool { return links(h)[name].Connections == 1 })
			if err := unix.Kill(of(h.Roles()), unix.SIGKILL); err != nil {
				h.Fatal(err)
			}
			// Its end is seen by the client, whoever was killed.
			_ = idle.SetDeadline(time.Now().Add(patience))
			if _, err := idle.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
				h.Errorf("%s killed: an open connection is not ended: %v", kind, err)
			}
			idle.Close()
			waitLink(h, name, "waiting")
			promptly(h, number)
			h.WaitState("web", patience, "failed")
			h.Must("up", "web")
			waitLink(h, name, "listening")
			harness.Eventually(h, patience, kind+" killed: web is reached again", func() bool {
				return get(h, "", fmt.Sprintf("http://127.0.0.1:%d/", number)) == "hello\n"
			})
		}

		// Without a systemd, nobody starts a link's process anew; it is told, and
		// the link can be made again.
		if err := unix.Kill(links(h)[name].Pid, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
		waitLink(h, name, "killed")
		promptly(h, number)
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		if page := get(h, "", fmt.Sprintf("http://127.0.0.1:%d/", number)); page != "hello\n" {
			h.Errorf("made again: %q", page)
		}
		pid := links(h)[name].Pid
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			h.Fatal(err)
		}
		harness.Eventually(h, patience, "a link that is asked to end is gone", func() bool { return len(links(h)) == 0 })
		// A killed one leaves a folder, which unlink removes.
		h.Must("link", "-", fmt.Sprint(number), "web", "80")
		if err := unix.Kill(links(h)[name].Pid, unix.SIGKILL); err != nil {
			h.Fatal(err)
		}
		h.Must("unlink", name)
	})
}

// TestLinkIdle: a link costs nothing while nothing happens.
func TestLinkIdle(t *testing.T) {
	onTree(t, func(h *harness.H, tree string) {
		withLinks(h)
		h.Up("web", tree, ephemeral)
		h.Up("app", tree, ephemeral)
		h.Must("link", "app", "8080", "web", "80")
		if page := get(h, "app", "http://127.0.0.1:8080/"); !strings.Contains(page, "nginx") {
			h.Fatalf("%q", page)
		}
		pid := links(h)["app-8080-web-80"].Pid
		wakeups := func() int {
			total := 0
			for _, thread := range threads(h, pid) {
				text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, thread))
				for line := range strings.Lines(string(text)) {
					n := 0
					if _, err := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &n); err == nil {
						total += n
					}
				}
			}
			return total
		}
		// The Go runtime's own monitor takes a while to rest, and a connection that
		// has ended leaves a timer or two.
		quiet := 0
		harness.Eventually(h, patience, "a link rests for 3 s", func() bool {
			before := wakeups()
			time.Sleep(3 * time.Second)
			quiet = wakeups() - before
			return quiet == 0
		})
	})
}

func threads(h *harness.H, pid int) []string {
	h.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		h.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
