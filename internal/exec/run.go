package exec

import (
	"fmt"
	"time"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// Run carries out one statement of a simple Query: everything up to, but not
// including, ReadyForQuery. When the statement is alone in its Query, sole is
// true and a one-shard statement's ReadyForQuery is passed on with the rest:
// then ready is true and the caller sends none. An error is to be told to the
// client, unless it is ErrReported.
func (x *Exec) Run(p *plan.Plan, a *plan.Args, sole bool) (ready bool, err error) {
	if err := x.Aborted(); err != nil {
		return false, err
	}
	x.op = p.Operation
	if p.CursorAction != plan.NoCursor {
		if c := x.spread(p); c != nil {
			return false, x.fetchQuery(p.Fetch, c)
		}
		if err := x.mayDeclare(p, false); err != nil {
			x.Fail()
			return false, err
		}
	}
	shards, err := x.Shards(p, a)
	if err != nil {
		return false, err
	}
	if len(shards) > 1 && !x.txn.block {
		if err := x.wantsBlock(p); err != nil {
			return false, err
		}
	}
	if p.Action == plan.Copy && p.Copy.From {
		return false, x.copyFrom(p, a, shards)
	}
	if len(shards) == 1 {
		return x.runOne(p, a, shards[0], sole)
	}
	return false, x.runMany(p, a, shards)
}

// Shards yields the shards that a statement runs on, at least one, sorted. It is
// valid until the next call.
func (x *Exec) Shards(p *plan.Plan, a *plan.Args) ([]int, error) {
	x.shbuf = x.shbuf[:0]
	if p.CursorAction == plan.UseCursor || p.CursorAction == plan.CloseCursor {
		return x.cursorShards(p), nil
	}
	switch p.Route.Kind {
	case plan.None, plan.Any:
		x.shbuf = append(x.shbuf, x.pick())
	case plan.Home:
		if p.SetConfig != nil && len(x.Place.Shards) > 1 {
			if err := checkSetConfig(p, a); err != nil {
				x.Fail()
				return nil, err
			}
		}
		x.shbuf = append(x.shbuf, x.Place.Home)
	case plan.Rows:
		if err := p.BindRows(&x.split, a, x.Place.Map); err != nil {
			return nil, err
		}
		if x.shbuf = append(x.shbuf, x.split.Shards...); len(x.shbuf) == 0 {
			x.shbuf = append(x.shbuf, x.pick())
		}
	case plan.All:
		n := len(x.Place.Map.Shards())
		if p.Multi.Kind == plan.Same && p.Declare == nil {
			if n = x.Place.Members; p.Action == plan.DDL {
				n = len(x.Place.Shards)
			}
		}
		for i := range n {
			x.shbuf = append(x.shbuf, i)
		}
	default:
		if err := p.Route.CheckNullKey(a); err != nil {
			return nil, err
		}
		got, err := p.Route.Bind(x.shbuf, a, x.Place.Map)
		if err != nil {
			return nil, err
		}
		x.shbuf = got
		if len(got) == 0 {
			// No row anywhere matches: any shard gives the answer.
			x.shbuf = append(x.shbuf, x.pick())
		}
	}
	if x.Newer != nil {
		if err := x.unmoved(p, a); err != nil {
			return nil, err
		}
	}
	x.LastShards = append(x.LastShards[:0], x.shbuf...)
	if len(x.shbuf) > 1 && p.Multi.Kind == plan.Refuse {
		if p.Multi.Reason != nil {
			return nil, p.Multi.Reason
		}
		return nil, pgerr.New(pgerr.FeatureNotSupported, "this statement cannot run on several shards")
	}
	return x.shbuf, nil
}

// runOne relays a statement to the one shard that it concerns.
func (x *Exec) runOne(p *plan.Plan, a *plan.Args, shard int, sole bool) (bool, error) {
	part, err := x.bindFor(p, shard)
	if err != nil {
		x.Fail()
		return false, err
	}
	if err := x.mayWrite(p, part); err != nil {
		x.Fail()
		return false, err
	}
	x.ownSequences(p, part)
	x.touch(p, part)
	times, err := x.timesFor(p, x.sharedNow(part))
	if err != nil {
		x.Fail()
		return false, err
	}
	sole = sole && !changesSession(p)
	if part.replica != nil && !part.settled {
		if part, err = x.offer(p, a, part, times); err != nil {
			x.Fail()
			return false, err
		}
	}
	failed, copyIn, err := x.sendOne(p, a, part, times, sole)
	if err != nil && x.mayRepeat(part, p) {
		if part, err = x.another(part); err == nil {
			x.touch(p, part)
			failed, copyIn, err = x.sendOne(p, a, part, times, sole)
		}
	}
	if err == nil && copyIn {
		failed, err = x.copyThrough(part, sole)
	}
	x.observe(part, failed || err != nil)
	if err != nil {
		x.Fail()
		return false, err
	}
	if !failed && changesSession(p) {
		if err := x.learn(p, a, part); err != nil {
			x.Fail()
			return false, err
		}
	}
	switch {
	case !failed:
		x.cursorRan(p, x.shbuf)
	case x.txn.block:
		x.Fail()
	default:
		part.settlePins(false)
	}
	if !x.txn.block {
		x.unbindAll()
	}
	if sole {
		return true, nil
	}
	if failed {
		return false, ErrReported
	}
	return false, nil
}

// wantsBlock says for several shards what PostgreSQL says of statements that are for
// transaction blocks, where the client has opened none.
func (x *Exec) wantsBlock(p *plan.Plan) error {
	const only = "%s can only be used in transaction blocks"
	switch {
	case p.BlockOnly:
		return pgerr.New(pgerr.NoActiveSQLTransaction, only, p.Command)
	case p.Command == "SET CONSTRAINTS":
		if err := x.ExtFlush(); err != nil {
			return err
		}
		x.Warn(pgerr.NoActiveSQLTransaction, fmt.Sprintf(only, p.Command))
	}
	return nil
}

// sendOne sends a statement to its one part and relays what that answers.
func (x *Exec) sendOne(p *plan.Plan, a *plan.Args, part *part, times *plan.Times, sole bool) (failed, copyIn bool, err error) {
	if !part.synced {
		if p.Copy != nil {
			if err := x.copyTypes(part, p.Copy); err != nil {
				return false, false, err
			}
		}
		part.owes = true
		queueQuery(part.conn, x.text(p, a, nil, times))
		if err := x.flush(part); err != nil {
			return false, false, err
		}
	}
	part.synced = false
	if len(p.Edits) > 0 || times != nil {
		x.original = func(at int) int { return p.Original(a.SQL, nil, times, at) }
		defer func() { x.original = nil }()
	}
	return x.relay(part, atReady, sole)
}

// text is what a part is sent: rows are those of Insert for it, nil for all;
// times, unless nil, replace now() and its family. It is valid until the next
// call.
func (x *Exec) text(p *plan.Plan, a *plan.Args, rows []int, times *plan.Times) []byte {
	x.scratch = p.AppendText(x.scratch[:0], a.SQL, rows, times)
	return x.scratch
}

// timesFor yields what replaces now() in a statement: nil where each shard's own
// will do. It may ask a shard, so it comes before anything of the statement is
// sent.
func (x *Exec) timesFor(p *plan.Plan, several bool) (*plan.Times, error) {
	if len(p.NowEdits) == 0 || !several && x.txn.times.Transaction == "" {
		return nil, nil
	}
	t, err := x.times()
	if err != nil {
		return nil, err
	}
	return &t, nil
}

// sharedNow says whether now() on this part must be another shard's: the block
// has several, and the transaction has one time.
func (x *Exec) sharedNow(p *part) bool {
	return x.txn.block && (x.txn.times.Transaction != "" || len(x.txn.parts) > 1 && x.txn.parts[0] != p)
}

// times yields the one value of now() for the whole transaction, as the first
// shard bound to it gives it, and the statement's own start.
func (x *Exec) times() (plan.Times, error) {
	t := x.txn.times
	var p *part
	if len(x.txn.parts) > 0 {
		p = x.txn.parts[0] // as bind would find it, but for one on a replica
	}
	if p == nil {
		var err error
		if p, err = x.bindFor(&timesPlan, x.pick()); err != nil {
			return t, err
		}
	}
	const sql = "SELECT pg_catalog.now() AT TIME ZONE 'UTC', pg_catalog.statement_timestamp() AT TIME ZONE 'UTC'"
	_, err := x.query(p, sql, func(r *pgwire.Values) {
		tx, _ := r.Next()
		st, _ := r.Next()
		t = plan.Times{Transaction: string(tx) + "+00", Statement: string(st) + "+00"}
	})
	if err != nil {
		return t, err
	}
	if x.txn.block {
		x.txn.times = t
	}
	return t, nil
}

// runMany sends a statement to several shards and merges their answers.
func (x *Exec) runMany(p *plan.Plan, a *plan.Args, shards []int) error {
	writes := p.Access == plan.Write || p.Access == plan.Lock
	if p.NotInBlock {
		return x.runApart(p, a, shards)
	}
	own := false
	if (writes || len(p.NowEdits) > 0 || p.Declare != nil) && !x.txn.block {
		// An autocommit statement that writes on several shards is atomic.
		x.openBlock("BEGIN", !writes && p.Replica == plan.ReplicaOK, false)
		own = true
	}
	if writes && len(shards) > 1 && !x.Place.TwoPhase {
		return pgerr.New(pgerr.FeatureNotSupported, "keyspace %q forbids writes on several shards", x.Place.Keyspace).
			WithHint("Its two_phase_commit is off: name one shard key, or set it to required.")
	}
	tag, err := x.scatter(p, a, shards)
	if err != nil {
		x.Fail()
		if !x.txn.block {
			x.abandon()
		}
		return err
	}
	x.cursorRan(p, shards)
	if own && !x.inSeries {
		if _, err := x.commit(); err != nil {
			return err
		}
	}
	if !x.txn.block {
		x.unbindAll()
	}
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
	return nil
}

// abandon gives back the connections of a statement outside a block that broke
// off: those that still owe an answer are closed.
func (x *Exec) abandon() {
	for _, p := range x.txn.parts {
		if p.conn != nil && p.owes && !x.hush(p) {
			p.conn.Break()
		}
	}
	x.unbindAll()
}

// scatter sends each shard its part and merges the answers; rows go to the
// client, the tag to the caller.
func (x *Exec) scatter(p *plan.Plan, a *plan.Args, shards []int) (tag string, err error) {
	limit, limited, err := p.Multi.RowLimit(a)
	if err != nil {
		return "", err
	}
	times, err := x.timesFor(p, len(shards) > 1)
	if err != nil {
		return "", err
	}
	frags := x.fragments(p, shards)
	parts := make([]*part, 0, len(frags))
	for i := range frags {
		part, err := x.bindFor(p, frags[i].shard)
		if err != nil {
			return "", err
		}
		parts = append(parts, part)
	}
	for i, part := range parts {
		x.touch(p, part)
		if p.Copy != nil {
			if err := x.copyTypes(part, p.Copy); err != nil {
				return "", err
			}
		}
		queueQuery(part.conn, x.text(p, a, frags[i].rows, times))
		part.owes, part.headerSeen = true, false
		if err := x.flush(part); err != nil && (part.replica == nil || Fatal(err)) {
			return "", err
		}
	}
	m := merger{x: x, plan: p, parts: parts, frags: frags, simple: true, limit: limit, limited: limited}
	m.whole = p.Returns && p.Access == plan.Write
	m.sql, m.times = a.SQL, times
	m.again = func(i int, part *part) error {
		part.owes = true
		queueQuery(part.conn, x.text(p, a, frags[i].rows, times))
		return x.flush(part)
	}
	tag, err = m.run()
	for _, part := range parts {
		x.observe(part, err != nil)
	}
	return tag, err
}

// fragment is what one shard is sent.
type fragment struct {
	shard int
	rows  []int // of Insert.Rows, in order; nil: the statement is not cut by rows
}

func (x *Exec) fragments(p *plan.Plan, shards []int) []fragment {
	out := make([]fragment, len(shards))
	for i, s := range shards {
		out[i].shard = s
		if p.Route.Kind == plan.Rows && len(shards) > 1 {
			out[i].rows = x.split.Rows(nil, s)
		}
	}
	return out
}

// mayWrite refuses a transaction's writes on a second shard where the keyspace
// forbids them.
func (x *Exec) mayWrite(p *plan.Plan, part *part) error {
	if x.Place.TwoPhase || p.Access != plan.Write || !x.txn.block {
		return nil
	}
	for _, q := range x.txn.parts {
		if q != part && q.wrote {
			return pgerr.New(pgerr.FeatureNotSupported, "keyspace %q forbids writes on several shards, and the transaction has written on another", x.Place.Keyspace).
				WithHint("Its two_phase_commit is off: keep to one shard key in a transaction, or set it to required.")
		}
	}
	return nil
}

// runApart runs a statement that PostgreSQL refuses inside a block (VACUUM,
// CREATE INDEX CONCURRENTLY) on each shard by itself.
func (x *Exec) runApart(p *plan.Plan, a *plan.Args, shards []int) error {
	what := p.Command
	if what == "CREATE INDEX" || what == "DROP INDEX" {
		what += " CONCURRENTLY"
	}
	switch {
	case x.txn.block && x.piped && !x.txn.explicit:
		return pgerr.New(pgerr.ActiveSQLTransaction, "%s cannot be executed within a pipeline", what)
	case x.txn.block:
		return pgerr.New(pgerr.ActiveSQLTransaction, "%s cannot run inside a transaction block", what)
	}
	tag, err := x.scatter(p, a, shards)
	if err != nil {
		x.abandon()
		return err
	}
	x.unbindAll()
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
	return nil
}

func (x *Exec) observe(p *part, failed bool) {
	if x.Recorder != nil && p != nil && p.conn != nil {
		x.Recorder.Statement(x.Place.Keyspace, x.Place.Shards[p.shard], x.op, time.Since(p.start), failed)
	}
}
