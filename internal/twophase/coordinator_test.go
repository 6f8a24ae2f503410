package twophase

import (
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
)

// TestCommit is the table of what a COMMIT over three shards comes to, on real
// servers, in a client's role.
func TestCommit(t *testing.T) {
	c := newCluster(t, 3)
	const insert = "INSERT INTO t VALUES (1, 1)"
	const select1 = "SELECT count(*) FROM t"
	// A reader's deferred failure: the cursor is run to its end by COMMIT.
	const badCursor = "DECLARE c CURSOR WITH HOLD FOR SELECT 1/(2-g) FROM generate_series(1, 3) g"
	for _, tc := range []struct {
		name    string
		begin   string
		sql     [3]string
		hints   func([]Participant)
		state   State
		code    string // of Err
		rows    int    // of t, over all shards, afterwards
		writers int
	}{
		{name: "readers", sql: [3]string{select1, select1, select1}, state: Committed},
		{name: "one writer", sql: [3]string{select1, insert, select1}, state: Committed, rows: 1, writers: 1},
		{name: "two writers", sql: [3]string{insert, select1, insert}, state: Committed, rows: 2, writers: 2},
		{name: "three writers", sql: [3]string{insert, insert, insert}, state: Committed, rows: 3, writers: 3},
		{name: "repeatable read", begin: "BEGIN ISOLATION LEVEL REPEATABLE READ",
			sql: [3]string{insert, select1, insert}, state: Committed, rows: 2, writers: 2},
		{name: "serializable", begin: "BEGIN ISOLATION LEVEL SERIALIZABLE",
			sql: [3]string{insert, select1, insert}, state: Committed, rows: 2, writers: 2},
		{name: "hostile settings",
			begin: "BEGIN; SET LOCAL search_path = ''; SET LOCAL row_security = off; SET LOCAL synchronous_commit = off;" +
				"SET LOCAL standard_conforming_strings = off; SET LOCAL plpgsql.extra_errors = 'all'",
			sql:   [3]string{"INSERT INTO public.t VALUES (1, 1)", "INSERT INTO public.t VALUES (1, 1)", ""},
			state: Committed, rows: 2, writers: 2},
		{name: "hostile objects",
			begin: "CREATE TEMP TABLE decision (x int); CREATE TEMP TABLE seen (x int); COMMIT;" +
				"BEGIN; SET LOCAL search_path = pg_temp, public",
			sql: [3]string{insert, insert, insert}, state: Committed, rows: 3, writers: 3},
		{name: "savepoints", begin: "BEGIN; SAVEPOINT a; INSERT INTO t VALUES (9, 9); ROLLBACK TO a; SAVEPOINT b",
			sql: [3]string{insert, insert, ""}, state: Committed, rows: 2, writers: 3},
		{name: "SET LOCAL ROLE", begin: "BEGIN; SET LOCAL ROLE other",
			sql: [3]string{insert, insert, insert}, state: Committed, rows: 3, writers: 3},
		{name: "SET ROLE", begin: "BEGIN; SET ROLE other",
			sql: [3]string{insert, insert, insert}, state: Committed, rows: 3, writers: 3},
		{name: "deferred constraint of a participant",
			sql:   [3]string{insert, "INSERT INTO u VALUES (1), (1)", "INSERT INTO u VALUES (1), (1)"},
			state: Aborted, code: pgerr.UniqueViolation, writers: 3},
		{name: "deferred constraint everywhere", begin: "BEGIN; INSERT INTO u VALUES (1), (1)",
			sql: [3]string{insert, insert, insert}, state: Aborted, code: pgerr.UniqueViolation, writers: 3},
		{name: "deferred constraint of the decision shard",
			sql:   [3]string{insert, "INSERT INTO u VALUES (1), (1)", insert},
			hints: func(ps []Participant) { ps[1].NoPrepare = true },
			state: Aborted, code: pgerr.UniqueViolation, writers: 3},
		{name: "temporary table on one shard", sql: [3]string{insert, "CREATE TEMP TABLE x AS SELECT 1", insert},
			state: Committed, rows: 2, writers: 3},
		{name: "temporary tables on two shards",
			sql:   [3]string{insert, "CREATE TEMP TABLE x AS SELECT 1", "CREATE TEMP TABLE x AS SELECT 1"},
			state: Aborted, code: pgerr.FeatureNotSupported, writers: 3},
		{name: "two that cannot be prepared, as the caller knows",
			sql: [3]string{insert, insert, insert}, state: Aborted, code: pgerr.FeatureNotSupported, writers: 3,
			hints: func(ps []Participant) { ps[0].NoPrepare, ps[1].NoPrepare = true, true }},
		{name: "NOTIFY on a reader", sql: [3]string{insert, "NOTIFY n", insert}, state: Committed, rows: 2, writers: 2},
		{name: "NOTIFY on a writer", sql: [3]string{insert, insert + "; NOTIFY n", insert}, state: Committed, rows: 3, writers: 3,
			hints: func(ps []Participant) { ps[1].NoPrepare = true }},
		{name: "a reader whose COMMIT fails", sql: [3]string{insert, badCursor, insert},
			hints: func(ps []Participant) { ps[1].CommitMayFail = true },
			state: Aborted, code: pgerr.DivisionByZero, writers: 2},
		{name: "a reader whose COMMIT fails, one writer", sql: [3]string{insert, badCursor, ""},
			hints: func(ps []Participant) { ps[1].CommitMayFail = true },
			state: Aborted, code: pgerr.DivisionByZero, writers: 1},
		{name: "a failing reader without writers", sql: [3]string{badCursor, "", ""}, state: Aborted, code: pgerr.DivisionByZero},
		{name: "read only after writing", sql: [3]string{insert, insert + "; SET TRANSACTION READ ONLY", insert + "; SET TRANSACTION READ ONLY"},
			state: Aborted, code: pgerr.ReadOnlySQLTransaction, writers: 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			begin := tc.begin
			if begin == "" {
				begin = "BEGIN"
			}
			s := c.begin(t, begin, 0, 1, 2)
			for i, sql := range tc.sql {
				s.exec(i, sql)
			}
			ps := s.participants()
			if tc.hints != nil {
				tc.hints(ps)
			}
			out := s.run(NewCoordinator(c.gid(), ps))
			if out.State != tc.state || pgerr.CodeOf(asError(out.Err)) != tc.code || out.Writers != tc.writers || len(out.Warnings) > 0 {
				t.Errorf("outcome %s, error %+v, %d writers, warnings %v", out.State, out.Err, out.Writers, out.Warnings)
			}
			rows := 0
			for i := range c.servers {
				rows += c.count(t, i, "SELECT count(*) FROM t")
				if n := c.count(t, i, countPrepared); n != 0 {
					t.Errorf("%d transactions are still prepared on shard %d", n, i)
				}
				if s.conns[i].IsClosed() || s.conns[i].TxStatus() != 'I' {
					t.Errorf("connection %d is not fit for reuse", i)
				}
			}
			if rows != tc.rows {
				t.Errorf("%d rows, want %d", rows, tc.rows)
			}
			s.drop()
			c.settle(t)
			for i := range c.servers {
				c.exec(t, i, "TRUNCATE t, u")
			}
		})
	}
}

func asError(e *pgerr.Error) error {
	if e == nil {
		return nil
	}
	return e
}

func TestCommitOfAFailedTransactionIsRollback(t *testing.T) {
	c := newCluster(t, 2)
	s := c.begin(t, "BEGIN; INSERT INTO t VALUES (1, 1)", 0, 1)
	if _, err := s.conns[1].Exec(testContext(t), "SELECT 1/0").ReadAll(); err == nil {
		t.Fatal("no error")
	}
	if out := s.commit(); out.State != Aborted || out.Err != nil {
		t.Fatalf("outcome %+v", out)
	}
	// The same of a single participant, which is not probed.
	s = c.begin(t, "BEGIN", 0)
	if _, err := s.conns[0].Exec(testContext(t), "SELECT 1/0").ReadAll(); err == nil {
		t.Fatal("no error")
	}
	if out := s.commit(); out.State != Aborted || out.Err != nil {
		t.Fatalf("outcome %+v", out)
	}
	for i := range c.servers {
		if n := c.count(t, i, "SELECT count(*) FROM t"); n != 0 {
			t.Fatalf("shard %d has %d rows", i, n)
		}
	}
}

func TestPreparedTransactionsSwitchedOff(t *testing.T) {
	c := newServers(t, 2, pgtest.WithConfig("max_prepared_transactions", "0"))
	out := c.begin(t, "BEGIN; INSERT INTO t VALUES (1, 1)", 0, 1).commit()
	if out.State != Aborted || out.Err.Code != pgerr.ObjectNotInPrerequisiteState || !strings.Contains(out.Err.Hint, "max_prepared_transactions") {
		t.Fatalf("outcome %+v", out)
	}
}

// TestLocksOutliveTheWrites: an advisory lock on a shard that only read is held
// until the other shard's write is visible, as on one server.
func TestLocksOutliveTheWrites(t *testing.T) {
	c := newCluster(t, 2)
	s := c.begin(t, "BEGIN", 0, 1)
	s.exec(0, "SELECT pg_advisory_xact_lock(42)")
	s.exec(1, "INSERT INTO t VALUES (1, 1)")
	co := NewCoordinator(c.gid(), s.participants())
	queue := co.Start()
	for len(queue) > 0 && queue[0].Kind != Done {
		a := queue[0]
		queue = queue[1:]
		if a.SQL == "COMMIT" && a.Participant == 0 {
			if n := c.count(t, 1, "SELECT count(*) FROM t"); n != 1 {
				t.Fatal("the lock is released before the write is visible")
			}
		}
		if ev, wanted := s.perform(a); wanted {
			queue = append(queue, co.On(ev)...)
		}
	}
	if len(queue) != 1 || queue[0].Outcome.State != Committed {
		t.Fatalf("ended with %+v", queue)
	}
}

// TestSynchronousCommitIsForced: neither the decision nor a mark is left to
// asynchronous commit, and a stronger setting is kept.
func TestSynchronousCommitIsForced(t *testing.T) {
	c := newCluster(t, 1)
	for set, want := range map[string]string{"off": "on", "local": "on", "on": "on", "remote_apply": "remote_apply"} {
		for _, call := range []string{"note_seen('a')", "decide('a', 'x,y')"} {
			s := c.begin(t, "BEGIN; SET LOCAL synchronous_commit = "+set, 0)
			s.exec(0, "SELECT sharding."+call)
			res, err := s.conns[0].Exec(testContext(t), "SHOW synchronous_commit").ReadAll()
			if err != nil || string(res[0].Rows[0][0]) != want {
				t.Fatalf("%s under %s: %s, %v", call, set, res[0].Rows, err)
			}
			s.exec(0, "ROLLBACK")
		}
	}
}
