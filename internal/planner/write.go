package planner

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// event is what a write does to rows.
type event uint8

const (
	onInsert event = 1 << iota
	onUpdate
	onDelete
)

// write is an UPDATE or DELETE being built.
type write struct {
	target    *pg.RangeVar
	with      *pg.WithClause
	from      []*pg.Node
	where     *pg.Node
	set       []*pg.Node
	returning []*pg.Node
	event     event
}

func updateOf(s *pg.UpdateStmt) write {
	return write{s.GetRelation(), s.GetWithClause(), s.GetFromClause(), s.GetWhereClause(), s.GetTargetList(), s.GetReturningList(), onUpdate}
}

func deleteOf(s *pg.DeleteStmt) write {
	return write{s.GetRelation(), s.GetWithClause(), s.GetUsingClause(), s.GetWhereClause(), nil, s.GetReturningList(), onDelete}
}

func (p *planner) updateStatement(s *pg.UpdateStmt) error {
	p.p.Operation, p.p.Command = "update", "UPDATE"
	return p.writeStatement(updateOf(s))
}

func (p *planner) deleteStatement(s *pg.DeleteStmt) error {
	p.p.Operation, p.p.Command = "delete", "DELETE"
	return p.writeStatement(deleteOf(s))
}

// writeStatement plans an UPDATE or DELETE at the top of a statement.
func (p *planner) writeStatement(w write) error {
	p.p.Access, p.p.Returns = plan.Write, len(w.returning) > 0
	l, t, err := p.buildWrite(w, nil)
	if err != nil {
		return err
	}
	if err := p.unusedWiths(); err != nil {
		return err
	}
	if err := p.checkFunctions(); err != nil {
		return err
	}
	l.solve(nil, false, false)
	if p.uses.cursor != "" {
		return p.currentOf(l, t, w)
	}
	if err := p.defaultsSet(t, w.set); err != nil {
		return err
	}
	if t.kind == sharding.Reference && !p.in.Keyspace.HomeOnly {
		if err := p.referenceWrite(t); err != nil {
			return err
		}
		if ordered(l) || w.event == onUpdate && !p.oneMatch(l, t) {
			return p.refuse(pgerr.ReferenceOrder, t.location, "what is written to reference table %s may depend on the copy that is read", t)
		}
		return nil
	}
	if err := p.route(); err != nil {
		return err
	}
	if err := p.keyAssignment(l, t, w.set); err != nil {
		return err
	}
	m := plan.Merge{Kind: plan.Sum}
	if p.p.Returns {
		m.Kind = plan.Concat
	}
	p.many(m, p.notTogether())
	return p.settle()
}

// currentOf sends WHERE CURRENT OF to the shard that has the cursor.
func (p *planner) currentOf(l *level, t *table, w write) error {
	if t.kind == sharding.Reference && !p.in.Keyspace.HomeOnly || len(p.kinds().sharded)+len(p.kinds().home) > 1 {
		return p.refuse(pgerr.CrossShardCursor, t.location, "WHERE CURRENT OF on reference table %s, or together with other tables", t)
	}
	p.p.Cursor, p.p.CursorAction = p.uses.cursor, plan.UseCursor
	p.prove("the row is on the shard of cursor %s", p.uses.cursor)
	return p.keyAssignment(l, t, w.set)
}

// defaultsSet looks at SET column = DEFAULT: defaults made of the transaction's
// time are given the same one on all shards, volatile ones are refused for
// copies.
func (p *planner) defaultsSet(t *table, set []*pg.Node) error {
	if t.rel == nil || t.kind == sharding.Global || p.in.Keyspace.HomeOnly {
		return nil
	}
	for _, n := range set {
		rt := n.GetResTarget()
		c := column(t.rel, rt.GetName())
		d := rt.GetVal().GetSetToDefault()
		if d == nil || c == nil || c.Generated != "" {
			continue
		}
		e, found, ok := plan.NowEdit{}, false, true
		if c.DefaultVolatility == "s" {
			e, found, ok = p.timeOf(c)
		}
		tok := p.tokenAt(int(d.GetLocation()))
		copies := t.kind == sharding.Reference && (c.DefaultVolatility == "v" || c.Identity != "")
		if !ok || copies || found && lower(p.word(tok)) != "default" {
			return p.refuse(pgerr.VolatileReference, rt.GetLocation(), "the default of column %s would differ between shards", c.Name)
		}
		if found {
			e.Start, e.End = p.span(tok, tok)
			p.p.NowEdits = append(p.p.NowEdits, e)
		}
	}
	return nil
}

// oneMatch says whether each row of the target meets at most one row of each
// other table: one of its unique indexes is bound to columns or values. Else
// PostgreSQL takes any of the rows that match.
func (p *planner) oneMatch(l *level, t *table) bool {
	for _, u := range p.tables {
		if u == t || u.unread || !l.tree.owns(u.id) {
			continue
		}
		if u.rel == nil || !slices.ContainsFunc(u.rel.Unique, func(cols []string) bool { return u.fixedBy(cols) }) {
			return false
		}
	}
	return true
}

// fixedBy says whether other tables' columns or single values give each of the
// columns its value.
func (t *table) fixedBy(cols []string) bool {
	eq := equalities(t.conds)
	for _, name := range cols {
		root := eq.find(colID{t.id, name})
		ok := false
		for _, c := range t.conds {
			switch {
			case c.arms != nil || eq.find(c.a) != root:
			case c.eq:
				ok = ok || c.a.table != t.id || c.b.table != t.id
			default:
				ok = ok || len(c.in) == 1 && c.in[0].Kind <= plan.Param
			}
		}
		if !ok {
			return false
		}
	}
	return len(cols) > 0
}

// buildWrite builds the level of an UPDATE or DELETE: the target joined with
// the FROM or USING list.
func (p *planner) buildWrite(w write, parent *level) (*level, *table, error) {
	l := &level{p: p, parent: parent, merged: map[string]outCol{}, stmt: &pg.SelectStmt{}}
	if err := l.with(w.with); err != nil {
		return nil, nil, err
	}
	t, err := p.target(w.target, w.event)
	if err != nil {
		return nil, nil, err
	}
	l.items = append(l.items, t.item(w.target.GetAlias()))
	l.tree = &node{t: t}
	if err := l.from(w.from); err != nil {
		return nil, nil, err
	}
	if err := l.filter(w.where); err != nil {
		return nil, nil, err
	}
	if err := l.scanAll(w.set, &l.subs); err != nil {
		return nil, nil, err
	}
	if err := l.targets(w.returning); err != nil {
		return nil, nil, err
	}
	l.output(w.returning)
	return l, t, nil
}

// target resolves the table that a statement writes to and checks that a write
// of this kind may be routed at all.
func (p *planner) target(rv *pg.RangeVar, e event) (*table, error) {
	t, err := p.resolve(rv)
	if err != nil {
		return nil, err
	}
	t.written = true
	if t.name.Schema == routerSchema && t.rel != nil {
		return nil, p.refuse(pgerr.RouterObject, rv.GetLocation(), "table %s belongs to the router", t)
	}
	if !p.in.Keyspace.sharded() || t.rel == nil {
		return t, nil
	}
	if t.rel.Kind == "v" {
		return t, p.viewTarget(t, rv)
	}
	if t.rel.HasRules {
		return nil, p.refuse(pgerr.TriggerOrRule, rv.GetLocation(), "table %s has a rule", t)
	}
	for _, g := range t.rel.Triggers {
		fires := e&onInsert != 0 && g.Insert || e&onUpdate != 0 && g.Update || e&onDelete != 0 && g.Delete
		if !fires || g.Enabled == "D" || g.Enabled == "R" || harmlessTrigger(g.Function) {
			continue
		}
		return nil, p.refuse(pgerr.TriggerOrRule, rv.GetLocation(), "trigger %s of table %s would run", g.Name, t)
	}
	return t, nil
}

// routerSchema is the schema of the router's own objects on every shard.
const routerSchema = "sharding"

// harmlessTrigger says whether a trigger's function is the router's own guard or
// one of PostgreSQL's that only looks at the row.
func harmlessTrigger(function string) bool {
	name := strings.TrimSuffix(function, "()")
	return strings.HasPrefix(name, routerSchema+".") ||
		strings.TrimPrefix(name, "pg_catalog.") == "suppress_redundant_updates_trigger"
}

// viewTarget lets a write through a view pass when all its tables are global.
func (p *planner) viewTarget(t *table, rv *pg.RangeVar) error {
	first := len(p.tables)
	scratch := &level{p: p, merged: map[string]outCol{}}
	if _, err := scratch.fromView(t, rv); err != nil {
		return err
	}
	for _, u := range p.tables[first:] {
		u.unread = true
		if u.sharded() || u.kind == sharding.Reference {
			return p.refuse(pgerr.ViewWrite, rv.GetLocation(), "view %s reads %s table %s", t, u.kind, u)
		}
	}
	for _, g := range t.rel.Triggers {
		if g.Enabled != "D" {
			return p.refuse(pgerr.TriggerOrRule, rv.GetLocation(), "trigger %s of view %s would run", g.Name, t)
		}
	}
	return nil
}

// modifyingCTE builds a data-modifying WITH query and solves it: it runs on its
// own, whatever the statement around it does with its rows.
func (p *planner) modifyingCTE(c *cte, l *level) error {
	p.uses.writes = true
	scope := &level{p: p, parent: l}
	var sub *level
	var t *table
	var err error
	switch q := c.stmt.GetCtequery().GetNode().(type) {
	case *pg.Node_UpdateStmt:
		w := updateOf(q.UpdateStmt)
		if sub, t, err = p.buildWrite(w, scope); err == nil {
			sub.solve(nil, false, true)
			err = p.keyAssignment(sub, t, w.set)
		}
	case *pg.Node_DeleteStmt:
		if sub, t, err = p.buildWrite(deleteOf(q.DeleteStmt), scope); err == nil {
			sub.solve(nil, false, true)
		}
	case *pg.Node_InsertStmt:
		var ins *insert
		if ins, err = p.buildInsert(q.InsertStmt, scope); err == nil {
			sub, t = ins.level, ins.t
			ins.solve()
		}
	default:
		return p.refuse(pgerr.UnknownStatement, c.stmt.GetLocation(), "the WITH query %s is of a kind that the router does not know", c.name)
	}
	if err != nil {
		return err
	}
	if t.kind == sharding.Reference && !p.in.Keyspace.HomeOnly {
		return p.refuse(pgerr.CrossShardWith, c.stmt.GetLocation(), "the WITH query %s writes to reference table %s", c.name, t)
	}
	sub.settled = true
	c.dml = sub
	return nil
}

// referenceWrite routes a write to a reference table: every shard does the same
// to its copy.
func (p *planner) referenceWrite(t *table) error {
	p.pins()
	for _, u := range p.tables {
		if !u.unread && u.kind != sharding.Reference {
			return p.refuse(pgerr.ReferenceFromSharded, u.location, "the write to reference table %s reads %s", t, u)
		}
	}
	u := &p.uses
	switch {
	case u.volatile != "":
		return p.refuse(pgerr.VolatileReference, u.volatileAt, "%s would give each copy of reference table %s another value", u.volatile, t)
	case u.system != "":
		return p.refuse(pgerr.SystemColumn, u.systemAt, "column %s differs between the copies of reference table %s", u.system, t)
	case u.viewNow:
		return p.refuse(pgerr.VolatileReference, -1, "the transaction's time within a view would give each copy of reference table %s another value", t)
	case u.writes:
		return p.refuse(pgerr.CrossShardWith, -1, "a WITH query writes in a statement that writes to reference table %s", t)
	case u.skipLocked:
		return p.refuse(pgerr.ReferenceOrder, -1, "SKIP LOCKED in a write to reference table %s", t)
	}
	p.p.Route = plan.Route{Kind: plan.All}
	p.p.Multi = plan.Merge{Kind: plan.Same}
	p.prove("every shard writes its copy of reference table %s", t)
	return nil
}

// keyAssignment checks an UPDATE that assigns shard key columns: allowed only
// where every row that it can touch has the assigned key already.
func (p *planner) keyAssignment(l *level, t *table, set []*pg.Node) error {
	if !t.sharded() || p.in.Keyspace.HomeOnly {
		return nil
	}
	var fixedKey plan.Key
	var at int32
	for _, k := range t.decl.Key {
		rt := assignmentTo(set, k.Name)
		if rt == nil {
			continue
		}
		at = rt.GetLocation()
		if id, ok := l.columnOf(rt.GetVal()); ok && id == (colID{t.id, k.Name}) {
			continue // SET k = k
		}
		s, ok := p.stored(t, k, rt.GetVal())
		if !ok || len(rt.GetIndirection()) > 0 {
			return p.refuse(pgerr.ShardKeyUpdate, at, "column %s of table %s is part of the shard key", k.Name, t)
		}
		fixedKey = append(fixedKey, s)
	}
	if fixedKey == nil {
		return nil
	}
	if len(fixedKey) != len(t.decl.Key) || p.uses.writes || len(p.kinds().sharded) != 1 || p.p.Route.Kind != plan.Keyed {
		return p.refuse(pgerr.ShardKeyUpdate, at, "the shard key of table %s is assigned, and the rows are not known to have that key already", t)
	}
	p.p.Route.Fixed = fixedKey
	p.prove("the shard key is assigned the value that it has")
	return nil
}

// assignmentTo is the SET item of a column.
func assignmentTo(set []*pg.Node, name string) *pg.ResTarget {
	i := slices.IndexFunc(set, func(n *pg.Node) bool { return n.GetResTarget().GetName() == name })
	if i < 0 {
		return nil
	}
	return set[i].GetResTarget()
}

// stored is the value that an expression puts into a key column.
func (p *planner) stored(t *table, k sharding.KeyColumn, n *pg.Node) (plan.Source, bool) {
	c := column(t.rel, k.Name)
	f, ok := p.family(c)
	if !ok {
		return plan.Source{}, false
	}
	base := p.baseType(c.Type)
	s, ok := p.source(n, f, base)
	if !ok && f == sharding.KeyInteger {
		s, ok = p.rounded(n)
	}
	s.Column, s.Typmod, s.Assign = base, p.typmod(c), true
	return s, ok
}

// rounded is a numeric literal stored in an integer column: the assignment cast
// rounds it, which Bind does too.
func (p *planner) rounded(n *pg.Node) (plan.Source, bool) {
	c := n.GetAConst()
	if c.GetFval() == nil {
		return plan.Source{}, false
	}
	i, where := p.literalAt(c.GetLocation())
	return plan.Source{Kind: plan.Literal, Index: i, Type: sharding.KeyInteger, Typmod: -1}, where == lifted
}
