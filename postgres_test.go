package sharding

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// bounded gives a test's statements two minutes: generous, since test machines
// are slow.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// randomKey is a key of any type: numbers of every magnitude, texts and byteas
// of 0 to 300 bytes.
func randomKey(r *rand.Rand, typ KeyType) Value {
	switch typ {
	case KeyInteger:
		return Int(int64(r.Uint64()) >> r.IntN(64))
	case KeyUUID:
		return Value{typ: KeyUUID, hi: r.Uint64(), lo: r.Uint64()}
	case KeyNumeric:
		v, err := ParseValue(KeyNumeric, []byte(randomNumeric(r)))
		if err != nil {
			panic(err)
		}
		return v
	case KeyDate:
		return Date(int32(r.IntN(endDate-minDate) + minDate))
	case KeyTimestamp:
		return Timestamp(int64(r.Uint64N(endTime-minTime)) + minTime)
	case KeyTimestampTZ:
		return TimestampTZ(int64(r.Uint64N(endTime-minTime)) + minTime)
	case KeyBytea:
		b := make([]byte, r.IntN(301))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return Bytea(b)
	}
	var b strings.Builder
	for n := r.IntN(301); b.Len() < n; {
		c := r.Int32N(0x7e) + 1
		if r.IntN(4) == 0 && n-b.Len() >= 4 {
			c = r.Int32N(0x10000-0xe000) + 0xe000
		}
		b.WriteRune(c)
	}
	return Text(b.String())
}

func edgeKeys(typ KeyType) []Value {
	var keys []Value
	switch typ {
	case KeyInteger:
		for _, v := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64, math.MaxInt32, math.MinInt32, math.MaxUint32, -math.MaxUint32} {
			keys = append(keys, Int(v))
		}
	case KeyUUID:
		keys = append(keys, UUID([16]byte{}))
	case KeyNumeric:
		for _, s := range []string{"0", "NaN", "inf", "-inf", "1e131071", "1e-16383", "-1", "10000", strings.Repeat("9", 999)} {
			v, err := ParseValue(KeyNumeric, []byte(s))
			if err != nil {
				panic(err)
			}
			keys = append(keys, v)
		}
	case KeyDate:
		keys = append(keys, Date(0), Date(-1), Date(dateInf), Date(dateNegInf), Date(minDate), Date(endDate-1))
	case KeyTimestamp, KeyTimestampTZ:
		for _, n := range []int64{0, -1, timeInf, timeNegInf, minTime, endTime - 1} {
			keys = append(keys, Value{typ: typ, lo: uint64(n)})
		}
	case KeyText:
		for n := range 301 {
			keys = append(keys, Text(strings.Repeat("x", n)))
		}
		keys = append(keys, Text("\U0001F600"), Text("\U0010FFFF"))
	case KeyBytea:
		for n := range 301 {
			keys = append(keys, Bytea(make([]byte, n)))
		}
	}
	return keys
}

// TestPostgresHashesAgree compares every type's hash with a server's, over
// edges, random values and random seeds, half of them negative.
func TestPostgresHashesAgree(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	r := rand.New(rand.NewPCG(1, 2))
	for typ, sql := range map[KeyType]string{
		KeyInteger: "hashint8extended(v::int8, seed)",
		KeyText:    "hashtextextended(v, seed)",
		KeyUUID:    "uuid_hash_extended(v::uuid, seed)",
		KeyBytea:   "hash_record_extended(ROW(v::bytea), seed)",
		KeyNumeric: "hash_numeric_extended(v::numeric, seed)",
		// By the operator class that hash partitions go by, whatever its function.
		KeyDate:        "hash_record_extended(ROW(v::date), seed)",
		KeyTimestamp:   "hash_record_extended(ROW(v::timestamp), seed)",
		KeyTimestampTZ: "hash_record_extended(ROW(v::timestamptz), seed)",
	} {
		keys := edgeKeys(typ)
		for len(keys) < 3000 {
			keys = append(keys, randomKey(r, typ))
		}
		texts, seeds := make([]string, len(keys)), make([]int64, len(keys))
		for i, k := range keys {
			texts[i] = k.String()
			if i%5 > 0 {
				seeds[i] = int64(r.Uint64()) >> r.IntN(64)
			}
		}
		want := collect[int64](t, conn, "SELECT "+sql+
			" FROM unnest($1::text[], $2::int8[]) WITH ORDINALITY u(v, seed, n) ORDER BY n", texts, seeds)
		if len(want) != len(keys) {
			t.Fatalf("%s: %d hashes of %d keys", typ, len(want), len(keys))
		}
		for i := range keys {
			if got := int64(hashPostgres(&keys[i], uint64(seeds[i]))); got != want[i] {
				t.Fatalf("%s of %q with seed %d: %d, PostgreSQL has %d", typ, texts[i], seeds[i], got, want[i])
			}
		}
	}
}

func collect[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	rows, err := conn.Query(bounded(t), sql, args...)
	if err != nil {
		t.Fatalf("%v\nin %s", err, sql)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%v\nin %s", err, sql)
	}
	return got
}

// TestIntegerWidthsAgree: a key may be an int2 in one table, an int8 in another.
func TestIntegerWidthsAgree(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	for v := math.MinInt16; v <= math.MaxInt16; v += 257 {
		var got [3]int64
		err := conn.QueryRow(bounded(t), "SELECT hashint2extended($1::int2, 7), hashint4extended($1, 7), hashint8extended($1, 7)", v).
			Scan(&got[0], &got[1], &got[2])
		want := int64(pgHashInt8(int64(v), 7))
		if err != nil || got != [3]int64{want, want, want} {
			t.Fatalf("%d: %v, %v; want %d", v, got, err, want)
		}
	}
}

// TestExpressionsAgree: the SQL that we hand out computes what Hash and Vnode
// do, over real columns of every type, alone and composite.
func TestExpressionsAgree(t *testing.T) {
	srv := pgtest.Shared(t)
	conn := srv.Connect(t, srv.CreateDatabase(t))
	ctx := bounded(t)
	if _, err := conn.Exec(ctx, `CREATE TABLE k (n serial, s int2, i int4, "Big" int8, "order" text, v varchar(400), u uuid, b bytea, "N" numeric, d date, ts timestamp, tz timestamptz)`); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	columns := []KeyColumn{{"s", KeyInteger}, {"i", KeyInteger}, {"Big", KeyInteger}, {"order", KeyText}, {"v", KeyText}, {"u", KeyUUID}, {"b", KeyBytea},
		{"N", KeyNumeric}, {"d", KeyDate}, {"ts", KeyTimestamp}, {"tz", KeyTimestampTZ}}
	rows := make([][]Value, 300)
	for i := range rows {
		args := make([]any, len(columns))
		for j, c := range columns {
			v := randomKey(r, c.Type)
			if c.Name == "s" {
				v = Int(int64(int16(v.lo)))
			}
			if c.Name == "i" {
				v = Int(int64(int32(v.lo)))
			}
			if typ := c.Type; typ >= KeyNumeric && i < len(edgeKeys(typ)) {
				v = edgeKeys(typ)[i]
			}
			rows[i] = append(rows[i], v)
			args[j] = v.String()
		}
		if _, err := conn.Exec(ctx, "INSERT INTO k (s, i, \"Big\", \"order\", v, u, b, \"N\", d, ts, tz) VALUES ($1::text::int2, $2::text::int4, $3::text::int8, $4, $5, $6::text::uuid, $7::text::bytea, $8::text::numeric, $9::text::date, $10::text::timestamp, $11::text::timestamptz)", args...); err != nil {
			t.Fatal(err)
		}
	}
	for _, pick := range [][]int{{0}, {1}, {2}, {3}, {4}, {5}, {6}, {2, 3}, {3, 2}, {5, 6}, {6, 5, 4, 3}, {0, 1, 2, 3, 4, 5, 6}, {7}, {8}, {9}, {10}, {8, 2}, {10, 9, 8, 7, 3}} {
		var key []KeyColumn
		for _, c := range pick {
			key = append(key, columns[c])
		}
		hashes := collect[int64](t, conn, "SELECT "+HashExpression("", key)+" FROM k ORDER BY n")
		vnodes := collect[int64](t, conn, "SELECT "+VnodeExpression("x Y", key, 1024)+` FROM k AS "x Y" ORDER BY n`)
		for i, row := range rows {
			var values []Value
			for _, c := range pick {
				values = append(values, row[c])
			}
			if got := HashPostgres.Hash(values...); int64(got) != hashes[i] || int64(Vnode(got, 1024)) != vnodes[i] {
				t.Fatalf("%v of %v: hash %d, vnode %d; PostgreSQL has %d, %d", key, values, int64(got), Vnode(got, 1024), hashes[i], vnodes[i])
			}
		}
	}
}

// TestVectorsAgreeWithPostgres: the committed file itself is PostgreSQL's word.
func TestVectorsAgreeWithPostgres(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	for _, v := range readVectors(t).Vectors {
		if v.Function != HashPostgres {
			continue
		}
		var key []KeyColumn
		var selects []string
		for i, typ := range v.Types {
			name := fmt.Sprintf("c%d", i)
			key = append(key, KeyColumn{name, typ})
			sqlType := typ.String()
			if typ == KeyInteger {
				sqlType = "bigint"
			}
			selects = append(selects, fmt.Sprintf("'%s'::%s AS %s", strings.ReplaceAll(v.Values[i], "'", "''"), sqlType, name))
		}
		sql := "SELECT to_hex(" + HashExpression("", key) + "), " + VnodeExpression("", key, 256) + " FROM (SELECT " + strings.Join(selects, ", ") + ") s"
		var hash string
		var vnode int
		if err := conn.QueryRow(bounded(t), sql).Scan(&hash, &vnode); err != nil {
			t.Fatalf("%v\nin %s", err, sql)
		}
		if fmt.Sprintf("%016s", hash) != v.Hash || vnode != v.Vnode {
			t.Errorf("%v %q: PostgreSQL has %s, vnode %d; the vector %s, %d", v.Types, v.Values, hash, vnode, v.Hash, v.Vnode)
		}
	}
}

// TestParseValueAgrees: what PostgreSQL takes as a value we take, as the same
// value, and what it refuses we refuse with the same SQLSTATE. Forms that only
// PostgreSQL 16 and later take are left out.
func TestParseValueAgrees(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	r := rand.New(rand.NewPCG(5, 6))
	alphabets := map[KeyType]string{
		KeyInteger: "0123456789 \t\n\v\f\r+-9x.e\u00a0",
		KeyUUID:    "0123456789abcdefABCDEF{}-- g",
		KeyBytea:   "\\\\\\x0123456789abcdefABCDEF \t\n\r\vé",
	}
	seeds := map[KeyType][]string{
		KeyInteger: {"9223372036854775807", "-9223372036854775808", " 42 ", ""},
		KeyUUID:    {"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "A0EE-BC99-9C0B-4EF8-BB6D-6BB9-BD38-0A11"},
		KeyBytea:   {`\xdeadbeef`, `\x de ad`, `a\\b\001\377`, "abc", ""},
	}
	types := map[KeyType]string{KeyInteger: "int8", KeyUUID: "uuid", KeyBytea: "bytea"}
	for typ, alphabet := range alphabets {
		letters := []rune(alphabet)
		accepted := 0
		for i := range 1500 {
			in := []rune(seeds[typ][i%len(seeds[typ])])
			for range r.IntN(3) {
				at := r.IntN(len(in) + 1)
				drop := min(r.IntN(2), len(in)-at)
				in = append(in[:at:at], append([]rune{letters[r.IntN(len(letters))]}, in[at+drop:]...)...)
			}
			if parseAgrees(t, conn, typ, types[typ], string(in)) {
				accepted++
			}
		}
		if accepted < 100 || accepted > 1400 {
			t.Errorf("%s: %d of 1500 inputs are accepted: the test tests one side only", typ, accepted)
		}
	}
}

// parseAgrees compares one input; true if it is a value.
func parseAgrees(t *testing.T, conn *pgx.Conn, typ KeyType, sqlType, in string) bool {
	t.Helper()
	got, ourErr := ParseValue(typ, []byte(in))
	send := map[KeyType]string{KeyInteger: "int8send", KeyUUID: "uuid_send", KeyBytea: "byteasend"}[typ]
	var binary []byte
	err := conn.QueryRow(context.Background(), "SELECT "+send+"($1::text::"+sqlType+")", in).Scan(&binary)
	var pgErr *pgconn.PgError
	if err != nil && !errors.As(err, &pgErr) {
		t.Fatalf("%q as %s: %v", in, sqlType, err)
	}
	if pgErr != nil {
		var ve *ValueError
		if !errors.As(ourErr, &ve) || ve.Code != pgErr.Code {
			t.Errorf("%q as %s: %v, %v; PostgreSQL has %v", in, sqlType, got, ourErr, pgErr)
		} else if ve.Message != pgErr.Message {
			t.Errorf("%q as %s: we say %q, PostgreSQL %q", in, sqlType, ve.Message, pgErr.Message)
		}
		return false
	}
	if ourErr != nil || hex.EncodeToString(got.AppendBinary(nil)) != hex.EncodeToString(binary) {
		t.Errorf("%q as %s: %v, %v; PostgreSQL has %x", in, sqlType, got, ourErr, binary)
	}
	return true
}

func TestQuoteIdentifierAgrees(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	words := collect[string](t, conn, "SELECT word FROM pg_get_keywords()")
	words = append(words, "a", "A", "a b", `a"b`, "1a", "a1", "_a", "a$", "é", "", "Order")
	want := collect[string](t, conn, "SELECT quote_ident(w) FROM unnest($1::text[]) WITH ORDINALITY u(w, n) ORDER BY n", words)
	for i, w := range words {
		// Words that newer servers reserve may be quoted by us alone.
		if got := QuoteIdentifier(w); got != want[i] && !keyWords[w] {
			t.Errorf("QuoteIdentifier(%q) = %s, PostgreSQL has %s", w, got, want[i])
		}
	}
}
