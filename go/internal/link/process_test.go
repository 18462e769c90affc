package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
	"github.com/nix-user-containers/nuc/go/internal/state"
	"github.com/nix-user-containers/nuc/test/leaktest"
)

// TestMain is a link's process, too.
func TestMain(m *testing.M) {
	if os.Args[0] == Role {
		os.Exit(Main(os.Args[1:]))
	}
	leaktest.Main(m)
}

// maker makes links without a systemd, in a folder of the test's.
func maker(t *testing.T) *Maker {
	t.Helper()
	f := state.Folders{State: t.TempDir(), Runtime: t.TempDir()}
	t.Cleanup(func() {
		all, err := f.Links()
		if err != nil {
			t.Error(err)
		}
		for _, l := range all {
			if err := Remove(f, l); err != nil {
				t.Error(err)
			}
		}
	})
	return &Maker{Folders: f, Program: "/proc/self/exe"}
}

// greeter is a service of the host machine's, and its port.
func greeter(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func greeting(t *testing.T, path string) string {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestMake(t *testing.T) {
	m := maker(t)
	path := filepath.Join(t.TempDir(), "socket")
	s := &Spec{Client: End{Path: path}, Host: End{Port: greeter(t)}, Count: 1, Protocol: TCP}
	st, err := m.Make(s)
	if err != nil {
		t.Fatal(err)
	}
	if st.State != Listening || len(st.Listen) != 1 || st.Listen[0] != path || st.Name != s.Name() || st.Beyond {
		t.Errorf("%+v", st)
	}
	if got := greeting(t, path); got != "hello" {
		t.Errorf("%q", got)
	}
	var there ThereError
	if _, err := m.Make(s); !errors.As(err, &there) || !there.Same {
		t.Errorf("twice: %v", err)
	}
	other := *s
	other.Declared = true
	if _, err := m.Make(&other); !errors.As(err, &there) || there.Same {
		t.Errorf("another one of its name: %v", err)
	}
	all, err := All(m.Folders)
	if err != nil || len(all) != 1 || all[0].Process != st.Process {
		t.Errorf("%+v, %v", all, err)
	}

	if err := unix.Kill(st.Process, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l := m.Folders.Link(s.Name())
	eventually(t, "the killed link is told", func() bool {
		st, err := Query(l)
		return err == nil && st.State == Killed
	})
	if _, err = m.Make(s); err != nil {
		t.Fatalf("made again: %v", err)
	}
	if got := greeting(t, path); got != "hello" {
		t.Errorf("%q", got)
	}
	if err := Remove(m.Folders, l); err != nil {
		t.Error(err)
	}
	for _, gone := range []string{path, l.Folder, filepath.Dir(l.Folder)} {
		if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s stays: %v", gone, err)
		}
	}
	if err := Remove(m.Folders, l); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}

func TestMakeRefused(t *testing.T) {
	m := maker(t)
	port := greeter(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		spec Spec
		want string
	}{
		{Spec{Client: End{Path: file}, Host: End{Port: 1}}, "something of that name"},
		{Spec{Client: End{Path: filepath.Join(folder, "none", "s")}, Host: End{Port: 1}}, "no folder " + folder},
		{Spec{Client: End{Port: port}, Host: End{Port: 1}, Addresses: both}, fmt.Sprintf("127.0.0.1:%d: ", port)},
		{Spec{Client: End{Port: 8000}, Host: End{Port: 1}, Addresses: []string{"192.0.2.1"}}, "no such address"},
		{Spec{Client: End{Path: filepath.Join(folder, "s")}, Host: End{Container: "none", Port: 1}}, "container none: not running"},
		{Spec{Client: End{Container: "none", Port: 80}, Host: End{Port: 1}, Addresses: both}, "container none: not running"},
	}
	for _, test := range tests {
		test.spec.Count, test.spec.Protocol = 1, TCP
		_, err := m.Make(&test.spec)
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", test.spec.Text(), err, test.want)
		}
		if entries, _ := os.ReadDir(m.Folders.Runtime); len(entries) > 0 {
			t.Errorf("%s: leaves %v", test.spec.Text(), entries)
		}
	}
	if entries, _ := os.ReadDir(folder); len(entries) != 1 {
		t.Errorf("left of sockets: %v", entries)
	}
	m.Program = "/bin/true"
	if _, err := m.Make(&Spec{Client: End{Path: filepath.Join(folder, "s")}, Host: End{Port: 1}, Count: 1, Protocol: TCP}); err == nil || !strings.Contains(err.Error(), "ended at once") {
		t.Errorf("a process that ends: %v", err)
	}
	m.Program = "/none"
	if _, err := m.Make(&Spec{Client: End{Path: filepath.Join(folder, "s")}, Host: End{Port: 1}, Count: 1, Protocol: TCP}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
}

// told is a Maker that tells of processes that have ended.
type told struct {
	*Maker
	ended chan<- string
}

func (l told) Replace(s *Spec, exited func()) error {
	return l.Maker.Replace(s, func() {
		l.ended <- s.Name()
		exited()
	})
}

// TestDeclarations: a declared link ends where its container has no supervisor,
// and is then made anew until it isn't wanted any more.
func TestDeclarations(t *testing.T) {
	m := maker(t)
	ended := make(chan string, 100)
	d := NewDeclarations(told{m, ended}, func(text string) { t.Error(text) })
	desc := &descriptor.Descriptor{Name: "app", Links: []descriptor.Link{{Listen: 80, To: "web", Port: 80, Count: 1, Protocol: TCP}}}
	d.Apply(desc)
	for range 2 {
		select {
		case name := <-ended:
			if name != "app-80-web-80" {
				t.Error(name)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it is not made anew")
		}
	}
	d.Apply(nil)
	eventually(t, "nothing is left", func() bool {
		entries, err := os.ReadDir(m.Folders.Runtime)
		return err == nil && len(entries) == 0
	})
	d.Apply(nil)
}

// noMore is a Linker that has none to make, for a time or for good.
type noMore struct {
	asked chan<- struct{}
	err   error
}

func (l noMore) Replace(*Spec, func()) error {
	l.asked <- struct{}{}
	return l.err
}

func (l noMore) End(string) error { return nil }

// TestNoMore: what can't be made any more is not tried again and again.
func TestNoMore(t *testing.T) {
	desc := &descriptor.Descriptor{Name: "app", Links: []descriptor.Link{{Listen: 80, To: "web", Port: 80, Count: 1, Protocol: TCP}}}
	for want, err := range map[int]error{1: ErrNoMore, 2: errors.New("not now")} {
		asked := make(chan struct{}, 100)
		d := NewDeclarations(noMore{asked, err}, func(string) {})
		d.Apply(desc)
		time.Sleep(lastPause / 10 * 3 / 2)
		if got := len(asked); got != want {
			t.Errorf("%v: asked %d times, want %d", err, got, want)
		}
		d.Apply(nil)
	}
}

// TestDeclaredLeavesOthers: a link of the same name that connects something else
// is nobody's to end.
func TestDeclaredLeavesOthers(t *testing.T) {
	m := maker(t)
	warned := make(chan string, 10)
	d := NewDeclarations(m, func(text string) { warned <- text })
	making, err := m.Folders.LockLinks() // makes the folder
	if err != nil {
		t.Fatal(err)
	}
	other := m.Folders.Link("app-80-web-80")
	lock, err := other.Acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	state.UnlockLinks(making)
	spec, err := json.Marshal(Spec{Client: End{Port: 80}, Host: End{Container: "web", Port: 80}, Count: 1, Protocol: TCP, Addresses: both})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Write(specFile, spec); err != nil {
		t.Fatal(err)
	}
	d.Apply(&descriptor.Descriptor{Name: "app", Links: []descriptor.Link{{Listen: 80, To: "web", Port: 80, Count: 1, Protocol: TCP}}})
	select {
	case text := <-warned:
		if !strings.Contains(text, "is there already, and another one") {
			t.Error(text)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody is told that it can't be made")
	}
	if left, err := other.Read(specFile); err != nil || !bytes.Equal(left, spec) || !other.Held() {
		t.Errorf("the other link is %s, %v", left, err)
	}
	d.Apply(nil)
	if left, err := other.Read(specFile); err != nil || !bytes.Equal(left, spec) {
		t.Errorf("after the end of the declared ones, the other link is %s, %v", left, err)
	}
}
