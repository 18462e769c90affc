package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/nix-user-containers/nuc/go/internal/screen"
)

// redraw shows what show prints again and again: on a terminal as a screen that
// q and Ctrl-C leave, elsewhere one after another. Both streams are shown.
func (c *context) redraw(interval time.Duration, show func(*context) error) error {
	s, err := screen.Open(os.Stdin, os.Stdout)
	if errors.Is(err, screen.ErrNoTerminal) {
		for {
			if err := show(c); err != nil {
				return err
			}
			time.Sleep(interval)
		}
	}
	if err != nil {
		return err
	}
	defer s.Close()
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	var lines []string
	for fresh := true; ; {
		if fresh {
			var text bytes.Buffer
			on := *c
			on.stdout, on.stderr = &text, &text
			if err := show(&on); err != nil {
				return err
			}
			lines = strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
		}
		s.Draw(fitting(lines, s))
		select {
		case <-s.Quit():
			return nil
		case <-s.Resized():
			fresh = false
		case <-ticks.C:
			fresh = true
		}
	}
}

// fitting says in the last line how much has no place.
func fitting(lines []string, s *screen.Screen) []string {
	rows, _ := s.Size()
	if len(lines) <= rows || rows < 2 {
		return lines
	}
	return append(lines[:rows-1:rows-1], fmt.Sprintf("… %d lines more", len(lines)-rows+1))
}
