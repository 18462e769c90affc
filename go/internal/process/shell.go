package process

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Shell returns the pidfd of the shell that this process was started from: the
// nearest ancestor that is no mere copy of a shell, as those are that run $( )
// and ( ). Where that is direnv's shell, which ends when direnv has read its
// file, it is who runs direnv:
//
//	zsh ── direnv export ── bash, reads .envrc ── nuc     zsh
//	zsh ── direnv exec ── bash, reads .envrc ── nuc       direnv, which executes the command
//	bash, of nix develop ── nuc                           bash
//	bash ── bash, for $( ) ── nuc                         the first
func Shell() (*os.File, error) {
	pid, err := shellOf(os.Getppid(), processes{statOf, arguments})
	if err != nil {
		return nil, err
	}
	pidfd, err := Open(pid)
	if err != nil {
		return nil, err
	}
	// What is an ancestor still was one when it was opened: nothing that came
	// later is.
	if again, err := shellOf(os.Getppid(), processes{statOf, arguments}); err != nil || again != pid {
		pidfd.Close()
		return nil, errNoShell
	}
	return pidfd, nil
}

var errNoShell = errors.New("no shell is found that nuc was started from: it has ended; give the number of a process instead")

// processes are those of /proc.
type processes struct {
	stat      func(pid int) (stat, error)
	arguments func(pid int) []string
}

// shellOf finds the shell, upwards from a process.
func shellOf(pid int, p processes) (int, error) {
	shell := 0
	for pid > 0 {
		st, err := p.stat(pid)
		if err != nil {
			return 0, errNoShell
		}
		switch {
		case isDirenv(st.name):
			shell = 0
			if words := p.arguments(pid); len(words) > 1 && words[1] == "exec" {
				shell = pid
			}
		case shell == 0 && !st.forked:
			shell = pid
		}
		pid = st.parent
	}
	if shell == 0 {
		return 0, errNoShell
	}
	return shell, nil
}

// isDirenv knows direnv also as it is wrapped by nixpkgs.
func isDirenv(name string) bool { return name == "direnv" || name == ".direnv-wrapped" }

func arguments(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\x00")
}
