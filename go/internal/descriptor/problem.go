package descriptor

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one thing that a descriptor is refused for.
type Problem struct {
	// Path is where, such as network.ports[0].host; "" is the whole file.
	Path string
	// Value is what stands there as JSON, at most 60 characters of it, all
	// printable; "missing" if nothing does.
	Value string
	// Expected is what may stand there.
	Expected string
	// Remedy is what to do about it, where that isn't said by Expected.
	Remedy string
}

func (p Problem) String() string {
	var b strings.Builder
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Value + ": expected " + p.Expected)
	if p.Remedy != "" {
		b.WriteString(": " + p.Remedy)
	}
	return b.String()
}

// Problems are all problems of a descriptor, in the order of the file.
type Problems []Problem

// Error is one line per problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

const maxValue = 60 // runes of a value or a key in a problem

// abbreviate makes a piece of a file fit for a terminal: runs of white space
// are one space, what isn't printable is escaped, the rest is cut.
func abbreviate(s string) string {
	var b strings.Builder
	b.Grow(maxValue)
	space, cut, n := false, 0, 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if strings.IndexByte(" \t\r\n", s[i]) >= 0 {
			i++
			space = n > 0
			continue
		}
		piece := s[i : i+size]
		switch {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case !unicode.IsPrint(r) && r > 0xffff:
			piece = fmt.Sprintf(`\U%08x`, r)
		case !unicode.IsPrint(r):
			piece = fmt.Sprintf(`\u%04x`, r)
		}
		if space {
			piece = " " + piece
			space = false
		}
		n += utf8.RuneCountInString(piece)
		if n > maxValue {
			return b.String()[:cut] + "…"
		}
		b.WriteString(piece)
		if n < maxValue {
			cut = b.Len()
		}
		i += size
	}
	return b.String()
}

// Nearest returns the one of names that name was probably meant to be, "" if
// none is close.
func Nearest(name string, names []string) string {
	if len(name) > 2*maxValue {
		return ""
	}
	best, nearest := 1+len(name)/3, ""
	for _, candidate := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d <= best && (nearest == "" || d < best) {
			best, nearest = d, candidate
		}
	}
	return nearest
}

// distance counts the bytes to insert, delete, replace or swap with their
// neighbour (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
