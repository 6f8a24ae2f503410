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

// definition is a table being created or changed, as far as its declaration is
// concerned.
type definition struct {
	p    *planner
	rv   *pg.RangeVar
	name plan.Name
	decl sharding.Table
	cols []defColumn
	// byDefault: the key is the keyspace's default_key.
	byDefault bool
}

// defColumn is a column of a definition.
type defColumn struct {
	name      string
	typ       uint32 // base type's OID, 0 unknown
	collation bool   // has a collation that is not known to be deterministic
	generated bool
}

// createTable plans CREATE TABLE: the table's kind comes from its WITH options,
// from what the operator declared beforehand, from its parent, or from the
// keyspace's default key; it is global otherwise.
func (p *planner) createTable(s *pg.CreateStmt) error {
	p.p.Command = "CREATE TABLE"
	rv := s.GetRelation()
	if p.createsTemporary(rv) {
		return p.createTemporaryTable(s)
	}
	d := &definition{p: p, rv: rv, name: p.newName(rv)}
	d.decl = sharding.Table{Schema: d.name.Schema, Name: d.name.Name, Kind: sharding.Global, DeclaredBy: "ddl"}
	if err := d.columns(s); err != nil {
		return err
	}
	parent, err := d.parent(s)
	if err != nil {
		return err
	}
	options, err := p.shardingOptions(s.GetOptions())
	if err != nil {
		return err
	}
	if err := d.kind(options, parent); err != nil {
		return d.blame(err)
	}
	p.cutOptions(options, len(s.GetOptions()))
	if err := d.checkKey(); err != nil {
		return d.blame(err)
	}
	if err := d.constraints(s); err != nil {
		return d.blame(err)
	}
	if err := p.checkExpressions(s); err != nil {
		return err
	}
	if parent == nil {
		p.p.DDL.Declare = []plan.Declaration{{Table: d.decl, IfNotExists: s.GetIfNotExists()}}
	}
	p.prove("%s table %s", d.decl.Kind, d.name.Name)
	return nil
}

// checkExpressions refuses defaults and checks that call what no router can
// read.
func (p *planner) checkExpressions(s *pg.CreateStmt) error {
	l := &level{p: p, merged: map[string]outCol{}}
	err := l.scan(&pg.CreateStmt{TableElts: s.GetTableElts(), Constraints: s.GetConstraints()}, &l.subs)
	p.p.NowEdits = nil
	if err != nil {
		return err
	}
	if p.uses.user != "" && (p.in.Keyspace.sharded() || len(p.p.DDL.Declare) > 0 && p.p.DDL.Declare[0].Table.Kind != sharding.Global) {
		return p.refuse(pgerr.UserFunction, p.uses.userAt, "function %s is not IMMUTABLE", p.uses.user)
	}
	return nil
}

// columns collects the columns that the statement gives the table.
func (d *definition) columns(s *pg.CreateStmt) error {
	for _, n := range s.GetInhRelations() {
		t, err := d.p.named(n.GetRangeVar())
		if err != nil {
			return err
		}
		t.solved, t.unread = true, true
		d.inherit(t.rel)
	}
	for _, n := range s.GetTableElts() {
		switch e := n.GetNode().(type) {
		case *pg.Node_ColumnDef:
			d.cols = append(d.cols, d.p.defColumn(e.ColumnDef))
		case *pg.Node_TableLikeClause:
			t, err := d.p.resolve(e.TableLikeClause.GetRelation())
			if err != nil {
				return err
			}
			t.solved, t.unread = true, true
			d.inherit(t.rel)
		}
	}
	return nil
}

// inherit takes the columns of an existing table.
func (d *definition) inherit(r *schema.Relation) {
	if r == nil {
		return
	}
	for _, c := range r.Columns {
		d.cols = append(d.cols, defColumn{c.Name, d.p.baseType(c.Type), !d.p.deterministic(c.Collation), c.Generated != ""})
	}
}

// defColumn reads a column's definition.
func (p *planner) defColumn(c *pg.ColumnDef) defColumn {
	out := defColumn{name: c.GetColname(), typ: p.typeNamed(c.GetTypeName())}
	if cc := c.GetCollClause(); cc != nil {
		n := nameOf(cc.GetCollname())
		out.collation = !contains([]string{"C", "POSIX", "default", "ucs_basic"}, n.Name)
		for _, k := range p.in.Schema.Collations {
			if k.Name == n.Name && k.Deterministic {
				out.collation = false
			}
		}
	}
	for _, n := range c.GetConstraints() {
		if n.GetConstraint().GetContype() == pg.ConstrType_CONSTR_GENERATED {
			out.generated = true
		}
	}
	return out
}

// typeNamed is the base type that a type's name means, 0 where it is no key
// type.
func (p *planner) typeNamed(t *pg.TypeName) uint32 {
	if len(t.GetArrayBounds()) > 0 {
		return 0
	}
	if oid, ok := castType(&pg.TypeName{Names: t.GetNames()}); ok {
		return oid
	}
	n := nameOf(t.GetNames())
	switch n.Name {
	case "serial", "serial4":
		return oidInt4
	case "bigserial", "serial8":
		return oidInt8
	case "smallserial", "serial2":
		return oidInt2
	}
	for _, k := range p.in.Schema.Types {
		if k.Name == n.Name && k.Kind == "d" && (n.Schema == "" || n.Schema == k.Schema) {
			return p.baseType(k.OID)
		}
	}
	return 0
}

// parent is the declaration of the table that a partition or an inheritance
// child belongs to, nil where there is none.
func (d *definition) parent(s *pg.CreateStmt) (*sharding.Table, error) {
	var out *sharding.Table
	for _, n := range s.GetInhRelations() {
		rv := n.GetRangeVar()
		r := d.p.relation(plan.Name{Schema: rv.GetSchemaname(), Name: rv.GetRelname()})
		if r == nil {
			continue
		}
		decl := d.p.declaration(r)
		if out != nil && (out.Kind != decl.Kind || !slices.Equal(out.Key, decl.Key)) {
			return nil, d.p.refuse(pgerr.KeyDefinition, rv.GetLocation(), "the parents of table %s are placed differently", d.name.Name)
		}
		out = &decl
	}
	return out, nil
}

// shardingOption is an option of ours in a WITH or SET list.
type shardingOption struct {
	name, value string
	index       int // among all options
	location    int32
}

// shardingOptions picks out the options in the sharding. namespace.
func (p *planner) shardingOptions(list []*pg.Node) ([]shardingOption, error) {
	var out []shardingOption
	for i, n := range list {
		e := n.GetDefElem()
		if e.GetDefnamespace() != "sharding" {
			continue
		}
		o := shardingOption{lower(e.GetDefname()), argText(e.GetArg()), i, e.GetLocation()}
		if o.name != "key" && o.name != "kind" {
			return nil, pgerr.New(pgerr.InvalidParameterValue, "unrecognized parameter \"sharding.%s\"", o.name).
				WithHint("The parameters are sharding.key and sharding.kind.").WithPosition(p.at(o.location))
		}
		out = append(out, o)
	}
	return out, nil
}

// kind decides the table's kind and key.
func (d *definition) kind(options []shardingOption, parent *sharding.Table) error {
	declared, known := d.p.in.Keyspace.Tables[d.name.Schema+"."+d.name.Name]
	if parent != nil {
		if len(options) > 0 {
			return d.p.refuse(pgerr.KeyDefinition, options[0].location, "table %s is placed as its parent is", d.name.Name)
		}
		d.decl.Kind, d.decl.Key = parent.Kind, parent.Key
		return nil
	}
	if len(options) == 0 {
		if known {
			d.decl = declared
			return nil
		}
		return d.defaultKey()
	}
	if err := d.options(options); err != nil {
		return err
	}
	if known && declared.DeclaredBy == "operator" && (declared.Kind != d.decl.Kind || !slices.Equal(declared.Key, d.decl.Key)) {
		return d.p.refuse(pgerr.KeyDefinition, options[0].location, "table %s is declared otherwise by the operator (%s)", d.name.Name, describeKind(declared))
	}
	return nil
}

// options applies sharding.key and sharding.kind.
func (d *definition) options(options []shardingOption) error {
	kind := sharding.TableKind(0)
	for _, o := range options {
		if o.name == "kind" {
			k, err := sharding.ParseTableKind(o.value)
			if err != nil {
				return pgerr.New(pgerr.InvalidParameterValue, "%s", err).WithPosition(d.p.at(o.location))
			}
			kind = k
			continue
		}
		for _, name := range strings.Split(o.value, ",") {
			name = strings.TrimSpace(name)
			c := d.column(name)
			if c == nil {
				return d.p.refuse(pgerr.KeyDefinition, o.location, "table %s has no column \"%s\"", d.name.Name, name)
			}
			t, ok := sharding.KeyTypeOfOID(c.typ)
			if !ok {
				return d.p.refuse(pgerr.KeyDefinition, o.location, "column %s of table %s has a type that cannot be a shard key", name, d.name.Name)
			}
			d.decl.Key = append(d.decl.Key, sharding.KeyColumn{Name: name, Type: t})
		}
	}
	switch {
	case kind == 0 && len(d.decl.Key) > 0:
		kind = sharding.Sharded
	case kind == sharding.Sharded && len(d.decl.Key) == 0:
		return d.p.refuse(pgerr.KeyDefinition, options[0].location, "table %s is sharded without a key", d.name.Name)
	case kind != sharding.Sharded && len(d.decl.Key) > 0:
		return d.p.refuse(pgerr.KeyDefinition, options[0].location, "a %s table has no shard key", kind)
	}
	d.decl.Kind = kind
	return nil
}

func (d *definition) column(name string) *defColumn {
	for i := range d.cols {
		if d.cols[i].name == name {
			return &d.cols[i]
		}
	}
	return nil
}

// checkKey checks the key's columns against the declaration.
func (d *definition) checkKey() error {
	if d.decl.Kind != sharding.Sharded {
		return nil
	}
	at := d.rv.GetLocation()
	for _, k := range d.decl.Key {
		c := d.column(k.Name)
		if c == nil {
			return d.p.refuse(pgerr.KeyDefinition, at, "table %s has no column \"%s\", which is its shard key", d.name.Name, k.Name)
		}
		t, ok := sharding.KeyTypeOfOID(c.typ)
		switch {
		case !ok || t != k.Type:
			return d.p.refuse(pgerr.KeyDefinition, at, "shard key column %s of table %s is declared as %s", k.Name, d.name.Name, k.Type)
		case c.collation:
			return d.p.refuse(pgerr.KeyDefinition, at, "shard key column %s of table %s has a collation that is not known to be deterministic", k.Name, d.name.Name)
		case c.generated:
			return d.p.refuse(pgerr.GeneratedKey, at, "shard key column %s of table %s is a generated column", k.Name, d.name.Name)
		}
	}
	return nil
}

// cutOptions takes our options out of the text of a WITH list of n options, the
// whole WITH (...) where nothing is left.
func (p *planner) cutOptions(options []shardingOption, n int) {
	if len(options) == 0 {
		return
	}
	first := p.tokenAt(int(options[0].location))
	open := first
	for depth := 0; open > 0; open-- { // back to the parenthesis that opens the list
		w := p.word(open)
		if w == ")" {
			depth++
		} else if w == "(" {
			if depth == 0 {
				break
			}
			depth--
		}
	}
	end := p.closing(open)
	if end < 0 {
		return
	}
	if len(options) == n {
		start, stop := p.span(open-1, end)
		p.p.Edits = append(p.p.Edits, plan.Edit{Start: start, End: stop})
		return
	}
	p.cutItems(options, open, end)
}

// cutItems takes single items out of the list between two parentheses.
func (p *planner) cutItems(options []shardingOption, open, end int) {
	var commas []int
	depth := 0
	for i := open; i <= end; i++ {
		switch p.word(i) {
		case "(":
			depth++
		case ")":
			depth--
		case ",":
			if depth == 1 {
				commas = append(commas, i)
			}
		}
	}
	bounds := append(append([]int{open}, commas...), end)
	gone := map[int]bool{}
	for _, o := range options {
		gone[o.index] = true
	}
	kept := false
	for i := 0; i+1 < len(bounds); i++ {
		if !gone[i] {
			kept = true
			continue
		}
		// With what is kept before it, an item goes with the comma before it;
		// at the front, with the comma behind it.
		from, to := bounds[i]+1, bounds[i+1]
		if kept {
			from, to = bounds[i], bounds[i+1]-1
		}
		start, stop := p.span(from, to)
		p.p.Edits = append(p.p.Edits, plan.Edit{Start: start, End: stop})
	}
}
