package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// alterTable plans ALTER TABLE, and ALTER of what the grammar treats alike.
func (p *planner) alterTable(s *pg.AlterTableStmt) error {
	p.p.Command = "ALTER TABLE"
	rv := s.GetRelation()
	r := p.relation(plan.Name{Schema: rv.GetSchemaname(), Name: rv.GetRelname()})
	if r == nil {
		if s.GetMissingOk() || s.GetObjtype() != pg.ObjectType_OBJECT_TABLE {
			return nil
		}
		_, err := p.named(rv)
		return err
	}
	t, err := p.named(rv)
	if err != nil {
		return err
	}
	t.solved, t.written = true, true
	d := &definition{p: p, rv: rv, name: plan.Name{Schema: r.Schema, Name: r.Name}, decl: p.declaration(r)}
	d.inherit(r)
	for _, n := range s.GetCmds() {
		if err := d.command(n.GetAlterTableCmd(), s, t); err != nil {
			return err
		}
	}
	return nil
}

// command checks one subcommand of ALTER TABLE.
func (d *definition) command(c *pg.AlterTableCmd, s *pg.AlterTableStmt, t *table) error {
	p, at := d.p, d.rv.GetLocation()
	switch c.GetSubtype() {
	case pg.AlterTableType_AT_SetRelOptions, pg.AlterTableType_AT_ResetRelOptions, pg.AlterTableType_AT_ReplaceRelOptions:
		return d.relOptions(c, s, t)
	case pg.AlterTableType_AT_DropColumn, pg.AlterTableType_AT_AlterColumnType:
		if isKey(d.decl, c.GetName()) {
			return p.refuse(pgerr.KeyColumnChange, at, "column %s is part of the shard key of table %s", c.GetName(), d.name.Name)
		}
	case pg.AlterTableType_AT_AddColumn:
		col := c.GetDef().GetColumnDef()
		if err := d.columnConstraints(col); err != nil {
			return err
		}
		return d.addedDefault(col)
	case pg.AlterTableType_AT_AddConstraint:
		return d.constraint(c.GetDef().GetConstraint(), nil)
	case pg.AlterTableType_AT_AttachPartition:
		return d.attach(c.GetDef().GetPartitionCmd().GetName(), d.decl)
	case pg.AlterTableType_AT_AddInherit:
		return d.inheritFrom(c.GetDef().GetRangeVar())
	case pg.AlterTableType_AT_DetachPartition:
		return d.detach(c.GetDef().GetPartitionCmd())
	case pg.AlterTableType_AT_DropInherit:
		own := d.decl
		own.Schema, own.Name, own.DeclaredBy = d.name.Schema, d.name.Name, "ddl"
		p.p.DDL.Declare = append(p.p.DDL.Declare, plan.Declaration{Table: own})
	}
	return nil
}

// relOptions is ALTER TABLE ... SET (sharding.key = ...): a change of the
// declaration alone, allowed while the table is empty.
func (d *definition) relOptions(c *pg.AlterTableCmd, s *pg.AlterTableStmt, t *table) error {
	p := d.p
	list := c.GetDef().GetList().GetItems()
	options, err := p.shardingOptions(list)
	if err != nil || len(options) == 0 {
		return err
	}
	if len(s.GetCmds()) > 1 || len(options) != len(list) {
		return p.refuse(pgerr.KeyDefinition, options[0].location, "ALTER TABLE changes the shard key together with something else").
			WithHint("Change sharding.key or sharding.kind in a statement of its own.")
	}
	if len(t.rel.Parents) > 0 {
		return p.refuse(pgerr.KeyDefinition, options[0].location, "table %s is placed as its parent is", d.name.Name)
	}
	old := d.decl
	d.decl = sharding.Table{Schema: d.name.Schema, Name: d.name.Name, Kind: sharding.Global, DeclaredBy: "ddl"}
	if c.GetSubtype() == pg.AlterTableType_AT_SetRelOptions {
		if err := d.options(options); err != nil {
			return err
		}
	}
	if err := d.existing(t); err != nil {
		return err
	}
	p.p.DDL.CatalogOnly = true
	p.p.DDL.Declare = []plan.Declaration{{Table: d.decl}}
	if old.Kind != d.decl.Kind || !slices.Equal(old.Key, d.decl.Key) {
		p.p.DDL.RequireEmpty = []plan.Name{d.name}
	}
	p.prove("%s table %s", d.decl.Kind, d.name.Name)
	return nil
}

// existing checks an existing table's indexes and foreign keys against a new
// declaration.
func (d *definition) existing(t *table) error {
	if err := d.checkKey(); err != nil {
		return err
	}
	at := d.rv.GetLocation()
	for _, u := range append(slices.Clone(t.rel.Unique), t.rel.PrimaryKey) {
		if len(u) == 0 {
			continue
		}
		if err := d.unique(u, at, "a unique index"); err != nil {
			return err
		}
	}
	for _, fk := range t.rel.ForeignKeys {
		c := &pg.Constraint{Pktable: &pg.RangeVar{Schemaname: fk.RefSchema, Relname: fk.RefTable}, Location: at, FkDelAction: fk.OnDelete, FkUpdAction: fk.OnUpdate}
		for _, r := range fk.RefColumns {
			c.PkAttrs = append(c.PkAttrs, pg.MakeStrNode(r))
		}
		if err := d.foreignKey(c, fk.Columns); err != nil {
			return err
		}
	}
	return d.referrers(t)
}

// referrers refuses a change under which foreign keys of other tables would
// cross shards.
func (d *definition) referrers(t *table) error {
	for _, r := range d.p.in.Schema.Relations {
		for _, fk := range r.ForeignKeys {
			if fk.RefSchema != d.name.Schema || fk.RefTable != d.name.Name || r == t.rel {
				continue
			}
			other := d.p.declaration(r)
			ok := d.decl.Kind == sharding.Reference || d.decl.Kind == sharding.Global && other.Kind == sharding.Global ||
				d.decl.Kind == sharding.Sharded && other.Colocated(d.decl) && slices.Contains(fk.Columns, other.Key[0].Name)
			if !ok {
				return d.p.refuse(pgerr.ForeignKey, d.rv.GetLocation(), "foreign key %s of table %s refers to table %s", fk.Name, r.Name, d.name.Name)
			}
		}
	}
	return nil
}

// addedDefault checks the default of a column added to a table that may have
// rows: every shard fills its rows by itself.
func (d *definition) addedDefault(col *pg.ColumnDef) error {
	p := d.p
	if d.decl.Kind == sharding.Global || p.in.Keyspace.HomeOnly {
		return nil
	}
	kept := p.p.NowEdits
	p.p.NowEdits = nil
	l := &level{p: p, merged: map[string]outCol{}}
	if err := l.scan(col, &l.subs); err != nil {
		return err
	}
	at := d.rv.GetLocation()
	u := &p.uses
	numbered := contains([]string{"serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"}, nameOf(col.GetTypeName().GetNames()).Name)
	for _, n := range col.GetConstraints() {
		numbered = numbered || n.GetConstraint().GetContype() == pg.ConstrType_CONSTR_IDENTITY
	}
	times := p.p.NowEdits
	p.p.NowEdits = kept
	switch {
	case u.user != "":
		return p.refuse(pgerr.UserFunction, u.userAt, "function %s is not IMMUTABLE", u.user)
	case d.decl.Kind == sharding.Reference && (u.volatile != "" || u.sequence != "" || numbered):
	case len(times) == 0 && !u.viewNow, d.sameTime(col, times):
		return nil
	}
	return p.refuse(pgerr.DefaultOnFilledTable, at, "the default of column %s would differ between shards", col.GetColname())
}

// sameTime makes every shard fill its rows with one time: the column is added
// with that time as its default, and gets its own default right behind. (Tried on
// PostgreSQL 15: one ALTER TABLE may do both.) It is false where the text does
// not show where the default ends.
func (d *definition) sameTime(col *pg.ColumnDef, times []plan.NowEdit) bool {
	p := d.p
	i := slices.IndexFunc(col.GetConstraints(), func(n *pg.Node) bool {
		return n.GetConstraint().GetContype() == pg.ConstrType_CONSTR_DEFAULT
	})
	if p.uses.viewNow {
		return false
	}
	if i < 0 {
		return true // the time stands in a CHECK, which looks at rows one by one
	}
	first := p.tokenAt(int(col.GetConstraints()[i].GetConstraint().GetLocation()))
	if lower(p.word(first)) != "default" {
		return false
	}
	first++
	last := p.before(first, func(w string) bool { return w == "," || w == ";" || w == "" || afterDefault[w] })
	end := p.before(first, func(w string) bool { return w == "," || w == ";" || w == "" })
	start, stop := p.span(first, last)
	for _, t := range times {
		if t.Start >= start && t.End <= stop {
			p.p.NowEdits = append(p.p.NowEdits, t)
		}
	}
	_, at := p.span(end, end)
	text := p.in.SQL[start+p.base : stop+p.base]
	p.p.NowEdits = append(p.p.NowEdits, plan.NowEdit{Start: at, End: at, Precision: -1,
		Before: ", ALTER COLUMN " + sharding.QuoteIdentifier(col.GetColname()) + " SET DEFAULT " + text})
	return true
}

// afterDefault are the words that can follow a column's default.
var afterDefault = wordSet("constraint not null unique primary check references collate generated deferrable initially storage compression")

// attach checks a table that becomes a partition: it is placed like its parent
// from then on, so it has to be empty unless it is already.
func (d *definition) attach(rv *pg.RangeVar, parent sharding.Table) error {
	p := d.p
	t, err := p.named(rv)
	if err != nil {
		return err
	}
	t.solved = true
	if t.rel == nil || parent.Kind == t.kind && slices.Equal(parent.Key, t.decl.Key) {
		return nil
	}
	n := plan.Name{Schema: t.rel.Schema, Name: t.rel.Name}
	p.p.DDL.RequireEmpty = append(p.p.DDL.RequireEmpty, n)
	p.p.DDL.Drop = append(p.p.DDL.Drop, n)
	return nil
}

// inheritFrom is ALTER TABLE child INHERIT parent.
func (d *definition) inheritFrom(rv *pg.RangeVar) error {
	t, err := d.p.named(rv)
	if err != nil {
		return err
	}
	t.solved = true
	if t.kind == d.decl.Kind && slices.Equal(t.decl.Key, d.decl.Key) {
		return nil
	}
	d.p.p.DDL.RequireEmpty = append(d.p.p.DDL.RequireEmpty, d.name)
	d.p.p.DDL.Drop = append(d.p.p.DDL.Drop, d.name)
	return nil
}

// detach gives a detached partition a declaration of its own, like its
// parent's.
func (d *definition) detach(c *pg.PartitionCmd) error {
	p := d.p
	p.p.NotInBlock = c.GetConcurrent()
	t, err := p.named(c.GetName())
	if err != nil {
		return err
	}
	t.solved = true
	if t.rel == nil {
		return nil
	}
	own := d.decl
	own.Schema, own.Name, own.DeclaredBy = t.rel.Schema, t.rel.Name, "ddl"
	p.p.DDL.Declare = append(p.p.DDL.Declare, plan.Declaration{Table: own})
	return nil
}

// createIndex checks that a unique index contains the shard key.
func (p *planner) createIndex(s *pg.IndexStmt) error {
	p.p.Command, p.p.NotInBlock = "CREATE INDEX", s.GetConcurrent()
	t, err := p.named(s.GetRelation())
	if err != nil {
		return err
	}
	t.solved = true
	if !s.GetUnique() {
		return nil
	}
	var columns []string
	for _, n := range s.GetIndexParams() {
		name := n.GetIndexElem().GetName()
		if name == "" {
			name = "an expression"
		}
		columns = append(columns, name)
	}
	d := &definition{p: p, rv: s.GetRelation(), name: t.name, decl: t.decl}
	return d.unique(columns, s.GetRelation().GetLocation(), "the unique index")
}
