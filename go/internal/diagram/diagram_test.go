package diagram

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

func shop() *Diagram {
	return &Diagram{
		Nodes: []Node{
			{Name: "web", State: "ready", Lines: []string{"127.0.0.1:8080→80", "[::1]:8443→443"}},
			{Name: "worker", State: "starting"},
			{Name: "db", State: "ready", Lines: []string{"127.0.0.1:15432→5432"}},
			{Name: "cache", State: "failed"},
			{Name: "alone", State: "stopped"},
		},
		Edges: []Edge{
			{From: "web", To: "db", Label: "5432→5432"},
			{From: "web", To: "db", Dependency: true},
			{From: "web", To: "cache", Label: "6379→6379"},
			{From: "web", To: "cache", Label: "80→80/udp"},
			{From: "worker", To: "queue", Label: "9092→9092"},
			{From: "worker", To: "web", Dependency: true},
			{From: "worker", To: "db", Label: "5432→5432"},
			{From: "queue", To: "db", Dependency: true},
		},
	}
}

func circle() *Diagram {
	return &Diagram{
		Nodes: []Node{{Name: "a", State: "ready"}, {Name: "b", State: "ready"}, {Name: "c", State: "degraded"}},
		Edges: []Edge{
			{From: "a", To: "b", Label: "1→1"},
			{From: "b", To: "c", Label: "2→2"},
			{From: "c", To: "a", Label: "3→3"},
			{From: "b", To: "a", Label: "4→4"},
		},
	}
}

// hostile has what a state or a label would have to say to break a format.
func hostile() *Diagram {
	return &Diagram{
		Nodes: []Node{{Name: "end", State: `"]; <&>'|\`}, {Name: "graph", State: "ready", Lines: []string{"</text><script>"}}},
		Edges: []Edge{{From: "end", To: "graph", Label: `"|<b>&#`}},
	}
}

func draw(t *testing.T, d *Diagram, format string) string {
	t.Helper()
	var b strings.Builder
	if err := d.Write(&b, format); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Each drawing is held against testdata, which was looked at.
func TestGolden(t *testing.T) {
	for name, d := range map[string]*Diagram{"shop": shop(), "circle": circle(), "hostile": hostile(), "empty": {}} {
		for _, format := range Formats {
			t.Run(name+"."+format, func(t *testing.T) {
				path := filepath.Join("testdata", name+"."+format)
				got := draw(t, d, format)
				if *update {
					if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("%s is not drawn as in %s (go test -update, then look at it):\n%s", name, path, got)
				}
			})
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	want := map[string]string{}
	for _, format := range Formats {
		want[format] = draw(t, shop(), format)
	}
	for range 20 {
		d := shop()
		rand.Shuffle(len(d.Nodes), func(i, j int) { d.Nodes[i], d.Nodes[j] = d.Nodes[j], d.Nodes[i] })
		rand.Shuffle(len(d.Edges), func(i, j int) { d.Edges[i], d.Edges[j] = d.Edges[j], d.Edges[i] })
		for _, format := range Formats {
			if draw(t, d, format) != want[format] {
				t.Fatalf("another %s of the same diagram: %+v", format, d)
			}
		}
	}
}

// random has n containers, with cycles.
func random(n, edges int) *Diagram {
	d := &Diagram{}
	for i := range n {
		d.Nodes = append(d.Nodes, Node{Name: "c" + strconv.Itoa(i), State: "ready", Lines: make([]string, rand.IntN(3))})
	}
	for range edges {
		from, to := rand.IntN(n), rand.IntN(n)
		d.Edges = append(d.Edges, Edge{From: "c" + strconv.Itoa(from), To: "c" + strconv.Itoa(to), Label: "1→1", Dependency: rand.IntN(2) == 0})
	}
	return d
}

// No two boxes overlap, all are inside, and each edge leads downwards.
func TestLayout(t *testing.T) {
	diagrams := []*Diagram{shop(), circle(), hostile(), {}}
	for range 60 {
		diagrams = append(diagrams, random(1+rand.IntN(14), rand.IntN(30)))
	}
	for _, d := range diagrams {
		n := d.normal()
		l := n.layout()
		placed := 0
		for _, layer := range l.layers {
			for i, b := range layer {
				if b.node != nil {
					placed++
				}
				if b.x < margin-0.01 || b.y < margin-0.01 || b.x+b.w > l.width-margin+0.01 || b.y+b.h > l.height-margin+0.01 {
					t.Fatalf("outside of %f×%f: %+v", l.width, l.height, b)
				}
				if i > 0 && layer[i-1].x+layer[i-1].w+gapX > b.x+0.01 {
					t.Fatalf("too near: %+v and %+v", layer[i-1], b)
				}
			}
		}
		if placed != len(n.Nodes) {
			t.Fatalf("%d of %d nodes have a place", placed, len(n.Nodes))
		}
		for _, e := range l.lines {
			if e.way[0].node.Name != e.upper() || e.way[len(e.way)-1].node.Name != e.lower() {
				t.Fatalf("%+v leads elsewhere", e.Edge)
			}
			for i := range len(e.way) - 1 {
				if e.way[i+1].layer != e.way[i].layer+1 || e.way[i].y+e.way[i].h > e.way[i+1].y {
					t.Fatalf("%+v does not lead downwards: %+v", e.Edge, e.way)
				}
			}
		}
	}
}

func TestSVGIsXML(t *testing.T) {
	for _, d := range []*Diagram{shop(), circle(), hostile(), {}} {
		text := draw(t, d, "svg")
		decoder := xml.NewDecoder(strings.NewReader(text))
		var elements []string
		for {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if start, ok := token.(xml.StartElement); ok {
				elements = append(elements, start.Name.Local)
				for _, a := range start.Attr {
					if n, err := strconv.ParseFloat(a.Value, 64); (a.Name.Local == "width" || a.Name.Local == "height") && (err != nil || n <= 0) {
						t.Errorf("%s has %s=%q, which is no size", start.Name.Local, a.Name.Local, a.Value)
					}
				}
			}
		}
		if slices.Contains(elements, "script") || elements[0] != "svg" {
			t.Errorf("elements: %q", elements)
		}
	}
}

// Graphviz reads what is meant for it, where it is installed.
func TestDotIsRead(t *testing.T) {
	dot, err := exec.LookPath("dot")
	if err != nil {
		t.Skip("dot is not here to read it")
	}
	for _, d := range []*Diagram{shop(), circle(), hostile(), {}} {
		text := draw(t, d, "dot")
		command := exec.Command(dot, "-Tplain")
		command.Stdin = strings.NewReader(text)
		out, err := command.CombinedOutput()
		if err != nil || strings.Count(string(out), "\nnode ") != len(d.normal().Nodes) {
			t.Errorf("%v: %s\n%s", err, out, text)
		}
	}
}
