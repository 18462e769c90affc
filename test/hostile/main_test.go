// Package hostile attacks nuc: from inside, as the root of a real container or
// by the files that it leaves for its next start, and from outside, by bad input.
// cases is the table of all of it.
package hostile

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	// patience is for what takes no time but on a busy machine.
	patience = 30 * time.Second
	// promised is how long after a kill something of a container may be left.
	promised = 2 * time.Second
	// secret is what nobody in a container may see.
	secret = "hostile-secret-1729"
)

// attacks are programs of C that run in containers: what no shell can do.
//
//go:embed attacks
var attacks embed.FS

// place is where a case is tried. Container web, a whole Debian, runs in it;
// what would harm it is tried in containers of the case's own.
type place struct {
	*harness.H
	// host is a folder of the host that no container may change, or see.
	host string
	// before says what was in it, and which program nuc was.
	before string
}

// TestHostile tries all cases.
func TestHostile(t *testing.T) {
	p := newPlace(harness.New(t))
	p.Setenv("SECRET", secret)
	p.Up("web", "trixie", func(d map[string]any) {
		d["network"] = map[string]any{"outbound": false}
		d["mounts"] = []any{map[string]any{"source": p.MakeDir("shared"), "target": "/shared"}}
	})
	for _, c := range cases {
		t.Run(c.test(), func(t *testing.T) {
			t.Parallel()
			sub := &place{H: p.Sub(t), host: p.host, before: p.before}
			c.run(sub)
			sub.intact()
		})
	}
}

func newPlace(h *harness.H) *place {
	h.Helper()
	p := &place{H: h, host: h.MakeDir("host")}
	h.Write("host/file", secret, 0o600)
	h.MakeDir("host/folder")
	p.before = p.state()
	return p
}

// own is the same with another harness.
func (p *place) own(opts ...harness.Option) *place {
	p.Helper()
	return newPlace(harness.New(p.TB, opts...))
}

// state describes what no attack may change.
func (p *place) state() string {
	p.Helper()
	var b strings.Builder
	err := filepath.WalkDir(p.host, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		p.Fatal(err)
	}
	content, err := os.ReadFile(p.Binary())
	if err != nil {
		p.Fatal(err)
	}
	fmt.Fprintf(&b, "nuc %x\n", sha256.Sum256(content))
	return b.String()
}

// intact fails the test if the host is another than before.
func (p *place) intact() {
	p.Helper()
	if after := p.state(); after != p.before {
		p.Errorf("the host was changed; before:\n%sand after:\n%s", p.before, after)
	}
}

// light describes a container that starts at once: its init sleeps.
func (p *place) light(name string, mutate func(d map[string]any)) string {
	p.Helper()
	return p.OnTree(name, "trixie", func(d map[string]any) {
		d["system"] = map[string]any{"init": "/bin/sleep", "arguments": []string{"600"}, "ttyGroup": 5}
		d["ready"] = map[string]any{"notify": false}
		d["network"] = map[string]any{"outbound": false}
		if mutate != nil {
			mutate(d)
		}
	})
}

// bind is an entry of mounts.
func bind(source, target string) map[string]any {
	return map[string]any{"source": source, "target": target}
}

// sh runs a script in a container and wants it to succeed.
func (p *place) sh(name, script string, args ...string) string {
	p.Helper()
	return p.Must(append([]string{"exec", name, "bash", "-ec", script, "bash"}, args...)...)
}

// install compiles an attack and puts it into a container, as /root/NAME.
func (p *place) install(container, name string) {
	p.Helper()
	content, err := os.ReadFile(p.attack(name))
	if err != nil {
		p.Fatal(err)
	}
	if r := p.NucInput(string(content), "exec", container, "sh", "-ec", "cat >/root/"+name+"; chmod 755 /root/"+name); r.Code != 0 {
		p.Fatalf("%s", r)
	}
}

// attack compiles an attack for the host and returns its path.
func (p *place) attack(name string) string {
	p.Helper()
	source, err := attacks.ReadFile("attacks/" + name + ".c")
	if err != nil {
		p.Fatal(err)
	}
	return p.Compile(name, string(source))
}

// refused wants a command to fail soon, with one line that has all of the words.
func (p *place) refused(r harness.Result, words ...string) {
	p.Helper()
	said := strings.TrimSuffix(r.Stderr, "\n")
	if r.Code == 0 || r.Stdout != "" || said == "" || strings.Contains(said, "\n") || len(said) > 1000 {
		p.Errorf("want it refused, in one line:\n%.2000s", r)
		return
	}
	for _, word := range words {
		if !strings.Contains(said, word) {
			p.Errorf("the refusal doesn't name %q: %s", word, said)
		}
	}
	if r.Duration > patience/3 {
		p.Errorf("the refusal took %s: %s", r.Duration, said)
	}
}

// openFiles counts what a process of the host has open.
func (p *place) openFiles(pid int) int {
	p.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		p.Fatal(err)
	}
	return len(entries)
}

// memory is a figure of a process's /proc/PID/status, in KiB.
func (p *place) memory(pid int, name string) int {
	p.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		p.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		var kib int
		if _, err := fmt.Sscanf(line, name+":%d kB", &kib); err == nil {
			return kib
		}
	}
	p.Fatalf("process %d has no %s", pid, name)
	return 0
}
