package sqltext

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestStatements draws statements from a small grammar, with odd spacing, and
// holds them against libpg_query as FuzzLex does. Nearly all of them parse.
func TestStatements(t *testing.T) {
	parsed, drawn := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		g := grammar{r}
		sql := g.statement()
		drawn++
		if checkLex(t, sql) {
			parsed++
		}
		checkTokens(t, sql)
		checkFolding(t, r, sql)
	})
	if parsed < drawn*9/10 {
		t.Errorf("only %d of %d statements parse", parsed, drawn)
	}
}

// checkFolding: wider white space and comments between tokens change no key.
func checkFolding(t *testing.T, r *rapid.T, sql string) {
	t.Helper()
	var wide strings.Builder
	s := scanner{src: sql}
	var tok token
	for s.next(&tok); tok.kind != tokEOF; s.next(&tok) {
		if tok.spaced {
			wide.WriteString(rapid.SampledFrom([]string{"  ", "\n", " /* 1 'x' */ ", "/**/", " -- 2\n"}).Draw(r, "space"))
		}
		wide.WriteString(sql[tok.start:tok.end])
	}
	var a, b Statement
	a.Lex(strings.TrimSpace(sql))
	b.Lex(strings.TrimSpace(wide.String()))
	if commentInString.MatchString(wide.String()) {
		return // a comment may join two strings
	}
	if string(a.Key) != string(b.Key) {
		t.Fatalf("white space changes the key\n%q %q\n%q %q", sql, a.Key, wide.String(), b.Key)
	}
}

// grammar draws the parts of statements.
type grammar struct{ r *rapid.T }

func (g grammar) pick(of ...string) string { return rapid.SampledFrom(of).Draw(g.r, "pick") }

func (g grammar) maybe(s func() string) string {
	if rapid.Bool().Draw(g.r, "maybe") {
		return s()
	}
	return ""
}

func (g grammar) list(depth int, of func(int) string) string {
	n := rapid.IntRange(1, 3).Draw(g.r, "n")
	parts := make([]string, n)
	for i := range parts {
		parts[i] = of(depth)
	}
	return strings.Join(parts, g.pick(", ", ","))
}

func (g grammar) statement() string {
	switch rapid.IntRange(0, 6).Draw(g.r, "statement") {
	case 0:
		return "INSERT INTO t (a, b) VALUES (" + g.list(2, g.expr) + "), (" + g.list(2, g.expr) + ")" +
			g.maybe(func() string { return " ON CONFLICT (a) DO UPDATE SET a = " + g.expr(2) }) + g.returning()
	case 1:
		return "UPDATE t SET a = " + g.expr(2) + ", (b, c) = (" + g.expr(1) + ", " + g.expr(1) + ")" + g.where(2) + g.returning()
	case 2:
		return "DELETE FROM t USING u" + g.where(2) + g.returning()
	case 3:
		return "WITH x AS " + g.pick("", "MATERIALIZED ", "NOT MATERIALIZED ") + "(" + g.query(1) + ") " + g.query(2)
	}
	return g.query(3)
}

func (g grammar) returning() string {
	return g.maybe(func() string { return " RETURNING " + g.list(1, g.target) })
}

func (g grammar) where(depth int) string {
	return g.maybe(func() string { return " WHERE " + g.expr(depth) })
}

func (g grammar) query(depth int) string {
	q := "SELECT " + g.pick("", "", "DISTINCT ", "ALL ", "DISTINCT ON (1, a) ") + g.list(depth, g.target) + " FROM " + g.from(depth) + g.where(depth)
	q += g.maybe(func() string {
		return " GROUP BY " + g.list(1, g.expr) + g.maybe(func() string { return " HAVING " + g.expr(1) })
	})
	q += g.maybe(func() string { return g.pick(" UNION ", " UNION ALL ", " EXCEPT ") + "SELECT " + g.expr(1) })
	q += g.maybe(func() string { return " ORDER BY " + g.list(1, g.order) })
	q += g.maybe(func() string { return " LIMIT " + g.pick("1", "ALL", "NULL", "(2)", "-3", "$1") })
	q += g.maybe(func() string { return " OFFSET " + g.pick("1", "-1", "2 ROWS", "$2") })
	return q
}

func (g grammar) order(depth int) string {
	return g.expr(depth) + g.pick("", " ASC", " DESC NULLS LAST", " NULLS FIRST")
}

func (g grammar) from(depth int) string {
	if depth <= 0 {
		return g.pick("t", "u AS x", "s.t y", `"T"`)
	}
	switch rapid.IntRange(0, 6).Draw(g.r, "from") {
	case 0:
		return "f(" + g.list(depth-1, g.expr) + ") AS x(a varchar(5), b vector(3), c int[2])"
	case 1:
		return "(" + g.query(depth-1) + ") x"
	case 2:
		return "t JOIN u ON " + g.expr(depth-1)
	case 3:
		return "t, LATERAL (" + g.query(depth-1) + ") x"
	case 4:
		return "generate_series(" + g.expr(0) + ", 5) g"
	}
	return g.from(0)
}

func (g grammar) target(depth int) string {
	return g.expr(depth) + g.pick("", "", " AS limit", " AS \"order\"", " AS x", " label")
}

func (g grammar) literal() string {
	return g.pick("0", "1", "42", "2147483647", "2147483648", "9223372036854775808", "1.5", ".5", "1.", "1e3", "'x'", "''", "'a''b'",
		`E'a\'b'`, "$$x$$", "$q$'$q$", "'a'\n'b'", "U&'\\0041'", "B'10'", "X'1F'", "N'n'", "NULL", "true", "$1",
		"date '2020-01-01'", "interval '1' day", "timestamp(3) with time zone 'x'", "foo 'x'", "numeric(4,2) '1.5'", "interval(2) '1 s'")
}

func (g grammar) name() string {
	return g.pick("a", "t.b", "x.limit", "t.between", "rows", "value", "path", "path", "name", `"A b"`, "current_date", "current_timestamp(3)", "é", "t.and")
}

func (g grammar) typ() string {
	return g.pick("int", "varchar(5)", "numeric(10, 2)", "pg_catalog.numeric(3,1)", "text[]", "int[3]", "int[2][3]", "varchar(3)[4]", "vector(3)",
		"s.vector(3)", "timestamp(3) with time zone", "interval day to second(2)", `"char"`, "double precision", "bit varying(4)", "int ARRAY[5]")
}

func (g grammar) binary() string {
	return g.pick("+", " + ", "-", " - ", " -", "- ", "*", " / ", " || ", "=", " <> ", "<", " >= ", " @> ", "->", " ->> ", " ~ ", " && ", " % ", "^", " OPERATOR(pg_catalog.+) ")
}

func (g grammar) expr(depth int) string {
	if depth <= 0 {
		if rapid.Bool().Draw(g.r, "literal") {
			return g.literal()
		}
		return g.name()
	}
	e := func() string { return g.expr(depth - 1) }
	switch rapid.IntRange(0, 21).Draw(g.r, "expr") {
	case 0, 1, 2:
		return "(" + e() + g.binary() + e() + ")"
	case 3, 4:
		sign := g.pick("-", "- ", "+", "- - ", "-+", "@ ", "@-", "- -", "-(", "- ((-", "+(")
		return "(" + sign + g.numberOrName() + strings.Repeat(")", 1+strings.Count(sign, "("))
	case 5:
		return g.call() + "(" + g.list(depth-1, g.expr) + ")"
	case 6:
		return "CASE WHEN " + e() + " THEN " + e() + " ELSE -" + g.numberOrName() + " END"
	case 7:
		return "(" + e() + ")::" + g.typ()
	case 8:
		return "CAST(" + e() + " AS " + g.typ() + ")"
	case 9:
		return "-" + g.numberOrName() + "::" + g.typ()
	case 10:
		return "(" + e() + " " + g.pick("IN", "NOT IN") + " (" + g.list(depth-1, g.expr) + "))"
	case 11:
		return "((" + e() + ") " + g.pick("BETWEEN", "NOT BETWEEN", "BETWEEN SYMMETRIC") + " -" + g.numberOrName() + " AND (" + e() + "))"
	case 12:
		return "(" + e() + ") " + g.pick("LIKE", "NOT LIKE", "ILIKE", "SIMILAR TO") + " ('x')" + g.pick("", " ESCAPE '!'")
	case 13:
		return "ARRAY[" + g.list(depth-1, g.expr) + "]"
	case 14:
		return "a[" + e() + "]" + g.pick("", "[1:-2]")
	case 15:
		return "(" + e() + ") " + g.pick("IS NULL", "IS NOT NULL", "ISNULL", "IS DISTINCT FROM -1", "AT TIME ZONE 'UTC'", `COLLATE "C"`)
	case 16:
		return "(NOT " + e() + g.pick(" AND ", " OR ") + e() + ")"
	case 17:
		return "(" + g.query(depth-2) + ")"
	case 18:
		return "sum(" + e() + g.pick("", " ORDER BY 1, a") + ")" + g.pick("", " FILTER (WHERE a > 1)") + g.pick("", " OVER (PARTITION BY 1 ORDER BY 2 ROWS 3 PRECEDING)")
	case 19:
		return g.pick("substring('abc' FROM -1 FOR 2)", "extract(year FROM a)", "overlay(a PLACING 'x' FROM -2)", "trim(BOTH 'x' FROM a)", "position('x' IN a)",
			"f(VARIADIC -1)", "f(a => -2, b := 'x')", "set_config('a.b', 'c', false)", "nextval('s')", "(1, -2) = (a, 'x')", "EXISTS (SELECT -1)", "a = ANY ('{1}')")
	}
	return e()
}

func (g grammar) numberOrName() string {
	return g.pick("7", "2147483648", "2147483647", "9223372036854775808", "1.5", "a", "rows", "$1", "1e3")
}

func (g grammar) call() string {
	return g.pick("f", "s.f", "coalesce", "greatest", "f", "vector", "opt")
}
