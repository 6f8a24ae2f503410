package router_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

const binaryHeader = "PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// ints is rows of a COPY in binary.
func ints(rows ...[]int32) string {
	var b []byte
	for _, row := range rows {
		b = binary.BigEndian.AppendUint16(b, uint16(len(row)))
		for _, v := range row {
			b = binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(v))
		}
	}
	return string(b)
}

// TestRouterCopyBinary compares COPY in binary with PostgreSQL's, message by message.
func TestRouterCopyBinary(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	a, b := eightRows(t, c)
	in := func(sql string, data ...string) []pgproto3.FrontendMessage {
		ms := q(sql)
		for _, d := range data {
			ms = append(ms, &pgproto3.CopyData{Data: []byte(d)})
		}
		return append(ms, &pgproto3.CopyDone{})
	}
	const from, head, tail = "COPY t FROM STDIN (FORMAT binary)", binaryHeader, "\xff\xff"
	count := q("SELECT count(*), sum(id), sum(v) FROM t")
	rows := ints([]int32{11, 1}, []int32{12, 2}, []int32{13, 3}, []int32{14, 4})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	compare(t, a, b, []script{
		{"rows", join(in(from, head+rows+tail), count)},
		{"cut anywhere", join(in(from, head[:7], head[7:]+ints([]int32{21, 1})[:3], ints([]int32{21, 1})[3:], tail[:1], tail[1:]), count)},
		{"no trailer", join(in(from, head+ints([]int32{31, 1}, []int32{32, 1})), count)},
		{"no rows", join(in(from, head+tail), in(from, head), count)},
		{"columns in another order", join(in("COPY t (v, id) FROM STDIN WITH BINARY", head+ints([]int32{5, 41}, []int32{6, 42})+tail), count)},
		{"NULLs", join(in(from, head+"\x00\x02\x00\x00\x00\x04\x00\x00\x00\x33\xff\xff\xff\xff"+tail), count)},
		{"no header", join(in(from, rows+tail), count)},
		{"nothing", join(in(from), count)},
		{"OIDs", join(in(from, head[:11]+"\x00\x01\x00\x00\x00\x00\x00\x00"+rows), count)},
		{"field count", join(in(from, head+ints([]int32{61, 1}, []int32{62})+tail), count)},
		{"a field's size", join(in(from, head+ints([]int32{61, 1})+"\x00\x02\xff\xff\xff\xf0"), count)},
		{"a value's size", join(in(from, head+ints([]int32{61, 1})+"\x00\x02\x00\x00\x00\x04\x00\x00\x00\x3e\x00\x00\x00\x02\x00\x01"+tail), count)},
		{"a key's size", join(in(from, head+ints([]int32{61, 1})+"\x00\x02\x00\x00\x00\x02\x00\x3e\x00\x00\x00\x04\x00\x00\x00\x01"+tail), count)},
		{"cut off", join(in(from, head+rows[:len(rows)-3]), count)},
		{"behind the trailer", join(in(from, head+ints([]int32{61, 1})+tail+rows), count)},
		{"a duplicate", join(in(from, head+ints([]int32{61, 1}, []int32{62, 1}, []int32{1, 1})+tail), count)},
		{"the client gives up", join(q(from), []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte(head + rows)}, &pgproto3.CopyFail{Message: "no"}}, count)},
		{"a Flush within", join(q("BEGIN"), []pgproto3.FrontendMessage{&pgproto3.Query{String: from}, &pgproto3.CopyData{Data: []byte(head + rows)}, &pgproto3.Flush{}, &pgproto3.CopyFail{}}, q("ROLLBACK"), count)},
		{"the extended protocol", join(ext(from), []pgproto3.FrontendMessage{&pgproto3.Flush{}, &pgproto3.CopyData{Data: []byte(head + ints([]int32{71, 1}, []int32{72, 2}) + tail)}, &pgproto3.CopyDone{}}, sync, count)},
		{"in a series", join(in("INSERT INTO t VALUES (81, 0); COPY t FROM STDIN BINARY; INSERT INTO t VALUES (1, 0)", head+ints([]int32{82, 0}, []int32{83, 0})+tail), count)},
		{"a block, a bad row, a savepoint", join(q("BEGIN"), q("SAVEPOINT s"), in(from, head+ints([]int32{91, 1}, []int32{1, 1})+tail), q("ROLLBACK TO s"), in(from, head+ints([]int32{92, 1}, []int32{93, 1})+tail), q("COMMIT"), count)},
		{"out", join(q("COPY t TO STDOUT (FORMAT binary)"), q("BEGIN"), q("COPY (SELECT id FROM t WHERE v = 0) TO STDOUT (FORMAT binary)"), q("COPY (SELECT id FROM t WHERE v = -7) TO STDOUT BINARY"), q("COPY t (v) TO STDOUT BINARY"), q("COMMIT"))},
		{"out, an error", join(q("COPY (SELECT 1 / (v - 3) FROM t) TO STDOUT BINARY"), count)[1:]},
	})
	c.NothingPrepared(t)
}

// TestRouterCopyBinaryTypes copies rows of many types in binary in and out: what
// comes out is what a direct connection's COPY gives.
func TestRouterCopyBinaryTypes(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	_, _ = oracle(t, c, func(direct, routed *pgx.Conn) {
		const columns = "(id text PRIMARY KEY, n bigint, f float8, j jsonb, u uuid, b bytea, a int[], m numeric, z timestamptz)"
		for _, sql := range []string{
			"INSERT INTO s SELECT 'k' || i, i * 1000000007::bigint, i / 3.0, jsonb_build_object('i', i), md5(i::text)::uuid, decode(md5(i::text), 'hex'), ARRAY[i, NULL, -i], i / 7.0, '2026-01-01Z'::timestamptz + i * interval '1 hour' FROM generate_series(1, 500) i"} {
			run(t, direct, "CREATE TABLE s "+columns)
			run(t, direct, sql)
		}
		run(t, routed, "CREATE TABLE s "+columns+" WITH (sharding.key = 'id')")
		run(t, routed, "CREATE TABLE r (id int PRIMARY KEY, v text) WITH (sharding.kind = 'reference')")
		var want, got bytes.Buffer
		ctx := clustertest.Context(t)
		if _, err := direct.PgConn().CopyTo(ctx, &want, "COPY s TO STDOUT BINARY"); err != nil {
			t.Fatal(err)
		}
		if tag, err := routed.PgConn().CopyFrom(ctx, bytes.NewReader(want.Bytes()), "COPY s FROM STDIN BINARY"); err != nil || tag.String() != "COPY 500" {
			t.Fatal(tag, err)
		}
		if tag, err := routed.PgConn().CopyTo(ctx, &got, "COPY s TO STDOUT BINARY"); err != nil || tag.String() != "COPY 500" {
			t.Fatal(tag, err)
		}
		if w, g := tuples(t, want.Bytes()), tuples(t, got.Bytes()); !slices.Equal(w, g) {
			t.Errorf("%d rows went in, %d came out, and they differ", len(w), len(g))
		}
		for i := range 500 {
			if n := one[int64](t, routed, "SELECT n FROM s WHERE id = $1", fmt.Sprintf("k%d", i+1)); n != int64(i+1)*1000000007 {
				t.Fatalf("row k%d has %d", i+1, n)
			}
		}
		n, err := routed.CopyFrom(ctx, pgx.Identifier{"r"}, []string{"id", "v"}, pgx.CopyFromRows([][]any{{1, "one"}, {2, nil}}))
		if err != nil || n != 2 {
			t.Fatal(n, err)
		}
		for _, s := range c.Servers {
			if n := one[int64](t, s.Connect(t, "app"), "SELECT count(*) FROM r"); n != 2 {
				t.Errorf("a copy of a reference table has %d rows", n)
			}
		}
	})
}

// tuples cuts a COPY in binary of nine columns into sorted rows.
func tuples(t *testing.T, b []byte) (out []string) {
	t.Helper()
	if string(b[:len(binaryHeader)]) != binaryHeader || string(b[len(b)-2:]) != "\xff\xff" {
		t.Fatal("no header, or no trailer")
	}
	for b = b[len(binaryHeader):]; len(b) > 2; {
		n := 2
		for range binary.BigEndian.Uint16(b) {
			n += 4 + max(0, int(int32(binary.BigEndian.Uint32(b[n:]))))
		}
		out, b = append(out, string(b[:n])), b[n:]
	}
	slices.Sort(out)
	return out
}

// TestRouterCopyEndMarkers: where the data of a COPY ends is for the server's version
// to say: PostgreSQL 18 takes \\. in CSV as data, and in text only alone on its line.
func TestRouterCopyEndMarkers(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
		run(t, direct, "CREATE TABLE e (id text PRIMARY KEY, v text)")
		run(t, routed, "CREATE TABLE e (id text PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	})
	in := func(sql, data string) []pgproto3.FrontendMessage {
		return append(q(sql), &pgproto3.CopyData{Data: []byte(data)}, &pgproto3.CopyDone{})
	}
	count := q("SELECT count(*) FROM e")
	compare(t, a, b, []script{
		{"CSV, data behind", join(in("COPY e FROM STDIN CSV", "a,1\nb,2\n\\.\nc,3\n"), count)},
		{"CSV, as a value", join(in("COPY e FROM STDIN CSV", "d,\\.\n\\.,5\n"), count, q(`SELECT v FROM e WHERE id = '\.'`))},
		{"text, alone", join(in("COPY e FROM STDIN", "f\t1\n\\.\ng\t2\n"), count)},
		{"text, behind data", join(in("COPY e FROM STDIN", "h\t1\ni\t2\\.\n"), count)},
		{"text, data behind it", join(in("COPY e FROM STDIN", "k\t1\n\\.x\n"), count)},
	})
}
