package sqltext

import (
	"fmt"
	"slices"
)

// Remap carries byte positions over from one text to another of the same key, in
// which literals may be longer and white space wider: a plan's edits, the rows of
// an INSERT, the place of an error. A position at the start, at the end or within
// a token goes to the same place of the same token; one in white space goes to
// the end of the token before it. The positions need no order.
//
// It scans both texts: for the plans that hold positions, not for the hot path.
// Texts whose tokens do not agree give an error: they have different keys.
func Remap(from, to string, positions []int) ([]int, error) {
	order := make([]int, len(positions))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return positions[a] - positions[b] })
	out := make([]int, len(positions))
	a, b := scanner{src: from}, scanner{src: to}
	var at, bt token
	last := 0 // where the token before ends in to
	for {
		a.next(&at)
		b.next(&bt)
		if at.kind != bt.kind {
			return nil, fmt.Errorf("carry positions over to another text: token at byte %d is of another kind at byte %d", at.start, bt.start)
		}
		for len(order) > 0 && (positions[order[0]] <= at.end || at.kind == tokEOF) {
			p := positions[order[0]]
			switch {
			case at.kind == tokEOF || p < at.start:
				out[order[0]] = last
			case p == at.end:
				out[order[0]] = bt.end
			default:
				out[order[0]] = bt.start + min(p-at.start, bt.end-bt.start)
			}
			order = order[1:]
		}
		if at.kind == tokEOF {
			return out, nil
		}
		last = bt.end
	}
}
