package router_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/router"
)

// TestReplicaBlocksNeedThePrimary: what no server in recovery does runs on the primary also
// in a READ ONLY block that reads from replicas; what READ ONLY forbids is refused in
// PostgreSQL's words.
func TestReplicaBlocksNeedThePrimary(t *testing.T) {
	for _, servers := range []int{1, 2} {
		c := replicated(t, servers, 1, time.Minute)
		setup := c.Connect(t, "app")
		run(t, setup, "CREATE TABLE log (what text)")
		if servers == 1 {
			run(t, setup, "CREATE FUNCTION noted(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ($1); RETURN $1; END $$")
			// The operator hides the function from the router's planner.
			run(t, setup, "CREATE OPERATOR ### (RIGHTARG = text, FUNCTION = noted)")
		}
		conn := c.Connect(t, "app")
		run(t, conn, "SET sharding.replica_policy = replica_prefer")
		all(t, c, conn)
		direct := c.Servers[0].Connect(t, "app")
		for at, name := range slices.Sorted(maps.Keys(modes)) {
			mode := modes[name]
			for i, sql := range []string{
				"SELECT txid_current() > 0", "SELECT pg_current_xact_id() IS NOT NULL", "SELECT pg_current_wal_lsn() > '0/0'", "SELECT length(pg_walfile_name('0/1'))",
				"SELECT pg_notify('news', 'x')", "NOTIFY news", "LISTEN news", "UNLISTEN news", "SELECT pg_advisory_xact_lock_shared(5)",
				"SELECT ### 'x'", "INSERT INTO log VALUES ('x')", "SELECT 1 FROM counters WHERE id = 7 FOR UPDATE", "CREATE TABLE never (id int)", "TRUNCATE log",
			} {
				if servers == 2 && (strings.Contains(sql, "###") || i%len(modes) != at) {
					continue // over shards each statement in one mode is enough
				}
				told := func(conn *pgx.Conn) string {
					tag, err := conn.Exec(clustertest.Context(t), sql, mode)
					if err != nil {
						return code(err) + " " + strings.SplitN(describe(err), " (", 2)[0]
					}
					return tag.String()
				}
				for _, conn := range []*pgx.Conn{direct, conn} {
					run(t, conn, "BEGIN READ ONLY", pgx.QueryExecModeSimpleProtocol)
				}
				if !onReplica(t, conn, mode) {
					t.Errorf("%d servers, %s: the block is not on the replica", servers, name)
				}
				want, got := told(direct), told(conn)
				if servers == 1 && (sql == "LISTEN news" || strings.HasPrefix(sql, "CREATE")) {
					// These join a session to the only shard's primary: SH0047.
					want = "0A000 0A000 this statement needs shard app-1's primary, and the transaction reads from a replica"
				}
				if got != want {
					t.Errorf("%d servers, %s: %s: %s, PostgreSQL: %s", servers, name, sql, got, want)
				}
				for _, conn := range []*pgx.Conn{direct, conn} {
					run(t, conn, "ROLLBACK", pgx.QueryExecModeSimpleProtocol)
				}
				all(t, c, conn)
			}
		}
	}
}

// busy has a session of the policy at work on a replica, until the test ends or free is
// called.
func busy(t *testing.T, c *clustertest.Cluster, policy string) (free func()) {
	t.Helper()
	conn := c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = '"+policy+"'")
	run(t, conn, "BEGIN READ ONLY")
	one[int](t, conn, "SELECT n FROM counters WHERE id = 7")
	return func() { run(t, conn, "ROLLBACK") }
}

// TestReplicaLeastBusy: load goes to the server with the least of it: among replicas, and
// with replica_ok between them and the primary.
func TestReplicaLeastBusy(t *testing.T) {
	c := replicated(t, 1, 2, time.Minute)
	conn := c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	all(t, c, conn)
	port := func(conn *pgx.Conn) int {
		return one[int](t, conn, "SELECT inet_server_port() FROM counters WHERE id = 7")
	}
	// Three blocks on two replicas: one has two of them, and reads go to the other.
	var free []func()
	for range 3 {
		free = append(free, busy(t, c, "replica_prefer"))
	}
	at := func() (out []int) {
		for _, r := range c.Replicas[0] {
			n, err := strconv.Atoi(r.Query(t, "app", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND state = 'idle in transaction'")[0][0])
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
		return out
	}
	load := at()
	if load[0]+load[1] != 3 || load[0] == 0 || load[1] == 0 {
		t.Fatalf("three blocks on two replicas: %v", load)
	}
	idler := c.Replicas[0][0]
	if load[1] == 1 {
		idler = c.Replicas[0][1]
	}
	for range 20 {
		if p := port(conn); p != idler.Port {
			t.Errorf("a read on port %d, the idler replica is on %d", p, idler.Port)
		}
	}
	// The primary has nothing to do: with replica_ok it is the primary's turn.
	run(t, conn, "SET sharding.replica_policy = replica_ok")
	for range 20 {
		if p := port(conn); p != c.Servers[0].Port {
			t.Errorf("a read on port %d, the idle primary is on %d", p, c.Servers[0].Port)
		}
	}
	for _, f := range free {
		f()
	}
	// And the other way round.
	free = []func(){busy(t, c, "primary"), busy(t, c, "primary")}
	for range 20 {
		if p := port(conn); p == c.Servers[0].Port {
			t.Error("a read on the busy primary")
		}
	}
	for _, f := range free {
		f()
	}
}

// TestReplicaHangs: a replica that answers no probe gets no reads.
func TestReplicaHangs(t *testing.T) {
	c := replicated(t, 1, 1, 2*time.Second)
	conn := c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	reach(t, conn, true)
	halt(t, c.Replicas[0][0], syscall.SIGSTOP)
	defer halt(t, c.Replicas[0][0], syscall.SIGCONT)
	clustertest.Eventually(t, "the replica is out of use", func() error {
		for _, row := range tableOf(t, c.Connect(t, "app"), "SHOW sharding.shards") {
			if strings.Contains(row, "replica") && !strings.Contains(row, "not in use") {
				return fmt.Errorf("%s", row)
			}
		}
		return nil
	})
	for range 50 {
		if onReplica(t, conn, pgx.QueryExecModeExec) {
			t.Fatal("a read on the hung replica")
		}
	}
	halt(t, c.Replicas[0][0], syscall.SIGCONT)
	reach(t, conn, true)
}

// halt sends a signal to every process of a server.
func halt(t *testing.T, s *pgtest.Server, sig syscall.Signal) {
	t.Helper()
	pids, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", s.Pid(), s.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range append(strings.Fields(string(pids)), strconv.Itoa(s.Pid())) {
		pid, err := strconv.Atoi(word)
		if err == nil {
			err = syscall.Kill(pid, sig)
		}
		if err != nil && err != syscall.ESRCH {
			t.Fatal(err)
		}
	}
}

// tableOf are a statement's rows, each in a line.
func tableOf(t *testing.T, conn *pgx.Conn, sql string) []string {
	t.Helper()
	rows, err := conn.Query(context.Background(), sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (string, error) {
		v, err := r.Values()
		return fmt.Sprint(v), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// writing is a client whose scripts must succeed.
type writing struct {
	*rawClient
	name string
}

func (w *writing) script(ms []pgproto3.FrontendMessage) {
	w.t.Helper()
	if out := w.rawClient.script(ms); strings.Contains(out, "ERROR") {
		w.t.Errorf("writing by %s: %s", w.name, out)
	}
}

// TestReplicaReadsYourEverything: whichever way a session has written, it reads that back
// though no replica has it: by each message of the protocol, on one shard and on several.
func TestReplicaReadsYourEverything(t *testing.T) {
	for _, servers := range []int{1, 2} {
		c := replicated(t, servers, 1, time.Minute)
		setup := c.Connect(t, "app")
		run(t, setup, "CREATE TABLE plain (id int PRIMARY KEY, n int)")
		run(t, setup, "INSERT INTO plain VALUES (1, 0)")
		conn := c.Connect(t, "app")
		run(t, conn, "SET sharding.replica_policy = replica_prefer")
		all(t, c, conn)
		n := 0
		sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
		write := func(to int) string { return fmt.Sprintf("UPDATE counters SET n = %d", to) }
		ways := map[string]func(w *writing, to int){
			"a Query":                func(w *writing, to int) { w.script(query(write(to))) },
			"a series":               func(w *writing, to int) { w.script(query("SELECT 1; " + write(to) + "; SELECT 2")) },
			"the extended protocol":  func(w *writing, to int) { w.script(join(ext(write(to)), sync)) },
			"a pipeline":             func(w *writing, to int) { w.script(join(ext(write(0)), ext("SELECT 1"), ext(write(to)), sync)) },
			"a block":                func(w *writing, to int) { w.script(query("BEGIN", write(to), "COMMIT")) },
			"a block that is a pipe": func(w *writing, to int) { w.script(join(ext("BEGIN"), ext(write(to)), ext("COMMIT"), sync)) },
			"a block with COMMIT only": func(w *writing, to int) {
				w.script(join(query("BEGIN"), ext(write(to)), sync, query("SELECT 1; COMMIT")))
			},
			"RETURNING": func(w *writing, to int) { w.script(join(ext(write(to)+" RETURNING id"), sync)) },
			"PREPARE":   func(w *writing, to int) { w.script(query("PREPARE w AS "+write(to), "EXECUTE w", "DEALLOCATE w")) },
			"COPY": func(w *writing, to int) {
				data := ""
				for id := range 40 {
					data += fmt.Sprintf("%d\t%d\n", id, to)
				}
				w.script(join(query("BEGIN", "DELETE FROM counters", "COPY counters FROM STDIN"), []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte(data)}, &pgproto3.CopyDone{}}, query("COMMIT")))
			},
			"TRUNCATE and more": func(w *writing, to int) {
				var rows []string
				for id := range 40 {
					rows = append(rows, fmt.Sprintf("(%d, %d)", id, to))
				}
				w.script(query("TRUNCATE counters", "INSERT INTO counters VALUES "+strings.Join(rows, ", ")))
			},
			"DDL": func(w *writing, to int) {
				w.script(query("ALTER TABLE counters ALTER COLUMN n TYPE bigint USING "+strconv.Itoa(to), "ALTER TABLE counters ALTER COLUMN n SET NOT NULL"))
			},
		}
		if servers == 1 {
			ways["WITH"] = func(w *writing, to int) {
				w.script(query(fmt.Sprintf("WITH w AS (UPDATE counters SET n = %d RETURNING 1) SELECT count(*) FROM w", to)))
			}
			ways["a DO block"] = func(w *writing, to int) { w.script(query("DO $$ BEGIN " + write(to) + "; END $$")) }
			ways["a DO block, prepared"] = func(w *writing, to int) { w.script(join(ext("DO $$ BEGIN "+write(to)+"; END $$"), sync)) }
			ways["a bound session"] = func(w *writing, to int) {
				w.script(query("CREATE TEMP TABLE tt (a int)", write(to), "DISCARD ALL", "SET sharding.replica_policy = replica_prefer"))
			}
			ways["a temporary table's block"] = func(w *writing, to int) {
				w.script(query("BEGIN", "CREATE TEMP TABLE tt (a int) ON COMMIT DROP", write(to), "COMMIT"))
			}
		}
		for name, way := range ways {
			n++
			conn := c.Connect(t, "app")
			run(t, conn, "SET sharding.replica_policy = replica_prefer")
			all(t, c, conn)
			for _, r := range c.Replicas {
				pause(t, r...)
			}
			w := hijack(t, conn)
			way(&writing{w, name}, n)
			for _, sql := range []string{"SELECT count(*) FROM counters WHERE n = " + strconv.Itoa(n), "SELECT count(*) FROM counters WHERE n = " + strconv.Itoa(n) + " AND id >= 0"} {
				for mode, ms := range map[string][]pgproto3.FrontendMessage{"Query": query(sql), "extended": join(ext(sql), sync), "a READ ONLY block": query("BEGIN READ ONLY", sql, "COMMIT")} {
					if got := w.script(ms); !strings.Contains(got, `["40"]`) {
						t.Errorf("%d servers: written by %s, read by %s: %s", servers, name, mode, got)
					}
				}
			}
			for _, r := range c.Replicas {
				resume(t, r...)
			}
		}
		c.NothingPrepared(t)
	}
}

// TestHTTPConsistency: consistency names the server that a request reads from, whatever the
// session did before that serves it.
func TestHTTPConsistency(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2, Replicas: 1, Router: func(o *router.Options) {
		o.HTTPAddr, o.JWTSecret, o.MaxReplicaLag = "127.0.0.1:0", apiSecret, time.Minute
	}})
	conn := c.Connect(t, "app")
	run(t, conn, "CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL) WITH (sharding.key = 'id')")
	for id := range 40 {
		run(t, conn, "INSERT INTO counters VALUES ($1, 0)", id)
	}
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	all(t, c, conn)
	a := newAPI(t, c.Router)
	pause(t, c.Replicas[0][0], c.Replicas[1][0])
	run(t, c.Connect(t, "app"), "UPDATE counters SET n = 1")
	// Which rows a request sees tells where it ran.
	for range 3 {
		for _, try := range []struct{ consistency, want string }{{"eventual", "0"}, {"strong", "1"}, {"", "1"}, {"eventual", "0"}, {"", "1"}} {
			body := map[string]any{"query": "SELECT n FROM counters WHERE id = 5"}
			all := map[string]any{"query": "SELECT count(*) AS c FROM counters WHERE n = " + try.want}
			tx := map[string]any{"statements": []map[string]any{{"query": "SELECT n FROM counters WHERE id = 5"}, {"query": "SELECT n FROM counters WHERE id = 6"}}, "read_only": true}
			for _, b := range []map[string]any{body, all, tx} {
				if try.consistency != "" {
					b["consistency"] = try.consistency
				}
			}
			if got := rows(t, a.ok(t, "/v1/execute", body)); got != `[{"n":"`+try.want+`"}]` {
				t.Errorf("%q: %s, want %s", try.consistency, got, try.want)
			}
			if got := rows(t, a.ok(t, "/v1/execute", all)); got != `[{"c":"40"}]` {
				t.Errorf("%q, over the shards: %s", try.consistency, got)
			}
			for _, r := range a.ok(t, "/v1/transaction", tx)["results"].([]any) {
				if got := rows(t, r.(map[string]any)); got != `[{"n":"`+try.want+`"}]` {
					t.Errorf("%q, in a transaction: %s", try.consistency, got)
				}
			}
		}
	}
	// A request that writes is the primary's, whatever it asks for.
	a.ok(t, "/v1/execute", map[string]any{"query": "UPDATE counters SET n = 2 WHERE id = 5", "consistency": "eventual"})
	if got := rows(t, a.ok(t, "/v1/execute", map[string]any{"query": "SELECT n FROM counters WHERE id = 5", "consistency": "strong"})); got != `[{"n":"2"}]` {
		t.Errorf("%s", got)
	}
	// So is one that writes in a transaction, and reads what it wrote.
	out := a.ok(t, "/v1/transaction", map[string]any{"consistency": "eventual", "statements": []map[string]any{
		{"query": "UPDATE counters SET n = 3 WHERE id = 5"}, {"query": "SELECT n FROM counters WHERE id = 5"}, {"query": "SELECT n FROM counters WHERE id = 6"}}})
	if got := fmt.Sprint(rows(t, out["results"].([]any)[1].(map[string]any)), " ", rows(t, out["results"].([]any)[2].(map[string]any))); got != `[{"n":"3"}] [{"n":"1"}]` {
		t.Errorf("%s", got)
	}
	a.refused(t, 400, "BAD_REQUEST", "/v1/execute", map[string]any{"query": "SELECT 1", "consistency": "sometimes"})
	resume(t, c.Replicas[0][0], c.Replicas[1][0])
	// The configuration's policy is that of requests that say nothing.
	where := map[string]any{"query": "SELECT pg_is_in_recovery() AS r FROM counters WHERE id = 6"}
	if got := rows(t, a.ok(t, "/v1/execute", where)); got != `[{"r":false}]` {
		t.Errorf("%s", got)
	}
	c.Router.SetReplicas("replica_prefer", time.Minute)
	clustertest.Eventually(t, "requests follow the configuration", func() error {
		if got := rows(t, a.ok(t, "/v1/execute", where)); got != `[{"r":true}]` {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
	where["consistency"] = "strong"
	if got := rows(t, a.ok(t, "/v1/execute", where)); got != `[{"r":false}]` {
		t.Errorf("strong: %s", got)
	}
}
