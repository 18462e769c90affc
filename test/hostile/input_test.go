package hostile

import (
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/test/harness"
)

func descriptors(p *place) {
	const good = `"version":1,"name":"web","system":{"init":"/sbin/init"}`
	named := func(name string) string { return `{"version":1,"name":"` + name + `","system":{"init":"/sbin/init"}}` }
	h := p.own()
	for _, try := range []struct {
		what, text string
		words      []string
	}{
		{"broken", `{"version":1,"name":`, []string{"JSON"}},
		{"truncated in a string", `{` + good + `,"devices":["/dev/nu`, []string{"JSON"}},
		{"not an object", `[]`, nil},
		{"nothing", ``, nil},
		{"zero bytes", strings.Repeat("\x00", 4096), nil},
		{"invalid UTF-8", named("a\xff"), nil},
		{"deep", strings.Repeat("[", 1<<20), nil},
		{"deep inside", `{` + good + `,"mounts":` + strings.Repeat("[", 100000) + strings.Repeat("]", 100000) + `}`, []string{"JSON"}},
		{"duplicate key", `{` + good + `,"name":"b"}`, []string{"name"}},
		{"duplicate key inside", `{` + good + `,"network":{"mode":"private","mode":"host"}}`, []string{"network.mode"}},
		{"unknown key", `{` + good + `,"colour":1}`, []string{"colour"}},
		{"unknown key inside", `{` + good + `,"mounts":[{"kind":"tmpfs","target":"/x","mode":1}]}`, []string{"mounts[0].mode"}},
		{"key in another case", `{` + good + `,"Mounts":[]}`, []string{"Mounts"}},
		{"wrong type", `{` + good + `,"ids":{"count":"many"}}`, []string{"ids.count"}},
		{"a number too large", `{` + good + `,"ids":{"count":1e400}}`, []string{"ids.count"}},
		{"a fraction", `{` + good + `,"ids":{"count":1.5}}`, []string{"ids.count"}},
		{"null", `{` + good + `,"mounts":[null]}`, []string{"mounts[0]"}},
		{"100 MB", `{` + good + `,"devices":["/dev/` + strings.Repeat("a", 100<<20) + `"]}`, nil},
		{"100 MB of blanks", strings.Repeat(" ", 100<<20), nil},
		{"NUL in a path", `{` + good + `,"mounts":[{"source":"/a\u0000b","target":"/x"}]}`, []string{"mounts[0].source"}},
		{"NUL in a target", `{` + good + `,"mounts":[{"source":"/a","target":"/x\u0000"}]}`, []string{"mounts[0].target"}},
		{"= in a variable", `{"version":1,"name":"web","system":{"init":"/sbin/init","environment":{"A=B":"x"}}}`, []string{"system.environment"}},
		{"NUL in a variable", `{"version":1,"name":"web","system":{"init":"/sbin/init","environment":{"A":"x\u0000"}}}`, []string{"system.environment.A"}},
		{"name ../x", named("../x"), []string{"name", "../x"}},
		{"name ..", named(".."), []string{"name"}},
		{"name .links", named(".links"), []string{"name"}},
		{"name -x", named("-x"), []string{"name", "-x"}},
		{"name /x", named("/x"), []string{"name"}},
		{"name with a blank", named("a b"), []string{"name"}},
		{"name with a line feed", named(`a\nb`), []string{"name"}},
		{"name that is invisible", named(`a\u200bb`), []string{"name"}},
		{"empty name", named(""), []string{"name"}},
		{"name of 300 characters", named(strings.Repeat("a", 300)), []string{"name"}},
	} {
		path := h.Write("bad.json", try.text, 0o600)
		for _, command := range []string{"up", "start", "validate"} {
			r := h.Nuc(command, path)
			if command == "validate" {
				r.Stdout, r.Stderr = "", r.Stdout+r.Stderr
			}
			h.refused(r, try.words...)
			h.clean(r)
		}
		if h.Failed() {
			h.Fatalf("descriptor with %s", try.what)
		}
	}
	// A name is also what a command gets.
	for _, name := range []string{"../x", "..", "-x", strings.Repeat("a", 300), "a/b", "a\nb", ""} {
		for _, command := range [][]string{{"stop", "--", name}, {"exec", "--", name, "true"}, {"rm", "--yes", "--", name}, {"status", "--", name}} {
			if r := h.Nuc(command...); r.Code == 0 || r.Stdout != "" {
				h.Errorf("%s", r)
			}
		}
	}
	h.NothingLeft()
}

// killedStarts kills a start at every moment.
func killedStarts(p *place) {
	h := p.own()
	number := harness.FreePort(h)
	path := h.light("killed", func(d map[string]any) {
		d["network"] = map[string]any{"outbound": false, "ports": []any{port(number, 80)}}
		d["mounts"] = []any{bind(h.MakeDir("given"), "/mnt/given")}
	})
	begun := time.Now()
	h.Must("up", path)
	whole := time.Since(begun)
	h.Must("kill", "killed")
	const steps = 24
	for i := range steps {
		start := h.Start("start", path)
		time.Sleep(whole * time.Duration(i) / (steps * 3 / 4))
		// The supervisor, or what it has started so far.
		victims := []int{start.Pid()}
		if i%2 == 1 {
			victims = nil
			for _, q := range h.Processes() {
				if q.Pid != start.Pid() {
					victims = append(victims, q.Pid)
				}
			}
		}
		for _, pid := range victims {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		// It goes on without what was on its way out, or had not begun.
		for end := time.Now().Add(promised); start.Running() && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		}
		if start.Running() {
			start.Signal(unix.SIGKILL)
		}
		start.Wait(patience)
		h.Must("ps") // clears up where nobody was left to do it
		h.NothingLeft()
		if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", number)); err != nil {
			h.Errorf("the port is still taken: %v", err)
		} else {
			l.Close()
		}
		if h.Failed() {
			h.Fatalf("killed at step %d of %d, of a start of %s", i, steps, whole)
		}
		if i%6 == 5 {
			h.Must("up", "killed")
			h.Must("exec", "killed", "true")
			h.Must("kill", "killed")
		}
	}
	h.intact()
}
