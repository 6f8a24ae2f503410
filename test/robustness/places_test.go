package robustness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// TestLostConnectionsLeaveTheirPlaces: with one connection to each server, a session whose
// connection has died holds up nobody, whatever it was doing there and however long its
// client says nothing; it is told when it goes on.
func TestLostConnectionsLeaveTheirPlaces(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) {
		o.MaxConnections, o.AcquireTimeout = 1, 3*time.Second
	}})
	other := c.Connect(t, "app")
	mustExec(t, other, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (sharding.key = 'id')")
	mustExec(t, other, "CREATE TABLE g (a int)")
	keys := keysOf(t, c)
	mustExec(t, other, fmt.Sprintf("INSERT INTO t VALUES (%d), (%d)", keys[0], keys[1]))
	there, home := fmt.Sprintf("SELECT n FROM t WHERE id = %d", keys[1]), "SELECT a FROM g"
	asleep := fmt.Sprintf("SELECT pg_sleep(600) FROM t WHERE id = %d", keys[1])
	cull := func(server int, which string) {
		t.Helper()
		clustertest.Eventually(t, "there is a backend to end", func() error {
			if len(c.Servers[server].Query(t, "app", strings.Replace(clientBackends, "SELECT pid", "SELECT pg_terminate_backend(pid)", 1)+which)) == 0 {
				return errors.New("none")
			}
			return nil
		})
	}
	const idle, busy = " AND state LIKE 'idle%'", " AND wait_event = 'PgSleep'"
	for _, try := range []struct {
		name   string
		server int
		before []string
		busy   bool   // it dies in the middle of a statement, else between two
		other  string // what another session runs then
		told   string // SQLSTATE that the next statement gets, "" for none
		next   string
		kept   string // what the error says is gone
	}{
		{name: "a transaction that fails", server: 1, before: []string{"BEGIN", there}, busy: true, other: there, next: there, told: "25P02"},
		{name: "an idle transaction", server: 1, before: []string{"BEGIN", there}, other: there, next: there, told: "08006"},
		{name: "COMMIT", server: 1, before: []string{"BEGIN", there}, other: there, next: "COMMIT", told: "08006"},
		{name: "COMMIT, after another shard", server: 1, before: []string{"BEGIN", there}, other: there, next: fmt.Sprintf("UPDATE t SET n = n + 1 WHERE id = %d; COMMIT", keys[0]), told: "08006"},
		{name: "a savepoint", server: 1, before: []string{"BEGIN", there, "SAVEPOINT s"}, busy: true, other: there, next: "ROLLBACK TO s", told: "08006"},
		{name: "a temporary table", server: 0, before: []string{"CREATE TEMP TABLE tt (a int)"}, other: home, next: "SELECT * FROM tt", told: "08006", kept: "temporary table"},
		{name: "a lock", server: 0, before: []string{"SELECT pg_advisory_lock(1)"}, other: home, next: home, told: "08006", kept: "advisory lock"},
		{name: "one of two that are kept", server: 0, before: []string{"SET sharding.pool_mode = session", there, "CREATE TEMP TABLE tt (a int)"}, other: home, next: there, told: "08006", kept: "temporary table"},
		{name: "session mode", server: 1, before: []string{"SET sharding.pool_mode = session", there}, other: there, next: there},
	} {
		t.Run(try.name, func(t *testing.T) {
			conn := c.Connect(t, "app")
			defer conn.Close(context.Background())
			for _, sql := range try.before {
				mustExec(t, conn, sql)
			}
			if try.busy {
				done := make(chan error, 1)
				go func() {
					_, err := conn.Exec(context.Background(), asleep)
					done <- err
				}()
				cull(try.server, busy)
				var pg *pgconn.PgError
				if err := <-done; !errors.As(err, &pg) || pg.Code != "08006" {
					t.Errorf("the statement: %v", err)
				}
			} else {
				cull(try.server, idle)
			}
			mustExec(t, other, try.other)
			_, err := conn.Exec(t.Context(), try.next, pgx.QueryExecModeSimpleProtocol)
			var pg *pgconn.PgError
			switch {
			case err == nil && try.told == "":
			case !errors.As(err, &pg) || pg.Code != try.told:
				t.Errorf("%s: %v, want %q", try.next, err, try.told)
			case try.kept != "" && (!strings.Contains(pg.Detail, "(57P01)") || !strings.Contains(pg.Detail, try.kept)):
				t.Errorf("the detail is %q", pg.Detail)
			}
			mustExec(t, conn, "ROLLBACK")
			mustExec(t, conn, there)
			mustExec(t, conn, home)
		})
	}
	t.Run("a pipeline without its Sync", func(t *testing.T) {
		r := loginRaw(t, c.DSN("app"))
		defer r.nc.Close()
		var b []byte
		for _, m := range []pgproto3.FrontendMessage{
			&pgproto3.Parse{Query: asleep}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{},
		} {
			var err error
			if b, err = m.Encode(b); err != nil {
				t.Fatal(err)
			}
		}
		r.send(b)
		cull(1, busy)
		for typ := byte(0); typ != 'E'; {
			var err error
			if typ, _, err = r.message(); err != nil {
				t.Fatal(err)
			}
		}
		mustExec(t, other, there)
		b, _ = (&pgproto3.Sync{}).Encode(nil)
		r.send(b)
		if e := r.until(); e.code != "" || e.closed {
			t.Errorf("Sync: %v", e)
		}
	})
	for _, s := range c.Router.PoolStats() {
		if s.Open > 1 || s.Waiting > 0 {
			t.Errorf("%+v", s)
		}
	}
}
