package notify

import (
	"os"
	"path/filepath"
	"testing"
)

func TestManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	s, err := listenAt(path, os.Getuid(), os.Getgid())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	m := FindManager()
	if m == nil {
		t.Fatal("not found")
	}
	defer m.Close()
	if left, there := os.LookupEnv("NOTIFY_SOCKET"); there {
		t.Errorf("what is started sees %s", left)
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
