package robustness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// TestVanishedMachine: a shard's machine vanishes without a word. Who waits for it, who
// uses a pooled connection to it, and whose transaction is there, is told within a minute;
// the other shard serves meanwhile; all sessions go on.
func TestVanishedMachine(t *testing.T) {
	t.Parallel()
	var h *hole
	c := clustertest.Start(t, clustertest.Options{
		Servers: 2,
		Router:  func(o *router.Options) { o.AcquireTimeout = 2 * time.Second },
		Endpoint: func(i int, addr string) string {
			if i == 0 {
				return addr
			}
			h = dig(t, addr)
			return h.l.Addr().String()
		},
	})
	admin := c.Connect(t, "app")
	mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	mustExec(t, admin, fmt.Sprintf("INSERT INTO t VALUES (%d), (%d)", keys[0], keys[1]))
	there := fmt.Sprintf("t WHERE id = %d", keys[1])
	type call struct {
		name, before, sql string
		code              string
		conn              *pgx.Conn
	}
	calls := []*call{
		{name: "a running statement", sql: "SELECT pg_sleep(600) FROM " + there, code: "08006"},
		{name: "a pooled connection", sql: "SELECT n FROM " + there, code: "08006"},
		{name: "a pooled connection, over shards", sql: "SELECT count(*) FROM t", code: "08006"},
		{name: "a transaction", before: "BEGIN; SELECT n FROM " + there, sql: "UPDATE t SET n = 1 WHERE id = " + fmt.Sprint(keys[1]), code: "08006"},
		{name: "COMMIT", before: fmt.Sprintf("BEGIN; UPDATE t SET n = n + 1 WHERE id = %d", keys[1]), sql: "COMMIT", code: "08007"},
	}
	for _, k := range calls {
		k.conn = c.Connect(t, "app")
		mustExec(t, k.conn, "SELECT n FROM "+there)
		if k.before != "" {
			mustExec(t, k.conn, k.before)
		}
	}
	answers := make(chan string, len(calls))
	run := func(k *call) {
		begun := time.Now()
		_, err := k.conn.Exec(context.Background(), k.sql)
		var pg *pgconn.PgError
		errors.As(err, &pg)
		switch took := time.Since(begun); {
		case pg == nil || pg.Code != k.code:
			answers <- fmt.Sprintf("%s: %v after %v, want %s", k.name, err, took, k.code)
		case took > time.Minute:
			answers <- fmt.Sprintf("%s: after %v", k.name, took)
		default:
			answers <- ""
		}
	}
	go run(calls[0])
	clustertest.Eventually(t, "it runs", func() error {
		if len(c.Servers[1].Query(t, "app", "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	h.vanish(t)
	for _, k := range calls[1:] {
		go run(k)
	}
	for left := len(calls); left > 0; {
		begun := time.Now()
		mustExec(t, admin, fmt.Sprintf("UPDATE t SET n = n + 1 WHERE id = %d", keys[0]))
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("the other shard took %v", took)
		}
		select {
		case a := <-answers:
			left--
			if a != "" {
				t.Error(a)
			}
		case <-time.After(200 * time.Millisecond):
		}
	}
	// Those who have not rolled back yet hold no places.
	within(t, time.Minute, "nothing is left of the connections", func() error {
		for _, s := range c.Router.PoolStats() {
			if s.Addr == h.l.Addr().String() && s.Open > 0 {
				return fmt.Errorf("%+v", s)
			}
		}
		return nil
	})
	h.comeBack(t)
	for _, k := range calls {
		if k.before != "" {
			mustExec(t, k.conn, "ROLLBACK")
		}
		within(t, 30*time.Second, k.name+": the session goes on", func() error {
			_, err := k.conn.Exec(t.Context(), "SELECT n FROM "+there)
			return err
		})
	}
}

// TestSlowIsNotSilent: a backend that takes nothing for more than half a minute, as it waits
// for a lock, is not taken for one that has vanished: its answer comes.
func TestSlowIsNotSilent(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d)", keys[1]))
	holder, err := c.Servers[1].Connect(t, "app").Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := holder.Exec(t.Context(), "UPDATE t SET v = 'held'"); err != nil {
		t.Fatal(err)
	}
	// A pipeline whose first statement waits while the rest, 64 MiB, fills all buffers.
	done := make(chan error, 1)
	go func() {
		b := &pgx.Batch{}
		b.Queue("UPDATE t SET v = 'a' WHERE id = $1", keys[1])
		big := strings.Repeat("x", 16<<20)
		for range 4 {
			b.Queue("UPDATE t SET v = $2 WHERE id = $1", keys[1], big)
		}
		done <- conn.SendBatch(context.Background(), b).Close()
	}()
	begun := time.Now()
	clustertest.Eventually(t, "it waits", func() error {
		if len(c.Servers[1].Query(t, "app", "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	select {
	case err := <-done:
		t.Fatalf("after %v: %v", time.Since(begun), err)
	case <-time.After(40 * time.Second):
	}
	if err := holder.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}

// TestVanishedClient: a client's machine vanishes in the middle of a transaction: within
// two minutes its backend is rolled back.
func TestVanishedClient(t *testing.T) {
	t.Parallel()
	for _, servers := range []int{1, 2} {
		t.Run(fmt.Sprint(servers), func(t *testing.T) {
			t.Parallel()
			c := clustertest.Start(t, clustertest.Options{Servers: servers})
			admin := c.Connect(t, "app")
			mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, n int) WITH (sharding.key = 'id')")
			mustExec(t, admin, "INSERT INTO t VALUES (1, 1)")
			r := loginRaw(t, c.DSN("app"))
			r.send(asked("BEGIN; UPDATE t SET n = 2 WHERE id = 1"))
			if e := r.until(); e.code != "" || e.closed {
				t.Fatal(e)
			}
			deafen(t, r.nc.(*net.TCPConn), true)
			took := within(t, 2*time.Minute, "the row is free", func() error {
				_, err := admin.Exec(t.Context(), "SET lock_timeout = '100ms'; UPDATE t SET n = n + 1 WHERE id = 1")
				return err
			})
			var n int
			if err := admin.QueryRow(t.Context(), "SELECT n FROM t WHERE id = 1").Scan(&n); err != nil || n != 2 {
				t.Errorf("%d, %v", n, err)
			}
			t.Logf("after %v", took)
		})
	}
}
