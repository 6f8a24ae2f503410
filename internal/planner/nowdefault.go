package planner

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// timeOf splits a default expression around its one call of the transaction's
// time. found is false where it has none, ok where it has several or cannot be
// read.
func (p *planner) timeOf(c *schema.Column) (e plan.NowEdit, found, ok bool) {
	const front = "SELECT "
	text := front + c.Default
	trees, err := parse(text)
	if err != nil || len(trees) != 1 || len(trees[0].GetStmt().GetSelectStmt().GetTargetList()) != 1 {
		return e, false, false
	}
	inner := &planner{in: &Input{SQL: text, Schema: p.in.Schema}, end: len(text), p: &plan.Plan{}, params: map[int32]*paramUse{}, sublinks: map[*pg.SubLink]*level{}}
	l := &level{p: inner, merged: map[string]outCol{}}
	if l.scan(trees[0].GetStmt().GetSelectStmt().GetTargetList()[0], &l.subs) != nil || inner.uses.viewNow {
		return e, false, false
	}
	edits := inner.p.NowEdits
	if len(edits) != 1 {
		return e, false, len(edits) == 0
	}
	e = edits[0]
	e.Before, e.After = "("+text[len(front):e.Start], text[e.End:]+")"
	return e, true, true
}

// nowDefaults puts the transaction's time in the place of the defaults that are
// made of it, so that all shards store the same time.
func (ins *insert) nowDefaults() error {
	for _, c := range ins.omitted() {
		if c.DefaultVolatility != "s" {
			continue
		}
		e, found, ok := ins.p.timeOf(c)
		if ok && !found {
			continue
		}
		if !ok || ins.query != nil || !ins.placeDefault(c, e) {
			return ins.refuseDefault(c)
		}
	}
	return nil
}

func (ins *insert) refuseDefault(c *schema.Column) error {
	at := ins.stmt.GetRelation().GetLocation()
	err := ins.p.refuse(pgerr.VolatileReference, at, "the default of column %s would differ between shards", c.Name)
	if ins.t.sharded() {
		err = ins.p.refuse(pgerr.CrossShardWrite, at, "the default of column %s would differ between shards", c.Name).
			WithHint("Give column %s a value in the INSERT.", c.Name)
		ins.p.p.Multi = plan.Merge{Kind: plan.Refuse, Reason: err}
		return nil
	}
	return err
}

// placeDefault adds the edits for one column; false where the text has no place
// for them.
func (ins *insert) placeDefault(c *schema.Column, e plan.NowEdit) bool {
	p := ins.p
	s := ins.stmt.GetSelectStmt().GetSelectStmt()
	if s == nil {
		return false
	}
	at := slices.Index(ins.cols, c.Name)
	lists := s.GetValuesLists()
	spans, ok := p.valueRows(ins.stmt, len(lists))
	if !ok {
		return false
	}
	for i, n := range lists {
		items := n.GetList().GetItems()
		switch {
		case at >= 0 && at < len(items):
			if d := items[at].GetSetToDefault(); d != nil {
				k := e
				tok := p.tokenAt(int(d.GetLocation()))
				if lower(p.word(tok)) != "default" {
					return false
				}
				k.Start, k.End = p.span(tok, tok)
				p.p.NowEdits = append(p.p.NowEdits, k)
			}
		case at >= 0: // a short row: the columns between take their defaults
			k := e
			k.Before = strings.Repeat(", DEFAULT", at-len(items)-ins.added) + ", " + e.Before
			ins.append(spans[i][1]-1, k)
		default:
			k := e
			k.Before = ", " + e.Before
			ins.append(spans[i][1]-1, k)
		}
	}
	if at < 0 {
		return ins.nameColumn(c.Name)
	}
	if n := len(lists[0].GetList().GetItems()); at >= n {
		ins.added = at - n + 1
	}
	return true
}

// append puts a default behind a row's last value.
func (ins *insert) append(at int, e plan.NowEdit) {
	e.Start, e.End = at, at
	ins.p.p.NowEdits = append(ins.p.p.NowEdits, e)
}

// nameColumn adds a column to the INSERT's column list.
func (ins *insert) nameColumn(name string) bool {
	p := ins.p
	for i := p.tokenAt(int(ins.stmt.GetRelation().GetLocation())) + 1; p.word(i) != "" && lower(p.word(i)) != "values"; i++ {
		if p.word(i) != "(" {
			continue
		}
		end := p.closing(i)
		if end < 0 {
			return false
		}
		at, _ := p.span(end, end)
		p.p.NowEdits = append(p.p.NowEdits, plan.NowEdit{Start: at, End: at, Precision: -1, Before: ", " + sharding.QuoteIdentifier(name)})
		return true
	}
	return false
}
