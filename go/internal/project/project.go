// Package project finds what a command line means by a folder or a flake
// reference, and has Nix build the descriptors of the containers in it.
//
//	.#web, github:o/r#web   one container of a flake: nucContainers.SYSTEM.web
//	a folder with flake.nix all containers of that flake
//	a folder with configuration.nix, and no flake
//	                        one container, named for the folder
package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

// Project is where descriptors come from. It is kept with a container, so that
// a later switch finds it.
type Project struct {
	// Folder is the project's folder, absolute; "" for a flake elsewhere.
	Folder string `json:"folder,omitempty"`
	// Flake is a flake reference without a fragment; "" for a classic project.
	Flake string `json:"flake,omitempty"`
	// Name is the flake's name for the container.
	Name string `json:"name,omitempty"`
	// File is a descriptor's file, absolute, where that is all there is.
	File string `json:"file,omitempty"`
	// Nixpkgs is the one that a classic project uses; "" is the found one.
	Nixpkgs string `json:"nixpkgs,omitempty"`
}

// Is tells whether an argument looks like a project: a flake reference with a
// fragment, a reference of another kind than a path, or a folder.
func Is(arg string) bool {
	if strings.Contains(arg, "#") || scheme(arg) {
		return true
	}
	st, err := os.Stat(arg)
	return err == nil && st.IsDir()
}

// scheme tells github:o/r, git+ssh://… and the like from paths.
func scheme(arg string) bool {
	name, _, found := strings.Cut(arg, ":")
	return found && name != "" && !strings.ContainsAny(name, "/.")
}

// Find reads an argument for which Is holds. The name is the flake's fragment,
// "" for all.
func Find(arg, nixpkgs string) (p Project, name string, err error) {
	ref, name, _ := strings.Cut(arg, "#")
	if ref == "" {
		ref = "."
	}
	if scheme(ref) {
		return Project{Flake: ref}, name, nil
	}
	folder, err := filepath.Abs(ref)
	if err != nil {
		return Project{}, "", err
	}
	// The same folder by one name, whatever links lead to it.
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	st, err := os.Stat(folder)
	switch {
	case err != nil:
		return Project{}, "", fmt.Errorf("project %s: no such folder", ref)
	case !st.IsDir():
		return Project{}, "", fmt.Errorf("project %s: is no folder", ref)
	case exists(folder, "flake.nix"):
		if nixpkgs != "" {
			return Project{}, "", fmt.Errorf("project %s: is a flake, whose inputs say which nixpkgs it uses: leave --nixpkgs out", ref)
		}
		return Project{Folder: folder, Flake: folder}, name, nil
	case name != "":
		return Project{}, "", fmt.Errorf("project %s: has no flake.nix, so there is no #%s in it", ref, name)
	case exists(folder, "configuration.nix"):
		return Project{Folder: folder, Nixpkgs: nixpkgs}, "", nil
	}
	return Project{}, "", fmt.Errorf("project %s: neither a flake.nix, a configuration.nix nor a descriptor (*.json) is in it: name a folder that has one, or start one with nix flake init", ref)
}

func exists(folder, name string) bool {
	st, err := os.Stat(filepath.Join(folder, name))
	return err == nil && st.Mode().IsRegular()
}

// Builder runs Nix.
type Builder struct {
	// Cache is nuc's cache folder.
	Cache string
	// Sources returns a folder with nuc's own nix/ and flake.lock, for classic
	// projects.
	Sources func() (string, error)
	// Progress gets what Nix says meanwhile.
	Progress *os.File
	// Say, if not nil, is told what was chosen, one line each.
	Say func(string)
}

// Build returns the store paths of the descriptors: of the named container, or
// of all.
func (b *Builder) Build(p Project, name string) ([]string, error) {
	if _, err := exec.LookPath("nix"); err != nil {
		return nil, errors.New("nix is not on PATH: install it (https://nixos.org/download), or give a descriptor's file")
	}
	if p.Flake == "" {
		path, err := b.classic(p)
		return []string{path}, err
	}
	key := b.key(p, name)
	if paths := b.remembered(key); paths != nil {
		return paths, nil
	}
	paths, err := b.flake(p, name)
	// What changed meanwhile is not what was built.
	if err == nil && key != "" && b.key(p, name) == key && b.hasLocked(p) {
		b.remember(key, paths)
	}
	return paths, err
}

// system is the platform as Nix calls it.
func system() string {
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if machine == "" {
		machine = runtime.GOARCH
	}
	return machine + "-" + runtime.GOOS
}

func (b *Builder) flake(p Project, name string) ([]string, error) {
	names := []string{name}
	if name == "" {
		var err error
		if names, err = b.names(p, b.Progress); err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("flake %s: has no containers: nucContainers.%s is empty", p.Flake, system())
		}
	}
	// Not --print-out-paths, which came with Nix 2.9.
	args := []string{"build", "--no-link", "--json"}
	for _, n := range names {
		args = append(args, p.Flake+"#nucContainers."+system()+"."+quote(n)+".descriptor")
	}
	out, err := b.nix(args...)
	if err != nil {
		if known, nerr := b.names(p, nil); nerr == nil && name != "" && !contains(known, name) {
			return nil, unknown(p, name, known)
		}
		return nil, fmt.Errorf("flake %s: nix build failed, as it says above; nothing was changed", p.Flake)
	}
	return outputs(out)
}

// outputs reads what nix build --json prints: one object a derivation.
func outputs(text []byte) ([]string, error) {
	var built []struct{ Outputs map[string]string }
	if err := json.Unmarshal(text, &built); err != nil {
		return nil, fmt.Errorf("nix build --json: %w", err)
	}
	var paths []string
	for _, one := range built {
		if path := one.Outputs["out"]; path != "" {
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("nix build made no descriptor: nucContainers.SYSTEM.NAME.descriptor must be a derivation of one file")
	}
	return paths, nil
}

// names lists the containers of a flake.
func (b *Builder) names(p Project, progress *os.File) ([]string, error) {
	command := nix("eval", "--json", p.Flake+"#nucContainers."+system(), "--apply", "builtins.attrNames")
	var complaint bytes.Buffer
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		if progress != nil {
			_, _ = complaint.WriteTo(progress)
		}
		return nil, fmt.Errorf("flake %s: its containers can't be listed: it must evaluate, and have nucContainers.%s", p.Flake, system())
	}
	var names []string
	return names, json.Unmarshal(out, &names)
}

func unknown(p Project, name string, known []string) error {
	hint := "it has none"
	if near := descriptor.Nearest(name, known); near != "" {
		hint = "did you mean #" + near + "?"
	} else if len(known) > 0 {
		hint = "it has " + strings.Join(known, ", ")
	}
	return fmt.Errorf("flake %s: no container is named %s: %s", p.Flake, name, hint)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// quote makes an attribute's name one component of an attribute path.
func quote(name string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(name) + `"`
}

// nix has flakes on, whatever the user's settings say: who names a flake wants it.
func nix(args ...string) *exec.Cmd {
	return exec.Command("nix", append([]string{"--extra-experimental-features", "nix-command flakes"}, args...)...)
}

func (b *Builder) nix(args ...string) ([]byte, error) {
	command := nix(args...)
	command.Stderr = b.Progress
	return command.Output()
}

// expression evaluates a configuration.nix with nuc's modules.
const expression = `{ sources, name, configuration, nixpkgs ? null }:
let
  nuc = import (/. + sources + "/nix") (if nixpkgs == null then { } else { nixpkgs = /. + nixpkgs; });
in
(nuc.mkContainer { inherit name; modules = [ (/. + configuration) ]; }).descriptor`

func (b *Builder) classic(p Project) (string, error) {
	sources, err := b.Sources()
	if err != nil {
		return "", err
	}
	nixpkgs, from, err := findNixpkgs(p)
	if err != nil {
		return "", err
	}
	if b.Say != nil {
		b.Say("nixpkgs: " + from)
	}
	args := []string{
		"--no-out-link", "--expr", expression, "--argstr", "sources", sources,
		"--argstr", "name", ContainerName(p.Folder), "--argstr", "configuration", filepath.Join(p.Folder, "configuration.nix"),
	}
	if nixpkgs != "" {
		args = append(args, "--argstr", "nixpkgs", nixpkgs)
	}
	command := exec.Command("nix-build", args...)
	command.Stderr = b.Progress
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("project %s: nix-build failed, as it says above; nothing was changed", p.Folder)
	}
	return strings.TrimSpace(string(out)), nil
}

// findNixpkgs says which nixpkgs a classic project uses; "" is the locked one.
func findNixpkgs(p Project) (path, from string, err error) {
	if p.Nixpkgs != "" {
		path, err := filepath.Abs(p.Nixpkgs)
		if err != nil {
			return "", "", err
		}
		if !exists(path, "nixos/lib/eval-config.nix") {
			return "", "", fmt.Errorf("--nixpkgs %s: is no nixpkgs: there is no nixos/lib/eval-config.nix in it", p.Nixpkgs)
		}
		return path, path + " (--nixpkgs)", nil
	}
	out, err := exec.Command("nix-instantiate", "--find-file", "nixpkgs").Output()
	if found := strings.TrimSpace(string(out)); err == nil && found != "" {
		return found, found + " (NIX_PATH)", nil
	}
	return "", "the one nuc is locked to (neither --nixpkgs nor NIX_PATH names another)", nil
}

// ContainerName makes a container's name of a folder's.
func ContainerName(folder string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(filepath.Base(folder)) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0:
			b.WriteByte('-')
		}
	}
	name := b.String()
	if len(name) > 63 {
		name = name[:63]
	}
	name = strings.TrimRight(name, "-")
	if name == "" {
		return "container"
	}
	return name
}
