package state

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestLinkFolders(t *testing.T) {
	f := Folders{Runtime: t.TempDir()}
	if all, err := f.Links(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	creating, err := f.LockLinks()
	if err != nil {
		t.Fatal(err)
	}
	var locks []*Lock
	for _, name := range []string{"web-80-db-5432", "host-1-web-80"} {
		lock, err := f.Link(name).Acquire()
		if err != nil {
			t.Fatal(err)
		}
		locks = append(locks, lock)
	}
	l := f.Link("web-80-db-5432")
	if _, err := l.Acquire(); !errors.Is(err, ErrHeld) {
		t.Errorf("twice: %v", err)
	}
	if !l.Held() || l.Holder() != os.Getpid() {
		t.Errorf("held %t by %d", l.Held(), l.Holder())
	}
	if err := l.Write("x", []byte("y")); err != nil {
		t.Error(err)
	}
	if text, err := l.Read("x"); string(text) != "y" {
		t.Errorf("%q, %v", text, err)
	}
	all, err := f.Links()
	if err != nil || len(all) != 2 || all[0].Name != "host-1-web-80" || all[1] != l {
		t.Errorf("%v, %v", all, err)
	}
	// A container's command sees no link.
	if names, err := f.Names(); err != nil || len(names) != 0 {
		t.Errorf("%v, %v", names, err)
	}
	if err := l.Remove(locks[0]); err != nil {
		t.Error(err)
	}
	locks[0].Close()
	if l.Held() {
		t.Error("held after it was removed")
	}
	UnlockLinks(creating)
	if err := f.Link("host-1-web-80").Remove(locks[1]); err != nil {
		t.Error(err)
	}
	locks[1].Close()
	if _, err := os.Stat(filepath.Join(f.Runtime, links)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the links' folder stays: %v", err)
	}
}

func TestWatch(t *testing.T) {
	c := Folders{Runtime: t.TempDir()}.Container("web")
	w, err := c.Watch()
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := w.Wait(time.Millisecond); err != nil || time.Since(begun) < time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(begun))
	}
	see := func(what string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if err := w.Wait(10 * time.Second); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for range 2 {
		see("folder", func() error { return os.Mkdir(c.Runtime, 0o700) })
		see("file", func() error { return os.WriteFile(filepath.Join(c.Runtime, "control"), nil, 0o600) })
		see("mode", func() error { return os.Chmod(filepath.Join(c.Runtime, "control"), 0o640) })
		if err := os.RemoveAll(c.Runtime); err != nil {
			t.Fatal(err)
		}
		_ = w.Wait(time.Millisecond)
	}
	ended := make(chan error)
	go func() { ended <- w.Wait(0) }()
	time.Sleep(time.Millisecond)
	w.Close()
	if err := <-ended; err == nil {
		t.Error("a wait outlives the watch")
	}
}
