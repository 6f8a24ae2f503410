package router_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestTemporaryShadows compares, with one PostgreSQL, a session whose temporary tables
// have the names of a sharded, a reference and a global table, however they were made and
// however they went.
func TestTemporaryShadows(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
		for table, with := range map[string]string{"sh": " WITH (sharding.key = 'id')", "r": " WITH (sharding.kind = 'reference')", "g": ""} {
			run(t, direct, "CREATE TABLE "+table+" (id int PRIMARY KEY, v int)")
			run(t, routed, "CREATE TABLE "+table+" (id int PRIMARY KEY, v int)"+with)
			for _, conn := range []*pgx.Conn{direct, routed} {
				run(t, conn, "INSERT INTO "+table+" VALUES (1,1),(2,2),(3,3),(4,4),(5,5),(6,6),(7,7),(8,8)")
				run(t, conn, "CREATE VIEW view_"+table+" AS SELECT id, v FROM "+table)
			}
		}
	})
	var scripts []script
	for _, n := range []string{"sh", "r", "g"} {
		f, each := aboutTable(n)
		sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
		count := "SELECT count(*), sum(v) FROM TBL"
		copyData := func(s string) pgproto3.FrontendMessage { return &pgproto3.CopyData{Data: []byte(s)} }
		scripts = append(scripts,
			script{"everything is about it: " + n, join(each(count, "CREATE TEMP TABLE TBL (id int, v int)", count, "INSERT INTO TBL VALUES (1, 10), (2, 20) RETURNING v", "UPDATE TBL SET v = v + 1 WHERE id = 1", "SELECT v FROM TBL WHERE id = 1",
				"SELECT v FROM TBL WHERE id = 7", "DELETE FROM TBL WHERE id = 2", "EXPLAIN (COSTS OFF) SELECT * FROM TBL WHERE id = 1", "COPY TBL TO STDOUT"),
				ext(f("SELECT v FROM TBL WHERE id = $1"), "1"), sync, ext(f("UPDATE TBL SET v = 5 WHERE id = $1 RETURNING v"), "1"), sync,
				each("COPY TBL FROM STDIN"), []pgproto3.FrontendMessage{copyData("5\t50\n6\t60\n"), &pgproto3.CopyDone{}},
				each("LOCK TABLE TBL", "BEGIN", "LOCK TABLE TBL", "DECLARE c CURSOR FOR SELECT v FROM TBL ORDER BY id", "FETCH ALL FROM c", "COMMIT", "SELECT count(*), sum(v) FROM view_TBL",
					"SELECT count(*), sum(v) FROM public.TBL", "SELECT count(*) FROM pg_temp.TBL", "CREATE INDEX ON TBL (v)", "ALTER TABLE TBL ADD COLUMN w int DEFAULT 3", "SELECT w FROM TBL WHERE id = 5", "ANALYZE TBL",
					"WITH TBL AS (SELECT 1 AS v) SELECT v FROM TBL", "COMMENT ON TABLE TBL IS 'mine'", "SELECT obj_description('TBL'::regclass)", "TRUNCATE TBL", count, "DROP TABLE TBL", count, "SELECT w FROM TBL WHERE id = 5"))},
			script{"renamed: " + n, each("CREATE TEMP TABLE TBL (id int, v int)", "ALTER TABLE TBL RENAME TO other_TBL", count, "ALTER TABLE other_TBL RENAME TO TBL", count, "DROP TABLE TBL", count)},
			script{"ON COMMIT DROP: " + n, each("CREATE TEMP TABLE TBL (id int, v int) ON COMMIT DROP", count, "BEGIN", "CREATE TEMP TABLE TBL (id int, v int) ON COMMIT DROP", count, "COMMIT", count, "BEGIN", "CREATE TEMP TABLE TBL (id int, v int) ON COMMIT DROP", "SELECT 1/0", "COMMIT", count)},
			script{"in a failed block: " + n, each("BEGIN", "CREATE TEMP TABLE TBL (id int, v int)", "INSERT INTO TBL VALUES (1, 1)", count, "SELECT nothing", "ROLLBACK", count, "CREATE TEMP TABLE TBL (id int, v int)", "BEGIN", "DROP TABLE TBL", count, "SELECT 1/0", "ROLLBACK", count, "DROP TABLE TBL", count)},
			script{"savepoints: " + n, each("BEGIN", "SAVEPOINT a", "CREATE TEMP TABLE TBL (id int, v int)", "SAVEPOINT b", "DROP TABLE TBL", count, "ROLLBACK TO b", count, "SELECT 1/0", "ROLLBACK TO a", count, "COMMIT", count)},
			script{"a series: " + n, join(each("CREATE TEMP TABLE TBL (id int, v int); SELECT count(*) FROM TBL; SELECT 1/0", count, "CREATE TEMP TABLE TBL (id int, v int); DROP TABLE TBL; SELECT count(*) FROM TBL", count))},
			script{"a pipeline: " + n, join(ext(f(count)), ext(f("CREATE TEMP TABLE TBL (id int, v int)")), ext(f(count)), sync, ext(f(count)), ext(f("DROP TABLE TBL")), ext(f(count)), sync,
				ext(f("CREATE TEMP TABLE TBL (id int, v int)")), ext(f(count)), ext("SELECT 1/0"), sync, ext(f(count)), sync)},
			script{"PREPARE: " + n, each("PREPARE before AS "+count, "EXECUTE before", "CREATE TEMP TABLE TBL (id int, v int)", "PREPARE while_it_is_there AS "+count, "EXECUTE while_it_is_there", "DROP TABLE TBL", "EXECUTE while_it_is_there", "DEALLOCATE ALL")},
			script{"SELECT INTO: " + n, each("SELECT 7 AS id, 70 AS v INTO TEMP TBL", count, "DROP TABLE TBL", count, "CREATE TEMP TABLE TBL AS SELECT 7 AS id, 70 AS v", count, "DISCARD ALL", count)},
			script{"a temporary view: " + n, each("CREATE TEMP VIEW TBL AS SELECT 9 AS id, 90 AS v", count, "DROP VIEW TBL", count)},
			script{"DROP of the one below: " + n, each("CREATE TEMP TABLE TBL (id int, v int)", "BEGIN", "DROP TABLE TBL", count, "ROLLBACK", count, "DROP TABLE IF EXISTS pg_temp.TBL", "DROP TABLE IF EXISTS pg_temp.TBL", count)},
		)
	}
	compare(t, a, b, scripts)

	// Others see nothing of it, and SHOW tells of it.
	mine, other := c.Connect(t, "app"), c.Connect(t, "app")
	for _, n := range []string{"sh", "r", "g"} {
		must(t, mine, "CREATE TEMP TABLE "+n+" (id int, v int)", "CREATE TABLE")
		must(t, mine, "SELECT count(*) FROM "+n, "0,SELECT 1")
		must(t, other, "SELECT count(*) FROM "+n, "8,SELECT 1")
	}
	if got := pinned(t, mine); got != "temporary table" {
		t.Errorf("pinned: %q", got)
	}
	must(t, mine, "DISCARD TEMP", "DISCARD TEMP")
	if got := pinned(t, mine); got != "" {
		t.Errorf("pinned after DISCARD TEMP: %q", got)
	}

	// What a lost backend had is nobody's: the tables below are seen again, whole.
	for name, try := range map[string]struct{ make, end string }{
		"outside of a block":        {"CREATE TEMP TABLE sh (id int, v int)", ""},
		"in its block":              {"BEGIN; CREATE TEMP TABLE sh (id int, v int)", "ROLLBACK"},
		"in its block, at COMMIT":   {"BEGIN; CREATE TEMP TABLE sh (id int, v int)", "COMMIT"},
		"in its block, over shards": {"BEGIN; SELECT count(*) FROM sh; CREATE TEMP TABLE sh (id int, v int)", "ROLLBACK"},
		"ON COMMIT DROP":            {"BEGIN; CREATE TEMP TABLE sh (id int, v int) ON COMMIT DROP", "COMMIT"},
		"dropped in a block":        {"CREATE TEMP TABLE sh (id int, v int); BEGIN; DROP TABLE sh", "ROLLBACK"},
	} {
		conn := c.Connect(t, "app")
		for _, sql := range splitStatements(try.make) {
			must(t, conn, sql, "")
		}
		pid := one[int32](t, conn, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol)
		c.Servers[0].Exec(t, "app", fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
		clustertest.Eventually(t, "the backend is gone", func() error {
			if len(c.Servers[0].Query(t, "app", fmt.Sprintf("SELECT 1 FROM pg_stat_activity WHERE pid = %d", pid))) > 0 {
				return errors.New("it is there")
			}
			return nil
		})
		if try.end != "" {
			_, _ = conn.Exec(context.Background(), try.end, pgx.QueryExecModeSimpleProtocol) // COMMIT is told
		} else {
			mustFail(t, conn, "SELECT 1", "08006")
		}
		_, err := conn.Exec(context.Background(), "SELECT 1", pgx.QueryExecModeSimpleProtocol) // what was pinned may be told of now
		if err != nil && code(err) != "08006" {
			t.Errorf("%s: %v", name, err)
		}
		if n := one[int](t, conn, "SELECT count(*) FROM sh", pgx.QueryExecModeSimpleProtocol); n != 8 {
			t.Errorf("%s: %d rows of 8 after its backend was lost", name, n)
		}
		if got := pinned(t, conn); got != "" {
			t.Errorf("%s: still pinned: %q", name, got)
		}
	}
}

func splitStatements(sql string) (out []string) {
	at := 0
	for i := range sql {
		if sql[i] == ';' {
			out, at = append(out, sql[at:i]), i+1
		}
	}
	return append(out, sql[at:])
}

// aboutTable writes texts with a table's name in TBL's place.
func aboutTable(name string) (f func(string) string, each func(texts ...string) []pgproto3.FrontendMessage) {
	f = func(text string) string { return strings.ReplaceAll(text, "TBL", name) }
	each = func(texts ...string) (ms []pgproto3.FrontendMessage) {
		for _, s := range texts {
			ms = append(ms, query(f(s))...)
		}
		return ms
	}
	return f, each
}

// TestTemporaryShadowsByFunctions: so it is with those that functions, procedures and DO
// blocks make and drop, which run in keyspaces without sharded tables.
func TestTemporaryShadowsByFunctions(t *testing.T) {
	for _, servers := range []int{1, 2} {
		c := clustertest.Start(t, clustertest.Options{Servers: servers})
		a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
			for _, conn := range []*pgx.Conn{direct, routed} {
				run(t, conn, "CREATE TABLE g (id int PRIMARY KEY, v int)")
				run(t, conn, "INSERT INTO g VALUES (1,1),(2,2),(3,3),(4,4),(5,5),(6,6),(7,7),(8,8)")
				run(t, conn, "CREATE FUNCTION mk(name text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('CREATE TEMP TABLE %I (id int, v int)', name); EXECUTE format('INSERT INTO %I VALUES (100, 100)', name); RETURN 1; END $$")
				run(t, conn, "CREATE FUNCTION mkdrop(name text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('CREATE TEMP TABLE %I (id int, v int) ON COMMIT DROP', name); RETURN 1; END $$")
				run(t, conn, "CREATE FUNCTION rm(name text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('DROP TABLE pg_temp.%I', name); RETURN 1; END $$")
				run(t, conn, "CREATE PROCEDURE mkp(name text) LANGUAGE plpgsql AS $$ BEGIN EXECUTE format('CREATE TEMP TABLE %I (id int, v int)', name); END $$")
			}
		})
		_, each := aboutTable("g")
		const count = "SELECT count(*), sum(v) FROM TBL"
		compare(t, a, b, []script{
			{"by a function", each("SELECT mk('TBL')", count, "SELECT rm('TBL')", count, "SELECT rm('TBL')", count)},
			{"by a DO block", each("DO $$ BEGIN CREATE TEMP TABLE TBL (id int, v int); END $$", count, "DO $$ BEGIN DROP TABLE TBL; END $$", count)},
			{"by a procedure", each("CALL mkp('TBL')", count, "DISCARD TEMP", count)},
			{"by a function, rolled back", each("BEGIN", count, "SELECT mk('TBL')", count, "ROLLBACK", count, "BEGIN", "SAVEPOINT a", "SELECT mk('TBL')", count, "ROLLBACK TO a", count, "COMMIT", count)},
			{"by a function that fails afterwards", each("SELECT mk('TBL'), 1/(mk('other') - 1)", count, "BEGIN", "SELECT mk('TBL')", "SELECT 1/0", count, "COMMIT", count)},
			{"ON COMMIT DROP by a function", each("SELECT mkdrop('TBL')", count, "BEGIN", "SELECT mkdrop('TBL')", count, "COMMIT", count)},
		})
		other := c.Connect(t, "app")
		must(t, other, "SELECT count(*) FROM g", "8,SELECT 1")
	}
}
