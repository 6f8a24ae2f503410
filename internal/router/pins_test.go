package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterPins: every reason is shown, ends where it can end, and a client that dies
// in a transaction leaves nothing of it behind.
func TestRouterPins(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	setup := c.Connect(t, "app")
	must(t, setup, "CREATE TABLE pins (id int PRIMARY KEY)", "CREATE TABLE")
	must(t, setup, "CREATE SEQUENCE pinseq", "CREATE SEQUENCE")
	for i, reason := range []struct{ name, make, end string }{
		{"temporary table", "CREATE TEMP TABLE mine (id int)", "DROP TABLE mine"},
		{"temporary table", "CREATE TEMP TABLE mine (id int)", "DISCARD TEMP"},
		{"advisory lock", "SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)"},
		{"advisory lock", "SELECT pg_try_advisory_lock(7)", "SELECT pg_advisory_unlock_all()"},
		{"sequence", "SELECT nextval('pinseq')", "DISCARD SEQUENCES"},
		{"cursor", "DECLARE held CURSOR WITH HOLD FOR SELECT 1", "CLOSE held"},
		{"listen", "LISTEN pins", "UNLISTEN pins"},
		{"session mode", "SET sharding.pool_mode = session; SELECT 1", "SET sharding.pool_mode = transaction"},
	} {
		t.Run(reason.name+" by "+reason.make, func(t *testing.T) {
			conn := c.Connect(t, "app")
			must(t, conn, reason.make, "")
			if got := pinned(t, conn); got != reason.name {
				t.Errorf("pinned: %q", got)
			}
			must(t, conn, reason.end, "")
			if got := pinned(t, conn); got != "" {
				t.Errorf("pinned after %s: %q", reason.end, got)
			}

			must(t, conn, reason.make, "")
			must(t, conn, "BEGIN", "BEGIN")
			must(t, conn, fmt.Sprintf("INSERT INTO pins VALUES (%d)", i), "INSERT 0 1")
			pid := one[int32](t, conn, "SELECT pg_backend_pid()")
			dead := hijack(t, conn)
			_ = dead.c.Close()
			direct := c.Servers[0].Connect(t, "app")
			clustertest.Eventually(t, "the backend is gone or clean", func() error {
				var left int
				err := direct.QueryRow(context.Background(), "SELECT count(*) FROM pg_stat_activity WHERE pid = $1", pid).Scan(&left)
				if err == nil && left > 0 {
					err = fmt.Errorf("backend %d is there", pid)
				}
				return err
			})
			var rows, locks int
			if err := direct.QueryRow(context.Background(), "SELECT (SELECT count(*) FROM pins), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')").Scan(&rows, &locks); err != nil || rows > 0 || locks > 0 {
				t.Errorf("%d rows, %d locks, %v", rows, locks, err)
			}
		})
	}

	// A pinned backend that dies is told of once.
	conn := c.Connect(t, "app")
	must(t, conn, "CREATE TEMP TABLE mine (id int)", "CREATE TABLE")
	c.Servers[0].Exec(t, "app", fmt.Sprintf("SELECT pg_terminate_backend(%d)", one[int32](t, conn, "SELECT pg_backend_pid()")))
	clustertest.Eventually(t, "the session is told", func() error {
		_, err := conn.Exec(context.Background(), "SELECT count(*) FROM mine")
		if err == nil {
			return fmt.Errorf("the backend lives")
		}
		return nil
	})
	mustFail(t, conn, "SELECT * FROM mine", "42P01")
	must(t, conn, "SELECT count(*) FROM pins", "0,SELECT 1")

	testPreparedBound(t, c)
}

// testPreparedBound: a backend holds no more of the router's statements than the bound.
func testPreparedBound(t *testing.T, c *clustertest.Cluster) {
	conn := c.Connect(t, "app")
	ctx := context.Background()
	for i := range 2000 {
		name := fmt.Sprintf("s%d", i)
		if _, err := conn.Prepare(ctx, name, fmt.Sprintf("SELECT %d, count(*) FROM pins", i)); err != nil {
			t.Fatal(describe(err))
		}
		if i%100 == 0 {
			if got := one[int32](t, conn, fmt.Sprintf("SELECT %d::int4", i)); got != int32(i) {
				t.Fatal(got)
			}
		}
		if err := conn.Deallocate(ctx, name); err != nil {
			t.Fatal(describe(err))
		}
	}
	if n := one[int64](t, conn, "SELECT count(*) FROM pg_prepared_statements"); n > 260 {
		t.Errorf("the backend holds %d statements", n)
	}
}
