package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
)

// buildSelect builds the level of a SELECT within parent's scope.
func (p *planner) buildSelect(s *pg.SelectStmt, parent *level) (*level, error) {
	l := &level{p: p, parent: parent, stmt: s, merged: map[string]outCol{}}
	if err := l.with(s.GetWithClause()); err != nil {
		return nil, err
	}
	switch {
	case s.GetOp() != pg.SetOperation_SETOP_NONE:
		return l, l.setOperation(s)
	case len(s.GetValuesLists()) > 0:
		l.limited = true // nothing to push into
		if err := l.scanAll(s.GetValuesLists(), &l.subs); err != nil {
			return nil, err
		}
		return l, l.tail(s)
	}
	if err := l.from(s.GetFromClause()); err != nil {
		return nil, err
	}
	if err := l.filter(s.GetWhereClause()); err != nil {
		return nil, err
	}
	if err := l.targets(s.GetTargetList()); err != nil {
		return nil, err
	}
	l.output(s.GetTargetList())
	return l, l.tail(s)
}

// setOperation builds the arms of UNION, INTERSECT and EXCEPT.
func (l *level) setOperation(s *pg.SelectStmt) error {
	for _, arm := range []*pg.SelectStmt{s.GetLarg(), s.GetRarg()} {
		a, err := l.p.buildSelect(arm, l)
		if err != nil {
			return err
		}
		l.arms = append(l.arms, a)
	}
	first := l.arms[0]
	l.full = first.full
	for _, c := range first.out {
		l.out = append(l.out, outCol{name: c.name})
	}
	return l.tail(s)
}

// tail scans what stands behind WHERE and notes what the level does to rows.
func (l *level) tail(s *pg.SelectStmt) error {
	for _, list := range [][]*pg.Node{s.GetGroupClause(), s.GetDistinctClause(), s.GetWindowClause(), s.GetSortClause()} {
		if err := l.scanAll(list, &l.subs); err != nil {
			return err
		}
	}
	for _, n := range []*pg.Node{s.GetHavingClause(), s.GetLimitCount(), s.GetLimitOffset()} {
		if n != nil {
			if err := l.scan(n, &l.subs); err != nil {
				return err
			}
		}
	}
	l.limited = l.limited || s.GetLimitCount() != nil || s.GetLimitOffset() != nil
	l.grouped = l.grouped || len(s.GetGroupClause()) > 0 || s.GetHavingClause() != nil
	l.window = l.window || len(s.GetWindowClause()) > 0
	if d := s.GetDistinctClause(); len(d) > 0 {
		l.distinct = true
		if d[0].GetNode() != nil { // DISTINCT ON (...): which rows stay depends on the others
			l.limited = true
		}
	}
	l.groupColumns(s)
	for _, n := range s.GetLockingClause() {
		c := n.GetLockingClause()
		if l.p.uses.locking == nil {
			l.p.uses.locking = c
		}
		if c.GetWaitPolicy() == pg.LockWaitPolicy_LockWaitSkip {
			l.p.uses.skipLocked = true
		}
		l.lockedReference(c)
	}
	return nil
}

// lockedReference notes a reference table among the tables that FOR UPDATE and
// its like lock: all of the level's unless OF names some.
func (l *level) lockedReference(c *pg.LockingClause) {
	var names []string
	for _, n := range c.GetLockedRels() {
		names = append(names, n.GetRangeVar().GetRelname())
	}
	for _, t := range l.p.tables {
		if t.kind != sharding.Reference || !l.tree.owns(t.id) {
			continue
		}
		alias := ""
		for _, it := range l.items {
			if it.t == t {
				alias = it.alias
			}
		}
		// A table within a derived table has no alias here: it is locked with it.
		if len(names) == 0 || alias == "" || contains(names, alias) {
			l.p.uses.lockedRef = t
		}
	}
}

// groupColumns finds the plain columns among the GROUP BY terms. With grouping
// sets no column of the output is the table's own.
func (l *level) groupColumns(s *pg.SelectStmt) {
	for _, g := range s.GetGroupClause() {
		switch e := g.GetNode().(type) {
		case *pg.Node_ColumnRef:
			// A bare name is an input column before it is an output alias.
			if id, ok, depth := l.resolveColumn(e.ColumnRef); ok && depth == 0 {
				l.groupKeys = append(l.groupKeys, id)
			}
		case *pg.Node_AConst:
			l.groupOrdinal(s, e.AConst)
		case *pg.Node_GroupingSet:
			l.groupKeys = nil
			for i := range l.out {
				l.out[i].ok = false
			}
			return
		}
	}
}

// groupOrdinal is GROUP BY 1. Constants of GROUP BY are never lifted.
func (l *level) groupOrdinal(s *pg.SelectStmt, c *pg.A_Const) {
	i := int(c.GetIval().GetIval()) - 1
	if i < 0 || i >= len(s.GetTargetList()) || slices.ContainsFunc(s.GetTargetList()[:i], isStar) {
		return
	}
	if ref := s.GetTargetList()[i].GetResTarget().GetVal().GetColumnRef(); ref != nil {
		if id, ok, depth := l.resolveColumn(ref); ok && depth == 0 {
			l.groupKeys = append(l.groupKeys, id)
		}
	}
}

// targets scans a target or RETURNING list.
func (l *level) targets(list []*pg.Node) error {
	for _, n := range list {
		rt := n.GetResTarget()
		l.p.alias = nil
		if rt.GetName() == "" {
			l.p.alias = rt.GetVal()
		}
		if err := l.scan(n, &l.subs); err != nil {
			return err
		}
	}
	l.p.alias = nil
	return nil
}

// output computes the names that a target list offers.
func (l *level) output(list []*pg.Node) {
	l.full = true
	for _, n := range list {
		rt := n.GetResTarget()
		ref := rt.GetVal().GetColumnRef()
		if ref == nil {
			l.out = append(l.out, outCol{name: rt.GetName()})
			l.full = l.full && rt.GetName() != ""
			continue
		}
		fields := ref.GetFields()
		if last := fields[len(fields)-1]; last.GetAStar() != nil {
			l.star(fields)
			continue
		}
		name := rt.GetName()
		if name == "" {
			name = fields[len(fields)-1].GetString_().GetSval()
		}
		id, ok, depth := l.resolveColumn(ref)
		l.out = append(l.out, outCol{name: name, id: id, ok: ok && depth == 0})
	}
}

// star expands * and t.*.
func (l *level) star(fields []*pg.Node) {
	alias := ""
	if len(fields) > 1 {
		alias = fields[len(fields)-2].GetString_().GetSval()
	}
	if alias == "" && len(l.merged) > 0 {
		for _, c := range l.merged {
			l.out = append(l.out, c)
		}
	}
	for _, it := range l.items {
		if alias != "" && it.alias != alias {
			continue
		}
		l.full = l.full && it.complete
		for _, c := range it.cols {
			if _, twice := l.merged[c.name]; twice && alias == "" {
				continue
			}
			l.out = append(l.out, c)
		}
	}
}

// filter scans WHERE and takes its conditions.
func (l *level) filter(where *pg.Node) error {
	if where == nil {
		return nil
	}
	if err := l.scan(where, &l.subs); err != nil {
		return err
	}
	l.where = append(l.where, l.conditions(where)...)
	return nil
}

// with brings WITH queries into scope. Data-modifying ones are built and solved
// at once: they run whether or not they are used.
func (l *level) with(w *pg.WithClause) error {
	if w == nil {
		return nil
	}
	l.ctes = map[string]*cte{}
	var all []*cte
	for _, n := range w.GetCtes() {
		e := n.GetCommonTableExpr()
		c := &cte{name: e.GetCtename(), stmt: e, defined: l, recursive: w.GetRecursive()}
		all = append(all, c)
		if w.GetRecursive() {
			l.ctes[c.name] = c
		}
	}
	for _, c := range all {
		if c.stmt.GetCtequery().GetSelectStmt() == nil {
			if err := l.p.modifyingCTE(c, l); err != nil {
				return err
			}
		}
		l.ctes[c.name] = c
	}
	l.p.withs = append(l.p.withs, all...)
	return nil
}

// unusedWiths checks the names in WITH queries that nothing refers to.
func (p *planner) unusedWiths() error {
	for i := 0; i < len(p.withs); i++ {
		c := p.withs[i]
		if c.used > 0 || c.dml != nil {
			continue
		}
		first := len(p.tables)
		if _, err := p.referCTE(c); err != nil {
			return err
		}
		for _, t := range p.tables[first:] {
			t.unread = true // PostgreSQL does not run it
		}
	}
	return nil
}

// referCTE builds one use of a WITH query.
func (p *planner) referCTE(c *cte) (*level, error) {
	c.used++
	if c.dml != nil {
		return c.dml, nil
	}
	scope := &level{p: p, parent: c.defined.parent, ctes: map[string]*cte{}}
	for name, other := range c.defined.ctes {
		if other != c || c.recursive {
			scope.ctes[name] = other
		}
	}
	c.open = true
	l, err := p.buildSelect(c.stmt.GetCtequery().GetSelectStmt(), scope)
	c.open = false
	if err != nil {
		return nil, err
	}
	return l, nil
}
