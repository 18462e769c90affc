package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

// Whatever a file of the state folder has become, commands say so in one line, and
// the container comes up again from its descriptor's file.
func TestDamagedState(t *testing.T) {
	damages := map[string]func(path string) error{
		"empty":   func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"garbage": func(path string) error { return os.WriteFile(path, []byte("\x00\xff{]\n\x1b[2J"), 0o644) },
		"wrong":   func(path string) error { return os.WriteFile(path, []byte(`[{"version": "9"}]`), 0o644) },
		"gone":    func(string) error { return nil },
		"folder":  func(path string) error { return os.Mkdir(path, 0o755) },
	}
	for _, file := range []string{"current", "generation", "exit.json", "uuid", "origin.json", "supervisor.log"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			h := harness.New(t)
			path := h.OnTree("web", "trixie", lite)
			h.Must("up", path)
			h.Must("stop", "web")
			path = h.OnTree("web", "trixie", func(d map[string]any) {
				lite(d)
				d["network"] = map[string]any{"outbound": false}
			})
			h.Must("up", path)
			h.Must("stop", "web")
			for damage, do := range damages {
				place := filepath.Join(h.State, "nuc/web", file)
				if file == "generation" {
					var err error
					if place, err = filepath.EvalSymlinks(filepath.Join(h.State, "nuc/web/current")); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.RemoveAll(place); err != nil {
					t.Fatal(err)
				}
				if err := do(place); err != nil {
					t.Fatal(err)
				}
				_, uid, gid := h.User()
				_ = os.Lchown(place, uid, gid)
				for _, command := range [][]string{
					{"ps", "-a"},
					{"ps", "-a", "--json"},
					{"status", "web"},
					{"status", "web", "--json"},
					{"generations", "web"},
					{"inspect", "web"},
					{"graph"},
					{"stats"},
					{"diff", "web"},
					{"down", "web"},
					{"switch", "--dry-activate", path},
					{"update", "web", "--tasks-max", "none"},
					{"rm", "web"},
				} {
					if command[0] == "rm" && damage != "garbage" {
						continue // that ends it
					}
					r := h.Nuc(command...)
					if r.Code > 4 || strings.Contains(r.Stderr, "panic") || strings.Contains(r.Stdout+r.Stderr, "\x1b[2J") || r.Code != 0 && strings.Count(r.Stderr, "\n") > 1 {
						h.Errorf("%s, %s: %s", file, damage, r)
					}
				}
				if file == "generation" && damage == "empty" {
					if r := h.Nuc("up", "web"); r.Code != 1 || !strings.Contains(r.Stderr, "generation ") || !strings.Contains(r.Stderr, "nuc rollback web") {
						h.Errorf("up of what can't be read: %s", r)
					}
					h.Must("rollback", "web")
					h.Must("up", "web")
					h.Must("stop", "web")
				}
				if r := h.Nuc("up", path); r.Code != 0 {
					h.Errorf("%s, %s: up of the descriptor: %s", file, damage, r)
				}
				h.Must("stop", "web")
			}
			h.Must("rm", "--state", "--yes", "web")
			if left, _ := os.ReadDir(filepath.Join(h.State, "nuc")); len(left) > 0 {
				h.Errorf("rm left %v", left)
			}
		})
	}
}
