package plan

import (
	"fmt"
	"unicode/utf8"

	"github.com/sharding-system/sharding/internal/sqltext"
)

// Rebased is the plan of from for another text of the same lifted key: a copy
// whose byte positions are those of to. It costs two passes of the lexer, far
// less than a parse. A plan without positions is returned as it is.
func (p *Plan) Rebased(from, to string) (*Plan, error) {
	if !p.Positional() || from == to {
		return p, nil
	}
	c := p.copied()
	places := c.positions()
	at := make([]int, len(places), len(places)+1)
	for i, v := range places {
		at[i] = *v
	}
	reason := c.Multi.Kind == Refuse && c.Multi.Reason != nil && c.Multi.Reason.Position > 0
	if reason {
		at = append(at, byteOf(from, c.Multi.Reason.Position))
	}
	moved, err := sqltext.Remap(from, to, at)
	if err != nil {
		return nil, fmt.Errorf("carry a plan over to another text: %w", err)
	}
	for i, v := range places {
		*v = moved[i]
	}
	if reason {
		c.Multi.Reason = c.Multi.Reason.WithPosition(utf8.RuneCountInString(to[:moved[len(places)]]) + 1)
	}
	return c, nil
}

// byteOf is the byte of a position in characters, counted from 1.
func byteOf(s string, position int) int {
	for i := range s {
		if position--; position == 0 {
			return i
		}
	}
	return len(s)
}

// copied copies what holds positions; the rest is shared.
func (p *Plan) copied() *Plan {
	c := *p
	c.Edits = append([]Edit(nil), p.Edits...)
	c.NowEdits = append([]NowEdit(nil), p.NowEdits...)
	if p.Insert != nil {
		c.Insert = &Insert{Rows: append([]InsertRow(nil), p.Insert.Rows...)}
	}
	if p.Control != nil {
		k := *p.Control
		k.ArgSpans = append([][2]int(nil), k.ArgSpans...)
		c.Control = &k
	}
	return &c
}

// positions are the places of all byte positions in the plan.
func (p *Plan) positions() []*int {
	var out []*int
	for i := range p.Edits {
		out = append(out, &p.Edits[i].Start, &p.Edits[i].End)
	}
	for i := range p.NowEdits {
		out = append(out, &p.NowEdits[i].Start, &p.NowEdits[i].End)
	}
	if p.Insert != nil {
		for i := range p.Insert.Rows {
			out = append(out, &p.Insert.Rows[i].Start, &p.Insert.Rows[i].End)
		}
	}
	if k := p.Control; k != nil {
		out = append(out, &k.InnerStart, &k.InnerEnd, &k.ArgsStart, &k.ArgsEnd)
		for i := range k.ArgSpans {
			out = append(out, &k.ArgSpans[i][0], &k.ArgSpans[i][1])
		}
	}
	return out
}
