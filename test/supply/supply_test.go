// Package supply checks what nuc is made of: which modules, that they are what
// go.sum says, whether they are known to be vulnerable, and that the same files
// make the same binary.
package supply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// direct are the modules that nuc's packages and tests import, and what for. A
// new one is added here, with its reason, and its cost is in the commit.
var direct = map[string]string{
	"github.com/alecthomas/kong":               "the command line",
	"github.com/elastic/go-seccomp-bpf":        "tests: tables of system calls that the filter is checked with",
	"github.com/google/go-cmp":                 "tests: what differs",
	"github.com/hashicorp/go-hclog":            "the log",
	"github.com/landlock-lsm/go-landlock":      "Landlock for supervisors and links, whatever version the kernel has",
	"github.com/moby/sys/user":                 "a container's passwd and group",
	"github.com/santhosh-tekuri/jsonschema/v6": "tests: the descriptor's schema",
	"github.com/tidwall/gjson":                 "paths of nuc inspect",
	"golang.org/x/net":                         "tests: the BPF machine that the filter is tried on",
	"golang.org/x/sys":                         "system calls",
}

// tools are the programs that lint and this suite run, none of which is in what
// they look at.
var tools = []string{
	"golang.org/x/vuln/cmd/govulncheck",
	"honnef.co/go/tools/cmd/staticcheck",
	"mvdan.cc/gofumpt",
}

// linked are the modules in the binary: nuc's own, and what they import.
var linked = []string{
	"github.com/alecthomas/kong",
	"github.com/fatih/color",        // hclog
	"github.com/hashicorp/go-hclog", //
	"github.com/landlock-lsm/go-landlock",
	"github.com/mattn/go-colorable", // hclog
	"github.com/mattn/go-isatty",    // hclog
	"github.com/moby/sys/user",      //
	"github.com/tidwall/gjson",      //
	"github.com/tidwall/match",      // gjson
	"github.com/tidwall/pretty",     // gjson
	"golang.org/x/sys",
	"kernel.org/pub/linux/libs/security/libcap/psx", // go-landlock
}

// top is the repository.
const top = "../.."

// run runs a program in a folder of the repository and returns what it printed.
func run(t *testing.T, folder, name string, arguments ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, arguments...)
	cmd.Dir = filepath.Join(top, folder)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(arguments, " "), err, out, stderr.Bytes())
	}
	return out
}

// modFile is what go mod edit -json prints.
type modFile struct {
	Require []struct {
		Path     string
		Indirect bool
	}
	Replace []struct{ Old struct{ Path string } }
	Tool    []struct{ Path string }
}

func readModFile(t *testing.T, folder string) modFile {
	t.Helper()
	var m modFile
	if err := json.Unmarshal(run(t, folder, "go", "mod", "edit", "-json"), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Replace) > 0 {
		t.Errorf("%s/go.mod replaces modules: %v", folder, m.Replace)
	}
	return m
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	for _, path := range got {
		if !slices.Contains(want, path) {
			t.Errorf("%s: %s is new: if it is worth it, add it in %s", what, path, "test/supply/supply_test.go")
		}
	}
	for _, path := range want {
		if !slices.Contains(got, path) {
			t.Errorf("%s: %s is gone: take it out of %s", what, path, "test/supply/supply_test.go")
		}
	}
}

func TestDirectDependencies(t *testing.T) {
	var got []string
	for _, r := range readModFile(t, ".").Require {
		if !r.Indirect {
			got = append(got, r.Path)
		}
	}
	compare(t, "go.mod", got, slices.Collect(maps.Keys(direct)))
	m := readModFile(t, "tools")
	got = nil
	for _, tool := range m.Tool {
		got = append(got, tool.Path)
	}
	for _, r := range m.Require {
		if !r.Indirect {
			got = append(got, r.Path)
		}
	}
	compare(t, "tools/go.mod", got, tools)
}

// TestVerify: the modules are those that go.sum has the hashes of.
func TestVerify(t *testing.T) {
	for _, folder := range []string{".", "tools"} {
		if out := run(t, folder, "go", "mod", "verify"); !bytes.Contains(out, []byte("all modules verified")) {
			t.Errorf("%s: %s", folder, out)
		}
	}
}

// TestReproducible builds the files that are here twice: in a folder that is no
// repository, with what the caller's build has cached, and in another one, a
// repository, with nothing cached.
func TestReproducible(t *testing.T) {
	plain, cloned := filepath.Join(t.TempDir(), "nuc"), filepath.Join(t.TempDir(), "elsewhere", "of another name")
	for _, folder := range []string{plain, cloned} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, ".", "sh", "-c", `git ls-files -zco --exclude-standard | xargs -0 cp -P --parents -t "$1" 2>/dev/null; test -e "$1/go.mod"`, "sh", folder)
	}
	run(t, ".", "sh", "-c", `cd "$1" && git init -q && git add -A && git -c user.name=a -c user.email=a@localhost commit -qm all`, "sh", cloned)
	var sums []string
	for folder, cache := range map[string]string{plain: "", cloned: t.TempDir()} {
		cmd := exec.Command("make", "--no-print-directory", "build", "version=1.2.3")
		// Not what a machine has set for all builds (go env -w).
		cmd.Dir, cmd.Env = folder, append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "GOFLAGS=-mod=readonly")
		if cache != "" {
			cmd.Env = append(cmd.Env, "GOCACHE="+cache)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make build: %v\n%s", err, out)
		}
		binary := filepath.Join(folder, "bin/nuc")
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, fmt.Sprintf("%x", sha256.Sum256(data)))
		for _, path := range []string{folder, filepath.Dir(cache)} {
			if path != "." && bytes.Contains(data, []byte(path)) {
				t.Errorf("the binary names %s", path)
			}
		}
		checkLinked(t, binary)
	}
	if sums[0] != sums[1] {
		t.Errorf("two builds of the same files have the hashes %s and %s", sums[0], sums[1])
	}
	t.Logf("sha256 %s, twice", sums[0])
}

func checkLinked(t *testing.T, binary string) {
	t.Helper()
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range info.Deps {
		got = append(got, m.Path)
		if m.Replace != nil || m.Sum == "" {
			t.Errorf("%s is not the module's: %+v", m.Path, m)
		}
	}
	compare(t, "bin/nuc", got, linked)
}

// errNoDatabase is that of a machine that does not reach it.
var errNoDatabase = errors.New("the vulnerability database can't be had")

// check runs govulncheck on the binary's packages. It returns whether there are
// findings, and what it says.
func check(t *testing.T, database string) (bool, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "tool", "-modfile=tools/go.mod", "govulncheck", "-db", database, "./go/cmd/nuc")
	cmd.Dir = top
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false, string(out), nil
	case ctx.Err() != nil:
		return false, string(out), fmt.Errorf("%w: no answer in 3 minutes", errNoDatabase)
	case errors.As(err, &exit) && exit.ExitCode() == 3:
		return true, string(out), nil
	case bytes.Contains(out, []byte("fetching vulnerabilities:")):
		return false, "", fmt.Errorf("%w: %s", errNoDatabase, bytes.TrimSpace(out))
	}
	return false, string(out), err
}

// TestVulnerabilities asks the Go project's database, where it can be reached.
func TestVulnerabilities(t *testing.T) {
	database := os.Getenv("NUC_VULNDB")
	if database == "" {
		database = "https://vuln.go.dev"
	}
	found, out, err := check(t, database)
	switch {
	case errors.Is(err, errNoDatabase):
		t.Skip(err)
	case err != nil:
		t.Fatalf("govulncheck: %v\n%s", err, out)
	case found:
		t.Errorf("nuc calls what is known to be vulnerable:\n%s", out)
	}
}

// TestVulnerabilityIsFound: with a database that has golang.org/x/sys in it,
// there is a finding.
func TestVulnerabilityIsFound(t *testing.T) {
	folder := t.TempDir()
	const when = "2026-01-01T00:00:00Z"
	for name, content := range map[string]string{
		"index/db.json":      `{"modified":"` + when + `"}`,
		"index/modules.json": `[{"path":"golang.org/x/sys","vulns":[{"id":"GO-2026-0000","modified":"` + when + `"}]}]`,
		"index/vulns.json":   `[{"id":"GO-2026-0000","modified":"` + when + `"}]`,
		"ID/GO-2026-0000.json": `{"schema_version":"1.3.1","id":"GO-2026-0000","modified":"` + when + `","published":"` + when + `",
			"details":"made up","database_specific":{"url":"https://pkg.go.dev/vuln/GO-2026-0000","review_status":"REVIEWED"},"affected":[{"package":{"name":"golang.org/x/sys","ecosystem":"Go"},
			"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}],
			"ecosystem_specific":{"imports":[{"path":"golang.org/x/sys/unix","symbols":["Openat2"]}]}}]}`,
	} {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	found, out, err := check(t, "file://"+folder)
	if err != nil || !found || !strings.Contains(out, "GO-2026-0000") {
		t.Errorf("found: %t, %v\n%s", found, err, out)
	}
}
