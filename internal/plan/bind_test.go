package plan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// testMap is an even map of 16 shards, so that keys rarely share one.
func testMap(t testing.TB) *sharding.Map {
	t.Helper()
	var ids []sharding.ShardID
	for i := range 16 {
		ids = append(ids, sharding.ShardID(fmt.Sprintf("s%d", i)))
	}
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, ids)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func lexed(sql string) *Args {
	var s sqltext.Statement
	s.Lex(sql)
	return &Args{SQL: sql, Literals: s.Literals}
}

// numberArgs is a text that is nothing but a numeric literal.
func numberArgs(text string) *Args {
	return &Args{SQL: text, Literals: []sqltext.Literal{{Class: sqltext.ClassNumeric, End: len(text)}}}
}

func param(i int, t sharding.KeyType, valueType uint32) Source {
	return Source{Kind: Param, Index: i, Type: t, ValueType: valueType, Typmod: -1}
}

// want is the shards of single-column keys.
func want(m *sharding.Map, vals ...sharding.Value) []int {
	var out []int
	for _, v := range vals {
		out = append(out, m.ShardOf(v))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func be(n int, v int64) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(v))
	return b[8-n:]
}

// intArray is an int4 array in binary format; nil elements are NULL.
func intArray(elems ...any) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = binary.BigEndian.AppendUint32(b, oidInt4)
	b = binary.BigEndian.AppendUint32(b, uint32(len(elems)))
	b = binary.BigEndian.AppendUint32(b, 1)
	for _, e := range elems {
		if e == nil {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		}
		b = binary.BigEndian.AppendUint32(b, 4)
		b = append(b, be(4, int64(e.(int)))...)
	}
	return b
}

func TestBind(t *testing.T) {
	m := testMap(t)
	i := sharding.Int
	text := sharding.Text
	integer := func(k SourceKind, assign bool, column uint32) Source {
		return Source{Kind: k, Type: sharding.KeyInteger, Column: column, ValueType: oidInt4, Assign: assign, Typmod: -1}
	}
	word := func(assign bool, n int32) Source {
		return Source{Kind: Literal, Type: sharding.KeyText, Column: oidVarchar, Assign: assign, Typmod: n + typmodHeader}
	}
	for _, c := range []struct {
		name string
		src  Source
		args *Args
		want []int
	}{
		{"int literal", integer(Literal, false, oidInt4), lexed("SELECT a FROM t WHERE id = 42"), want(m, i(42))},
		{"string for int", integer(Literal, false, oidInt4), lexed("SELECT a FROM t WHERE id = ' 42 '"), want(m, i(42))},
		{"int beyond the column, compared", integer(Literal, false, oidInt4), lexed("SELECT a FROM t WHERE id = 3000000000"), want(m, i(3000000000))},
		{"int beyond the column, stored", integer(Literal, true, oidInt4), lexed("SELECT a FROM t WHERE id = 3000000000"), nil},
		{"smallint, stored", integer(Literal, true, oidInt2), lexed("SELECT a FROM t WHERE id = 40000"), nil},
		{"fraction, stored", integer(Literal, true, oidInt4), lexed("SELECT a FROM t WHERE id = 2.5"), want(m, i(3))},
		{"fraction below, stored", integer(Literal, true, oidInt4), lexed("SELECT a FROM t WHERE id = 2.499"), want(m, i(2))},
		{"exponent, stored", integer(Literal, true, oidInt8), lexed("SELECT a FROM t WHERE id = 1.5e3"), want(m, i(1500))},
		{"absurd exponent, stored", integer(Literal, true, oidInt8), lexed("SELECT a FROM t WHERE id = 1e999999999"), nil},
		{"hexadecimal", integer(Literal, true, oidInt8), numberArgs("0x1F"), want(m, i(31))},
		{"underscores", integer(Literal, true, oidInt8), numberArgs("1_000"), want(m, i(1000))},
		{"no number", integer(Literal, false, oidInt4), lexed("SELECT a FROM t WHERE id = 'x'"), nil},
		{"text", word(false, 20), lexed("SELECT a FROM t WHERE id = 'it''s'"), want(m, text("it's"))},
		{"escaped text", word(false, 20), lexed(`SELECT a FROM t WHERE id = E'a\tb'`), want(m, text("a\tb"))},
		{"dollar text", word(false, 20), lexed("SELECT a FROM t WHERE id = $q$a'b$q$"), want(m, text("a'b"))},
		{"varchar(3), blanks cut when stored", word(true, 3), lexed("SELECT a FROM t WHERE id = 'äbc  '"), want(m, text("äbc"))},
		{"varchar(3), too long when stored", word(true, 3), lexed("SELECT a FROM t WHERE id = 'äbcd'"), nil},
		{"varchar(3), compared as it is", word(false, 3), lexed("SELECT a FROM t WHERE id = 'abc  '"), want(m, text("abc  "))},
		{"text parameter", param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{[]byte("7")}}, want(m, i(7))},
		{"int4 in binary", param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{be(4, -7)}, Formats: []int16{1}}, want(m, i(-7))},
		{"int8 in binary, declared", param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{be(8, -7)}, Formats: []int16{1}, ParamTypes: []uint32{oidInt8}}, want(m, i(-7))},
		{"int2 in binary", param(1, sharding.KeyInteger, oidInt2), &Args{Params: [][]byte{nil, be(2, 5)}, Formats: []int16{0, 1}}, want(m, i(5))},
		{"NULL", param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{nil}}, nil},
		{"wrong length", param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{{1, 2, 3}}, Formats: []int16{1}}, nil},
		{"int8 in binary where int4 was inferred", param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{be(8, 5)}, Formats: []int16{1}}, want(m, i(5))},
		{"text in binary", param(0, sharding.KeyText, oidText), &Args{Params: [][]byte{[]byte("ä")}, Formats: []int16{1}}, want(m, text("ä"))},
		{"array", Source{Kind: ParamArray, Type: sharding.KeyInteger, ValueType: oidInt4}, &Args{Params: [][]byte{[]byte("{1, 2,NULL,3}")}}, want(m, i(1), i(2), i(3))},
		{"array with bounds", Source{Kind: ParamArray, Type: sharding.KeyInteger, ValueType: oidInt4}, &Args{Params: [][]byte{[]byte("[0:1]={1,2}")}}, want(m, i(1), i(2))},
		{"array of two dimensions", Source{Kind: ParamArray, Type: sharding.KeyInteger, ValueType: oidInt4}, &Args{Params: [][]byte{[]byte("{{1,2},{3,4}}")}}, want(m, i(1), i(2), i(3), i(4))},
		{"text array", Source{Kind: ParamArray, Type: sharding.KeyText, ValueType: oidText}, &Args{Params: [][]byte{[]byte(`{a, "b,\"c" ,"NULL",null, d e ,x\ }`)}}, want(m, text("a"), text(`b,"c`), text("NULL"), text("d e"), text("x "))},
		{"array in binary", Source{Kind: ParamArray, Type: sharding.KeyInteger, ValueType: oidInt4}, &Args{Params: [][]byte{intArray(1, nil, 9)}, Formats: []int16{1}}, want(m, i(1), i(9))},
		{"empty array", Source{Kind: ParamArray, Type: sharding.KeyInteger, ValueType: oidInt4}, &Args{Params: [][]byte{[]byte("{}")}}, nil},
		{"NULL array", Source{Kind: ParamArray, Type: sharding.KeyInteger, ValueType: oidInt4}, &Args{Params: [][]byte{nil}}, nil},
		{"array literal", Source{Kind: LiteralArray, Type: sharding.KeyInteger}, lexed("SELECT a FROM t WHERE id = ANY('{4,5}')"), want(m, i(4), i(5))},
		{"array literal of texts", Source{Kind: LiteralArray, Type: sharding.KeyText}, lexed("SELECT a FROM t WHERE id = ANY('{it''s,\"\"}')"), want(m, text("it's"), text(""))},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &Route{Kind: Keyed, Keys: []Key{{c.src}}}
			got, err := r.Bind(nil, c.args, m)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestBindNegativeLiteral(t *testing.T) {
	m := testMap(t)
	for sql, v := range map[string]int64{"SELECT a FROM t WHERE id = -7": -7, "SELECT a FROM t WHERE id = - 9223372036854775807": -1<<63 + 1} {
		a := lexed(sql)
		if len(a.Literals) != 1 || !a.Literals[0].Negative {
			t.Fatalf("%s: the literal is not negative: %+v", sql, a.Literals)
		}
		r := &Route{Kind: Keyed, Keys: []Key{{{Kind: Literal, Type: sharding.KeyInteger, Typmod: -1}}}}
		got, err := r.Bind(nil, a, m)
		if err != nil || !slices.Equal(got, want(m, sharding.Int(v))) {
			t.Errorf("%s: got %v, %v", sql, got, err)
		}
	}
}

func TestBindErrors(t *testing.T) {
	m := testMap(t)
	bind := func(s Source, a *Args) error {
		_, err := (&Route{Kind: Keyed, Keys: []Key{{s}}}).Bind(nil, a, m)
		return err
	}
	for name, c := range map[string]struct {
		err  error
		code string
	}{
		"a parameter of another family": {bind(param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{[]byte("1")}, ParamTypes: []uint32{1700}}), "0A000"},
		"no such parameter":             {bind(param(3, sharding.KeyInteger, oidInt4), &Args{}), "08P01"},
		"an integer as PostgreSQL 16":   {bind(param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{[]byte("0x1F")}}), "22P02"},
		"an array of another family":    {bind(Source{Kind: ParamArray, Type: sharding.KeyText}, &Args{Params: [][]byte{intArray(1)}, Formats: []int16{1}}), "0A000"},
	} {
		var e *pgerr.Error
		if !errors.As(c.err, &e) || e.Code != c.code {
			t.Errorf("%s: got %v, want SQLSTATE %s", name, c.err, c.code)
		}
	}
	err := bind(param(0, sharding.KeyInteger, oidInt4), &Args{Params: [][]byte{[]byte("1")}, ParamTypes: []uint32{1700}})
	if e := pgerr.From(err); e.ShardingCode != pgerr.IndeterminateKey.Code {
		t.Errorf("got code %s, want %s", e.ShardingCode, pgerr.IndeterminateKey.Code)
	}
}

func TestBindComposite(t *testing.T) {
	m := testMap(t)
	k := Key{
		{Kind: ParamArray, Index: 0, Type: sharding.KeyText, ValueType: oidText},
		{Kind: ParamArray, Index: 1, Type: sharding.KeyInteger, ValueType: oidInt4},
	}
	a := &Args{Params: [][]byte{[]byte("{a,b}"), []byte("{1,2}")}}
	got, err := (&Route{Kind: Keyed, Keys: []Key{k}}).Bind(nil, a, m)
	var w []int
	for _, s := range []string{"a", "b"} {
		for _, n := range []int64{1, 2} {
			w = append(w, m.ShardOf(sharding.Text(s), sharding.Int(n)))
		}
	}
	slices.Sort(w)
	if w = slices.Compact(w); err != nil || !slices.Equal(got, w) {
		t.Errorf("got %v, %v, want %v", got, err, w)
	}
}

func TestBindTooManyKeys(t *testing.T) {
	elems := "{1" + strings.Repeat(",1", 300) + "}"
	k := Key{
		{Kind: ParamArray, Index: 0, Type: sharding.KeyInteger, ValueType: oidInt4},
		{Kind: ParamArray, Index: 0, Type: sharding.KeyInteger, ValueType: oidInt4},
	}
	_, err := (&Route{Kind: Keyed, Keys: []Key{k}}).Bind(nil, &Args{Params: [][]byte{[]byte(elems)}}, testMap(t))
	if !pgerr.Has(err, pgerr.ProgramLimitExceeded) {
		t.Errorf("got %v, want SQLSTATE 54000", err)
	}
}

func TestBindFixed(t *testing.T) {
	m := testMap(t)
	r := &Route{Kind: Keyed, Keys: []Key{{param(0, sharding.KeyInteger, oidInt4)}}, Fixed: Key{param(1, sharding.KeyInteger, oidInt4)}}
	if _, err := r.Bind(nil, &Args{Params: [][]byte{[]byte("4"), []byte(" 4")}}, m); err != nil {
		t.Errorf("the same key: %v", err)
	}
	for _, p := range [][][]byte{{[]byte("4"), []byte("5")}, {[]byte("4"), nil}, {[]byte("4"), []byte("x")}} {
		if _, err := r.Bind(nil, &Args{Params: p}, m); pgerr.From(err).ShardingCode != pgerr.ShardKeyUpdate.Code {
			t.Errorf("%q: got %v, want %s", p, err, pgerr.ShardKeyUpdate.Code)
		}
	}
}

func TestRouteKinds(t *testing.T) {
	m := testMap(t)
	if got, _ := (&Route{Kind: All}).Bind(nil, &Args{}, m); len(got) != 16 {
		t.Errorf("All gives %v", got)
	}
	for _, k := range []RouteKind{None, Home, Any, Rows} {
		if got, _ := (&Route{Kind: k}).Bind(nil, &Args{}, m); len(got) != 0 {
			t.Errorf("%d gives %v", k, got)
		}
	}
}

func TestBindDoesNotAllocate(t *testing.T) {
	m := testMap(t)
	a := lexed("SELECT a FROM t WHERE a = 'some text' AND b = 42")
	a.Params, a.Formats = [][]byte{be(4, 5)}, []int16{1}
	r := &Route{Kind: Keyed, Keys: []Key{
		{{Kind: Literal, Index: 0, Type: sharding.KeyText, Typmod: -1}, {Kind: Literal, Index: 1, Type: sharding.KeyInteger, Typmod: -1}},
		{param(0, sharding.KeyInteger, oidInt4)},
	}}
	dst := make([]int, 0, 16)
	n := testing.AllocsPerRun(100, func() {
		if _, err := r.Bind(dst, a, m); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkBind(b *testing.B) {
	m := testMap(b)
	a := lexed("SELECT abalance FROM pgbench_accounts WHERE aid = 42")
	r := &Route{Kind: Keyed, Keys: []Key{{{Kind: Literal, Index: 0, Type: sharding.KeyInteger, Typmod: -1}}}}
	dst := make([]int, 0, 16)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Bind(dst, a, m); err != nil {
			b.Fatal(err)
		}
	}
}

func TestRows(t *testing.T) {
	m := testMap(t)
	sql := "INSERT INTO t VALUES (1, 'a'), ($1, 'b'), (3, 'c'), ('x', 'd') RETURNING id"
	a := lexed(sql)
	a.Params = [][]byte{[]byte("2")}
	lit := func(i int) Key {
		return Key{{Kind: Literal, Index: i, Type: sharding.KeyInteger, Column: oidInt4, Assign: true, Typmod: -1}}
	}
	p := &Plan{Insert: &Insert{}}
	keys := []Key{lit(0), {param(0, sharding.KeyInteger, oidInt4)}, lit(3), lit(5)}
	at := 0
	for _, k := range keys {
		start := at + strings.IndexByte(sql[at:], '(')
		end := start + strings.IndexByte(sql[start:], ')') + 1
		p.Insert.Rows = append(p.Insert.Rows, InsertRow{start, end, k})
		at = end
	}
	var split RowSplit
	if err := p.BindRows(&split, a, m); err != nil {
		t.Fatal(err)
	}
	if w := want(m, sharding.Int(1), sharding.Int(2), sharding.Int(3)); !slices.Equal(split.Shards, w) {
		t.Fatalf("shards %v, want %v", split.Shards, w)
	}
	if split.ShardOf[3] != split.Shards[0] {
		t.Errorf("the row that PostgreSQL refuses goes to %d, want %d", split.ShardOf[3], split.Shards[0])
	}
	seen := 0
	for _, s := range split.Shards {
		seen += len(split.Rows(nil, s))
	}
	if seen != 4 {
		t.Errorf("%d rows placed", seen)
	}
	for _, c := range []struct {
		rows []int
		want string
	}{
		{[]int{0}, "INSERT INTO t VALUES (1, 'a') RETURNING id"},
		{[]int{1, 3}, "INSERT INTO t VALUES ($1, 'b'), ('x', 'd') RETURNING id"},
		{[]int{0, 2}, "INSERT INTO t VALUES (1, 'a'), (3, 'c') RETURNING id"},
		{[]int{3}, "INSERT INTO t VALUES ('x', 'd') RETURNING id"},
		{[]int{0, 1, 2, 3}, sql},
		{nil, sql},
	} {
		if got := string(p.AppendText(nil, sql, c.rows, nil)); got != c.want {
			t.Errorf("rows %v: %s\nwant %s", c.rows, got, c.want)
		}
	}
	a.Params[0] = nil
	if err := p.BindRows(&split, a, m); !pgerr.Has(err, pgerr.NotNullViolation) {
		t.Errorf("a NULL key: %v", err)
	}
}

func TestAppendTextTimes(t *testing.T) {
	sql := "INSERT INTO t (a) VALUES (now()), (DEFAULT)"
	p := &Plan{
		Insert: &Insert{Rows: []InsertRow{{Start: 25, End: 32}, {Start: 34, End: 43}}},
		NowEdits: []NowEdit{
			{Start: 26, End: 31, Form: "timestamptz", Precision: -1},
			{Start: 35, End: 42, Form: "date", Precision: -1, Before: "(", After: ")"},
			{Start: 16, End: 16, Precision: -1, Before: ", b"},
		},
	}
	times := &Times{Transaction: "2026-01-02 03:04:05+00"}
	for _, c := range []struct {
		rows []int
		want string
	}{
		{nil, "INSERT INTO t (a, b) VALUES (('2026-01-02 03:04:05+00'::pg_catalog.timestamptz)), (((('2026-01-02 03:04:05+00'::pg_catalog.timestamptz)::pg_catalog.date)))"},
		{[]int{0}, "INSERT INTO t (a, b) VALUES (('2026-01-02 03:04:05+00'::pg_catalog.timestamptz))"},
		{[]int{1}, "INSERT INTO t (a, b) VALUES (((('2026-01-02 03:04:05+00'::pg_catalog.timestamptz)::pg_catalog.date)))"},
	} {
		if got := string(p.AppendText(nil, sql, c.rows, times)); got != c.want {
			t.Errorf("rows %v:\n%s\nwant\n%s", c.rows, got, c.want)
		}
	}
	if got := string(p.AppendText(nil, sql, nil, nil)); got != sql {
		t.Errorf("without times: %s", got)
	}
}

func TestCopyShard(t *testing.T) {
	m := testMap(t)
	c := &CopyPlan{Key: []Source{{Type: sharding.KeyInteger, Column: oidInt4, Assign: true, Typmod: -1}}}
	if got, err := c.Shard([][]byte{[]byte(" 13 ")}, m); err != nil || got != m.ShardOf(sharding.Int(13)) {
		t.Errorf("got %d, %v", got, err)
	}
	if got, err := c.Shard([][]byte{[]byte("x")}, m); err != nil || got != -1 {
		t.Errorf("a bad value: %d, %v", got, err)
	}
	if _, err := c.Shard([][]byte{nil}, m); !pgerr.Has(err, pgerr.NotNullViolation) {
		t.Errorf("NULL: %v", err)
	}
}

func FuzzArray(f *testing.F) {
	for _, s := range []string{"{1,2}", `{"a\"b",NULL}`, "[1:2]={1,2}", "{{1},{2}}", "{", "\\", `{"`} {
		f.Add(s)
	}
	m := testMap(f)
	f.Fuzz(func(t *testing.T, s string) {
		for _, kt := range []sharding.KeyType{sharding.KeyInteger, sharding.KeyText} {
			r := &Route{Kind: Keyed, Keys: []Key{{{Kind: ParamArray, Type: kt}}}}
			for _, format := range []int16{0, 1} {
				_, _ = r.Bind(nil, &Args{Params: [][]byte{[]byte(s)}, Formats: []int16{format}}, m)
			}
		}
	})
}
