package hostile

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/test/harness"
)

var update = flag.Bool("update", false, "write the table of docs/hostile.md")

// begin is what the table comes after in docs/hostile.md.
const begin = "<!-- made of test/hostile/cases_test.go by: go test ./test/hostile -run TestTable -update -->\n"

// TestTable has docs/hostile.md say what the cases are.
func TestTable(t *testing.T) {
	path := filepath.Join(harness.Repository(t), "docs/hostile.md")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	intro, _, found := strings.Cut(string(content), begin)
	if !found {
		t.Fatalf("%s has no line %s", path, begin)
	}
	want := intro + begin + table()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(content) != want {
		t.Errorf("docs/hostile.md is not what the table of cases says: go test ./test/hostile -run TestTable -update")
	}
}

func table() string {
	var b strings.Builder
	group := ""
	for _, c := range cases {
		if c.group != group {
			group = c.group
			fmt.Fprintf(&b, "\n## %s\n\n| case | what is tried | what nuc must do | test of TestHostile |\n|---|---|---|---|\n", group)
		}
		test := "`" + c.test() + "`"
		if c.also != "" {
			test += "; also " + c.also
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", c.number, c.attack, c.required, test)
	}
	return b.String()
}

// TestCases checks the table itself: numbers, names, and that the other tests
// that it names are there.
func TestCases(t *testing.T) {
	name := regexp.MustCompile(`^[a-z0-9-]+(-CVE-\d{4}-\d+)?$`)
	other := regexp.MustCompile(`\b((?:go/internal|go/cmd|test)/[a-z]+)((?:,? Test\w+(?:/[a-z]+)?)*)`)
	top := harness.Repository(t)
	for i, c := range cases {
		if c.number != i+1 || c.group == "" || c.attack == "" || c.required == "" || c.run == nil || !name.MatchString(c.name) {
			t.Errorf("case %d: %+v", i+1, c)
		}
		for _, m := range other.FindAllStringSubmatch(c.also, -1) {
			files, err := filepath.Glob(filepath.Join(top, m[1], "*_test.go"))
			if err != nil || len(files) == 0 {
				t.Errorf("case %d: %s has no tests", c.number, m[1])
			}
			var text strings.Builder
			for _, file := range files {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				text.Write(content)
			}
			for _, word := range strings.Fields(strings.ReplaceAll(m[2], ",", "")) {
				test, sub, _ := strings.Cut(word, "/")
				if strings.HasPrefix(test, "Test") && !strings.Contains(text.String(), "func "+test+"(") || sub != "" && !strings.Contains(text.String(), `t.Run("`+sub+`"`) {
					t.Errorf("case %d: %s has no %s", c.number, m[1], word)
				}
			}
		}
	}
	if len(cases) != 37 {
		t.Errorf("%d cases", len(cases))
	}
}
