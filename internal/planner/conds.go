package planner

import (
	"slices"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/schema"
	"github.com/sharding-system/sharding/internal/sqltext"
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

// valueFor is the constant or parameter that a column is compared with. ok is
// false where the value's type is not in the whitelist for the column.
func (p *planner) valueFor(a colID, n *pg.Node) ([]plan.Source, bool) {
	c := p.columnAt(a)
	t, ok := p.family(c)
	if !ok {
		return nil, false
	}
	s, ok := p.source(n, t, p.baseType(c.Type))
	if !ok {
		return nil, false
	}
	s.Column, s.Typmod = p.baseType(c.Type), p.typmod(c)
	return []plan.Source{s}, true
}

// source reads a constant or a parameter, cast or not, as a value of family t.
// col is the type that an undeclared parameter takes.
func (p *planner) source(n *pg.Node, t sharding.KeyType, col uint32) (plan.Source, bool) {
	var cast uint32
	for n.GetTypeCast() != nil {
		oid, ok := castType(n.GetTypeCast().GetTypeName())
		if !ok {
			return plan.Source{}, false
		}
		if f, known := sharding.KeyTypeOfOID(oid); !known || f != t {
			return plan.Source{}, false
		}
		cast = oid // the innermost wins: it types the value
		n = n.GetTypeCast().GetArg()
	}
	if c := n.GetAConst(); c != nil {
		return p.constant(c, t)
	}
	ref := n.GetParamRef()
	if ref == nil {
		return plan.Source{}, false
	}
	if cast != 0 {
		col = cast
	}
	return p.parameter(ref.GetNumber(), t, col)
}

// parameter is a parameter as a value of family t; an undeclared one takes type
// inferred.
func (p *planner) parameter(number int32, t sharding.KeyType, inferred uint32) (plan.Source, bool) {
	u := p.param(number)
	s := plan.Source{Kind: plan.Param, Index: int(number) - 1, Type: t, Typmod: -1}
	if d := p.declared(number); d != 0 && d != oidUnknown {
		s.ValueType = d
		f, ok := sharding.KeyTypeOfOID(p.baseType(d))
		return s, ok && f == t
	}
	s.ValueType = inferred
	u.note(inferred)
	return s, true
}

// note records an inference.
func (u *paramUse) note(oid uint32) {
	if u.inferred > 0 && u.oid != oid {
		u.conflict = true
	}
	u.inferred, u.oid, u.route = u.inferred+1, oid, true
}

const oidUnknown = 705

// constant is a constant as a value of family t: a lifted literal by its
// number, another by its value.
func (p *planner) constant(c *pg.A_Const, t sharding.KeyType) (plan.Source, bool) {
	s := plan.Source{Kind: plan.Const, Type: t, Typmod: -1}
	if c.GetIsnull() {
		s.Null = true
		return s, true
	}
	isString := false
	var text string
	switch v := c.GetVal().(type) {
	case *pg.A_Const_Ival:
		text = strconv.Itoa(int(v.Ival.GetIval()))
	case *pg.A_Const_Fval:
		text = v.Fval.GetFval()
		if _, err := strconv.ParseInt(text, 10, 64); err != nil {
			return s, false // numeric
		}
	case *pg.A_Const_Sval:
		text, isString = v.Sval.GetSval(), true
	default:
		return s, false
	}
	if !isString && t != sharding.KeyInteger {
		return s, false
	}
	i, where := p.literalAt(c.GetLocation())
	switch where {
	case lifted:
		s.Kind, s.Index = plan.Literal, i
		return s, true
	case unclear:
		return s, false
	}
	v, err := sharding.ParseValue(t, []byte(text))
	if err != nil {
		// No value of the type: PostgreSQL reports it wherever it runs.
		return s, false
	}
	s.Value = v
	return s, true
}

// literalPlace says whether a constant was lifted.
type literalPlace uint8

const (
	fixed   literalPlace = iota // its text is part of the plan's key
	lifted                      // it is a literal with a number
	unclear                     // a literal stands near, but is not clearly it
)

// literalAt finds the lifted literal that the constant at a location is. The
// parser folds unary minus into a number and gives the sign's location.
func (p *planner) literalAt(location int32) (int, literalPlace) {
	if p.views > 0 {
		return 0, fixed
	}
	if location < 0 {
		return 0, unclear
	}
	if p.in.Lex == nil || !p.lift {
		return 0, fixed
	}
	at := int(location)
	lits := p.in.Lex.Literals
	i, found := slices.BinarySearchFunc(lits, at, func(l sqltext.Literal, at int) int { return l.Start - at })
	if found {
		if lits[i].Negative {
			return 0, unclear
		}
		return i, lifted
	}
	if i > 0 && lits[i-1].End > at {
		return 0, unclear
	}
	if i == len(lits) {
		return 0, fixed
	}
	between := p.in.SQL[at:lits[i].Start]
	sign := false
	for _, c := range []byte(between) {
		switch {
		case c == '-' && !sign:
			sign = true
		case isSpace(c):
		case c == '-' || c == '+' || c == 'e' || c == 'E' || c == 'n' || c == 'N' || c == '(':
			return 0, unclear
		default:
			return 0, fixed
		}
	}
	if sign && lits[i].Negative && lits[i].Class != sqltext.ClassString {
		return i, lifted
	}
	return 0, unclear
}

// castType is the whitelisted type that a cast names; typmods and arrays are
// not in the whitelist.
func castType(t *pg.TypeName) (uint32, bool) {
	if len(t.GetTypmods()) > 0 || len(t.GetArrayBounds()) > 0 || t.GetSetof() || t.GetPctType() {
		return 0, false
	}
	n := nameOf(t.GetNames())
	if n.Schema != "" && n.Schema != "pg_catalog" {
		return 0, false
	}
	oid, ok := builtinTypes[n.Name]
	return oid, ok
}

// builtinTypes are the types whose casts the prover understands, by the names
// that the grammar gives them.
var builtinTypes = map[string]uint32{
	"int2": 21, "int4": 23, "int8": 20, "text": 25, "varchar": 1043, "uuid": 2950, "bytea": 17,
}

// arrayTypes are the array types of the whitelist and their elements.
var arrayTypes = map[uint32]uint32{1005: 21, 1007: 23, 1016: 20, 1009: 25, 1015: 1043, 2951: 2950, 1001: 17}

// arrayOf is the array type of a whitelisted type.
func arrayOf(elem uint32) uint32 {
	for a, e := range arrayTypes {
		if e == elem {
			return a
		}
	}
	return 0
}

// arrayFor is the array parameter or literal that a column is compared with by
// = ANY.
func (p *planner) arrayFor(a colID, n *pg.Node) ([]plan.Source, bool) {
	c := p.columnAt(a)
	t, ok := p.family(c)
	if !ok {
		return nil, false
	}
	elem := p.baseType(c.Type)
	inferred := elem
	for n.GetTypeCast() != nil {
		tn := n.GetTypeCast().GetTypeName()
		if len(tn.GetArrayBounds()) != 1 {
			return nil, false
		}
		oid, ok := castType(&pg.TypeName{Names: tn.GetNames(), Typmods: tn.GetTypmods()})
		if f, known := sharding.KeyTypeOfOID(oid); !ok || !known || f != t {
			return nil, false
		}
		inferred = oid
		n = n.GetTypeCast().GetArg()
	}
	s := plan.Source{Type: t, Column: elem, Typmod: p.typmod(c), ValueType: inferred}
	if arr := n.GetAArrayExpr(); arr != nil {
		var out []plan.Source
		for _, e := range arr.GetElements() {
			v, ok := p.valueFor(a, e)
			if !ok {
				return nil, false
			}
			out = append(out, v...)
		}
		return out, true
	}
	if k := n.GetAConst(); k != nil {
		return p.arrayConstant(k, s)
	}
	ref := n.GetParamRef()
	if ref == nil {
		return nil, false
	}
	s.Kind, s.Index = plan.ParamArray, int(ref.GetNumber())-1
	if d := p.declared(ref.GetNumber()); d != 0 && d != oidUnknown {
		e, known := arrayTypes[d]
		if f, ok := sharding.KeyTypeOfOID(e); !known || !ok || f != t {
			return nil, false
		}
		s.ValueType = e
		return []plan.Source{s}, true
	}
	p.param(ref.GetNumber()).note(arrayOf(inferred))
	return []plan.Source{s}, true
}

// arrayConstant is an array literal: '{1,2}'.
func (p *planner) arrayConstant(k *pg.A_Const, s plan.Source) ([]plan.Source, bool) {
	if k.GetIsnull() {
		return nil, true // no element: no row
	}
	if k.GetSval() == nil {
		return nil, false
	}
	i, where := p.literalAt(k.GetLocation())
	switch where {
	case lifted:
		s.Kind, s.Index = plan.LiteralArray, i
		return []plan.Source{s}, true
	case unclear:
		return nil, false
	}
	var out []plan.Source
	ok := s.EachText(k.GetSval().GetSval(), func(v sharding.Value) {
		out = append(out, plan.Source{Kind: plan.Const, Type: s.Type, Column: s.Column, Typmod: s.Typmod, Value: v.Clone()})
	})
	return out, ok
}
