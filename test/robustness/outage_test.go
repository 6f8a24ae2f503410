package robustness

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/etcdtest"
	"github.com/sharding-system/sharding/internal/router"
)

// refusal runs a statement that must fail, and yields its SQLSTATE and how long
// it took.
func refusal(t *testing.T, c *pgx.Conn, sql string) (code string, took time.Duration) {
	t.Helper()
	begun := time.Now()
	_, err := c.Exec(clustertest.Context(t), sql, pgx.QueryExecModeSimpleProtocol)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		t.Fatalf("%s: %v, want an error with a SQLSTATE", sql, err)
	}
	t.Logf("%s: %v", sql, err)
	return pg.Code, time.Since(begun)
}

// TestShardDown: a shard that is away fails what needs it, with a SQLSTATE and
// within the bound; what needs the others only goes on, and all does when it is
// back.
func TestShardDown(t *testing.T) {
	c, dsn := guarded(t, 3)
	conn := connect(t, dsn)
	keys := keysOf(t, c)
	for i := range c.Servers {
		mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d, 'v')", keys[i]))
	}
	for _, down := range []int{1, 0} { // the home shard is the first
		c.Servers[down].Kill(t)
		for i := range c.Servers {
			sql := fmt.Sprintf("UPDATE t SET v = v || '.' WHERE id = %d", keys[i])
			if i != down {
				mustExec(t, conn, sql)
				continue
			}
			for _, sql := range []string{sql, "SELECT count(*) FROM t", "UPDATE t SET v = 'all'", "CREATE TABLE u (id int)"} {
				if code, took := refusal(t, conn, sql); code[:2] != "08" && code[:2] != "57" && code[:2] != "53" || took > 15*time.Second {
					t.Errorf("%s with a shard down: %s after %v", sql, code, took)
				}
			}
		}
		if _, err := pgx.Connect(clustertest.Context(t), dsn); down == 1 && err != nil {
			t.Errorf("a new client with another than the home shard down: %v", err)
		}
		c.Servers[down].Restart(t)
		for i := range c.Servers {
			mustExec(t, conn, fmt.Sprintf("UPDATE t SET v = v || '.' WHERE id = %d", keys[i]))
		}
		mustExec(t, conn, "UPDATE t SET v = 'all'")
	}
	c.NothingPrepared(t)
}

// TestEtcdDown: with etcd away a router that knows its keyspaces reads and writes
// on, lets clients in, and refuses what needs the catalog; when etcd is back,
// that works too.
func TestEtcdDown(t *testing.T) {
	c, dsn := guarded(t, 2)
	w := watch(t, dsn, c.Servers[0])
	conn := connect(t, dsn)
	c.Etcd.Stop()
	mustExec(t, conn, "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')")
	mustExec(t, connect(t, dsn), "UPDATE t SET v = 'z' WHERE id = 3")
	if code, took := refusal(t, conn, "DROP TABLE t"); code != "57P03" || took > 30*time.Second {
		t.Errorf("DDL without etcd: %s after %v, want 57P03", code, took)
	}
	if code, _ := refusal(t, conn, "SELECT * FROM nowhere"); code != "42P01" {
		t.Errorf("an unknown table without etcd: %s", code)
	}
	if _, err := pgx.Connect(clustertest.Context(t), dsn+"&dbname=elsewhere"); err == nil {
		t.Error("an unknown keyspace was let in without etcd")
	}
	mustExec(t, conn, "UPDATE t SET v = v || '!'")
	c.Etcd.Restart()
	clustertest.Eventually(t, "DDL works again", func() error {
		_, err := conn.Exec(clustertest.Context(t), "CREATE TABLE IF NOT EXISTS u (id bigint PRIMARY KEY) WITH (sharding.key = 'id')")
		return err
	})
	mustExec(t, conn, "INSERT INTO u VALUES (1), (2), (3)")
	w.stop(t)
}

// TestEtcdDownAtStart: a router that starts before etcd refuses clients with
// 57P03 and serves as soon as etcd is there.
func TestEtcdDownAtStart(t *testing.T) {
	c, dsn := guarded(t, 1)
	c.Etcd.Stop()
	cat := openCatalog(t, c.Etcd)
	r, err := router.New(router.Options{
		ID: "early", Catalog: cat, PostgresAddr: "127.0.0.1:0", ServiceUser: c.Servers[0].User, ServicePassword: c.Servers[0].Password,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	_, port := splitAddr(t, r.PostgresAddr().String())
	cfg.Port = port
	_, err = pgconn.ConnectConfig(clustertest.Context(t), cfg)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "57P03" {
		t.Errorf("a client before etcd: %v, want 57P03", err)
	}
	if r.Ready() == nil {
		t.Error("a router that has never read the catalog says that it is ready")
	}
	c.Etcd.Restart()
	clustertest.Eventually(t, "the router serves", func() error {
		conn, err := pgconn.ConnectConfig(clustertest.Context(t), cfg)
		if err == nil {
			_ = conn.Close(context.Background())
		}
		return err
	})
}

func openCatalog(t *testing.T, e *etcdtest.Server) *catalog.Catalog {
	t.Helper()
	cat, err := catalog.Open(clustertest.Context(t), catalog.Config{Endpoints: []string{e.Endpoint()}, PollInterval: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cat.Close() })
	return cat
}

// TestDeadRouterLeavesNothing: what a killed router had running on a shard ends
// there soon, and the locks with it.
func TestDeadRouterLeavesNothing(t *testing.T) {
	w := newWorld(t, 1, 1)
	w.prepare(t)
	r := w.routers[0]
	r.start("")
	conn := connect(t, r.dsn())
	mustExec(t, conn, "INSERT INTO ledger VALUES (1)")
	for _, sql := range []string{
		"UPDATE ledger SET id = id WHERE id = 1 AND pg_sleep(600) IS NOT NULL",
		"BEGIN; UPDATE ledger SET id = id WHERE id = 1",
	} {
		r.kill()
		r.start("")
		conn := connect(t, r.dsn())
		answer := make(chan error, 1)
		go func() {
			_, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
			answer <- err
		}()
		held := "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND query LIKE '%ledger SET id%' AND state <> 'idle' AND pid <> pg_backend_pid()"
		clustertest.Eventually(t, sql+" holds its lock", func() error {
			if len(w.Servers[0].Query(t, "app", held)) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		r.kill()
		<-answer
		clustertest.Eventually(t, sql+" is gone", func() error { return empty(w.Servers[0].Query(t, "app", held)) })
	}
}
