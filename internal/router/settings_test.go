package router_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterSettings compares SET in its corners, and SQL's PREPARE, with PostgreSQL.
func TestRouterSettings(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
		run(t, direct, "CREATE TABLE t (id int PRIMARY KEY, v numeric)")
		run(t, routed, "CREATE TABLE t (id int PRIMARY KEY, v numeric) WITH (sharding.key = 'id')")
		for _, conn := range []*pgx.Conn{direct, routed} {
			run(t, conn, "INSERT INTO t VALUES (1,1.5),(2,2),(3,3),(4,4)")
		}
	})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	compare(t, a, b, []script{
		{"a pipeline takes its SET back", join(ext("SET work_mem = '5MB'"), ext("SHOW work_mem"), ext("SELECT 1/0"), sync, query("SHOW work_mem"))},
		{"a pipeline keeps its SET", join(ext("SET work_mem = '5MB'"), ext("SELECT v FROM t WHERE id = 2"), sync, query("SHOW work_mem"), ext("RESET work_mem"), sync, query("SHOW work_mem"))},
		{"a pipeline takes its RESET back", join(query("SET work_mem = '6MB'"), ext("RESET work_mem"), ext("SELECT v FROM t WHERE id = 3"), ext("SELECT 1/0"), sync, query("SHOW work_mem", "RESET work_mem"))},
		{"SET within BEGIN of a pipeline", join(ext("BEGIN"), ext("SET LOCAL work_mem = '5MB'"), ext("SHOW work_mem"), ext("COMMIT"), sync, query("SHOW work_mem"))},
		{"SET LOCAL outside a block", join(query("SET LOCAL work_mem = '5MB'", "SHOW work_mem"), ext("SET LOCAL work_mem = '5MB'"), ext("SHOW work_mem"), sync, query("SHOW work_mem"))},
		{"SET TRANSACTION outside a block", join(query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), ext("SET TRANSACTION READ ONLY"), sync)},
		{"SET TRANSACTION in savepoints", query("BEGIN", "SAVEPOINT a", "SET TRANSACTION READ ONLY", "SHOW transaction_read_only", "INSERT INTO t VALUES (11,1)", "ROLLBACK TO a", "SHOW transaction_read_only", "INSERT INTO t VALUES (11,1)", "INSERT INTO t VALUES (12,1)", "ROLLBACK",
			"BEGIN", "SAVEPOINT a", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "ROLLBACK", "BEGIN", "SET TRANSACTION READ ONLY", "SAVEPOINT a", "SELECT count(*) FROM t", "SET TRANSACTION READ WRITE", "ROLLBACK")},
		{"PREPARE with types", query("PREPARE p1 (int) AS SELECT v FROM t WHERE id = $1", "EXECUTE p1(1)", "EXECUTE p1('2')", "EXECUTE p1(1 + 2)", "EXECUTE p1(1000  -  998)", "EXECUTE p1( 1+ 3 )", "EXECUTE p1(NULL)", "EXECUTE p1(2.6)", "EXECUTE p1('x')", "EXECUTE p1(1, 2)", "EXECUTE p1((SELECT 1))", "DEALLOCATE p1", "EXECUTE p1(1)")},
		{"PREPARE with more types", query("PREPARE p2 (text, numeric(5,2), int[], timestamptz, bytea) AS SELECT $1, $2, $3, $4 AT TIME ZONE 'UTC', $5", "EXECUTE p2('a,b', 1.5, ARRAY[1,2], '2024-01-01 00:00:00+00'::timestamptz, 'x')", "EXECUTE p2(upper('a'), 10.0 / 4, '{3}', now() - now() + '2024-01-01 00:00:00+00', '\\x00')", "DEALLOCATE PREPARE p2", "PREPARE p3 (nosuch) AS SELECT $1")},
		{"PREPARE is not undone", query("BEGIN", "PREPARE p4 (int) AS SELECT $1", "ROLLBACK", "EXECUTE p4(4)", "BEGIN", "DEALLOCATE p4", "ROLLBACK", "EXECUTE p4(4)", "PREPARE p5 AS SELECT 1", "PREPARE p5 AS SELECT 1", "DEALLOCATE ALL", "EXECUTE p5", "DEALLOCATE p5")},
		{"PREPARE of writes", query("PREPARE w1 (int, numeric) AS INSERT INTO t VALUES ($1, $2)", "EXECUTE w1(21, 1)", "EXECUTE w1(22, 2.5)", "BEGIN", "EXECUTE w1(23, 1)", "EXECUTE w1(21, 1)", "EXECUTE w1(24, 1)", "ROLLBACK", "SELECT count(*) FROM t", "DEALLOCATE w1", "DELETE FROM t WHERE id > 20")},
	})
	c.NothingPrepared(t)
	testPoolMode(t, c)
}

// testPoolMode: in session mode a backend stays with the session.
func testPoolMode(t *testing.T, c *clustertest.Cluster) {
	conn := c.Connect(t, "app")
	must(t, conn, "SHOW sharding.pool_mode", "transaction,SHOW")
	must(t, conn, "SET sharding.pool_mode = session", "SET")
	must(t, conn, "SELECT count(*) FROM t", "")
	if got := pinned(t, conn); got != "session mode" {
		t.Errorf("pinned: %q", got)
	}
	first := one[int32](t, conn, "SELECT pg_backend_pid()")
	other := c.Connect(t, "app")
	for range 3 {
		if pid := one[int32](t, other, "SELECT pg_backend_pid()"); pid == first {
			t.Error("another session has the backend")
		}
		if pid := one[int32](t, conn, "SELECT pg_backend_pid()"); pid != first {
			t.Errorf("backend %d, then %d", first, pid)
		}
	}
	must(t, conn, "RESET sharding.pool_mode", "RESET")
	if got := pinned(t, conn); got != "" {
		t.Errorf("pinned after RESET: %q", got)
	}
	mustFail(t, conn, "SET sharding.pool_mode = 'statement'", "22023")

	cfg, err := pgx.ParseConfig(c.DSN("app"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["options"] = "-c sharding.pool_mode=session"
	started, err := pgx.ConnectConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close(context.Background())
	must(t, started, "SHOW sharding.pool_mode", "session,SHOW")
	must(t, started, "SELECT 1", "")
	if got := pinned(t, started); got != "session mode" {
		t.Errorf("pinned: %q", got)
	}
}
