package unit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Folder is where a user's units are, which systemd starts by itself
// (systemd.unit(5), "User Unit Search Path"). Getenv is os.Getenv's job.
func Folder(getenv func(string) string) string {
	config := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(config) {
		config = filepath.Join(getenv("HOME"), ".config")
	}
	return filepath.Join(config, "systemd/user")
}

// own begins the files that nuc makes.
const own = "# Made by `nuc enable`"

// File is the text of a service that is started when the user's systemd comes up.
func (s Service) File() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, own+", and made anew by it and by `nuc up`.\n[Unit]\nDescription=%s\n", specifier(s.Description))
	if len(s.After) > 0 {
		after := strings.Join(s.After, " ")
		fmt.Fprintf(&b, "Wants=%s\nAfter=%s\n", after, after)
	}
	fmt.Fprintf(&b, "\n[Service]\nType=%s\n", s.kind())
	for _, p := range s.Properties {
		fmt.Fprintln(&b, p)
	}
	for _, e := range s.Environment {
		fmt.Fprintf(&b, "Environment=%s\n", quoted(e))
	}
	words := make([]string, len(s.Command))
	for i, word := range s.Command {
		words[i] = quoted(strings.ReplaceAll(word, "$", "$$"))
	}
	fmt.Fprintf(&b, "ExecStart=%s\n\n[Install]\nWantedBy=default.target\n", strings.Join(words, " "))
	return b.Bytes()
}

func specifier(text string) string { return strings.ReplaceAll(text, "%", "%%") }

// quoted is a word as unit files have it (systemd.syntax(7), "Quoting").
func quoted(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "%", "%%").Replace(word) + `"`
}

// Enabled tells whether there is a file of that name which nuc has made.
func Enabled(folder, name string) bool {
	path := filepath.Join(folder, name)
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	text, err := os.ReadFile(path)
	return err == nil && bytes.HasPrefix(text, []byte(own))
}

// Declared is the file of a unit that somebody else has made, such as
// home-manager, wherever systemd finds it; "" where there is none.
func (m *Manager) Declared(folder, name string) string {
	path := filepath.Join(folder, name)
	if Enabled(folder, name) {
		return ""
	}
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	path, err := m.Show(name, "FragmentPath")
	if err != nil || strings.HasPrefix(path, filepath.Join(m.Runtime, "systemd/transient")+"/") {
		return ""
	}
	return path
}

// Write writes a service's file if it is another one, and has systemd read it.
func (m *Manager) Write(folder string, s Service) error {
	path := filepath.Join(folder, s.Name)
	text := s.File()
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	// Not readable while it is half of itself.
	part := filepath.Join(folder, "."+s.Name+".part")
	err := os.WriteFile(part, text, 0o600)
	if err == nil {
		err = os.Rename(part, path)
	}
	if err == nil {
		err = m.reload(s.Name)
	}
	return err
}

// wanted is the link by which systemd starts a service by itself. systemctl
// enable makes it as well, but not for one that runs as a transient unit now.
func wanted(folder, name string) string { return filepath.Join(folder, "default.target.wants", name) }

// Enable has systemd start a service by itself.
func (m *Manager) Enable(folder string, s Service) error {
	if err := m.Write(folder, s); err != nil {
		return err
	}
	link := wanted(folder, s.Name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join("..", s.Name), link); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return m.reload(s.Name)
}

// reload has systemd read the files, unless a transient unit of that name is
// there: default.target would refer to it, so that it would stay, in the file's
// place, when its process has ended. systemd sees by itself that a folder has
// changed when it next looks for a unit.
func (m *Manager) reload(name string) error {
	if _, err := os.Lstat(filepath.Join(m.Runtime, "systemd/transient", name)); err == nil {
		return nil
	}
	_, err := m.execute(m.Control, []string{"--user", "daemon-reload"})
	return err
}

// Disable undoes Enable. What runs goes on running; it is no error if there is
// nothing to undo.
func (m *Manager) Disable(folder, name string) error {
	if !Enabled(folder, name) {
		return nil
	}
	for _, path := range []string{wanted(folder, name), filepath.Join(folder, name)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return m.reload(name)
}

// StartFile starts a service that is a file, also one that is about to be
// started anew or that has failed too often, and does not wait for it.
func (m *Manager) StartFile(name string) error {
	_, _ = m.execute(m.Control, []string{"--user", "--quiet", "reset-failed", name})
	start := []string{"--user", "--quiet", "--no-block", "start", name}
	_, err := m.execute(m.Control, start)
	if err != nil && m.reload(name) == nil {
		// It was found as a transient one last, which is gone.
		_, err = m.execute(m.Control, start)
	}
	return err
}
