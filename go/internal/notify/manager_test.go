package notify

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

func TestManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	s, err := listenAt(path, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "3000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	m := FindManager()
	if m == nil {
		t.Fatal("not found")
	}
	defer m.Close()
	if m.Watchdog != 3*time.Second {
		t.Errorf("it watches within %s", m.Watchdog)
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		if left, there := os.LookupEnv(name); there {
			t.Errorf("what is started sees %s=%s", name, left)
		}
	}
	for _, not := range [][2]string{{"", ""}, {"0", ""}, {"-1", ""}, {"9999999999999999999", ""}, {"3s", ""}, {"3000000", "1"}} {
		if got := watchdogTime(not[0], not[1]); got != 0 {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %s", not[0], not[1], got)
		}
	}
	if err := m.Tell("READY=1\nSTATUS=ready\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Receive(); err != nil || got != (Message{Ready: true, Status: "ready"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if FindManager() != nil {
		t.Error("found without a socket")
	}
}
