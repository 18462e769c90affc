package project

import (
	"os"
	"path/filepath"
	"strings"
)

// Descriptors lists the descriptors' files of a project that is a folder of
// them: all its *.json, sorted. It is empty for what is no such folder; a
// flake.nix or configuration.nix in it comes first.
func Descriptors(arg string) ([]string, error) {
	if scheme(arg) || !isFolder(arg) && strings.Contains(arg, "#") || exists(arg, "flake.nix") || exists(arg, "configuration.nix") {
		return nil, nil
	}
	entries, err := os.ReadDir(arg)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".json") && name[0] != '.' && exists(arg, name) {
			files = append(files, filepath.Join(arg, name))
		}
	}
	return files, nil
}
