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
	// Nixpkgs is the folder of the one that a classic project uses, absolute; ""
	// is the found one.
	Nixpkgs string `json:"nixpkgs,omitempty"`
}

// Built is one of a project's descriptors.
type Built struct {
	// Name is the flake's name for the container, which it need not bear itself;
	// "" of a classic project.
	Name string
	// Path is the descriptor's in the store.
	Path string
}

// Is tells whether an argument looks like a project: a flake reference with a
// fragment, a reference of another kind than a path, or a folder.
func Is(arg string) bool {
	ref, name := Cut(arg)
	return name != "" || strings.HasSuffix(arg, "#") || scheme(ref) || isFolder(ref)
}

// Cut takes a flake's fragment off an argument, which a folder's own name may
// look like.
func Cut(arg string) (ref, name string) {
	if at := strings.LastIndexByte(arg, '#'); isFolder(arg) {
		return arg, ""
	} else if at >= 0 && isFolder(arg[:at]) {
		return arg[:at], arg[at+1:]
	}
	ref, name, _ = strings.Cut(arg, "#")
	if ref == "" {
		ref = "."
	}
	return ref, name
}

func isFolder(path string) bool {
	st, err := os.Stat(path)
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
	ref, name := Cut(arg)
	if scheme(ref) {
		if nixpkgs != "" {
			return Project{}, "", isFlake(ref)
		}
		return Project{Flake: Absolute(ref)}, name, nil
	}
	if nixpkgs != "" {
		if nixpkgs, err = filepath.Abs(nixpkgs); err != nil {
			return Project{}, "", err
		}
	}
	folder, err := Folder(ref)
	if err != nil {
		return Project{}, "", err
	}
	st, err := os.Stat(folder)
	switch {
	case err != nil:
		return Project{}, "", noFolder(ref, name)
	case !st.IsDir():
		return Project{}, "", fmt.Errorf("project %s: is no folder", ref)
	case exists(folder, "flake.nix"):
		if nixpkgs != "" {
			return Project{}, "", isFlake(ref)
		}
		return Project{Folder: folder, Flake: folder}, name, nil
	case name != "":
		return Project{}, "", fmt.Errorf("project %s: has no flake.nix, so there is no #%s in it", ref, name)
	case exists(folder, "configuration.nix"):
		return Project{Folder: folder, Nixpkgs: nixpkgs}, "", nil
	}
	return Project{}, "", fmt.Errorf("project %s: neither a flake.nix, a configuration.nix nor a descriptor (*.json) is in it: name a folder that has one, or start one with nix flake init", ref)
}

func isFlake(ref string) error {
	return fmt.Errorf("project %s: is a flake, whose inputs say which nixpkgs it uses: leave --nixpkgs out", ref)
}

// noFolder says what else may be meant by what is no folder.
func noFolder(ref, name string) error {
	if !strings.ContainsAny(ref, "/.") && name != "" {
		return fmt.Errorf("project %s: no such folder: a flake of Nix's registry is flake:%s#%s", ref, ref, name)
	}
	return fmt.Errorf("project %s: no such folder", ref)
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

// Build builds the descriptors: of the named container, or of all.
func (b *Builder) Build(p Project, name string) ([]Built, error) {
	if _, err := exec.LookPath("nix"); err != nil {
		return nil, errors.New("nix is not on PATH: install it (https://nixos.org/download), or give a descriptor's file")
	}
	if p.Flake == "" {
		path, err := b.classic(p)
		return []Built{{Path: path}}, err
	}
	key := b.key(p, name)
	if built := b.remembered(key); built != nil {
		return built, nil
	}
	if err := p.readable(); err != nil {
		return nil, err
	}
	built, err := b.flake(p, name)
	// What changed meanwhile is not what was built.
	if err == nil && key != "" && b.key(p, name) == key && b.hasLocked(p) {
		b.remember(key, built)
	}
	return built, err
}

// system is the platform as Nix calls it.
func system() string {
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	if machine == "" {
		machine = runtime.GOARCH
	}
	return machine + "-" + runtime.GOOS
}

func (b *Builder) flake(p Project, name string) ([]Built, error) {
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
		args = append(args, p.containers()+"."+quote(n)+".descriptor")
	}
	command := p.nix(args...)
	command.Stderr = b.Progress
	out, err := command.Output()
	if err != nil {
		if known, nerr := b.names(p, nil); nerr == nil && name != "" && !contains(known, name) {
			return nil, unknown(p, name, known)
		}
		return nil, fmt.Errorf("flake %s: nix build failed, as it says above; nothing was changed", p.Flake)
	}
	return outputs(out, names)
}

// outputs reads what nix build --json prints: one object a derivation, in the
// order in which they were asked for.
func outputs(text []byte, names []string) ([]Built, error) {
	var built []struct{ Outputs map[string]string }
	if err := json.Unmarshal(text, &built); err != nil {
		return nil, fmt.Errorf("nix build --json: %w", err)
	}
	if len(built) != len(names) {
		return nil, fmt.Errorf("nix build --json: %d outputs of %d containers", len(built), len(names))
	}
	var all []Built
	for i, one := range built {
		path := one.Outputs["out"]
		if path == "" {
			return nil, fmt.Errorf("nix build made no descriptor of %s: nucContainers.SYSTEM.NAME.descriptor must be a derivation of one file", names[i])
		}
		all = append(all, Built{Name: names[i], Path: path})
	}
	return all, nil
}

// names lists the containers of a flake.
func (b *Builder) names(p Project, progress *os.File) ([]string, error) {
	command := p.nix("eval", "--json", p.containers(), "--apply", "builtins.attrNames")
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
		path := p.Nixpkgs
		if !exists(path, "nixos/lib/eval-config.nix") {
			return "", "", fmt.Errorf("--nixpkgs %s: is no nixpkgs: there is no nixos/lib/eval-config.nix in it", path)
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
