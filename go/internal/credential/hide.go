package credential

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

// Hide takes the variables that are credentials out of the environment: of what
// is started from now on, and of /proc/self/environ, which is where the process
// got them at its execve and which os.Unsetenv does not change. It is as good as
// the kernel lets it be.
func Hide(all []descriptor.Credential) {
	names := map[string]bool{}
	for _, c := range all {
		if c.Environment != "" {
			names[c.Environment] = true
			_ = os.Unsetenv(c.Environment)
		}
	}
	if len(names) == 0 {
		return
	}
	environ, err := os.ReadFile("/proc/self/environ")
	if err != nil {
		return
	}
	start, err := environStart()
	if err != nil {
		return
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer memory.Close()
	offset := int64(0)
	for entry := range bytes.SplitSeq(environ, []byte{0}) {
		name, value, _ := bytes.Cut(entry, []byte("="))
		if names[string(name)] && len(value) > 0 {
			_, _ = memory.WriteAt(make([]byte, len(value)), start+offset+int64(len(name)+1))
		}
		offset += int64(len(entry)) + 1
	}
}

// environStart is the address of the environment (proc_pid_stat(5), env_start).
func environStart() (int64, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	// The program's name may have blanks and brackets; it is the second field.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const envStart = 50 - 3
	if len(fields) <= envStart {
		return 0, os.ErrInvalid
	}
	return strconv.ParseInt(fields[envStart], 10, 64)
}
