// Package diagram draws containers and what is between them: as text, for
// Graphviz (dot), for Mermaid, and as SVG by a layout of its own.
package diagram

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Node is a container.
type Node struct {
	Name string
	// State is a word such as ready, "" for a container that nothing is known of.
	State string
	// Lines are shown with it: its ports.
	Lines []string
}

// Edge leads from the container that needs something to the one that has it.
type Edge struct {
	From, To string
	// Label says what a link relays; a dependency has none.
	Label string
	// Dependency tells a dependency from a link.
	Dependency bool
}

// Diagram is what is drawn. The names in its edges need not be those of nodes.
type Diagram struct {
	Nodes []Node
	Edges []Edge
}

// Formats are the names that Write knows, in the order of the help.
var Formats = []string{"text", "dot", "mermaid", "svg"}

// Write draws a diagram in a format of Formats. The same diagram gives the same
// bytes, in whichever order its parts come.
func (d *Diagram) Write(w io.Writer, format string) error {
	n := d.normal()
	var text string
	switch format {
	case "dot":
		text = n.dot()
	case "mermaid":
		text = n.mermaid()
	case "svg":
		text = n.svg()
	default:
		text = n.text()
	}
	_, err := io.WriteString(w, text)
	return err
}

// normal is the diagram in order, with a node for each name, and one edge of a
// kind between two nodes.
func (d *Diagram) normal() *Diagram {
	n := &Diagram{Nodes: slices.Clone(d.Nodes)}
	known := map[string]bool{}
	for _, node := range d.Nodes {
		known[node.Name] = true
	}
	edges := slices.Clone(d.Edges)
	slices.SortStableFunc(edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(number(a.Dependency), number(b.Dependency)), compareLabels(a.Label, b.Label))
	})
	for _, e := range edges {
		for _, name := range []string{e.From, e.To} {
			if !known[name] {
				known[name] = true
				n.Nodes = append(n.Nodes, Node{Name: name})
			}
		}
		last := len(n.Edges) - 1
		if last >= 0 && n.Edges[last].From == e.From && n.Edges[last].To == e.To && n.Edges[last].Dependency == e.Dependency {
			if e.Label != "" {
				n.Edges[last].Label += ", " + e.Label
			}
			continue
		}
		n.Edges = append(n.Edges, e)
	}
	slices.SortFunc(n.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return n
}

// compareLabels orders port numbers as numbers.
func compareLabels(a, b string) int {
	return cmp.Or(cmp.Compare(leading(a), leading(b)), cmp.Compare(a, b))
}

func leading(label string) int {
	n, _ := strconv.Atoi(label[:len(label)-len(strings.TrimLeft(label, "0123456789"))])
	return n
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (d *Diagram) node(name string) Node {
	i := slices.IndexFunc(d.Nodes, func(n Node) bool { return n.Name == name })
	return d.Nodes[i]
}

// from are the edges that leave a node.
func (d *Diagram) from(name string) []Edge {
	var edges []Edge
	for _, e := range d.Edges {
		if e.From == name {
			edges = append(edges, e)
		}
	}
	return edges
}

// text is a tree of lines for each container that nothing leads to. A container
// is shown in full where it comes first.
func (d *Diagram) text() string {
	var b strings.Builder
	shown := map[string]bool{}
	var show func(name, indent string)
	show = func(name, indent string) {
		node := d.node(name)
		line := node.Name
		if node.State != "" {
			line += "  " + node.State
		} else {
			line += "  not known"
		}
		b.WriteString(line)
		if shown[name] {
			b.WriteString("  (see above)\n")
			return
		}
		shown[name] = true
		b.WriteString("\n")
		edges := d.from(name)
		bar := "   "
		if len(edges) > 0 {
			bar = "│  "
		}
		for _, l := range node.Lines {
			b.WriteString(indent + bar + l + "\n")
		}
		for i, to := range targets(edges) {
			branch, next := "├─ ", "│  "
			if i == len(targets(edges))-1 {
				branch, next = "└─ ", "   "
			}
			var what []string
			for _, e := range edges {
				switch {
				case e.To != to:
				case e.Dependency:
					what = append(what, "needs")
				default:
					what = append(what, "link "+e.Label)
				}
			}
			b.WriteString(indent + branch + strings.Join(what, ", ") + ": ")
			show(to, indent+next)
		}
	}
	reached := map[string]bool{}
	for _, e := range d.Edges {
		reached[e.To] = true
	}
	for _, alone := range []bool{true, false} { // then what is left: cycles
		for _, n := range d.Nodes {
			if !shown[n.Name] && reached[n.Name] != alone {
				show(n.Name, "")
			}
		}
	}
	return b.String()
}

// targets are where edges lead to, each once.
func targets(edges []Edge) []string {
	var names []string
	for _, e := range edges {
		if !slices.Contains(names, e.To) {
			names = append(names, e.To)
		}
	}
	return names
}

// caption are a node's lines.
func (n Node) caption() []string {
	state := n.State
	if state == "" {
		state = "not known"
	}
	return append([]string{n.Name, state}, n.Lines...)
}

func (d *Diagram) dot() string {
	// Graphviz' double-quoted strings know \" and its own escapes, all of which
	// begin with a backslash (graphviz.org/doc/info/lang.html).
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	var b strings.Builder
	b.WriteString("digraph nuc {\n  node [shape=box, style=\"rounded,filled\", fontname=monospace, fontsize=11];\n  edge [fontname=monospace, fontsize=10];\n")
	for _, n := range d.Nodes {
		var lines []string
		for _, l := range n.caption() {
			lines = append(lines, quote.Replace(l))
		}
		fill, stroke := colours(n.State)
		b.WriteString(`  "` + quote.Replace(n.Name) + `" [label="` + strings.Join(lines, `\n`) + `", fillcolor="` + fill + `", color="` + stroke + "\"];\n")
	}
	for _, e := range d.Edges {
		b.WriteString(`  "` + quote.Replace(e.From) + `" -> "` + quote.Replace(e.To) + `"`)
		if e.Dependency {
			b.WriteString(" [style=dashed];\n")
		} else {
			b.WriteString(` [label="` + quote.Replace(e.Label) + "\"];\n")
		}
	}
	b.WriteString("}\n")
	return b.String()
}

func (d *Diagram) mermaid() string {
	// Mermaid takes HTML's entities, by number and with # for &; ids of our own,
	// as "end" and others are words of its language.
	quote := strings.NewReplacer(`#`, "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "|", "#124;")
	id := map[string]string{}
	var b strings.Builder
	b.WriteString("flowchart TD\n")
	for i, n := range d.Nodes {
		id[n.Name] = "n" + strconv.Itoa(i+1)
		var lines []string
		for _, l := range n.caption() {
			lines = append(lines, quote.Replace(l))
		}
		b.WriteString("  " + id[n.Name] + `["` + strings.Join(lines, "<br/>") + "\"]\n")
	}
	for _, e := range d.Edges {
		if e.Dependency {
			b.WriteString("  " + id[e.From] + " -.-> " + id[e.To] + "\n")
		} else {
			b.WriteString("  " + id[e.From] + ` -->|"` + quote.Replace(e.Label) + `"| ` + id[e.To] + "\n")
		}
	}
	return b.String()
}

// colours are a state's fill and outline.
func colours(state string) (fill, stroke string) {
	switch state {
	case "ready":
		return "#e3f5e5", "#2b8a3e"
	case "failed":
		return "#fde3e3", "#c92a2a"
	case "degraded", "running":
		return "#fff0d9", "#d9730d"
	case "starting", "stopping", "listening":
		return "#e3effc", "#1864ab"
	}
	return "#f1f3f5", "#868e96"
}
