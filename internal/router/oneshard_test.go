package router_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestOneShard compares a keyspace of one shard with PostgreSQL, message by
// message: what binds a session, what the router does not understand, what fails.
func TestOneShard(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	plain := c.Servers[0].CreateDatabase(t)
	q := func(sql string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Query{String: sql}}
	}
	sync, flush, done := []pgproto3.FrontendMessage{&pgproto3.Sync{}}, []pgproto3.FrontendMessage{&pgproto3.Flush{}}, []pgproto3.FrontendMessage{&pgproto3.CopyDone{}}
	stray := join(sync, []pgproto3.FrontendMessage{skipped{}}) // a Sync that is not answered
	data := func(lines string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte(lines)}}
	}
	named := func(name, sql string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Parse{Name: name, Query: sql}, &pgproto3.Describe{ObjectType: 'S', Name: name}}
	}
	run := func(name string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: name}, &pgproto3.Execute{}}
	}
	closing := func(name string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'S', Name: name}}
	}
	portal := func(what byte, name string) []pgproto3.FrontendMessage {
		switch what {
		case 'E':
			return []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: name, MaxRows: 2}}
		case 'D':
			return []pgproto3.FrontendMessage{&pgproto3.Describe{ObjectType: 'P', Name: name}}
		}
		return []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'P', Name: name}}
	}
	for _, s := range []struct {
		name string
		ms   []pgproto3.FrontendMessage
	}{
		{"a syntax error", join(q("SELEC 1"), q("SELECT 1"))},
		{"a syntax error in a block", join(q("BEGIN"), q("SELEC 1"), q("SELECT 1"), q("COMMIT"))},
		{"several statements", join(q("SELECT 1; SELECT 2/0; SELECT 3"), q("BEGIN; SELECT 1; COMMIT; SELECT 2"), q("SAVEPOINT a; SELECT 1"))},
		{"DDL", join(q("CREATE TABLE d (id int)"), q("INSERT INTO d VALUES (1)"), q("BEGIN"), q("ALTER TABLE d ADD COLUMN v int"), q("INSERT INTO d VALUES (2, 3)"), q("ROLLBACK"), q("SELECT * FROM d"))},
		{"a temporary table", join(q("CREATE TEMP TABLE tt (a int)"), q("INSERT INTO tt VALUES (1)"), q("SELECT a FROM tt"), q("DISCARD ALL"), q("SELECT a FROM tt"))},
		{"a temporary table that rolls back", join(q("BEGIN"), q("CREATE TEMP TABLE tr (a int)"), q("ROLLBACK"), q("SELECT a FROM tr"))},
		{"DO", join(q("DO $$BEGIN RAISE NOTICE 'x'; PERFORM set_config('work_mem', '123kB', false); END$$"), q("SHOW work_mem"))},
		{"settings before and after", join(q("SET work_mem = '99kB'"), q("LISTEN c"), q("SHOW work_mem"), q("RESET work_mem"), q("SHOW work_mem"))},
		{"PREPARE and EXECUTE", join(q("PREPARE a (int) AS SELECT $1 + 1"), q("EXECUTE a (1 + 1)"), q("SELECT name FROM pg_prepared_statements"), q("DEALLOCATE a"), q("EXECUTE a (1)"))},
		{"statements from before", join(named("s1", "SELECT 41 + 1"), sync, q("LISTEN c"), run("s1"), sync, q("EXECUTE s1"), closing("s1"), run("s1"), sync)},
		{"a statement from before whose result changes", join(q("CREATE TABLE chg (id int, v int)"), q("BEGIN"), named("s9", "SELECT * FROM chg"), run("s9"), sync, q("ALTER TABLE chg DROP COLUMN v"), run("s9"), sync, q("ROLLBACK"),
			run("s9"), sync, q("BEGIN"), q("ALTER TABLE chg ADD COLUMN w int"), []pgproto3.FrontendMessage{&pgproto3.Describe{ObjectType: 'S', Name: "s9"}}, sync, q("ROLLBACK"), closing("s9"), named("s9", "SELECT id FROM chg"), run("s9"), sync, q("DROP TABLE chg"))},
		{"statements from within", join(q("BEGIN"), q("CREATE TABLE w (id int)"), named("s2", "SELECT * FROM w"), run("s2"), sync, q("COMMIT"), run("s2"), sync, q("DROP TABLE w"))},
		{"a statement that was not prepared", join(named("s3", "SELEC 1"), sync, run("s3"), sync, named("s3", "SELECT 3"), run("s3"), sync)},
		{"two of one name", join(named("s4", "SELECT 1"), sync, q("LISTEN c"), named("s4", "SELECT 2"), sync)},
		{"extended DDL", join(ext("CREATE TABLE e (id int)"), ext("INSERT INTO e VALUES ($1)", "1"), sync, ext("SELECT id FROM e"), sync, ext("DROP TABLE e"), sync)},
		{"an error in a pipeline", join(ext("CREATE TABLE f (id int)"), ext("SELECT 1/0"), ext("SELECT 1"), sync, q("SELECT * FROM f"))},
		{"COPY", join(q("CREATE TEMP TABLE cp (a int)"), q("COPY cp FROM STDIN"), []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte("1\n2\n")}, &pgproto3.CopyDone{}}, q("COPY cp TO STDOUT"), q("SELECT count(*) FROM cp"))},
		{"COPY in a pipeline", join(q("CREATE TEMP TABLE cp (a int)"), ext("COPY cp FROM STDIN"), []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte("1\n2\n")}, &pgproto3.CopyDone{}}, sync, ext("SELECT count(*) FROM cp"), sync)},
		{"COPY by the extended protocol", join(q("CREATE TABLE cx (a int)"), ext("COPY cx FROM STDIN"), []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte("1\n2\n")}, &pgproto3.CopyDone{}}, sync,
			q("SELECT count(*) FROM cx"), ext("COPY cx TO STDOUT"), sync, q("DROP TABLE cx"))},
		{"SET beside a temporary table", join(q("SET work_mem = '1MB'; CREATE TEMP TABLE sx (a int); SELECT 1"), q("SHOW work_mem"), q("SET work_mem = '2MB'; CREATE TEMP TABLE sy (a int); SELECT 1/0"), q("SHOW work_mem"))},
		{"COPY with Syncs among its data", join(q("CREATE TEMP TABLE cp (a int)"), q("COPY cp FROM STDIN"), data("1\n"), stray, data("2\n"), flush, stray, done, q("SELECT count(*) FROM cp"))},
		{"COPY with Syncs among its data, in a pipeline", join(q("CREATE TEMP TABLE cp (a int)"), ext("COPY cp FROM STDIN"), stray, data("1\n"), stray, data("2\n"), done, sync, ext("SELECT count(*) FROM cp"), sync)},
		{"two COPYs in a Query, with Syncs", join(q("CREATE TEMP TABLE cp (a int)"), q("COPY cp FROM STDIN; COPY cp FROM STDIN; SELECT 5"), data("1\n"), stray, done, stray, data("2\n"), stray, done, q("SELECT count(*) FROM cp"))},
		{"data for no COPY", join(q("CREATE TEMP TABLE cp (a int)"), q("SELECT 1"), data("1\n"), sync, done, sync, ext("SELECT 2"), data("2\n"), done, sync, q("SELECT count(*) FROM cp"))},
		{"COPY that fails, with Syncs", join(q("CREATE TEMP TABLE cp (a int)"), q("COPY cp FROM STDIN"), data("1\n"), stray, []pgproto3.FrontendMessage{&pgproto3.CopyFail{Message: "no"}}, sync, q("SELECT count(*) FROM cp"))},
		{"COPY of what is no table, with Syncs", join(q("CREATE TEMP TABLE cp (a int)"), q("COPY nope FROM STDIN"), data("1\n"), sync, done, sync, q("SELECT count(*) FROM cp"))},
		{"COPY to nowhere and then another", join(q("CREATE TEMP TABLE cp (a int)"), ext("COPY nope FROM STDIN"), data("1\n"), done, sync, ext("COPY cp FROM STDIN"), data("1\n"), stray, done, sync, q("SELECT count(*) FROM cp"))},
		{"COPY that fails", join(q("CREATE TEMP TABLE cp (a int)"), q("COPY cp FROM STDIN"), []pgproto3.FrontendMessage{&pgproto3.CopyData{Data: []byte("x\n")}, &pgproto3.CopyFail{Message: "no"}}, q("SELECT count(*) FROM cp"))},
		{"a cursor WITH HOLD", join(q("BEGIN"), q("DECLARE h CURSOR WITH HOLD FOR SELECT 7"), q("COMMIT"), q("FETCH h"), q("CLOSE h"))},
		{"a cursor as a portal", join(q("BEGIN"), q("DECLARE c CURSOR FOR SELECT generate_series(1, 9)"), portal('D', "c"), sync, portal('E', "c"), portal('E', "c"), sync, q("FETCH c"), portal('C', "c"), sync, q("FETCH c"), q("COMMIT"))},
		{"a cursor as a portal in a pipeline", join(q("BEGIN"), ext("DECLARE c CURSOR FOR SELECT generate_series(1, 9)"), ext("SELECT 1"), portal('E', "c"), portal('D', "nope"), ext("SELECT 2"), sync, q("COMMIT"))},
		{"two-phase commit", join(q("BEGIN"), q("CREATE TABLE tp (a int)"), q("PREPARE TRANSACTION 'one'"), q("SELECT * FROM tp"), q("COMMIT PREPARED 'one'"), q("SELECT * FROM tp"), q("DROP TABLE tp"))},
		{"roles in a bound session", join(q("CREATE TEMP TABLE rt (a int)"), q("SET application_name = 'x'"), q("CREATE ROLE bound_role LOGIN"), q("CREATE ROLE bound_role"), q("ALTER ROLE bound_role CONNECTION LIMIT 3"), q("SELECT a FROM rt"), q("SHOW application_name"),
			q("BEGIN"), q("INSERT INTO rt VALUES (1)"), q("COMMIT"), ext("SELECT a FROM rt"), sync, q("DROP ROLE bound_role"), q("DROP ROLE bound_role"), q("SELECT a FROM rt"))},
		{"functions", join(q("CREATE FUNCTION ff() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 5; END'"), q("SELECT ff()"), q("DROP FUNCTION ff()"))},
		{"an unknown function", join(q("SELECT nothing(1)"), q("SELECT 1"))},
		{"deep", q("SELECT " + strings.Repeat("(", 20000) + "1" + strings.Repeat(")", 20000))},
		{"a function call", []pgproto3.FrontendMessage{&pgproto3.FunctionCall{Function: 1598}, &pgproto3.Query{String: "SELECT 1"}}},
		{"an empty query", join(q("LISTEN c"), q(""), q(";"), ext(""), sync)},
	} {
		t.Run(s.name, func(t *testing.T) {
			want := hijack(t, c.Servers[0].Connect(t, plain)).script(s.ms)
			got := hijack(t, c.Connect(t, "app")).script(s.ms)
			if got != want {
				t.Errorf("the router:\n%s\nPostgreSQL:\n%s", got, want)
			}
		})
	}
}

// TestOneShardPooling: what leaves nothing behind leaves the session pooled; what
// does binds it, visibly, and nobody else gets its backend.
func TestOneShardPooling(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	ctx := clustertest.Context(t)
	pinned := func(conn *pgx.Conn) string {
		t.Helper()
		rows, err := conn.Query(ctx, "SHOW sharding.clients", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		at := -1
		for i, f := range rows.FieldDescriptions() {
			if f.Name == "pinned" {
				at = i
			}
		}
		out := ""
		for rows.Next() {
			if v, err := rows.Values(); err == nil && at >= 0 && v[at] != nil {
				out += fmt.Sprint(v[at])
			}
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
		return out
	}
	for _, s := range []struct{ sql, why string }{
		{"CREATE TABLE p (id serial PRIMARY KEY, v text)", ""},
		{"INSERT INTO p (v) VALUES ('a')", ""},
		{"SELECT * FROM p; SELECT 1", ""},
		{"BEGIN; ALTER TABLE p ADD COLUMN w int; COMMIT", ""},
		{"CREATE INDEX ON p (v)", ""},
		{"VACUUM p", ""},
		{"SELEC 1", ""},
		{"SELECT nothing(1)", ""},
		{"SELECT pg_advisory_xact_lock(1)", ""},
		{"SET work_mem = '1MB'", ""},
		{"COMMENT ON TABLE p IS 'x'", ""},
		{"SET client_encoding = 'UTF8'", ""},
		{"SET standard_conforming_strings = on", ""},
		{"SELECT pg_advisory_lock(1)", "advisory lock"},
		{"CREATE TEMP TABLE pt (a int)", "temporary table"},
		{"LISTEN x", "listen"},
		{"DO 'BEGIN END'", "code of its own"},
	} {
		conn := c.Connect(t, "app")
		_, err := conn.Exec(ctx, s.sql)
		if err != nil && !strings.HasPrefix(s.sql, "SELEC") {
			t.Errorf("%s: %v", s.sql, err)
		}
		if got := pinned(conn); got != s.why {
			t.Errorf("%s: pinned by %q, want %q", s.sql, got, s.why)
		}
		conn.Close(ctx)
		// What it held goes with it.
		clustertest.Eventually(t, "the session is gone", func() error {
			rows := c.Servers[0].Query(t, "app", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
			if rows[0][0] != "0" {
				return fmt.Errorf("%s advisory locks", rows[0][0])
			}
			return nil
		})
	}
}

// TestOneShardCatalog: the catalog follows DDL that went to the shard directly.
func TestOneShardCatalog(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	ctx := clustertest.Context(t)
	conn := c.Connect(t, "app")
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	kind := func(table, want string) {
		t.Helper()
		clustertest.Eventually(t, table+" is "+want, func() error {
			if got := c.Kind(t, "app", table); got != want {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		})
	}
	exec("CREATE TABLE g (id int)")
	kind("g", "global")
	exec("CREATE TABLE s (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	kind("s", "sharded")
	exec("DROP TABLE g")
	kind("g", "")
	if _, err := conn.Exec(ctx, "ALTER TABLE s DROP COLUMN id"); err == nil {
		t.Error("the key of a sharded table was dropped")
	}
	exec("DROP TABLE s")
	kind("s", "")
	exec("CREATE TEMP TABLE own (a int)")
	exec("CREATE TABLE s (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	kind("s", "sharded")
	exec("INSERT INTO own SELECT 1")
	exec("DROP TABLE s")
	kind("s", "")
	exec("BEGIN")
	if _, err := conn.Exec(ctx, "CREATE TABLE s (id int PRIMARY KEY) WITH (sharding.key = 'id')"); err == nil {
		t.Error("a sharded table was made in the block of a bound session")
	}
	exec("ROLLBACK")
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM own").Scan(&n); err != nil || n != 1 {
		t.Errorf("the temporary table has %d rows, %v", n, err)
	}
}

// TestOneShardNotifies: a notification reaches an idle session.
func TestOneShardNotifies(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	ctx, cancel := context.WithTimeout(clustertest.Context(t), 20*time.Second)
	defer cancel()
	a, b := c.Connect(t, "app"), c.Connect(t, "app")
	if _, err := a.Exec(ctx, "LISTEN news"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(ctx, "SELECT pg_notify('news', 'hello')"); err != nil {
		t.Fatal(err)
	}
	n, err := a.WaitForNotification(ctx)
	if err != nil || n.Payload != "hello" {
		t.Errorf("%v, %v", n, err)
	}
	if _, err := a.Exec(ctx, "NOTIFY news, 'own'"); err != nil {
		t.Fatal(err)
	}
	if n, err = a.WaitForNotification(ctx); err != nil || n.PID != a.PgConn().PID() {
		t.Errorf("%v, %v: its own comes from process %d", n, err, a.PgConn().PID())
	}
}

// TestResetGoesToTheStartup: RESET goes back to what the client asked for when it
// connected, also where a block has made the session direct.
func TestResetGoesToTheStartup(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	plain := c.Servers[0].CreateDatabase(t)
	connect := func(dsn string) *rawClient {
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["work_mem"], cfg.RuntimeParams["application_name"] = "7MB", "mine"
		conn, err := pgx.ConnectConfig(clustertest.Context(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return hijack(t, conn)
	}
	for _, first := range []string{"SET work_mem = '9MB'", "SELECT set_config('work_mem', '9MB', false)"} { // the second is on a connection already
		for _, binds := range []string{"LISTEN c", "CREATE TEMP TABLE tt (a int)", "PREPARE p AS SELECT 1", "DO $$BEGIN END$$"} {
			ms := join(q("BEGIN"), q(first), q("SAVEPOINT s"), q("SET application_name = 'other'"), q(binds), q("SHOW work_mem"), q("RESET work_mem"), q("SHOW work_mem"), q("RESET ALL"),
				q("SHOW application_name"), q("ROLLBACK TO s"), q("SHOW work_mem"), q("COMMIT"), q("SHOW work_mem"), q("RESET work_mem"), q("SHOW work_mem"))
			want := connect(c.Servers[0].DSN(plain)).script(ms)
			if got := connect(c.DSN("app")).script(ms); got != want {
				t.Errorf("%s, %s: the router:\n%s\nPostgreSQL:\n%s", first, binds, got, want)
			}
		}
	}
}
