package project

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Folder is the absolute path, by one name whatever links lead to it, of the
// folder that an argument names, which need not be there: also as Nix has one
// below its repository's top, .?dir=sub.
func Folder(ref string) (string, error) {
	if _, err := os.Stat(ref); err != nil {
		if path, query, found := strings.Cut(ref, "?"); found {
			values, err := url.ParseQuery(query)
			if err != nil || len(values) != 1 || values.Get("dir") == "" {
				return "", fmt.Errorf("project %s: no such folder; of what Nix has after a ?, only ?dir= is known with a folder: write git+file://… for the rest", ref)
			}
			ref = filepath.Join(path, values.Get("dir"))
		}
	}
	folder, err := filepath.Abs(ref)
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	return folder, nil
}

// Absolute is a flake reference that means the same in every folder.
func Absolute(ref string) string {
	for _, kind := range []string{"path:", "git+file:"} {
		rest, found := strings.CutPrefix(ref, kind)
		if !found || strings.HasPrefix(rest, "/") {
			continue
		}
		here, err := os.Getwd()
		if err != nil {
			return ref
		}
		path, query, _ := strings.Cut(rest, "?")
		ref = kind + escape(here)
		if path = filepath.Clean("/" + filepath.ToSlash(path)); path != "/" {
			ref += path
		}
		if query != "" {
			ref += "?" + query
		}
	}
	return ref
}

// reference is what Nix is to be told of a flake, where it is run in its folder.
//
// Of a folder in a repository Nix makes a URL without escaping what is in its
// path.
func (p Project) reference() string {
	if p.Folder == "" {
		return p.Flake
	}
	top := repository(p.Folder)
	if top == "" {
		return "."
	}
	var query []string
	if below, err := filepath.Rel(top, p.Folder); err == nil && below != "." {
		query = append(query, "dir="+escape(below))
	}
	if exists(top, ".git/shallow") {
		query = append(query, "shallow=1") // as Nix itself says of one
	}
	ref := "git+file://" + escape(top)
	if len(query) > 0 {
		ref += "?" + strings.Join(query, "&")
	}
	return ref
}

// repository is the top of the one that a folder is in, found as Nix finds it, or
// empty.
func repository(folder string) string {
	for top := folder; top != "/"; top = filepath.Dir(top) {
		if _, err := os.Lstat(filepath.Join(top, ".git")); err == nil {
			return top
		}
	}
	return ""
}

// readable refuses a repository of which Nix would build an old commit in the
// place of what is there: Nix before 2.19 doesn't take a path back out of a URL,
// and has git fetch from there what it takes for another machine's.
func (p Project) readable() error {
	top := ""
	if p.Folder != "" {
		top = repository(p.Folder)
	}
	if top == "" || escape(top) == top {
		return nil
	}
	out, err := exec.Command("nix", "--version").Output()
	if version := strings.TrimSpace(string(out)); err == nil && before219(version) {
		return fmt.Errorf("flake %s: %s can't read a repository whose path has a blank or another character that URLs escape: move it, or use Nix 2.19 or later; nothing was changed", p.Folder, version)
	}
	return nil
}

// before219 reads `nix (Nix) 2.8.0`.
func before219(version string) bool {
	words := strings.Fields(version)
	if len(words) == 0 {
		return false
	}
	var major, minor int
	_, err := fmt.Sscanf(words[len(words)-1], "%d.%d", &major, &minor)
	return err == nil && (major < 2 || major == 2 && minor < 19)
}

// escape writes a path as URLs have it: all but what stands for itself anywhere.
func escape(path string) string {
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~/", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// containers names those of a flake for this machine.
func (p Project) containers() string { return p.reference() + "#nucContainers." + system() }

// nix is a command of Nix's on the flake. It has flakes on, whatever the user's
// settings say: who names a flake wants it.
func (p Project) nix(args ...string) *exec.Cmd {
	command := exec.Command("nix", append([]string{"--extra-experimental-features", "nix-command flakes"}, args...)...)
	command.Dir = p.Folder
	return command
}
