package harness

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestSubordinate(t *testing.T) {
	path := t.TempDir() + "/subuid"
	if err := os.WriteFile(path, []byte("a:100000:65536\nb:165536:4096\nbroken\na:200000:10\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	own, end := subordinate(t, path, "a")
	if len(own) != 2 || own[0] != (idRange{100000, 65536}) || own[1] != (idRange{200000, 10}) || end != 200010 {
		t.Errorf("subordinate(a) = %v, %d", own, end)
	}
	if own, _ := subordinate(t, path, "c"); len(own) != 0 {
		t.Errorf("subordinate(c) = %v, want none", own)
	}
}

// A check for leftovers is only worth something if it finds them.
func TestLeftovers(t *testing.T) {
	place := New(t)
	if left := place.Leftovers(); len(left) != 0 {
		t.Fatalf("a new place has leftovers: %q", left)
	}
	place.mkdir(place.Runtime + "/nuc")
	place.mkdir(place.Runtime + "/nuc/demo")
	if place.cgroup != nil {
		place.cgroup.make(t, place.cgroup.path+"/command-0")
		place.cgroup.make(t, place.cgroup.path+"/command-0/payload")
	}
	left := strings.Join(place.Leftovers(), "\n")
	for _, want := range []string{"runtime folder entry " + place.Runtime + "/nuc/demo"} {
		if !strings.Contains(left, want) {
			t.Errorf("leftovers don't name %q:\n%s", want, left)
		}
	}
	if place.cgroup != nil && !strings.Contains(left, "command-0/payload") {
		t.Errorf("leftovers don't name the cgroup:\n%s", left)
	}
	if err := os.Remove(place.Runtime + "/nuc/demo"); err != nil {
		t.Fatal(err)
	}
	if place.cgroup != nil {
		if err := os.Remove(place.cgroup.path + "/command-0/payload"); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that outlives its command is found, in the cgroup or without one.
func TestLeftoverProcess(t *testing.T) {
	for name, opts := range map[string][]Option{"cgroup": nil, "no cgroup": {WithoutCgroup()}} {
		t.Run(name, func(t *testing.T) {
			place := New(t, opts...)
			place.Host("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $! >pid")
			pid, err := os.ReadFile(place.Dir + "/pid")
			if err != nil {
				t.Fatal(err)
			}
			want := "process " + strings.TrimSpace(string(pid)) + ": sleep 60"
			if left := strings.Join(place.Leftovers(), "\n"); !strings.Contains(left, want) {
				t.Errorf("leftovers don't name %q:\n%s", want, left)
			}
			place.Host("kill", strings.TrimSpace(string(pid)))
		})
	}
}

func TestTerminalHasItsSize(t *testing.T) {
	place := New(t)
	saved := shared.nuc
	shared.nuc = "/bin/sh" // any program will do
	t.Cleanup(func() { shared.nuc = saved })
	p, terminal := place.StartTerminal(17, 93, "-c", "stty size; read line; echo got $line; stty size")
	p.WaitOutput("17 93", limit)
	terminal.Resize(20, 80)
	terminal.Type("hello\n")
	p.WaitOutput("got hello", limit)
	p.WaitOutput("20 80", limit)
	if r := p.Wait(limit); r.Code != 0 {
		t.Errorf("%s", r)
	}
}
