package leaktest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// leakVariable makes a copy of this test binary leak on purpose.
const leakVariable = "LEAKTEST_LEAK"

func TestMain(m *testing.M) { Main(m) }

func TestLeaks(t *testing.T) {
	tests := []struct {
		leak string
		want string // what standard error names; empty where the run passes
	}{
		{leak: "nothing"},
		{leak: "file", want: "file descriptor"},
		{leak: "goroutine", want: "goroutine was left running"},
	}
	for _, test := range tests {
		t.Run(test.leak, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestLeakOnPurpose$")
			cmd.Env = append(os.Environ(), leakVariable+"="+test.leak)
			out, err := cmd.CombinedOutput()
			if test.want == "" {
				if err != nil {
					t.Fatalf("a run without a leak failed: %v\n%s", err, out)
				}
				return
			}
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Fatalf("a leaked %s ended with %v, want exit status 1\n%s", test.leak, err, out)
			}
			if !strings.Contains(string(out), test.want) {
				t.Errorf("output doesn't name the leak as %q:\n%s", test.want, out)
			}
		})
	}
}

// kept is what TestLeakOnPurpose leaves behind in the copy of the binary.
var kept *os.File

func TestLeakOnPurpose(t *testing.T) {
	switch os.Getenv(leakVariable) {
	case "file":
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		kept = file
	case "goroutine":
		go func() { select {} }()
	}
}
