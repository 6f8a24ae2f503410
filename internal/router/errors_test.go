package router_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// Messages of the extended protocol, for scripts.

func parseAs(name, sql string, oids ...uint32) msgs {
	return msgs{&pgproto3.Parse{Name: name, Query: sql, ParameterOIDs: oids}}
}

func bindAs(portal, name string, params ...string) msgs {
	m := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
	for _, p := range params {
		m.Parameters = append(m.Parameters, []byte(p))
	}
	return msgs{m}
}

func describeOf(kind byte, name string) msgs {
	return msgs{&pgproto3.Describe{ObjectType: kind, Name: name}}
}

func executeOf(portal string, rows uint32) msgs {
	return msgs{&pgproto3.Execute{Portal: portal, MaxRows: rows}}
}

func closeOf(kind byte, name string) msgs {
	return msgs{&pgproto3.Close{ObjectType: kind, Name: name}}
}

type msgs = []pgproto3.FrontendMessage

var (
	syncs   = msgs{&pgproto3.Sync{}}
	flushes = msgs{&pgproto3.Flush{}}
)

// TestRouterErrors compares what errors look like, and when they come, with
// PostgreSQL: on one shard and over several.
func TestRouterErrors(t *testing.T) {
	for _, world := range []struct {
		name    string
		servers int
	}{{"one shard", 1}, {"several shards", 3}} {
		t.Run(world.name, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Servers: world.servers})
			a, b := oracle(t, c, func(direct, routed *pgx.Conn) {
				run(t, direct, "CREATE TABLE t (id int PRIMARY KEY, v int)")
				run(t, routed, "CREATE TABLE t (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')")
				run(t, direct, "CREATE TABLE g (id int PRIMARY KEY, v int CHECK (v < 10))")
				run(t, routed, "CREATE TABLE g (id int PRIMARY KEY, v int CHECK (v < 10))")
				for _, conn := range []*pgx.Conn{direct, routed} {
					run(t, conn, "INSERT INTO t VALUES (1,0),(2,0),(3,0),(4,0),(5,0),(6,0),(7,0),(8,0)")
				}
			})
			a.words, b.words = true, true
			scripts := errorScripts
			if c.Servers[0].Install.Version >= 18 {
				// There the second statement of a pipeline is in an implicit block, and
				// other words say that what is for no block cannot run.
				scripts = slices.DeleteFunc(slices.Clone(scripts), func(s script) bool { return s.name == "not in pipelines" })
			}
			compare(t, a, b, scripts)
			c.NothingPrepared(t)
		})
	}
}

// chain are portals of one statement: bound, described and run.
func chain(name string, params ...string) msgs {
	return join(bindAs("", name, params...), describeOf('P', ""), executeOf("", 0))
}

var count = q("SELECT count(*), sum(v) FROM t")

var errorScripts = []script{
	// a) When a description of rows comes, where what returns them fails.
	{"INSERT RETURNING that fails by Query", join(q("INSERT INTO t VALUES (1, 0) RETURNING id"), q("INSERT INTO t VALUES (11, 0), (12, 0), (13, 0), (1, 0), (2, 0) RETURNING id"), count)},
	{"UPDATE RETURNING that fails by Query", join(q("UPDATE t SET v = 1 / (id - 8) RETURNING id"), q("DELETE FROM t WHERE 1 / (id - 5) > 5 RETURNING id"), q("UPDATE t SET v = v RETURNING 1 / (id - 3)"), count)},
	{"INSERT RETURNING that fails by EXECUTE", join(q("PREPARE a (int) AS INSERT INTO t VALUES ($1, 0) RETURNING v"), q("EXECUTE a (1)"), q("EXECUTE a (11)"), q("DEALLOCATE a"),
		q("PREPARE a (int) AS INSERT INTO t VALUES ($1, 0), (12, 0), (13, 0), (14, 0), (15, 0) RETURNING v"), q("EXECUTE a (1)"), q("DEALLOCATE a"), q("DELETE FROM t WHERE id > 8"), count)},
	{"UPDATE RETURNING that fails by EXECUTE", join(q("PREPARE a (int) AS UPDATE t SET v = 1 / (id - $1) RETURNING v"), q("EXECUTE a (8)"), q("EXECUTE a (1)"), q("DEALLOCATE a"),
		q("PREPARE a (int) AS DELETE FROM t WHERE id = $1 AND 1 / (id - 5) > 5 RETURNING v"), q("EXECUTE a (5)"), q("DEALLOCATE a"), count)},
	{"SELECT that fails by EXECUTE", join(q("PREPARE a (int) AS SELECT 1 / (v - $1) FROM t WHERE id = 1"), q("EXECUTE a (0)"), q("EXECUTE a (1)"), q("DEALLOCATE a"),
		q("PREPARE a (int) AS SELECT sum(v) FROM t WHERE 1 / (v - $1) < 9"), q("EXECUTE a (0)"), q("EXECUTE a (1)"), q("DEALLOCATE a"),
		q("PREPARE a (int) AS SELECT 1 / (v - $1) FROM t"), q("EXECUTE a (0)"), q("DEALLOCATE a"))},
	{"SELECT that fails by Query", join(q("SELECT 1 / v FROM t WHERE id = 1"), q("SELECT 1 / v FROM t"), q("SELECT sum(1 / v) FROM t"), q("SELECT 1 / 0 FROM t"), q("SELECT 1 / 0 FROM t WHERE id = 1"))},
	{"RETURNING that fails in a pipeline", join(ext("INSERT INTO t VALUES ($1, 0) RETURNING id", "1"), syncs, ext("INSERT INTO t VALUES (11, 0), (12, 0), (13, 0), (1, 0) RETURNING id"), syncs,
		ext("UPDATE t SET v = 1 / (id - $1) RETURNING id", "8"), syncs, ext("UPDATE t SET v = 1 / (id - $1) WHERE id = 8 RETURNING id", "8"), syncs, count)},
	{"RETURNING that fails behind others", join(parseAs("", "UPDATE t SET v = 1 / (id - $1) RETURNING id"), bindAs("p", "", "8"), bindAs("", "", "3"), flushes, executeOf("p", 1), syncs, count)},
	{"EXECUTE by the extended protocol", join(q("PREPARE a (int) AS SELECT id, v FROM t WHERE id = $1"), ext("EXECUTE a (1)"), syncs, parseAs("e", "EXECUTE a (2)"), describeOf('S', "e"), syncs, chain("e"), executeOf("", 0), syncs,
		q("DEALLOCATE e"), q("DEALLOCATE a"), q("PREPARE a (int) AS INSERT INTO t VALUES ($1, 0) RETURNING v"), ext("EXECUTE a (1)"), syncs, q("DEALLOCATE a"),
		q("PREPARE a (int) AS UPDATE t SET v = 0 WHERE id = $1"), ext("EXECUTE a (1)"), syncs, q("DEALLOCATE a"), ext("EXECUTE a (1)"), syncs)},
	{"EXPLAIN and EXECUTE that are wrong", join(q("PREPARE a (int) AS SELECT id FROM t WHERE id = $1"), q("EXECUTE a"), q("EXECUTE a (1, 2)"), q("EXECUTE b (1)"), q("PREPARE a AS SELECT 1"), q("PREPARE a AS SELECT nothing"), q("PREPARE b AS SELECT nothing FROM t"), q("PREPARE b AS SELECT 1 FROM nothing"), q("DEALLOCATE b"), q("DEALLOCATE a"))},

	// b) Failed blocks.
	{"Parse in a failed block", join(q("BEGIN"), q("SELECT nothing"), parseAs("", "SELEC 1"), syncs, parseAs("", "SELECT 1"), syncs, parseAs("", "SELECT 1 FROM nothing"), syncs, parseAs("", "SELECT 1; SELECT 2"), syncs,
		parseAs("", "COMMIT; SELECT 2"), syncs, parseAs("", ""), syncs, parseAs("", "ROLLBACK TO nothing"), syncs, parseAs("", "BEGIN"), syncs, parseAs("", "SAVEPOINT a"), syncs,
		parseAs("", "COMMIT PREPARED 'x'"), syncs, ext("COMMIT"), syncs)},
	{"Query in a failed block", join(q("BEGIN"), q("SELECT nothing"), q("SELEC 1"), q("SELECT 1 FROM nothing"), q("SELECT 1; SELEC 2"), q("SELECT 1; SELECT 2"), q(""), q(" ; "), q("BEGIN"), q("SAVEPOINT a"), q("SHOW work_mem"), q("SET work_mem = 1"),
		q("CREATE TABLE x (id int)"), q("LISTEN c"), q("PREPARE a AS SELECT 1"), q("EXECUTE a"), q("DEALLOCATE a"), q("DISCARD ALL"), q("RELEASE a"), q("COPY t FROM STDIN"), q("FETCH c"), q("CLOSE c"), q("EXPLAIN SELECT 1"), q("ROLLBACK TO a"), q("COMMIT PREPARED 'x'"), q("ROLLBACK"))},
	{"what was prepared before, in a failed block", join(parseAs("i", "SELECT id FROM t WHERE id = $1"), parseAs("n", "UPDATE t SET v = 0 WHERE id = $1"), parseAs("c", "COMMIT"), parseAs("e", ""), parseAs("s", "SHOW work_mem"), syncs,
		q("BEGIN"), bindAs("pi", "i", "1"), bindAs("pn", "n", "1"), bindAs("pc", "c"), bindAs("pe", "e"), syncs, q("SELECT nothing"),
		bindAs("", "i", "1"), syncs, bindAs("", "i"), syncs, bindAs("", "nothing"), syncs, bindAs("pi", "i", "1"), syncs, bindAs("", "e"), syncs, bindAs("", "c", "1"), syncs, bindAs("", "s"), syncs,
		executeOf("nothing", 0), syncs, executeOf("pi", 0), syncs, executeOf("pn", 0), syncs, executeOf("pe", 0), syncs, describeOf('P', "nothing"), syncs,
		describeOf('P', "pi"), syncs, describeOf('P', "pn"), syncs, describeOf('P', "pc"), syncs, describeOf('S', "i"), syncs, describeOf('S', "c"), syncs, describeOf('S', "nothing"), syncs,
		closeOf('P', "pi"), closeOf('S', "nothing"), closeOf('P', "nothing"), syncs, executeOf("pc", 0), syncs, bindAs("", "c"), executeOf("", 0), syncs,
		closeOf('S', "i"), closeOf('S', "n"), closeOf('S', "c"), closeOf('S', "e"), closeOf('S', "s"), syncs)},
	{"a block that fails on one shard", join(q("BEGIN"), q("UPDATE t SET v = v WHERE id IN (1, 2, 3, 4)"), parseAs("i", "SELECT id FROM t WHERE id = $1"), bindAs("p1", "i", "1"), bindAs("p2", "i", "2"), bindAs("p3", "i", "3"), bindAs("p4", "i", "4"), syncs, q("INSERT INTO t VALUES (2, 0)"),
		describeOf('P', "p1"), syncs, describeOf('P', "p2"), syncs, describeOf('P', "p3"), syncs, describeOf('P', "p4"), syncs, describeOf('S', "i"), syncs, executeOf("p1", 0), syncs, executeOf("p3", 0), syncs, closeOf('P', "p1"), closeOf('S', "i"), syncs, q("ROLLBACK"))},
	{"a block that fails in the router", join(q("BEGIN"), q("UPDATE t SET v = v WHERE id = 1"), parseAs("i", "SELECT id FROM t WHERE id = $1"), bindAs("p", "i", "1"), syncs, q("RELEASE nothing"),
		describeOf('P', "p"), syncs, describeOf('S', "i"), syncs, executeOf("p", 0), syncs, bindAs("", "i", "1"), syncs, closeOf('S', "i"), syncs, q("ROLLBACK"))},
	{"an error behind savepoints", join(q("BEGIN"), parseAs("i", "SELECT id FROM t WHERE id = $1"), bindAs("p", "i", "1"), syncs, q("SAVEPOINT a"), bindAs("p2", "i", "2"), syncs, q("SELECT nothing"), executeOf("p", 0), syncs, q("ROLLBACK TO a"),
		executeOf("p2", 0), syncs, q("ROLLBACK TO a"), executeOf("p", 0), syncs, q("COMMIT"), closeOf('S', "i"), syncs)},

	// c) BEGIN within a block.
	{"BEGIN with modes in a block", join(q("BEGIN"), q("BEGIN ISOLATION LEVEL SERIALIZABLE"), q("SHOW transaction_isolation"), q("SELECT count(*) FROM t"), q("BEGIN READ ONLY"), q("UPDATE t SET v = v"), q("ROLLBACK"))},
	{"BEGIN with modes behind a query", join(q("BEGIN"), q("SELECT count(*) FROM t"), q("BEGIN ISOLATION LEVEL REPEATABLE READ"), q("ROLLBACK"), q("BEGIN READ ONLY"), q("SELECT count(*) FROM t"), q("START TRANSACTION READ WRITE"), q("ROLLBACK"))},
	{"BEGIN with modes behind a query of one shard", join(q("BEGIN"), q("SELECT v FROM t WHERE id = 1"), q("BEGIN ISOLATION LEVEL REPEATABLE READ"), q("ROLLBACK"), q("BEGIN"), q("SELECT v FROM t WHERE id = 1"), q("START TRANSACTION READ ONLY, DEFERRABLE"), q("UPDATE t SET v = v WHERE id = 2"), q("ROLLBACK"))},
	{"BEGIN with modes, savepoints", join(q("BEGIN"), q("SAVEPOINT a"), q("BEGIN ISOLATION LEVEL SERIALIZABLE"), q("ROLLBACK TO a"), q("BEGIN READ ONLY"), q("UPDATE t SET v = v"), q("ROLLBACK TO a"), q("SHOW transaction_read_only"), q("UPDATE t SET v = v"), q("ROLLBACK"))},
	{"BEGIN with modes in a pipeline", join(ext("BEGIN"), ext("BEGIN ISOLATION LEVEL SERIALIZABLE"), ext("SHOW transaction_isolation"), syncs, ext("START TRANSACTION READ ONLY"), syncs, ext("UPDATE t SET v = v"), syncs, q("ROLLBACK"),
		ext("UPDATE t SET v = v"), ext("BEGIN ISOLATION LEVEL SERIALIZABLE"), syncs, q("ROLLBACK"), ext("UPDATE t SET v = v WHERE id = 1"), ext("BEGIN READ ONLY"), ext("UPDATE t SET v = v WHERE id = 2"), syncs, q("ROLLBACK"))},
	{"SET TRANSACTION within a block", join(q("BEGIN"), q("SET TRANSACTION READ ONLY"), q("SELECT count(*) FROM t"), q("SET TRANSACTION READ WRITE"), q("ROLLBACK"), q("SET TRANSACTION READ ONLY"), q("SELECT 1; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), ext("SET TRANSACTION READ ONLY"), ext("UPDATE t SET v = v"), syncs, count)},
	{"modes set by functions", join(q("BEGIN"), q("SELECT set_config('transaction_read_only', 'on', true)"), q("COMMIT AND CHAIN"), q("SHOW transaction_read_only"), q("UPDATE t SET v = v"), q("ROLLBACK"), q("SHOW transaction_read_only"), q("UPDATE t SET v = v"),
		q("SET transaction_read_only = on"), q("UPDATE t SET v = v"), q("BEGIN"), q("SAVEPOINT s"), q("SET transaction_read_only = on"), q("UPDATE t SET v = v WHERE id = 1"), q("ROLLBACK TO s"), q("UPDATE t SET v = v"), q("COMMIT AND CHAIN"), q("UPDATE t SET v = v"), q("COMMIT"))},
	{"BEGIN with modes twice over", join(q("BEGIN READ ONLY"), q("BEGIN READ WRITE"), q("SHOW transaction_read_only"), q("ROLLBACK"), q("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE"), q("SHOW transaction_deferrable"), q("COMMIT AND CHAIN"), q("SHOW transaction_isolation"), q("SHOW transaction_read_only"), q("ROLLBACK"))},

	// d) Positions in series.
	{"positions in a series", join(q("SELECT 1; SELECT nothing"), q("SELECT 'é'; SELECT count(*) FROM nothing"), q("SELECT 1; SELECT id FROM t WHERE nothing = 1"), q("SELECT 1 ;\n SELECT id FROM t WHERE id = 1 AND v = 'x'"), q("SELECT 1; SELECT 1 +"),
		q("UPDATE t SET v = 0; UPDATE t SET nothing = 1"), q("SELECT 1; SELECT v FROM t WHERE id = 1 AND nothing = v; SELECT 3"), q("/* é */ SELECT nothing FROM t;"), q("-- é\n SELECT nothing FROM t WHERE id = 1;"), q("; SELECT nothing;"), q(";; SELECT 1; ; SELECT x"))},
	{"positions of what is edited", join(q("INSERT INTO t VALUES (11, 0), (12, now()), (13, 0), (14, 0), (15, 0), (16, 0)"), q("INSERT INTO t VALUES (11, 0), (12, 0), (13, 0), (14, 0), (15, 0), (16, 'x')"), q("UPDATE t SET v = 1 WHERE now() IS NOT NULL AND nothing = 1"), count)},
	{"positions within PREPARE", join(q("PREPARE a AS SELECT nothing FROM t"), q("PREPARE a (int) AS SELECT v FROM t WHERE id = $1 AND nothing = 2"), q("SELECT 1; PREPARE a AS SELECT v FROM t WHERE nothing = 2"), q("PREPARE a AS SELECT v FROM nothing"), q("EXPLAIN SELECT nothing FROM t WHERE id = 1"),
		q("BEGIN; DECLARE c CURSOR FOR SELECT nothing FROM t WHERE id = 1"), q("ROLLBACK"), q("SELECT 1; COPY t (nothing) TO STDOUT"), q("SELECT 1; COPY (SELECT nothing FROM t WHERE id = 1) TO STDOUT"))},
	{"positions in Parse", join(parseAs("", "SELECT nothing FROM t"), describeOf('S', ""), syncs, parseAs("", " SELECT id FROM t WHERE id = $1 AND nothing = 2"), describeOf('S', ""), syncs, parseAs("", "SELECT 1; SELECT 2"), syncs, parseAs("", "SELEC"), syncs, parseAs("", "SELECT 1 FROM nothing"), syncs)},

	// e) Chains.
	{"chains outside of blocks", join(q("COMMIT AND CHAIN"), q("ROLLBACK AND CHAIN"), q("SELECT 1; COMMIT AND CHAIN"), q("UPDATE t SET v = 5; ROLLBACK AND CHAIN"), ext("COMMIT AND CHAIN"), syncs, ext("ROLLBACK AND CHAIN"), syncs, ext("UPDATE t SET v = 5"), ext("COMMIT AND CHAIN"), syncs, ext("UPDATE t SET v = 5"), ext("ROLLBACK AND CHAIN"), ext("SELECT 1"), syncs, count)},
	{"chains over shards", join(q("BEGIN ISOLATION LEVEL REPEATABLE READ"), q("UPDATE t SET v = 1"), q("COMMIT AND CHAIN"), q("SHOW transaction_isolation"), q("UPDATE t SET v = 2"), q("ROLLBACK AND CHAIN"), q("SHOW transaction_isolation"), q("SELECT nothing"), q("COMMIT AND CHAIN"), q("SELECT sum(v) FROM t"), q("SELECT nothing"), q("ROLLBACK AND CHAIN"), q("UPDATE t SET v = 0"), q("COMMIT"), count)},
	{"chains in pipelines", join(ext("BEGIN READ ONLY"), ext("COMMIT AND CHAIN"), ext("SHOW transaction_read_only"), ext("SELECT sum(v) FROM t"), ext("ROLLBACK AND CHAIN"), syncs, ext("UPDATE t SET v = 3"), syncs, ext("ROLLBACK AND CHAIN"), ext("COMMIT AND NO CHAIN"), syncs, count)},
	{"chains of what was set", join(q("BEGIN"), q("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"), q("SET LOCAL work_mem = '5MB'"), q("COMMIT AND CHAIN"), q("SHOW transaction_isolation"), q("SHOW work_mem"), q("SET transaction_read_only = on"), q("COMMIT AND CHAIN"), q("SHOW transaction_read_only"), q("UPDATE t SET v = v"), q("ROLLBACK"))},

	// f) Counts in Bind.
	{"counts in Bind", join(parseAs("k", "SELECT v FROM t WHERE id = $1"), syncs, bindAs("", "k"), syncs, bindAs("", "k", "1", "2"), syncs, parseAs("", "SELECT v FROM t WHERE id = $1"), bindAs("", ""), syncs, parseAs("", "SELECT 1"), bindAs("", "", "1"), syncs,
		msgs{&pgproto3.Bind{PreparedStatement: "k", Parameters: [][]byte{[]byte("1")}, ParameterFormatCodes: []int16{0, 0}}}, syncs,
		msgs{&pgproto3.Bind{PreparedStatement: "k", Parameters: [][]byte{[]byte("1")}, ParameterFormatCodes: []int16{7}}}, syncs,
		msgs{&pgproto3.Bind{PreparedStatement: "k", Parameters: [][]byte{[]byte("1")}, ResultFormatCodes: []int16{0, 0, 0}}}, syncs,
		msgs{&pgproto3.Bind{PreparedStatement: "k", Parameters: [][]byte{[]byte("1")}, ResultFormatCodes: []int16{7}}}, syncs,
		parseAs("a", "SELECT v FROM t WHERE v = $1", 23, 23, 23), bindAs("", "a", "1"), syncs, bindAs("", "a", "1"), syncs, parseAs("c", "COMMIT", 23), bindAs("", "c"), syncs, bindAs("", "c", "1"), executeOf("", 0), syncs, parseAs("x", "CREATE TABLE x (id int DEFAULT $1)"), bindAs("", "x", "1"), syncs,
		parseAs("y", "SELECT $3::int, $1::int"), syncs, closeOf('S', "k"), closeOf('S', "a"), closeOf('S', "c"), closeOf('S', "x"), closeOf('S', "y"), syncs)},
	{"counts in Bind over shards", join(parseAs("k", "UPDATE t SET v = $1"), bindAs("", "k"), syncs, parseAs("k", "UPDATE t SET v = $1"), syncs, bindAs("", "k"), syncs, bindAs("", "k", "1", "2"), syncs, bindAs("", "k", "x"), syncs, closeOf('S', "k"), syncs, count)},
	{"values that do not fit", join(ext("SELECT v FROM t WHERE id = $1", "x"), syncs, ext("SELECT v FROM t WHERE v = $1", "x"), syncs, ext("UPDATE t SET v = $1", "99999999999"), syncs,
		parseAs("", "SELECT v FROM t WHERE id = $1"), msgs{&pgproto3.Bind{Parameters: [][]byte{{1, 2}}, ParameterFormatCodes: []int16{1}}}, syncs)},

	// j) Names, portals, cursors.
	{"names that are taken", join(parseAs("d", "SELECT 1"), syncs, parseAs("d", "SELEC"), syncs, parseAs("d", "SELECT 1 FROM nothing"), syncs, parseAs("d", "SELECT nothing FROM t"), syncs, parseAs("d", "SELECT 1; SELECT 2"), syncs, parseAs("d", ""), syncs, parseAs("d", "SELECT 2"), syncs, parseAs("d", "BEGIN"), syncs,
		q("PREPARE d AS SELECT nothing"), q("PREPARE d AS SELECT 1"), chain("d"), syncs, closeOf('S', "d"), syncs)},
	{"portals that are taken", join(q("BEGIN"), parseAs("", "SELECT v FROM t WHERE id = 1"), bindAs("p", ""), bindAs("p", ""), syncs, q("ROLLBACK"), q("BEGIN"), q("DECLARE c CURSOR FOR SELECT v FROM t"), parseAs("", "SELECT v FROM t WHERE id = 1"), bindAs("c", ""), syncs, q("ROLLBACK"),
		q("BEGIN"), parseAs("", "SELECT v FROM t WHERE id = 1"), bindAs("c", ""), syncs, q("DECLARE c CURSOR FOR SELECT v FROM t WHERE id = 1"), q("ROLLBACK"), q("BEGIN"), parseAs("", "SELECT v FROM t"), bindAs("c", ""), syncs, q("DECLARE c CURSOR FOR SELECT v FROM t"), q("ROLLBACK"))},
	{"portals by SQL", join(q("BEGIN"), parseAs("", "SELECT v FROM t WHERE id = 3"), bindAs("c", ""), syncs, q("FETCH c"), q("CLOSE c"), executeOf("c", 0), syncs, q("ROLLBACK"))},
	{"the unnamed portal behind a Parse", join(parseAs("", "SELECT id FROM t WHERE id = 1"), bindAs("", ""), parseAs("", "SELECT id FROM t WHERE id = 2"), executeOf("", 0), syncs, q("BEGIN"), parseAs("", "SELECT id FROM t WHERE id = 1"), bindAs("", ""), syncs, executeOf("", 0), syncs, q("SELECT 1"), executeOf("", 0), syncs, q("ROLLBACK"))},
	{"the unnamed statement behind a Query", join(parseAs("", "SELECT id FROM t WHERE id = 1"), syncs, q("SELECT 1"), bindAs("", ""), syncs, parseAs("", "SELECT id FROM t WHERE id = 1"), syncs, parseAs("", "SELEC"), syncs, bindAs("", ""), syncs, parseAs("", "SELECT id FROM t WHERE id = 1"), syncs, q(""), bindAs("", ""), syncs)},
	{"the unnamed statement behind errors", join(parseAs("", "SELECT id FROM t WHERE id = 1"), syncs, parseAs("", "SELECT nothing FROM t WHERE id = 1"), syncs, bindAs("", ""), syncs, parseAs("", "SELECT id FROM t WHERE id = 1"), syncs, q("SELECT nothing"), bindAs("", ""), syncs)},
	{"a portal at its end", join(q("BEGIN"), parseAs("", "SELECT id FROM t WHERE id = 1"), bindAs("", ""), executeOf("", 0), executeOf("", 0), executeOf("", 1), syncs, parseAs("", "UPDATE t SET v = v"), bindAs("", ""), executeOf("", 0), executeOf("", 0), syncs, q("ROLLBACK"),
		q("BEGIN"), parseAs("", "UPDATE t SET v = v WHERE id = 1"), bindAs("", ""), executeOf("", 1), executeOf("", 0), syncs, q("ROLLBACK"), q("BEGIN"), parseAs("", "UPDATE t SET v = v WHERE id < 4 RETURNING v"), bindAs("", ""), executeOf("", 2), executeOf("", 2), executeOf("", 2), syncs, q("ROLLBACK"))},
	{"a portal of the router's at its end", join(ext("SHOW work_mem"), executeOf("", 0), syncs, ext("SET work_mem = '4MB'"), executeOf("", 0), syncs, ext("BEGIN"), executeOf("", 0), syncs, q("ROLLBACK"), ext("RESET work_mem"), syncs)},
	{"row limits", join(q("BEGIN"), parseAs("", "SELECT v FROM t"), bindAs("", ""), executeOf("", 3), executeOf("", 3), executeOf("", 3), executeOf("", 3), syncs, ext("SELECT v FROM t LIMIT 4"), executeOf("", 2), syncs, q("ROLLBACK"), parseAs("", "SHOW work_mem"), bindAs("", ""), executeOf("", 1), executeOf("", 1), syncs)},
	{"portals end with their transaction", join(parseAs("s", "SELECT id FROM t WHERE id = 1"), bindAs("p", "s"), syncs, executeOf("p", 0), syncs, describeOf('P', "p"), syncs, q("BEGIN"), bindAs("p", "s"), syncs, q("COMMIT"), executeOf("p", 0), syncs, closeOf('P', "p"), closeOf('S', "s"), syncs)},
	{"errors in Describe and Close", join(describeOf('S', ""), syncs, describeOf('P', ""), syncs, describeOf('S', "x"), syncs, describeOf('P', "x"), syncs, describeOf('X', "x"), syncs, closeOf('X', "x"), syncs, closeOf('S', ""), closeOf('P', ""), syncs)},
	{"Flush behind an error", join(bindAs("", "nothing"), flushes, flushes, describeOf('S', "x"), flushes, syncs, ext("SELECT 1"), flushes, syncs)},
	{"cursors", join(q("DECLARE c CURSOR FOR SELECT 1"), q("FETCH c"), q("CLOSE c"), q("MOVE c"), q("BEGIN"), q("DECLARE c CURSOR FOR SELECT v FROM t"), q("DECLARE c CURSOR FOR SELECT v FROM t"), q("FETCH c"), q("ROLLBACK"), q("SELECT 1; DECLARE c CURSOR FOR SELECT v FROM t; FETCH 1 FROM c"), ext("DECLARE c CURSOR FOR SELECT v FROM t"), syncs, ext("FETCH c"), syncs,
		q("BEGIN"), q("DECLARE c CURSOR FOR SELECT 1 / (id - 8) FROM t WHERE id = 8"), q("FETCH ALL FROM c"), q("ROLLBACK"))},
	{"outside of blocks", join(q("SAVEPOINT a"), q("RELEASE a"), q("ROLLBACK TO a"), q("SELECT 1; SAVEPOINT a"), q("SELECT 1; RELEASE a"), q("SELECT 1; ROLLBACK TO a"), q("LOCK TABLE t"), q("LOCK TABLE g"), q("SET LOCAL work_mem = '1MB'"), q("SET CONSTRAINTS ALL DEFERRED"), q("SELECT 1; SET LOCAL work_mem = '1MB'; SHOW work_mem"), q("COMMIT"), q("ROLLBACK"), q("SELECT 1; COMMIT"), q("SELECT 1; ROLLBACK"),
		ext("SAVEPOINT a"), syncs, ext("RELEASE a"), syncs, ext("ROLLBACK TO a"), syncs, ext("LOCK TABLE t"), syncs, ext("LOCK TABLE g"), syncs, ext("SET LOCAL work_mem = '1MB'"), ext("SHOW work_mem"), syncs, ext("SET CONSTRAINTS ALL DEFERRED"), syncs, ext("COMMIT"), syncs, ext("ROLLBACK"), syncs)},
	{"savepoints that are not there", join(q("BEGIN"), q("ROLLBACK TO a"), q("ROLLBACK"), q("BEGIN"), q("RELEASE a"), q("RELEASE a"), q("ROLLBACK TO a"), q("ROLLBACK"), q("BEGIN"), q("SAVEPOINT a"), q("SELECT nothing"), q("ROLLBACK TO b"), q("ROLLBACK TO a"), q("COMMIT"))},
	{"not in blocks", join(q("BEGIN"), q("VACUUM g"), q("ROLLBACK"), q("BEGIN"), q("DISCARD ALL"), q("ROLLBACK"), q("BEGIN"), q("CREATE INDEX CONCURRENTLY ON g (v)"), q("ROLLBACK"), q("SELECT 1; VACUUM g"), q("SELECT 1; DISCARD ALL"), q("BEGIN"), q("VACUUM t"), q("ROLLBACK"), q("SELECT 1; VACUUM t"))},
	{"not in pipelines", join(ext("SELECT 1"), ext("VACUUM g"), syncs, ext("SELECT 1"), ext("DISCARD ALL"), syncs, ext("VACUUM g"), syncs, ext("VACUUM g"), ext("SELECT 1"), syncs, ext("VACUUM t"), syncs, ext("SELECT 1"), ext("VACUUM t"), syncs, ext("UPDATE t SET v = v"), ext("VACUUM t"), syncs)},
	{"constraints", join(q("INSERT INTO g VALUES (1, 11)"), ext("INSERT INTO g VALUES (1, 11)"), syncs, q("INSERT INTO g VALUES (NULL, 1)"), q("INSERT INTO t VALUES (1, 1)"), q("SELECT 1; INSERT INTO g VALUES (1, 11); SELECT 2"))},
	{"settings that are not", join(q("SET nothing = 1"), q("SHOW nothing"), q("SET work_mem = 'x'"), q("RESET nothing"), q("SELECT 1; SET work_mem = 'x'"), ext("SET work_mem = 'x'"), syncs, ext("SHOW nothing"), syncs, q("BEGIN"), q("SET work_mem = 'x'"), q("SELECT 1"), q("ROLLBACK"), q("SET TIME ZONE 'nowhere'"))},
	{"SQL that is not", join(q("SELECT"), q("SELECT $1"), q("SELECT count(*) FROM t WHERE id = $1"), q("SELECT 'x"), q("SELECT \"x"), q("SELECT /* x"), q("INSERT INTO t VALUES (1, 2, 3)"), q("INSERT INTO t (id, id) VALUES (1, 2)"), q("SELECT t.nothing FROM t"), q("SELECT x.id FROM t"), q("SELECT 1 WHERE 1"), q("DROP TABLE nothing"), q("ALTER TABLE nothing ADD x int"), q("DELETE FROM nothing"))},
	{"COPY that is not", join(q("COPY nothing FROM STDIN"), q("COPY t (nothing) FROM STDIN"), q("COPY t FROM STDIN WITH (nothing)"), q("SELECT 1; COPY nothing TO STDOUT"))},
	{"LISTEN and NOTIFY in failed blocks", join(q("BEGIN"), q("SELECT nothing"), q("NOTIFY c"), q("UNLISTEN *"), q("ROLLBACK"))},
	{"implicit blocks", join(q("BEGIN; SELECT nothing; COMMIT"), q("ROLLBACK"), q("UPDATE t SET v = 9; COMMIT; SELECT nothing"), count, q("UPDATE t SET v = 0; BEGIN; UPDATE t SET v = 8; SELECT nothing"), q("COMMIT"), count, q("BEGIN; COMMIT; COMMIT"), q("COMMIT; BEGIN"), q("BEGIN"), q("COMMIT"), q("UPDATE t SET v = 0"))},
	{"pipelines that fail at their end", join(ext("UPDATE t SET v = 4"), ext("INSERT INTO t VALUES (1, 1)"), syncs, count, ext("UPDATE t SET v = 4"), msgs{&pgproto3.Execute{Portal: "x"}}, syncs, count)},
}

// TestClientTwoPhaseRefused: PREPARE TRANSACTION is refused over several shards, and its
// block fails.
func TestClientTwoPhaseRefused(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	_, b := eightRows(t, c)
	const refused = "ERROR 0A000"
	for _, s := range []struct {
		name string
		ms   msgs
		want string
	}{
		{"in a block", join(q("BEGIN"), q("PREPARE TRANSACTION 'x'"), q("SELECT 1"), q("COMMIT")), "BEGIN; T; " + refused + "; E; ERROR 25P02; E; ROLLBACK; I"},
		{"by the extended protocol", join(q("BEGIN"), ext("PREPARE TRANSACTION 'x'"), syncs, q("ROLLBACK")), "BEGIN; T; " + refused + "; E; ROLLBACK; I"},
		{"outside", join(q("COMMIT PREPARED 'x'"), q("SELECT 1")), refused + `; I; columns 1; ["1"]; SELECT 1; I`},
	} {
		if got := b.script(s.ms); got != s.want {
			t.Errorf("%s: %s, want %s", s.name, got, s.want)
		}
	}
}
