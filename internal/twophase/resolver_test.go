package twophase

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sharding-system/sharding/internal/failpoint"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
)

// leave drives a transaction that writes on all shards, with shard 0 deciding,
// until the given point, and dies before it.
func (c *cluster) leave(t testing.TB, id int, point string) GID {
	t.Helper()
	g := c.gid()
	for g.Counter%uint64(len(c.servers)) != 0 {
		g = c.gid()
	}
	s := c.begin(t, fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d, 0)", id), shardsOf(c)...)
	co := NewCoordinator(g, s.participants())
	queue := co.Start()
	for len(queue) > 0 && queue[0].Point != point {
		a := queue[0]
		queue = queue[1:]
		if ev, wanted := s.perform(a); wanted {
			queue = append(queue, co.On(ev)...)
		}
	}
	s.drop()
	for i := range c.servers {
		eventually(t, "the end of the clients' backends", func() bool {
			return c.count(t, i, countClients) == 0
		})
	}
	return co.GID()
}

func (c *cluster) prepared(t testing.TB) (n int) {
	for i := range c.servers {
		n += c.count(t, i, countPrepared)
	}
	return n
}

func (c *cluster) pass(t testing.TB, r *Resolver) Report {
	t.Helper()
	rep, err := r.Resolve(testContext(t), c.endpoints)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestGraceIsOfTheRoutersLife(t *testing.T) {
	c := newCluster(t, 2)
	c.leave(t, 1, PointDecide)
	opts := eager
	opts.Alive = func(router, boot string) bool { return router == "router-1" && boot == "b00t" }
	opts.Grace = time.Hour
	r := NewResolver(opts)
	defer r.Close()
	rep := c.pass(t, r)
	if len(rep.Waiting) != 1 || !rep.Names("shard-0") || !rep.Names("shard-1") || rep.Names("shard-9") || c.prepared(t) != 1 {
		t.Fatalf("a living router's transaction was touched: %+v", rep)
	}
	opts.Alive = nil // it is gone
	r2 := NewResolver(opts)
	defer r2.Close()
	if rep := c.pass(t, r2); rep.RolledBack != 1 || c.prepared(t) != 0 {
		t.Fatalf("a dead router's transaction was left: %+v", rep)
	}
	c.settle(t)
}

func TestForeignTransactionsAreLeftAlone(t *testing.T) {
	c := newCluster(t, 2)
	other := GID{Incarnation: testIncarnation + "x", Decision: "shard-0", Router: "r", Boot: "b", Counter: 1}
	for _, name := range []string{
		"mine", "sharding1:", "sharding1:" + testIncarnation + ":", other.Branch(0),
		"sharding1:" + testIncarnation + ":shard-0:r:b:1", "sharding1:" + testIncarnation + ":shard-0:r:b:1:x",
	} {
		c.exec(t, 0, "BEGIN; INSERT INTO t VALUES (hashtext('"+name+"'), 0); PREPARE TRANSACTION '"+name+"'")
	}
	r := NewResolver(eager)
	defer r.Close()
	if rep := c.pass(t, r); rep.Committed+rep.RolledBack+len(rep.Waiting)+len(rep.InDoubt)+len(rep.Unreachable) != 0 {
		t.Fatalf("report %+v", rep)
	}
	if n := c.prepared(t); n != 6 {
		t.Fatalf("%d are left", n)
	}
}

// TestUnreachableShards: a shard that is away holds up what needs it, nothing else.
func TestUnreachableShards(t *testing.T) {
	c := newServers(t, 3)
	c.leave(t, 1, PointFinish)
	c.servers[1].Stop(t)
	r := NewResolver(eager)
	defer r.Close()
	rep := c.pass(t, r)
	if rep.Committed != 1 || len(rep.Unreachable) != 1 || rep.Unreachable["shard-1"] == nil || rep.Forgotten != 0 || len(rep.InDoubt) != 0 {
		t.Fatalf("report with a participant away: %+v", rep)
	}
	blind := append([]Endpoint(nil), c.endpoints...)
	blind[0].Config = nil
	rep, err := r.Resolve(testContext(t), blind)
	if err != nil || len(rep.InDoubt) != 0 || !strings.Contains(fmt.Sprint(rep.Unreachable["shard-0"]), "no login") {
		t.Fatalf("report without a login: %+v, %v", rep, err)
	}
	c.servers[0].Stop(t)
	c.servers[1].Restart(t)
	if rep = c.pass(t, r); rep.Committed != 0 || len(rep.Waiting) != 1 || rep.Unreachable["shard-0"] == nil {
		t.Fatalf("report with the decision shard away: %+v", rep)
	}
	c.servers[0].Restart(t)
	c.settle(t)
	for i := range c.servers {
		if c.count(t, i, "SELECT count(*) FROM t") != 1 {
			t.Fatalf("shard %d lost a committed row", i)
		}
	}
}

func TestSeveralResolversAtOnce(t *testing.T) {
	c := newCluster(t, 3)
	for id := range 12 {
		c.leave(t, id, [...]string{PointDecide, PointFinish, PointPrepare}[id%3])
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r := NewResolver(eager)
			defer r.Close()
			for range 5 {
				rep, err := r.Resolve(testContext(t), c.endpoints)
				if err != nil || len(rep.InDoubt) != 0 || len(rep.Unreachable) != 0 {
					t.Errorf("%+v, %v", rep, err)
				}
			}
		})
	}
	wg.Wait()
	c.settle(t)
	for i := range c.servers {
		if n := c.count(t, i, "SELECT count(*) FROM t"); n != 4 {
			t.Errorf("shard %d has %d rows, want those of the 4 decided", i, n)
		}
	}
}

// TestBlockedDecision: a coordinator that hangs between its decision row and
// COMMIT is ended, and then cannot commit.
func TestBlockedDecision(t *testing.T) {
	c := newCluster(t, 2)
	g := c.gid()
	g.Decision = "shard-0"
	s := c.begin(t, "BEGIN; INSERT INTO t VALUES (1, 1)", 0, 1)
	s.exec(1, "SELECT sharding.note_seen('"+g.String()+"'); PREPARE TRANSACTION '"+g.Branch(1)+"'")
	s.exec(0, "SELECT sharding.decide('"+g.String()+"', 'shard-1')")
	r := NewResolver(eager)
	defer r.Close()
	if rep := c.pass(t, r); rep.RolledBack != 1 {
		t.Fatalf("report %+v", rep)
	}
	if ev := s.send(Action{Kind: Send, SQL: "COMMIT"}); ev.Kind != Lost {
		t.Fatalf("the decision shard's COMMIT: %+v", ev)
	}
	s.drop()
	c.settle(t)
	if n := c.count(t, 0, "SELECT count(*) FROM t"); n != 0 {
		t.Fatal("halved")
	}
}

// TestPausedCoordinator: one that wakes after the resolver has rolled back, while
// its transaction on the decision shard is still open, cannot commit, and the
// verdict is kept until that transaction has ended.
func TestPausedCoordinator(t *testing.T) {
	c := newCluster(t, 2)
	s := c.begin(t, "BEGIN; INSERT INTO t VALUES (1, 1)", 0, 1)
	co := NewCoordinator(c.gid(), s.participants())
	queue := co.Start()
	for queue[0].Point != PointDecide {
		ev, _ := s.perform(queue[0])
		queue = append(queue[1:], co.On(ev)...)
	}
	r := NewResolver(eager)
	defer r.Close()
	if rep := c.pass(t, r); rep.RolledBack != 1 {
		t.Fatalf("report %+v", rep)
	}
	for range 3 {
		if rep := c.pass(t, r); rep.Forgotten != 0 {
			t.Fatal("the verdict was forgotten while the coordinator could still commit")
		}
	}
	var out Outcome
	for len(queue) > 0 {
		a := queue[0]
		queue = queue[1:]
		out = a.Outcome
		if ev, wanted := s.perform(a); wanted {
			queue = append(queue, co.On(ev)...)
		}
	}
	if out.State != Aborted || out.Err.Code != pgerr.SerializationFailure || !strings.Contains(out.Err.Message, "too long") {
		t.Fatalf("outcome %+v", out)
	}
	s.drop()
	c.settle(t)
}

// TestLateQuestion: a coordinator that lost the answer to its decision and asks
// after the resolver has finished the transaction and forgotten the decision must
// not be told that it was rolled back.
func TestLateQuestion(t *testing.T) {
	c := newCluster(t, 2)
	s := c.begin(t, "BEGIN; INSERT INTO t VALUES (1, 1)", 0, 1)
	co := NewCoordinator(c.gid(), s.participants())
	var out Outcome
	for queue := co.Start(); len(queue) > 0; {
		a := queue[0]
		queue = queue[1:]
		out = a.Outcome
		if a.Kind == Resolve {
			r := NewResolver(eager)
			eventually(t, "the decision is forgotten", func() bool { return c.pass(t, r).Forgotten == 1 })
			r.Close()
		}
		ev, wanted := s.perform(a)
		if a.Point == PointDecide {
			s.cut(a.Participant)
			ev = Event{Kind: Lost, Participant: a.Participant}
		}
		if wanted {
			queue = append(queue, co.On(ev)...)
		}
	}
	if out.State != InDoubt || out.Err.Code != pgerr.TransactionResolutionUnknown {
		t.Fatalf("outcome %+v", out)
	}
	s.drop()
	c.settle(t)
	for i := range c.servers {
		if c.count(t, i, "SELECT count(*) FROM t") != 1 {
			t.Fatalf("shard %d lost a committed row", i)
		}
	}
}

// TestBranchLostByFailover: a promoted standby has neither the prepared transaction
// nor the mark.
func TestBranchLostByFailover(t *testing.T) {
	c := newCluster(t, 3)
	g := c.leave(t, 1, PointFinish)
	c.exec(t, 2, "ROLLBACK PREPARED '"+g.Branch(2)+"'") // what the failover did
	r := NewResolver(eager)
	defer r.Close()
	for range 2 {
		rep := c.pass(t, r)
		if rep.Forgotten != 0 || len(rep.InDoubt) != 1 || rep.InDoubt[0].Shard != "shard-2" || rep.InDoubt[0].Verdict != VerdictCommit {
			t.Fatalf("report %+v", rep)
		}
	}
	if list := r.InDoubt(); len(list) != 1 || list[0].GID != g {
		t.Fatalf("in doubt: %+v", list)
	}
	// A person decides: the decision is removed.
	c.exec(t, 0, "DELETE FROM sharding.decision")
	c.pass(t, r)
	if list := r.InDoubt(); len(list) != 0 {
		t.Fatalf("still in doubt: %+v", list)
	}
	c.settle(t)
}

// TestDecisionLostByFailover: the decision shard's promoted standby has no decision,
// but another shard has committed already.
func TestDecisionLostByFailover(t *testing.T) {
	c := newCluster(t, 3)
	g := c.leave(t, 1, PointFinish)
	c.exec(t, 1, "COMMIT PREPARED '"+g.Branch(1)+"'")
	c.exec(t, 0, "DELETE FROM sharding.decision")
	r := NewResolver(eager)
	defer r.Close()
	for range 3 {
		rep := c.pass(t, r)
		if rep.Committed+rep.RolledBack != 0 || len(rep.InDoubt) != 1 || rep.InDoubt[0].Branch != g.Branch(2) {
			t.Fatalf("report %+v", rep)
		}
	}
	if c.prepared(t) != 1 || c.count(t, 1, "SELECT count(*) FROM sharding.seen") != 1 {
		t.Fatal("the evidence was cleared away")
	}
}

// TestForgedDecision: a role that decides somebody else's transaction gets nothing
// committed.
func TestForgedDecision(t *testing.T) {
	c := newCluster(t, 2)
	c.servers[0].Exec(t, "postgres", "CREATE ROLE mallory LOGIN PASSWORD 'm'")
	g := c.leave(t, 1, PointDecide)
	conn, err := pgx.Connect(testContext(t), c.servers[0].DSNAs("mallory", "m", c.dbs[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(testContext(t), "SELECT sharding.decide($1, 'shard-1')", g.String()); err != nil {
		t.Fatal(err)
	}
	r := NewResolver(eager)
	defer r.Close()
	if rep := c.pass(t, r); rep.Committed != 0 || len(rep.InDoubt) == 0 || !strings.Contains(rep.InDoubt[0].Reason, "mallory") {
		t.Fatalf("report %+v", rep)
	}
	if c.prepared(t) != 1 {
		t.Fatal("the branch was finished")
	}
}

// TestDecisionsWaitForStandbys: a decision is kept while a standby that may be
// promoted has not replayed the end of the transaction on a participant.
func TestDecisionsWaitForStandbys(t *testing.T) {
	c := newCluster(t, 2)
	c.exec(t, 1, "SELECT pg_create_physical_replication_slot('away', true)")
	c.leave(t, 1, PointFinish)
	r := NewResolver(eager)
	defer r.Close()
	if rep := c.pass(t, r); rep.Committed != 1 || rep.Forgotten != 0 {
		t.Fatalf("report %+v", rep)
	}
	if rep := c.pass(t, r); rep.Forgotten != 0 {
		t.Fatalf("forgotten although a standby is away: %+v", rep)
	}
	c.exec(t, 1, "SELECT pg_drop_replication_slot('away')")
	c.settle(t)
}

// TestResolverWithoutSuperuser runs a service role that owns the schema and is a
// member of the clients' roles.
func TestResolverWithoutSuperuser(t *testing.T) {
	c := newCluster(t, 2)
	c.exec(t, 0, `CREATE ROLE service LOGIN PASSWORD 's'; GRANT app, other TO service;
		GRANT pg_signal_backend, pg_read_all_stats TO service`)
	for i := range c.servers {
		c.exec(t, i, "GRANT CREATE ON DATABASE "+c.dbs[i]+" TO service")
		admin := c.servers[i].Connect(t, c.dbs[i])
		if err := Uninstall(testContext(t), admin); err != nil {
			t.Fatal(err)
		}
		config, err := pgx.ParseConfig(c.servers[i].DSNAs("service", "s", c.dbs[i]))
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pgx.ConnectConfig(testContext(t), config)
		if err != nil {
			t.Fatal(err)
		}
		if err := Install(testContext(t), conn); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close(context.Background())
		c.endpoints[i].Config = config
	}
	c.leave(t, 1, PointFinish)
	c.leave(t, 2, PointDecide)
	c.settle(t)
	for i := range c.servers {
		if n := c.count(t, i, "SELECT count(*) FROM t"); n != 1 {
			t.Fatalf("shard %d has %d rows", i, n)
		}
	}
}

// TestStandbyAndOldTimelineAreNotAsked: a server that is not the shard's primary
// takes no part.
func TestStandbyAndOldTimelineAreNotAsked(t *testing.T) {
	c := newCluster(t, 2)
	c.leave(t, 1, PointFinish)
	old := append([]Endpoint(nil), c.endpoints...)
	old[0].Timeline = 2
	r := NewResolver(eager)
	defer r.Close()
	rep, err := r.Resolve(testContext(t), old)
	if err != nil || rep.Committed != 0 || len(rep.Waiting) != 1 || !strings.Contains(fmt.Sprint(rep.Unreachable["shard-0"]), "timeline") {
		t.Fatalf("%+v, %v", rep, err)
	}
	c.settle(t)
}

// TestAsynchronousCommitKeepsTheDecision kills the decision shard right after its
// answer, under a setting that would lose the commit record.
func TestAsynchronousCommitKeepsTheDecision(t *testing.T) {
	c := newServers(t, 2, pgtest.WithConfig("wal_writer_delay", "10s"), pgtest.WithConfig("synchronous_commit", "off"))
	for id := range 3 {
		s := c.begin(t, fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d, 1)", id), 0, 1)
		out := s.commit()
		if out.State != Committed {
			t.Fatalf("outcome %+v", out)
		}
		c.servers[0].Kill(t)
		c.servers[1].Kill(t)
		s.drop()
		c.servers[0].Restart(t)
		c.servers[1].Restart(t)
		c.settle(t)
		for i := range c.servers {
			if n := c.count(t, i, "SELECT count(*) FROM t"); n != id+1 {
				t.Fatalf("shard %d has %d rows after %d commits", i, n, id+1)
			}
		}
	}
}

// TestResolverDiesAnywhere stops a resolver before each of its steps; another one
// goes on from there.
func TestResolverDiesAnywhere(t *testing.T) {
	c := newCluster(t, 3)
	id := 0
	for _, point := range []string{PointResolverAsk, PointResolverFinish, PointResolverForget} {
		for skip := range 3 {
			for _, left := range []string{PointDecide, PointFinish} {
				id++
				c.leave(t, id, left)
				if err := failpoint.Set(point, fmt.Sprintf("%d*error", skip)); err != nil {
					t.Fatal(err)
				}
				r := NewResolver(eager)
				c.pass(t, r)
				r.Close()
				failpoint.Clear(point)
				c.settle(t)
				rows := 0
				for i := range c.servers {
					rows += c.count(t, i, fmt.Sprintf("SELECT count(*) FROM t WHERE id = %d", id))
				}
				if want := map[string]int{PointDecide: 0, PointFinish: 3}[left]; rows != want {
					t.Fatalf("%s after %d, left at %s: %d rows, want %d", point, skip, left, rows, want)
				}
			}
		}
	}
}
