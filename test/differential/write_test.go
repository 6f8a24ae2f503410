package differential

import (
	"fmt"
	"strings"
)

// write is a random statement that writes.
func (g *generator) write() statement {
	s := g.source(nil)
	for s.kind == "view" && !g.chance(5) {
		s = g.source(nil)
	}
	is := func(form, sql string) statement { g.form = form; return statement{sql: sql, target: s.name} }
	switch g.intn(9) {
	case 0, 1, 2:
		return is("insert", g.insert(s))
	case 3:
		return is("insert select", g.insertSelect(s))
	case 4:
		return is("update from", g.updateFrom(s))
	case 5, 6:
		return is("update", "UPDATE "+s.name+" "+s.alias+" SET "+g.set(s)+g.where([]source{s})+g.returning(s, []source{s}))
	case 7:
		if g.chance(40) {
			from, inner := g.fromNear(0, &s.table)
			using := append([]source{s}, inner...)
			return is("delete using", "DELETE FROM "+s.name+" "+s.alias+" USING "+from+g.tied(inner, []source{s}, 0)+" AND "+g.condition(using, using, 0))
		}
		return is("delete", "DELETE FROM "+s.name+" "+s.alias+g.where([]source{s})+g.returning(s, []source{s}))
	}
	if g.chance(40) {
		return is("merge", g.merge(s))
	}
	return is("writing with", g.writingWith(s))
}

// set is a SET list: not of the key, but now and then.
func (g *generator) set(s source) string {
	c := s.cols[len(s.cols)-1-g.intn(min(2, len(s.cols)-1))]
	if g.chance(10) {
		c = s.cols[0]
	}
	v := g.expr(c.typ, []source{s}, 1)
	if c.typ == "int" && g.chance(30) {
		v = "(" + g.scalar("int", []source{s}, 0) + ")"
	}
	if g.chance(5) {
		v = "DEFAULT"
	}
	if g.chance(10) && len(s.cols) > 2 {
		return "(" + c.name + ") = ROW(" + v + ")"
	}
	return c.name + " = " + v
}

func (g *generator) returning(s source, scope []source) string {
	if g.chance(60) {
		return ""
	}
	e, _ := g.outputs(scope, 1+g.intn(2), false)
	return " RETURNING " + g.pick("*", strings.Join(e, ", "), s.alias+"."+s.cols[0].name)
}

// row is a row for VALUES.
func (g *generator) row(s source) string {
	var out []string
	for i, c := range s.cols {
		t := g.text(c.typ)
		key := i < len(s.key)
		if key {
			t = g.keyText(c.typ)
		}
		v := g.value(c.typ, t, false)
		switch {
		case !key && g.chance(10):
			v = g.pick("NULL", "DEFAULT", "(SELECT max(x) FROM r)::int::text::"+sqlTypes["text"])
			if v != "NULL" && v != "DEFAULT" && c.typ != "text" {
				v = "NULL"
			}
		case key && c.typ == "int" && g.chance(15):
			v = g.pick(t+".4", t+".6", "'"+t+"'", t+"::bigint", t+"::int2", "-"+t, "NULL", "DEFAULT", t+" + 1")
		case key && c.typ == "text" && g.chance(15):
			v = g.pick("'"+t+"'::text", "'"+t+"'::varchar", "'"+t+"'::char(3)", "E'"+t+"'", "NULL", "upper('"+t+"')")
		case key && c.typ == "num" && g.chance(40):
			v = g.pick("1.000", "1", "'1.5'", "15e-1", "-2.25", "1.5::float8", "2::int")
		}
		out = append(out, v)
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func (g *generator) insert(s source) string {
	var values []string
	for range 1 + g.intn(3) {
		values = append(values, g.row(s))
	}
	list := ""
	if g.chance(40) {
		var names []string
		for _, c := range s.cols {
			names = append(names, c.name)
		}
		list = " (" + strings.Join(names, ", ") + ")"
	}
	sql := "INSERT INTO " + s.name + " AS " + s.alias + list + " VALUES " + strings.Join(values, ", ")
	return sql + g.conflict(s) + g.returning(s, []source{s})
}

// conflict is an ON CONFLICT clause or nothing.
func (g *generator) conflict(s source) string {
	target := map[string]string{"c": "(id)", "o": "(cid, n)", "u": "(name)", "k": "(a, b)", "r": "(code)", "g": "(id)"}[s.name]
	if target == "" || g.chance(40) {
		return ""
	}
	last := s.cols[len(s.cols)-1]
	return " ON CONFLICT " + g.pick("DO NOTHING", target+" DO NOTHING",
		target+" DO UPDATE SET "+last.name+" = excluded."+last.name,
		target+" DO UPDATE SET "+last.name+" = "+s.alias+"."+last.name+", "+s.cols[0].name+" = excluded."+s.cols[0].name,
		target+" DO UPDATE SET x = coalesce("+s.alias+".x, 0) + 1 WHERE "+s.alias+".x > 2",
		target+" DO UPDATE SET "+s.cols[0].name+" = 7")
}

func (g *generator) insertSelect(s source) string {
	from, scope := g.fromNear(g.intn(2), &s.table)
	var names, exprs []string
	for i, c := range s.cols {
		e := g.expr(c.typ, scope, 0)
		if in := scope[0]; i < len(s.key) && i < len(in.key) && in.typeOf(in.key[i]) == c.typ && g.chance(75) {
			e = in.alias + "." + in.key[i]
		} else if i < len(s.key) && g.chance(50) {
			e = g.value(c.typ, g.keyText(c.typ), true)
		}
		if s.name == "o" && c.name == "n" {
			e = fmt.Sprintf("(100 + coalesce(%s, 0))::int", g.expr("int", scope, 0))
		}
		names, exprs = append(names, c.name), append(exprs, e)
	}
	sql := "INSERT INTO " + s.name + " (" + strings.Join(names, ", ") + ") SELECT " + g.pick("", "", "DISTINCT ") + strings.Join(exprs, ", ") + " FROM " + from + g.where(scope)
	if g.chance(60) {
		sql += " ON CONFLICT DO NOTHING"
	}
	return sql
}

// updateFrom joins another table; what is set does not depend on which of several
// matches is taken.
func (g *generator) updateFrom(s source) string {
	from, inner := g.fromNear(0, &s.table)
	return "UPDATE " + s.name + " " + s.alias + " SET " + g.set(s) + " FROM " + from + g.tied(inner, []source{s}, 0) + g.pick("", " RETURNING "+s.alias+"."+s.cols[0].name)
}

func (g *generator) merge(s source) string {
	u := g.source(&s.table)
	on := g.keyJoin([]source{s}, []source{u})
	if on == "" {
		on = s.alias + "." + s.cols[0].name + " = " + g.literal(s.cols[0].typ)
	}
	return "MERGE INTO " + s.name + " " + s.alias + " USING " + u.name + " " + u.alias + " ON " + on + " AND " + g.condition([]source{s}, []source{s, u}, 0) +
		" WHEN MATCHED THEN " + g.pick("DELETE", "DO NOTHING", "UPDATE SET x = 5") + g.pick("", " WHEN NOT MATCHED THEN DO NOTHING")
}

// writingWith is a query over a WITH query that writes.
func (g *generator) writingWith(s source) string {
	w := "DELETE FROM " + s.name + " " + s.alias + g.where([]source{s})
	if g.chance(50) {
		w = "UPDATE " + s.name + " " + s.alias + " SET " + g.set(s) + g.where([]source{s})
	}
	head := "WITH w AS (" + w + " RETURNING " + s.alias + ".*) "
	if g.chance(60) {
		return head + g.pick("SELECT * FROM w", "SELECT count(*) FROM w", "SELECT w.x FROM w JOIN r ON r.code = w.x")
	}
	u := g.source(&s.table)
	return head + "SELECT w.*, (SELECT count(*) FROM " + u.name + " " + u.alias + g.tied([]source{u}, []source{{"w", s.table}}, 0) + ") FROM w"
}
