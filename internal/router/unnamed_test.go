package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterUnnamedAgain: an unnamed statement that comes again means what it
// means then, not what it meant before.
func TestRouterUnnamedAgain(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	ctx := clustertest.Context(t)
	conn, other := c.Connect(t, "app"), c.Connect(t, "app")
	run := func(on *pgx.Conn, sql string) {
		t.Helper()
		if _, err := on.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	const sql = "SELECT v FROM t WHERE id = $1"
	check := func(want string) {
		t.Helper()
		for id := range 6 {
			r := conn.PgConn().ExecParams(ctx, sql, [][]byte{[]byte{'0' + byte(id)}}, nil, nil, nil).Read()
			if r.Err != nil || len(r.Rows) != 1 || string(r.Rows[0][0]) != want {
				t.Fatalf("id %d: %v, %q; want %q", id, r.Err, r.Rows, want)
			}
		}
	}
	fill := func(table, v string) {
		t.Helper()
		run(conn, "CREATE TABLE "+table+" (id bigint PRIMARY KEY, v text) WITH (sharding.key = 'id')")
		run(conn, "INSERT INTO "+table+" VALUES (0, '"+v+"'), (1, '"+v+"'), (2, '"+v+"'), (3, '"+v+"'), (4, '"+v+"'), (5, '"+v+"')")
	}
	fill("public.t", "one")
	check("one")
	run(conn, "CREATE SCHEMA s")
	fill("s.t", "two")
	check("one")
	run(conn, "SET search_path = s")
	check("two")
	run(conn, "SET search_path = public")
	check("one")
	// Inside a transaction that changes the table, and after its end.
	run(conn, "BEGIN")
	run(conn, "ALTER TABLE t RENAME COLUMN v TO w")
	run(conn, "ALTER TABLE t ADD COLUMN v text DEFAULT 'three'")
	check("three")
	run(conn, "ROLLBACK")
	check("one")
	// Another session moves the name.
	run(other, "ALTER TABLE t ALTER COLUMN v TYPE varchar(10)")
	run(other, "UPDATE t SET v = 'four'")
	check("four")
}
