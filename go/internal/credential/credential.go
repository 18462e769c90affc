// Package credential gathers the secrets that a descriptor names: from files,
// from what commands print, and from variables. It promises that a value is kept
// in memory alone and stands in no error, and that what it returns is no more
// than systemd gives to a service.
package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

// MaxSize bounds a container's credentials, in bytes: systemd gives a service no
// more, names counted as well (CREDENTIALS_TOTAL_SIZE_MAX in its
// src/shared/creds-util.h).
const MaxSize = 1 << 20

// Value is a secret. It can't be printed by accident.
type Value []byte

// Format prints what stands for every value.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(secret)") }

// Set is what was gathered.
type Set struct {
	// Values are the secrets by their names.
	Values map[string]Value `json:"values,omitempty"`
	// LeftOut says why those are missing that are optional and could not be had.
	LeftOut []string `json:"leftOut,omitempty"`
}

// Source is where, and for whom, credentials are gathered.
type Source struct {
	// Environment is that of who starts the container, NAME=value. Commands get it.
	Environment []string
	// Unattended says that nobody starts the container whose variables could be
	// meant: it is systemd that does.
	Unattended bool
	// Terminal lets commands ask on standard input and error.
	Terminal bool
}

// Gather gathers all, commands last, as somebody may be asked by one. Its error
// is the first that was met, and says what to do.
func (s Source) Gather(all []descriptor.Credential) (*Set, error) {
	set := &Set{Values: make(map[string]Value, len(all))}
	for _, commands := range []bool{false, true} {
		for i, c := range all {
			if commands != (len(c.Command) > 0) {
				continue
			}
			value, err := s.value(c)
			var missing *missingError
			switch {
			case err == nil:
				set.Values[c.Name] = value
			case c.Optional && errors.As(err, &missing):
				set.LeftOut = append(set.LeftOut, fmt.Sprintf("credentials[%d] (%s) is left out: %v", i, c.Name, missing.err))
			default:
				return nil, fmt.Errorf("credentials[%d] (%s): %w", i, c.Name, err)
			}
		}
	}
	total := 0
	for name, value := range set.Values {
		total += len(name) + len(value)
	}
	if total > MaxSize {
		return nil, fmt.Errorf("credentials: all of them, with their names, are %d bytes, and systemd gives a service at most %d: bring large files in by mounts", total, MaxSize)
	}
	return set, nil
}

// All are the values by their names, none of a nil Set.
func (s *Set) All() map[string]Value {
	if s == nil {
		return nil
	}
	return s.Values
}

// Names are those of the values, in order.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.All())) }

// missingError is a credential that can't be had. It may be left out.
type missingError struct {
	err    error
	remedy string
}

func (e *missingError) Error() string { return fmt.Sprintf("%v: %s", e.err, e.remedy) }

func (s Source) value(c descriptor.Credential) (Value, error) {
	switch {
	case c.File != "":
		return readFile(c.File)
	case c.Environment != "":
		return s.variable(c.Environment)
	}
	printed, err := s.output(c.Command)
	return trimmed(printed), err
}

// trimmed is a single line without its end. A secret of several lines is a key,
// say, that is none without its last newline.
func trimmed(text []byte) []byte {
	line, ok := bytes.CutSuffix(text, []byte("\n"))
	if !ok || bytes.IndexByte(line, '\n') >= 0 {
		return text
	}
	return line
}

func (s Source) variable(name string) (Value, error) {
	if s.Unattended {
		return nil, &missingError{
			fmt.Errorf("systemd has started the container, and so nobody has given the variable %s", name),
			"start it with `nuc up`, or use file or command",
		}
	}
	if value, found := lookup(s.Environment, name); found {
		return Value(value), nil
	}
	return nil, &missingError{fmt.Errorf("the variable %s is not set", name), "export it, or make the credential optional"}
}

func lookup(environment []string, name string) (string, bool) {
	for _, e := range environment {
		if value, found := strings.CutPrefix(e, name+"="); found {
			return value, true
		}
	}
	return "", false
}

func readFile(path string) (Value, error) {
	refused := func(err error) error { return fmt.Errorf("file %s: %w", path, err) }
	// O_NONBLOCK: opening a fifo would wait for its other end (open(2)).
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		err = bare(err)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
			return nil, &missingError{refused(err), "make it, or make the credential optional"}
		case errors.Is(err, fs.ErrPermission):
			return nil, refused(fmt.Errorf("%w: who starts the container must be able to read it", err))
		case errors.Is(err, unix.ENXIO): // a socket, or a device without a driver
			return nil, refused(errIrregular)
		}
		return nil, refused(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, refused(err)
	}
	if !st.Mode().IsRegular() {
		return nil, refused(errIrregular)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, refused(bare(err))
	}
	if len(data) > MaxSize {
		return nil, refused(errors.New("is larger than 1 MiB, the most that systemd gives a service: bring it in by mounts"))
	}
	return data, nil
}

// bare is an error without the name of the file.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

var errIrregular = errors.New("is no regular file: name one, or use command")
