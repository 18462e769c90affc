package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/nix-user-containers/nuc/go/internal/console"
)

// printable escapes what would command a terminal: control characters,
// invalid UTF-8 and invisible formatting, such as a container can put in its
// status or its logs. Line feeds stay.
func printable(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || r != '\n' && !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += max(size, 1)
	}
	return b.String()
}

// Colours are SGR parameters (ECMA-48), the first eight of which every terminal
// has.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

// nameColours tell containers apart; red is for what is wrong.
var nameColours = [...]string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

func paint(text, colour string) string { return "\x1b[" + colour + "m" + text + "\x1b[0m" }

// colours tells whether f is shown in colours (https://no-color.org).
func colours(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && console.IsTerminal(f)
}

// writeJSON prints v as indented JSON.
func writeJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(escapeJSON(text), '\n'))
	return err
}

// writeJSONLine prints v as JSON on one line.
func writeJSONLine(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(escapeJSON(text), '\n'))
	return err
}

// escapeJSON escapes what would command a terminal and the encoder leaves: DEL,
// the control characters above it and invisible formatting. They are in strings
// only. Invalid UTF-8 is U+FFFD already.
func escapeJSON(text []byte) []byte {
	var b []byte
	for _, r := range string(text) {
		if r == '\n' || unicode.IsPrint(r) {
			b = utf8.AppendRune(b, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			b = fmt.Appendf(b, `\u%04x`, unit)
		}
	}
	return b
}

// table prints rows in aligned columns; the first row is the heading.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = strings.ReplaceAll(printable(row[i]), "\n", " ")
			if row[i] == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// uptime is a duration as people say it.
func uptime(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
