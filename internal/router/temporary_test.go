package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

func query(sql ...string) (ms []pgproto3.FrontendMessage) {
	for _, s := range sql {
		ms = append(ms, &pgproto3.Query{String: s})
	}
	return ms
}

// oracle makes a plain database beside the keyspace and yields two connections, to
// it and to the router.
var oracles int

func oracle(t *testing.T, c *clustertest.Cluster, setup func(direct, routed *pgx.Conn)) (a, b *rawClient) {
	t.Helper()
	name := fmt.Sprintf("oracle%d", oracles)
	oracles++
	c.Servers[0].Exec(t, "postgres", "CREATE DATABASE "+name)
	direct, routed := c.Servers[0].Connect(t, name), c.Connect(t, "app")
	setup(direct, routed)
	return hijack(t, direct), hijack(t, routed)
}

type script struct {
	name string
	ms   []pgproto3.FrontendMessage
}

// compare holds the router's messages against PostgreSQL's.
func compare(t *testing.T, a, b *rawClient, scripts []script) {
	t.Helper()
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			a.t, b.t = t, t
			want, got := a.script(s.ms), b.script(s.ms)
			if got != want {
				t.Errorf("PostgreSQL: %s\nthe router: %s", want, got)
			}
		})
	}
}

// TestRouterTemporary compares temporary objects through the router with
// PostgreSQL's, in a keyspace over several shards.
func TestRouterTemporary(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
		for _, sql := range []string{"CREATE TABLE g (id int PRIMARY KEY, v text)", "INSERT INTO g VALUES (1,'g'),(2,'h')"} {
			run(t, direct, sql)
			run(t, routed, sql)
		}
		run(t, direct, "CREATE TABLE sh (id int PRIMARY KEY, v int)")
		run(t, routed, "CREATE TABLE sh (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')")
		run(t, direct, "CREATE TABLE r (id int PRIMARY KEY, v text)")
		run(t, routed, "CREATE TABLE r (id int PRIMARY KEY, v text) WITH (sharding.kind = 'reference')")
		for _, sql := range []string{"INSERT INTO sh SELECT", "INSERT INTO r VALUES (1,'one'),(2,'two')"} {
			if sql == "INSERT INTO sh SELECT" {
				sql = "INSERT INTO sh VALUES (1,1),(2,2),(3,3),(4,4),(5,5),(6,6),(7,7),(8,8)"
			}
			run(t, direct, sql)
			run(t, routed, sql)
		}
	})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	copyData := func(s string) pgproto3.FrontendMessage { return &pgproto3.CopyData{Data: []byte(s)} }
	compare(t, a, b, []script{
		{"create, fill, read", query("CREATE TEMP TABLE t1 (id serial PRIMARY KEY, v text DEFAULT 'd')", "INSERT INTO t1 (v) VALUES ('a'),('b') RETURNING id", "INSERT INTO t1 DEFAULT VALUES",
			"SELECT * FROM t1 ORDER BY id", "UPDATE t1 SET v = 'c' WHERE id = 2", "DELETE FROM t1 WHERE id = 1", "SELECT count(*), max(v) FROM t1", "SELECT currval('t1_id_seq')")},
		{"by the extended protocol", join(ext("INSERT INTO t1 (v) VALUES ($1)", "x"), ext("SELECT v FROM t1 ORDER BY id"), sync)},
		{"with global and reference tables", query("SELECT t1.id, g.v, r.v FROM t1 JOIN g ON g.id = t1.id JOIN r ON r.id = g.id ORDER BY 1", "INSERT INTO t1 SELECT id + 100, v FROM g", "INSERT INTO g SELECT id, v FROM t1 WHERE id = 3", "SELECT count(*) FROM g")},
		{"COPY", join(query("COPY t1 (id, v) FROM STDIN"), []pgproto3.FrontendMessage{copyData("201\tc1\n202\tc2\n"), &pgproto3.CopyDone{}}, query("COPY t1 TO STDOUT", "COPY (SELECT v FROM t1 WHERE id > 200 ORDER BY id) TO STDOUT"))},
		{"indexes and ALTER", query("CREATE INDEX ON t1 (v)", "CREATE UNIQUE INDEX t1_u ON t1 (id, v)", "ALTER TABLE t1 ADD COLUMN w int DEFAULT 7", "SELECT w FROM t1 WHERE id = 3", "ALTER TABLE t1 RENAME COLUMN w TO x", "SELECT x FROM t1 WHERE id = 3",
			"ALTER TABLE t1 RENAME TO t2", "SELECT count(*) FROM t1", "SELECT count(*) FROM t2", "ANALYZE t2", "LOCK TABLE t2", "TRUNCATE t2", "SELECT count(*) FROM t2", "DROP INDEX t1_u", "DROP TABLE t2", "SELECT 1 FROM t2")},
		{"shadowing a global table", query("SELECT v FROM g WHERE id = 1", "CREATE TEMP TABLE g (id int, v text)", "INSERT INTO g VALUES (1, 'temp')", "SELECT v FROM g WHERE id = 1", "SELECT v FROM public.g WHERE id = 1", "SELECT v FROM pg_temp.g",
			"INSERT INTO public.g VALUES (50, 'p')", "DROP TABLE g", "SELECT v FROM g WHERE id = 50", "DELETE FROM g WHERE id = 50")},
		{"shadowing a sharded table", query("SELECT count(*) FROM sh", "CREATE TEMP TABLE sh (id int)", "SELECT count(*) FROM sh", "INSERT INTO sh VALUES (1)", "SELECT count(*) FROM sh", "SELECT count(*) FROM public.sh", "DROP TABLE sh", "SELECT count(*) FROM sh")},
		{"a prepared statement", join([]pgproto3.FrontendMessage{&pgproto3.Parse{Name: "ps", Query: "SELECT v FROM g WHERE id = $1"}, &pgproto3.Bind{PreparedStatement: "ps", Parameters: [][]byte{[]byte("1")}}, &pgproto3.Execute{}}, sync,
			query("CREATE TEMP TABLE mine (id int)"), []pgproto3.FrontendMessage{&pgproto3.Bind{PreparedStatement: "ps", Parameters: [][]byte{[]byte("1")}}, &pgproto3.Execute{}, &pgproto3.Close{ObjectType: 'S', Name: "ps"}}, sync, query("DROP TABLE mine"))},
		{"rolled back", query("BEGIN", "CREATE TEMP TABLE rb (id int)", "INSERT INTO rb VALUES (1)", "SELECT * FROM rb", "ROLLBACK", "SELECT * FROM rb")},
		{"rolled back to a savepoint", query("BEGIN", "SAVEPOINT a", "CREATE TEMP TABLE sp (id int)", "SELECT count(*) FROM sp", "ROLLBACK TO a", "SELECT count(*) FROM sp", "ROLLBACK TO a", "CREATE TEMP TABLE sp (id text)", "COMMIT", "INSERT INTO sp VALUES ('x')", "DROP TABLE sp")},
		{"DROP rolled back", query("CREATE TEMP TABLE dr (id int)", "BEGIN", "DROP TABLE dr", "SELECT * FROM dr", "ROLLBACK", "SELECT * FROM dr", "DROP TABLE dr")},
		{"ON COMMIT DROP", query("BEGIN", "CREATE TEMP TABLE oc ON COMMIT DROP AS SELECT id, v FROM g", "SELECT count(*) FROM oc", "COMMIT", "SELECT count(*) FROM oc")},
		{"ON COMMIT DELETE ROWS", query("CREATE TEMP TABLE od (id int) ON COMMIT DELETE ROWS", "BEGIN", "INSERT INTO od VALUES (1)", "SELECT count(*) FROM od", "COMMIT", "SELECT count(*) FROM od", "DROP TABLE od")},
		{"SELECT INTO", query("SELECT id INTO TEMP si FROM g WHERE id < 3", "SELECT count(*) FROM si", "DROP TABLE si")},
		{"pg_temp", query("CREATE TABLE pg_temp.pt (id int)", "INSERT INTO pt VALUES (1)", "SELECT * FROM pg_temp.pt", "DROP TABLE pg_temp.pt", "SELECT * FROM pg_temp.pt")},
		{"pg_temp in the search path", query("SET search_path = public, pg_temp", "CREATE TEMP TABLE g (id int)", "SELECT count(*) FROM g WHERE id = 1", "DROP TABLE pg_temp.g", "SET search_path = pg_temp, public", "CREATE TABLE x1 (id int)", "SELECT count(*) FROM pg_temp.x1", "DROP TABLE x1", "RESET search_path")},
		{"views and sequences", query("CREATE TEMP SEQUENCE ts", "SELECT nextval('ts')", "SELECT currval('ts')", "CREATE TEMP TABLE base (id int)", "CREATE VIEW tv AS SELECT * FROM base", "INSERT INTO base VALUES (9)", "SELECT * FROM tv", "DROP TABLE base CASCADE", "SELECT * FROM tv", "DROP SEQUENCE ts")},
		{"a pipeline", join(ext("CREATE TEMP TABLE pl (id int)"), ext("INSERT INTO pl VALUES (1)"), ext("SELECT * FROM pl"), sync, ext("INSERT INTO pl VALUES (2)"), ext("SELECT 1/0"), sync, query("SELECT count(*) FROM pl", "DROP TABLE pl"))},
		{"a pipeline that fails", join(ext("CREATE TEMP TABLE pf (id int)"), ext("SELECT 1/0"), sync, query("SELECT count(*) FROM pf"))},
		{"a series", join(query("CREATE TEMP TABLE se (id int); INSERT INTO se VALUES (1); SELECT * FROM se", "SELECT count(*) FROM se", "DROP TABLE se; SELECT count(*) FROM se", "SELECT count(*) FROM se", "DROP TABLE se"))},
		{"IF EXISTS and IF NOT EXISTS", query("CREATE TEMP TABLE IF NOT EXISTS ie (id int)", "CREATE TEMP TABLE IF NOT EXISTS ie (id int)", "CREATE TEMP TABLE ie (id int)", "DROP TABLE IF EXISTS ie", "DROP TABLE IF EXISTS ie")},
		{"writes on several shards beside it", query("CREATE TEMP TABLE tp (id int)", "BEGIN", "INSERT INTO tp VALUES (1)", "UPDATE sh SET v = v + 1", "COMMIT", "SELECT sum(v) FROM sh", "SELECT count(*) FROM tp", "BEGIN", "UPDATE sh SET v = v + 1", "INSERT INTO tp VALUES (2)", "ROLLBACK", "SELECT sum(v) FROM sh", "SELECT count(*) FROM tp", "DROP TABLE tp")},
		{"an error on several shards", query("CREATE TEMP TABLE te (id int)", "SELECT 1/(v-v) FROM sh", "SELECT count(*) FROM te", "BEGIN", "SELECT 1/(v-v) FROM sh", "ROLLBACK", "SELECT count(*) FROM te", "DROP TABLE te")},
		{"errors on the other shards", join(query("CREATE TEMP TABLE to1 (id int)", "SELECT count(*) FROM sh WHERE 1/(id-7) > 5", "SELECT count(*) FROM to1", "BEGIN", "SELECT count(*) FROM sh WHERE 1/(id-6) > 5", "ROLLBACK"),
			ext("SELECT count(*) FROM sh WHERE 1/(id-7) > 5"), sync, ext("SELECT count(*) FROM sh WHERE 1/(id-6) > 5"), sync, query("SELECT count(*) FROM to1"))},
		{"a pipeline that the router ends", join(ext("INSERT INTO to1 VALUES (1)"), []pgproto3.FrontendMessage{&pgproto3.Execute{Portal: "nope"}}, sync, query("SELECT count(*) FROM to1", "DROP TABLE to1"))},
		{"DISCARD SEQUENCES", query("CREATE SEQUENCE ds", "SELECT nextval('ds')", "SELECT currval('ds')", "DISCARD SEQUENCES", "SELECT currval('ds')", "DROP SEQUENCE ds")},
		{"DISCARD TEMP in a block", query("CREATE TEMP TABLE dt (id int)", "BEGIN", "DISCARD TEMP", "ROLLBACK", "SELECT count(*) FROM dt", "DISCARD PLANS")},
		{"DISCARD TEMP", query("CREATE TEMP TABLE dt (id int)", "DISCARD TEMP", "SELECT * FROM dt")},
		{"DISCARD ALL", query("CREATE TEMP TABLE da (id int)", "DISCARD ALL", "SELECT * FROM da", "CREATE TEMP TABLE da (id int)", "DROP TABLE da")},
	})
	c.NothingPrepared(t)
	conn := c.Connect(t, "app")
	for sql, code := range map[string]string{
		"CREATE TEMP TABLE x AS SELECT * FROM sh": "0A000", "CREATE TEMP VIEW x AS SELECT * FROM sh": "0A000", "CREATE TEMP VIEW x AS SELECT * FROM r": "0A000",
		"CREATE TEMP TABLE x (id int) INHERITS (g)": "0A000",
	} {
		mustFail(t, conn, sql, code)
	}
	must(t, conn, "CREATE TEMP TABLE t1 (id int)", "CREATE TABLE")
	mustFail(t, conn, "SELECT * FROM t1 JOIN sh USING (id)", "0A000")
	mustFail(t, conn, "DROP TABLE t1, g", "0A000")
	mustFail(t, c.Connect(t, "app"), "SELECT * FROM t1", "42P01")
	if got := pinned(t, conn); got != "temporary table" {
		t.Errorf("pinned: %q", got)
	}
	must(t, conn, "DROP TABLE t1", "DROP TABLE")
	if got := pinned(t, conn); got != "" {
		t.Errorf("pinned after DROP: %q", got)
	}
}

// pinned is what SHOW sharding.clients says of the session itself.
func pinned(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	rows, err := conn.Query(context.Background(), "SHOW sharding.clients", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(describe(err))
	}
	defer rows.Close()
	local := conn.PgConn().Conn().LocalAddr().String()
	out, found := "", false
	for rows.Next() {
		v, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		if v[2] == local {
			out, found = v[6].(string), true
		}
	}
	if err := rows.Err(); err != nil || !found {
		t.Fatal("the session is not listed: ", err)
	}
	return out
}
