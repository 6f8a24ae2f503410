package router_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestDefaultKey: new tables with the column are sharded by it, without a word
// in their DDL.
func TestDefaultKey(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	ctx := clustertest.Context(t)
	view, err := c.Catalog.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	clustertest.Eventually(t, "the catalog is read", func() error { return view.WaitRevision(ctx, 1) })
	k := view.Snapshot().Keyspace("app").Keyspace
	k.DefaultKey = "tenant"
	if _, err := c.Catalog.UpdateKeyspace(ctx, k); err != nil {
		t.Fatal(err)
	}
	conn := c.Connect(t, "app")
	kind := func(table, want string) {
		t.Helper()
		if got := c.Kind(t, "app", table); got != want {
			t.Errorf("%s is %q, want %s", table, got, want)
		}
	}
	clustertest.Eventually(t, "the router knows the default key", func() error {
		run(t, conn, "DROP TABLE IF EXISTS plain")
		run(t, conn, "CREATE TABLE plain (tenant int, v text)")
		if c.Kind(t, "app", "plain") != "sharded" {
			return errors.New("it is global")
		}
		return nil
	})
	run(t, conn, "CREATE TABLE copied (LIKE plain)")
	kind("copied", "sharded")
	run(t, conn, "CREATE TABLE other (id int PRIMARY KEY)")
	kind("other", "global")
	run(t, conn, "CREATE TABLE lookup (tenant int PRIMARY KEY) WITH (sharding.kind = 'reference')")
	kind("lookup", "reference")
	for i := range 40 {
		run(t, conn, "INSERT INTO plain VALUES ($1, 'x')", i)
	}
	for _, n := range c.Everywhere(t, "app", "SELECT count(*)::text FROM plain") {
		if n == "0" || n == "40" {
			t.Errorf("a shard has %s of 40 rows", n)
		}
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM plain"); n != 40 {
		t.Errorf("%d rows", n)
	}
	e := refused(t, conn, "0A000", "CREATE TABLE bad (id int PRIMARY KEY, tenant int)")
	if !strings.Contains(e.Detail, "default_key of keyspace app") || !strings.Contains(e.Hint, "sharding.kind = 'global'") {
		t.Errorf("detail %q, hint %q", e.Detail, e.Hint)
	}
}
