package bench

import (
	"strings"
	"testing"
)

// TestVerdicts: nuc is to be ahead of all but direct, and its links are held to
// the same.
func TestVerdicts(t *testing.T) {
	r := &row{
		Name: "r", Unit: "Gbit/s",
		Subjects: []*subject{
			{Name: "nuc", Runs: []float64{8}},
			{Name: "nuc link", own: true, Runs: []float64{6}},
			{Name: direct, Runs: []float64{10}},
			{Name: "slow", Runs: []float64{5}},
			{Name: "fast", Runs: []float64{9}},
			{Name: "absent", Error: "is not installed"},
		},
		Wanted: []wanted{{AtLeast: 0.7, Of: direct}, {AtLeast: 1.4, Of: "slow"}},
	}
	r.bounds(wanted{AtLeast: 1})
	var table strings.Builder
	if err := writeTable(&table, []*row{r}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"nuc link": "as nuc  MISSED: at least 0.70 × direct, at least 1.40 × slow, at least 1 × fast",
		"direct":   "at least 0.70 ×  ok",
		"slow":     "at least 1.40 ×  ok",
		"fast":     "at least 1 ×  MISSED",
		"absent":   "can't run here: is not installed",
	} {
		found := ""
		for line := range strings.Lines(table.String()) {
			if strings.HasPrefix(strings.TrimSpace(line), name+" ") {
				found = strings.Join(strings.Fields(line), " ")
			}
		}
		if !strings.HasSuffix(found, strings.Join(strings.Fields(want), " ")) {
			t.Errorf("%s: %q, want %q", name, found, want)
		}
	}
}
