package planner

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator makes random statements over the tables of differential_test.go. It
// prefers conditions on shard keys, so that many statements can be proved.
type generator struct {
	r     *rand.Rand
	alias int
}

// genTable is a table of the differential test: its key and its other columns,
// all integers.
type genTable struct {
	name, key string
	cols      []string
	reference bool
}

var genTables = []genTable{
	{"c", "id", []string{"x", "y"}, false},
	{"o", "cid", []string{"n", "x"}, false},
	{"i", "cid", []string{"n", "y"}, false},
	{"r", "code", []string{"x"}, true},
}

// ranged is a table in a FROM clause under its alias.
type ranged struct {
	alias string
	t     genTable
}

func (g *generator) pick(list ...string) string { return list[g.r.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.r.IntN(100) < percent }

func (g *generator) table() ranged {
	g.alias++
	t := genTables[g.r.IntN(len(genTables))]
	if t.reference && g.chance(60) {
		t = genTables[g.r.IntN(3)]
	}
	return ranged{fmt.Sprintf("t%d", g.alias), t}
}

// column is a column of one of the tables in scope.
func (g *generator) column(scope []ranged) string {
	s := scope[g.r.IntN(len(scope))]
	if g.chance(40) {
		return s.alias + "." + s.t.key
	}
	return s.alias + "." + s.t.cols[g.r.IntN(len(s.t.cols))]
}

func (g *generator) key(s ranged) string { return s.alias + "." + s.t.key }

func (g *generator) number() string { return fmt.Sprint(g.r.IntN(14) - 2) }

// condition is a condition on tables in scope; inner are those of this level.
func (g *generator) condition(inner, outer []ranged, depth int) string {
	scope := append(append([]ranged{}, inner...), outer...)
	switch g.r.IntN(14) {
	case 0, 1, 2:
		return g.key(inner[g.r.IntN(len(inner))]) + " = " + g.number()
	case 3:
		return g.key(inner[g.r.IntN(len(inner))]) + " IN (" + g.number() + ", " + g.number() + g.pick("", ", NULL") + ")"
	case 4:
		return g.number() + " = " + g.column(scope)
	case 5, 6:
		return g.column(scope) + g.pick(" = ", " = ", " < ", " <> ") + g.column(scope)
	case 7:
		return "(" + g.condition(inner, outer, depth) + " OR " + g.condition(inner, outer, depth) + ")"
	case 8:
		return "(" + g.condition(inner, outer, depth) + " AND " + g.condition(inner, outer, depth) + ")"
	case 9:
		return "NOT " + g.pick("", "coalesce") + "(" + g.condition(inner, outer, depth) + ")"
	case 10:
		return g.column(scope) + " IS " + g.pick("", "NOT ") + "NULL"
	case 11:
		return g.key(inner[0]) + g.pick(" = ANY ('{"+g.number()+","+g.number()+"}')", " = ANY (ARRAY["+g.number()+", "+g.number()+"])", " IN ("+g.number()+", 3000000000, "+g.number()+"::int2)")
	}
	if depth <= 0 {
		return g.column(scope) + " >= " + g.number()
	}
	if g.chance(50) {
		return g.pick("", "", "NOT ") + "EXISTS (" + g.subquery(scope, depth-1, "1") + ")"
	}
	return g.column(scope) + g.pick(" IN ", " IN ", " NOT IN ") + "(" + g.subquery(scope, depth-1, "") + ")"
}

// subquery is a correlated or uncorrelated subquery of one output column.
func (g *generator) subquery(outer []ranged, depth int, output string) string {
	t := g.table()
	inner := []ranged{t}
	if output == "" {
		output = g.pick(g.key(t), g.key(t), t.alias+"."+t.t.cols[0], "max("+t.alias+"."+t.t.cols[0]+")")
	}
	where := g.condition(inner, outer, depth)
	if g.chance(60) {
		where = g.key(t) + " = " + g.key(outer[g.r.IntN(len(outer))]) + g.pick("", " AND "+where)
	}
	return "SELECT " + output + " FROM " + t.t.name + " " + t.alias + " WHERE " + where + g.pick("", "", "", " LIMIT 0")
}

// fromItem is a table, a derived table or a join.
func (g *generator) fromItem(depth int) (string, []ranged) {
	t := g.table()
	switch {
	case depth > 0 && g.chance(15):
		return "(SELECT " + g.pick("", "", "DISTINCT ") + "* FROM " + t.t.name + " WHERE " + strings.ReplaceAll(g.condition([]ranged{{t.t.name, t.t}}, nil, 0), "coalesce", "") + ") " + t.alias, []ranged{t}
	case depth > 0 && g.chance(10):
		order := "SELECT * FROM " + t.t.name + " ORDER BY 3, 1, 2 LIMIT " + fmt.Sprint(g.r.IntN(12))
		if t.t.reference {
			order = "SELECT * FROM r ORDER BY 2, 1 LIMIT 4"
		}
		return "(" + order + ") " + t.alias, []ranged{t}
	case depth > 0 && g.chance(8):
		w := t
		w.t.cols = append([]string{"w"}, w.t.cols...)
		return "(SELECT *, count(*) OVER (" + g.pick("", "PARTITION BY "+t.t.key) + ")::int AS w FROM " + t.t.name + ") " + t.alias, []ranged{w}
	case depth > 0 && g.chance(10) && !t.t.reference:
		k := t.t.key
		sub := ranged{t.alias, genTable{key: k, cols: []string{"a"}}}
		return "(SELECT " + k + ", count(*)::int AS a FROM " + t.t.name + " GROUP BY " + k + ") " + t.alias, []ranged{sub}
	case depth > 0 && g.chance(35):
		l, ls := g.fromItem(depth - 1)
		r, rs := g.fromItem(depth - 1)
		on := g.condition(append(append([]ranged{}, ls...), rs...), nil, 0)
		if g.chance(75) {
			on = g.key(ls[g.r.IntN(len(ls))]) + " = " + g.key(rs[g.r.IntN(len(rs))]) + g.pick("", "", " AND "+on)
		}
		return "(" + l + g.pick(" JOIN ", " JOIN ", " LEFT JOIN ", " LEFT JOIN ", " RIGHT JOIN ", " FULL JOIN ") + r + " ON " + on + ")", append(ls, rs...)
	}
	return t.t.name + " " + t.alias, []ranged{t}
}

// query is a SELECT.
func (g *generator) query() string {
	from, scope := g.fromItem(1 + g.r.IntN(2))
	if g.chance(20) {
		f, s := g.fromItem(1)
		from, scope = from+", "+f, append(scope, s...)
	}
	where := ""
	for i := range g.r.IntN(4) {
		where += []string{" WHERE ", " AND ", " AND "}[i] + g.condition(scope, nil, 1)
	}
	a, b := g.column(scope), g.column(scope)
	switch g.r.IntN(14) {
	case 0:
		return "SELECT count(*), count(" + a + "), sum(" + b + "), min(" + a + "), max(" + b + ") FROM " + from + where
	case 1:
		return "SELECT " + a + ", count(*) FROM " + from + where + " GROUP BY " + a
	case 2:
		return "SELECT DISTINCT " + a + " FROM " + from + where
	case 3:
		return "SELECT " + a + " FROM " + from + where + " UNION " + g.pick("ALL ", "") + "SELECT " + b + " FROM " + from + where
	case 4:
		return "SELECT " + a + ", (" + g.subquery(scope, 0, "count(*)") + ") FROM " + from + where
	case 5:
		return "WITH w AS (SELECT " + a + " AS k FROM " + from + where + ") SELECT * FROM w, c WHERE c.id = w.k"
	case 6:
		return "SELECT s.k FROM (SELECT " + a + " AS k FROM " + from + where + g.pick("", " ORDER BY 1 LIMIT 2") + ") s WHERE s.k = " + g.number()
	case 7:
		return "SELECT " + a + " FROM " + from + where + " ORDER BY 1 LIMIT 3"
	case 8:
		t := g.table()
		lateral := "LATERAL (SELECT * FROM " + t.t.name + " q WHERE q." + t.t.key + " = " + a + g.pick("", " ORDER BY 1, 2, 3 LIMIT 1") + ") z"
		if g.chance(50) {
			return "SELECT * FROM " + from + " LEFT JOIN " + lateral + " ON " + g.pick("true", "z."+t.t.key+" = "+g.number(), g.condition(scope, nil, 0)) + where
		}
		return "SELECT * FROM " + from + ", " + lateral + where
	case 9:
		return "SELECT " + a + " FROM " + from + where + " INTERSECT SELECT " + b + " FROM " + from + " WHERE " + g.condition(scope, nil, 0)
	case 10:
		n, m := g.table(), g.table()
		return "WITH RECURSIVE w(k, d) AS (SELECT " + a + ", 0 FROM " + from + where + " UNION SELECT " + g.key(n) + ", d + 1 FROM w, " + n.t.name + " " + n.alias +
			" WHERE " + g.key(n) + " = w.k AND d < 2) SELECT w.* FROM w" + g.pick("", ", "+m.t.name+" "+m.alias+" WHERE w.k = "+g.key(m))
	}
	return "SELECT " + a + ", " + b + " FROM " + from + where
}

// write is an UPDATE, DELETE or INSERT of a table, which it also names.
func (g *generator) write() (sql, table string) {
	t := g.table()
	scope := []ranged{t}
	where := ""
	for i := range g.r.IntN(3) {
		where += []string{" WHERE ", " AND "}[i] + g.condition(scope, nil, 1)
	}
	col := t.t.cols[len(t.t.cols)-1]
	switch g.r.IntN(5) {
	case 0:
		return "DELETE FROM " + t.t.name + " " + t.alias + where, t.t.name
	case 1:
		u := g.table()
		w := " WHERE " + g.key(t) + " = " + g.key(u)
		return "DELETE FROM " + t.t.name + " " + t.alias + " USING " + u.t.name + " " + u.alias + w + strings.Replace(where, " WHERE ", " AND ", 1), t.t.name
	case 2:
		n := g.r.IntN(3) + 1
		var rows []string
		for range n {
			rows = append(rows, fmt.Sprintf("(%s, %d, %d)", g.number(), 1000+g.r.IntN(100000), g.r.IntN(9)))
		}
		return "INSERT INTO o (cid, n, x) VALUES " + strings.Join(rows, ", "), "o"
	case 3:
		return "INSERT INTO i (cid, n, y) SELECT " + g.key(t) + ", " + t.alias + "." + t.t.cols[0] + " + 100000, 1 FROM " + t.t.name + " " + t.alias + where, "i"
	}
	set := g.pick(g.number(), t.alias+"."+col+" + 1", "("+g.subquery(scope, 0, "max(1)")+")")
	return "UPDATE " + t.t.name + " " + t.alias + " SET " + col + " = " + set + where, t.t.name
}
