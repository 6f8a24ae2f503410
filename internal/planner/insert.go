package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// insert is an INSERT being built.
type insert struct {
	p     *planner
	stmt  *pg.InsertStmt
	level *level
	t     *table
	cols  []string   // the columns that get values, in the order of the values
	rows  []plan.Key // VALUES: the key of each row
	query *level     // INSERT ... SELECT
	eqs   []*cond    // what the query's output says of the target's key
	added int        // trailing columns that nowDefaults has added
}

func (p *planner) insertStatement(s *pg.InsertStmt) error {
	p.p.Operation, p.p.Command = "insert", "INSERT 0"
	p.p.Access, p.p.Returns = plan.Write, len(s.GetReturningList()) > 0
	ins, err := p.buildInsert(s, nil)
	if err != nil {
		return err
	}
	if err := p.unusedWiths(); err != nil {
		return err
	}
	if err := p.checkFunctions(); err != nil {
		return err
	}
	ins.solve()
	if p.in.Keyspace.HomeOnly {
		return p.route()
	}
	if ins.t.kind == sharding.Reference {
		return ins.reference()
	}
	if ins.t.sharded() && len(ins.rows) > 1 {
		return ins.manyRows()
	}
	if err := p.route(); err != nil {
		return err
	}
	return ins.merge()
}

// buildInsert builds an INSERT within parent's scope.
func (p *planner) buildInsert(s *pg.InsertStmt, parent *level) (*insert, error) {
	l := &level{p: p, parent: parent, merged: map[string]outCol{}, stmt: &pg.SelectStmt{}}
	ins := &insert{p: p, stmt: s, level: l}
	if err := l.with(s.GetWithClause()); err != nil {
		return nil, err
	}
	e := onInsert
	if s.GetOnConflictClause().GetAction() == pg.OnConflictAction_ONCONFLICT_UPDATE {
		e |= onUpdate
	}
	t, err := p.target(s.GetRelation(), e)
	if err != nil {
		return nil, err
	}
	ins.t = t
	ins.columns()
	if err := ins.source(l); err != nil {
		return nil, err
	}
	return ins, ins.rest(l)
}

// columns are the columns that get values.
func (ins *insert) columns() {
	for _, n := range ins.stmt.GetCols() {
		ins.cols = append(ins.cols, n.GetResTarget().GetName())
	}
	if len(ins.stmt.GetCols()) == 0 && ins.t.rel != nil {
		for _, c := range ins.t.rel.Columns {
			ins.cols = append(ins.cols, c.Name)
		}
	}
}

// source builds the rows' expressions: VALUES, DEFAULT VALUES or a query.
func (ins *insert) source(l *level) error {
	s := ins.stmt.GetSelectStmt().GetSelectStmt()
	switch {
	case s == nil: // DEFAULT VALUES
		ins.cols = nil
		return ins.row(nil)
	case isValues(s):
		for _, n := range s.GetValuesLists() {
			if err := l.scan(n, &l.subs); err != nil {
				return err
			}
			if err := ins.row(n.GetList().GetItems()); err != nil {
				return err
			}
		}
		return nil
	}
	q, err := ins.p.buildSelect(s, l)
	if err != nil {
		return err
	}
	ins.query = q
	l.subs = append(l.subs, q)
	return ins.queryKey()
}

// isValues says whether a SELECT is a bare VALUES list.
func isValues(s *pg.SelectStmt) bool {
	return len(s.GetValuesLists()) > 0 && len(s.GetSortClause()) == 0 && s.GetLimitCount() == nil && s.GetLimitOffset() == nil && s.GetWithClause() == nil
}

// row finds the key of one row of VALUES.
func (ins *insert) row(values []*pg.Node) error {
	if !ins.t.sharded() || ins.p.in.Keyspace.HomeOnly {
		return nil
	}
	var key plan.Key
	for _, k := range ins.t.decl.Key {
		i := slices.Index(ins.cols, k.Name)
		if i >= len(values) || i < 0 || values[i].GetSetToDefault() != nil {
			s, err := ins.defaultKey(k)
			if err != nil {
				return err
			}
			key = append(key, s)
			continue
		}
		s, ok := ins.p.stored(ins.t, k, values[i])
		if !ok {
			return ins.p.refuse(pgerr.MissingShardKey, location(values[i]), "the value of shard key column %s of table %s is not a constant or a parameter of the key's type", k.Name, ins.t)
		}
		key = append(key, s)
	}
	ins.rows = append(ins.rows, key)
	return nil
}

// defaultKey is a key column that the INSERT leaves to its default.
func (ins *insert) defaultKey(k sharding.KeyColumn) (plan.Source, error) {
	at := ins.stmt.GetRelation().GetLocation()
	c := column(ins.t.rel, k.Name)
	if c == nil {
		return plan.Source{}, ins.p.refuse(pgerr.KeyDefinition, at, "table %s has no shard key column %s", ins.t, k.Name)
	}
	if c.Identity != "" || c.Generated != "" {
		return plan.Source{}, ins.p.refuse(pgerr.GeneratedKey, at, "shard key column %s of table %s is generated", k.Name, ins.t)
	}
	base := ins.p.baseType(c.Type)
	s := plan.Source{Kind: plan.Const, Type: k.Type, Column: base, Typmod: ins.p.typmod(c), Assign: true, Null: true}
	if c.Default == "" {
		return s, nil // NULL, which is refused when it runs
	}
	if n := parseExpr(c.Default); n != nil {
		ins.p.views++
		v, ok := ins.p.stored(ins.t, k, n)
		ins.p.views--
		if ok && v.Kind == plan.Const {
			return v, nil
		}
	}
	return s, ins.p.refuse(pgerr.GeneratedKey, at, "the default of shard key column %s of table %s is not a constant", k.Name, ins.t)
}

// parseExpr parses an expression as pg_get_expr gives it, nil where it cannot.
func parseExpr(text string) *pg.Node {
	trees, err := parse("SELECT " + text)
	if err != nil || len(trees) != 1 {
		return nil
	}
	list := trees[0].GetStmt().GetSelectStmt().GetTargetList()
	if len(list) != 1 {
		return nil
	}
	return list[0].GetResTarget().GetVal()
}

// queryKey ties the target's key to the query's output columns.
func (ins *insert) queryKey() error {
	if !ins.t.sharded() || ins.p.in.Keyspace.HomeOnly {
		return nil
	}
	list := ins.query.stmt.GetTargetList()
	simple := len(ins.query.arms) == 0 && len(list) == len(ins.query.out) && !slices.ContainsFunc(list, isStar)
	for _, k := range ins.t.decl.Key {
		i := slices.Index(ins.cols, k.Name)
		if i < 0 || i >= len(ins.query.out) || !ins.query.full && !simple {
			s, err := ins.defaultKey(k)
			if i >= 0 && !ins.query.full || err != nil {
				return ins.p.refuse(pgerr.InsertSelect, ins.stmt.GetRelation().GetLocation(), "the shard key column %s of table %s does not come from the query", k.Name, ins.t)
			}
			ins.eqs = append(ins.eqs, &cond{a: colID{ins.t.id, k.Name}, in: []plan.Source{s}})
			continue
		}
		if o := ins.query.out[i]; o.ok && ins.storesSame(k, o.id) {
			ins.eqs = append(ins.eqs, &cond{a: colID{ins.t.id, k.Name}, b: o.id, eq: true})
			continue
		}
		if simple {
			if s, ok := ins.p.stored(ins.t, k, list[i].GetResTarget().GetVal()); ok {
				ins.eqs = append(ins.eqs, &cond{a: colID{ins.t.id, k.Name}, in: []plan.Source{s}})
			}
		}
	}
	return nil
}

func isStar(n *pg.Node) bool {
	f := n.GetResTarget().GetVal().GetColumnRef().GetFields()
	return len(f) > 0 && f[len(f)-1].GetAStar() != nil
}

// storesSame says whether the assignment of a column to a key column keeps the
// value: the same family, and no varchar(n) that could cut it.
func (ins *insert) storesSame(k sharding.KeyColumn, from colID) bool {
	to := colID{ins.t.id, k.Name}
	if ins.p.equal(to, from) == nil {
		return false
	}
	c, f := ins.p.columnAt(to), ins.p.columnAt(from)
	m := ins.p.typmod(c)
	return m < 0 || m == ins.p.typmod(f) && c.Type == f.Type
}

// rest builds ON CONFLICT and RETURNING.
func (ins *insert) rest(l *level) error {
	it := ins.t.item(ins.stmt.GetRelation().GetAlias())
	excluded := &item{alias: "excluded", complete: true}
	for _, c := range it.cols {
		excluded.cols = append(excluded.cols, outCol{name: c.name})
	}
	inner := &level{p: ins.p, parent: l, merged: map[string]outCol{}, items: []*item{it}}
	if oc := ins.stmt.GetOnConflictClause(); oc != nil {
		conflict := *inner
		conflict.items = []*item{it, excluded}
		if err := conflict.scan(oc, &l.subs); err != nil {
			return err
		}
		if err := ins.conflictKey(oc); err != nil {
			return err
		}
	}
	if err := inner.targets(ins.stmt.GetReturningList()); err != nil {
		return err
	}
	inner.output(ins.stmt.GetReturningList())
	l.subs = append(l.subs, inner.subs...)
	l.out, l.full = inner.out, inner.full
	return nil
}

// conflictKey refuses ON CONFLICT DO UPDATE that assigns the shard key.
func (ins *insert) conflictKey(oc *pg.OnConflictClause) error {
	if !ins.t.sharded() || ins.p.in.Keyspace.HomeOnly {
		return nil
	}
	for _, k := range ins.t.decl.Key {
		rt := assignmentTo(oc.GetTargetList(), k.Name)
		if rt == nil {
			continue
		}
		f := stringsOf(rt.GetVal().GetColumnRef().GetFields())
		if len(f) == 2 && f[0] == "excluded" && f[1] == k.Name {
			continue // the row in conflict has the same key: its unique index contains it
		}
		return ins.p.refuse(pgerr.ShardKeyUpdate, rt.GetLocation(), "column %s of table %s is part of the shard key", k.Name, ins.t)
	}
	return nil
}

// solve gives the target and the sources their conditions.
func (ins *insert) solve() {
	ins.level.solve(nil, false, true)
	t := ins.t
	t.solved, t.inner = true, true
	if ins.query == nil {
		t.placed = ins.rows
		return
	}
	ins.query.top = true
	ins.query.solve(nil, false, false)
	t.conds = ins.eqs
	if len(ins.query.arms) == 0 {
		t.conds = slices.Concat(t.conds, ins.query.where, ins.query.tree.float())
	}
}

// reference plans an INSERT into a reference table.
func (ins *insert) reference() error {
	for _, c := range ins.omitted() {
		if c.DefaultVolatility == "v" || c.Identity != "" {
			return ins.p.refuse(pgerr.VolatileReference, ins.stmt.GetRelation().GetLocation(),
				"the default of column %s would give each copy of reference table %s another value", c.Name, ins.t)
		}
	}
	if q := ins.query; q != nil && ordered(q) {
		return ins.p.refuse(pgerr.ReferenceOrder, -1, "which rows the query gives may depend on the copy that it reads")
	}
	if err := ins.nowDefaults(); err != nil {
		return err
	}
	return ins.p.referenceWrite(ins.t)
}

// ordered says whether a query's rows may depend on the physical order.
func ordered(l *level) bool {
	return l.limited && len(l.stmt.GetValuesLists()) == 0 || l.window || l.orderAgg || slices.ContainsFunc(l.arms, ordered) ||
		slices.ContainsFunc(l.subs, ordered) || l.tree.ordered()
}

func (n *node) ordered() bool {
	switch {
	case n == nil:
		return false
	case n.sub != nil:
		return ordered(n.sub)
	case n.join != nil:
		return n.join.left.ordered() || n.join.right.ordered()
	}
	return false
}

// omitted are the columns that some row leaves to their defaults.
func (ins *insert) omitted() []*schema.Column {
	if ins.t.rel == nil {
		return nil
	}
	given := len(ins.cols)
	var defaults []string
	if ins.query != nil {
		if ins.query.full {
			given = min(given, len(ins.query.out))
		}
	} else {
		lists := ins.stmt.GetSelectStmt().GetSelectStmt().GetValuesLists()
		for _, n := range lists {
			items := n.GetList().GetItems()
			given = min(given, len(items))
			for i, v := range items {
				if v.GetSetToDefault() != nil && i < len(ins.cols) {
					defaults = append(defaults, ins.cols[i])
				}
			}
		}
	}
	var out []*schema.Column
	for i := range ins.t.rel.Columns {
		c := &ins.t.rel.Columns[i]
		at := slices.Index(ins.cols, c.Name)
		if at < 0 || at >= given || contains(defaults, c.Name) {
			out = append(out, c)
		}
	}
	return out
}

// manyRows plans a sharded INSERT of several rows: each row goes to its shard.
func (ins *insert) manyRows() error {
	p := ins.p
	p.pins()
	for _, t := range p.tables {
		if t != ins.t && !t.unread && t.kind != sharding.Reference {
			return p.refuse(pgerr.CrossShardWrite, t.location, "a value of an INSERT of several rows reads %s", t)
		}
	}
	if ins.stmt.GetWithClause() != nil {
		return p.refuse(pgerr.CrossShardWith, ins.stmt.GetWithClause().GetLocation(), "WITH in an INSERT of several rows")
	}
	spans, ok := p.valueRows(ins.stmt, len(ins.rows))
	if !ok {
		return p.refuse(pgerr.UnknownStatement, ins.stmt.GetRelation().GetLocation(), "the rows of the INSERT cannot be found in its text")
	}
	out := &plan.Insert{}
	for i, key := range ins.rows {
		out.Rows = append(out.Rows, plan.InsertRow{Start: spans[i][0], End: spans[i][1], Key: key})
	}
	p.p.Insert = out
	p.p.Route = plan.Route{Kind: plan.Rows}
	p.p.Multi = plan.Merge{Kind: plan.Sum}
	if p.p.Returns {
		p.p.Multi.Kind = plan.InOrder
	}
	if p.p.Returns && ins.stmt.GetOnConflictClause() != nil {
		// A row that meets a conflict may give no row: the order cannot be kept.
		p.p.Multi = plan.Merge{Kind: plan.Refuse, Reason: p.refuse(pgerr.CrossShardWrite, -1, "ON CONFLICT with RETURNING for rows of several shards")}
		if ins.stmt.GetOnConflictClause().GetAction() == pg.OnConflictAction_ONCONFLICT_UPDATE && ins.stmt.GetOnConflictClause().GetWhereClause() == nil {
			p.p.Multi = plan.Merge{Kind: plan.InOrder}
		}
	}
	p.prove("%d rows, each to the shard of its own key", len(out.Rows))
	return ins.nowDefaults()
}

// valueRows finds the "(...)" of each row of VALUES in the text.
func (p *planner) valueRows(s *pg.InsertStmt, n int) ([][2]int, bool) {
	i := p.tokenAt(int(s.GetRelation().GetLocation())) + 1
	for ; p.word(i) != "" && lower(p.word(i)) != "values"; i++ {
		if p.word(i) == "(" {
			if i = p.closing(i); i < 0 {
				return nil, false
			}
		}
	}
	var out [][2]int
	for i++; p.word(i) == "("; i++ {
		end := p.closing(i)
		if end < 0 {
			return nil, false
		}
		start, stop := p.span(i, end)
		out = append(out, [2]int{start, stop})
		if i = end + 1; p.word(i) != "," {
			break
		}
	}
	return out, len(out) == n
}

// merge plans an INSERT of one row or of a query.
func (ins *insert) merge() error {
	p := ins.p
	if p.p.Route.Kind != plan.Keyed && p.p.Route.Kind != plan.All {
		return nil
	}
	if !ins.t.sharded() {
		return p.refuse(pgerr.GlobalWithSharded, ins.t.location, "%s table %s is written from sharded tables", ins.t.kind, ins.t)
	}
	if ins.query == nil {
		// One row: several shards can only be met by other tables.
		p.many(plan.Merge{}, p.refuse(pgerr.CrossShardWrite, ins.t.location, "the INSERT and the tables that it reads are on several shards"))
		return p.settle()
	}
	m := plan.Merge{Kind: plan.Sum}
	if p.p.Returns {
		m.Kind = plan.Concat
	}
	var refusal *pgerr.Error
	if how, r := p.mergeOf(ins.query); r != nil || how.Kind != plan.Concat || p.notTogether() != nil || ins.timeDefault() {
		refusal = p.refuse(pgerr.InsertSelect, ins.t.location, "the rows for table %s are not made on the shards where they belong", ins.t)
	}
	p.many(m, refusal)
	return p.settle()
}

// timeDefault says whether a column takes the transaction's time by default.
func (ins *insert) timeDefault() bool {
	return slices.ContainsFunc(ins.omitted(), func(c *schema.Column) bool { return c.DefaultVolatility == "s" })
}
