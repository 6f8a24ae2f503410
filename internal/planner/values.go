package planner

import (
	"slices"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/sqltext"
)

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
		if _, err := strconv.ParseInt(text, 10, 64); err != nil && t != sharding.KeyNumeric {
			return s, false // numeric
		}
	case *pg.A_Const_Sval:
		text, isString = v.Sval.GetSval(), true
	default:
		return s, false
	}
	if !isString && t != sharding.KeyInteger && t != sharding.KeyNumeric {
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
	"numeric": 1700, "date": 1082, "timestamp": 1114, "timestamptz": 1184,
}

// arrayTypes are the array types of the whitelist and their elements.
var arrayTypes = map[uint32]uint32{1005: 21, 1007: 23, 1016: 20, 1009: 25, 1015: 1043, 2951: 2950, 1001: 17,
	1231: 1700, 1182: 1082, 1115: 1114, 1185: 1184}

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
