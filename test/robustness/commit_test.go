package robustness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/failpoint"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/twophase"
)

// shape is a way to write one row under each of some keys, all or none.
type shape struct {
	name string
	run  func(ctx context.Context, c *pgx.Conn, keys []int64) error
}

// errRolledBack: COMMIT was answered ROLLBACK.
var errRolledBack = errors.New("COMMIT was answered ROLLBACK")

var (
	transaction = shape{"transaction", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		return inTransaction(ctx, c, "BEGIN", func(k int64) string { return fmt.Sprintf("INSERT INTO ledger VALUES (%d)", k) }, keys)
	}}
	serializable = shape{"serializable", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		return inTransaction(ctx, c, "BEGIN ISOLATION LEVEL SERIALIZABLE", func(k int64) string { return fmt.Sprintf("INSERT INTO ledger VALUES (%d)", k) }, keys)
	}}
	// failing violates a deferred constraint on the last shard, so that the
	// commit begins and rolls back.
	failing = shape{"failing", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		last := keys[len(keys)-1]
		return inTransaction(ctx, c, "BEGIN", func(k int64) string {
			if k == last {
				return fmt.Sprintf("INSERT INTO deferred VALUES (%d), (%d)", k, k)
			}
			return fmt.Sprintf("INSERT INTO ledger VALUES (%d)", k)
		}, keys)
	}}
	autocommit = shape{"autocommit", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		_, err := c.PgConn().Exec(ctx, "INSERT INTO ledger VALUES "+values(keys, "(%d)", ", ")).ReadAll()
		return err
	}}
	query = shape{"query", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		_, err := c.PgConn().Exec(ctx, values(keys, "INSERT INTO ledger VALUES (%d)", "; ")).ReadAll()
		return err
	}}
	copying = shape{"copy", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		_, err := c.PgConn().CopyFrom(ctx, strings.NewReader(values(keys, "%d\n", "")), "COPY ledger FROM STDIN")
		return err
	}}
	pipeline = shape{"pipeline", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		b := &pgx.Batch{}
		for _, k := range keys {
			b.Queue("INSERT INTO ledger VALUES ($1)", k)
		}
		return c.SendBatch(ctx, b).Close()
	}}
)

func values(keys []int64, format, between string) string {
	var all []string
	for _, k := range keys {
		all = append(all, fmt.Sprintf(format, k))
	}
	return strings.Join(all, between)
}

func inTransaction(ctx context.Context, c *pgx.Conn, begin string, insert func(int64) string, keys []int64) error {
	pc := c.PgConn()
	if _, err := pc.Exec(ctx, begin).ReadAll(); err != nil {
		return err
	}
	for _, k := range keys {
		if _, err := pc.Exec(ctx, insert(k)).ReadAll(); err != nil {
			return err
		}
	}
	res, err := pc.Exec(ctx, "COMMIT").ReadAll()
	if err == nil && res[0].CommandTag.String() != "COMMIT" {
		return errRolledBack
	}
	return err
}

// told is what an answer says of the outcome.
type told int

const (
	committed told = iota
	aborted
	unknown
)

func (a told) String() string { return [...]string{"committed", "aborted", "unknown"}[a] }

// read takes a client's answer by its word: an error that came from the router
// means that nothing was done, but for 08007, which says that it is not known.
func read(err error) told {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return committed
	case errors.As(err, &pg) && pg.Code == pgerr.TransactionResolutionUnknown:
		return unknown
	case errors.As(err, &pg), errors.Is(err, errRolledBack):
		return aborted
	}
	return unknown // the connection is gone
}

// fault says where in a commit something is killed.
type fault struct {
	point  string
	skip   int // hits of the point that pass before
	victim int // index among the participants; theRouter for the router
	armed  string
}

const theRouter = -1

func (f fault) String() string {
	who := "the router"
	if f.victim != theRouter {
		who = fmt.Sprintf("participant %d", f.victim)
	}
	return fmt.Sprintf("%s killed at %s (%d)", who, f.point, f.skip)
}

// trial runs a statement of a shape on three shards under a fault, starts again
// what died, lets the resolver finish, and checks the result. It says whether
// the fault's point was reached.
func (w *world) trial(t *testing.T, s shape, f fault) (reached bool) {
	t.Helper()
	r := w.routers[0]
	file := filepath.Join(t.TempDir(), "go")
	act := fmt.Sprintf("%s=%d*wait(%s)", f.point, f.skip, file)
	if f.victim == theRouter {
		act = fmt.Sprintf("%s=%d*kill", f.point, f.skip)
	}
	r.start(act + ";" + f.armed)
	conn := connect(t, r.dsn())
	keys := []int64{w.keyOn(0), w.keyOn(1), w.keyOn(2)}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- s.run(ctx, conn, keys) }()
	err := w.strike(t, r, f, file, answer, &reached)
	if ctx.Err() != nil {
		t.Fatalf("%s, %v: no answer within %v: %v", s.name, f, patience, err)
	}
	if f.victim != theRouter {
		if reached {
			w.Servers[f.victim].Restart(t)
		}
		w.afterwards(t, s, f, r)
	}
	r.kill()
	w.settle(t)
	w.verdict(t, s, f, keys, err)
	return reached
}

// strike waits for the point, kills the victim, and yields the client's answer.
func (w *world) strike(t *testing.T, r *daemon, f fault, file string, answer <-chan error, reached *bool) error {
	t.Helper()
	if f.victim == theRouter {
		err := <-answer
		select {
		case <-r.ended():
			*reached = true
		default:
		}
		return err
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-answer: // it ended without
			return err
		case <-tick.C:
		}
		if _, err := os.Stat(file + failpoint.Reached); err == nil {
			break
		}
	}
	*reached = true
	w.Servers[f.victim].Kill(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return <-answer
}

// afterwards: a router that has seen a shard die and come back serves a new
// client at once.
func (w *world) afterwards(t *testing.T, s shape, f fault, r *daemon) {
	t.Helper()
	conn := connect(t, r.dsn())
	keys := []int64{w.keyOn(0), w.keyOn(1), w.keyOn(2)}
	if err := transaction.run(t.Context(), conn, keys); err != nil {
		t.Errorf("%s, %v: a transaction afterwards: %v", s.name, f, err)
	}
}

// verdict checks what is on the shards against what the client was told.
func (w *world) verdict(t *testing.T, s shape, f fault, keys []int64, err error) {
	t.Helper()
	n := w.present(t, "ledger", keys)
	answer := read(err)
	switch {
	case n != 0 && n != len(keys):
		t.Errorf("%s, %v: halved: %d of %d rows; the client was told %s (%v)", s.name, f, n, len(keys), answer, err)
	case answer == committed && n == 0, answer == aborted && n != 0:
		t.Errorf("%s, %v: the client was told %s (%v), and %d rows are there", s.name, f, answer, err, n)
	}
	if s.name == failing.name {
		if dup := w.present(t, "deferred", keys); n != 0 || dup != 0 || answer == committed {
			t.Errorf("%s, %v: a transaction that could not commit left %d and %d rows; the client was told %s", s.name, f, n, dup, answer)
		}
	}
	t.Logf("%s, %v: told %s, %d rows (%v)", s.name, f, answer, n, err)
	if t.Failed() {
		t.Logf("the router's log:\n%s", w.routers[0].tail(30))
	}
}

// steps are the places of a commit of three writers, in order: each failpoint
// before its first action, and between its actions where there are several.
var steps = []fault{
	{point: twophase.PointProbe}, {point: twophase.PointProbe, skip: 1},
	{point: twophase.PointPrepare}, {point: twophase.PointPrepare, skip: 1},
	{point: twophase.PointDecide},
	{point: twophase.PointFinish}, {point: twophase.PointFinish, skip: 1},
	{point: twophase.PointDone},
}

// TestCommitSurvivesKills kills (-9) the router, the decision shard or another
// participant at every step of two-phase commit.
func TestCommitSurvivesKills(t *testing.T) {
	w := newWorld(t, 4, 1)
	w.prepare(t)
	hit := map[string]int{}
	run := func(s shape, f fault) {
		if t.Failed() {
			return // one failure tells more than those that follow from it
		}
		if w.trial(t, s, f) {
			hit[f.point]++
		}
	}
	shapes := []shape{transaction, autocommit, copying, pipeline, query}
	n := 0
	for _, step := range steps {
		for i, s := range shapes {
			step.victim = theRouter
			if long || i == n%len(shapes) || i == 0 {
				run(s, step)
			}
			for victim := range 3 {
				step.victim = victim
				// The short form: each step with each victim, the shapes in turn.
				if long || i == (n+victim)%len(shapes) {
					run(s, step)
				}
			}
		}
		n++
	}
	for _, skip := range []int{0, 1} {
		for victim := theRouter; victim < 3; victim++ {
			// A commit that fails and rolls back.
			if long || skip == 0 {
				run(failing, fault{point: twophase.PointRollback, skip: skip, victim: victim})
			}
			if long {
				run(serializable, fault{point: twophase.PointPrepare, skip: skip, victim: victim})
			}
		}
	}
	w.doubt(t, run)
	for _, p := range twophase.Points() {
		// A plain COMMIT of a reader beside writers is the coordinator's own test's.
		if hit[p] == 0 && p != twophase.PointCommit {
			t.Errorf("no kill at %s", p)
		}
	}
	if race := w.routers[0].raced(); race != "" {
		t.Error(race)
	}
	t.Logf("kills by point: %v", hit)
}

// prepare makes the tables, through a router.
func (w *world) prepare(t *testing.T) {
	t.Helper()
	r := w.routers[0]
	r.start("")
	conn := connect(t, r.dsn())
	mustExec(t, conn, "CREATE TABLE ledger (id bigint PRIMARY KEY) WITH (sharding.key = 'id')")
	mustExec(t, conn, "CREATE TABLE deferred (id bigint NOT NULL, CONSTRAINT once UNIQUE (id) DEFERRABLE INITIALLY DEFERRED) WITH (sharding.key = 'id')")
	r.kill()
}

// doubt kills the router while it asks for a verdict. The answer of the decision
// shard is lost first, which takes a killed server: so this is a run of its own.
func (w *world) doubt(t *testing.T, run func(shape, fault)) {
	t.Helper()
	for skip := range 1 {
		run(doubtful(w, t), fault{point: twophase.PointResolve, skip: skip, victim: theRouter})
	}
}

// doubtful is a transaction whose decision shard dies under the decision: the
// session's lock on it is held by the test until the server is killed.
func doubtful(w *world, t *testing.T) shape {
	return shape{"doubtful", func(ctx context.Context, c *pgx.Conn, keys []int64) error {
		// The decision takes commit_gate in ROW EXCLUSIVE: with the gate held it
		// waits, and the server can be killed under it.
		var holders []*pgx.Conn
		for _, s := range w.Servers[:3] {
			h := s.Connect(t, "app")
			if _, err := h.Exec(ctx, "BEGIN; LOCK TABLE sharding.commit_gate IN EXCLUSIVE MODE"); err != nil {
				return err
			}
			holders = append(holders, h)
		}
		done := make(chan error, 1)
		go func() { done <- transaction.run(ctx, c, keys) }()
		decision := w.waiting(t)
		w.Servers[decision].Kill(t)
		w.Servers[decision].Restart(t)
		for i, h := range holders {
			if i != decision {
				_ = h.Close(ctx)
			}
		}
		return <-done
	}}
}

// waiting is the server on which a router's decision waits for the gate.
func (w *world) waiting(t *testing.T) (server int) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		for i, s := range w.Servers[:3] {
			rows := s.Query(t, "app", "SELECT 1 FROM pg_stat_activity WHERE datname = 'app' AND query LIKE '%sharding.decide(%' AND wait_event_type = 'Lock'")
			if len(rows) > 0 {
				return i
			}
		}
	}
	t.Error("no decision waits")
	return 0
}
