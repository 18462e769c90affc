package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"
)

// writeTable prints one line a subject. Ratios are nuc's median by the
// subject's.
func writeTable(w io.Writer, rows []*row) error {
	lines := [][]string{{"row", "subject", "median", "least", "runs", "nuc is", "wanted", ""}}
	for _, r := range rows {
		for i, sub := range r.Subjects {
			line := make([]string, 0, 8)
			name := ""
			if i == 0 {
				name = r.Name
			}
			line = append(line, name, sub.Name)
			switch {
			case sub.Error != "":
				lines = append(lines, append(line, "can't run here: "+shorten(sub.Error, 120)))
				continue
			case len(sub.Runs) == 0:
				lines = append(lines, append(line, "not measured: see the failure above"))
				continue
			}
			line = append(line, figure(sub.median())+" "+r.Unit, figure(least(sub.Runs)), strconv.Itoa(len(sub.Runs)), "", "", "")
			if own := r.Subjects[0].median(); i > 0 && !sub.part && own > 0 && sub.median() > 0 {
				line[5] = figure(own/sub.median()) + " ×"
			}
			for _, bound := range r.Wanted {
				switch {
				case bound.Of == "" && i == 0:
					line[6] = bound.String() + " " + r.Unit
				case bound.Of == sub.Name && bound.Plus > 0:
					line[6] = bound.String()
				case bound.Of == sub.Name:
					line[6] = bound.String() + " ×"
				default:
					continue
				}
				line[7] = r.verdict(r.Subjects[0], bound)
			}
			if sub.own {
				line[6], line[7] = "as nuc", r.missed(sub)
			}
			lines = append(lines, line)
		}
	}
	return align(w, lines)
}

// missed says which of nuc's bounds an own subject misses.
func (r *row) missed(sub *subject) string {
	said := ""
	var of []string
	for _, bound := range r.Wanted {
		switch r.verdict(sub, bound) {
		case missed:
			of = append(of, bound.String()+" × "+bound.Of)
		case kept:
			said = kept
		}
	}
	if len(of) > 0 {
		said = missed + ": " + strings.Join(of, ", ")
	}
	return said
}

// align sets columns; a last cell that stands alone may be as long as it is.
func align(w io.Writer, lines [][]string) error {
	var widths []int
	for _, line := range lines {
		for i, cell := range line {
			if len(widths) <= i {
				widths = append(widths, 0)
			}
			if i < len(line)-1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			}
		}
	}
	for _, line := range lines {
		var b strings.Builder
		for i, cell := range line {
			b.WriteString(cell)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// figure has three significant digits, and never an exponent.
func figure(f float64) string {
	switch {
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case f == float64(int(f)):
		return strconv.Itoa(int(f))
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}

func least(runs []float64) float64 {
	found := runs[0]
	for _, f := range runs {
		found = min(found, f)
	}
	return found
}

// The file's format: an array of these.
type rowJSON struct {
	Name     string                 `json:"name"`
	About    string                 `json:"about"`
	Unit     string                 `json:"unit"`
	Subjects map[string]subjectJSON `json:"subjects"`
	Wanted   []wantedJSON           `json:"wanted,omitempty"`
}

type subjectJSON struct {
	Median *float64  `json:"median"` // null where it can't run
	Runs   []float64 `json:"runs"`
	Error  string    `json:"error,omitempty"`
}

type wantedJSON struct {
	AtMost  float64 `json:"atMost,omitempty"`
	AtLeast float64 `json:"atLeast,omitempty"`
	// Plus is how much more than Of's median it may be, in the row's unit.
	Plus float64 `json:"plus,omitempty"`
	// Of is the subject whose median is multiplied; without, the bound is in the
	// row's unit.
	Of string `json:"of,omitempty"`
	// Verdict is ok, MISSED, or empty where one of the two can't run.
	Verdict string `json:"verdict"`
	// Own is the same for nuc in other ways, by their names.
	Own map[string]string `json:"own,omitempty"`
}

func writeJSON(path string, rows []*row) error {
	all := make([]rowJSON, 0, len(rows))
	for _, r := range rows {
		j := rowJSON{Name: r.Name, About: r.About, Unit: r.Unit, Subjects: map[string]subjectJSON{}}
		for _, sub := range r.Subjects {
			one := subjectJSON{Runs: sub.Runs, Error: sub.Error}
			if len(sub.Runs) > 0 {
				median := sub.median()
				one.Median = &median
			} else {
				one.Runs = []float64{}
			}
			j.Subjects[sub.Name] = one
		}
		for _, w := range r.Wanted {
			one := wantedJSON{AtMost: w.AtMost, AtLeast: w.AtLeast, Plus: w.Plus, Of: w.Of, Verdict: r.verdict(r.Subjects[0], w)}
			for _, sub := range r.Subjects[1:] {
				if sub.own {
					if one.Own == nil {
						one.Own = map[string]string{}
					}
					one.Own[sub.Name] = r.verdict(sub, w)
				}
			}
			j.Wanted = append(j.Wanted, one)
		}
		all = append(all, j)
	}
	content, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(content, '\n'), 0o644)
}
