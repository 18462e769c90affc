package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

// flatten maps each value of a descriptor, defaults filled in, to its path.
func flatten(d *descriptor.Descriptor) map[string]string {
	var tree any
	flat := map[string]string{}
	if json.Unmarshal(d.Marshal(), &tree) != nil {
		return flat
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, inner := range v {
				walk(strings.TrimPrefix(path+"."+key, "."), inner)
			}
		case []any:
			for i, inner := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), inner)
			}
		default:
			text, _ := json.Marshal(v)
			flat[path] = string(text)
		}
	}
	walk("", tree)
	return flat
}

// compareMaps lists what differs, by name.
func compareMaps(a, b map[string]string) []change {
	list := []change{}
	for name, from := range a {
		if to := b[name]; to != from {
			list = append(list, change{name, from, to})
		}
	}
	for name, to := range b {
		if _, known := a[name]; !known {
			list = append(list, change{name, "", to})
		}
	}
	slices.SortFunc(list, func(x, y change) int { return strings.Compare(x.Name, y.Name) })
	return list
}

func nixCommand(args ...string) (string, error) {
	out, err := exec.Command("nix", append([]string{"--extra-experimental-features", "nix-command"}, args...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if first, _, _ := strings.Cut(strings.TrimSpace(string(exit.Stderr)), "\n"); first != "" {
			err = errors.New(first)
		}
	}
	return string(out), err
}
