package robustness

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRollingRestart: a router that is asked to go (SIGTERM) takes nobody new, sends
// those away who have nothing open, and lets the others end what they have begun.
func TestRollingRestart(t *testing.T) {
	const inTransaction, idle = 20, 20
	w := newWorld(t, 2, 1)
	w.prepare(t)
	r := w.routers[0]
	r.start("")
	ctx := clustertest.Context(t)

	var open, waiting []*pgx.Conn
	for i := range inTransaction {
		conn := connect(t, r.dsn())
		mustExec(t, conn, "BEGIN")
		mustExec(t, conn, fmt.Sprintf("INSERT INTO ledger VALUES (%d), (%d)", 1000+2*i, 1001+2*i))
		open = append(open, conn)
	}
	for range idle {
		conn := connect(t, r.dsn())
		mustExec(t, conn, "SELECT 1")
		waiting = append(waiting, conn)
	}
	listener := connect(t, r.dsn())
	mustExec(t, listener, "LISTEN news")
	waiting = append(waiting, listener)
	rows, feed := io.Pipe()
	copied := make(chan error, 1)
	copier := connect(t, r.dsn())
	go func() {
		tag, err := copier.PgConn().CopyFrom(ctx, rows, "COPY ledger FROM STDIN")
		if err == nil && tag.RowsAffected() != 2000 {
			err = fmt.Errorf("%d rows", tag.RowsAffected())
		}
		copied <- err
	}()
	send := func(from, to int) {
		for i := from; i < to; i++ {
			if _, err := fmt.Fprintln(feed, i); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(10000, 11000)

	ended := r.ended()
	r.ask(syscall.SIGTERM)
	for i, conn := range waiting {
		if err := conn.PgConn().WaitForNotification(ctx); sqlstate(err) != "57P01" {
			t.Errorf("idle client %d: %v, want 57P01", i, err)
		}
	}
	if _, err := pgx.Connect(ctx, r.dsn()); sqlstate(err) != "57P03" {
		t.Errorf("a client that comes: %v, want 57P03", err)
	}
	resp, err := http.Get(r.metrics + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d, want 503", resp.StatusCode)
	}
	send(11000, 12000)
	_ = feed.Close()
	if err := <-copied; err != nil {
		t.Errorf("the COPY that was under way: %v", err)
	}
	for i, conn := range open {
		mustExec(t, conn, fmt.Sprintf("UPDATE ledger SET id = id WHERE id = %d", 1000+2*i))
		mustExec(t, conn, "COMMIT")
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the router is still there")
	}

	r.start("")
	conn := connect(t, r.dsn())
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM ledger WHERE id >= 1000").Scan(&n); err != nil || n != 2*inTransaction+2000 {
		t.Errorf("%d rows, %v; want %d", n, err, 2*inTransaction+2000)
	}
	nothingOpen(t, w)
}

// TestSecondSignal: a transaction that does not end holds a router up for its
// bound, and no longer than until it is asked again.
func TestSecondSignal(t *testing.T) {
	w := newWorld(t, 2, 1)
	w.prepare(t)
	r := w.routers[0]
	r.start("")
	ctx := clustertest.Context(t)
	conn, idle := connect(t, r.dsn()), connect(t, r.dsn())
	mustExec(t, idle, "SELECT 1")
	mustExec(t, conn, "BEGIN")
	mustExec(t, conn, "INSERT INTO ledger VALUES (1), (2), (3), (4)")
	r.ask(syscall.SIGTERM)
	if err := idle.PgConn().WaitForNotification(ctx); sqlstate(err) != "57P01" {
		t.Errorf("an idle client: %v, want 57P01", err)
	}
	select {
	case <-r.ended():
		t.Fatal("the first signal cut a transaction off")
	default:
	}
	asked := time.Now()
	r.signal(syscall.SIGTERM)
	if took := time.Since(asked); took > 5*time.Second {
		t.Errorf("the second signal took %v", took)
	}
	nothingOpen(t, w)
	r.start("")
	var n int
	if err := connect(t, r.dsn()).QueryRow(ctx, "SELECT count(*) FROM ledger").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows of a transaction that was cut off, %v", n, err)
	}
}

// nothingOpen waits until no shard has a transaction open or prepared.
func nothingOpen(t *testing.T, w *world) {
	t.Helper()
	for _, s := range w.Servers {
		clustertest.Eventually(t, "no transaction is left", func() error {
			return empty(s.Query(t, "app", "SELECT state FROM pg_stat_activity WHERE datname = 'app' AND state LIKE '%in transaction%' "+
				"UNION ALL SELECT gid FROM pg_prepared_xacts"))
		})
	}
}

// ask sends a signal and does not wait for what it does.
func (d *daemon) ask(s syscall.Signal) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.cmd.Process.Signal(s)
}

func sqlstate(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
