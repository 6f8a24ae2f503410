package twophase

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// patience bounds every wait for a condition; nothing is expected to take it.
const patience = 60 * time.Second

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}

// cluster is a few shards with a client role app that owns nothing and has no right
// in the schema sharding but what Install gave it.
type cluster struct {
	servers   []*pgtest.Server
	dbs       []string
	endpoints []Endpoint
	admin     []*pgx.Conn // the superuser's, nil when it has to be opened
	counter   uint64
	down      map[int]bool // servers that a fault has killed and left so
}

const roles = `DO $$ BEGIN
	IF to_regrole('app') IS NULL THEN
		CREATE ROLE app LOGIN PASSWORD 'app';
		CREATE ROLE other;
		GRANT other TO app;
	END IF; END $$`

// newServers makes a cluster of n servers, which can be killed.
func newServers(t testing.TB, n int, opts ...pgtest.Option) *cluster {
	t.Helper()
	c := &cluster{admin: make([]*pgx.Conn, n), down: map[int]bool{}}
	for range n {
		s := pgtest.Start(t, opts...)
		s.Exec(t, "postgres", "CREATE DATABASE shop")
		c.add(t, s, "shop")
	}
	return c
}

// up starts a server that a fault has left dead.
func (c *cluster) up(t testing.TB, i int) {
	t.Helper()
	if c.down[i] {
		c.servers[i].Restart(t)
		delete(c.down, i)
	}
}

// newCluster makes a cluster of n databases on one server that all tests share.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	c := &cluster{admin: make([]*pgx.Conn, n), down: map[int]bool{}}
	s := pgtest.Shared(t)
	for range n {
		c.add(t, s, s.CreateDatabase(t))
	}
	return c
}

func (c *cluster) add(t testing.TB, s *pgtest.Server, db string) {
	t.Helper()
	s.Exec(t, db, roles)
	s.Exec(t, db, `CREATE TABLE t (id bigint PRIMARY KEY, v int);
		CREATE TABLE u (id bigint, CONSTRAINT u_id UNIQUE (id) DEFERRABLE INITIALLY DEFERRED);
		GRANT ALL ON t, u TO app, other`)
	conn := s.Connect(t, db)
	if err := Install(testContext(t), conn); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(context.Background())
	config, err := pgx.ParseConfig(s.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	c.endpoints = append(c.endpoints, Endpoint{Shard: sharding.ShardID(fmt.Sprintf("shard-%d", len(c.servers))), Config: config})
	c.servers = append(c.servers, s)
	c.dbs = append(c.dbs, db)
}

// exec runs statements on one shard as the superuser.
func (c *cluster) exec(t testing.TB, i int, sql string) {
	t.Helper()
	c.servers[i].Exec(t, c.dbs[i], sql)
}

const (
	countPrepared = "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
	countClients  = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename <> 'postgres'"
)

const testIncarnation = "0123456789abcdef"

func (c *cluster) gid() GID {
	c.counter++
	return GID{Incarnation: testIncarnation, Router: "router-1", Boot: "b00t", Counter: c.counter}
}

// count answers a query for a number as the superuser.
func (c *cluster) count(t testing.TB, i int, sql string) int {
	t.Helper()
	var n int
	for range 2 { // the connection may be of a server that was killed since
		if c.admin[i] == nil || c.admin[i].IsClosed() {
			c.admin[i] = c.servers[i].Connect(t, c.dbs[i])
		}
		err := c.admin[i].QueryRow(testContext(t), sql, pgx.QueryExecModeSimpleProtocol).Scan(&n)
		if err == nil {
			return n
		}
		if !c.admin[i].IsClosed() {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	t.Fatalf("%s: server %d does not answer", sql, i)
	return 0
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// settle waits until no client of the coordinator is left, then resolves until
// nothing is prepared and every verdict is forgotten.
func (c *cluster) settle(t testing.TB) {
	t.Helper()
	for i := range c.servers {
		eventually(t, "the end of the clients' backends", func() bool {
			return c.count(t, i, countClients) == 0
		})
	}
	r := NewResolver(eager)
	defer r.Close()
	var last Report
	eventually(t, "the end of the transactions", func() bool {
		var err error
		if last, err = r.Resolve(testContext(t), c.endpoints); err != nil {
			t.Fatal(err)
		}
		if len(last.InDoubt) > 0 || len(r.InDoubt()) > 0 || len(last.Unreachable) > 0 {
			t.Fatalf("in doubt without a failover: %+v", last)
		}
		left := 0
		for i := range c.servers {
			left += c.count(t, i, "SELECT ("+countPrepared+`)
				+ (SELECT count(*) FROM sharding.decision) + (SELECT count(*) FROM sharding.seen)`)
		}
		return left == 0
	})
}

// eager is a resolver that gives nobody time.
var eager = Options{
	Incarnation: testIncarnation, Grace: time.Nanosecond, DeadGrace: time.Nanosecond, Blocked: 200 * time.Millisecond,
	Retention: time.Nanosecond, ForgetEvery: time.Nanosecond, Timeout: 20 * time.Second,
}

// session is a client's transaction over some shards, with its connections.
type session struct {
	t       testing.TB
	cluster *cluster
	shards  []int // of the participants
	conns   []*pgconn.PgConn
}

// begin opens a transaction on the shards as role app.
func (c *cluster) begin(t testing.TB, how string, shards ...int) *session {
	t.Helper()
	s := &session{t: t, cluster: c, shards: shards}
	for i, shard := range shards {
		conn, err := pgconn.Connect(testContext(t), c.servers[shard].DSNAs("app", "app", c.dbs[shard]))
		if err != nil {
			t.Fatal(err)
		}
		s.conns = append(s.conns, conn)
		s.exec(i, how)
	}
	t.Cleanup(s.drop)
	return s
}

// exec runs the client's statements on one participant.
func (s *session) exec(i int, sql string) {
	s.t.Helper()
	if _, err := s.conns[i].Exec(testContext(s.t), sql).ReadAll(); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// drop cuts every connection as the coordinator's death would.
func (s *session) drop() {
	for i := range s.conns {
		s.cut(i)
	}
}

func (s *session) cut(i int) { _ = s.conns[i].Conn().Close() }

func (s *session) participants() []Participant {
	var ps []Participant
	for _, shard := range s.shards {
		ps = append(ps, Participant{Shard: s.cluster.endpoints[shard].Shard})
	}
	return ps
}

// send is the driver's part of Send.
func (s *session) send(a Action) Event {
	ev := Event{Participant: a.Participant}
	conn := s.conns[a.Participant]
	results, err := conn.Exec(testContext(s.t), a.SQL).ReadAll()
	var pg *pgconn.PgError
	switch {
	case err == nil:
		ev.Kind, ev.Tag = Answered, results[len(results)-1].CommandTag.String()
		if rows := results[0].Rows; len(rows) > 0 {
			ev.Value = string(rows[0][0])
		}
	case errors.As(err, &pg) && !conn.IsClosed():
		ev.Kind, ev.Err, ev.InTransaction = Failed, pgerr.From(err), conn.TxStatus() != 'I'
	default:
		ev.Kind, ev.Err = Lost, pgerr.From(err)
	}
	return ev
}

// perform carries one action out as a router would and returns the answer; false
// if none is wanted.
func (s *session) perform(a Action) (Event, bool) {
	ctx := testContext(s.t)
	switch a.Kind {
	case Send:
		return s.send(a), true
	case Resolve:
		for _, e := range s.cluster.endpoints {
			if e.Shard == a.GID.Decision {
				v, err := AskVerdict(ctx, e, a.GID, eager.Blocked)
				if err != nil {
					return Event{Kind: Unresolved, Err: pgerr.From(err)}, true
				}
				return Event{Kind: Resolved, Verdict: v}, true
			}
		}
		s.t.Fatalf("no shard %s", a.GID.Decision)
	case Finish:
		e := s.cluster.endpoints[s.shards[a.Participant]]
		err := FinishBranch(ctx, e, a.Branch, a.Verdict)
		if err != nil {
			return Event{Kind: Unfinished, Participant: a.Participant, Err: pgerr.From(err)}, a.Wait
		}
		return Event{Kind: Finished, Participant: a.Participant}, a.Wait
	case Discard:
		s.cut(a.Participant)
	}
	return Event{}, false
}

// run drives a coordinator to its end.
func (s *session) run(c *Coordinator) Outcome {
	s.t.Helper()
	queue := c.Start()
	for len(queue) > 0 {
		a := queue[0]
		queue = queue[1:]
		if a.Kind == Done {
			return a.Outcome
		}
		if ev, wanted := s.perform(a); wanted {
			queue = append(queue, c.On(ev)...)
		}
	}
	s.t.Fatal("the coordinator stopped without an outcome")
	return Outcome{}
}

// commit runs COMMIT of the session through a coordinator.
func (s *session) commit() Outcome {
	s.t.Helper()
	return s.run(NewCoordinator(s.cluster.gid(), s.participants()))
}
