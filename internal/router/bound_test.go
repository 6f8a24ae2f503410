package router_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != code {
		t.Errorf("%v, want SQLSTATE %s", err, code)
	}
}

func chown(t *testing.T, path string, like os.FileInfo) {
	t.Helper()
	st := like.Sys().(*syscall.Stat_t)
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
		t.Fatal(err)
	}
}

// TestBound: at sharding.max_connections a session waits in line, and says so
// when its time is up; whoever waits is served in turn.
func TestBound(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1, Router: func(o *router.Options) {
		o.MaxConnections, o.AcquireTimeout, o.MaxClients = 3, 2*time.Second, 40
	}})
	ctx := clustertest.Context(t)
	var holders []*pgx.Conn
	for range 3 {
		conn := c.Connect(t, "app")
		run(t, conn, "BEGIN")
		run(t, conn, "SELECT pg_advisory_xact_lock_shared(1)")
		holders = append(holders, conn)
	}
	start := time.Now()
	_, err := pgx.Connect(ctx, c.DSN("app"))
	wantCode(t, err, "53300")
	if d := time.Since(start); d < 1500*time.Millisecond || d > 20*time.Second {
		t.Errorf("refused after %s", d)
	}
	for _, h := range holders {
		run(t, h, "COMMIT")
	}
	var wg sync.WaitGroup
	for range 30 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			conn, err := pgx.Connect(ctx, c.DSN("app"))
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(context.Background())
			for range 20 {
				if _, err := conn.Exec(ctx, "SELECT pg_sleep(0.001)"); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	var more []*pgx.Conn
	for range 41 {
		conn, err := pgx.Connect(ctx, c.DSN("app"))
		if err != nil {
			wantCode(t, err, "53300")
			break
		}
		more = append(more, conn)
	}
	if len(more) > 40 {
		t.Errorf("%d clients were let in, max_clients is 40", len(more))
	}
	for _, m := range more {
		_ = m.Close(ctx)
	}
}

// TestCancel: a cancel request ends the statement on every shard that works for
// the session, and nobody else's.
func TestCancel(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	conn, other := c.Connect(t, "app"), c.Connect(t, "app")
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	run(t, conn, "INSERT INTO t VALUES (1),(2),(3),(4),(5),(6),(7),(8)")
	for _, sql := range []string{"SELECT pg_sleep(60)", "SELECT id, pg_sleep(60) FROM t", "SELECT pg_sleep(60) FROM t WHERE id = 3"} {
		done := make(chan error, 1)
		go func() { _, err := conn.Exec(context.Background(), sql); done <- err }()
		clustertest.Eventually(t, "the statement runs", func() error {
			for _, s := range c.Servers {
				if rows := s.Query(t, "app", "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid() AND state = 'active'"); len(rows) > 0 {
					return nil
				}
			}
			return errors.New("not yet")
		})
		if err := conn.PgConn().CancelRequest(context.Background()); err != nil {
			t.Fatal(err)
		}
		wantCode(t, <-done, "57014")
		if got := one[int](t, other, "SELECT 1"); got != 1 {
			t.Errorf("another client: %d", got)
		}
		if n := one[int64](t, conn, "SELECT count(*) FROM t"); n != 8 {
			t.Errorf("after the cancel: %d", n)
		}
	}
}
