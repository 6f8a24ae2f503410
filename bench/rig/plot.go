package rig

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Panel is a group of bars: one row of a plot.
type Panel struct {
	Title  string
	Groups []string    // names along the axis
	Bars   [][]float64 // by group, then by series; NaN where nothing was measured
}

// colours of the series, in their order: told apart by colour-blind readers too.
var colours = []string{"#999999", "#0072b2", "#e69f00", "#009e73"}

// Bars draws panels of grouped bars with one scale for all, as an SVG picture.
func Bars(title string, series []string, panels []Panel) string {
	const width, left, top, rowHeight, barsHeight = 900, 60, 60, 190, 130
	highest := 1.0
	for _, p := range panels {
		for _, g := range p.Bars {
			for _, v := range g {
				if v > highest { // false for NaN
					highest = v
				}
			}
		}
	}
	var b strings.Builder
	height := top + rowHeight*len(panels)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="22" font-size="15">%s</text>`+"\n", width, height, left, html.EscapeString(title))
	for i, s := range series {
		x := left + i*140
		fmt.Fprintf(&b, `<rect x="%d" y="34" width="12" height="12" fill="%s"/><text x="%d" y="44">%s</text>`+"\n", x, colours[i%len(colours)], x+18, html.EscapeString(s))
	}
	for i, p := range panels {
		base := top + rowHeight*i + 20 + barsHeight
		fmt.Fprintf(&b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, base-barsHeight-6, html.EscapeString(p.Title))
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="black"/><text x="%d" y="%d" text-anchor="end">%.0f</text><text x="%d" y="%d" text-anchor="end">0</text>`+"\n",
			left, base, width-20, base, left-6, base-barsHeight+10, highest, left-6, base)
		step := (width - left - 20) / max(1, len(p.Groups))
		bar := step * 8 / 10 / max(1, len(series))
		for g, name := range p.Groups {
			x := left + g*step + step/10
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", x+bar*len(series)/2, base+16, html.EscapeString(name))
			for s, v := range p.Bars[g] {
				if math.IsNaN(v) {
					continue
				}
				h := int(v / highest * barsHeight)
				fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/><text x="%d" y="%d" text-anchor="middle" font-size="10">%.1f</text>`+"\n",
					x+s*bar, base-h, bar-2, h, colours[s%len(colours)], x+s*bar+bar/2, base-h-3, v)
			}
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
