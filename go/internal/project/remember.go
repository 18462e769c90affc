package project

import (
	"bytes"
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
	"sort"
	"strings"
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
	fmt.Fprintf(h, "1\n%s\n%s\n%q\n%q\n", program, system(), p.Flake, name)
	for _, e := range os.Environ() {
		// What may change what Nix makes of a flake: its settings and its store.
		if strings.HasPrefix(e, "NIX_") {
			fmt.Fprintf(h, "%q\n", e)
		}
	}
	if err := hashFlake(h, p.Folder); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
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
	out, err := nix("flake", "metadata", "--json", p.Flake).Output()
	if err != nil {
		return false
	}
	var metadata struct {
		Locks struct{ Nodes map[string]json.RawMessage }
	}
	return json.Unmarshal(out, &metadata) == nil && len(metadata.Locks.Nodes) <= 1
}

func (b *Builder) memory(key string) string { return filepath.Join(b.Cache, "builds", key) }

// remembered returns an earlier build's paths, if all of them are still there.
func (b *Builder) remembered(key string) []string {
	if key == "" {
		return nil
	}
	data, err := os.ReadFile(b.memory(key))
	if err != nil {
		return nil
	}
	paths := strings.Fields(string(data))
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return nil
		}
	}
	return paths
}

// remember notes a build's paths; that it could not is no matter.
func (b *Builder) remember(key string, paths []string) {
	path := b.memory(key)
	if os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return
	}
	_, err = tmp.WriteString(strings.Join(paths, "\n") + "\n")
	if cerr := tmp.Close(); err != nil || cerr != nil || os.Rename(tmp.Name(), path) != nil {
		_ = os.Remove(tmp.Name())
	}
}
