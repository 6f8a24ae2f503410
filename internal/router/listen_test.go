package router_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterListen: notifications reach an idle client, a client between queries, and
// nobody else; from the home shard, and from triggers on every shard.
func TestRouterListen(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	a, b := c.Connect(t, "app"), c.Connect(t, "app")
	must(t, a, "LISTEN ch", "LISTEN")
	if got := pinned(t, a); got != "listen" {
		t.Errorf("pinned: %q", got)
	}
	must(t, b, "NOTIFY ch, 'one'", "NOTIFY")
	hear(t, a, "ch one")
	must(t, b, "SELECT pg_notify('ch', 'two')", "")
	hear(t, a, "ch two")
	must(t, b, "NOTIFY other, 'not heard'", "NOTIFY")

	// Its own carry the process that BackendKeyData named.
	must(t, a, "NOTIFY ch, 'self'", "NOTIFY")
	if n := hear(t, a, "ch self"); n.PID != a.PgConn().PID() {
		t.Errorf("a notification of its own is from process %d, the session is %d", n.PID, a.PgConn().PID())
	}
	must(t, b, "BEGIN", "BEGIN")
	must(t, b, "NOTIFY ch, 'committed'", "NOTIFY")
	must(t, b, "COMMIT", "COMMIT")
	if n := hear(t, a, "ch committed"); n.PID == a.PgConn().PID() {
		t.Error("another session's notification looks like its own")
	}
	must(t, b, "BEGIN; NOTIFY ch, 'rolled back'; ROLLBACK", "")

	// Inside a block nothing comes, afterwards it does.
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SELECT 1", "")
	must(t, b, "NOTIFY ch, 'later'", "NOTIFY")
	must(t, a, "SELECT 1", "")
	must(t, a, "COMMIT", "COMMIT")
	hear(t, a, "ch later")

	testTriggersNotify(t, c, a)

	// LISTEN in a transaction takes effect with it.
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "LISTEN ch2", "LISTEN")
	must(t, a, "ROLLBACK", "ROLLBACK")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SAVEPOINT s", "SAVEPOINT")
	must(t, a, "LISTEN ch3", "LISTEN")
	must(t, a, "ROLLBACK TO s", "ROLLBACK")
	must(t, a, "LISTEN ch4", "LISTEN")
	must(t, a, "COMMIT", "COMMIT")
	must(t, b, "NOTIFY ch2; NOTIFY ch3; NOTIFY ch4, 'x'", "")
	hear(t, a, "ch4 x")

	must(t, a, "UNLISTEN ch4", "UNLISTEN")
	must(t, b, "NOTIFY ch4, 'no'", "NOTIFY")
	must(t, b, "NOTIFY ch, 'yes'", "NOTIFY")
	hear(t, a, "ch yes")
	must(t, a, "UNLISTEN *", "UNLISTEN")
	if got := pinned(t, a); got != "" {
		t.Errorf("pinned after UNLISTEN *: %q", got)
	}
	must(t, b, "NOTIFY ch, 'nobody'", "NOTIFY")
	silent(t, a)
	if out := c.Everywhere(t, "app", "SELECT coalesce(string_agg(pg_listening_channels, ','), '') FROM pg_listening_channels()"); slices.ContainsFunc(out, func(s string) bool { return s != "" }) {
		t.Errorf("listening: %q", out)
	}
	must(t, a, "LISTEN ch", "LISTEN")
	testListenerLost(t, c, a)
}

// testTriggersNotify: rows of a sharded table whose trigger notifies, wherever they are.
func testTriggersNotify(t *testing.T, c *clustertest.Cluster, a *pgx.Conn) {
	must(t, c.Connect(t, "app"), "CREATE TABLE tn (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')", "CREATE TABLE")
	for _, s := range c.Servers {
		// Made on the shards: what a trigger does is not proved by the planner.
		s.Exec(t, "app", "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('ch', 'row ' || new.id); RETURN NULL; END $$")
		s.Exec(t, "app", "CREATE TRIGGER tell AFTER INSERT ON tn FOR EACH ROW EXECUTE FUNCTION tell()")
	}
	for i := range c.Servers {
		conn := c.Servers[i].Connect(t, "app")
		run(t, conn, fmt.Sprintf("INSERT INTO tn VALUES (%d, 0)", i))
	}
	want := map[string]bool{}
	for i := range c.Servers {
		want[fmt.Sprintf("row %d", i)] = true
	}
	for range c.Servers {
		n := hear(t, a, "")
		if !want[n.Payload] {
			t.Errorf("heard %q", n.Payload)
		}
		delete(want, n.Payload)
	}
}

// testListenerLost: a client that waits for notifications is told when they can no
// longer come.
func testListenerLost(t *testing.T, c *clustertest.Cluster, a *pgx.Conn) {
	last := c.Servers[len(c.Servers)-1]
	last.Exec(t, "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query LIKE 'SELECT ''t''%' AND pid <> pg_backend_pid()")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := a.WaitForNotification(ctx)
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "57P01" {
		t.Errorf("the listening backend is gone: %v", err)
	}
}

// hear waits for a notification, "channel payload" where that is known.
func hear(t *testing.T, conn *pgx.Conn, want string) *pgconn.Notification {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	if err != nil {
		t.Fatalf("waiting for %q: %v", want, describe(err))
	}
	if want != "" && n.Channel+" "+n.Payload != want {
		t.Errorf("heard %q %q, want %q", n.Channel, n.Payload, want)
	}
	return n
}

// silent checks that nothing has come by the time the answer to a query has.
func silent(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	must(t, conn, "SELECT 1", "")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := conn.WaitForNotification(ctx); err == nil {
		t.Errorf("heard %q %q", n.Channel, n.Payload)
	}
}
