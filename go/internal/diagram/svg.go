package diagram

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

func (d *Diagram) svg() string {
	l := d.layout()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" font-family="ui-monospace, 'DejaVu Sans Mono', monospace" font-size="13">`+"\n", l.width, l.height, l.width, l.height)
	b.WriteString(`<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#495057"/></marker></defs>` + "\n")
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" fill="#ffffff"/>`+"\n", l.width, l.height)
	captions := labels{width: l.width}
	for _, e := range l.lines {
		e.draw(&b, &captions)
	}
	for _, layer := range l.layers {
		for _, one := range layer {
			if one.node != nil {
				one.draw(&b)
			}
		}
	}
	b.WriteString(captions.text.String())
	b.WriteString("</svg>\n")
	return b.String()
}

func (b *box) draw(out *strings.Builder) {
	fill, stroke := colours(b.node.State)
	dash := ""
	if b.node.State == "" {
		dash = ` stroke-dasharray="4 3"`
	}
	fmt.Fprintf(out, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="6" fill="%s" stroke="%s" stroke-width="1.5"%s/>`+"\n", b.x, b.y, b.w, b.h, fill, stroke, dash)
	for i, text := range b.node.caption() {
		style := ""
		switch i {
		case 0:
			style = ` font-weight="bold"`
		case 1:
			style = fmt.Sprintf(` fill="%s"`, stroke)
		}
		fmt.Fprintf(out, `<text x="%.1f" y="%.1f" text-anchor="middle"%s>%s</text>`+"\n", b.middle(), b.y+paddingY+lineHeight*(float64(i)+0.75), style, escape(text))
	}
}

// draw draws an edge, and its label apart, which nothing is to cover.
func (e *line) draw(out *strings.Builder, labels *labels) {
	var path strings.Builder
	x, y := e.leaves, e.way[0].y+e.way[0].h
	fmt.Fprintf(&path, "M%.1f %.1f", x, y)
	for i, b := range e.way[1:] {
		at := b.middle()
		if b.node != nil {
			at = e.arrives
		}
		half := (y + b.y) / 2
		fmt.Fprintf(&path, "C%.1f %.1f %.1f %.1f %.1f %.1f", x, half, at, half, at, b.y)
		if i == 0 && e.Label != "" {
			labels.put(e.Label, (x+at)/2, half)
		}
		x, y = at, b.y
		if b.node == nil {
			y += b.h
			fmt.Fprintf(&path, "L%.1f %.1f", x, y)
		}
	}
	dash, ends := "", ` marker-end="url(#arrow)"`
	if e.Dependency {
		dash = ` stroke-dasharray="5 4"`
	}
	if e.turned {
		ends = ` marker-start="url(#arrow)"`
	}
	fmt.Fprintf(out, `<path d="%s" fill="none" stroke="#495057" stroke-width="1.3"%s%s/>`+"\n", path.String(), dash, ends)
}

// labels are drawn last, and beside each other.
type labels struct {
	text  strings.Builder
	taken [][4]float64 // left, top, right, bottom
	width float64      // of the drawing
}

const labelHeight = 16

func labelWidth(text string) float64 {
	return characterWidth*11/13*float64(utf8.RuneCountInString(text)) + 6 // the letters are smaller
}

// put draws a label about a place, above or below it where another one is.
func (l *labels) put(text string, x, y float64) {
	w := labelWidth(text)
	x = min(max(x, w/2), l.width-w/2)
	for _, aside := range []float64{0, -1, 1, -2, 2} {
		r := [4]float64{x - w/2, y + (aside-0.5)*labelHeight, x + w/2, y + (aside+0.5)*labelHeight}
		free := true
		for _, o := range l.taken {
			free = free && (r[2] <= o[0] || o[2] <= r[0] || r[3] <= o[1] || o[3] <= r[1])
		}
		if !free && aside != 2 {
			continue
		}
		l.taken = append(l.taken, r)
		fmt.Fprintf(&l.text, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="3" fill="#ffffff" fill-opacity="0.9"/>`+"\n", r[0], r[1], w, labelHeight)
		fmt.Fprintf(&l.text, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="11" fill="#343a40">%s</text>`+"\n", x, r[1]+12, escape(text))
		return
	}
}

func escape(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;").Replace(text)
}
