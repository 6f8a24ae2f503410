package planner

import (
	"errors"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// table is one use of a relation in a statement.
type table struct {
	id   int
	rel  *schema.Relation // nil for catalogs and temporary tables
	decl sharding.Table   // of the root of its partition or inheritance tree
	kind sharding.TableKind
	name plan.Name

	catalog, temporary bool
	location           int32

	conds    []*cond // what holds for every row of it that matters
	solved   bool
	nullable bool // on the nullable side of an outer join, or in a subquery
	inner    bool // within a subquery, or a derived table that is not plain
	keys     []plan.Key
	placed   []plan.Key // keys of rows that are inserted
	bound    bool
	written  bool
	unread   bool // only in a WITH query that nothing refers to
}

func (t *table) sharded() bool { return t.kind == sharding.Sharded }

func (t *table) ref() plan.TableRef {
	return plan.TableRef{Schema: t.name.Schema, Name: t.name.Name, Kind: t.kind, Catalog: t.catalog, Temporary: t.temporary}
}

// String is the table's name as messages give it.
func (t *table) String() string {
	if t.name.Schema == "" || t.name.Schema == "public" {
		return t.name.Name
	}
	return t.name.Schema + "." + t.name.Name
}

// resolve finds the relation that a RangeVar names and counts its use.
func (p *planner) resolve(rv *pg.RangeVar) (*table, error) {
	if p.budget--; p.budget < 0 {
		return nil, p.refuse(pgerr.TooManyShardTables, rv.GetLocation(), "the statement uses more than %d tables", maxTables)
	}
	t := &table{id: len(p.tables), location: rv.GetLocation(), kind: sharding.Global,
		name: plan.Name{Schema: rv.GetSchemaname(), Name: rv.GetRelname()}}
	if p.views > 0 {
		t.location = -1
	}
	if c := rv.GetCatalogname(); c != "" && c != p.in.Keyspace.Name {
		return nil, pgerr.New(pgerr.FeatureNotSupported, "cross-database references are not implemented: %q",
			c+"."+rv.GetSchemaname()+"."+rv.GetRelname()).WithPosition(p.at(rv.GetLocation()))
	}
	if err := p.lookup(t); err != nil {
		return nil, err
	}
	p.tables = append(p.tables, t)
	return t, nil
}

// named is resolve for a statement that is no query: PostgreSQL looks its relations
// up when it runs, and has no position for one that does not exist.
func (p *planner) named(rv *pg.RangeVar) (*table, error) {
	t, err := p.resolve(rv)
	return t, unplaced(err)
}

// unplaced is an error that a table does not exist, without its position.
func unplaced(err error) error {
	var e *pgerr.Error
	if errors.As(err, &e) && e.Code == pgerr.UndefinedTable {
		return e.WithPosition(0)
	}
	return err
}

// lookup fills what the snapshot and the declarations know of t.name.
func (p *planner) lookup(t *table) error {
	name := t.name
	if p.isTemporary(name) {
		t.temporary = true
		return nil
	}
	if name.Schema == "pg_catalog" || name.Schema == "information_schema" || name.Schema == "pg_toast" {
		t.catalog = true
		return nil
	}
	t.rel = p.relation(name)
	if t.rel == nil {
		if name.Schema == "" && strings.HasPrefix(name.Name, "pg_") {
			t.catalog, t.name.Schema = true, "pg_catalog"
			return nil
		}
		return p.unknownTable(t)
	}
	t.name = plan.Name{Schema: t.rel.Schema, Name: t.rel.Name}
	t.decl = p.declaration(t.rel)
	t.kind = t.decl.Kind
	return p.checkChildren(t, t.rel)
}

// checkChildren refuses a table whose partitions or inheritance children are
// placed otherwise than itself: one statement would read both.
func (p *planner) checkChildren(t *table, r *schema.Relation) error {
	for _, name := range r.Children {
		c := p.qualified(name)
		if c == nil {
			continue
		}
		if d := p.declaration(c); d.Kind != t.kind || !slices.Equal(d.Key, t.decl.Key) {
			return p.refuse(pgerr.KeyDefinition, t.location, "child table %s is placed otherwise than table %s", c.Name, t)
		}
		if err := p.checkChildren(t, c); err != nil {
			return err
		}
	}
	return nil
}

func (p *planner) unknownTable(t *table) error {
	name := t.name.Name
	if t.name.Schema != "" {
		name = t.name.Schema + "." + name
	}
	e := pgerr.New(pgerr.UndefinedTable, "relation \"%s\" does not exist", name).WithCause(ErrUnknownName)
	if pos := p.at(t.location); pos > 0 {
		e = e.WithPosition(pos)
	}
	return e
}

// path is the search path with pg_catalog where PostgreSQL searches it.
func (p *planner) path() []string {
	if p.views > 0 {
		return append([]string{"pg_catalog", "public"}, p.in.SearchPath...)
	}
	return p.in.SearchPath
}

// relation finds a relation of the snapshot; nil when there is none.
func (p *planner) relation(n plan.Name) *schema.Relation {
	if n.Schema != "" {
		return p.in.Schema.Lookup(n.Schema, n.Name)
	}
	return p.in.Schema.Resolve(p.path(), n.Name)
}

// qualified finds a relation by "schema.name", in which either part may itself
// hold a dot.
func (p *planner) qualified(name string) *schema.Relation {
	for i := range name {
		if name[i] == '.' {
			if r := p.in.Schema.Lookup(name[:i], name[i+1:]); r != nil {
				return r
			}
		}
	}
	return nil
}

// declaration is the declaration that governs a relation: its own, or that of
// the nearest ancestor which has one; undeclared relations are global.
func (p *planner) declaration(r *schema.Relation) sharding.Table {
	seen := 0
	for next := []*schema.Relation{r}; len(next) > 0 && seen < 1000; seen++ {
		r := next[0]
		next = next[1:]
		if d, ok := p.in.Keyspace.Tables[r.Schema+"."+r.Name]; ok {
			return d
		}
		for _, parent := range r.Parents {
			if pr := p.qualified(parent); pr != nil {
				next = append(next, pr)
			}
		}
	}
	return sharding.Table{Schema: r.Schema, Name: r.Name, Kind: sharding.Global}
}

// column finds a column of a relation.
func column(r *schema.Relation, name string) *schema.Column {
	if r == nil {
		return nil
	}
	return r.Column(name)
}

// baseType strips domains off a type.
func (p *planner) baseType(oid uint32) uint32 {
	base, _ := p.in.Schema.BaseType(oid)
	return base
}

// typmod is a column's type modifier, its domain's where it has one.
func (p *planner) typmod(c *schema.Column) int32 {
	if c.Typmod >= 0 {
		return c.Typmod
	}
	_, m := p.in.Schema.BaseType(c.Type)
	return m
}

// family is the key type whose equality a column's "=" is: none for types that
// the whitelist does not have and for nondeterministic collations.
func (p *planner) family(c *schema.Column) (sharding.KeyType, bool) {
	if c == nil || !p.deterministic(c.Collation) {
		return 0, false
	}
	return sharding.KeyTypeOfOID(p.baseType(c.Type))
}

func (p *planner) deterministic(collation uint32) bool {
	c := p.in.Schema.CollationByOID(collation)
	return c == nil || c.Deterministic // 0, the default, C and POSIX are
}

// plainEquals says whether an operator name is pg_catalog's "=".
func (p *planner) plainEquals(name []*pg.Node) bool {
	switch s := stringsOf(name); len(s) {
	case 1:
		i := slices.Index(p.in.SearchPath, "pg_catalog")
		return s[0] == "=" && (i <= 0 || p.views > 0)
	case 2:
		return s[0] == "pg_catalog" && s[1] == "="
	}
	return false
}

// stringsOf are the texts of a list of String nodes.
func stringsOf(nodes []*pg.Node) []string {
	out := make([]string, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, n.GetString_().GetSval())
	}
	return out
}

// nameOf is a possibly qualified name as a list of String nodes.
func nameOf(nodes []*pg.Node) plan.Name {
	switch s := stringsOf(nodes); len(s) {
	case 0:
		return plan.Name{}
	case 1:
		return plan.Name{Name: s[0]}
	default:
		return plan.Name{Schema: s[len(s)-2], Name: s[len(s)-1]}
	}
}
