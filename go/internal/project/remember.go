package project

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"
)

// What Nix reads of a large repository takes longer to look through than it
// saves.
const (
	maxFiles = 20000
	maxBytes = 64 << 20
)

var errTooMuch = errors.New("too much to look through")

// key is the hash of all that the descriptors of a local flake depend on: its
// files as Nix sees them, its lock file among them, and Nix itself. Evaluation
// is pure, so the same key is the same result. "" says that there is no telling.
func (b *Builder) key(p Project, name string) string {
	if p.Folder == "" || b.Cache == "" {
		return ""
	}
	h := sha256.New()
	program, err := exec.LookPath("nix")
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return ""
	}
	fmt.Fprintf(h, "2\n%s\n%s\n%q\n%q\n", program, system(), p.Flake, name)
	for _, e := range os.Environ() {
		// What may change what Nix makes of a flake: its settings and its store.
		if strings.HasPrefix(e, "NIX_") {
			fmt.Fprintf(h, "%q\n", e)
		}
	}
	for _, path := range settings(os.Getenv) {
		hashSettings(h, path, 0)
	}
	if err := hashFlake(h, p.Folder); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}

// settings are the files with Nix's settings (nix.conf(5)).
func settings(getenv func(string) string) []string {
	or := func(value, fallback string) string {
		if value == "" {
			return fallback
		}
		return value
	}
	files := []string{filepath.Join(or(getenv("NIX_CONF_DIR"), "/etc/nix"), "nix.conf")}
	if own := getenv("NIX_USER_CONF_FILES"); own != "" {
		return append(files, strings.Split(own, ":")...)
	}
	folders := append([]string{or(getenv("XDG_CONFIG_HOME"), filepath.Join(getenv("HOME"), ".config"))},
		strings.Split(or(getenv("XDG_CONFIG_DIRS"), "/etc/xdg"), ":")...)
	for _, folder := range folders {
		files = append(files, filepath.Join(folder, "nix/nix.conf"))
	}
	return files
}

// hashSettings writes what is in a file of settings and in those that it
// includes.
func hashSettings(w io.Writer, path string, depth int) {
	data, err := os.ReadFile(path)
	if err != nil || depth > 8 {
		fmt.Fprintf(w, "%q -\n", path)
		return
	}
	fmt.Fprintf(w, "%q %q\n", path, data)
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) == 2 && (words[0] == "include" || words[0] == "!include") {
			included := words[1]
			if !filepath.IsAbs(included) {
				included = filepath.Join(filepath.Dir(path), included)
			}
			hashSettings(w, included, depth+1)
		}
	}
}

// hashFlake writes the names, kinds and contents of a flake's files.
func hashFlake(w io.Writer, folder string) error {
	if err := onlyLocked(folder); err != nil {
		return err
	}
	top, commit, files, err := flakeFiles(folder)
	if err != nil {
		return err
	}
	sort.Strings(files)
	fmt.Fprintf(w, "%q %q\n", top, commit)
	left := int64(maxBytes)
	for _, name := range files {
		path := filepath.Join(top, name)
		st, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // deleted and not committed so: Nix doesn't see it either
		case err != nil:
			return err
		case st.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%q link %q\n", name, target)
			continue
		case !st.Mode().IsRegular():
			return fmt.Errorf("%s: neither a file nor a link", path) // a submodule
		}
		if left -= st.Size(); left < 0 {
			return errTooMuch
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%q %t %x\n", name, st.Mode()&0o111 != 0, sha256.Sum256(data))
	}
	return nil
}

// flakeFiles lists what Nix copies of a flake's folder: the tracked files of its
// git repository, or all.
func flakeFiles(folder string) (top, commit string, files []string, err error) {
	out, err := exec.Command("git", "-C", folder, "rev-parse", "--show-toplevel").Output()
	if err == nil {
		top = strings.TrimSuffix(string(out), "\n")
		out, err = exec.Command("git", "-C", top, "ls-files", "-z").Output()
		if err != nil {
			return "", "", nil, err
		}
		for _, name := range bytes.Split(bytes.TrimSuffix(out, []byte{0}), []byte{0}) {
			files = append(files, string(name))
		}
		if len(files) > maxFiles {
			return "", "", nil, errTooMuch
		}
		// A flake can ask for its own commit (self.rev).
		head, _ := exec.Command("git", "-C", top, "rev-parse", "HEAD").Output()
		return top, strings.TrimSpace(string(head)), files, nil
	}
	for dir := folder; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return "", "", nil, errors.New("a repository that git can't read")
		}
		if dir == "/" {
			break
		}
	}
	err = filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if len(files) > maxFiles {
			return errTooMuch
		}
		name, err := filepath.Rel(folder, path)
		files = append(files, name)
		return err
	})
	return folder, "", files, err
}

// onlyLocked refuses flakes with inputs that the lock file doesn't pin by their
// content: relative paths of newer Nix, and what a registry or a user adds.
func onlyLocked(folder string) error {
	data, err := os.ReadFile(filepath.Join(folder, "flake.lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is made by the first build, and is a change then
	}
	if err != nil {
		return err
	}
	var lock struct {
		Root  string
		Nodes map[string]struct {
			Locked struct{ NarHash, Rev string }
		}
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return err
	}
	for name, n := range lock.Nodes {
		if name != lock.Root && n.Locked.NarHash == "" && n.Locked.Rev == "" {
			return fmt.Errorf("input %s is not pinned", name)
		}
	}
	return nil
}

// hasLocked tells whether a flake that was built has all of its inputs in its
// lock file. Nix writes none for a flake without inputs, and can't write one to
// a folder that is read-only: the inputs are then looked up every time.
func (b *Builder) hasLocked(p Project) bool {
	if exists(p.Folder, "flake.lock") {
		return true
	}
	out, err := p.nix("flake", "metadata", "--json", p.reference()).Output()
	if err != nil {
		return false
	}
	var metadata struct {
		Locks struct{ Nodes map[string]json.RawMessage }
	}
	return json.Unmarshal(out, &metadata) == nil && len(metadata.Locks.Nodes) <= 1
}

func (b *Builder) memory(key string) string { return filepath.Join(b.Cache, "builds", key) }

// remembered returns an earlier build, if all of it is still there.
func (b *Builder) remembered(key string) []Built {
	if key == "" {
		return nil
	}
	path := b.memory(key)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var built []Built
	if json.Unmarshal(data, &built) != nil {
		return nil
	}
	for _, one := range built {
		if _, err := os.Stat(one.Path); err != nil {
			return nil
		}
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now)
	return built
}

// remember notes what was built; that it could not is no matter.
func (b *Builder) remember(key string, built []Built) {
	text, err := json.Marshal(built)
	path := b.memory(key)
	if err != nil || os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(text)
	if cerr := tmp.Close(); err != nil || cerr != nil || os.Rename(tmp.Name(), path) != nil {
		_ = os.Remove(tmp.Name())
	}
	forget(filepath.Dir(path))
}

// memories is how many builds are remembered: each change of a file is another.
const memories = 200

// forget removes the builds that were not asked for longest.
func forget(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) <= memories {
		return
	}
	age := func(e fs.DirEntry) int64 {
		info, err := e.Info()
		if err != nil {
			return 0
		}
		return -info.ModTime().UnixNano()
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(age(a), age(b)) })
	for _, e := range entries[memories:] {
		_ = os.Remove(filepath.Join(folder, e.Name()))
	}
}
