package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

const commandsReference = "../../../docs/commands.md"

// sections splits the reference at its second-level headings; "" is what comes
// before the first.
func sections(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(commandsReference)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for i, part := range strings.Split("\n"+string(text), "\n## ") {
		if i == 0 {
			all[""] = part
			continue
		}
		heading, body, _ := strings.Cut(part, "\n")
		if _, twice := all[heading]; twice {
			t.Errorf("docs/commands.md has two sections %q", heading)
		}
		all[heading] = body
	}
	return all
}

// firstCells are the first cells of a text's tables, without their headings.
func firstCells(text string) []string {
	var cells []string
	for line := range strings.Lines(text) {
		if cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | "); ok && strings.HasPrefix(line, "| `") {
			cells = append(cells, cell)
		}
	}
	return cells
}

var flagWord = regexp.MustCompile("`(--?[A-Za-z][A-Za-z0-9-]*)`")

func documentedFlags(text string) []string {
	var flags []string
	for _, cell := range firstCells(text) {
		for _, m := range flagWord.FindAllStringSubmatch(cell, -1) {
			flags = append(flags, m[1])
		}
	}
	slices.Sort(flags)
	return flags
}

func modelFlags(flags []*kong.Flag) []string {
	var words []string
	for _, f := range flags {
		if f.Hidden {
			continue
		}
		words = append(words, "--"+f.Name)
		if f.Short != 0 {
			words = append(words, "-"+string(f.Short))
		}
		if f.Tag.Negatable != "" {
			words = append(words, "--no-"+f.Name)
		}
	}
	slices.Sort(words)
	return words
}

func TestCommandsReference(t *testing.T) {
	var cli commandLine
	parser, err := kong.New(&cli, append(grammar(nil), kong.Name("nuc"))...)
	if err != nil {
		t.Fatal(err)
	}
	documented := sections(t)
	if got, want := documentedFlags(documented[""]), modelFlags(parser.Model.Flags); !slices.Equal(got, want) {
		t.Errorf("flags of every command: docs/commands.md has %q, nuc has %q", got, want)
	}
	statuses := "Exit statuses"
	known := map[string]bool{"": true, statuses: true}
	for _, node := range parser.Model.Children {
		if node.Hidden {
			continue
		}
		known[node.Name] = true
		section, ok := documented[node.Name]
		if !ok {
			t.Errorf("command %s is not in docs/commands.md", node.Name)
			continue
		}
		if got, want := documentedFlags(section), modelFlags(node.Flags); !slices.Equal(got, want) {
			t.Errorf("flags of %s: docs/commands.md has %q, nuc has %q", node.Name, got, want)
		}
		if synopsis := "    nuc " + node.Name; !strings.Contains(section, synopsis+" ") && !strings.Contains(section, synopsis+"\n") {
			t.Errorf("command %s has no synopsis in docs/commands.md", node.Name)
		}
		for _, alias := range node.Aliases {
			if !strings.Contains(section, "`nuc "+alias+"`") {
				t.Errorf("command %s: its alias %s is not in docs/commands.md", node.Name, alias)
			}
		}
	}
	for heading := range documented {
		if !known[heading] {
			t.Errorf("docs/commands.md has a section %q, nuc has no such command", heading)
		}
	}
}

// Every status constant of main.go stands in the table, and nothing else but
// success and what a command's own end gives.
func TestExitStatusesReference(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"0", "126", "127", "128+N"}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "status") || len(spec.Values) != 1 {
			return true
		}
		if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
			want = append(want, literal.Value)
		}
		return true
	})
	var got []string
	for _, cell := range firstCells(sections(t)["Exit statuses"]) {
		got = append(got, strings.Trim(cell, "`"))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/commands.md has the exit statuses %q, main.go %q", got, want)
	}
}
