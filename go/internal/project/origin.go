package project

import (
	"os"
	"path/filepath"
	"strings"
)

// Place is what a person knows a project by: its folder, the flake's reference or
// a descriptor's file.
func (p Project) Place() string {
	switch {
	case p.Folder != "":
		return p.Folder
	case p.Flake != "":
		return p.Flake
	}
	return p.File
}

// folder is where the project is on this machine, "" for a flake elsewhere.
func (p Project) folder() string {
	if p.Folder == "" && p.File != "" {
		return filepath.Dir(p.File)
	}
	return p.Folder
}

// Elsewhere tells whether a container that came from one project would now come
// from another one, which has the same name for it by chance. A project whose
// folder or file is there no more has moved: it is no other one.
func Elsewhere(kept, now Project) bool {
	switch before, here := kept.folder(), now.folder(); {
	case before != "" && here != "":
		a, err := os.Stat(before)
		b, berr := os.Stat(here)
		return err == nil && berr == nil && !os.SameFile(a, b) && kept.isThere()
	case before == "" && here == "":
		return flakeName(kept.Flake) != flakeName(now.Flake)
	}
	return kept.isThere()
}

// isThere tells whether a project is still where it was.
func (p Project) isThere() bool {
	switch {
	case p.File != "":
		return exists(filepath.Split(p.File))
	case p.Folder != "" && p.Flake != "":
		return exists(p.Folder, "flake.nix")
	case p.Folder != "":
		return exists(p.Folder, "configuration.nix")
	}
	return true
}

// flakeName is a flake's reference without what says which state of it is meant.
func flakeName(ref string) string {
	ref, _, _ = strings.Cut(ref, "?")
	kind, rest, _ := strings.Cut(ref, ":")
	switch kind {
	case "github", "gitlab", "sourcehut": // OWNER/NAME/REVISION
		if parts := strings.Split(rest, "/"); len(parts) > 2 {
			return kind + ":" + strings.Join(parts[:2], "/")
		}
	case "flake": // NAME/BRANCH/REVISION
		name, _, _ := strings.Cut(rest, "/")
		return kind + ":" + name
	}
	return ref
}
