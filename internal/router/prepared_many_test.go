package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// More statements than a backend keeps, on one backend, by two clients: every answer
// is its own statement's, and the server holds no more than the bound.
func TestMorePreparedThanABackendKeeps(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) { o.MaxConnections = 1 }})
	ctx := clustertest.Context(t)
	one, two := c.Connect(t, "app"), c.Connect(t, "app")
	must(t, one, "CREATE TABLE many (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, one, "INSERT INTO many VALUES (1, 1000), (2, 2000), (3, 3000), (4, 4000)", "INSERT 0 4")
	n := backend.MaxPrepared + 60
	for i := range n {
		for _, conn := range []*pgx.Conn{one, two} {
			if _, err := conn.Prepare(ctx, fmt.Sprint("s", i), fmt.Sprintf("SELECT v + %d FROM many WHERE id = $1", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask := func(conn *pgx.Conn, i, id int) {
		t.Helper()
		var v int
		if err := conn.QueryRow(ctx, fmt.Sprint("s", i), id).Scan(&v); err != nil || v != 1000*id+i {
			t.Fatalf("s%d of %d: %d, %v", i, id, v, err)
		}
	}
	for round := range 2 {
		for i := range n {
			ask(one, i, 1+i%4)
			ask(two, (i*7+round)%n, 1+i%4)
			ask(one, 3, 1+i%4) // one that is always in use
		}
		// In pipelines that reach a second shard, BEGIN is a statement too.
		b := &pgx.Batch{}
		for i := range 40 {
			b.Queue(fmt.Sprint("s", (i*11+round)%n), 1+i%4)
		}
		if err := one.SendBatch(context.Background(), b).Close(); err != nil {
			t.Fatal(err)
		}
	}
	var kept int
	if err := one.QueryRow(ctx, "SELECT count(*) FROM pg_prepared_statements", pgx.QueryExecModeSimpleProtocol).Scan(&kept); err != nil || kept > backend.MaxPrepared {
		t.Errorf("the home shard's backend has %d prepared statements, %v", kept, err)
	}
}
