package router_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterSessions goes through what one session leaves for the next
// statement, the next transaction and the next client.
func TestRouterSessions(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	for _, step := range []struct {
		name string
		fn   func(*testing.T, *clustertest.Cluster)
	}{
		{"PREPARE by Query", testPrepareText},
		{"EXECUTE fails in a block", testExecuteFails},
		{"series", testSeries},
		{"SET LOCAL", testSetLocalPath},
		{"RESET ALL in a block", testResetAll},
		{"SET TRANSACTION", testSetTransaction},
		{"code of its own in two-phase", testTaintedCommit},
		{"comments before ROLLBACK", testCommentedRollback},
		{"portals end", testPortalsEnd},
		{"a shard's farewell", testFarewell},
		{"a row cut off", testCutRow},
		{"SETs of a branch that was prepared", testPreparedSets},
		{"set_config reaches all shards", testSetConfigEverywhere},
		{"a part that fails in a pipeline", testPipelineOverShards},
		{"a statement prepared anew after DDL", testPrepareAfterDDL},
		{"a cursor WITH HOLD", testHeldCursor},
		{"a Query during COPY", testQueryDuringCopy},
		{"notices during COPY", testNoticesDuringCopy},
	} {
		t.Run(step.name, func(t *testing.T) { step.fn(t, c) })
	}
	c.NothingPrepared(t)
}

func testPrepareText(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE ta (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO ta VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d')", "INSERT 0 4")
	must(t, a, "PREPARE q AS SELECT v FROM ta WHERE id = $1", "PREPARE")
	must(t, a, "SELECT 'something quite different, and longer than the other statement'", "")
	for i, v := range []string{"a", "b", "c", "d"} {
		must(t, a, fmt.Sprintf("EXECUTE q(%d)", i+1), v+",SELECT 1")
	}
}

func testExecuteFails(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE ea (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO ea VALUES (1,1),(2,2),(3,3),(4,4)", "INSERT 0 4")
	must(t, a, "PREPARE ins AS INSERT INTO ea VALUES ($1, 0)", "PREPARE")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SAVEPOINT s", "SAVEPOINT")
	mustFail(t, a, "EXECUTE ins(1)", "23505")
	mustFail(t, a, "SELECT 1", "25P02")
	must(t, a, "ROLLBACK TO s", "ROLLBACK")
	must(t, a, "EXECUTE ins(5)", "INSERT 0 1")
	must(t, a, "COMMIT", "COMMIT")
	must(t, a, "SELECT count(*) FROM ea", "5,SELECT 1")
}

func testSeries(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE se (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "BEGIN ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation; COMMIT", "BEGIN,serializable,SHOW,COMMIT")
	mustFail(t, a, "BEGIN READ ONLY; INSERT INTO se VALUES (1,1); COMMIT", "25006")
	must(t, a, "ROLLBACK", "ROLLBACK")
	mustFail(t, a, "SELECT count(*) FROM se; BEGIN READ ONLY; INSERT INTO se VALUES (1,1)", "25006")
	must(t, a, "ROLLBACK", "ROLLBACK")
	mustFail(t, a, "INSERT INTO se VALUES (1,1); COMMIT; INSERT INTO se VALUES (2,2); INSERT INTO se VALUES (1,1)", "23505")
	must(t, a, "SELECT count(*) FROM se", "1,SELECT 1")
	mustFail(t, a, "BEGIN; INSERT INTO se VALUES (3,3); COMMIT; INSERT INTO se VALUES (4,4); SELECT 1/0", "22012")
	must(t, a, "SELECT count(*) FROM se", "2,SELECT 1")
	if a.PgConn().TxStatus() != 'I' {
		t.Errorf("status %c", a.PgConn().TxStatus())
	}
}

func testSetLocalPath(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE SCHEMA lo", "CREATE SCHEMA")
	must(t, a, "CREATE TABLE lt (id int, v text) WITH (sharding.kind = 'reference')", "CREATE TABLE")
	must(t, a, "CREATE TABLE lo.lt (id int, v text) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "BEGIN; SET LOCAL search_path = lo; INSERT INTO lt VALUES (1,'a'),(2,'b'),(3,'c'),(4,'d'),(5,'e'); COMMIT", "")
	must(t, a, "SELECT count(*) FROM lo.lt", "5,SELECT 1")
	must(t, a, "BEGIN", "")
	must(t, a, "SELECT set_config('search_path', 'lo', true)", "")
	must(t, a, "INSERT INTO lt VALUES (6,'a'),(7,'b'),(8,'c'),(9,'d'),(10,'e')", "INSERT 0 5")
	must(t, a, "SAVEPOINT s", "")
	must(t, a, "SET LOCAL search_path = public", "")
	must(t, a, "INSERT INTO lt VALUES (1,'r')", "INSERT 0 1")
	must(t, a, "ROLLBACK TO s", "")
	must(t, a, "SELECT count(*) FROM lt", "10,SELECT 1")
	must(t, a, "COMMIT", "COMMIT")
	must(t, a, "SELECT count(*) FROM lt", "0,SELECT 1")
	must(t, a, "SELECT count(*) FROM lo.lt", "10,SELECT 1")
	// Prepared statements of equal text under another local setting are others.
	ctx := context.Background()
	other := c.Connect(t, "app")
	const sql = "SELECT extract(epoch FROM '2024-01-01 00:00:00'::timestamptz)::bigint"
	must(t, a, "BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'", "")
	if _, err := a.Prepare(ctx, "z", sql); err != nil {
		t.Fatal(describe(err))
	}
	tokyo := one[int64](t, a, "z")
	must(t, a, "COMMIT", "COMMIT")
	must(t, other, "SET TimeZone = 'UTC'", "SET")
	must(t, other, "RESET TimeZone", "RESET")
	if _, err := other.Prepare(ctx, "z", sql); err != nil {
		t.Fatal(describe(err))
	}
	if utc := one[int64](t, other, "z"); utc == tokyo {
		t.Errorf("a literal of another session's time zone: %d", utc)
	}
}

func testResetAll(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "SET work_mem = '9MB'", "SET")
	must(t, a, "SELECT 1", "")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "RESET ALL", "RESET")
	must(t, a, "SHOW work_mem", "4MB,SHOW")
	must(t, a, "COMMIT", "COMMIT")
	for range 3 {
		must(t, a, "SHOW work_mem", "4MB,SHOW")
		must(t, c.Connect(t, "app"), "SHOW work_mem", "4MB,SHOW")
	}
}

func testSetTransaction(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE st (id int PRIMARY KEY) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SELECT count(*) FROM st WHERE id = 1", "0,SELECT 1")
	must(t, a, "SET TRANSACTION READ ONLY", "SET")
	mustFail(t, a, "INSERT INTO st VALUES (1),(2),(3),(4),(5),(6),(7),(8)", "25006")
	must(t, a, "ROLLBACK", "ROLLBACK")
}

func testTaintedCommit(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE FUNCTION twice(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 2 * i; END'", "CREATE FUNCTION")
	must(t, a, "CREATE TABLE tc (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO tc VALUES (1,1),(2,1),(3,1),(4,1),(5,1),(6,1),(7,1),(8,1)", "INSERT 0 8")
	must(t, a, "UPDATE tc SET v = twice(v)", "UPDATE 8")
	must(t, a, "SELECT sum(v) FROM tc", "16,SELECT 1")
}

func testCommentedRollback(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	ctx := context.Background()
	must(t, a, "BEGIN", "BEGIN")
	mustFail(t, a, "SELECT 1/0", "22012")
	for _, sql := range []string{"/* a /* nested */ comment */ -- and a line\n ROLLBACK"} {
		if r := a.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read(); r.Err != nil || r.CommandTag.String() != "ROLLBACK" {
			t.Errorf("%s: %q, %v", sql, r.CommandTag, r.Err)
		}
	}
	must(t, a, "SELECT 1", "1,SELECT 1")
}

func testPortalsEnd(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE po (id int PRIMARY KEY) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO po VALUES (1),(2),(3),(4)", "INSERT 0 4")
	must(t, a, "BEGIN", "BEGIN")
	f := a.PgConn().Frontend()
	send := func(ms ...pgproto3.FrontendMessage) (codes []string) {
		t.Helper()
		for _, m := range ms {
			f.Send(m)
		}
		f.Send(&pgproto3.Sync{})
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := f.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.ErrorResponse:
				codes = append(codes, m.Code)
			case *pgproto3.DataRow:
				codes = append(codes, "row")
			case *pgproto3.ReadyForQuery:
				return append(codes, string(m.TxStatus))
			}
		}
	}
	bind := []pgproto3.FrontendMessage{&pgproto3.Parse{Query: "SELECT id FROM po WHERE id = 1"}, &pgproto3.Bind{DestinationPortal: "p"}}
	if got := fmt.Sprint(send(bind...)); got != "[T]" {
		t.Errorf("%s", got)
	}
	if got := fmt.Sprint(send(&pgproto3.Execute{Portal: "p"})); got != "[row T]" {
		t.Errorf("%s", got)
	}
	must(t, a, "COMMIT", "COMMIT")
	if got := fmt.Sprint(send(&pgproto3.Describe{ObjectType: 'P', Name: "p"})); got != "[34000 I]" {
		t.Errorf("a portal after its transaction: %s", got)
	}
	must(t, a, "BEGIN", "BEGIN")
	if got := fmt.Sprint(send(bind...)); got != "[T]" {
		t.Errorf("the portal's name again: %s", got)
	}
	must(t, a, "ROLLBACK", "ROLLBACK")
}

func testFarewell(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SELECT 1", "")
	mustFail(t, a, "SELECT pg_terminate_backend(pg_backend_pid())", "08006")
	must(t, a, "ROLLBACK", "ROLLBACK")
	must(t, a, "SELECT 1", "1,SELECT 1")
}

// testCutRow: a server that dies in the middle of a row ends the session without
// another word; anything said would be taken for the row's rest.
func testCutRow(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "SELECT 1", "")
	h, err := a.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	h.Conn.SetDeadline(time.Now().Add(30 * time.Second))
	h.Frontend.Send(&pgproto3.Query{String: "SELECT repeat('x', 100000000) AS cut_row"})
	if err := h.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	clustertest.Eventually(t, "the server is blocked in the row and ended", func() error {
		rows := c.Servers[0].Query(t, "app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%cut_row%' AND wait_event = 'ClientWrite'")
		if len(rows) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	got, err := io.ReadAll(h.Conn)
	if err != nil {
		t.Fatalf("%d bytes, then %v, want the end of the connection", len(got), err)
	}
	if n := len(bytes.TrimRight(got, "x")); n > 200 {
		t.Errorf("something follows the cut row: %q", got[len(got)-100:])
	}
}

func testPreparedSets(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE ps (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO ps VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9),(10)", "INSERT 0 10")
	for i := 1; i <= 10; i++ {
		must(t, a, "BEGIN", "BEGIN")
		must(t, a, "SET work_mem = '11MB'", "SET")
		must(t, a, "INSERT INTO ps VALUES (101),(102),(103),(104),(105),(106),(107),(108)", "INSERT 0 8")
		must(t, a, fmt.Sprintf("INSERT INTO ps VALUES (%d)", i), "INSERT 0 1")
		mustFail(t, a, "COMMIT", "23505")
		for id := 1; id <= 10; id++ {
			must(t, a, fmt.Sprintf("SELECT current_setting('work_mem') FROM ps WHERE id = %d", id), "4MB,SELECT 1")
		}
	}
}

func testSetConfigEverywhere(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE sc (id int PRIMARY KEY) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO sc VALUES (1),(2),(3),(4),(5),(6),(7),(8)", "INSERT 0 8")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SELECT count(*) FROM sc", "8,SELECT 1")
	must(t, a, "SELECT set_config('app.tenant', 'blue', true)", "blue,SELECT 1")
	for id := 1; id <= 8; id++ {
		must(t, a, fmt.Sprintf("SELECT current_setting('app.tenant', true) FROM sc WHERE id = %d", id), "blue,SELECT 1")
	}
	must(t, a, "COMMIT", "COMMIT")
}

// testPipelineOverShards: what fails on one shard leaves nothing of the others'
// answers for the client to see.
func testPipelineOverShards(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE pl (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO pl VALUES (1,1),(2,2),(3,3),(4,4),(5,5),(6,6),(7,0),(8,8)", "INSERT 0 8")
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "SAVEPOINT s", "SAVEPOINT")
	r := a.PgConn().ExecParams(context.Background(), "SELECT id, 10 / v FROM pl", nil, nil, nil, nil).Read()
	var pg *pgconn.PgError
	if !asPg(r.Err, &pg) || pg.Code != "22012" {
		t.Errorf("%v", r.Err)
	}
	must(t, a, "ROLLBACK TO s", "ROLLBACK")
	must(t, a, "UPDATE pl SET v = 1 WHERE id = 7", "UPDATE 1")
	must(t, a, "COMMIT", "COMMIT")
	must(t, a, "SELECT sum(v) FROM pl", "30,SELECT 1")
}

// testPrepareAfterDDL: what drivers do on "cached plan must not change result type".
func testPrepareAfterDDL(t *testing.T, c *clustertest.Cluster) {
	ctx := context.Background()
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE pd (id int PRIMARY KEY, v int) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO pd VALUES (1,1),(2,2),(3,3),(4,4)", "INSERT 0 4")
	fields := func(name string, id string) (int, error) {
		r := a.PgConn().ExecPrepared(ctx, name, [][]byte{[]byte(id)}, nil, nil).Read()
		return len(r.FieldDescriptions), r.Err
	}
	const sql = "SELECT * FROM pd WHERE id = $1"
	for _, name := range []string{"old", "new"} {
		if _, err := a.PgConn().Prepare(ctx, name, sql, nil); err != nil {
			t.Fatal(describe(err))
		}
		for i := 1; i <= 4; i++ {
			want := map[string]int{"old": 2, "new": 3}[name]
			if n, err := fields(name, fmt.Sprint(i)); err != nil || n != want {
				t.Errorf("%s(%d): %d columns, %v", name, i, n, err)
			}
		}
		if name == "old" {
			must(t, a, "ALTER TABLE pd ADD COLUMN w int", "ALTER TABLE")
			var pg *pgconn.PgError
			if _, err := fields("old", "1"); !asPg(err, &pg) || pg.Code != "0A000" {
				t.Errorf("the old statement: %v", err)
			}
		}
	}
	// The transaction's own DDL is seen by what was prepared before.
	must(t, a, "BEGIN", "BEGIN")
	must(t, a, "DROP TABLE pd", "DROP TABLE")
	must(t, a, "CREATE TABLE pd (id int PRIMARY KEY, v int, w int) WITH (sharding.kind = 'reference')", "CREATE TABLE")
	must(t, a, "INSERT INTO pd VALUES (1,1,1)", "INSERT 0 1")
	must(t, a, "ROLLBACK", "ROLLBACK")
	must(t, a, "SELECT count(*) FROM pd", "4,SELECT 1")
}

func testHeldCursor(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE hc (id int PRIMARY KEY) WITH (sharding.key = 'id')", "CREATE TABLE")
	must(t, a, "INSERT INTO hc VALUES (1),(2),(3),(4),(5),(6),(7),(8)", "INSERT 0 8")
	for id := 1; id <= 8; id++ {
		must(t, a, "BEGIN", "BEGIN")
		must(t, a, fmt.Sprintf("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM hc WHERE id = %d", id), "DECLARE CURSOR")
		must(t, a, "COMMIT", "COMMIT")
		must(t, a, "FETCH c", fmt.Sprintf("%d,FETCH 1", id))
		must(t, a, "CLOSE c", "CLOSE CURSOR")
	}
}

func testQueryDuringCopy(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE qc (id int)", "CREATE TABLE")
	h, err := a.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	h.Conn.SetDeadline(time.Now().Add(20 * time.Second))
	f := h.Frontend
	f.Send(&pgproto3.Query{String: "COPY qc FROM STDIN"})
	f.Send(&pgproto3.CopyData{Data: []byte("1\n")})
	f.Send(&pgproto3.Query{String: "SELECT 1"})
	f.Send(&pgproto3.CopyDone{})
	f.Send(&pgproto3.Query{String: "SELECT count(*) FROM qc"})
	if err := f.Flush(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for ready := 0; ready < 2; {
		m, err := f.Receive()
		if err != nil {
			t.Fatalf("after %v: %v", got, err)
		}
		switch m := m.(type) {
		case *pgproto3.ErrorResponse:
			got = append(got, m.Code)
		case *pgproto3.DataRow:
			got = append(got, string(m.Values[0]))
		case *pgproto3.ReadyForQuery:
			ready++
		}
	}
	if fmt.Sprint(got) != "[08P01 0]" {
		t.Errorf("%v", got)
	}
}

// testNoticesDuringCopy: a server that says more than it is sent must be read
// while it is written to.
func testNoticesDuringCopy(t *testing.T, c *clustertest.Cluster) {
	a := c.Connect(t, "app")
	must(t, a, "CREATE TABLE nc (v text)", "CREATE TABLE")
	c.Servers[0].Exec(t, "app", `CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', repeat(''x'', 3000); RETURN NEW; END';
		CREATE TRIGGER loud BEFORE INSERT ON nc FOR EACH ROW EXECUTE FUNCTION loud()`)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tag, err := a.PgConn().CopyFrom(ctx, strings.NewReader(strings.Repeat(strings.Repeat("y", 1000)+"\n", 20000)), "COPY nc FROM STDIN")
	if err != nil || tag.String() != "COPY 20000" {
		t.Errorf("%q, %v", tag, err)
	}
}
