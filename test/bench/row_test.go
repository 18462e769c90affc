package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nix-user-containers/nuc/test/harness"
)

// row is one thing that is measured.
type row struct {
	Name string
	Unit string
	// About says in a few words what is measured.
	About    string
	Subjects []*subject
	Wanted   []wanted
	// runs is how often each subject is measured, after warmUps that don't count.
	runs, warmUps int
	// setUp makes what the subjects share. They are not measured if it fails,
	// and the bench fails unless the error is a notHere.
	setUp func(s *session) error
	// place is where the row is measured, if not on the host as it is.
	place []harness.Option
}

// subject is one of those that are measured. The first of a row is nuc.
type subject struct {
	Name string
	// prepare, if not nil, makes what the subject needs. Its error is why the
	// subject can't run here; so is one of run before anything was measured.
	prepare func(s *session) error
	// run does it once and returns the measure.
	run func(s *session) (float64, error)

	// part says that it is a part of nuc's figure, not to be compared with it.
	part bool
	// own says that it is nuc in another way, for which nuc's bounds hold as well.
	own bool

	Runs  []float64
	Error string
}

// wanted is a bound on nuc's median.
type wanted struct {
	// AtMost or AtLeast bounds nuc's median as a multiple of Of's, or by itself
	// where Of is empty. The other is 0.
	AtMost  float64
	Of      string
	AtLeast float64
	// Plus bounds it as so much more than Of's, in the row's unit.
	Plus float64
}

func (w wanted) String() string {
	if w.Plus > 0 {
		return "at most " + figure(w.Plus) + " more"
	}
	if w.AtLeast > 0 {
		return "at least " + figure(w.AtLeast)
	}
	return "at most " + figure(w.AtMost)
}

// notHere is why a row can't be measured on this machine, which is no failure.
type notHere struct{ error }

// session is the place of one row's measurement.
type session struct {
	*testing.T
	H *harness.H

	containers []harness.Roles // of roads
}

func (r *row) measure(s *session) {
	progress("bench: %s", r.Name)
	if r.setUp != nil {
		var missing notHere
		switch err := r.setUp(s); {
		case errors.As(err, &missing):
			for _, sub := range r.Subjects {
				sub.Error = missing.Error()
			}
			return
		case err != nil:
			s.Fatalf("%s: %v", r.Name, err)
		}
	}
	for _, sub := range r.Subjects {
		if sub.prepare == nil {
			continue
		}
		if err := sub.prepare(s); err != nil {
			sub.refuse(s, err)
		}
	}
	r.takeTurns(s)
}

func (r *row) takeTurns(s *session) {
	n := r.count()
	for i := range r.warmUps + n {
		for _, sub := range r.Subjects {
			if sub.Error != "" {
				continue
			}
			value, err := sub.run(s)
			if err != nil {
				sub.refuse(s, err)
				continue
			}
			if i >= r.warmUps {
				sub.Runs = append(sub.Runs, value)
			}
		}
	}
}

func (r *row) count() int {
	switch {
	case *runs > 0:
		return *runs
	case *quick:
		return max(r.runs/4, 1)
	}
	return r.runs
}

// refuse notes why a subject can't run. For nuc itself that is a failure, unless
// the machine doesn't let it.
func (sub *subject) refuse(s *session, err error) {
	sub.Error = strings.Join(strings.Fields(err.Error()), " ")
	sub.Runs = nil
	if sub.Name == "nuc" && !errors.Is(err, errors.ErrUnsupported) {
		s.Errorf("nuc: %v", err)
	}
}

// median is that of a subject's runs, 0 without any.
func (sub *subject) median() float64 {
	sorted := slices.Sorted(slices.Values(sub.Runs))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 0:
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[n/2]
}

func (r *row) subject(name string) *subject {
	for _, sub := range r.Subjects {
		if sub.Name == name {
			return sub
		}
	}
	return nil
}

// Verdicts.
const (
	kept   = "ok"
	missed = "MISSED"
)

// bounds sets bounds of nuc's for the subjects that have none yet, except direct,
// which nobody can be faster than, and nuc itself in another way.
func (r *row) bounds(w wanted) {
	for _, sub := range r.Subjects[1:] {
		bound := slices.ContainsFunc(r.Wanted, func(w wanted) bool { return w.Of == sub.Name })
		if sub.Name != direct && !sub.own && !sub.part && !bound {
			w.Of = sub.Name
			r.Wanted = append(r.Wanted, w)
		}
	}
}

// verdict says whether nuc, or an own subject, is within the bound, "" where that
// can't be told.
func (r *row) verdict(own *subject, w wanted) string {
	bound := max(w.AtMost, w.AtLeast)
	if len(own.Runs) == 0 {
		return ""
	}
	if w.Of != "" {
		other := r.subject(w.Of)
		if other == nil || len(other.Runs) == 0 {
			return ""
		}
		bound = bound * other.median()
		if w.Plus > 0 {
			bound = other.median() + w.Plus
		}
	}
	if w.AtLeast > 0 && own.median() >= bound || w.AtLeast == 0 && own.median() <= bound {
		return kept
	}
	return missed
}

// timed returns a run that measures a program from its start to its end, in
// milliseconds, as a shell that waits for it sees it.
func timed(path string, args ...string) func(*session) (float64, error) {
	return func(s *session) (float64, error) { return s.clock(path, args...) }
}

// nuc is timed with the binary under test.
func nuc(args ...string) func(*session) (float64, error) {
	return func(s *session) (float64, error) { return s.clock(s.H.Binary(), args...) }
}

func (s *session) clock(path string, args ...string) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), *lap)
	defer cancel()
	cmd, release := s.H.Program(ctx, path, args...)
	// A file, as a goroutine that copies a pipe would be measured as well.
	said, err := os.CreateTemp("", "nuc-bench-*")
	if err != nil {
		release()
		return 0, err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd.Stderr = said
	began := time.Now()
	err = cmd.Start()
	if err == nil {
		err = cmd.Wait()
	}
	took := time.Since(began)
	release()
	if err != nil {
		return 0, explain(err, said)
	}
	return float64(took) / float64(time.Millisecond), nil
}

// explain adds a program's last words, the first of which mostly are the cause.
func explain(err error, said *os.File) error {
	buffer := make([]byte, 4096)
	n, _ := said.ReadAt(buffer, 0)
	for _, line := range bytes.Split(buffer[:n], []byte("\n")) {
		if text := strings.TrimSpace(string(line)); text != "" && !strings.Contains(text, "level=warning") {
			return fmt.Errorf("%s (%w)", shorten(text, 160), err)
		}
	}
	return err
}

func shorten(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// installed refuses a program that isn't there.
func installed(name string) error {
	if _, err := exec.LookPath(name); err != nil {
		return errors.New("is not installed")
	}
	return nil
}
