package diagram

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// The layout is that of Sugiyama, Tagawa and Toda (1981) in its simplest form:
// edges that close a cycle are turned, nodes are put into layers by the longest
// way to them, edges over several layers get a bend in each, and each layer is
// ordered by where its neighbours are.

// Sizes in pixels. A character of the fonts that browsers take for monospace
// is 0.6 em wide, some a little more.
const (
	characterWidth = 7.9
	lineHeight     = 17
	paddingX       = 12
	paddingY       = 8
	gapX           = 36
	gapY           = 64
	margin         = 20
	bendWidth      = 10
)

// box is a node, or a bend of an edge, at its place.
type box struct {
	node       *Node // nil: a bend
	layer      int
	x, y, w, h float64
	up, down   []*box
	// at is where the neighbours are, for sorting.
	at float64
}

func (b *box) middle() float64 { return b.x + b.w/2 }

// line is an edge with the boxes on its way, from top to bottom.
type line struct {
	Edge
	way []*box
	// turned: it leads upwards.
	turned bool
	// leaves and arrives are where it touches its first and its last box.
	leaves, arrives float64
}

type layout struct {
	layers        [][]*box
	lines         []*line
	width, height float64
}

func (d *Diagram) layout() *layout {
	boxes := map[string]*box{}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		b := &box{node: n, h: 2*paddingY + lineHeight*float64(len(n.caption()))}
		for _, text := range n.caption() {
			b.w = max(b.w, characterWidth*float64(utf8.RuneCountInString(text))+2*paddingX)
		}
		boxes[n.Name] = b
	}
	l := &layout{}
	d.turn(l)
	d.rank(l, boxes)
	for _, n := range d.Nodes {
		l.put(boxes[n.Name])
	}
	for _, e := range l.lines {
		e.way = l.way(boxes[e.upper()], boxes[e.lower()])
	}
	l.order()
	l.place()
	for _, e := range l.lines {
		l.width = max(l.width, labelWidth(e.Label)+margin)
	}
	for _, n := range d.Nodes {
		l.spread(boxes[n.Name])
	}
	return l
}

// spread has the lines of a box touch it side by side, in the order of where
// they come from and go to.
func (l *layout) spread(b *box) {
	var down, up []*line
	for _, e := range l.lines {
		if e.way[0] == b {
			down = append(down, e)
		}
		if e.way[len(e.way)-1] == b {
			up = append(up, e)
		}
	}
	slices.SortStableFunc(down, func(e, f *line) int { return cmp.Compare(e.way[1].middle(), f.way[1].middle()) })
	slices.SortStableFunc(up, func(e, f *line) int {
		return cmp.Compare(e.way[len(e.way)-2].middle(), f.way[len(f.way)-2].middle())
	})
	place := func(i, n int) float64 {
		distance := min(b.w/float64(n+1), gapX)
		return b.middle() + (float64(i)-float64(n-1)/2)*distance
	}
	for i, e := range down {
		e.leaves = place(i, len(down))
	}
	for i, e := range up {
		e.arrives = place(i, len(up))
	}
}

func (e *line) upper() string {
	if e.turned {
		return e.To
	}
	return e.From
}

func (e *line) lower() string {
	if e.turned {
		return e.From
	}
	return e.To
}

// turn makes the lines, those turned that would close a cycle.
func (d *Diagram) turn(l *layout) {
	const (
		open = iota + 1
		done
	)
	mark := map[string]int{}
	back := map[Edge]bool{}
	var visit func(name string)
	visit = func(name string) {
		mark[name] = open
		for _, e := range d.from(name) {
			switch mark[e.To] {
			case 0:
				visit(e.To)
			case open:
				back[e] = true
			}
		}
		mark[name] = done
	}
	// From where nothing leads to first, so that a cycle hangs below what uses it.
	reached := map[string]bool{}
	for _, e := range d.Edges {
		reached[e.To] = true
	}
	for _, first := range []bool{true, false} {
		for _, n := range d.Nodes {
			if mark[n.Name] == 0 && reached[n.Name] != first {
				visit(n.Name)
			}
		}
	}
	for _, e := range d.Edges {
		if e.From != e.To {
			l.lines = append(l.lines, &line{Edge: e, turned: back[e]})
		}
	}
}

// rank puts each node one layer below the lowest of those that lead to it.
func (d *Diagram) rank(l *layout, boxes map[string]*box) {
	for changed := true; changed; {
		changed = false
		for _, e := range l.lines {
			if upper, lower := boxes[e.upper()], boxes[e.lower()]; lower.layer <= upper.layer {
				lower.layer = upper.layer + 1
				changed = true
			}
		}
	}
}

func (l *layout) put(b *box) {
	for len(l.layers) <= b.layer {
		l.layers = append(l.layers, nil)
	}
	l.layers[b.layer] = append(l.layers[b.layer], b)
}

// way makes the bends between two boxes.
func (l *layout) way(upper, lower *box) []*box {
	way := []*box{upper}
	for layer := upper.layer + 1; layer < lower.layer; layer++ {
		bend := &box{layer: layer, w: bendWidth}
		l.put(bend)
		way = append(way, bend)
	}
	way = append(way, lower)
	for i := range len(way) - 1 {
		way[i].down = append(way[i].down, way[i+1])
		way[i+1].up = append(way[i+1].up, way[i])
	}
	return way
}

// order sorts each layer by the middle of its neighbours, downwards and
// upwards in turn, and keeps what has the fewest crossings.
func (l *layout) order() {
	best, fewest := l.snapshot(), l.crossings()
	for i := range 8 {
		downwards := i%2 == 0
		for j := range l.layers {
			layer := l.layers[j]
			if !downwards {
				layer = l.layers[len(l.layers)-1-j]
			}
			for k, b := range layer {
				near := b.up
				if !downwards {
					near = b.down
				}
				b.at = float64(k)
				if len(near) > 0 {
					b.at = 0
					for _, other := range near {
						b.at += float64(slices.Index(l.layers[other.layer], other)) / float64(len(near))
					}
				}
			}
			slices.SortStableFunc(layer, func(a, b *box) int { return cmp.Compare(a.at, b.at) })
		}
		if n := l.crossings(); n < fewest {
			best, fewest = l.snapshot(), n
		}
	}
	l.layers = best
}

func (l *layout) snapshot() [][]*box {
	var copied [][]*box
	for _, layer := range l.layers {
		copied = append(copied, slices.Clone(layer))
	}
	return copied
}

// crossings counts the pairs of edges between two layers that cross.
func (l *layout) crossings() int {
	n := 0
	for i := range len(l.layers) - 1 {
		var ends [][2]int
		for a, upper := range l.layers[i] {
			for _, lower := range upper.down {
				ends = append(ends, [2]int{a, slices.Index(l.layers[i+1], lower)})
			}
		}
		for i, e := range ends {
			for _, f := range ends[:i] {
				if (e[0]-f[0])*(e[1]-f[1]) < 0 {
					n++
				}
			}
		}
	}
	return n
}

// place gives each box its coordinates: side by side in its order, then pulled
// to the middle of its neighbours as far as there is room.
func (l *layout) place() {
	y := float64(margin)
	for _, layer := range l.layers {
		x, high := 0.0, 0.0
		for _, b := range layer {
			b.x = x
			x += b.w + gapX
			high = max(high, b.h)
		}
		for _, b := range layer {
			b.y = y + (high-b.h)/2
			if b.node == nil {
				b.y, b.h = y, high // a bend passes the whole layer
			}
		}
		y += high + gapY
	}
	// A drawing of nothing is a small one: none at all would be no valid SVG.
	l.width, l.height = 2*margin, max(y-gapY, margin)+margin
	for i := range 10 {
		for j := range l.layers {
			if i%2 == 0 {
				pull(l.layers[j], func(b *box) []*box { return b.up })
			} else {
				pull(l.layers[len(l.layers)-1-j], func(b *box) []*box { return b.down })
			}
		}
	}
	left := 0.0
	for _, layer := range l.layers {
		for _, b := range layer {
			left = min(left, b.x)
		}
	}
	for _, layer := range l.layers {
		for _, b := range layer {
			b.x += margin - left
			l.width = max(l.width, b.x+b.w+margin)
		}
	}
}

// pull moves the boxes of a layer towards the middle of their neighbours and
// keeps their order and distance: what would overlap is moved as one, to the
// mean of where its boxes want to be.
func pull(layer []*box, near func(*box) []*box) {
	type group struct {
		first, last int     // boxes
		x, width    float64 // of the whole
		want        float64 // sum of where each would have the group begin
	}
	var groups []group
	for i, b := range layer {
		want := b.x
		if others := near(b); len(others) > 0 {
			want = -b.w / 2
			for _, other := range others {
				want += other.middle() / float64(len(others))
			}
		}
		g := group{i, i, want, b.w, want}
		for len(groups) > 0 {
			before := groups[len(groups)-1]
			if before.x+before.width+gapX <= g.x {
				break
			}
			groups = groups[:len(groups)-1]
			offset := before.width + gapX
			n := float64(g.last - before.first + 1)
			want := before.want + g.want - offset*float64(g.last-g.first+1)
			g = group{before.first, g.last, want / n, offset + g.width, want}
		}
		groups = append(groups, g)
	}
	for _, g := range groups {
		x := g.x
		for _, b := range layer[g.first : g.last+1] {
			b.x = x
			x += b.w + gapX
		}
	}
}
