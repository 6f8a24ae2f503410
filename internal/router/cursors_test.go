package router_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// fetch binds sql with result formats.
func fetch(sql string, formats ...int16) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{ResultFormatCodes: formats}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}}
}

// TestRouterCursors compares cursors over several shards with PostgreSQL's, message
// by message. Rows are alike, since their order is free.
func TestRouterCursors(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	sync := []pgproto3.FrontendMessage{&pgproto3.Sync{}}
	const all = "DECLARE c CURSOR FOR SELECT v FROM t"
	const scroll = "DECLARE c SCROLL CURSOR FOR SELECT v FROM t"
	const forward = "DECLARE c NO SCROLL CURSOR FOR SELECT v FROM t"
	count := q("SELECT count(*), sum(v) FROM t")
	block := func(sql ...string) []pgproto3.FrontendMessage {
		ms := q("BEGIN")
		for _, s := range sql {
			ms = append(ms, q(s)...)
		}
		return append(ms, q("ROLLBACK")...)
	}
	scripts := []script{
		{"three at a time", block(all, "FETCH 3 FROM c", "FETCH 3 FROM c", "FETCH 3 FROM c", "FETCH 3 FROM c", "CLOSE c", "FETCH c")},
		{"one at a time", block(all, "FETCH c", "FETCH NEXT FROM c", "FETCH FORWARD 1 FROM c", "FETCH c", "FETCH c", "FETCH c", "FETCH c", "FETCH c", "FETCH c", "FETCH c")},
		{"all", block(all, "FETCH ALL FROM c", "FETCH ALL FROM c", "FETCH FORWARD ALL FROM c")},
		{"moves", block(all, "MOVE 3 FROM c", "MOVE NEXT FROM c", "FETCH 2 FROM c", "MOVE ALL FROM c", "MOVE c", "FETCH c")},
		{"as many as there are", block(all, "FETCH 8 FROM c", "FETCH 1 FROM c")},
		{"back and forth", block(scroll, "FETCH BACKWARD 1 FROM c", "FETCH 5 FROM c", "FETCH PRIOR FROM c", "FETCH BACKWARD 2 FROM c", "FETCH BACKWARD ALL FROM c", "FETCH PRIOR FROM c", "FETCH ALL FROM c", "FETCH BACKWARD ALL FROM c", "MOVE ALL FROM c", "MOVE BACKWARD ALL FROM c", "FETCH 0 FROM c", "FETCH c", "FETCH 0 FROM c", "MOVE 0 FROM c", "FETCH -1 FROM c", "MOVE 6 FROM c", "MOVE BACKWARD ALL FROM c")},
		{"absolute and relative", block(scroll, "FETCH FIRST FROM c", "FETCH LAST FROM c", "FETCH c", "FETCH ABSOLUTE 3 FROM c", "FETCH RELATIVE 2 FROM c", "FETCH RELATIVE -4 FROM c", "FETCH RELATIVE 0 FROM c", "FETCH ABSOLUTE -2 FROM c", "FETCH ABSOLUTE 0 FROM c", "FETCH ABSOLUTE 9 FROM c", "MOVE ABSOLUTE -9 FROM c", "MOVE ABSOLUTE 8 FROM c", "MOVE LAST FROM c", "MOVE RELATIVE 1 FROM c", "FETCH PRIOR FROM c")},
		{"NO SCROLL forward", block(forward, "FETCH 3 FROM c", "FETCH ABSOLUTE 6 FROM c", "FETCH RELATIVE 2 FROM c", "FETCH RELATIVE 5 FROM c")},
		{"NO SCROLL back", block(forward, "FETCH 3 FROM c", "FETCH BACKWARD 1 FROM c", "FETCH c")},
		{"NO SCROLL back at the start", block(forward, "FETCH PRIOR FROM c")},
		{"NO SCROLL absolute back", block(forward, "FETCH 7 FROM c", "FETCH ABSOLUTE 2 FROM c")},
		{"NO SCROLL rewound", block(forward, "FETCH 7 FROM c", "MOVE BACKWARD ALL FROM c")},
		{"NO SCROLL first", block(forward, "FETCH FIRST FROM c", "FETCH RELATIVE 0 FROM c")},
		{"not said: it scrolls", block(all, "FETCH 7 FROM c", "FETCH BACKWARD 7 FROM c")},
		{"aggregates", block("DECLARE c SCROLL CURSOR FOR SELECT count(*), sum(v), max(id) FROM t", "FETCH 0 FROM c", "FETCH c", "FETCH 0 FROM c", "FETCH c", "FETCH PRIOR FROM c", "FETCH PRIOR FROM c", "FETCH ALL FROM c", "FETCH LAST FROM c", "MOVE ABSOLUTE -1 FROM c", "MOVE BACKWARD ALL FROM c", "MOVE ALL FROM c")},
		{"binary", block("DECLARE c BINARY CURSOR FOR SELECT v, 7::int8 FROM t", "FETCH 2 FROM c", "CLOSE c", "DECLARE c BINARY CURSOR FOR SELECT count(*), min(id) FROM t", "FETCH ALL FROM c")},
		{"no rows", block("DECLARE c SCROLL CURSOR FOR SELECT v FROM t WHERE v = 77", "FETCH 3 FROM c", "FETCH c", "FETCH BACKWARD 3 FROM c", "MOVE ALL FROM c", "FETCH LAST FROM c")},
		{"without a block", join(q(all), q("FETCH c"), ext(all), sync, q("SELECT 1"))},
		{"in one Query", join(q(all+"; FETCH 5 FROM c; MOVE 1 FROM c; FETCH 5 FROM c; CLOSE c"), q(all+"; FETCH 5 FROM c"), q("FETCH c"))},
		{"a name that is taken", block(all, "SAVEPOINT s", all, "ROLLBACK TO s", "FETCH 1 FROM c", "DECLARE c CURSOR FOR SELECT v FROM t WHERE id = 1", "ROLLBACK TO s", "FETCH 9 FROM c")},
		{"a name taken on one shard", block("DECLARE c CURSOR FOR SELECT v FROM t WHERE id = 1", "SAVEPOINT s", all, "ROLLBACK TO s", "FETCH 9 FROM c", "DECLARE c CURSOR FOR SELECT v FROM t WHERE id = 2", "ROLLBACK TO s", "CLOSE c", all, "FETCH 9 FROM c")},
		{"names in quotes", block(`DECLARE "a ""C" CURSOR FOR SELECT v FROM t`, `FETCH 5 FROM "a ""C"`, `CLOSE "a ""C"`)},
		{"CLOSE ALL", block(all, "DECLARE d CURSOR FOR SELECT v FROM t WHERE id = 3", "DECLARE e CURSOR FOR SELECT count(*) FROM t", "FETCH c", "FETCH d", "FETCH e", "CLOSE ALL", "SAVEPOINT s", "FETCH c", "ROLLBACK TO s", "FETCH d", "ROLLBACK TO s", "FETCH e", "ROLLBACK TO s", "CLOSE ALL")},
		{"several in turn", block(all, "DECLARE d CURSOR FOR SELECT v FROM t WHERE v = 0", "FETCH 5 FROM c", "FETCH 2 FROM d", "FETCH 2 FROM c", "FETCH 7 FROM d", "FETCH 2 FROM c")},
		{"later changes are not seen", block(all, "FETCH 1 FROM c", "UPDATE t SET v = 5", "DELETE FROM t WHERE id = 8", "FETCH ALL FROM c", "SELECT count(*), sum(v) FROM t")},
		{"nor those before its first rows", block(all, "UPDATE t SET v = 5", "FETCH ALL FROM c")},
		{"ROLLBACK TO ends it", block("SAVEPOINT s", all, "FETCH 3 FROM c", "ROLLBACK TO s", "FETCH c", "ROLLBACK TO s", all, "FETCH 9 FROM c")},
		{"ROLLBACK TO leaves it where it is", block(all, "FETCH 2 FROM c", "SAVEPOINT s", "FETCH 3 FROM c", "ROLLBACK TO s", "FETCH 2 FROM c", "FETCH 2 FROM c")},
		{"RELEASE keeps it", block("SAVEPOINT s", all, "RELEASE s", "SAVEPOINT s", "ROLLBACK TO s", "FETCH 9 FROM c")},
		{"RELEASE gives it to the level above", block("SAVEPOINT a", "SAVEPOINT b", all, "RELEASE b", "FETCH c", "ROLLBACK TO a", "FETCH c")},
		{"closed behind a savepoint", block(all, "SAVEPOINT s", "CLOSE c", "ROLLBACK TO s", "FETCH c")},
		{"COMMIT ends it", join(q("BEGIN"), q(all), q("FETCH c"), q("COMMIT"), q("FETCH c"), q("BEGIN"), q(all), q("FETCH 9 FROM c"), q("COMMIT"))},
		{"an unknown one", block("FETCH nope")},
		{"FOR UPDATE", block("DECLARE c CURSOR FOR SELECT v FROM t FOR UPDATE", "FETCH 3 FROM c", "FETCH 9 FROM c")},
		{"WHERE CURRENT OF", join(block("DECLARE c CURSOR FOR SELECT v FROM t", "SAVEPOINT s", "UPDATE t SET v = 9 WHERE CURRENT OF c", "ROLLBACK TO s", "FETCH 4 FROM c", "UPDATE t SET v = 9 WHERE CURRENT OF c", "DELETE FROM t WHERE CURRENT OF c", "FETCH 3 FROM c", "UPDATE t SET v = 100 WHERE CURRENT OF c", "SELECT count(*), sum(v) FROM t", "FETCH ALL FROM c", "UPDATE t SET v = 9 WHERE CURRENT OF c"), count)},
		{"parameters", join(q("BEGIN"), ext("DECLARE c CURSOR FOR SELECT v FROM t WHERE id > $1", "2"), sync, q("FETCH 4 FROM c"), q("FETCH 4 FROM c"), q("COMMIT"))},
		{"by the extended protocol", join(q("BEGIN"), ext(all), sync, ext("FETCH 3 FROM c"), sync, ext("FETCH 3 FROM c"), ext("MOVE 1 FROM c"), ext("FETCH 3 FROM c"), sync, ext("CLOSE c"), sync, ext("FETCH c"), sync, q("COMMIT"))},
		{"all in one pipeline", join(ext("BEGIN"), ext(all), ext("FETCH 3 FROM c"), ext("FETCH ALL FROM c"), ext("CLOSE c"), ext("COMMIT"), sync)},
		{"binary by the extended protocol", join(q("BEGIN"), ext("DECLARE c CURSOR FOR SELECT v, id % 1 FROM t"), fetch("FETCH 5 FROM c", 1), fetch("FETCH 2 FROM c", 0, 1), fetch("FETCH 2 FROM c"), sync, q("CLOSE c"),
			q("DECLARE c BINARY CURSOR FOR SELECT v FROM t"), ext("FETCH 2 FROM c"), fetch("FETCH 2 FROM c", 1), sync, q("COMMIT"))},
		{"row limits", join(q("BEGIN"), q(all), portal("p", "FETCH 7 FROM c"), describePortal("p"), take("p", 3), take("p", 3), sync, take("p", 3), take("p", 3), describePortal("p"), closePortal("p"), sync, q("FETCH 7 FROM c"), q("COMMIT"))},
		{"FETCH twice", join(q("BEGIN"), q(all), portal("", "FETCH 2 FROM c"), take("", 0), take("", 0), sync, q("FETCH ALL FROM c"), q("COMMIT"))},
		{"a prepared FETCH", join(q("BEGIN"), q(all), []pgproto3.FrontendMessage{&pgproto3.Parse{Name: "f", Query: "FETCH 3 FROM c"}, &pgproto3.Describe{ObjectType: 'S', Name: "f"}, &pgproto3.Bind{PreparedStatement: "f"}, &pgproto3.Execute{},
			&pgproto3.Bind{PreparedStatement: "f"}, &pgproto3.Execute{}, &pgproto3.Bind{PreparedStatement: "f"}, &pgproto3.Execute{}}, sync, q("COMMIT"), []pgproto3.FrontendMessage{&pgproto3.Close{ObjectType: 'S', Name: "f"}}, sync)},
		{"the cursor as a portal", join(q("BEGIN"), q(all), describePortal("c"), sync, q("FETCH 2 FROM c"), describePortal("c"), sync, closePortal("c"), sync, q("FETCH c"), q("COMMIT"))},
		{"the cursor executed as a portal", join(q("BEGIN"), q(all), take("c", 3), take("c", 3), sync, q("FETCH 1 FROM c"), take("c", 3), take("c", 1), sync, q("CLOSE c"),
			q("DECLARE c BINARY CURSOR FOR SELECT count(*) FROM t"), take("c", 0), sync, q("COMMIT"), take("c", 0), sync)},
		{"one shard's cursor as a portal", join(q("BEGIN"), q("DECLARE c CURSOR FOR SELECT v FROM t WHERE id = 1"), describePortal("c"), take("c", 1), sync, closePortal("c"), sync, q("FETCH c"), q("COMMIT"))},
		{"an error in the rows", join(block("DECLARE c CURSOR FOR SELECT 1/(v-v) FROM t", "SAVEPOINT s", "MOVE 3 FROM c", "ROLLBACK TO s", "FETCH c"), count)},
		{"an error in the rows, pipelined", join(q("BEGIN"), q("DECLARE c CURSOR FOR SELECT 1/(v-v) FROM t"), q("SAVEPOINT s"), ext("MOVE 3 FROM c"), ext("SELECT 1"), sync, q("ROLLBACK TO s"), count, q("COMMIT"))},
		{"no such table", block("DECLARE c CURSOR FOR SELECT v FROM nope")},
		{"WITH HOLD over COMMIT", join(q("BEGIN"), q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("FETCH 3 FROM c"), q("COMMIT"), q("FETCH 3 FROM c"), ext("FETCH 1 FROM c"), sync, q("BEGIN"), q("FETCH 1 FROM c"), q("ROLLBACK"), q("FETCH BACKWARD 2 FROM c"), q("FETCH ALL FROM c"), q("CLOSE c"), q("FETCH c"))},
		{"WITH HOLD by itself", join(q("DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT v FROM t"), q("FETCH 5 FROM c"), q("UPDATE t SET v = v + 1"), q("FETCH 5 FROM c"), q("CLOSE c"), q("UPDATE t SET v = 0"), count)},
		{"WITH HOLD, pipelined", join(ext("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), sync, ext("FETCH 5 FROM c"), ext("FETCH 5 FROM c"), sync, ext("CLOSE c"), sync, ext("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), sync, q("CLOSE ALL"), q("FETCH c"))},
		{"WITH HOLD, rolled back", join(q("BEGIN"), q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("FETCH c"), q("ROLLBACK"), q("FETCH c"), q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("CLOSE c"))},
		{"WITH HOLD, COMMIT fails", join(q("BEGIN"), q("DECLARE c CURSOR WITH HOLD FOR SELECT 1/(id-7) FROM t"), q("COMMIT"), q("FETCH c"), q("DECLARE c CURSOR WITH HOLD FOR SELECT 1/(id-7) FROM t"), q("FETCH c"), q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("FETCH 9 FROM c"), q("CLOSE c"))},
		{"WITH HOLD, a name twice", join(q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("BEGIN"), q(all), q("ROLLBACK"), q("FETCH 9 FROM c"), q("CLOSE c"))},
		{"WITH HOLD and DISCARD ALL", join(q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("DISCARD ALL"), q("FETCH c"))},
		{"WITH HOLD and a write on one shard", join(q("BEGIN"), q("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t"), q("UPDATE t SET v = 1 WHERE id = 1"), q("COMMIT"), count, q("FETCH 9 FROM c"), q("CLOSE c"), q("UPDATE t SET v = 0"))},
		{"READ ONLY", join(q("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"), q(all), q("FETCH 5 FROM c"), q("FETCH 5 FROM c"), q("COMMIT"))},
	}
	a, b := eightRows(t, c)
	compare(t, a, b, scripts)
	c.NothingPrepared(t)
}

// TestRouterCursorMoves goes to and fro at random on a cursor over shards and on
// PostgreSQL's own over the same rows in the same order.
func TestRouterCursorMoves(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	routed, direct := c.Connect(t, "app"), c.Servers[0].Connect(t, "postgres")
	ctx := context.Background()
	run(t, routed, "CREATE TABLE t (id int PRIMARY KEY) WITH (sharding.key = 'id')")
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("(%d)", i))
	}
	run(t, routed, "INSERT INTO t VALUES "+strings.Join(ids, ", "))
	rnd := rand.New(rand.NewPCG(7, 11))
	for range 20 {
		run(t, routed, "BEGIN")
		run(t, direct, "BEGIN")
		low := rnd.IntN(25)
		scroll := []string{"SCROLL", "NO SCROLL"}[min(rnd.IntN(4), 1)^1]
		run(t, routed, fmt.Sprintf("DECLARE o CURSOR FOR SELECT id FROM t WHERE id >= %d", low))
		rows, err := routed.Query(ctx, "FETCH ALL FROM o")
		if err != nil {
			t.Fatal(err)
		}
		order, err := pgx.CollectRows(rows, pgx.RowTo[int32])
		if err != nil || len(order) != 25-low {
			t.Fatalf("%d rows, %v", len(order), err)
		}
		run(t, routed, fmt.Sprintf("DECLARE c %s CURSOR FOR SELECT id FROM t WHERE id >= %d", scroll, low))
		run(t, direct, "DECLARE c "+scroll+" CURSOR FOR SELECT id FROM unnest('{"+strings.Trim(strings.ReplaceAll(fmt.Sprint(order), " ", ","), "[]")+"}'::int[]) id")
		var past []string
		for range 60 {
			sql := randomMove(rnd)
			past = append(past, sql)
			want, werr := answer(direct, sql)
			got, gerr := answer(routed, sql)
			if want != got {
				t.Fatalf("%s, %v: PostgreSQL: %s, the router: %s", scroll, past, want, got)
			}
			if werr != nil || gerr != nil {
				break
			}
		}
		run(t, routed, "ROLLBACK")
		run(t, direct, "ROLLBACK")
	}
}

func randomMove(rnd *rand.Rand) string {
	verb := []string{"FETCH", "MOVE"}[rnd.IntN(2)]
	n := rnd.IntN(14) - 3
	switch rnd.IntN(8) {
	case 0:
		return verb + " ALL FROM c"
	case 1:
		return verb + " BACKWARD ALL FROM c"
	case 2:
		return fmt.Sprintf("%s BACKWARD %d FROM c", verb, n)
	case 3:
		return fmt.Sprintf("%s ABSOLUTE %d FROM c", verb, rnd.IntN(60)-30)
	case 4:
		return fmt.Sprintf("%s RELATIVE %d FROM c", verb, n)
	}
	return fmt.Sprintf("%s FORWARD %d FROM c", verb, n)
}

// answer is what a simple Query answers, in a line.
func answer(conn *pgx.Conn, sql string) (string, error) {
	results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
	var out []string
	for _, r := range results {
		for _, row := range r.Rows {
			out = append(out, fmt.Sprintf("%s", row))
		}
		out = append(out, fmt.Sprint(len(r.FieldDescriptions)), r.CommandTag.String())
	}
	if err != nil {
		var pg *pgconn.PgError
		if !errors.As(err, &pg) {
			return err.Error(), err
		}
		out = append(out, pg.Code, pg.Message, pg.Hint) // the detail names the shard
	}
	return strings.Join(out, " "), err
}
