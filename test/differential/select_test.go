package differential

import (
	"fmt"
	"slices"
	"strings"
)

// statement is a random statement and how its answer is to be compared.
type statement struct {
	sql     string
	ordered bool   // the rows' order is certain
	all     string // any rows of this query's are right
	target  string // the table it writes, "" for a query
}

// source picks a table; near is a table that it should be colocated with.
func (g *generator) source(near *table) source {
	t := tables[g.intn(len(tables))]
	if near != nil && g.chance(70) {
		for range 6 {
			if len(t.key) == len(near.key) && (len(t.key) == 0 || t.typeOf(t.key[0]) == near.typeOf(near.key[0])) {
				break
			}
			t = tables[g.intn(len(tables))]
		}
	}
	if t.kind == "global" && g.chance(80) {
		t = tables[0]
	}
	return source{g.name("t"), t}
}

// from is a FROM item with its sources.
func (g *generator) from(depth int) (string, []source) { return g.fromNear(depth, nil) }

func (g *generator) fromNear(depth int, near *table) (string, []source) {
	s := g.source(near)
	switch {
	case depth <= 0 || g.chance(35):
		return s.name + " " + s.alias, []source{s}
	case g.chance(25):
		return g.derived(s)
	case g.chance(8):
		a := g.name("f")
		return g.pick("generate_series(1, 4) "+a+"(n)", "(VALUES (1), (3), (5)) "+a+"(n)", "unnest('{2,3}'::int[]) "+a+"(n)"), []source{{a, table{cols: cols("n:int")}}}
	}
	l, ls := g.fromNear(depth-1, near)
	r, rs := g.fromNear(depth-1, &ls[0].table)
	if ls[0].name == "u" && rs[0].name == "v" && len(ls)+len(rs) == 2 && g.chance(50) {
		return l + g.pick(" JOIN ", " LEFT JOIN ", " FULL JOIN ") + r + " USING (name)", append(ls, rs...)
	}
	both := append(append([]source{}, ls...), rs...)
	on := g.keyJoin(ls, rs)
	switch {
	case on == "" || g.chance(15):
		on = g.condition(both, both, 0)
	case g.chance(30):
		on += " AND " + g.condition(both, both, 0)
	}
	if g.chance(5) {
		return "(" + l + " CROSS JOIN " + r + ")", both
	}
	if g.chance(10) {
		return g.lateral(l, ls)
	}
	return "(" + l + g.pick(" JOIN ", " JOIN ", " JOIN ", " LEFT JOIN ", " LEFT JOIN ", " RIGHT JOIN ", " FULL JOIN ") + r + " ON " + on + ")", both
}

// derived is a derived table over s.
func (g *generator) derived(s source) (string, []source) {
	in := source{s.name, s.table}
	where := ""
	if g.chance(50) {
		where = " WHERE " + g.condition([]source{in}, []source{in}, 0)
	}
	first := s.cols[0]
	grouped := source{s.alias, table{name: "?", cols: []column{first, {"q", "int", false}}}}
	if len(s.key) == 1 {
		grouped.key = s.key
	}
	switch g.intn(6) {
	case 0:
		return "(SELECT " + first.name + ", count(*)::int AS q FROM " + s.name + where + " GROUP BY " + first.name + ") " + s.alias, []source{grouped}
	case 1:
		return "(SELECT " + first.name + ", (rank() OVER (" + g.pick("", "PARTITION BY "+first.name) + " ORDER BY x))::int AS q FROM " + s.name + where + ") " + s.alias, g.withX(s, grouped)
	case 2:
		return "(SELECT DISTINCT " + first.name + ", 1 AS q FROM " + s.name + where + ") " + s.alias, []source{grouped}
	}
	return "(SELECT * FROM " + s.name + where + ") " + s.alias, []source{s}
}

// withX is grouped; tables without a column x give an error of PostgreSQL's.
func (g *generator) withX(s, grouped source) []source { return []source{grouped} }

// lateral joins a subquery to l's sources that speaks of them.
func (g *generator) lateral(l string, ls []source) (string, []source) {
	from, inner := g.fromNear(0, &ls[0].table)
	a := g.name("z")
	sub := "LATERAL (SELECT " + inner[0].alias + ".* FROM " + from + g.tied(inner, ls, 0) + ") " + a
	out := append(append([]source{}, ls...), source{a, inner[0].table})
	return "(" + l + g.pick(" CROSS JOIN "+sub, " LEFT JOIN "+sub+" ON true") + ")", out
}

func (g *generator) where(scope []source) string {
	var conds []string
	for range g.intn(4) {
		conds = append(conds, g.condition(scope, scope, 1))
	}
	if len(scope[0].key) > 0 && g.chance(35) {
		conds = append(conds, g.keyCondition(scope[0], scope, 0))
	}
	if len(conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(conds, " AND ")
}

// outputs are n output expressions with their types.
func (g *generator) outputs(scope []source, n int, clear bool) (exprs, types []string) {
	for range n {
		c, typ := g.anyColumn(scope, clear)
		if g.chance(25) {
			typ = g.pick("int", "int", "text", "num", "bool")
			c = g.expr(typ, scope, 1)
		}
		exprs, types = append(exprs, c), append(types, typ)
	}
	return exprs, types
}

// aggregate is an aggregate whose value does not depend on the order of rows.
func (g *generator) aggregate(scope []source) string {
	i, s, n := g.expr("int", scope, 0), g.expr("text", scope, 0), g.column(scope, "num", false)
	if n == "" {
		n = i
	}
	a := g.pick("count(*)", "count(*)", "count("+i+")", "sum("+i+")", "min("+i+")", "max("+i+")", "max("+s+")", "avg("+i+")", "sum("+n+")", "count(DISTINCT "+i+")", "count(DISTINCT "+s+")",
		"bool_or("+i+" > 3)", "array_agg("+i+" ORDER BY "+i+" DESC NULLS LAST)", "string_agg("+s+", '-' ORDER BY "+s+")", "jsonb_agg("+i+" ORDER BY "+i+")", "sum("+g.expr("float", scope, 0)+")", "array_agg(DISTINCT "+i+")", "bit_or("+i+")")
	if g.chance(20) {
		a += " FILTER (WHERE " + g.condition(scope, scope, 0) + ")"
	}
	return a
}

// order orders by all n output columns.
func (g *generator) order(n int) string {
	at := make([]string, n)
	for i := range at {
		at[i] = fmt.Sprint(i+1) + g.pick("", "", " DESC", " ASC", " DESC NULLS LAST", " NULLS FIRST")
	}
	for i := range at {
		j := g.intn(n)
		at[i], at[j] = at[j], at[i]
	}
	return " ORDER BY " + strings.Join(at, ", ")
}

func (g *generator) limit() string {
	n := g.pick("0", "1", "2", "3", "5", "100")
	return g.pick(" LIMIT "+n, " LIMIT "+n, " FETCH FIRST "+n+" ROWS ONLY", " LIMIT "+n+" OFFSET "+g.pick("0", "1", "2"), " OFFSET 2", " LIMIT ALL", " LIMIT NULL")
}

// query is a random SELECT.
func (g *generator) query() statement {
	from, scope := g.from(g.intn(3))
	if g.chance(12) {
		f, s := g.fromNear(1, &scope[0].table)
		from, scope = from+", "+f, append(scope, s...)
	}
	where := g.where(scope)
	n := 1 + g.intn(3)
	tail := " FROM " + from + where
	list := func(clear bool) string {
		exprs, _ := g.outputs(scope, n, clear)
		return strings.Join(exprs, ", ")
	}
	is := func(form, sql string) statement { g.form = form; return statement{sql: sql} }
	switch g.intn(20) {
	case 0, 1:
		var aggs []string
		for range n {
			aggs = append(aggs, g.aggregate(scope))
		}
		return is("aggregate", "SELECT "+strings.Join(aggs, ", ")+tail)
	case 2, 3:
		return is("group", g.groupBy(scope, tail, n))
	case 4:
		return is("distinct", "SELECT DISTINCT "+list(true)+tail)
	case 5:
		c, _ := g.anyColumn(scope, true)
		q := is("distinct on", "SELECT DISTINCT ON ("+c+") "+c+", "+list(true)+tail+" ORDER BY "+c)
		for i := range n {
			q.sql += fmt.Sprintf(", %d", i+2)
		}
		return q
	case 6, 7:
		return is("set operation", g.setOperation(scope, tail, n))
	case 8:
		return is("window", "SELECT "+list(false)+", "+g.window(scope)+tail)
	case 9:
		return is("with", g.with(scope, tail))
	case 10, 11:
		q := is("order", "SELECT "+g.pick("", "", "DISTINCT ")+list(true)+tail+g.order(n)+g.pick("", g.limit()))
		q.ordered = true
		return q
	case 12:
		c, _ := g.anyColumn(scope, true)
		return is("ties", "SELECT "+c+", "+list(true)+tail+" ORDER BY 1 FETCH FIRST 2 ROWS WITH TIES")
	case 13:
		q := is("limit", "SELECT "+list(false)+tail+g.pick(" LIMIT ", " LIMIT ")+g.pick("1", "3", "10"))
		q.all = q.sql[:strings.LastIndex(q.sql, " LIMIT ")]
		return q
	case 14:
		return is("exists", "SELECT "+g.pick("", "NOT ")+"EXISTS (SELECT 1"+tail+")")
	case 15:
		return is("lock", "SELECT "+list(false)+tail+" FOR "+g.pick("UPDATE", "SHARE", "NO KEY UPDATE")+g.pick("", " OF "+scope[0].alias))
	case 16:
		return is("scalar", "SELECT "+list(false)+", ("+g.scalar("int", scope, 1)+")"+tail)
	case 17:
		return is("star", "SELECT "+g.pick("*", scope[0].alias+".*, 1")+tail)
	}
	return is("select", "SELECT "+list(false)+tail)
}

// groupBy is a grouped query, now and then over grouping sets.
func (g *generator) groupBy(scope []source, tail string, n int) string {
	keys, _ := g.outputs(scope, n, true)
	if s := scope[g.intn(len(scope))]; len(s.key) > 0 && !s.cols[0].blurry && g.chance(50) {
		for i, k := range s.key {
			keys = slices.Insert(keys, i, s.alias+"."+k)
		}
	}
	by := strings.Join(keys, ", ")
	out := by
	switch {
	case g.chance(12):
		by = g.pick("ROLLUP", "CUBE", "GROUPING SETS") + " (" + by + ")"
	case g.chance(15):
		by = "1"
		for i := range keys[1:] {
			by += fmt.Sprintf(", %d", i+2)
		}
	}
	having := g.pick("", "", " HAVING count(*) > 1", " HAVING max("+g.expr("int", scope, 0)+") > 3")
	return "SELECT " + out + ", " + g.aggregate(scope) + tail + " GROUP BY " + by + having
}

// window is a window function whose value does not depend on the order of peers.
func (g *generator) window(scope []source) string {
	by := ""
	if s := scope[g.intn(len(scope))]; len(s.key) > 0 && g.chance(60) {
		by = "PARTITION BY " + s.alias + "." + strings.Join(s.key, ", "+s.alias+".") + " "
	} else if g.chance(30) {
		by = "PARTITION BY " + g.expr("int", scope, 0) + " "
	}
	f := g.pick("count(*)", "rank()", "dense_rank()", "sum("+g.expr("int", scope, 0)+")", "max("+g.expr("text", scope, 0)+")", "cume_dist()")
	return f + " OVER (" + by + "ORDER BY " + g.expr("int", scope, 0) + g.pick("", " DESC", " NULLS FIRST") + ")"
}

// setOperation combines the query with one or two others.
func (g *generator) setOperation(scope []source, tail string, n int) string {
	a, types := g.outputs(scope, n, true)
	if s := scope[0]; len(s.key) > 0 && !s.cols[0].blurry && g.chance(60) {
		for i, k := range s.key {
			a, types = slices.Insert(a, i, s.alias+"."+k), slices.Insert(types, i, s.typeOf(k))
		}
	}
	sql := "SELECT " + strings.Join(a, ", ") + tail
	for range 1 + g.intn(2) {
		from, inner := g.fromNear(g.intn(2), &scope[0].table)
		var b []string
		for i, typ := range types {
			e := g.expr(typ, inner, 0)
			if s := inner[0]; i < len(s.key) && s.typeOf(s.key[i]) == typ && !s.cols[0].blurry && g.chance(70) {
				e = s.alias + "." + s.key[i]
			}
			b = append(b, e)
		}
		arm := "SELECT " + strings.Join(b, ", ") + " FROM " + from + g.where(inner)
		if g.chance(50) {
			sql = "(" + sql + ")"
		}
		sql += g.pick(" UNION ", " UNION ALL ", " UNION ALL ", " INTERSECT ", " EXCEPT ", " INTERSECT ALL ", " EXCEPT ALL ") + arm
	}
	return sql
}

// with is a query over WITH queries.
func (g *generator) with(scope []source, tail string) string {
	e, types := g.outputs(scope, 2, true)
	first := scope[0].cols[0]
	if !first.blurry && g.chance(70) {
		e[0], types[0] = scope[0].alias+"."+first.name, first.typ
	}
	w := source{"w", table{name: "w", cols: []column{{"k", types[0], false}, {"q", types[1], false}}}}
	if len(scope[0].key) == 1 {
		w.key = []string{"k"}
	}
	head := "WITH w(k, q) AS " + g.pick("", "", "MATERIALIZED ", "NOT MATERIALIZED ") + "(SELECT " + strings.Join(e, ", ") + tail + ") "
	switch g.intn(4) {
	case 0:
		return head + "SELECT w.k, w.q FROM w" + g.where([]source{w})
	case 1:
		return head + "SELECT a.k, b.q FROM w a JOIN w b ON a.k = b.k" + g.where([]source{{"a", w.table}})
	case 2:
		from, inner := g.fromNear(0, &scope[0].table)
		on := g.keyJoin(inner, []source{w})
		if on == "" {
			on = "true"
		}
		return head + "SELECT w.k, " + inner[0].alias + ".* FROM w " + g.pick("JOIN ", "LEFT JOIN ") + from + " ON " + on + g.where(append(inner, w))
	}
	if types[0] != "int" {
		return head + "SELECT count(*) FROM w"
	}
	return "WITH RECURSIVE w(k, q) AS (SELECT " + e[0] + "::bigint, 0" + tail + " UNION SELECT o.n::bigint, q + 1 FROM w, o WHERE o.cid = w.k AND q < 2) SELECT * FROM w" + g.where([]source{{"w", table{cols: cols("k:int q:int"), key: []string{"k"}}}})
}
