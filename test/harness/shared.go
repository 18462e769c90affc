package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

// shared is what all tests of a process have in common.
var shared process

type process struct {
	mu       sync.Mutex
	nuc      string // the binary, where every user can execute it
	script   string // scripts/tree, likewise
	folder   string
	accounts map[Ranges]*account
	trees    map[string]string // by user and tree name
}

// Main runs the tests of a package that uses the harness, cleans up after all
// of them, and exits. It is all that a TestMain needs to do.
func Main(m *testing.M) {
	status := leaktest.Run(m, shared.end)
	os.Exit(status)
}

// Repository is the top folder of the source tree.
func Repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("harness: tests run inside the source tree: no go.mod above the working directory")
	return ""
}

// prepare puts the binary where the test's user can run it: a clone below
// /root is closed to others.
func (p *process) prepare(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nuc != "" {
		return
	}
	// As udev has it everywhere: containers get their way out by it.
	if os.Geteuid() == 0 {
		if err := os.Chmod("/dev/net/tun", 0o666); err != nil {
			t.Logf("harness: no container has a way out: %v; modprobe tun makes it", err)
		}
	}
	top := Repository(t)
	folder, err := os.MkdirTemp("/tmp", "nuc-it-bin-*")
	if err != nil {
		t.Fatalf("harness: %v", err)
	}
	p.folder = folder
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatalf("harness: %v", err)
	}
	// Another one is built otherwise (test/faults).
	binary := "bin/nuc"
	if other := os.Getenv("NUC_BINARY"); other != "" {
		binary = other
	}
	for _, name := range []string{binary, "scripts/tree"} {
		content, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatalf("harness: %v; make build makes it", err)
		}
		path := filepath.Join(folder, filepath.Base(name))
		// Not os.WriteFile: a fork of another test may hold the file open for
		// writing at the moment of an exec (ETXTBSY).
		install := exec.Command("install", "-m", "0755", "/dev/stdin", path)
		install.Stdin = strings.NewReader(string(content))
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("harness: %s: %v: %s", path, err, out)
		}
	}
	p.nuc, p.script = filepath.Join(folder, filepath.Base(binary)), filepath.Join(folder, "tree")
}

// account returns this process's user with those ranges.
func (p *process) account(t testing.TB, ranges Ranges) *account {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if a := p.accounts[ranges]; a != nil {
		return a
	}
	a := claim(t, ranges)
	if p.accounts == nil {
		p.accounts = map[Ranges]*account{}
	}
	p.accounts[ranges] = a
	return a
}

// end gives everything back.
func (p *process) end() {
	for _, a := range p.accounts {
		a.lock.Close()
	}
	if p.folder != "" {
		os.RemoveAll(p.folder)
	}
}

// Tree returns the folder of a Debian tree (bookworm, trixie, sid, nested) unpacked for
// the test's user. Built and unpacked once, it serves later runs too.
func (h *H) Tree(name string) string {
	h.Helper()
	p := &shared
	p.mu.Lock()
	defer p.mu.Unlock()
	key := fmt.Sprintf("%d %s", h.user.uid, name)
	if path := p.trees[key]; path != "" {
		return path
	}
	var path string
	if os.Geteuid() != 0 {
		path = h.script(nil, name)
	} else {
		// One tarball for all users: root reads it, the user unpacks it.
		tarball := h.script(nil, "tar", name)
		file, err := os.Open(tarball)
		if err != nil {
			h.Fatalf("harness: %v", err)
		}
		defer file.Close()
		path = h.script(file, "unpack", name)
	}
	if p.trees == nil {
		p.trees = map[string]string{}
	}
	p.trees[key] = path
	return path
}

// script runs scripts/tree: as the test's user to unpack, else as the caller.
func (h *H) script(tarball *os.File, args ...string) string {
	h.Helper()
	cmd := exec.Command(shared.script, args...)
	cmd.Env = append(os.Environ(), "NUC="+shared.nuc)
	cmd.Dir = "/"
	if tarball != nil {
		cmd.Stdin = tarball
		cmd.Env = []string{"NUC=" + shared.nuc, "HOME=" + h.user.home, "PATH=" + h.env["PATH"]}
		if h.user.uid != 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Credential: &syscall.Credential{Uid: h.user.uid, Gid: h.user.gid, Groups: h.user.groups},
			}
		}
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		h.Fatalf("harness: scripts/tree %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}
