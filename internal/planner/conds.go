package planner

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
)

// cond is a condition that every row which matters satisfies. It is one of: two
// columns are equal; a column is one of some values; one of several arms holds.
// All are strict: a row with NULL in a named column does not satisfy them.
type cond struct {
	a, b colID // a = b where eq
	eq   bool
	in   []plan.Source // a IN these, where not eq
	arms [][]*cond     // OR, where not nil
}

// mentions says whether the condition names a column for which f is true.
func (c *cond) mentions(f func(colID) bool) bool {
	if c.arms != nil {
		for _, arm := range c.arms {
			for _, d := range arm {
				if d.mentions(f) {
					return true
				}
			}
		}
		return false
	}
	return f(c.a) || c.eq && f(c.b)
}

// conditions are the conjuncts of an expression that the prover understands.
func (l *level) conditions(n *pg.Node) []*cond {
	switch e := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		switch e.BoolExpr.GetBoolop() {
		case pg.BoolExprType_AND_EXPR:
			var out []*cond
			for _, a := range e.BoolExpr.GetArgs() {
				out = append(out, l.conditions(a)...)
			}
			return out
		case pg.BoolExprType_OR_EXPR:
			return l.either(e.BoolExpr.GetArgs())
		}
	case *pg.Node_AExpr:
		return l.comparison(e.AExpr)
	case *pg.Node_SubLink:
		return l.semiJoin(e.SubLink)
	}
	return nil
}

// either is an OR: worth something only if each arm says something.
func (l *level) either(args []*pg.Node) []*cond {
	arms := make([][]*cond, 0, len(args))
	for _, a := range args {
		arm := l.conditions(a)
		if len(arm) == 0 {
			return nil
		}
		arms = append(arms, arm)
	}
	return []*cond{merge(arms)}
}

// merge makes an OR of arms on one column a single list of values.
func merge(arms [][]*cond) *cond {
	first := arms[0][0]
	out := &cond{a: first.a}
	for _, arm := range arms {
		if len(arm) != 1 || arm[0].eq || arm[0].arms != nil || arm[0].a != first.a {
			return &cond{arms: arms}
		}
		out.in = append(out.in, arm[0].in...)
	}
	return out
}

func (l *level) comparison(e *pg.A_Expr) []*cond {
	if !l.p.plainEquals(e.GetName()) {
		return nil
	}
	left, right := e.GetLexpr(), e.GetRexpr()
	switch e.GetKind() {
	case pg.A_Expr_Kind_AEXPR_OP:
		if lr, rr := left.GetRowExpr(), right.GetRowExpr(); lr != nil || rr != nil {
			return l.rowsEqual(lr, rr)
		}
		return l.equals(left, right)
	case pg.A_Expr_Kind_AEXPR_IN:
		return l.inList(left, right.GetList().GetItems())
	case pg.A_Expr_Kind_AEXPR_OP_ANY:
		return l.anyOf(left, right)
	}
	return nil
}

// rowsEqual is (a, b) = (1, 2).
func (l *level) rowsEqual(left, right *pg.RowExpr) []*cond {
	if left == nil || right == nil || len(left.GetArgs()) != len(right.GetArgs()) {
		return nil
	}
	var out []*cond
	for i := range left.GetArgs() {
		out = append(out, l.equals(left.GetArgs()[i], right.GetArgs()[i])...)
	}
	return out
}

// equals is column = column, column = value or value = column.
func (l *level) equals(x, y *pg.Node) []*cond {
	a, aok := l.columnOf(x)
	b, bok := l.columnOf(y)
	switch {
	case aok && bok:
		if c := l.p.equal(a, b); c != nil {
			return []*cond{c}
		}
	case aok:
		if s, ok := l.p.valueFor(a, y); ok {
			return []*cond{{a: a, in: s}}
		}
	case bok:
		if s, ok := l.p.valueFor(b, x); ok {
			return []*cond{{a: b, in: s}}
		}
	}
	return nil
}

// columnOf is the table column that an expression is.
func (l *level) columnOf(n *pg.Node) (colID, bool) {
	ref := n.GetColumnRef()
	if ref == nil {
		return colID{}, false
	}
	id, ok, _ := l.resolveColumn(ref)
	return id, ok
}

// equal is the equality of two columns, nil where their types' "=" does not
// mean that both hash alike.
func (p *planner) equal(a, b colID) *cond {
	fa, aok := p.family(p.columnAt(a))
	fb, bok := p.family(p.columnAt(b))
	if !aok || !bok || fa != fb {
		return nil
	}
	return &cond{a: a, b: b, eq: true}
}

// columnAt is the schema's column of an identity.
func (p *planner) columnAt(id colID) *schema.Column {
	if id.table >= len(p.tables) {
		return nil
	}
	return column(p.tables[id.table].rel, id.name)
}

// inList is column IN (values) or (a, b) IN ((1, 2), (3, 4)).
func (l *level) inList(left *pg.Node, items []*pg.Node) []*cond {
	if row := left.GetRowExpr(); row != nil {
		var arms [][]*cond
		for _, it := range items {
			arm := l.rowsEqual(row, it.GetRowExpr())
			if len(arm) == 0 {
				return nil
			}
			arms = append(arms, arm)
		}
		if len(arms) == 0 {
			return nil
		}
		return []*cond{merge(arms)}
	}
	a, ok := l.columnOf(left)
	if !ok {
		return nil
	}
	c := &cond{a: a}
	for _, it := range items {
		s, ok := l.p.valueFor(a, it)
		if !ok {
			return nil
		}
		c.in = append(c.in, s...)
	}
	return []*cond{c}
}

// anyOf is column = ANY (array).
func (l *level) anyOf(left, right *pg.Node) []*cond {
	a, ok := l.columnOf(left)
	if !ok {
		return nil
	}
	if arr := right.GetAArrayExpr(); arr != nil {
		return l.inList(left, arr.GetElements())
	}
	if s, ok := l.p.arrayFor(a, right); ok {
		return []*cond{{a: a, in: s}}
	}
	return nil
}

// semiJoin is column IN (SELECT ...) as a conjunct, or EXISTS: some row of the
// subquery equals the column and satisfies the subquery's own conditions.
func (l *level) semiJoin(e *pg.SubLink) []*cond {
	sub := l.p.sublinks[e]
	if sub == nil || len(sub.arms) > 0 {
		return nil
	}
	switch e.GetSubLinkType() {
	case pg.SubLinkType_EXISTS_SUBLINK:
		if sub.agg && !sub.grouped {
			return nil // one row whatever there is
		}
		return nil
	case pg.SubLinkType_ANY_SUBLINK:
	default:
		return nil
	}
	if len(e.GetOperName()) > 0 && !l.p.plainEquals(e.GetOperName()) {
		return nil
	}
	tests := []*pg.Node{e.GetTestexpr()}
	if row := e.GetTestexpr().GetRowExpr(); row != nil {
		tests = row.GetArgs()
	}
	if len(tests) != len(sub.out) {
		return nil
	}
	var out []*cond
	for i, t := range tests {
		if a, ok := l.columnOf(t); ok && sub.out[i].ok {
			if c := l.p.equal(a, sub.out[i].id); c != nil {
				out = append(out, c)
			}
		}
	}
	if len(out) > 0 {
		out = append(out, sub.where...)
		out = append(out, sub.tree.float()...)
	}
	return out
}
