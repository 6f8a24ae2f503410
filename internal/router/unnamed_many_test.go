package router_test

import (
	"testing"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestUnnamedStatementAndBegin: an unnamed statement lives from one unit to the
// next, also where the router puts a BEGIN of its own in between: a write that
// reaches several shards or the copies of a reference table (lib/pq prepares so).
func TestUnnamedStatementAndBegin(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	ctx := clustertest.Context(t)
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE s (id bigint PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	run(t, conn, "CREATE TABLE r (id bigint PRIMARY KEY, v text) WITH (sharding.kind = 'reference')")
	run(t, conn, "INSERT INTO s VALUES (1),(2),(3),(4),(5),(6)")
	run(t, conn, "INSERT INTO r VALUES (1),(2)")
	pg := conn.PgConn()
	for _, f := range []struct{ sql, tag string }{
		{"UPDATE s SET v = $1", "UPDATE 6"}, {"UPDATE r SET v = $1", "UPDATE 2"},
		{"UPDATE s SET v = $1 WHERE id IN (1, 2, 3, 4)", "UPDATE 4"}, {"UPDATE s SET v = $1 WHERE id = 2", "UPDATE 1"},
	} {
		for range 2 {
			if _, err := pg.Prepare(ctx, "", f.sql, nil); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				res := pg.ExecPrepared(ctx, "", [][]byte{[]byte("x")}, nil, nil).Read()
				if res.Err != nil || res.CommandTag.String() != f.tag {
					t.Errorf("%s: %q, %v", f.sql, res.CommandTag, res.Err)
				}
			}
		}
	}
}
