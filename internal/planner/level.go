package planner

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// colID is a column of one use of a table. Where a derived table passes a column
// on unchanged, the outer query sees the same colID.
type colID struct {
	table int // index into planner.tables
	name  string
}

// outCol is a column that a FROM item or a query offers by name.
type outCol struct {
	name string
	id   colID
	ok   bool // id is known: the column is a table's own, unchanged
}

// item is a name in a FROM clause.
type item struct {
	alias    string
	cols     []outCol
	complete bool // cols are all of them
	t        *table
	schema   string // for schema.table.column
}

// node is a node of a FROM clause's join tree: a table, a derived table (sub),
// a join, or something without tables (all nil).
type node struct {
	t    *table
	sub  *level
	join *join
}

type join struct {
	kind        pg.JoinType
	left, right *node
	on          []*cond
	subs        []*level // subqueries of the ON clause
}

// level is one query level: a SELECT, or the FROM and WHERE of an UPDATE or
// DELETE. A set operation is a level that has only arms.
type level struct {
	p      *planner
	parent *level
	ctes   map[string]*cte
	items  []*item
	merged map[string]outCol // columns that USING and NATURAL merge
	tree   *node
	where  []*cond
	subs   []*level // subqueries in the level's expressions
	arms   []*level
	out    []outCol
	full   bool // out is complete
	// top: the level is the statement itself, whose aggregates and order are
	// mergeOf's to judge.
	top bool
	// orderAgg: an aggregate's result may depend on the order of its rows.
	orderAgg bool

	stmt   *pg.SelectStmt
	inFrom bool // a function of the FROM clause is being scanned
	// What the level does to the rows that pass WHERE.
	agg, window, grouped, distinct, limited bool
	sampled                                 bool // TABLESAMPLE
	groupKeys                               []colID
	windows                                 []*pg.WindowDef // of the window functions
	settled                                 bool            // a data-modifying WITH query: solved on its own
}

// cte is a WITH query in scope.
type cte struct {
	name      string
	stmt      *pg.CommonTableExpr
	defined   *level
	recursive bool
	open      bool   // its own body is being built: a reference is the recursion
	dml       *level // built data-modifying query
	used      int
}

// plain says that each row of the FROM clause that passes WHERE is one output
// row, whichever other rows there are.
func (l *level) plain() bool {
	return len(l.arms) == 0 && !l.agg && !l.window && !l.grouped && !l.distinct && !l.limited && !l.settled
}

// passes says whether a condition on an output column may be applied to the
// rows of the FROM clause, given the column's identity.
func (l *level) passes(id colID) bool {
	switch {
	case l.limited || l.window || l.settled || len(l.arms) > 0:
		return false
	case l.grouped:
		return slices.Contains(l.groupKeys, id)
	case l.agg:
		return false
	}
	return true // plain, or DISTINCT over whole output rows
}

// lookupCTE finds a WITH query by name.
func (l *level) lookupCTE(name string) *cte {
	for ; l != nil; l = l.parent {
		if c := l.ctes[name]; c != nil {
			return c
		}
	}
	return nil
}

// resolveColumn finds what a column reference means. ok is false where the
// column is not a table's own (or not known); depth is how many levels up it
// was found, -1 where it was not.
func (l *level) resolveColumn(ref *pg.ColumnRef) (id colID, ok bool, depth int) {
	names := make([]string, 0, 3)
	for _, f := range ref.GetFields() {
		s := f.GetString_()
		if s == nil {
			return colID{}, false, -1 // t.*
		}
		names = append(names, s.GetSval())
	}
	for up := 0; l != nil; l, up = l.parent, up+1 {
		var c outCol
		found, stop := false, false
		switch len(names) {
		case 1:
			c, found, stop = l.unqualified(names[0])
		case 2:
			c, found, stop = l.qualified("", names[0], names[1])
		case 3:
			c, found, stop = l.qualified(names[0], names[1], names[2])
		}
		if found || stop {
			return c.id, found && c.ok, up
		}
	}
	return colID{}, false, -1
}

func (l *level) unqualified(name string) (c outCol, found, stop bool) {
	if c, ok := l.merged[name]; ok {
		return c, true, true
	}
	n, open := 0, false
	for _, it := range l.items {
		for _, k := range it.cols {
			if k.name == name {
				c = k
				n++
			}
		}
		open = open || !it.complete
	}
	if n > 1 {
		c.ok = false // ambiguous: PostgreSQL says so
	}
	return c, n > 0, n > 0 || open
}

func (l *level) qualified(schemaName, alias, name string) (c outCol, found, stop bool) {
	for _, it := range l.items {
		if it.alias != alias || schemaName != "" && it.schema != schemaName {
			continue
		}
		for _, k := range it.cols {
			if k.name == name {
				if found {
					k.ok = false
				}
				c, found = k, true
			}
		}
		return c, found, true
	}
	return c, false, false
}

// isSystemColumn says whether a name is one of PostgreSQL's system columns
// (manual 5.5).
func isSystemColumn(name string) bool {
	switch name {
	case "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid":
		return true
	}
	return false
}

// scan walks an expression of level l: it counts parameters, looks at functions
// and builds the subqueries, which it appends to subs.
func (l *level) scan(m proto.Message, subs *[]*level) error {
	var failed error
	walk(m, func(m proto.Message) bool {
		if failed != nil {
			return false
		}
		switch e := m.(type) {
		case *pg.SubLink:
			failed = l.scanSubLink(e, subs)
			return false
		case *pg.SelectStmt:
			var sub *level
			if sub, failed = l.p.buildSelect(e, l); failed == nil {
				*subs = append(*subs, sub)
			}
			return false
		case *pg.ColumnRef:
			l.noteSystem(e)
		case *pg.ParamRef:
			l.p.param(e.GetNumber()).used++
		case *pg.FuncCall:
			failed = l.p.noteFunction(e, l)
		case *pg.SQLValueFunction:
			l.p.noteValueFunction(e)
		case *pg.TypeCast:
			l.p.noteCast(e)
		case *pg.JsonAggConstructor:
			if e.GetOver() != nil {
				l.window, l.windows = true, append(l.windows, e.GetOver())
			}
			for up := l; up != nil; up = up.parent {
				up.agg, up.orderAgg = true, true
			}
		case *pg.CurrentOfExpr:
			l.p.uses.cursor = e.GetCursorName()
		}
		return true
	})
	return failed
}

func (l *level) scanSubLink(e *pg.SubLink, subs *[]*level) error {
	if t := e.GetTestexpr(); t != nil {
		if err := l.scan(t, subs); err != nil {
			return err
		}
	}
	s := e.GetSubselect().GetSelectStmt()
	if s == nil {
		return l.p.refuse(pgerr.UnknownStatement, e.GetLocation(), "the subquery is not a SELECT")
	}
	sub, err := l.p.buildSelect(s, l)
	if err != nil {
		return err
	}
	*subs = append(*subs, sub)
	l.p.sublinks[e] = sub
	return nil
}

// noteSystem records the use of a system column of a table.
func (l *level) noteSystem(ref *pg.ColumnRef) {
	f := ref.GetFields()
	name := f[len(f)-1].GetString_().GetSval()
	if isSystemColumn(name) && l.p.uses.system == "" {
		l.p.uses.system, l.p.uses.systemAt = name, l.p.loc(ref.GetLocation())
	}
}

// scanAll scans several expressions.
func (l *level) scanAll(nodes []*pg.Node, subs *[]*level) error {
	for _, n := range nodes {
		if err := l.scan(n, subs); err != nil {
			return err
		}
	}
	return nil
}

// param is a parameter's record.
func (p *planner) param(n int32) *paramUse {
	u := p.params[n]
	if u == nil {
		u = &paramUse{}
		p.params[n] = u
	}
	return u
}

// loc is a location that means something in the client's text, or -1.
func (p *planner) loc(location int32) int32 {
	if p.views > 0 {
		return -1
	}
	return location
}
