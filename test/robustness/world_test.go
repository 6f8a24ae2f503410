package robustness

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/etcdtest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/twophase"
)

// world is a cluster whose parts can be killed.
type world struct {
	*clustertest.Cluster
	routers   []*daemon
	keys      *sharding.Map
	endpoints []twophase.Endpoint
	inc       string  // the cluster's incarnation
	manager   *daemon // nil where there is none
	next      int64   // the next id that nobody has used
}

// newWorld starts etcd and n servers with the keyspace "app", and prepares (but
// does not start) routers.
func newWorld(t *testing.T, servers, routers int) *world {
	t.Helper()
	w := &world{Cluster: &clustertest.Cluster{Log: &clustertest.Log{}}, next: 1}
	w.Etcd = etcdtest.Start(t)
	for i := range servers {
		opts := []pgtest.Option{pgtest.WithTrust(), pgtest.WithConfig("max_connections", "100")}
		if i%2 == 1 {
			opts = append(opts, pgtest.WithSkewedOIDs())
		}
		w.Servers = append(w.Servers, pgtest.Start(t, opts...))
	}
	var err error
	w.Catalog, err = catalog.Open(clustertest.Context(t), catalog.Config{Endpoints: []string{w.Etcd.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Catalog.Close() })
	w.Keyspace(t, "app")
	if w.inc, err = w.Catalog.Incarnation(clustertest.Context(t)); err != nil {
		t.Fatal(err)
	}
	var ids []sharding.ShardID
	for i, s := range w.Servers {
		id := sharding.ShardID(fmt.Sprintf("app-%d", i+1))
		ids = append(ids, id)
		cfg, err := pgx.ParseConfig(s.DSN("app"))
		if err != nil {
			t.Fatal(err)
		}
		w.endpoints = append(w.endpoints, twophase.Endpoint{Shard: id, Config: cfg})
	}
	if w.keys, err = sharding.NewMap(1, sharding.HashPostgres, 256, ids); err != nil {
		t.Fatal(err)
	}
	for range routers {
		w.routers = append(w.routers, newDaemon(t, "sharding-router", w.Etcd.Endpoint(), pgtest.User, w.Servers[0].Password, "--insecure-trust"))
	}
	return w
}

// keysOf yields a key for each server of the keyspace "app".
func keysOf(t *testing.T, c *clustertest.Cluster) []int64 {
	t.Helper()
	w := &world{keys: mapOf(t, len(c.Servers))}
	keys := make([]int64, len(c.Servers))
	for i := range keys {
		keys[i] = w.keyOn(i)
	}
	return keys
}

// mapOf is the map of the keyspace "app" on n servers.
func mapOf(t *testing.T, n int) *sharding.Map {
	t.Helper()
	var ids []sharding.ShardID
	for i := range n {
		ids = append(ids, sharding.ShardID(fmt.Sprintf("app-%d", i+1)))
	}
	m, err := sharding.NewMap(1, sharding.HashPostgres, 256, ids)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// keyOn is a key that nobody has used and whose rows are on a server.
func (w *world) keyOn(server int) int64 {
	for {
		w.next++
		if w.keys.ShardOf(sharding.Int(w.next)) == server {
			return w.next
		}
	}
}

// connect connects through a router.
func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(clustertest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func mustExec(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.Exec(clustertest.Context(t), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// eager is a resolver that gives nobody time: what it may do never depends on it.
func (w *world) eager() *twophase.Resolver {
	return twophase.NewResolver(twophase.Options{
		Incarnation: w.inc, Grace: time.Nanosecond, DeadGrace: time.Nanosecond, Blocked: 200 * time.Millisecond,
		Retention: time.Nanosecond, ForgetEvery: time.Nanosecond, Timeout: 20 * time.Second,
	})
}

// settle lets a resolver run until nothing is prepared and every verdict is
// forgotten. No router may run any more.
func (w *world) settle(t *testing.T) {
	t.Helper()
	const routers = "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
	for i, s := range w.Servers {
		clustertest.Eventually(t, fmt.Sprintf("the end of the routers' backends on server %d", i+1), func() error {
			return empty(s.Query(t, "app", routers))
		})
	}
	r := w.eager()
	defer r.Close()
	clustertest.Eventually(t, "the end of the transactions", func() error {
		report, err := r.Resolve(clustertest.Context(t), w.endpoints)
		if err != nil {
			return err
		}
		if len(report.InDoubt) > 0 || len(report.Unreachable) > 0 {
			t.Fatalf("in doubt without a failover: %+v", report)
		}
		for _, s := range w.Servers {
			err := empty(s.Query(t, "app", `SELECT gid FROM pg_prepared_xacts UNION ALL
				SELECT gid FROM sharding.decision UNION ALL SELECT gid FROM sharding.seen`))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func empty(rows [][]string) error {
	if len(rows) > 0 {
		return fmt.Errorf("%v are left", rows)
	}
	return nil
}

// present counts which of the keys have their row in a table, on the servers.
func (w *world) present(t *testing.T, table string, keys []int64) (n int) {
	t.Helper()
	var list []string
	for _, k := range keys {
		list = append(list, fmt.Sprint(k))
	}
	for _, s := range w.Servers {
		n += len(s.Query(t, "app", fmt.Sprintf("SELECT id FROM %s WHERE id IN (%s)", table, strings.Join(list, ","))))
	}
	return n
}
