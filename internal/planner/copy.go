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

// copyStatement plans COPY FROM STDIN and COPY TO STDOUT.
func (p *planner) copyStatement(s *pg.CopyStmt) error {
	p.p.Operation, p.p.Command, p.p.Action = "copy", "COPY", plan.Copy
	if s.GetFilename() != "" || s.GetIsProgram() {
		return p.refuse(pgerr.CopyForm, -1, "COPY with a file or a program on the server").
			WithHint("Use COPY ... FROM STDIN or TO STDOUT; in psql, \\copy.")
	}
	c := &plan.CopyPlan{From: s.GetIsFrom()}
	p.p.Copy = c
	copyOptions(&c.Options, s.GetOptions())
	if q := s.GetQuery(); q != nil && c.Options.Format == "binary" {
		tree, err := pg.Parse("") // for the version of the tree's form
		if err == nil {
			tree.Stmts = []*pg.RawStmt{{Stmt: q}}
			c.Rows, err = pg.Deparse(tree)
		}
		if err != nil {
			return p.refuse(pgerr.CopyForm, -1, "COPY of this query in binary").WithHint("Ask for text or CSV.")
		}
	}
	if s.GetIsFrom() {
		return p.copyFrom(s, c)
	}
	return p.copyTo(s, c)
}

// copyTo plans COPY TO STDOUT: rows of several shards stand one after another.
func (p *planner) copyTo(s *pg.CopyStmt, c *plan.CopyPlan) error {
	p.p.Access = plan.Read
	if q := s.GetQuery(); q != nil {
		return p.copyQuery(q, c)
	}
	t, err := p.named(s.GetRelation())
	if err != nil {
		return err
	}
	t.solved = true
	c.Table = t.ref()
	cols := stringsOf(s.GetAttlist())
	if len(cols) == 0 {
		cols = copyColumns(t.rel)
	}
	copyRows(c, cols)
	if err := p.route(); err != nil {
		return err
	}
	p.p.Multi = plan.Merge{Kind: plan.Concat}
	return p.settle()
}

func (p *planner) copyQuery(n *pg.Node, c *plan.CopyPlan) error {
	q := n.GetSelectStmt()
	if q == nil {
		return p.copyWrite(n)
	}
	l, err := p.query(q)
	if err != nil {
		return err
	}
	p.p.Access = max(p.readAccess(), plan.Read)
	merge, refusal := p.mergeOf(l)
	if refusal == nil {
		refusal = p.notTogether()
	}
	if refusal == nil && merge.Kind == plan.Aggregate {
		refusal = p.refuse(pgerr.CrossShardAggregate, -1, "COPY of an aggregate over several shards")
	}
	p.many(plan.Merge{Kind: plan.Concat}, refusal)
	return p.settle()
}

// copyWrite is COPY (INSERT ... RETURNING ...) TO: only where one shard runs it.
func (p *planner) copyWrite(n *pg.Node) error {
	if err := p.statement(n); err != nil {
		return err
	}
	p.p.Operation, p.p.Command, p.p.Action, p.p.Returns = "copy", "COPY", plan.Copy, false
	if p.p.Route.Kind == plan.All || p.p.Route.Kind == plan.Rows {
		return p.refuse(pgerr.CopyForm, -1, "COPY of a write over several shards")
	}
	p.p.Multi = plan.Merge{Kind: plan.Refuse, Reason: p.refuse(pgerr.CopyForm, -1, "COPY of a write over several shards")}
	return nil
}

// copyFrom plans COPY FROM STDIN: each row goes to the shard of its key.
func (p *planner) copyFrom(s *pg.CopyStmt, c *plan.CopyPlan) error {
	p.p.Access = plan.Write
	t, err := p.target(s.GetRelation(), onInsert)
	if err != nil {
		return unplaced(err)
	}
	t.solved, c.Table = true, t.ref()
	if w := s.GetWhereClause(); w != nil {
		l := &level{p: p, merged: map[string]outCol{}, items: []*item{t.item(nil)}}
		if err := l.scan(w, &l.subs); err != nil {
			return err
		}
	}
	cols := stringsOf(s.GetAttlist())
	if len(cols) == 0 {
		cols = copyColumns(t.rel)
	}
	c.Columns = len(cols)
	copyRows(c, cols)
	switch {
	case p.in.Keyspace.HomeOnly || t.kind == sharding.Global:
		p.p.Route.Kind = plan.Home
		return nil
	}
	if err := p.checkFunctions(); err != nil {
		return err
	}
	at := s.GetRelation().GetLocation()
	p.p.Route.Kind = plan.All
	p.p.Multi.Kind = plan.Sum
	if t.kind == sharding.Reference {
		c.Reference = true
		p.p.Multi.Kind = plan.Same
		p.prove("every row goes to every shard's copy of reference table %s", t)
	} else {
		p.prove("each row goes to the shard of its own key")
		if err := p.copyKey(t, c, cols, at); err != nil {
			return err
		}
	}
	return p.copyDefaults(t, cols, at)
}

// copyColumns are those that COPY takes where none are named. rel may be nil.
func copyColumns(rel *schema.Relation) (cols []string) {
	if rel == nil {
		return nil
	}
	for i := range rel.Columns {
		if col := &rel.Columns[i]; col.Generated == "" {
			cols = append(cols, col.Name)
		}
	}
	return cols
}

// copyRows notes a query for the columns of a COPY in binary.
func copyRows(c *plan.CopyPlan, cols []string) {
	if c.Options.Format != "binary" {
		return
	}
	list := make([]string, len(cols))
	for i, name := range cols {
		list[i] = sharding.QuoteIdentifier(name)
	}
	c.Rows = "SELECT " + strings.Join(list, ", ") + " FROM " + sharding.QuoteIdentifier(c.Table.Schema) + "." + sharding.QuoteIdentifier(c.Table.Name)
}

// copyDefaults refuses what rows on several shards would take differently.
func (p *planner) copyDefaults(t *table, cols []string, at int32) error {
	for i := range t.rel.Columns {
		col := &t.rel.Columns[i]
		if contains(cols, col.Name) {
			continue
		}
		if t.sharded() {
			if col.DefaultVolatility != "s" {
				continue
			}
			if _, found, ok := p.timeOf(col); found || !ok {
				return p.refuse(pgerr.CopyForm, at, "the default of column %s would differ between shards", col.Name).
					WithHint("Give column %s in the column list, with its value in every row.", col.Name)
			}
			continue
		}
		if col.DefaultVolatility == "v" || col.DefaultVolatility == "s" || col.Identity != "" {
			return p.refuse(pgerr.VolatileReference, at, "the default of column %s would give each copy of reference table %s another value", col.Name, t)
		}
	}
	return nil
}

// copyKey finds the key's fields in the column list.
func (p *planner) copyKey(t *table, c *plan.CopyPlan, cols []string, at int32) error {
	for _, name := range cols {
		if column(t.rel, name) == nil {
			return pgerr.New(pgerr.UndefinedColumn, "column \"%s\" of relation \"%s\" does not exist", name, t.name.Name)
		}
	}
	for _, k := range t.decl.Key {
		i := slices.Index(cols, k.Name)
		col := column(t.rel, k.Name)
		f, ok := p.family(col)
		switch {
		case !ok:
			return p.refuse(pgerr.KeyDefinition, at, "column %s of table %s cannot be a shard key", k.Name, t)
		case i < 0:
			return p.refuse(pgerr.CopyForm, at, "shard key column %s of table %s is not in the column list", k.Name, t)
		}
		base := p.baseType(col.Type)
		c.KeyFields = append(c.KeyFields, i)
		c.Key = append(c.Key, plan.Source{Type: f, Column: base, ValueType: base, Typmod: p.typmod(col), Assign: true})
	}
	return nil
}

// copyOptions reads the options that change how rows are cut.
func copyOptions(o *plan.CopyOptions, list []*pg.Node) {
	o.Format = "text"
	for _, n := range list {
		d := n.GetDefElem()
		text := argText(d.GetArg())
		switch d.GetDefname() {
		case "format":
			o.Format = lower(text)
		case "delimiter":
			o.Delimiter, o.HasDelimiter = text, true
		case "null":
			o.Null, o.HasNull = text, true
		case "quote":
			o.Quote, o.HasQuote = text, true
		case "escape":
			o.Escape, o.HasEscape = text, true
		case "header":
			o.Header = d.GetArg() == nil || isTrue(text) || lower(text) == "match"
		case "force_null":
			o.ForceNull = argList(d.GetArg())
		case "force_not_null":
			o.ForceNotNull = argList(d.GetArg())
		case "encoding":
			o.Encoding = text
		case "freeze":
			o.Freeze = d.GetArg() == nil || isTrue(text)
		}
	}
}

// argList is a list of column names, "*" for all.
func argList(n *pg.Node) []string {
	if n.GetAStar() != nil {
		return []string{"*"}
	}
	return stringsOf(n.GetList().GetItems())
}
