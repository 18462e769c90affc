package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

type validateCommand struct {
	Files []string `arg:"" name:"descriptor" help:"Descriptors' files; - is standard input."`
	JSON  bool     `name:"json" help:"The problems as JSON."`
}

func (validateCommand) Help() string {
	return `Prints ok, or one line for each problem. Nothing is started.

Exit status: 0 if all descriptors are good, else 1.

Examples:
  nuc validate web.json
  nix build .#web.descriptor && nuc validate result`
}

// problem is a descriptor's problem as validate --json prints it.
type problem struct {
	File     string `json:"file"`
	Path     string `json:"path"`
	Value    string `json:"value"`
	Expected string `json:"expected"`
	Remedy   string `json:"remedy,omitempty"`
}

func (v *validateCommand) Run(c *context) error {
	found := []problem{}
	for _, file := range v.Files {
		err := readDescriptor(file)
		var all descriptor.Problems
		switch {
		case errors.As(err, &all):
			for _, p := range all {
				found = append(found, problem{file, p.Path, p.Value, p.Expected, p.Remedy})
				if !v.JSON {
					fmt.Fprintf(c.stdout, "%s: %s\n", printable(file), p)
				}
			}
		case err != nil:
			return fmt.Errorf("descriptor %s: %w", file, err)
		case v.JSON:
		case len(v.Files) == 1:
			fmt.Fprintln(c.stdout, "ok")
		default:
			fmt.Fprintf(c.stdout, "%s: ok\n", printable(file))
		}
	}
	if v.JSON {
		if err := writeJSON(c.stdout, found); err != nil {
			return err
		}
	}
	if len(found) > 0 {
		return exitStatus{status: statusFailed}
	}
	return nil
}

func readDescriptor(file string) error {
	if file != "-" {
		_, _, err := descriptor.ReadFile(file)
		return err
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, descriptor.MaxSize+1))
	if err != nil {
		return err
	}
	_, err = descriptor.Read(data)
	return err
}
