package router_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// simple sends one Query message and yields the rows' first columns and tags, or
// the first error.
func simple(t *testing.T, c *pgx.Conn, sql string) (out []string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	results, err := c.PgConn().Exec(ctx, sql).ReadAll()
	for _, r := range results {
		for _, row := range r.Rows {
			out = append(out, string(row[0]))
		}
		out = append(out, r.CommandTag.String())
	}
	return out, err
}

func must(t *testing.T, c *pgx.Conn, sql, want string) {
	t.Helper()
	got, err := simple(t, c, sql)
	if err != nil {
		t.Errorf("%s: %v", sql, describe(err))
		return
	}
	if s := strings.Join(got, ","); want != "" && s != want {
		t.Errorf("%s: %q, want %q", sql, s, want)
	}
}

func mustFail(t *testing.T, c *pgx.Conn, sql, code string) {
	t.Helper()
	_, err := simple(t, c, sql)
	var pg *pgconn.PgError
	if !asPg(err, &pg) || pg.Code != code {
		t.Errorf("%s: %v, want %s", sql, err, code)
	}
}

func asPg(err error, pg **pgconn.PgError) bool {
	for err != nil {
		if e, ok := err.(*pgconn.PgError); ok {
			*pg = e
			return true
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		err = u.Unwrap()
	}
	return false
}

// TestRouterDDL: what DDL leaves in the catalog, however its transaction ends.
func TestRouterDDL(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	for _, step := range []struct {
		name string
		fn   func(*testing.T, *clustertest.Cluster)
	}{
		{"DDL that fails", testFailedDDL},
		{"DDL and savepoints", testSavepointDDL},
		{"renames", testRename},
		{"a pipeline's DDL is rolled back", testPipelineDDL},
		{"DDL that nobody was told of", testUntoldDDL},
	} {
		t.Run(step.name, func(t *testing.T) { step.fn(t, c) })
	}
	c.NothingPrepared(t)
}

func testFailedDDL(t *testing.T, c *clustertest.Cluster) {
	a, b := c.Connect(t, "app"), c.Connect(t, "app")
	must(t, a, "CREATE TABLE fa (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO fa SELECT 1, 'x'", "")
	var values []string
	for i := range 40 {
		values = append(values, fmt.Sprintf("(%d,'v')", i+10))
	}
	must(t, a, "INSERT INTO fa VALUES "+strings.Join(values, ","), "INSERT 0 40")
	before, _ := simple(t, a, "SELECT count(*) FROM fa")
	// None of these may change what fa is.
	mustFail(t, a, "CREATE TABLE fa (id int PRIMARY KEY, v text)", "42P07")
	must(t, a, "CREATE TABLE IF NOT EXISTS fa (id int PRIMARY KEY, v text)", "CREATE TABLE")
	mustFail(t, a, "CREATE TABLE fb (id int PRIMARY KEY, v nosuchtype)", "42704")
	start := time.Now()
	// Nor hold other sessions' DDL up.
	must(t, b, "CREATE TABLE fc (id int)", "CREATE TABLE")
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("another session's DDL waited for %s", d)
	}
	fresh := c.Connect(t, "app")
	for _, conn := range []*pgx.Conn{a, b, fresh} {
		must(t, conn, "SELECT count(*) FROM fa", strings.Join(before, ","))
	}
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "DROP TABLE fa", "DROP TABLE")
	must(t, a, "CREATE TABLE fa (id int PRIMARY KEY, v text)", "CREATE TABLE")
	must(t, a, "ROLLBACK", "ROLLBACK")
	for _, conn := range []*pgx.Conn{a, b} {
		must(t, conn, "SELECT count(*) FROM fa", strings.Join(before, ","))
	}
}

func testSavepointDDL(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE sa (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO sa VALUES (1,'v'),(2,'v'),(3,'v'),(4,'v'),(5,'v'),(6,'v'),(7,'v'),(8,'v')", "INSERT 0 8")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SAVEPOINT s", "SAVEPOINT")
	must(t, a, "DROP TABLE sa", "DROP TABLE")
	must(t, a, "CREATE TABLE sb (id int) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "ROLLBACK TO s", "ROLLBACK")
	must(t, a, "SELECT count(*) FROM sa", "8,SELECT 1")
	must(t, a, "COMMIT", "COMMIT")
	must(t, c.Connect(t, "app"), "SELECT count(*) FROM sa", "8,SELECT 1")
	if k := c.Kind(t, "app", "sa"); k != "sharded" {
		t.Errorf("sa is %s", k)
	}
	if k := c.Kind(t, "app", "sb"); k != "" {
		t.Errorf("sb is still declared: %s", k)
	}
}

func testRename(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE ra (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO ra VALUES (1,'v'),(2,'v'),(3,'v'),(4,'v'),(5,'v'),(6,'v'),(7,'v'),(8,'v')", "INSERT 0 8")
	must(t, a, "ALTER TABLE ra RENAME TO rb", "ALTER TABLE")
	for _, conn := range []*pgx.Conn{a, c.Connect(t, "app")} {
		must(t, conn, "SELECT count(*) FROM rb", "8,SELECT 1")
	}
	if k := c.Kind(t, "app", "ra") + "/" + c.Kind(t, "app", "rb"); k != "/sharded" {
		t.Errorf("ra/rb are %s", k)
	}
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "ALTER TABLE rb RENAME TO rc", "ALTER TABLE")
	must(t, a, "INSERT INTO rc VALUES (9,'v'),(10,'v'),(11,'v'),(12,'v')", "INSERT 0 4")
	must(t, a, "SELECT count(*) FROM rc", "12,SELECT 1")
	must(t, a, "ROLLBACK", "ROLLBACK")
	must(t, a, "SELECT count(*) FROM rb", "8,SELECT 1")
	if k := c.Kind(t, "app", "rb") + "/" + c.Kind(t, "app", "rc"); k != "sharded/" {
		t.Errorf("rb/rc are %s", k)
	}
	must(t, a, "CREATE SCHEMA other", "CREATE SCHEMA")
	must(t, a, "ALTER TABLE rb SET SCHEMA other", "ALTER TABLE")
	must(t, a, "SELECT count(*) FROM other.rb", "8,SELECT 1")
}

func testPipelineDDL(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE pa (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO pa VALUES (1,'v'),(2,'v'),(3,'v'),(4,'v'),(5,'v'),(6,'v'),(7,'v'),(8,'v')", "INSERT 0 8")
	must(t, a, "CREATE TABLE pb (id int PRIMARY KEY) WITH (sharding.key = 'id')", "CREATE TABLE")
	b := &pgconn.Batch{}
	for _, sql := range []string{"INSERT INTO pb VALUES (1)", "DROP TABLE pa", "INSERT INTO pb VALUES (1)"} {
		b.ExecParams(sql, nil, nil, nil, nil)
	}
	if _, err := a.PgConn().ExecBatch(context.Background(), b).ReadAll(); err == nil {
		t.Error("a duplicate key went through")
	}
	must(t, a, "SELECT count(*) FROM pa", "8,SELECT 1")
	if k := c.Kind(t, "app", "pa"); k != "sharded" {
		t.Errorf("pa is %q after a DROP that was rolled back", k)
	}
	// One implicit transaction, although the DDL comes first.
	b = &pgconn.Batch{}
	for _, sql := range []string{"DROP TABLE pa", "INSERT INTO pb VALUES (2)", "INSERT INTO pb VALUES (2)"} {
		b.ExecParams(sql, nil, nil, nil, nil)
	}
	if _, err := a.PgConn().ExecBatch(context.Background(), b).ReadAll(); err == nil {
		t.Error("a duplicate key went through")
	}
	must(t, a, "SELECT count(*) FROM pa", "8,SELECT 1")
}

// testUntoldDDL: a router was killed between its COMMIT on the shards and the
// catalog's next schema version.
func testUntoldDDL(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "SELECT 1", "1,SELECT 1")
	for _, s := range c.Servers {
		s.Exec(t, "app", "CREATE TABLE untold (id int)")
	}
	clustertest.Eventually(t, "the table is found", func() error {
		_, err := simple(t, a, "INSERT INTO untold VALUES (1)")
		return err
	})
	must(t, a, "SELECT id FROM untold", "1,SELECT 1")
}
