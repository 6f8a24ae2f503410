package planner

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// constraints checks the unique constraints and foreign keys of CREATE TABLE.
func (d *definition) constraints(s *pg.CreateStmt) error {
	for _, n := range slices.Concat(s.GetTableElts(), s.GetConstraints()) {
		if c := n.GetConstraint(); c != nil {
			if err := d.constraint(c, nil); err != nil {
				return err
			}
		}
		if col := n.GetColumnDef(); col != nil {
			if err := d.columnConstraints(col); err != nil {
				return err
			}
		}
		if like := n.GetTableLikeClause(); like != nil {
			if err := d.like(like); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *definition) columnConstraints(col *pg.ColumnDef) error {
	for _, n := range col.GetConstraints() {
		if err := d.constraint(n.GetConstraint(), []string{col.GetColname()}); err != nil {
			return err
		}
	}
	return nil
}

// like checks what LIKE ... INCLUDING INDEXES copies.
func (d *definition) like(l *pg.TableLikeClause) error {
	const includingIndexes = 1 << 5 // CREATE_TABLE_LIKE_INDEXES of parsenodes.h
	r := d.p.relation(plan.Name{Schema: l.GetRelation().GetSchemaname(), Name: l.GetRelation().GetRelname()})
	if r == nil || l.GetOptions()&includingIndexes == 0 {
		return nil
	}
	for _, u := range r.Unique {
		if err := d.unique(u, l.GetRelation().GetLocation(), "an index that LIKE copies"); err != nil {
			return err
		}
	}
	return nil
}

// constraint checks one constraint; columns are a column constraint's.
func (d *definition) constraint(c *pg.Constraint, columns []string) error {
	switch c.GetContype() {
	case pg.ConstrType_CONSTR_PRIMARY, pg.ConstrType_CONSTR_UNIQUE:
		if c.GetIndexname() != "" {
			return nil // USING INDEX: the index was checked when it was made
		}
		if columns == nil {
			columns = stringsOf(c.GetKeys())
		}
		return d.unique(columns, c.GetLocation(), "the constraint")
	case pg.ConstrType_CONSTR_EXCLUSION:
		return d.exclusion(c)
	case pg.ConstrType_CONSTR_FOREIGN:
		if columns == nil {
			columns = stringsOf(c.GetFkAttrs())
		}
		return d.foreignKey(c, columns)
	}
	return nil
}

// unique checks that a unique set of columns contains the shard key: each shard
// then has all rows that may be equal.
func (d *definition) unique(columns []string, at int32, what string) error {
	if d.decl.Kind != sharding.Sharded || d.p.in.Keyspace.HomeOnly {
		return nil
	}
	for _, k := range d.decl.Key {
		if !contains(columns, k.Name) {
			return d.p.refuse(pgerr.UniqueWithoutKey, at, "%s on (%s) of table %s does not contain shard key column %s",
				what, strings.Join(columns, ", "), d.name.Name, k.Name)
		}
	}
	return nil
}

func (d *definition) exclusion(c *pg.Constraint) error {
	var equal []string
	for _, n := range c.GetExclusions() {
		items := n.GetList().GetItems()
		if len(items) == 2 && nameOf(items[1].GetList().GetItems()).Name == "=" {
			equal = append(equal, items[0].GetIndexElem().GetName())
		}
	}
	return d.unique(equal, c.GetLocation(), "the exclusion constraint with =")
}

// foreignKey checks that a row and the row that it refers to are on one shard.
func (d *definition) foreignKey(c *pg.Constraint, columns []string) error {
	p := d.p
	if p.in.Keyspace.HomeOnly {
		return nil
	}
	rv := c.GetPktable()
	name := plan.Name{Schema: rv.GetSchemaname(), Name: rv.GetRelname()}
	target, refs := d.decl, stringsOf(c.GetPkAttrs())
	var pk []string
	if r := p.relation(name); r != nil {
		target, pk = p.declaration(r), r.PrimaryKey
	} else if name.Name != d.name.Name {
		return pgerr.New(pgerr.UndefinedTable, "relation \"%s\" does not exist", rv.GetRelname()).WithCause(ErrUnknownName)
	}
	if len(refs) == 0 {
		refs = pk
	}
	bad := func(format string, args ...any) error {
		return p.refuse(pgerr.ForeignKey, c.GetLocation(), format, args...)
	}
	switch {
	case target.Kind == sharding.Reference: // on every shard, the home shard too
		return d.referenceActions(c, columns)
	case target.Kind == sharding.Global && d.decl.Kind == sharding.Global:
		return nil
	case target.Kind != sharding.Sharded || d.decl.Kind != sharding.Sharded:
		return bad("the foreign key refers from %s table %s to %s table %s", d.decl.Kind, d.name.Name, target.Kind, rv.GetRelname())
	case !d.decl.Colocated(target):
		return bad("tables %s and %s are not placed alike", d.name.Name, rv.GetRelname())
	}
	for i, k := range d.decl.Key {
		at := slices.Index(columns, k.Name)
		if at < 0 || len(refs) > 0 && (at >= len(refs) || refs[at] != target.Key[i].Name) {
			return bad("shard key column %s does not refer to shard key column %s of table %s", k.Name, target.Key[i].Name, rv.GetRelname())
		}
		if setsColumn(c, k.Name) {
			return bad("the foreign key would set shard key column %s when its row is deleted or updated", k.Name)
		}
	}
	return nil
}

// referenceActions refuses a foreign key to a reference table under which a
// change there would change this table's shard key.
func (d *definition) referenceActions(c *pg.Constraint, columns []string) error {
	for _, k := range d.decl.Key {
		if contains(columns, k.Name) && (setsColumn(c, k.Name) || c.GetFkUpdAction() == "c") {
			return d.p.refuse(pgerr.ForeignKey, c.GetLocation(), "the foreign key would set shard key column %s when its row is deleted or updated", k.Name)
		}
	}
	return nil
}

// setsColumn says whether ON DELETE or ON UPDATE may change a column.
func setsColumn(c *pg.Constraint, column string) bool {
	if u := c.GetFkUpdAction(); u == "n" || u == "d" || u == "c" {
		// ON UPDATE CASCADE only follows a key change, which is refused itself.
		if u != "c" {
			return true
		}
	}
	if del := c.GetFkDelAction(); del == "n" || del == "d" {
		cols := stringsOf(c.GetFkDelSetCols())
		return len(cols) == 0 || contains(cols, column)
	}
	return false
}
