package differential

import (
	"fmt"
	"strings"
)

// generator makes random statements from choices that intn gives. It prefers few
// keys and joins on keys, so that many statements can be proved.
type generator struct {
	intn   func(n int) int
	alias  int
	focus  map[string]string // the literal of each type that keys mostly have
	bound  bool              // values are parameters now and then
	params []param
	form   string // what kind of statement it is, for the figures
}

// param is a parameter: its declared type or 0, and the values of two executions.
type param struct {
	oid         uint32
	text, again string
}

// source is a table under its alias, or something with such columns.
type source struct {
	alias string
	table
}

func (g *generator) pick(list ...string) string { return list[g.intn(len(list))] }

func (g *generator) chance(percent int) bool { return g.intn(100) >= 100-percent }

func (g *generator) name(prefix string) string {
	g.alias++
	return fmt.Sprintf("%s%d", prefix, g.alias)
}

// text is a value's text of a type, without quotes.
func (g *generator) text(typ string) string {
	switch typ {
	case "int":
		return fmt.Sprint((g.intn(14) + 5) % 14)
	case "num":
		return g.pick(numbers...)
	case "bool":
		return g.pick("t", "f")
	case "date":
		return fmt.Sprintf("2024-01-0%d", 1+g.intn(5))
	case "ts":
		return fmt.Sprintf("2024-01-0%d 10:00:00", 1+g.intn(4))
	case "float":
		return g.pick(floats...)
	case "json":
		return fmt.Sprintf(`{"k": %d}`, g.intn(3))
	case "arr":
		return fmt.Sprintf("{%d,%d}", g.intn(4), g.intn(4))
	}
	return g.pick(texts...)
}

// sqlTypes are the names of the generator's types, and the types a parameter may be
// declared as.
var sqlTypes = map[string]string{"int": "int", "num": "numeric", "bool": "bool", "date": "date", "ts": "timestamp", "float": "float8", "json": "jsonb", "arr": "int[]", "text": "text"}
var declared = map[string][]uint32{"int": {0, 0, 0, 23, 20, 21}, "num": {0, 1700}, "bool": {0, 16}, "date": {0, 1082}, "ts": {0, 1114}, "float": {0, 701}, "json": {0, 3802}, "arr": {0, 1007}, "text": {0, 0, 25, 1043}}

// value writes a value of a type: a literal, cast or not, or a parameter.
func (g *generator) value(typ, text string, cast bool) string {
	if g.bound && g.chance(60) {
		again := text
		if g.chance(60) {
			again = g.text(typ)
		}
		g.params = append(g.params, param{declared[typ][g.intn(len(declared[typ]))], text, again})
		p := fmt.Sprintf("$%d", len(g.params))
		if cast || g.chance(20) {
			p += "::" + sqlTypes[typ]
		}
		return p
	}
	if typ == "int" || typ == "num" && text != "NaN" {
		return g.pick(text, text, text, "'"+text+"'::"+sqlTypes[typ])
	}
	if cast || typ != "text" || g.chance(20) {
		return "'" + text + "'::" + sqlTypes[typ]
	}
	return "'" + text + "'"
}

func (g *generator) literal(typ string) string { return g.value(typ, g.text(typ), true) }

// keyText is the text of a key's value, mostly the statement's own one.
func (g *generator) keyText(typ string) string {
	if g.focus[typ] == "" || g.chance(35) {
		t := g.text(typ)
		if g.focus[typ] == "" {
			g.focus[typ] = t
		}
		return t
	}
	return g.focus[typ]
}

// column is a column of a type in scope, "" where there is none.
func (g *generator) column(scope []source, typ string, clear bool) string {
	var all []string
	for _, s := range scope {
		for _, c := range s.cols {
			if c.typ == typ && !(clear && c.blurry) {
				all = append(all, s.alias+"."+c.name)
			}
		}
	}
	if len(all) == 0 {
		return ""
	}
	return g.pick(all...)
}

// anyColumn is a column in scope and its type; clear: not a blurry one.
func (g *generator) anyColumn(scope []source, clear bool) (name, typ string) {
	var all []column
	for _, s := range scope {
		for _, c := range s.cols {
			if !clear || !c.blurry {
				all = append(all, column{s.alias + "." + c.name, c.typ, false})
			}
		}
	}
	if len(all) == 0 {
		return "1", "int"
	}
	c := all[g.intn(len(all))]
	return c.name, c.typ
}

// expr is an expression of a type that is never blurry.
func (g *generator) expr(typ string, scope []source, depth int) string {
	c := g.column(scope, typ, true)
	if c == "" {
		c = g.literal(typ)
	}
	if depth <= 0 || g.chance(60) {
		return c
	}
	d := g.expr(typ, scope, depth-1)
	switch g.intn(7) {
	case 0:
		return "coalesce(" + c + ", " + d + ")"
	case 1:
		return "CASE WHEN " + g.condition(scope, scope, depth-1) + " THEN " + c + " ELSE " + d + " END"
	case 2:
		return "nullif(" + c + ", " + d + ")"
	case 3:
		return "(" + g.scalar(typ, scope, depth-1) + ")"
	}
	switch typ {
	case "int":
		return g.pick("("+c+" + "+d+")", "("+c+" * 2)", "abs("+c+")", "length("+g.expr("text", scope, 0)+")", "(- "+c+")", "("+c+" % 3)")
	case "text":
		return g.pick("("+c+" || "+d+")", "upper("+c+")", "("+g.expr("int", scope, 0)+")::text", "lpad("+c+", 3, 'x')", "("+c+" COLLATE \"C\")")
	case "num":
		return g.pick("("+c+" + 1.50)", "round("+c+", 1)", g.expr("int", scope, 0)+"::numeric(8,2)")
	case "float":
		return g.pick("("+c+" * 2)", "abs("+c+")", g.expr("int", scope, 0)+"::float8")
	case "date":
		return g.pick("("+c+" + 1)", "greatest("+c+", "+d+")")
	case "json":
		return g.pick("("+c+" -> 'l')", "("+c+" || '{\"z\": 1}')", "to_jsonb("+g.expr("int", scope, 0)+")", "jsonb_build_object('a', "+g.expr("text", scope, 0)+")")
	case "arr":
		return g.pick("("+c+" || 1)", "ARRAY["+g.expr("int", scope, 0)+"::int, 2]", "array_remove("+c+", 1)")
	case "bool":
		return "(" + g.condition(scope, scope, depth-1) + ")"
	}
	return d
}

var comparable = []string{"int", "int", "int", "text", "text", "num", "date", "ts", "float", "json", "arr", "bool"}

// condition is a condition on what is in scope; inner are the sources of this level.
func (g *generator) condition(inner, scope []source, depth int) string {
	s := inner[g.intn(len(inner))]
	if len(s.key) > 0 && g.chance(35) {
		return g.keyCondition(s, scope, depth)
	}
	typ := g.pick(comparable...)
	a := g.column(scope, typ, false)
	if a == "" {
		typ, a = "int", g.expr("int", scope, 0)
	}
	switch g.intn(13) {
	case 0:
		return "(" + g.condition(inner, scope, depth) + " OR " + g.condition(inner, scope, depth) + ")"
	case 1:
		return "(" + g.condition(inner, scope, depth) + " AND " + g.condition(inner, scope, depth) + ")"
	case 2:
		return g.pick("NOT (", "NOT coalesce(") + g.condition(inner, scope, depth) + g.pick(")", ")") + g.pick("", " IS TRUE", " IS NOT FALSE")
	case 3:
		return a + g.pick(" IS NULL", " IS NOT NULL")
	case 4:
		return a + g.pick(" IN (", " NOT IN (") + g.literal(typ) + ", " + g.literal(typ) + g.pick("", ", NULL") + ")"
	case 5:
		return a + g.pick(" BETWEEN ", " NOT BETWEEN ") + g.literal(typ) + " AND " + g.literal(typ)
	case 6:
		return a + g.pick(" IS DISTINCT FROM ", " IS NOT DISTINCT FROM ") + g.expr(typ, scope, 0)
	case 7:
		return g.expr("text", scope, 0) + g.pick(" LIKE 'a%'", " ILIKE 'A_'", " ~ '^[a-b]'", " SIMILAR TO '(a|b)%'", " = 'a'::char(3)")
	case 8:
		if j := g.column(scope, "json", true); j != "" {
			return g.pick(j+" ->> 'k' = '1'", j+` @> '{"k": 1}'`, j+" ? 'l'", "("+j+" ->> 'k')::int > 0")
		}
		return "(" + g.expr("int", scope, 0) + ", " + g.expr("int", scope, 0) + ")" + g.pick(" = ", " < ", " <> ") + "(" + g.literal("int") + ", " + g.expr("int", scope, 0) + ")"
	case 9, 10:
		if depth > 0 {
			return g.subcondition(scope, depth-1)
		}
	}
	return a + g.pick(" = ", " = ", " < ", " >= ", " <> ") + g.expr(typ, scope, 1)
}

// subcondition is a condition with a subquery.
func (g *generator) subcondition(scope []source, depth int) string {
	switch g.intn(4) {
	case 0, 1:
		return g.pick("", "", "NOT ") + "EXISTS (" + g.subquery("", scope, depth) + ")"
	case 2:
		a, typ := g.anyColumn(scope, false)
		return a + g.pick(" IN (", " IN (", " NOT IN (", " = ANY (", " <> ALL (", " < ANY (") + g.subquery(typ, scope, depth) + ")"
	}
	typ := g.pick("int", "int", "text")
	return g.expr(typ, scope, 0) + g.pick(" = ", " <= ") + "(" + g.scalar(typ, scope, depth) + ")"
}

// keyCondition is a condition on the shard key of s, in one of the many ways it can
// be said; some of them prove nothing.
func (g *generator) keyCondition(s source, scope []source, depth int) string {
	if len(s.key) == 2 {
		return g.pairCondition(s)
	}
	name := s.key[0]
	k, typ := s.alias+"."+name, ""
	for _, c := range s.cols {
		if c.name == name {
			typ = c.typ
		}
	}
	t, t2 := g.keyText(typ), g.keyText(typ)
	v, w := g.value(typ, t, false), g.value(typ, t2, false)
	if g.chance(45) {
		return g.pick(k+" = "+v, k+" = "+v, v+" = "+k)
	}
	switch g.intn(16) {
	case 0:
		return k + " IN (" + v + ", " + w + g.pick("", ", NULL") + ")"
	case 1:
		return "(" + k + " = " + v + " OR " + k + " = " + w + ")"
	case 2:
		return k + " = ANY (" + g.pick("ARRAY["+v+", "+w+"]", "'{"+quoted(t)+","+quoted(t2)+"}'", "'{"+quoted(t)+",NULL}'::"+sqlTypes[typ]+"[]", "(VALUES ("+v+"), ("+w+"))") + ")"
	case 3:
		return "(" + k + ", 1) = (" + v + ", 1)"
	case 4:
		return k + " BETWEEN " + v + " AND " + v
	case 5:
		return "NOT (" + k + " <> " + v + ")"
	case 6:
		return k + " IS NOT DISTINCT FROM " + v
	case 7:
		return k + g.pick(" = NULL", " = (SELECT "+v+")", " = ALL (ARRAY["+v+"])", " OPERATOR(pg_catalog.=) "+v, " >= "+v, " <> "+v, " IS NOT NULL")
	case 8:
		return "(" + k + " = " + v + " AND " + g.condition([]source{s}, scope, depth) + ")"
	case 9:
		return "(" + k + " = " + v + " OR " + g.condition([]source{s}, scope, 0) + ")"
	case 10:
		return "(" + k + " = " + v + ") IS " + g.pick("TRUE", "NOT FALSE", "NOT NULL")
	}
	if typ == "text" {
		q := "'" + t + "'"
		return k + " = " + g.pick(q+"::text", q+"::varchar", q+"::varchar(2)", q+"::char(3)", q+"::bpchar", q+`::"char"`, q+"::name", "E"+q, "U&"+q, "$q$"+t+"$q$", "lower("+q+")",
			q+" || ''", q+` COLLATE "C"`, "CAST("+q+" AS text)", "text "+q, "10::text")
	}
	if typ == "num" {
		return k + " = " + g.pick("1", "1.0", "1.000", "10e-1", "'1.50'", "1.5::numeric(8,4)", "1.5::float8", "'NaN'", "'NaN'::float8", "-2.25", "- 2.25", "2::int", "'2'::bigint", "1.4999::numeric(8,1)", "'infinity'")
	}
	return k + " = " + g.pick(t+".0", t+"e0", t+"::numeric", t+"::float8", t+"::int2", t+"::bigint", "'"+t+"'", "' "+t+" '", "00"+t, "+"+t, "-"+t, "- "+t, "-(-"+t+")", t+".4", "("+t+" + 0)",
		"abs("+t+")", "99999999999", "CAST('"+t+"' AS int)", "int '"+t+"'", "'"+t+"'::numeric", t+"::bigint::int", "("+t+")", "(SELECT max(code) FROM r)", "1.6::int", "'"+t+"'::text::int")
}

// quoted is an array element.
func quoted(s string) string { return `"` + s + `"` }

// pairCondition is a condition on the two columns of a key.
func (g *generator) pairCondition(s source) string {
	a, b := s.alias+"."+s.key[0], s.alias+"."+s.key[1]
	av, bv := g.value("int", fmt.Sprint(g.intn(4)), false), g.value("text", g.keyText("text"), false)
	aw := g.value("int", fmt.Sprint(g.intn(4)), false)
	return g.pick(
		a+" = "+av+" AND "+b+" = "+bv, "("+a+", "+b+") = ("+av+", "+bv+")", a+" = "+av,
		a+" IN ("+av+", "+aw+") AND "+b+" = "+bv, "("+a+", "+b+") IN (("+av+", "+bv+"), ("+aw+", 'a'))",
		"("+b+", "+a+") = ('a', "+av+")", "("+a+" = "+av+" AND "+b+" = 'b' OR "+a+" = "+aw+" AND "+b+" IN ('a', 'ab'))",
		b+" = ANY ('{a,b}') AND "+a+" = "+av, "ROW("+a+", "+b+") = ROW("+av+", 'ab')", "("+a+", "+b+") >= ("+av+", 'a')")
}

// scalar is a subquery of one row.
func (g *generator) scalar(typ string, scope []source, depth int) string {
	from, inner := g.from(0)
	where := g.tied(inner, scope, depth)
	agg := g.pick("max", "min")
	switch typ {
	case "int":
		agg = g.pick("max", "min", "count", "sum")
	case "json", "arr", "bool":
		return "SELECT " + g.literal(typ)
	case "text":
		if g.chance(30) {
			e := g.expr("text", inner, 0)
			return "SELECT string_agg(" + e + ", ',' ORDER BY " + e + ") FROM " + from + where
		}
	}
	return "SELECT " + agg + "(" + g.expr(typ, inner, 0) + ") FROM " + from + where
}

// subquery gives rows of one column of a type ("": any).
func (g *generator) subquery(typ string, scope []source, depth int) string {
	from, inner := g.from(g.intn(2))
	out := "1"
	if typ != "" {
		out = g.expr(typ, inner, 0)
		if len(inner[0].key) > 0 && g.chance(60) {
			if k := g.column([]source{{inner[0].alias, table{cols: inner[0].cols[:1]}}}, typ, false); k != "" {
				out = k
			}
		}
	}
	q := "SELECT " + out + " FROM " + from + g.tied(inner, scope, depth)
	if typ != "" && g.chance(15) {
		return q + " ORDER BY 1 LIMIT 3"
	}
	if typ != "" && g.chance(10) {
		return q + " GROUP BY 1"
	}
	return q
}

// tied is a WHERE clause that mostly ties inner sources to outer ones by keys.
func (g *generator) tied(inner, scope []source, depth int) string {
	var conds []string
	if j := g.keyJoin(inner, scope); j != "" && g.chance(70) {
		conds = append(conds, j)
	}
	if len(conds) == 0 || g.chance(50) {
		conds = append(conds, g.condition(inner, append(append([]source{}, inner...), scope...), depth))
	}
	return " WHERE " + strings.Join(conds, " AND ")
}

// keyJoin says that the keys of a source of either side are equal, "" where none can be.
func (g *generator) keyJoin(left, right []source) string {
	l, r := left[g.intn(len(left))], right[g.intn(len(right))]
	kl, kr := l.key, r.key
	if len(kl) == 0 {
		kl = []string{l.cols[0].name}
	}
	if len(kr) == 0 {
		kr = []string{r.cols[0].name}
	}
	if len(kl) != len(kr) {
		return ""
	}
	var out []string
	for i := range kl {
		if l.typeOf(kl[i]) != r.typeOf(kr[i]) {
			return ""
		}
		out = append(out, l.alias+"."+kl[i]+" = "+r.alias+"."+kr[i])
	}
	return strings.Join(out, " AND ")
}

func (t table) typeOf(name string) string {
	for _, c := range t.cols {
		if c.name == name {
			return c.typ
		}
	}
	return ""
}
