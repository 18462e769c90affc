package main

import (
	"fmt"
	"runtime"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

type versionCommand struct {
	JSON bool `name:"json" help:"As JSON, with the versions of Go and of the descriptor."`
}

func (versionCommand) Help() string {
	return `Examples:
  nuc version
  nuc version --json`
}

func (v *versionCommand) Run(c *context) error {
	if !v.JSON {
		_, err := fmt.Fprintln(c.stdout, "nuc "+version)
		return err
	}
	return writeJSON(c.stdout, struct {
		Version    string `json:"version"`
		Descriptor int    `json:"descriptor"`
		Go         string `json:"go"`
		Platform   string `json:"platform"`
	}{version, descriptor.Version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
}
