package router_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/twophase"
)

// TestEmptyShard: a shard that was added and owns nothing yet follows every
// change of the schema, and gets no rows.
func TestEmptyShard(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	ctx := clustertest.Context(t)
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE r (id int PRIMARY KEY) WITH (sharding.kind = 'reference')")
	third := pgtest.Start(t, pgtest.WithTrust())
	third.Exec(t, "postgres", "CREATE DATABASE app TEMPLATE template0 ENCODING 'UTF8'")
	tc := third.Connect(t, "app")
	if err := twophase.Install(ctx, tc); err != nil {
		t.Fatal(err)
	}
	third.Exec(t, "app", "CREATE TABLE r (id int PRIMARY KEY)")
	sh := catalog.Shard{
		ID: "app-3", Name: "app-3", Keyspace: "app", Database: "app", PrimaryEndpoint: third.Addr(), Status: catalog.ShardActive, Username: third.User,
	}
	// A session in a block keeps its placement to the block's end, and prepares for the new one meanwhile.
	busy := c.Connect(t, "app")
	run(t, busy, "BEGIN")
	run(t, busy, "SELECT count(*) FROM r")
	if _, err := c.Catalog.AddShard(ctx, sh); err != nil {
		t.Fatal(err)
	}
	seesAll := func(conn *pgx.Conn, sql string) error {
		rows, err := conn.Query(ctx, sql)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) { return fmt.Sprint(r.RawValues()[0]), nil })
		if err == nil && len(ids) != 3 {
			err = fmt.Errorf("%d shards", len(ids))
		}
		return err
	}
	clustertest.Eventually(t, "the router sees the shard", func() error { return seesAll(conn, "SHOW sharding.shards") })
	if _, err := busy.Prepare(ctx, "shown", "SHOW sharding.shards"); err != nil {
		t.Fatal(err)
	}
	run(t, busy, "COMMIT")
	if err := seesAll(busy, "shown"); err != nil {
		t.Errorf("after a block that prepared the statement: %v", err)
	}
	run(t, conn, "CREATE TABLE s (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	run(t, conn, "INSERT INTO r VALUES (1), (2)")
	run(t, conn, "UPDATE r SET id = id + 10")
	run(t, conn, "INSERT INTO s VALUES (1),(2),(3),(4),(5),(6),(7),(8)")
	if n := one[int64](t, conn, "SELECT count(*) FROM s"); n != 8 {
		t.Errorf("count %d", n)
	}
	if rows := third.Query(t, "app", "SELECT (SELECT count(*) FROM r), (SELECT count(*) FROM s)"); rows[0][0] != "0" || rows[0][1] != "0" {
		t.Errorf("the empty shard has rows: %v", rows)
	}
}
