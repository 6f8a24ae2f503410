package router_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func run(t *testing.T, c *pgx.Conn, sql string, args ...any) pgconn.CommandTag {
	t.Helper()
	tag, err := c.Exec(context.Background(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, describe(err))
	}
	return tag
}

func describe(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return fmt.Sprintf("%s %s (detail %q, hint %q)", pg.Code, pg.Message, pg.Detail, pg.Hint)
	}
	return err.Error()
}

func one[T any](t *testing.T, c *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := c.QueryRow(context.Background(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, describe(err))
	}
	return v
}

func refused(t *testing.T, c *pgx.Conn, code, sql string, args ...any) *pgconn.PgError {
	t.Helper()
	_, err := c.Exec(context.Background(), sql, args...)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != code {
		t.Fatalf("%s: %v, want %s", sql, err, code)
	}
	return pg
}

// TestRouter goes through what a client does, in order, on one small cluster.
func TestRouter(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	conn := c.Connect(t, "app")
	for _, step := range []struct {
		name string
		fn   func(*testing.T, *clustertest.Cluster, *pgx.Conn)
	}{
		{"tables", testTables},
		{"writes and reads", testWritesAndReads},
		{"transactions", testTransactions},
		{"copy", testCopy},
		{"prepared", testPrepared},
		{"settings", testSettings},
		{"refusals", testRefusals},
		{"psql", testPsql},
	} {
		t.Run(step.name, func(t *testing.T) { step.fn(t, c, conn) })
	}
	c.NothingPrepared(t)
}

func testTables(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	run(t, conn, "CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL) WITH (sharding.key = 'id')")
	run(t, conn, "CREATE TABLE orders (customer_id bigint, id bigint, total int, at timestamptz DEFAULT now(), PRIMARY KEY (customer_id, id)) WITH (sharding.key = 'customer_id')")
	run(t, conn, "CREATE TABLE countries (code text PRIMARY KEY, name text) WITH (sharding.kind = 'reference')")
	run(t, conn, "CREATE TABLE notes (id int, body text)")
	for _, n := range c.Everywhere(t, "app", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") {
		if n != "4" {
			t.Errorf("tables on a shard: %s, want 4", n)
		}
	}
}

func testWritesAndReads(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	var values []string
	for i := range 100 {
		values = append(values, fmt.Sprintf("(%d, 'c%d')", i, i))
	}
	if tag := run(t, conn, "INSERT INTO customers VALUES "+strings.Join(values, ", ")); tag.String() != "INSERT 0 100" {
		t.Errorf("tag %q", tag)
	}
	total := 0
	for _, n := range c.Everywhere(t, "app", "SELECT count(*) FROM customers") {
		var k int
		fmt.Sscan(n, &k)
		if k == 0 {
			t.Error("a shard without rows")
		}
		total += k
	}
	if total != 100 {
		t.Errorf("%d rows on all shards, want 100", total)
	}
	for i := range 100 {
		if got := one[string](t, conn, "SELECT name FROM customers WHERE id = $1", i); got != fmt.Sprintf("c%d", i) {
			t.Errorf("customer %d: %q", i, got)
		}
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM customers"); n != 100 {
		t.Errorf("count %d", n)
	}
	if n := one[int64](t, conn, "SELECT sum(id)::bigint FROM customers WHERE id = 7"); n != 7 {
		t.Errorf("sum %d", n)
	}
	if n := one[int64](t, conn, "SELECT max(id) FROM customers"); n != 99 {
		t.Errorf("max %d", n)
	}
	if tag := run(t, conn, "UPDATE customers SET name = name || '!' WHERE id < 50"); tag.String() != "UPDATE 50" {
		t.Errorf("tag %q", tag)
	}
	if tag := run(t, conn, "DELETE FROM customers WHERE id >= 90"); tag.String() != "DELETE 10" {
		t.Errorf("tag %q", tag)
	}
	run(t, conn, "INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France')")
	for _, n := range c.Everywhere(t, "app", "SELECT count(*) FROM countries") {
		if n != "2" {
			t.Errorf("countries on a shard: %s, want 2", n)
		}
	}
	run(t, conn, "INSERT INTO notes VALUES (1, 'global')")
	if n := one[int64](t, conn, "SELECT count(*) FROM notes"); n != 1 {
		t.Errorf("notes %d", n)
	}
	rows, err := conn.Query(context.Background(), "SELECT id FROM customers")
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil || len(ids) != 90 {
		t.Errorf("%d rows, %v", len(ids), err)
	}
	rows, err = conn.Query(context.Background(), "INSERT INTO customers VALUES (201,'x'),(202,'y'),(203,'z'),(204,'u'),(205,'v') RETURNING id")
	if err != nil {
		t.Fatal(err)
	}
	ids, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil || fmt.Sprint(ids) != "[201 202 203 204 205]" {
		t.Errorf("RETURNING %v, %v", ids, err)
	}
}

func testTransactions(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	ctx := context.Background()
	run(t, conn, "DELETE FROM orders")
	tx, err := conn.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if _, err := tx.Exec(ctx, "INSERT INTO orders (customer_id, id, total) VALUES ($1, 1, 10)", i); err != nil {
			t.Fatal(describe(err))
		}
	}
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(describe(err))
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM orders"); n != 0 {
		t.Errorf("%d orders after ROLLBACK", n)
	}
	run(t, conn, "BEGIN")
	run(t, conn, "INSERT INTO orders (customer_id, id, total) VALUES (1, 1, 10)")
	run(t, conn, "SAVEPOINT a")
	run(t, conn, "INSERT INTO orders (customer_id, id, total) VALUES (2, 1, 10)")
	refused(t, conn, "23505", "INSERT INTO orders (customer_id, id, total) VALUES (1, 1, 10)")
	refused(t, conn, "25P02", "SELECT count(*) FROM orders")
	run(t, conn, "ROLLBACK TO a")
	run(t, conn, "INSERT INTO orders (customer_id, id, total) VALUES (3, 1, 10), (4, 1, 10), (5, 1, 10), (6, 1, 10)")
	if tag := run(t, conn, "COMMIT"); tag.String() != "COMMIT" {
		t.Errorf("tag %q", tag)
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM orders"); n != 5 {
		t.Errorf("%d orders after COMMIT, want 5", n)
	}
	if n := one[int64](t, conn, "SELECT sum(total) FROM orders"); n != 50 {
		t.Errorf("sum %d", n)
	}
	c.NothingPrepared(t)
	refused(t, conn, "23505", "INSERT INTO orders (customer_id, id, total) VALUES (1, 1, 0), (7, 1, 0), (8, 1, 0), (9, 1, 0)")
	if n := one[int64](t, conn, "SELECT count(*) FROM orders"); n != 5 {
		t.Errorf("%d orders after a failed multi-row INSERT, want 5", n)
	}
}

func testCopy(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	ctx := context.Background()
	run(t, conn, "TRUNCATE customers, orders")
	var text strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&text, "%d\tname\\t%d\n", i, i)
	}
	tag, err := conn.PgConn().CopyFrom(ctx, strings.NewReader(text.String()), "COPY customers FROM STDIN")
	if err != nil || tag.String() != "COPY 10000" {
		t.Fatalf("COPY: %q, %v", tag, describe(err))
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM customers"); n != 10000 {
		t.Errorf("count %d", n)
	}
	if got := one[string](t, conn, "SELECT name FROM customers WHERE id = 4711"); got != "name\t4711" {
		t.Errorf("name %q", got)
	}
	var out strings.Builder
	tag, err = conn.PgConn().CopyTo(ctx, &out, "COPY customers TO STDOUT")
	if err != nil || tag.String() != "COPY 10000" || strings.Count(out.String(), "\n") != 10000 {
		t.Errorf("COPY TO: %q, %v, %d lines", tag, err, strings.Count(out.String(), "\n"))
	}
	_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader("1\tdouble\n20000\tnew\n"), "COPY customers FROM STDIN")
	if err == nil {
		t.Error("a COPY with a duplicate key succeeded")
	}
	_, err = conn.PgConn().CopyFrom(ctx, strings.NewReader("20001\ta\n20002\n"), "COPY customers FROM STDIN")
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "22P04" {
		t.Errorf("a short row: %v", err)
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM customers"); n != 10000 {
		t.Errorf("count %d after failed COPYs", n)
	}
}

func testPrepared(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	ctx := context.Background()
	if _, err := conn.Prepare(ctx, "get", "SELECT name FROM customers WHERE id = $1"); err != nil {
		t.Fatal(describe(err))
	}
	for i := range 50 {
		if got := one[string](t, conn, "get", i); got != fmt.Sprintf("name\t%d", i) {
			t.Errorf("prepared %d: %q", i, got)
		}
	}
	// A pipeline over several shards is one transaction.
	b := &pgx.Batch{}
	for i := range 10 {
		b.Queue("UPDATE customers SET name = $2 WHERE id = $1", i, fmt.Sprint("p", i))
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		t.Fatal(describe(err))
	}
	if got := one[string](t, conn, "get", 3); got != "p3" {
		t.Errorf("after the batch: %q", got)
	}
	b = &pgx.Batch{}
	for i := range 5 {
		b.Queue("UPDATE customers SET name = 'lost' WHERE id = $1", i)
	}
	b.Queue("INSERT INTO customers VALUES (0, 'double')")
	if err := conn.SendBatch(ctx, b).Close(); err == nil {
		t.Error("a batch with a duplicate key succeeded")
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM customers WHERE name = 'lost'"); n != 0 {
		t.Errorf("%d rows of a failed batch stayed", n)
	}
	run(t, conn, "PREPARE q AS SELECT name FROM customers WHERE id = $1")
	if got := one[string](t, conn, "EXECUTE q(3)", pgx.QueryExecModeSimpleProtocol); got != "p3" {
		t.Errorf("EXECUTE: %q", got)
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM customers WHERE id = ANY($1)", []int64{1, 2, 3, 99999}); n != 3 {
		t.Errorf("ANY: %d", n)
	}
}

func testSettings(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	run(t, conn, "SET work_mem = '7MB'")
	other := c.Connect(t, "app")
	for range 3 {
		if got := one[string](t, other, "SHOW work_mem"); got != "4MB" {
			t.Errorf("another client sees %q", got)
		}
		if got := one[string](t, conn, "SHOW work_mem"); got != "7MB" {
			t.Errorf("work_mem %q", got)
		}
	}
	run(t, conn, "BEGIN")
	run(t, conn, "SET LOCAL work_mem = '8MB'")
	run(t, conn, "UPDATE customers SET name = name WHERE id = 1")
	run(t, conn, "UPDATE customers SET name = name WHERE id = 2")
	if got := one[string](t, conn, "SHOW work_mem"); got != "8MB" {
		t.Errorf("SET LOCAL: %q", got)
	}
	run(t, conn, "ROLLBACK")
	if got := one[string](t, conn, "SHOW work_mem"); got != "7MB" {
		t.Errorf("after ROLLBACK: %q", got)
	}
	run(t, conn, "RESET work_mem")
	if got := one[string](t, conn, "SHOW work_mem"); got != "4MB" {
		t.Errorf("after RESET: %q", got)
	}
	refused(t, conn, "22023", "SET lock_timeout = 'soonish'")
	refused(t, conn, "42704", "SET no_such_thing = 1")
}

func testRefusals(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	e := refused(t, conn, "0A000", "SELECT name, count(*) FROM customers GROUP BY name")
	if e.Hint == "" {
		t.Error("a refusal without a hint")
	}
	refused(t, conn, "42P01", "SELECT * FROM nowhere")
	refused(t, conn, "42601", "SELEC 1")
	refused(t, conn, "54001", "SELECT "+strings.Repeat("(", 100000)+"1"+strings.Repeat(")", 100000))
	if got := one[int](t, conn, "SELECT 1"); got != 1 {
		t.Errorf("after refusals: %d", got)
	}
}

func testPsql(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	for _, cmd := range []string{`\d`, `\dt`, `\df`, `\d customers`, `\l`, `\du`, `\conninfo`, `SHOW sharding.shards`, `SHOW sharding.clients`,
		`EXPLAIN (SHARDING) SELECT * FROM customers WHERE id = 5`} {
		if cmd == `\l` && c.Servers[0].Install.Version >= 17 && !c.Servers[0].Install.Has("psql") {
			continue // an older psql asks for a column that is gone
		}
		out, err := exec.Command(c.Servers[0].Client(t, "psql"), "-X", "-v", "ON_ERROR_STOP=1", c.DSN("app"), "-c", cmd).CombinedOutput()
		if err != nil {
			t.Errorf("psql %s: %v\n%s", cmd, err, out)
		}
		t.Logf("%s\n%s", cmd, out)
	}
}

func TestSetConfig(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE SCHEMA s2")
	run(t, conn, "CREATE TABLE s2.w (x text)")
	run(t, conn, "INSERT INTO s2.w VALUES ('two')")
	if got := one[string](t, conn, "SELECT set_config($1, $2, false)", "search_path", "s2"); got != "s2" {
		t.Errorf("set_config: %q", got)
	}
	if got := one[string](t, conn, "SELECT x FROM w"); got != "two" {
		t.Errorf("by set_config with parameters: %q", got)
	}
	other := c.Connect(t, "app")
	refused(t, other, "42P01", "SELECT x FROM w")
	run(t, other, "DO $$ BEGIN PERFORM set_config('search_path', 's2', false); END $$")
	if got := one[string](t, other, "SELECT x FROM w"); got != "two" {
		t.Errorf("by a DO block: %q", got)
	}
	run(t, other, "SELECT pg_catalog.set_config('search_path', '', false)")
	refused(t, other, "42P01", "SELECT x FROM w")

	// Under these, keys would be placed and texts read otherwise than the shards do.
	for _, sql := range []string{
		"SELECT set_config('client_encoding', 'LATIN1', false)",
		"SELECT set_config('Client_Encoding', $1, false)",
		"SELECT set_config('standard_conforming_strings', 'off', false)",
		"SELECT set_config('standard_conforming_strings', 'fal', true)",
		"SELECT set_config('session_replication_role', 'replica', false)",
		"SELECT set_config('transform_null_equals', 'on', false)",
	} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = []any{"sjis"}
		}
		run(t, conn, "BEGIN")
		refused(t, conn, "0A000", sql, args...)
		refused(t, conn, "25P02", "SELECT 1")
		run(t, conn, "ROLLBACK")
	}
	for _, sql := range []string{"SELECT set_config('client_encoding', 'utf-8', false)", "SELECT set_config('standard_conforming_strings', 'on', false)"} {
		run(t, conn, sql)
	}
}
