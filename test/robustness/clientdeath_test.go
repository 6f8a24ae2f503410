package robustness

import (
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// asked is a Query message.
func asked(sql string) []byte {
	b, err := (&pgproto3.Query{String: sql}).Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// unsynced runs a statement by the extended protocol, with a Flush in the place of a Sync.
func unsynced(sql string) (b []byte) {
	for _, m := range []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{}} {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err)
		}
	}
	return b
}

// encode is messages as bytes.
func encode(ms ...pgproto3.FrontendMessage) (b []byte) {
	for _, m := range ms {
		var err error
		if b, err = m.Encode(b); err != nil {
			panic(err)
		}
	}
	return b
}

// TestClientDies: however and in the middle of whatever a client goes, nothing of what it
// had open stays on a shard: pooled or bound to its backend, one shard or several.
func TestClientDies(t *testing.T) {
	deaths := []struct {
		name string
		do   [][]byte // the last may be without an answer
		open bool     // the last has no answer
		seen string   // what pg_stat_activity says of it, of a query or a state
	}{
		{"a transaction", [][]byte{asked("BEGIN"), asked("UPDATE t SET n = 99 WHERE id = 1")}, false, "state = 'idle in transaction'"},
		{"a transaction on all shards", [][]byte{asked("BEGIN"), asked("UPDATE t SET n = 99")}, false, "state = 'idle in transaction'"},
		{"a failed transaction", [][]byte{asked("BEGIN"), asked("UPDATE t SET n = 99 WHERE id = 1"), asked("SELECT 1/0 FROM t WHERE id = 1")}, false, "state = 'idle in transaction (aborted)'"},
		{"a statement", [][]byte{asked("UPDATE t SET n = 99 WHERE id = 1 AND pg_sleep(600) IS NOT NULL")}, true, "wait_event = 'PgSleep'"},
		{"a statement on all shards", [][]byte{asked("SELECT n, pg_sleep(600) FROM t")}, true, "wait_event = 'PgSleep'"},
		{"COPY in", [][]byte{asked("COPY t FROM STDIN"), encode(&pgproto3.CopyData{Data: []byte("77\t1\n")})}, true, "query LIKE 'COPY t FROM%' AND state = 'active'"},
		{"COPY out", [][]byte{asked("COPY (SELECT g, repeat('x', 1000) FROM generate_series(1, 1000000) g) TO STDOUT")}, true, "query LIKE 'COPY (SELECT g%' AND state = 'active'"},
		{"a large result", [][]byte{asked("SELECT g, repeat('x', 1000) FROM generate_series(1, 1000000) g")}, true, "query LIKE 'SELECT g, repeat%' AND state = 'active'"},
		{"a pipeline without its end", [][]byte{encode(
			&pgproto3.Parse{Query: "UPDATE t SET n = 99 WHERE id = 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})}, true,
			"query LIKE 'UPDATE t SET n = 99%' AND state IN ('active', 'idle in transaction')"},
		{"a transaction bound to its backend", [][]byte{asked("BEGIN"), asked("CREATE TEMP TABLE tt (a int)"), asked("UPDATE t SET n = 99 WHERE id = 1")}, false, "state = 'idle in transaction'"},
		{"COPY in, bound", [][]byte{asked("CREATE TEMP TABLE tt (a int)"), asked("BEGIN; UPDATE t SET n = 99 WHERE id = 1"), asked("COPY tt FROM STDIN"), encode(&pgproto3.CopyData{Data: []byte("77\n")})}, true,
			"query LIKE 'COPY tt FROM%' AND state = 'active'"},
		{"COPY out, bound", [][]byte{asked("CREATE TEMP TABLE tt (a int)"), asked("COPY (SELECT g, repeat('x', 1000) FROM generate_series(1, 1000000) g) TO STDOUT")}, true,
			"query LIKE 'COPY (SELECT g%' AND state = 'active'"},
		{"a statement, bound", [][]byte{asked("CREATE TEMP TABLE tt (a int)"), asked("UPDATE t SET n = 99 WHERE id = 1 AND pg_sleep(600) IS NOT NULL")}, true, "wait_event = 'PgSleep'"},
	}
	for _, servers := range []int{1, 2} {
		c := clustertest.Start(t, clustertest.Options{Servers: servers})
		admin := c.Connect(t, "app")
		mustExec(t, admin, "CREATE TABLE t (id bigint PRIMARY KEY, n int) WITH (sharding.key = 'id')")
		for i := 1; i <= 20; i++ {
			mustExec(t, admin, fmt.Sprintf("INSERT INTO t VALUES (%d, 0)", i))
		}
		const others = "FROM pg_stat_activity WHERE datname = 'app' AND pid <> pg_backend_pid() AND "
		count := func(what string) (n int) {
			for _, s := range c.Servers {
				n += len(s.Query(t, "app", "SELECT 1 "+others+what))
			}
			return n
		}
		for _, d := range deaths {
			for _, how := range []string{"reset", "close"} {
				t.Run(fmt.Sprintf("%d %s %s", servers, d.name, how), func(t *testing.T) {
					r := loginRaw(t, c.DSN("app"))
					for i, b := range d.do {
						r.send(b)
						if last := i == len(d.do)-1; last && d.open {
							break
						}
						if copying := len(d.do) > i+1 && d.do[i+1][0] == 'd'; copying {
							if typ, _, err := r.message(); err != nil || typ != 'G' {
								t.Fatalf("%c, %v", typ, err)
							}
							continue
						}
						if e := r.until(); e.closed {
							t.Fatal(e)
						}
					}
					clustertest.Eventually(t, "the shard is at it", func() error {
						if count(d.seen) == 0 {
							return errors.New("not yet")
						}
						return nil
					})
					if how == "reset" {
						r.abort()
					} else {
						_ = r.nc.Close()
					}
					clustertest.Eventually(t, "nothing is open", func() error {
						if n := count("backend_type = 'client backend' AND state <> 'idle'"); n > 0 {
							return fmt.Errorf("%d backends", n)
						}
						return nil
					})
					var sum, rows int
					if err := admin.QueryRow(t.Context(), "SELECT sum(n), count(*) FROM t").Scan(&sum, &rows); err != nil || sum != 0 || rows != 20 {
						t.Errorf("sum %d, rows %d, %v", sum, rows, err)
					}
					mustExec(t, admin, "UPDATE t SET n = 0")
				})
			}
		}
	}
}
