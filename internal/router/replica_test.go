package router_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
)

// replicated starts a cluster with replicas and a sharded table of 40 rows.
func replicated(t *testing.T, servers, replicas int, maxLag time.Duration) *clustertest.Cluster {
	t.Helper()
	c := clustertest.Start(t, clustertest.Options{Servers: servers, Replicas: replicas, Router: func(o *router.Options) { o.MaxReplicaLag = maxLag }})
	conn := c.Connect(t, "app")
	run(t, conn, `CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL) WITH (sharding.key = 'id')`)
	var rows []string
	for i := range 40 {
		rows = append(rows, fmt.Sprintf("(%d, 0)", i))
	}
	run(t, conn, "INSERT INTO counters VALUES "+strings.Join(rows, ", "))
	return c
}

// onReplica says whether the session's reads of a key run on a replica.
func onReplica(t *testing.T, conn *pgx.Conn, mode pgx.QueryExecMode) bool {
	t.Helper()
	return one[bool](t, conn, "SELECT pg_is_in_recovery() FROM counters WHERE id = $1", mode, 7)
}

var modes = map[string]pgx.QueryExecMode{
	"simple": pgx.QueryExecModeSimpleProtocol, "exec": pgx.QueryExecModeExec, "prepared": pgx.QueryExecModeCacheStatement,
}

// reach waits until the session's reads run on replicas, or on the primary.
func reach(t *testing.T, conn *pgx.Conn, replica bool) {
	t.Helper()
	clustertest.Eventually(t, fmt.Sprintf("reads on a replica: %v", replica), func() error {
		if onReplica(t, conn, pgx.QueryExecModeSimpleProtocol) == replica {
			return nil
		}
		return fmt.Errorf("they are not")
	})
}

// all waits until the replicas of all shards are in use.
func all(t *testing.T, c *clustertest.Cluster, conn *pgx.Conn) {
	t.Helper()
	want := 0
	for _, r := range c.Replicas {
		want += len(r)
	}
	clustertest.Eventually(t, "all replicas are in use", func() error {
		rows, err := conn.Query(context.Background(), "SHOW sharding.shards", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			return err
		}
		shards, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
			v, err := r.Values()
			return fmt.Sprint(v), err
		})
		n := 0
		for _, s := range shards {
			if strings.Contains(s, "in use replica") && !strings.Contains(s, "not in use") {
				n++
			}
		}
		if err == nil && n != want {
			err = fmt.Errorf("%d of %d: %s", n, want, shards)
		}
		for i := 0; i < 40 && err == nil; i++ {
			if !one[bool](t, conn, "SELECT pg_is_in_recovery() FROM counters WHERE id = $1", pgx.QueryExecModeExec, i) {
				err = fmt.Errorf("key %d is read on the primary", i)
			}
		}
		return err
	})
}

// pause stops the replay on replicas; resume lets it go on.
func pause(t *testing.T, replicas ...*pgtest.Server) {
	t.Helper()
	for _, r := range replicas {
		r.Query(t, "postgres", "SELECT pg_wal_replay_pause()")
		clustertest.Eventually(t, "the replay is paused", func() error {
			if s := r.Query(t, "postgres", "SELECT pg_get_wal_replay_pause_state()")[0][0]; s != "paused" {
				return fmt.Errorf("it is %s", s)
			}
			return nil
		})
	}
}

func resume(t *testing.T, replicas ...*pgtest.Server) {
	t.Helper()
	for _, r := range replicas {
		r.Query(t, "postgres", "SELECT pg_wal_replay_resume()")
	}
}

func TestReadsFromReplicas(t *testing.T) {
	c := replicated(t, 2, 1, time.Minute)
	conn, writer := c.Connect(t, "app"), c.Connect(t, "app")
	for name, mode := range modes {
		if onReplica(t, conn, mode) {
			t.Errorf("%s: on a replica although the policy is primary", name)
		}
	}
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	reach(t, conn, true)
	all(t, c, conn)
	// What the replicas do not replay, reads do not show: so one sees where they ran.
	pause(t, c.Replicas[0][0], c.Replicas[1][0])
	run(t, writer, "UPDATE counters SET n = 1")
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				if !onReplica(t, conn, mode) {
					t.Error("a read of one key ran on the primary")
				}
				if n := one[int](t, conn, "SELECT count(*) FROM counters WHERE n = $1", mode, 0); n != 40 {
					t.Errorf("an aggregate over all shards saw %d rows of replicas", n)
				}
				rows, err := conn.Query(context.Background(), "SELECT id FROM counters WHERE n = $1", mode, 0)
				if err != nil {
					t.Fatal(err)
				}
				if ids, err := pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil || len(ids) != 40 {
					t.Errorf("rows of all shards: %d from replicas, %v", len(ids), err)
				}
				if n := one[int](t, writer, "SELECT count(*) FROM counters WHERE n = $1", mode, 1); n != 40 {
					t.Errorf("under the policy primary: %d rows", n)
				}
			}
		})
	}
	if n := one[int](t, conn, "SELECT count(*) FROM counters WHERE n = 0 AND now() > '2020-01-01'"); n != 40 {
		t.Errorf("with now() over all shards: %d rows of replicas", n)
	}
	if n := one[int](t, conn, "/* sharding.replica_policy = primary */ SELECT count(*) FROM counters WHERE n = 1"); n != 40 {
		t.Errorf("with a hint for the primary: %d rows", n)
	}
	if n := one[int](t, c.Connect(t, "app"), "/* sharding.replica_policy = 'replica_prefer' */ SELECT count(*) FROM counters WHERE n = 0"); n != 40 {
		t.Errorf("with a hint for replicas: %d rows of replicas", n)
	}
	refused(t, conn, "22023", "/* sharding.replica_policy = sometimes */ SELECT 1")
	refused(t, conn, "22023", "SET sharding.replica_policy = sometimes")
	run(t, conn, "RESET sharding.replica_policy")
	if onReplica(t, conn, pgx.QueryExecModeExec) || one[string](t, conn, "SHOW sharding.replica_policy") != "primary" {
		t.Error("RESET did not")
	}
	cfg, err := pgx.ParseConfig(c.DSN("app"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["options"] = "-c sharding.replica_policy=replica_prefer"
	started, err := pgx.ConnectConfig(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer started.Close(context.Background())
	resume(t, c.Replicas[0][0], c.Replicas[1][0])
	if !onReplica(t, started, pgx.QueryExecModeExec) {
		t.Error("the startup packet's policy is not followed")
	}
}

// TestReplicaReadsYourWrites: each session reads back what it wrote, under
// replica_prefer, while replays stop and go.
func TestReplicaReadsYourWrites(t *testing.T) {
	c := replicated(t, 2, 2, time.Minute)
	first := c.Connect(t, "app")
	run(t, first, "SET sharding.replica_policy = replica_prefer")
	all(t, c, first)
	var conns []*pgx.Conn
	for range 8 {
		conns = append(conns, c.Connect(t, "app"))
	}
	end := time.Now().Add(8 * time.Second)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards what follows
	replica, primary := 0, 0
	for i, conn := range conns {
		wg.Go(func() {
			if err := readBack(conn, i, end, func(on bool) {
				mu.Lock()
				defer mu.Unlock()
				if on {
					replica++
				} else {
					primary++
				}
			}); err != nil {
				t.Errorf("session %d: %v", i, err)
			}
		})
	}
	for time.Now().Before(end) {
		r := c.Replicas[rand.IntN(2)][rand.IntN(2)]
		pause(t, r)
		<-time.After(time.Duration(rand.IntN(700)) * time.Millisecond) // how long it lags is the fault itself
		resume(t, r)
	}
	wg.Wait()
	t.Logf("%d reads on replicas, %d on primaries", replica, primary)
	if replica == 0 || primary == 0 {
		t.Error("the test has not seen both")
	}
}

// readBack writes a counter in several ways and reads it back, until end.
func readBack(conn *pgx.Conn, i int, end time.Time, where func(replica bool)) error {
	ctx := context.Background()
	if _, err := conn.Exec(ctx, "SET sharding.replica_policy = replica_prefer"); err != nil {
		return err
	}
	other := (i + 13) % 40
	for n := 1; time.Now().Before(end); n++ {
		var err error
		switch n % 4 {
		case 0:
			_, err = conn.Exec(ctx, fmt.Sprintf("UPDATE counters SET n = %d WHERE id = %d", n, i))
		case 1:
			_, err = conn.Exec(ctx, "UPDATE counters SET n = $1 WHERE id = $2", n, i)
		case 2:
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "UPDATE counters SET n = $1 WHERE id = $2", n, i)
				return err
			})
		default: // over two shards: two-phase
			err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, "UPDATE counters SET n = $1 WHERE id = $2", n, i); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, "UPDATE counters SET n = n WHERE id = $1", other)
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("write %d: %w", n, err)
		}
		// At times until a replica has caught up and answers.
		until := n%10 == 0
		caught := false
		for k := 1 + rand.IntN(4); k > 0 || until && !caught && time.Now().Before(end); k-- {
			var got int
			var on bool
			sql, args := "SELECT n, pg_is_in_recovery() FROM counters WHERE id = $1", []any{i}
			if n%2 == 0 {
				sql, args = fmt.Sprintf("SELECT n, pg_is_in_recovery() FROM counters WHERE id = %d", i), nil
			}
			if err := conn.QueryRow(ctx, sql, args...).Scan(&got, &on); err != nil {
				return fmt.Errorf("read %d: %w", n, err)
			}
			if got != n {
				return fmt.Errorf("wrote %d and read %d, on a replica: %v", n, got, on)
			}
			where(on)
			caught = caught || on
		}
	}
	return nil
}

// TestReplicaRefusesToWrite: what a replica cannot do runs on the primary, once, and
// the client does not notice.
func TestReplicaRefusesToWrite(t *testing.T) {
	c := replicated(t, 1, 1, time.Minute)
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE log (what text)")
	run(t, conn, "CREATE FUNCTION noted(bigint, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ($2); RETURN $2; END $$")
	// The operator hides the function from the router's planner.
	run(t, conn, "CREATE OPERATOR ### (LEFTARG = bigint, RIGHTARG = text, FUNCTION = noted)")
	run(t, conn, "CREATE FUNCTION direct(what text) RETURNS text LANGUAGE sql AS $$ INSERT INTO log VALUES (what) RETURNING what $$")
	run(t, conn, "CREATE SEQUENCE numbers")
	conn = c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	for name, mode := range modes {
		for i, sql := range []string{
			"SELECT id ### $1 FROM counters WHERE id = 3", "SELECT direct($1)", "SELECT $1 || coalesce(nullif(nextval('numbers'), 0)::text, '')",
			"SELECT $1 FROM (SELECT 1 FROM counters WHERE id = 4 FOR UPDATE) x", "SELECT $1 || pg_try_advisory_xact_lock(1)::text",
			"WITH w AS (INSERT INTO log VALUES ($1) RETURNING what) SELECT what FROM w", "SELECT $1 || coalesce(txid_current()::text, '')",
		} {
			// A session that keeps a backend (code of its own, a sequence) reads there.
			conn := c.Connect(t, "app")
			run(t, conn, "SET sharding.replica_policy = replica_prefer")
			reach(t, conn, true)
			what := fmt.Sprintf("%s %d", name, i)
			if got := one[string](t, conn, sql, mode, what); !strings.HasPrefix(got, what) {
				t.Errorf("%s: %s: %q", name, sql, got)
			}
			want := 0
			if i == 0 || i == 1 || i == 5 {
				want = 1
			}
			if n := one[int](t, c.Servers[0].Connect(t, "app"), "SELECT count(*) FROM log WHERE what = $1", what); n != want {
				t.Errorf("%s: %s wrote %d times", name, sql, n)
			}
		}
	}
	// An error is the same as ever, and the session goes on.
	for name, mode := range modes {
		reach(t, conn, true)
		_, err := conn.Exec(context.Background(), "SELECT 1 / n FROM counters WHERE id = $1", mode, 3)
		if err == nil || !strings.Contains(err.Error(), "22012") {
			t.Errorf("%s: %v", name, err)
		}
		// For a moment it reads from the primary, which might have written.
		reach(t, conn, true)
	}
}

// TestReplicaBlocks: a READ ONLY transaction has one snapshot's worth of one replica.
func TestReplicaBlocks(t *testing.T) {
	c := replicated(t, 2, 1, time.Minute)
	conn, writer := c.Connect(t, "app"), c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = replica_ok")
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	all(t, c, conn)
	pause(t, c.Replicas[0][0], c.Replicas[1][0])
	run(t, writer, "UPDATE counters SET n = 1")
	for name, mode := range modes {
		for _, begin := range []string{"BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"} {
			run(t, conn, begin)
			for range 3 {
				if !onReplica(t, conn, mode) {
					t.Errorf("%s, %s: a read on the primary", begin, name)
				}
				if n := one[int](t, conn, "SELECT count(*) FROM counters WHERE n = $1", mode, 0); n != 40 {
					t.Errorf("%s, %s: %d rows of replicas", begin, name, n)
				}
				run(t, conn, "SAVEPOINT s")
			}
			run(t, conn, "DECLARE c CURSOR FOR SELECT n FROM counters WHERE id = 5")
			if n := one[int](t, conn, "FETCH c", pgx.QueryExecModeSimpleProtocol); n != 0 {
				t.Errorf("%s, %s: the cursor saw %d", begin, name, n)
			}
			run(t, conn, "SET LOCAL work_mem = '1MB'")
			if v := one[string](t, conn, "SHOW work_mem", pgx.QueryExecModeSimpleProtocol); v != "1MB" {
				t.Errorf("%s, %s: work_mem %s", begin, name, v)
			}
			run(t, conn, "LOCK TABLE counters IN ACCESS SHARE MODE")
			run(t, conn, "ROLLBACK TO s")
			run(t, conn, "COMMIT")
		}
		for _, begin := range []string{"BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "BEGIN READ WRITE"} {
			run(t, conn, begin)
			if onReplica(t, conn, mode) {
				t.Errorf("%s, %s: a read on a replica", begin, name)
			}
			run(t, conn, "ROLLBACK")
		}
	}
	// An advisory lock is the primary's, also beside reads of a replica.
	run(t, conn, "BEGIN READ ONLY")
	onReplica(t, conn, pgx.QueryExecModeExec)
	run(t, conn, "SELECT pg_advisory_xact_lock(42)")
	if n := len(c.Servers[0].Query(t, "app", "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = 42")); n != 1 {
		t.Errorf("%d advisory locks on the home shard's primary", n)
	}
	refused(t, conn, "25006", "UPDATE counters SET n = 2 WHERE id = 3")
	run(t, conn, "ROLLBACK")
	resume(t, c.Replicas[0][0], c.Replicas[1][0])
	all(t, c, conn)
	run(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	for i := range 40 {
		one[int](t, conn, "SELECT n FROM counters WHERE id = $1", i)
	}
	if e := refused(t, conn, "0A000", "SELECT n FROM counters WHERE id = 3 FOR UPDATE"); !strings.Contains(e.Hint, "replica_policy") {
		t.Errorf("hint %q", e.Hint)
	}
	run(t, conn, "COMMIT")
	all(t, c, conn)
}

// TestReplicaLag: a replica that is behind by more than is allowed gets no reads, and
// gets them again when it has caught up.
func TestReplicaLag(t *testing.T) {
	c := replicated(t, 1, 1, 2*time.Second)
	conn, writer := c.Connect(t, "app"), c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	reach(t, conn, true)
	// An idle primary is no lag. (The news of the new table may take the replica out of
	// use for one more probe.)
	missed := 0
	pace := time.Tick(50 * time.Millisecond) // so that 80 reads last twice the lag that is allowed
	for range 80 {
		if !onReplica(t, conn, pgx.QueryExecModeExec) {
			missed++
		}
		<-pace
	}
	if missed > 20 {
		t.Fatalf("%d of 80 reads were not on the replica of an idle primary", missed)
	}
	reach(t, conn, true)
	pause(t, c.Replicas[0][0])
	run(t, writer, "UPDATE counters SET n = 1")
	wrote := time.Now()
	for {
		fresh := one[int](t, conn, "SELECT n FROM counters WHERE id = 7") == 1
		if late := time.Since(wrote); !fresh && late > 2*time.Second+200*time.Millisecond {
			t.Fatalf("a read is %s old", late)
		} else if fresh {
			break
		}
	}
	if time.Since(wrote) < time.Second {
		t.Errorf("the replica was given up after %s", time.Since(wrote))
	}
	resume(t, c.Replicas[0][0])
	reach(t, conn, true)
}

// TestReplicaReadsYourCopies: what COPY, TRUNCATE and DDL did is read back too, though
// no replica has it.
func TestReplicaReadsYourCopies(t *testing.T) {
	c := replicated(t, 2, 1, time.Minute)
	conn := c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	all(t, c, conn)
	pause(t, c.Replicas[0][0], c.Replicas[1][0])
	if _, err := conn.PgConn().CopyFrom(context.Background(), strings.NewReader("100\t1\n101\t1\n102\t1\n103\t1\n104\t1\n"), "COPY counters FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	for name, mode := range modes {
		if n := one[int](t, conn, "SELECT count(*) FROM counters WHERE id >= $1", mode, 100); n != 5 {
			t.Errorf("%s: %d of 5 copied rows", name, n)
		}
	}
	resume(t, c.Replicas[0][0], c.Replicas[1][0])
	all(t, c, conn)
	pause(t, c.Replicas[0][0], c.Replicas[1][0])
	run(t, conn, "TRUNCATE counters")
	if n := one[int](t, conn, "SELECT count(*) FROM counters"); n != 0 {
		t.Errorf("%d rows after TRUNCATE", n)
	}
	resume(t, c.Replicas[0][0], c.Replicas[1][0])
}
