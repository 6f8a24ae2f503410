package robustness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

const clientBackends = "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"

// TestIdleTransactionTimeout: postgres.idle_transaction_timeout ends a client that leaves a
// transaction or a pipeline open, pooled or bound to its backend, on one shard or several,
// in PostgreSQL's words; the shards roll back; who is idle outside is left alone.
func TestIdleTransactionTimeout(t *testing.T) {
	const limit = 300 * time.Millisecond
	for _, servers := range []int{1, 2} {
		c := clustertest.Start(t, clustertest.Options{Servers: servers, Router: func(o *router.Options) { o.IdleTransactionTimeout = limit }})
		admin := c.Connect(t, "app")
		mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, n int) WITH (sharding.key = 'id')")
		mustExec(t, admin, "INSERT INTO t VALUES (1, 0), (2, 0), (3, 0), (4, 0)")
		for _, try := range []struct {
			name string
			do   [][]byte
			left []byte // without a Sync
		}{
			{"nothing yet", [][]byte{asked("BEGIN")}, nil},
			{"a transaction", [][]byte{asked("BEGIN"), asked("UPDATE t SET n = 1 WHERE id = 1")}, nil},
			{"on all shards", [][]byte{asked("BEGIN"), asked("UPDATE t SET n = 1")}, nil},
			{"failed", [][]byte{asked("BEGIN"), asked("UPDATE t SET n = 1 WHERE id = 1"), asked("SELECT 1/0 FROM t WHERE id = 1")}, nil},
			{"bound", [][]byte{asked("BEGIN"), asked("CREATE TEMP TABLE tt (a int)"), asked("UPDATE t SET n = 1 WHERE id = 1")}, nil},
			{"a pipeline", nil, unsynced("UPDATE t SET n = 1 WHERE id = 1")},
			{"a pipeline on all shards", nil, unsynced("UPDATE t SET n = 1")},
			{"a pipeline in a transaction", [][]byte{asked("BEGIN"), asked("UPDATE t SET n = 1 WHERE id = 1")}, unsynced("UPDATE t SET n = 1 WHERE id = 2")},
			{"a pipeline of a bound session", [][]byte{asked("CREATE TEMP TABLE tt (a int)")}, unsynced("UPDATE t SET n = 1 WHERE id = 1")},
		} {
			r := loginRaw(t, c.DSN("app"))
			for _, b := range try.do {
				r.send(b)
				if e := r.until(); e.closed {
					t.Fatal(e)
				}
			}
			begun := time.Now()
			r.send(try.left)
			e := r.until()
			if e.code != "25P03" || !e.closed || e.message != "terminating connection due to idle-in-transaction timeout" || time.Since(begun) < limit/2 {
				t.Errorf("%d shards, %s: %+v after %v", servers, try.name, e, time.Since(begun))
			}
			clustertest.Eventually(t, "the shards rolled back", func() error {
				for _, s := range c.Servers {
					if n := len(s.Query(t, "app", clientBackends+" AND state <> 'idle'")); n > 0 {
						return fmt.Errorf("%d backends", n)
					}
				}
				return nil
			})
			var sum int
			if err := admin.QueryRow(t.Context(), "SELECT sum(n) FROM t").Scan(&sum); err != nil || sum != 0 {
				t.Errorf("%d shards, %s: %d, %v", servers, try.name, sum, err)
			}
		}
		// A statement that takes longer is not idle.
		mustExec(t, admin, "BEGIN")
		mustExec(t, admin, "SELECT pg_sleep(1) FROM t WHERE id = 1")
		mustExec(t, admin, "COMMIT")
	}
}

// TestMinConnections: once somebody has logged in, sharding.min_connections are open to
// every shard's server, also after they have died, have aged, or the server was restarted.
func TestMinConnections(t *testing.T) {
	const least = 4
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) {
		o.MinConnections, o.ConnectionTTL = least, 5*time.Second
	}})
	full := func(what string) {
		t.Helper()
		clustertest.Eventually(t, what, func() error {
			for i, s := range c.Servers {
				if n := len(s.Query(t, "app", clientBackends+" AND backend_start > now() - interval '8 s'")); n < least {
					return fmt.Errorf("server %d has %d", i, n)
				}
			}
			return nil
		})
	}
	for _, s := range c.Servers {
		if n := len(s.Query(t, "app", clientBackends)); n >= least {
			t.Fatalf("%d connections before anybody came", n)
		}
	}
	conn := c.Connect(t, "app")
	full("after a login")
	for _, s := range c.Servers {
		s.Exec(t, "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND pid <> pg_backend_pid()")
	}
	full("after their end")
	c.Servers[1].Kill(t)
	c.Servers[1].Restart(t)
	full("after a restart")
	old := c.Servers[0].Query(t, "app", "SELECT max(backend_start) FROM pg_stat_activity WHERE datname = 'app' AND pid <> pg_backend_pid()")[0][0]
	clustertest.Eventually(t, "they are made anew when they have aged", func() error {
		if n := len(c.Servers[0].Query(t, "app", clientBackends+" AND backend_start > '"+old+"'")); n < least {
			return fmt.Errorf("%d are new", n)
		}
		return nil
	})
	mustExec(t, conn, "SELECT 1")
	for _, s := range c.Router.PoolStats() {
		if s.Open > least+2 || s.Idle > s.Open {
			t.Errorf("%+v", s)
		}
	}
}

// nameServer names another server for a shard in the catalog, as an operator would.
func nameServer(t *testing.T, c *clustertest.Cluster, shard sharding.ShardID, addr string) {
	t.Helper()
	snap, err := c.Catalog.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sh := *snap.Shards[shard]
	sh.PrimaryEndpoint, sh.Replicas = addr, nil
	if _, err := c.Catalog.UpdateShard(t.Context(), sh); err != nil {
		t.Fatal(err)
	}
}

// TestLoginHangs: a server that takes connections and says nothing, or stops half way, costs
// who needs it acquire_timeout; the others are served; when it is well, all is.
func TestLoginHangs(t *testing.T) {
	const patience = time.Second
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) { o.AcquireTimeout = patience }})
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, n int) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d, 0), (%d, 0)", keys[0], keys[1]))
	for name, says := range map[string]string{
		"nothing":             "",
		"half of a message":   "R\x00\x00",
		"a login's beginning": "R\x00\x00\x00\x08\x00\x00\x00\x00S\x00\x00\x00\x0ca\x00b\x00",
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			var open []net.Conn
			defer func() {
				for _, c := range open {
					_ = c.Close()
				}
			}()
			for {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				open = append(open, nc)
				_, _ = io.WriteString(nc, says)
			}
		}()
		nameServer(t, c, "app-2", l.Addr().String())
		sql := fmt.Sprintf("SELECT n FROM t WHERE id = %d", keys[1])
		clustertest.Eventually(t, "the hanging server is asked", func() error {
			begun := time.Now()
			_, err := conn.Exec(t.Context(), sql)
			var pg *pgconn.PgError
			if !errors.As(err, &pg) {
				return fmt.Errorf("not yet: %v", err)
			}
			if took := time.Since(begun); pg.Code != "08006" || !strings.Contains(pg.Message, "in time") || took > 5*patience {
				t.Errorf("%s: %v after %v", name, err, took)
			}
			return nil
		})
		mustExec(t, conn, fmt.Sprintf("UPDATE t SET n = 1 WHERE id = %d", keys[0]))
		nameServer(t, c, "app-2", c.Servers[1].Addr())
		clustertest.Eventually(t, "the shard is used again", func() error { _, err := conn.Exec(t.Context(), sql); return err })
		_ = l.Close()
		<-ended
	}
}

// TestPrimaryTurnedStandby: a server that comes back as a standby is refused as a primary,
// for reads too; when the catalog names the promoted one, the same session goes on there.
func TestPrimaryTurnedStandby(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Replicas: 1, Router: func(o *router.Options) { o.AcquireTimeout = time.Second }})
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, n int) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d, 0), (%d, 7)", keys[0], keys[1]))
	s, replica := c.Servers[1], c.Replicas[1][0]
	s.Stop(t)
	signalFile := filepath.Join(s.DataDir(), "standby.signal")
	if err := os.WriteFile(signalFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own, err := os.Stat(filepath.Join(s.DataDir(), "PG_VERSION"))
	if err != nil {
		t.Fatal(err)
	}
	st := own.Sys().(*syscall.Stat_t)
	if err := os.Chown(signalFile, int(st.Uid), int(st.Gid)); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	if rows := s.Query(t, "app", "SELECT pg_is_in_recovery()"); rows[0][0] != "t" {
		t.Fatal("it is no standby")
	}
	write := fmt.Sprintf("UPDATE t SET n = n + 1 WHERE id = %d", keys[1])
	read := fmt.Sprintf("SELECT n FROM t WHERE id = %d", keys[1])
	for _, sql := range []string{write, read} {
		if code, took := refusal(t, conn, sql); code != "57P03" || took > 10*time.Second {
			t.Errorf("%s: %s after %v", sql, code, took)
		}
	}
	replica.Exec(t, "postgres", "SELECT pg_promote()")
	nameServer(t, c, "app-2", replica.Addr())
	clustertest.Eventually(t, "the promoted server is used", func() error { _, err := conn.Exec(t.Context(), write); return err })
	var n int
	if err := conn.QueryRow(t.Context(), read).Scan(&n); err != nil || n != 8 {
		t.Errorf("%d, %v", n, err)
	}
}

// TestServerEndsIdleConnections: servers that end idle sessions (idle_session_timeout) cost
// nobody an error.
func TestServerEndsIdleConnections(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	if c.Servers[0].Query(t, "app", "SELECT current_setting('server_version_num')::int < 140000")[0][0] == "t" {
		t.Skip("idle_session_timeout came with PostgreSQL 14")
	}
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d, 0), (%d, 0)", keys[0], keys[1]))
	for _, s := range c.Servers {
		s.Exec(t, "app", "ALTER DATABASE app SET idle_session_timeout = '100ms'")
		s.Exec(t, "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND pid <> pg_backend_pid()")
	}
	for i := range 8 {
		mode := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement}[i%2]
		clustertest.Eventually(t, "the pooled connections have been ended", func() error {
			for _, s := range c.Servers {
				if n := len(s.Query(t, "app", clientBackends)); n > 0 {
					return fmt.Errorf("%d are there", n)
				}
			}
			return nil
		})
		for _, sql := range []string{"UPDATE t SET n = n + 1 WHERE id = $1", "SELECT n FROM t WHERE id = $1"} {
			if _, err := conn.Exec(t.Context(), sql, mode, keys[1]); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
		if _, err := conn.Exec(t.Context(), "UPDATE t SET n = n + 1", mode); err != nil {
			t.Error(err)
		}
	}
	var sum int
	if err := conn.QueryRow(t.Context(), "SELECT sum(n) FROM t").Scan(&sum); err != nil || sum != 24 {
		t.Errorf("%d, %v", sum, err)
	}
}

// TestServersOwnTimeouts: what lock_timeout and statement_timeout do is told as by one
// server, in and outside of a transaction, and the session goes on.
func TestServersOwnTimeouts(t *testing.T) {
	for _, servers := range []int{1, 2} {
		c := clustertest.Start(t, clustertest.Options{Servers: servers})
		admin := c.Connect(t, "app")
		mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL) WITH (sharding.key = 'id')")
		key := mapKey(t, c)
		mustExec(t, admin, fmt.Sprintf("INSERT INTO t VALUES (%d, 0)", key))
		server := c.Servers[servers-1]
		holder, err := server.Connect(t, "app").Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := holder.Exec(t.Context(), "UPDATE t SET n = 5"); err != nil {
			t.Fatal(err)
		}
		script := []string{
			"SET lock_timeout = '100ms'",
			fmt.Sprintf("UPDATE t SET n = 1 WHERE id = %d", key), "SELECT n FROM t WHERE id = " + fmt.Sprint(key),
			"BEGIN", fmt.Sprintf("UPDATE t SET n = 1 WHERE id = %d", key), "SELECT 1", "ROLLBACK",
			"UPDATE t SET n = 1", "BEGIN; UPDATE t SET n = 1; SELECT 1", "COMMIT",
			"RESET lock_timeout", "SET statement_timeout = '100ms'",
			fmt.Sprintf("SELECT pg_sleep(60) FROM t WHERE id = %d", key), "SELECT count(pg_sleep(60)) FROM t",
			"BEGIN", fmt.Sprintf("SELECT pg_sleep(60) FROM t WHERE id = %d", key), "SELECT 1", "COMMIT",
			"RESET statement_timeout", "SELECT n FROM t WHERE id = " + fmt.Sprint(key),
		}
		play := func(conn *pgx.Conn) (out []string) {
			for _, sql := range script {
				for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
					if mode == pgx.QueryExecModeExec && (strings.Contains(sql, ";") || !strings.HasPrefix(sql, "UPDATE")) {
						continue
					}
					tag, err := conn.Exec(clustertest.Context(t), sql, mode)
					var pg *pgconn.PgError
					line := sql + ": " + tag.String()
					if errors.As(err, &pg) {
						line += pg.Code + " " + pg.Message
					} else if err != nil {
						line += err.Error()
					}
					out = append(out, line)
				}
			}
			return out
		}
		want, got := play(server.Connect(t, "app")), play(c.Connect(t, "app"))
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%d shards:\n have %s\n want %s", servers, got[i], want[i])
			}
		}
		if err := holder.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// mapKey is a key on the last server.
func mapKey(t *testing.T, c *clustertest.Cluster) int64 {
	if len(c.Servers) == 1 {
		return 1
	}
	return keysOf(t, c)[len(c.Servers)-1]
}

// TestRestartInTheMiddle: a shard is killed while a COPY goes in or out, or a pipeline is
// under way. The client is told of it once, nothing of it is there, the session goes on or,
// where a row was cut off, is closed.
func TestRestartInTheMiddle(t *testing.T) {
	for _, servers := range []int{1, 2} {
		c := clustertest.Start(t, clustertest.Options{Servers: servers})
		admin := c.Connect(t, "app")
		mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, v text) WITH (sharding.key = 'id')")
		key := mapKey(t, c)
		server := c.Servers[servers-1]
		sleeps := func(what string) {
			clustertest.Eventually(t, what, func() error {
				if len(server.Query(t, "app", "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND (wait_event = 'PgSleep' OR query LIKE 'COPY%' AND state = 'active')")) == 0 {
					return errors.New("not yet")
				}
				return nil
			})
		}
		for name, do := range map[string]func(conn *pgx.Conn, during func()) error{
			"COPY in": func(conn *pgx.Conn, during func()) error {
				r, w := io.Pipe()
				done := make(chan error, 1)
				go func() {
					_, err := conn.PgConn().CopyFrom(context.Background(), r, "COPY t FROM STDIN")
					_ = r.Close() // whoever writes is told
					done <- err
				}()
				for i := range 1000 {
					fmt.Fprintf(w, "%d\t%s\n", int64(i)+1<<33, strings.Repeat("x", 1000))
				}
				during()
				for i := 0; ; i++ { // until the error has come
					if _, err := fmt.Fprintf(w, "%d\t%s\n", int64(i)+1<<34, strings.Repeat("x", 1000)); err != nil {
						break
					}
				}
				_ = w.Close()
				return <-done
			},
			"COPY out": func(conn *pgx.Conn, during func()) error {
				r, w := io.Pipe()
				done := make(chan error, 1)
				sql := fmt.Sprintf("COPY (SELECT g, repeat('x', 1000) FROM t, generate_series(1, 1000000) g WHERE id = %d) TO STDOUT", key)
				go func() {
					_, err := conn.PgConn().CopyTo(context.Background(), w, sql)
					_ = w.CloseWithError(io.EOF)
					done <- err
				}()
				_, _ = io.ReadFull(r, make([]byte, 10000))
				during()
				_, _ = io.Copy(io.Discard, r)
				return <-done
			},
			"a pipeline": func(conn *pgx.Conn, during func()) error {
				b := &pgx.Batch{}
				b.Queue("INSERT INTO t VALUES ($1, 'pipeline')", key+1<<40)
				b.Queue("SELECT pg_sleep(600) FROM t WHERE id = $1", key)
				b.Queue("INSERT INTO t VALUES ($1, 'pipeline')", key+1<<41)
				done := make(chan error, 1)
				go func() { done <- conn.SendBatch(context.Background(), b).Close() }()
				during()
				return <-done
			},
		} {
			mustExec(t, admin, fmt.Sprintf("INSERT INTO t VALUES (%d, 'here') ON CONFLICT DO NOTHING", key))
			conn := c.Connect(t, "app")
			begun := time.Now()
			err := do(conn, func() {
				sleeps(name)
				server.Kill(t)
				server.Restart(t)
			})
			var pg *pgconn.PgError
			if !(errors.As(err, &pg) && (pg.Code == "08006" || pg.Code == "08007")) && !(name == "COPY out" && err != nil && conn.IsClosed()) {
				t.Errorf("%d shards, %s: %v after %v", servers, name, err, time.Since(begun))
			}
			if !conn.IsClosed() {
				mustExec(t, conn, fmt.Sprintf("SELECT v FROM t WHERE id = %d", key))
			}
			var n int
			if err := admin.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
				t.Errorf("%d shards, %s: %d rows, %v", servers, name, n, err)
			}
		}
	}
}

// TestHungShardAtCommit: without any query_timeout, a server that hangs (SIGSTOP) holds
// a COMMIT of several shards for a bounded time, and so the locks on the others.
func TestHungShardAtCommit(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Router: func(o *router.Options) { o.AcquireTimeout = time.Second }})
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL) WITH (sharding.key = 'id')")
	keys := keysOf(t, c)
	mustExec(t, conn, fmt.Sprintf("INSERT INTO t VALUES (%d, 0), (%d, 0)", keys[0], keys[1]))
	mustExec(t, conn, "BEGIN")
	mustExec(t, conn, "UPDATE t SET n = 1")
	pids := append(c.Servers[1].Query(t, "app", clientBackends), []string{fmt.Sprint(c.Servers[1].Pid())})
	for _, p := range pids {
		signal(t, p[0], syscall.SIGSTOP)
	}
	code, took := refusal(t, conn, "COMMIT")
	for _, p := range pids {
		signal(t, p[0], syscall.SIGCONT)
	}
	if code != "08007" && code != "40001" || took > 100*time.Second {
		t.Errorf("%s after %v", code, took)
	}
	t.Logf("%s after %v", code, took)
	// It is all or nothing, and the session goes on.
	clustertest.Eventually(t, "it is decided", func() error {
		var lo, hi int
		if err := conn.QueryRow(t.Context(), "SELECT min(n), max(n) FROM t").Scan(&lo, &hi); err != nil || lo != hi {
			return fmt.Errorf("%d to %d, %w", lo, hi, err)
		}
		return nil
	})
	if code == "40001" {
		mustExec(t, conn, "UPDATE t SET n = n + 1")
	}
}
