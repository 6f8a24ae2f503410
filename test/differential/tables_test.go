package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A column has a type of the generator's own: int (of any width), text, num, bool,
// date, ts, float, json or arr. Values of a blurry column can be equal and look
// different (1.0 and 1.00), so that DISTINCT and its like may show either.
type column struct {
	name, typ string
	blurry    bool
}

type table struct {
	name string
	cols []column
	key  []string // of the shard key; nil for reference and global tables
	kind string   // sharded, reference, global or view
	one  string   // a column that is unique by itself, or ""
}

func cols(list string) (out []column) {
	for _, f := range strings.Fields(list) {
		name, typ, _ := strings.Cut(f, ":")
		out = append(out, column{name, strings.TrimSuffix(typ, "~"), strings.HasSuffix(typ, "~")})
	}
	return out
}

var tables = []table{
	{"c", cols("id:int x:int s:text p:num d:date f:float j:json a:arr"), []string{"id"}, "sharded", "id"},
	{"o", cols("cid:int n:int x:int s:text b:bool w:num~"), []string{"cid"}, "sharded", ""},
	{"u", cols("name:text cid:int x:int t:ts"), []string{"name"}, "sharded", "name"},
	{"v", cols("name:text n:int x:int s:text"), []string{"name"}, "sharded", ""},
	{"k", cols("a:int b:text x:int s:text"), []string{"a", "b"}, "sharded", ""},
	{"l", cols("a:int b:text n:int y:int"), []string{"a", "b"}, "sharded", ""},
	{"m", cols("k:num~ x:int s:text"), []string{"k"}, "sharded", ""},
	{"r", cols("code:int x:int s:text"), nil, "reference", "code"},
	{"g", cols("id:int x:int s:text"), nil, "global", "id"},
	{"vo", cols("cid:int n:int x:int"), []string{"cid"}, "view", ""},
	{"vc", cols("id:int s:text rs:text"), []string{"id"}, "view", "id"},
}

// ddl makes the tables; {key} is followed by how each is placed, which only the
// router understands.
const ddl = `
CREATE TABLE c (id int PRIMARY KEY, x int, s text, p numeric(8,2), d date, f float8, j jsonb, a int[]) {key sharding.key = 'id'};
CREATE TABLE o (cid bigint NOT NULL, n int NOT NULL, x smallint, s varchar(10), b bool DEFAULT true, w numeric, PRIMARY KEY (cid, n)) {key sharding.key = 'cid'};
CREATE TABLE u (name text PRIMARY KEY, cid int, x int DEFAULT 7, t timestamp) {key sharding.key = 'name'};
CREATE TABLE v (name varchar(12) NOT NULL, n int, x bigint, s text) {key sharding.key = 'name'};
CREATE TABLE k (a int, b text, x int, s text, PRIMARY KEY (a, b)) {key sharding.key = 'a, b'};
CREATE TABLE l (a bigint NOT NULL, b varchar(5) NOT NULL, n int, y int) {key sharding.key = 'a, b'};
CREATE TABLE m (k numeric NOT NULL, x int, s text) {key sharding.key = 'k'};
CREATE TABLE r (code int PRIMARY KEY, x int, s text) {key sharding.kind = 'reference'};
CREATE TABLE g (id int PRIMARY KEY, x int, s text);
CREATE VIEW vo AS SELECT cid, n, x FROM o WHERE x > 2;
CREATE VIEW vc AS SELECT c.id, c.s, r.s AS rs FROM c LEFT JOIN r ON r.code = c.x`

// definitions are the statements of ddl for the router or for PostgreSQL.
func definitions(router bool) (out []string) {
	for _, s := range strings.Split(ddl, ";") {
		before, after, placed := strings.Cut(s, "{key ")
		if placed {
			option, _, _ := strings.Cut(after, "}")
			s = before
			if router {
				s += "WITH (" + option + ")"
			}
		}
		out = append(out, strings.TrimSpace(s))
	}
	return out
}

var texts = []string{"a", "b", "ab", "Ab", "B", "é", "", "a ", "zz", "10"}
var numbers = []string{"0", "1", "1.0", "1.50", "2", "-2.25", "3.0", "NaN", "12.5", "7"}
var floats = []string{"0", "0.5", "1", "-2.25", "1e3", "NaN", "Infinity", "3"}

// rows are INSERT statements that fill the tables.
func rows(r *rand.Rand) (out []string) {
	null := func(v string) string {
		if r.IntN(6) == 0 {
			return "NULL"
		}
		return v
	}
	i := func() string { return null(fmt.Sprint(r.IntN(9))) }
	s := func() string { return null("'" + texts[r.IntN(len(texts))] + "'") }
	one := func(list []string) string { return null("'" + list[r.IntN(len(list))] + "'") }
	insert := func(table string, n int, row func(n int) string) {
		var values []string
		for j := range n {
			values = append(values, "("+row(j)+")")
		}
		out = append(out, "INSERT INTO "+table+" VALUES "+strings.Join(values, ", "))
	}
	insert("c", 13, func(n int) string {
		return fmt.Sprintf("%d, %s, %s, %s, %s, %s, %s, %s", n-2, i(), s(), null(fmt.Sprintf("%d.25", r.IntN(5))),
			null(fmt.Sprintf("'2024-01-%02d'", 1+r.IntN(5))), one(floats), null(fmt.Sprintf(`'{"k": %d, "l": [1, "%s"]}'`, r.IntN(3), texts[r.IntN(3)])),
			null(fmt.Sprintf("'{%d,%d}'", r.IntN(4), r.IntN(4))))
	})
	insert("o", 30, func(n int) string {
		return fmt.Sprintf("%d, %d, %s, %s, %s, %s", r.IntN(14)-2, n, i(), s(), null("true"), one(numbers))
	})
	insert("u", len(texts), func(n int) string {
		return fmt.Sprintf("'%s', %s, %s, %s", texts[n], i(), i(), null(fmt.Sprintf("'2024-01-0%d 10:00:00'", 1+r.IntN(4))))
	})
	insert("v", 18, func(int) string {
		return fmt.Sprintf("'%s', %s, %s, %s", texts[r.IntN(len(texts))], i(), i(), s())
	})
	insert("k", 16, func(n int) string { return fmt.Sprintf("%d, '%s', %s, %s", n/4, texts[n%4], i(), s()) })
	insert("l", 20, func(int) string {
		return fmt.Sprintf("%d, '%s', %s, %s", r.IntN(5), texts[r.IntN(4)], i(), i())
	})
	insert("m", 16, func(int) string { return fmt.Sprintf("'%s', %s, %s", numbers[r.IntN(len(numbers))], i(), s()) })
	insert("r", 8, func(n int) string { return fmt.Sprintf("%d, %s, %s", n, i(), s()) })
	insert("g", 6, func(n int) string { return fmt.Sprintf("%d, %s, %s", n, i(), s()) })
	return out
}
