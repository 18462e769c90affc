// Package vm runs bin/nuc on a whole host: Debian 13 in a virtual machine, where
// users log in, their systemd runs, and power can be cut. test/vm/run prepares
// the machine and runs it. Each test has one to itself.
package vm

import (
	"os"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/leaktest"
)

func TestMain(m *testing.M) {
	status := leaktest.Run(m, func() {
		for _, m := range all {
			m.end()
		}
	})
	for _, m := range all {
		m.keepLogs(status != 0)
		if m.folder != "" {
			os.RemoveAll(m.folder)
		}
	}
	os.Exit(status)
}

// prepared returns what test/vm/run names in the environment.
func prepared(t testing.TB, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s is not set: run test/vm/run, which makes the machine and names it", variable)
	}
	return path
}

// one fails the test unless a text is one line.
func one(t testing.TB, text string) {
	t.Helper()
	if strings.Count(text, "\n") != 1 {
		t.Errorf("want one line:\n%s", text)
	}
}
