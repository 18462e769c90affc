// Package sources unpacks nuc's own Nix files, which the program carries, for
// projects that don't have them as a flake input.
package sources

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nix-user-containers/nuc"
)

// Unpack returns a folder with nix/ and flake.lock, made below the cache folder
// at its first use.
func Unpack(cache string) (string, error) {
	h := sha256.New()
	files := map[string][]byte{}
	err := fs.WalkDir(nuc.Sources, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := nuc.Sources.ReadFile(path)
		if err != nil {
			return err
		}
		files[path] = data
		fmt.Fprintf(h, "%q %x\n", path, sha256.Sum256(data))
		return nil
	})
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, fmt.Sprintf("sources-%x", h.Sum(nil)[:8]))
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	part, err := os.MkdirTemp(cache, ".sources-*")
	if err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	defer os.RemoveAll(part)
	whole := filepath.Join(part, "sources")
	for path, data := range files {
		target := filepath.Join(whole, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return "", fmt.Errorf("cache folder: %w", err)
		}
		if err := os.WriteFile(target, data, 0o644); err != nil {
			return "", fmt.Errorf("cache folder: %w", err)
		}
	}
	// Another nuc may have been quicker; its files are the same.
	if err := os.Rename(whole, folder); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(folder); there != nil {
			return "", fmt.Errorf("cache folder: %w", err)
		}
	}
	return folder, nil
}
