package robustness

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// crowd is clients that read and write rows of one shard, one statement after
// another, in simple and in extended protocol by turns.
type crowd struct {
	done  atomic.Int64
	wrote atomic.Int64

	mu     sync.Mutex // guards errors
	errors map[int][]error
}

func (c *crowd) work(ctx context.Context, n int, conn *pgx.Conn, keys []int64) {
	mode := pgx.QueryExecModeSimpleProtocol
	if n%2 == 1 {
		mode = pgx.QueryExecModeCacheStatement
	}
	for i := 0; ctx.Err() == nil; i++ {
		var err error
		if write := i%2 == 1; write {
			if _, err = conn.Exec(context.Background(), "UPDATE t SET v = v || '.' WHERE id = $1", mode, keys[n]); err == nil {
				c.wrote.Add(1)
			}
		} else {
			var v string
			err = conn.QueryRow(context.Background(), "SELECT v FROM t WHERE id = $1", mode, keys[n]).Scan(&v)
		}
		if err != nil {
			c.mu.Lock()
			c.errors[n] = append(c.errors[n], err)
			c.mu.Unlock()
			if conn.IsClosed() {
				return
			}
			continue
		}
		c.done.Add(1)
	}
}

// TestShardRestarts: a shard is restarted under 64 clients at work. None hangs or
// loses its session, each gets one error at most, all go on, and every write that was
// acknowledged is there once.
func TestShardRestarts(t *testing.T) {
	const clients = 64
	for _, how := range []string{"stop", "kill"} {
		t.Run(how, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Servers: 2})
			admin := c.Connect(t, "app")
			mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, v text NOT NULL) WITH (sharding.key = 'id')")
			w := &world{keys: mapOf(t, 2)}
			keys := make([]int64, clients)
			for i := range keys {
				keys[i] = w.keyOn(1)
				mustExec(t, admin, fmt.Sprintf("INSERT INTO t VALUES (%d, '')", keys[i]))
			}
			cr := &crowd{errors: map[int][]error{}}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			for i := range clients {
				conn := c.Connect(t, "app")
				wg.Go(func() { cr.work(ctx, i, conn, keys) })
			}
			reach(t, "work before", &cr.done, 10*clients)
			s := c.Servers[1]
			if how == "stop" {
				s.Stop(t)
			} else {
				s.Kill(t)
			}
			s.Restart(t)
			back := time.Now()
			reach(t, "work after", &cr.done, cr.done.Load()+10*clients)
			t.Logf("%d statements within %v of the restart", 10*clients, time.Since(back))
			stop()
			wg.Wait()
			codes := map[string]int{}
			for n, errs := range cr.errors {
				if len(errs) > 1 {
					t.Errorf("client %d got %d errors: %v", n, len(errs), errs)
				}
				for _, err := range errs {
					var pg *pgconn.PgError
					if !errors.As(err, &pg) || pg.Code != "08006" && pg.Code != "08007" {
						t.Errorf("client %d: %v", n, err)
						continue
					}
					codes[pg.Code]++
				}
			}
			total := numbers(t, s.Query(t, "app", "SELECT sum(length(v)) FROM t")[0])[0]
			n := int64(codes["08006"] + codes["08007"])
			if w := cr.wrote.Load(); total < w || total > w+n {
				t.Errorf("%d writes were acknowledged, %d failed, %d are there", w, n, total)
			}
			t.Logf("%d statements, errors %v", cr.done.Load(), codes)
		})
	}
}

// reach waits until a counter has got somewhere.
func reach(t *testing.T, what string, n *atomic.Int64, to int64) {
	t.Helper()
	clustertest.Eventually(t, what, func() error {
		if have := n.Load(); have < to {
			return fmt.Errorf("%d of %d", have, to)
		}
		return nil
	})
}

// TestShardAway: who waits for a shard that does not come back is told what is the
// matter with it, after acquire_timeout; who comes later is told at once.
func TestShardAway(t *testing.T) {
	const patience = time.Second
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) { o.AcquireTimeout = patience }})
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	sql := fmt.Sprintf("SELECT * FROM t WHERE id = %d", keys[1])
	c.Servers[1].Kill(t)
	code, took := refusal(t, conn, sql)
	if code != "08006" || took < patience/2 || took > 5*patience {
		t.Errorf("the first: %s after %v", code, took)
	}
	if code, took := refusal(t, conn, sql); code != "08006" || took > patience*9/10 {
		t.Errorf("the second: %s after %v", code, took)
	}
	c.Servers[1].Restart(t)
	clustertest.Eventually(t, "the shard is used again", func() error {
		_, err := conn.Exec(t.Context(), sql)
		return err
	})
}

// TestStaleConnections: pooled connections whose server processes are ended while
// they are idle cost nobody an error, in any protocol, whatever is run first; what
// was cut off in the middle is never run twice.
func TestStaleConnections(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	for _, k := range keys {
		mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d)", k))
	}
	const backends = "FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
	cull := func() {
		for _, s := range c.Servers {
			s.Exec(t, "app", "SELECT pg_terminate_backend(pid) "+backends)
		}
	}
	modes := map[string]pgx.QueryExecMode{
		"simple": pgx.QueryExecModeSimpleProtocol, "exec": pgx.QueryExecModeExec, "describe": pgx.QueryExecModeDescribeExec, "cached": pgx.QueryExecModeCacheStatement,
	}
	want := 0
	for name, mode := range modes {
		for range 25 {
			// The kill and the statement race: some meet the farewell in the socket,
			// some send first.
			cull()
			if _, err := conn.Exec(t.Context(), "UPDATE t SET n = n + 1 WHERE id = $1", mode, keys[1]); err != nil {
				t.Errorf("%s, write: %v", name, err)
				want--
			}
			want++
			cull()
			var n int
			if err := conn.QueryRow(t.Context(), "SELECT n FROM t WHERE id = $1", mode, keys[1]).Scan(&n); err != nil || n != want {
				t.Errorf("%s, read: %d, %v; want %d", name, n, err, want)
			}
			cull()
			tx, err := conn.Begin(t.Context())
			if err == nil {
				if _, err = tx.Exec(t.Context(), "UPDATE t SET n = n + 1 WHERE id = $1", mode, keys[1]); err == nil {
					err = tx.Commit(t.Context())
				}
			}
			if err != nil {
				t.Errorf("%s, transaction: %v", name, err)
				_, _ = conn.Exec(t.Context(), "ROLLBACK")
				want--
			}
			want++
		}
	}
	// One that dies at work is an error, and has not been done.
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "UPDATE t SET n = n + 1 WHERE id = $1 AND pg_sleep(60) IS NOT NULL", keys[1])
		done <- err
	}()
	clustertest.Eventually(t, "it runs", func() error {
		if len(c.Servers[1].Query(t, "app", "SELECT 1 "+backends+" AND wait_event = 'PgSleep'")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	cull()
	var pg *pgconn.PgError
	if err := <-done; !errors.As(err, &pg) || pg.Code != "08006" {
		t.Errorf("ended at work: %v", err)
	}
	if n := numbers(t, c.Servers[1].Query(t, "app", fmt.Sprintf("SELECT n FROM t WHERE id = %d", keys[1]))[0])[0]; n != int64(want) {
		t.Errorf("%d, want %d", n, want)
	}
}

// TestQueryTimeout: what takes longer than postgres.query_timeout is cancelled; a
// shard that hangs (SIGSTOP) holds nobody for long, and nobody is told that a write
// was or was not made where that is not known.
func TestQueryTimeout(t *testing.T) {
	const limit = 500 * time.Millisecond
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) { o.QueryTimeout = limit; o.AcquireTimeout = time.Second }})
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	for _, k := range keys {
		mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d)", k))
	}
	// The client's own cancel reads otherwise.
	for _, sql := range []string{
		fmt.Sprintf("SELECT pg_sleep(60) FROM t WHERE id = %d", keys[1]),
		"SELECT count(*) FROM t WHERE pg_sleep(60) IS NOT NULL",
		fmt.Sprintf("UPDATE t SET n = 7 WHERE id = %d AND pg_sleep(60) IS NOT NULL", keys[0]),
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			begun := time.Now()
			_, err := conn.Exec(clustertest.Context(t), sql, mode)
			var pg *pgconn.PgError
			if !errors.As(err, &pg) || pg.Code != "57014" || pg.Message != "canceling statement due to query timeout" || time.Since(begun) > 10*time.Second {
				t.Errorf("%s: %v after %v", sql, err, time.Since(begun))
			}
			mustExec(t, conn, fmt.Sprintf("UPDATE t SET n = 1 WHERE id = %d", keys[1]))
		}
	}
	hang := func(run func()) {
		pids := c.Servers[1].Query(t, "app", "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend' AND pid <> pg_backend_pid()")
		for _, row := range pids {
			signal(t, row[0], syscall.SIGSTOP)
		}
		signal(t, fmt.Sprint(c.Servers[1].Pid()), syscall.SIGSTOP) // nor does it take new connections
		defer func() {
			signal(t, fmt.Sprint(c.Servers[1].Pid()), syscall.SIGCONT)
			for _, row := range pids {
				signal(t, row[0], syscall.SIGCONT)
			}
		}()
		run()
	}
	const long = 15 * time.Second
	read := fmt.Sprintf("SELECT n FROM t WHERE id = %d", keys[1])
	write := fmt.Sprintf("UPDATE t SET n = n + 1 WHERE id = %d", keys[1])
	for _, try := range []struct{ sql, code string }{{read, "57014"}, {write, "08007"}} {
		mustExec(t, conn, read)
		hang(func() {
			if code, took := refusal(t, conn, try.sql); code != try.code || took > long {
				t.Errorf("%s on a hung shard: %s after %v, want %s", try.sql, code, took, try.code)
			}
			mustExec(t, conn, fmt.Sprintf("UPDATE t SET n = 2 WHERE id = %d", keys[0])) // the other shard works
		})
		mustExec(t, conn, read)
	}
	// At COMMIT, on one shard and on two.
	for _, more := range []string{"", fmt.Sprintf("; UPDATE t SET n = n + 1 WHERE id = %d", keys[0])} {
		mustExec(t, conn, "BEGIN")
		if _, err := conn.PgConn().Exec(clustertest.Context(t), write+more).ReadAll(); err != nil {
			t.Fatal(err)
		}
		hang(func() {
			code, took := refusal(t, conn, "COMMIT")
			if code != "08007" && (more == "" || code != "40001") || took > 3*long {
				t.Errorf("COMMIT of %q on a hung shard: %s after %v", write+more, code, took)
			}
		})
		mustExec(t, conn, read)
	}
}

func signal(t *testing.T, pid string, s syscall.Signal) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err == nil {
		err = syscall.Kill(n, s)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestIdleInTransaction: a server ends a transaction that is idle for too long; the
// client is told so at once and disconnected, as by one server. What a client sets
// for its own idle session kills nobody's pooled connection.
func TestIdleInTransaction(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	admin := c.Connect(t, "app")
	mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	mustExec(t, admin, fmt.Sprintf("INSERT INTO t VALUES (%d), (%d)", keys[0], keys[1]))
	for _, direct := range []bool{true, false} {
		conn := c.Connect(t, "app")
		if direct {
			conn = c.Servers[1].Connect(t, "app")
		}
		mustExec(t, conn, "SET idle_in_transaction_session_timeout = '300ms'")
		mustExec(t, conn, "BEGIN")
		mustExec(t, conn, fmt.Sprintf("UPDATE t SET n = 1 WHERE id = %d", keys[1]))
		msg, err := conn.PgConn().ReceiveMessage(clustertest.Context(t))
		var pg *pgconn.PgError
		if !errors.As(err, &pg) || pg.Severity != "FATAL" || pg.Code != "25P03" {
			t.Errorf("direct %v: %T, %v", direct, msg, err)
		}
		if n := numbers(t, c.Servers[1].Query(t, "app", fmt.Sprintf("SELECT n FROM t WHERE id = %d", keys[1]))[0])[0]; n != 0 {
			t.Errorf("direct %v: the transaction's write is there", direct)
		}
	}
	// Another end of the backend: the block fails, the session stays.
	conn := c.Connect(t, "app")
	mustExec(t, conn, "BEGIN")
	mustExec(t, conn, fmt.Sprintf("UPDATE t SET n = 1 WHERE id = %d", keys[1]))
	c.Servers[1].Exec(t, "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND state = 'idle in transaction'")
	if code, _ := refusal(t, conn, fmt.Sprintf("SELECT * FROM t WHERE id = %d", keys[1])); code != "08006" {
		t.Errorf("a statement of a block whose backend was ended: %s", code)
	}
	if code, _ := refusal(t, conn, fmt.Sprintf("SELECT * FROM t WHERE id = %d", keys[0])); code != "25P02" {
		t.Errorf("the next: %s", code)
	}
	mustExec(t, conn, "ROLLBACK")
	mustExec(t, conn, fmt.Sprintf("SELECT * FROM t WHERE id = %d", keys[1]))
}
