package router_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterOIDs: users' types and tables have the home shard's numbers, whichever
// shard a row comes from; the shards number them differently.
func TestRouterOIDs(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	conn := c.Connect(t, "app")
	for _, sql := range []string{
		"CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
		"CREATE TYPE pair AS (a int, m mood)",
		"CREATE DOMAIN small AS int CHECK (VALUE < 1000)",
		"CREATE TABLE o (id int PRIMARY KEY, m mood, ms mood[], p pair, s small) WITH (sharding.key = 'id')",
	} {
		run(t, conn, sql)
	}
	for id := range 16 {
		run(t, conn, fmt.Sprintf("INSERT INTO o VALUES (%d, 'ok', '{sad,happy}', '(1,ok)', 5)", id))
	}
	ctx := clustertest.Context(t)
	direct := c.Servers[0].Connect(t, "app")
	numbers := func(fields []pgconn.FieldDescription) (out []uint32) {
		for _, f := range fields {
			out = append(out, f.DataTypeOID, f.TableOID)
		}
		return out
	}
	simple := func(conn *pgx.Conn, sql string) []uint32 {
		t.Helper()
		r := conn.PgConn().Exec(ctx, sql)
		var out []uint32
		for r.NextResult() {
			out = numbers(r.ResultReader().FieldDescriptions())
			if _, err := r.ResultReader().Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		return out
	}
	differ := false
	for _, sql := range []string{"SELECT * FROM o WHERE id = %d", "SELECT m, ms, p, s FROM o WHERE id >= %d AND m = 'ok'", "SELECT array_agg(m), max(m) FROM o WHERE id = %d"} {
		for id := range 16 {
			sql := fmt.Sprintf(sql, id)
			want := simple(direct, sql)
			if got := simple(conn, sql); !slices.Equal(got, want) {
				t.Errorf("%s: %v, on the home shard %v", sql, got, want)
			}
			r := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil)
			got := numbers(r.FieldDescriptions())
			if _, err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by the extended protocol: %v, on the home shard %v", sql, got, want)
			}
			for _, s := range c.Servers[1:2] {
				differ = differ || !slices.Equal(simple(s.Connect(t, "app"), sql), want)
			}
		}
	}
	if !differ {
		t.Error("the shards number alike: this test shows nothing")
	}
	testParameterOIDs(t, ctx, c, conn, direct)
}

func testParameterOIDs(t *testing.T, ctx context.Context, c *clustertest.Cluster, conn, direct *pgx.Conn) {
	const sql = "UPDATE o SET m = $1, ms = $2, s = $4 WHERE id = $3 RETURNING m, ms"
	want, err := direct.Prepare(ctx, "", sql)
	if err != nil {
		t.Fatal(err)
	}
	for id := range 16 {
		tx, err := conn.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		run(t, conn, fmt.Sprintf("UPDATE o SET s = 6 WHERE id = %d", id)) // the shard of what follows
		name := fmt.Sprintf("p%d", id)
		sd, err := conn.PgConn().Prepare(ctx, name, sql, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(sd.ParamOIDs, want.ParamOIDs) {
			t.Errorf("id %d: parameters %v, on the home shard %v", id, sd.ParamOIDs, want.ParamOIDs)
		}
		// Declared, as drivers do that know the types.
		values := [][]byte{[]byte("happy"), []byte("{ok}"), []byte(fmt.Sprint(id)), []byte("7")}
		r := conn.PgConn().ExecParams(ctx, sql, values, want.ParamOIDs, nil, nil).Read()
		if r.Err != nil {
			t.Fatalf("id %d: %v", id, r.Err)
		}
		if got := fmt.Sprintf("%s", r.Rows); got != "[[happy {ok}]]" {
			t.Errorf("id %d: %s", id, got)
		}
		if err := tx.Commit(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// Types made later are met at once, also by those who have asked before.
	run(t, conn, "CREATE TYPE later AS ENUM ('x')")
	run(t, conn, "ALTER TABLE o ADD COLUMN l later DEFAULT 'x'")
	oid := one[uint32](t, direct, "SELECT 'later'::regtype::oid")
	for id := range 16 {
		r := conn.PgConn().ExecParams(ctx, "SELECT l FROM o WHERE id = $1", [][]byte{[]byte(fmt.Sprint(id))}, nil, nil, nil).Read()
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		if got := r.FieldDescriptions[0].DataTypeOID; got != oid {
			t.Errorf("id %d: %d, on the home shard %d", id, got, oid)
		}
	}
}
