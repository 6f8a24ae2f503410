package router_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// TestCurrvalIsTheSessionsOwn: sessions share one connection to the home shard,
// and what one inserts is not the other's currval.
func TestCurrvalIsTheSessionsOwn(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) { o.MaxConnections = 1 }})
	ctx := context.Background()
	a, b := c.Connect(t, "app"), c.Connect(t, "app")
	for _, sql := range []string{"CREATE TABLE notes (id serial PRIMARY KEY, v text)", "INSERT INTO notes (v) VALUES ('a'), ('b')"} {
		if _, err := a.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		for _, sql := range []string{"SELECT currval('notes_id_seq')", "SELECT lastval()"} {
			other := c.Connect(t, "app")
			var n int64
			err := other.QueryRow(ctx, sql, mode).Scan(&n)
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "55000" {
				t.Errorf("%v, %s in a session that has inserted nothing: %d, %v; want 55000", mode, sql, n, err)
			}
			other.Close(ctx)
		}
	}
	tx, err := b.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT INTO notes (v) VALUES ('c')"); err != nil {
		t.Fatal(err)
	}
	var own, id int64
	if err := tx.QueryRow(ctx, "SELECT currval('notes_id_seq'), max(id) FROM notes").Scan(&own, &id); err != nil || own != id {
		t.Errorf("currval after an INSERT in the same transaction: %d, %v; want %d", own, err, id)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
}
