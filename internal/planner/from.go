package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// from builds the join tree of a FROM clause; items are joined by commas.
func (l *level) from(list []*pg.Node) error {
	for _, n := range list {
		f, err := l.fromItem(n)
		if err != nil {
			return err
		}
		l.cross(f)
	}
	return nil
}

// cross joins a node to the tree, as a comma does.
func (l *level) cross(f *node) {
	if l.tree == nil {
		l.tree = f
		return
	}
	l.tree = &node{join: &join{kind: pg.JoinType_JOIN_INNER, left: l.tree, right: f}}
}

func (l *level) fromItem(n *pg.Node) (*node, error) {
	switch f := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		return l.fromTable(f.RangeVar)
	case *pg.Node_RangeSubselect:
		return l.fromSubselect(f.RangeSubselect)
	case *pg.Node_JoinExpr:
		return l.fromJoin(f.JoinExpr)
	case *pg.Node_RangeTableSample:
		l.limited, l.sampled = true, true // which rows come depends on the others
		if err := l.scanAll(f.RangeTableSample.GetArgs(), &l.subs); err != nil {
			return nil, err
		}
		return l.fromItem(f.RangeTableSample.GetRelation())
	case *pg.Node_RangeFunction:
		l.inFrom = true
		err := l.scan(f.RangeFunction, &l.subs)
		l.inFrom = false
		if err != nil {
			return nil, err
		}
		l.items = append(l.items, opaque(f.RangeFunction.GetAlias(), functionName(f.RangeFunction)))
		return &node{}, nil
	case *pg.Node_RangeTableFunc:
		if err := l.scan(f.RangeTableFunc, &l.subs); err != nil {
			return nil, err
		}
		l.items = append(l.items, opaque(f.RangeTableFunc.GetAlias(), "xmltable"))
		return &node{}, nil
	case *pg.Node_JsonTable:
		if err := l.scan(f.JsonTable, &l.subs); err != nil {
			return nil, err
		}
		l.items = append(l.items, opaque(f.JsonTable.GetAlias(), "json_table"))
		return &node{}, nil
	}
	return nil, l.p.refuse(pgerr.UnknownStatement, -1, "the FROM clause has an item that the router does not know")
}

// functionName is the name under which a function in FROM is known.
func functionName(f *pg.RangeFunction) string {
	for _, n := range f.GetFunctions() {
		for _, e := range n.GetList().GetItems() {
			if fc := e.GetFuncCall(); fc != nil {
				return nameOf(fc.GetFuncname()).Name
			}
		}
	}
	return ""
}

// opaque is a FROM item whose columns are not known.
func opaque(a *pg.Alias, name string) *item {
	if a != nil {
		name = a.GetAliasname()
	}
	return &item{alias: name}
}

func (l *level) fromTable(rv *pg.RangeVar) (*node, error) {
	if rv.GetSchemaname() == "" {
		if c := l.lookupCTE(rv.GetRelname()); c != nil {
			return l.fromCTE(c, rv)
		}
	}
	t, err := l.p.resolve(rv)
	if err != nil {
		return nil, err
	}
	if t.rel != nil && t.rel.Kind == "v" {
		l.p.tables = l.p.tables[:len(l.p.tables)-1]
		return l.fromView(t, rv)
	}
	l.items = append(l.items, t.item(rv.GetAlias()))
	return &node{t: t}, nil
}

// item is the FROM item of a table.
func (t *table) item(a *pg.Alias) *item {
	it := &item{alias: t.name.Name, schema: t.name.Schema, t: t}
	if t.rel != nil {
		it.complete = true
		for _, c := range t.rel.Columns {
			it.cols = append(it.cols, outCol{name: c.Name, id: colID{t.id, c.Name}, ok: true})
		}
	}
	it.rename(a)
	return it
}

// rename applies an alias with its column names.
func (it *item) rename(a *pg.Alias) {
	if a == nil {
		return
	}
	it.alias, it.schema = a.GetAliasname(), ""
	for i, name := range stringsOf(a.GetColnames()) {
		if i < len(it.cols) && it.complete {
			it.cols[i].name = name
		} else {
			it.cols = append(it.cols, outCol{name: name})
		}
	}
}

func (l *level) fromCTE(c *cte, rv *pg.RangeVar) (*node, error) {
	if l.p.budget--; l.p.budget < 0 {
		return nil, l.p.refuse(pgerr.TooManyShardTables, rv.GetLocation(), "the statement uses WITH queries more than %d times", maxTables)
	}
	it := &item{alias: c.name}
	if c.open { // the recursive term's reference to itself
		it.rename(rv.GetAlias())
		l.items = append(l.items, it)
		return &node{}, nil
	}
	sub, err := l.p.referCTE(c)
	if err != nil {
		return nil, err
	}
	it.cols, it.complete = slices.Clone(sub.out), sub.full
	if names := c.stmt.GetAliascolnames(); len(names) > 0 {
		it.rename(&pg.Alias{Aliasname: c.name, Colnames: names})
	}
	if c.recursive || c.stmt.GetSearchClause() != nil || c.stmt.GetCycleClause() != nil {
		it.complete = false
	}
	it.rename(rv.GetAlias())
	l.items = append(l.items, it)
	return &node{sub: sub}, nil
}

func (l *level) fromSubselect(rs *pg.RangeSubselect) (*node, error) {
	sub, err := l.p.buildSelect(rs.GetSubquery().GetSelectStmt(), l)
	if err != nil {
		return nil, err
	}
	it := &item{cols: slices.Clone(sub.out), complete: sub.full}
	it.rename(rs.GetAlias())
	l.items = append(l.items, it)
	return &node{sub: sub}, nil
}

// fromView puts a view's definition in the place of the view.
func (l *level) fromView(t *table, rv *pg.RangeVar) (*node, error) {
	p := l.p
	p.addRef(t.ref())
	trees, err := parse(t.rel.ViewDef)
	if err != nil || len(trees) != 1 || trees[0].GetStmt().GetSelectStmt() == nil {
		return nil, p.refuse(pgerr.UnknownStatement, rv.GetLocation(), "the definition of view %s cannot be read", t)
	}
	if p.views++; p.views > 50 {
		return nil, p.refuse(pgerr.TooManyShardTables, -1, "views refer to views more than 50 deep")
	}
	sub, err := p.buildSelect(trees[0].GetStmt().GetSelectStmt(), nil)
	p.views--
	if err != nil {
		return nil, err
	}
	it := &item{alias: t.name.Name, schema: t.name.Schema, complete: true}
	for i, c := range t.rel.Columns {
		col := outCol{name: c.Name}
		if sub.full && i < len(sub.out) && len(sub.out) == len(t.rel.Columns) {
			col.id, col.ok = sub.out[i].id, sub.out[i].ok
		}
		it.cols = append(it.cols, col)
	}
	it.rename(rv.GetAlias())
	l.items = append(l.items, it)
	return &node{sub: sub}, nil
}

// fromJoin builds an explicit join.
func (l *level) fromJoin(j *pg.JoinExpr) (*node, error) {
	first := len(l.items)
	left, err := l.fromItem(j.GetLarg())
	if err != nil {
		return nil, err
	}
	middle := len(l.items)
	right, err := l.fromItem(j.GetRarg())
	if err != nil {
		return nil, err
	}
	out := &join{kind: j.GetJointype(), left: left, right: right}
	using := stringsOf(j.GetUsingClause())
	if j.GetIsNatural() {
		using = l.common(first, middle)
	}
	for _, name := range using {
		l.using(out, name, first, middle)
	}
	if q := j.GetQuals(); q != nil {
		if err := l.scan(q, &out.subs); err != nil {
			return nil, err
		}
		out.on = append(out.on, l.conditions(q)...)
	}
	if a := j.GetJoinUsingAlias(); a != nil {
		it := &item{alias: a.GetAliasname()}
		for _, name := range using {
			it.cols = append(it.cols, outCol{name: name})
		}
		l.items = append(l.items, it)
	}
	if a := j.GetAlias(); a != nil {
		l.hide(a, first)
	}
	return &node{join: out}, nil
}

// side finds a column among items.
func side(items []*item, merged map[string]outCol, name string) (outCol, bool) {
	n := 0
	var c outCol
	for _, it := range items {
		for _, k := range it.cols {
			if k.name == name {
				if n++; n > 1 {
					if m, ok := merged[name]; ok {
						return m, true
					}
					return outCol{name: name}, true
				}
				c = k
			}
		}
	}
	return c, n > 0
}

// using merges a column of both sides: they are equal, and the bare name means
// the side that is never null-extended.
func (l *level) using(j *join, name string, first, middle int) {
	lc, lok := side(l.items[first:middle], l.merged, name)
	rc, rok := side(l.items[middle:], l.merged, name)
	merged := outCol{name: name}
	if lok && rok && lc.ok && rc.ok {
		if c := l.p.equal(lc.id, rc.id); c != nil {
			j.on = append(j.on, c)
		}
	}
	switch {
	case j.kind == pg.JoinType_JOIN_INNER || j.kind == pg.JoinType_JOIN_LEFT:
		merged = outCol{name, lc.id, lok && lc.ok}
	case j.kind == pg.JoinType_JOIN_RIGHT:
		merged = outCol{name, rc.id, rok && rc.ok}
	}
	l.merged[name] = merged
}

// common are the column names that both sides of a NATURAL join have.
func (l *level) common(first, middle int) []string {
	var out []string
	for _, it := range l.items[first:middle] {
		for _, c := range it.cols {
			if _, ok := side(l.items[middle:], l.merged, c.name); ok && !slices.Contains(out, c.name) {
				out = append(out, c.name)
			}
		}
	}
	return out
}

// hide puts a join's items behind the join's own alias.
func (l *level) hide(a *pg.Alias, first int) {
	it := &item{alias: a.GetAliasname(), complete: len(a.GetColnames()) == 0}
	seen := map[string]int{}
	for _, inner := range l.items[first:] {
		it.complete = it.complete && inner.complete
		for _, c := range inner.cols {
			if m, ok := l.merged[c.name]; ok {
				c = m
			}
			if i, twice := seen[c.name]; twice {
				if it.cols[i].id != c.id {
					it.cols[i].ok = false
				}
				continue
			}
			seen[c.name] = len(it.cols)
			it.cols = append(it.cols, c)
		}
	}
	if names := stringsOf(a.GetColnames()); len(names) > 0 {
		it.cols = nil
		for _, n := range names {
			it.cols = append(it.cols, outCol{name: n})
		}
	}
	clear(l.merged)
	l.items = append(l.items[:first:first], it)
}
