package router_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// numbered are values with OIDs of users' types inside, as expressions, by the types
// of the columns that hold them; "" is for those that no column can hold.
var numbered = []struct{ column, typ, value string }{
	{"m", "mood", "'ok'::mood"},
	{"ms", "mood[]", "'{{sad,happy},{ok,NULL}}'::mood[]"},
	{"none", "mood[]", "'{}'::mood[]"},
	{"null", "mood[]", "NULL::mood[]"},
	{"p", "pair", "'(1,ok)'::pair"},
	{"ps", "pair[]", `'{"(1,ok)","(,)",NULL,"(3,sad)"}'::pair[]`},
	{"n", "nest", `ROW(7, '(1,ok)', '{sad,happy}', ARRAY['(2,sad)'::pair], 'x')::nest`},
	{"s", "small", "5::small"},
	{"ss", "small[]", "'{1,2,NULL}'::small[]"},
	{"dm", "moods", "'{ok,sad}'::moods"},
	{"dms", "moods[]", `'{"{ok,sad}","{happy}"}'::moods[]`},
	{"dp", "goodpair", "'(1,ok)'::goodpair"},
	{"dps", "goodpair[]", "ARRAY['(1,ok)'::goodpair]"},
	{"r", "moodrange", "'[sad,happy)'::moodrange"},
	{"rs", "moodrange[]", "'{\"[sad,happy)\",empty,\"(,ok]\"}'::moodrange[]"},
	{"pr", "pairrange", `pairrange('(1,ok)'::pair, '(2,sad)'::pair, '[]')`},
	{"prs", "pairrange[]", `ARRAY[pairrange('(1,ok)'::pair, NULL), 'empty', pairrange('(1,ok)'::pair, '(2,sad)'::pair)]`},
	{"i", "int[]", "'{1,2}'::int[]"},
	{"", "", "ROW(1, 'ok'::mood, ROW('(1,ok)'::pair, ARRAY['sad'::mood]), NULL, 'x'::text)"},
	{"", "", "ARRAY[ROW(1, 'ok'::mood), ROW(2, 'sad'::mood)]"},
	{"", "", "array_fill('happy'::mood, ARRAY[3000])"},
}

// makeNumbered makes the types and a table o of 16 rows.
func makeNumbered(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) (columns, values []string) {
	t.Helper()
	for _, sql := range []string{
		"CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
		"CREATE TYPE pair AS (a int, m mood)",
		"CREATE DOMAIN small AS int CHECK (VALUE < 1000)",
		"CREATE DOMAIN moods AS mood[]",
		"CREATE DOMAIN goodpair AS pair",
		"CREATE TYPE nest AS (s small, p pair, ms mood[], ps pair[], t text)",
		"CREATE TYPE moodrange AS RANGE (subtype = mood)",
		"CREATE TYPE pairrange AS RANGE (subtype = pair)",
	} {
		run(t, conn, sql)
	}
	defs := []string{"id int PRIMARY KEY"}
	for _, n := range numbered {
		if n.column != "" {
			columns, defs = append(columns, `"`+n.column+`"`), append(defs, `"`+n.column+`" `+n.typ)
			values = append(values, n.value)
		}
	}
	if c.Servers[0].Install.Version >= 14 {
		columns, defs = append(columns, "mr", "pmr"), append(defs, "mr moodmultirange", "pmr pairmultirange")
		values = append(values, "'{[sad,ok),[happy,happy]}'::moodmultirange", "pairmultirange(pairrange('(1,ok)'::pair, '(2,sad)'::pair), pairrange('(3,ok)'::pair, '(4,sad)'::pair))")
	}
	for _, with := range []string{"o", "o2"} {
		run(t, conn, fmt.Sprintf("CREATE TABLE %s (%s) WITH (sharding.key = 'id')", with, strings.Join(defs, ", ")))
	}
	run(t, conn, fmt.Sprintf("CREATE TABLE ref (%s) WITH (sharding.kind = 'reference')", strings.Join(defs, ", ")))
	run(t, conn, fmt.Sprintf("CREATE TABLE here (%s)", strings.Join(defs, ", ")))
	for id := range 16 {
		run(t, conn, fmt.Sprintf("INSERT INTO o VALUES (%d, %s)", id, strings.Join(values, ", ")))
	}
	run(t, conn, fmt.Sprintf("INSERT INTO here VALUES (0, %s)", strings.Join(values, ", ")))
	return columns, values
}

// inBinary yields a statement's one row, all in binary.
func inBinary(t *testing.T, conn *pgx.Conn, sql string, args ...any) [][]byte {
	t.Helper()
	r := conn.PgConn().ExecParams(clustertest.Context(t), fmt.Sprintf(sql, args...), nil, nil, nil, []int16{1}).Read()
	if r.Err != nil || len(r.Rows) != 1 {
		t.Fatalf("%s: %d rows, %v", sql, len(r.Rows), r.Err)
	}
	return r.Rows[0]
}

func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// TestNumbersInBinary: OIDs inside of binary values are the home shard's, whichever
// shard a row comes from and however it is asked for.
func TestNumbersInBinary(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	conn := c.Connect(t, "app")
	columns, values := makeNumbered(t, c, conn)
	home := c.Servers[0].Connect(t, "app")
	t.Run("rows", func(t *testing.T) {
		list := slices.Clone(columns)
		expected := slices.Clone(values)
		for _, n := range numbered {
			if n.column == "" {
				list, expected = append(list, n.value), append(expected, n.value)
			}
		}
		want := inBinary(t, home, "SELECT %s", strings.Join(expected, ", "))
		numbersDiffer := false
		for id := range 16 {
			got := inBinary(t, conn, "SELECT %s FROM o WHERE id = %d", strings.Join(list, ", "), id)
			for i := range want {
				if !bytes.Equal(got[i], want[i]) {
					t.Errorf("id %d, %s:\n%x, on the home shard\n%x", id, list[i], got[i], want[i])
				}
			}
			for _, s := range c.Servers[1:] {
				if r := s.Connect(t, "app").PgConn().ExecParams(clustertest.Context(t), fmt.Sprintf("SELECT ms FROM o WHERE id = %d", id), nil, nil, nil, []int16{1}).Read(); len(r.Rows) == 1 {
					numbersDiffer = numbersDiffer || !bytes.Equal(r.Rows[0][0], want[1])
				}
			}
		}
		if !numbersDiffer {
			t.Error("the shards number alike: this test shows nothing")
		}
		// A table's row; of several shards; of a write; an aggregate.
		row := inBinary(t, home, "SELECT here, ARRAY[here] FROM here")
		for _, sql := range []string{
			"SELECT o, ARRAY[o::text::here] FROM o WHERE id = 0",
			"UPDATE o SET s = 5 WHERE id = 0 RETURNING o, ARRAY[o::text::here]",
		} {
			if got := inBinary(t, conn, "%s", sql); !same(got, row) {
				t.Errorf("%s:\n%x, on the home shard\n%x", sql, got, row)
			}
		}
		all := conn.PgConn().ExecParams(clustertest.Context(t), "SELECT "+strings.Join(columns, ", ")+" FROM o", nil, nil, nil, []int16{1}).Read()
		if all.Err != nil || len(all.Rows) != 16 {
			t.Fatalf("%d rows, %v", len(all.Rows), all.Err)
		}
		for i, r := range all.Rows {
			if !same(r, want[:len(columns)]) {
				t.Errorf("row %d of several shards: %x", i, r)
			}
		}
	})
	t.Run("messages", func(t *testing.T) { numbersInMessages(t, c, home) })
	t.Run("parameters", func(t *testing.T) { numbersInParameters(t, conn, home, columns) })
	t.Run("copy", func(t *testing.T) { numbersInCopy(t, c, conn, home, columns) })
	t.Run("pgx", func(t *testing.T) { numbersInPgx(t, conn) })
}

// numbersInMessages asks by messages as drivers do that have described a statement
// before, or never: rows come without a description.
func numbersInMessages(t *testing.T, c *clustertest.Cluster, home *pgx.Conn) {
	want := inBinary(t, home, "SELECT '{{sad,happy},{ok,NULL}}'::mood[]")[0]
	text := []byte("{{sad,happy},{ok,NULL}}")
	w := hijack(t, c.Connect(t, "app"))
	parse := func(name, sql string) pgproto3.FrontendMessage {
		return &pgproto3.Parse{Name: name, Query: sql, ParameterOIDs: []uint32{23}}
	}
	bind := func(portal, stmt string, id int, format int16) pgproto3.FrontendMessage {
		return &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: stmt, Parameters: [][]byte{[]byte(fmt.Sprint(id))}, ResultFormatCodes: []int16{format}}
	}
	execute := func(portal string, max uint32) pgproto3.FrontendMessage {
		return &pgproto3.Execute{Portal: portal, MaxRows: max}
	}
	sync := &pgproto3.Sync{}
	rows := func(ms ...pgproto3.FrontendMessage) [][]byte { return w.values(ms) }
	check := func(what string, got [][]byte, want ...[]byte) {
		t.Helper()
		if !same(got, want) {
			t.Errorf("%s:\n%x, on the home shard\n%x", what, got, want)
		}
	}
	rows(parse("s", "SELECT ms FROM o WHERE id = $1"), parse("plain", "SELECT id, i FROM o WHERE id = $1"), sync)
	i := inBinary(t, home, "SELECT '{1,2}'::int[]")[0]
	for id := range 8 {
		five := binary.BigEndian.AppendUint32(nil, uint32(id))
		check("never described", rows(bind("", "s", id, 1), execute("", 0), sync), want)
		check("in text", rows(bind("", "s", id, 0), execute("", 0), sync), text)
		check("described", rows(&pgproto3.Describe{ObjectType: 'S', Name: "s"}, bind("", "s", id, 1), execute("", 0), sync), want)
		check("the portal described", rows(bind("", "s", id, 1), &pgproto3.Describe{ObjectType: 'P'}, execute("", 0), sync), want)
		check("a plain one between", rows(bind("", "s", id, 1), &pgproto3.Describe{ObjectType: 'P'}, bind("x", "plain", id, 1), execute("x", 0), execute("", 0), sync), five, i, want)
		check("a row at a time", rows(bind("", "s", id, 1), execute("", 1), execute("", 1), sync), want)
		check("a Flush between", rows(bind("", "s", id, 1), &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Flush{}, execute("", 0), bind("", "plain", id, 1), execute("", 0), sync), want, five, i)
		check("two shards in a pipeline", rows(bind("", "s", id, 1), execute("", 0), bind("", "s", id+8, 1), execute("", 0), sync), want, want)
		check("unnamed, never described", rows(parse("", fmt.Sprintf("SELECT ms, %d FROM o WHERE id = $1", id)), bind("", "", id, 1), execute("", 0), sync), want, five)
		check("by SQL cursor", rows(&pgproto3.Query{String: fmt.Sprintf("BEGIN; DECLARE c BINARY CURSOR FOR SELECT ms FROM o WHERE id = %d; FETCH c; COMMIT", id)}), want)
	}
	rows(parse("all", "SELECT ms FROM o WHERE id >= $1"), sync)
	sixteen := slices.Repeat([][]byte{want}, 16)
	check("several shards", rows(bind("", "all", 0, 1), execute("", 0), sync), sixteen...)
	check("several shards, row by row", rows(bind("", "all", 0, 1), execute("", 3), execute("", 5), execute("", 0), sync), sixteen...)
	check("several shards, described", rows(bind("", "all", 0, 1), &pgproto3.Describe{ObjectType: 'P'}, execute("", 0), sync), sixteen...)
	check("several shards, in text", rows(bind("", "all", 0, 0), execute("", 0), sync), slices.Repeat([][]byte{text}, 16)...)
}

// numbersInParameters sends what the home shard would send.
func numbersInParameters(t *testing.T, conn, home *pgx.Conn, columns []string) {
	ctx := clustertest.Context(t)
	want := fmt.Sprint(one[string](t, home, "SELECT here::text FROM here"))
	values := inBinary(t, home, "SELECT * FROM here")
	types := []uint32{23}
	for _, f := range home.PgConn().ExecParams(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM here", nil, nil, nil, nil).Read().FieldDescriptions {
		types = append(types, f.DataTypeOID)
	}
	var params []string
	for i := range values {
		params = append(params, fmt.Sprintf("$%d", i+1))
	}
	insert := "INSERT INTO o2 VALUES (" + strings.Join(params, ", ") + ")"
	prepared, err := conn.PgConn().Prepare(ctx, "ins", insert, nil)
	if err != nil {
		t.Fatal(err)
	}
	for id := range 16 {
		values[0] = binary.BigEndian.AppendUint32(nil, uint32(id))
		var r *pgconn.Result
		if id%2 == 0 {
			r = conn.PgConn().ExecParams(ctx, insert, values, types, []int16{1}, nil).Read()
		} else {
			r = conn.PgConn().ExecPrepared(ctx, prepared.Name, values, []int16{1}, nil).Read()
		}
		if r.Err != nil {
			t.Fatalf("id %d: %v", id, r.Err)
		}
		if got := one[string](t, conn, "SELECT o2::text FROM o2 WHERE id = $1", id); got != strings.Replace(want, "(0,", fmt.Sprintf("(%d,", id), 1) {
			t.Errorf("id %d: %s, wanted %s", id, got, want)
		}
	}
	// To all shards at once.
	values[0] = binary.BigEndian.AppendUint32(nil, 0)
	if r := conn.PgConn().ExecParams(ctx, strings.Replace(insert, "o2", "ref", 1), values, types, []int16{1}, nil).Read(); r.Err != nil {
		t.Fatal(r.Err)
	}
}

// numbersInCopy copies out what the home shard copies out, and in what came out.
func numbersInCopy(t *testing.T, c *clustertest.Cluster, conn, home *pgx.Conn, columns []string) {
	ctx := clustertest.Context(t)
	list := strings.Join(columns, ", ")
	out := func(conn *pgx.Conn, sql string) []string {
		t.Helper()
		var b bytes.Buffer
		if _, err := conn.PgConn().CopyTo(ctx, &b, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return tuples(t, b.Bytes())
	}
	row := out(home, "COPY here ("+list+") TO STDOUT (FORMAT binary)")
	for _, sql := range []string{"COPY o (" + list + ") TO STDOUT (FORMAT binary)", "COPY (SELECT " + list + " FROM o) TO STDOUT (FORMAT binary)"} {
		if got := out(conn, sql); !slices.Equal(got, slices.Repeat(row, 16)) {
			t.Errorf("%s: %x, on the home shard %x", sql, got, row)
		}
	}
	for id := range 8 {
		sql := fmt.Sprintf("COPY (SELECT %s FROM o WHERE id = %d) TO STDOUT (FORMAT binary)", list, id)
		if got := out(conn, sql); !slices.Equal(got, row) {
			t.Errorf("%s: %x, on the home shard %x", sql, got, row)
		}
	}
	run(t, conn, "BEGIN")
	if got := out(conn, "COPY (UPDATE o SET s = 5 WHERE id = 5 RETURNING "+list+") TO STDOUT (FORMAT binary)"); !slices.Equal(got, row) {
		t.Errorf("%x, on the home shard %x", got, row)
	}
	run(t, conn, "ROLLBACK")
	if got := out(conn, "COPY (SELECT ms FROM o WHERE id = -1) TO STDOUT (FORMAT binary)"); len(got) > 0 {
		t.Errorf("of no rows: %x", got)
	}

	var all bytes.Buffer
	if _, err := conn.PgConn().CopyTo(ctx, &all, "COPY o TO STDOUT (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "DELETE FROM o2")
	run(t, conn, "DELETE FROM ref")
	for _, to := range []string{"o2", "ref"} {
		if _, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(all.Bytes()), "COPY "+to+" FROM STDIN (FORMAT binary)"); err != nil {
			t.Fatalf("into %s: %v", to, err)
		}
	}
	sum := "SELECT md5(string_agg(x::text, ';' ORDER BY id)) FROM "
	want := one[string](t, home, sum+"(SELECT g AS id, "+list+" FROM here, generate_series(0, 15) g) x")
	for i, s := range c.Servers {
		if got := one[string](t, s.Connect(t, "app"), sum+"ref x"); got != want {
			t.Errorf("server %d: the copy of the reference table differs", i+1)
		}
	}
	for id := range 16 {
		if w, g := one[string](t, conn, "SELECT o::text FROM o WHERE id = $1", id), one[string](t, conn, "SELECT o2::text FROM o2 WHERE id = $1", id); w != g {
			t.Errorf("id %d: %s came in, %s went out", id, g, w)
		}
	}
}

// numbersInPgx reads and writes arrays and composites as pgx's users do.
func numbersInPgx(t *testing.T, conn *pgx.Conn) {
	ctx := clustertest.Context(t)
	for _, name := range []string{"mood", "mood[]", "pair", "pair[]"} {
		typ, err := conn.LoadType(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		conn.TypeMap().RegisterType(typ)
	}
	type pair struct {
		A *int32
		M *string
	}
	for id := range 16 {
		var moods []string
		var p pair
		var ps []*pair
		if err := conn.QueryRow(ctx, "SELECT dm::mood[], p, ps FROM o WHERE id = $1", id).Scan(&moods, &p, &ps); err != nil {
			t.Fatalf("id %d: %v", id, err)
		}
		if !slices.Equal(moods, []string{"ok", "sad"}) || *p.A != 1 || *p.M != "ok" || len(ps) != 4 || *ps[3].A != 3 || *ps[3].M != "sad" || ps[2] != nil {
			t.Errorf("id %d: %v %v %v", id, moods, p, ps)
		}
		run(t, conn, "UPDATE o SET dm = $2, ps = $3 WHERE id = $1", id, []string{"happy"}, ps[3:])
		if got := one[string](t, conn, "SELECT dm::text || ps::text FROM o WHERE id = $1", id); got != `{happy}{"(3,sad)"}` {
			t.Errorf("id %d: %s", id, got)
		}
	}
}

// TestUnknownTypeInBinary: a value of a type that only an open transaction knows is
// refused in binary, and given as text.
func TestUnknownTypeInBinary(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE o (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	for id := range 16 {
		run(t, conn, fmt.Sprintf("INSERT INTO o VALUES (%d)", id))
	}
	ctx := clustertest.Context(t)
	refused, given := 0, 0
	for id := range 16 {
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		run(t, conn, "CREATE TYPE mine AS ENUM ('x')")
		sql := fmt.Sprintf("SELECT ARRAY['x'::mine] FROM o WHERE id = %d", id)
		r := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read()
		if r.Err != nil || string(r.Rows[0][0]) != "{x}" {
			t.Fatalf("%v %s", r.Err, r.Rows)
		}
		r = conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, []int16{1}).Read()
		switch e, _ := r.Err.(*pgconn.PgError); {
		case r.Err == nil:
			given++ // of the home shard
		case e == nil || e.Code != "0A000" || !strings.HasPrefix(e.Detail, "SH0050"):
			t.Errorf("%v", r.Err)
		default:
			refused++
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
		if n := one[int](t, conn, "SELECT count(*) FROM o"); n != 16 {
			t.Errorf("%d rows afterwards", n)
		}
	}
	if refused == 0 || given == 0 {
		t.Errorf("%d refused, %d given", refused, given)
	}
}

// values sends messages as script does and yields all values of all rows.
func (w *rawClient) values(ms []pgproto3.FrontendMessage) (out [][]byte) {
	w.t.Helper()
	_ = w.c.SetDeadline(time.Now().Add(15 * time.Second))
	ready := 0
	for _, m := range ms {
		w.f.Send(m)
		switch m.(type) {
		case *pgproto3.Sync, *pgproto3.Query:
			ready++
		}
	}
	if err := w.f.Flush(); err != nil {
		w.t.Fatal(err)
	}
	for ready > 0 {
		m, err := w.f.Receive()
		if err != nil {
			w.t.Fatal(err)
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			for _, v := range m.Values {
				out = append(out, bytes.Clone(v))
			}
		case *pgproto3.ErrorResponse:
			w.t.Fatalf("%s: %s", m.Code, m.Message)
		case *pgproto3.ReadyForQuery:
			ready--
		}
	}
	return out
}
