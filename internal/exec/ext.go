package exec

import (
	"slices"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/sqltext"
)

// Stmt is a prepared statement as a session knows it; which backends have it is
// the backends' to know.
type Stmt struct {
	ID       uint64 // unique in the process
	Name     string // the client's, "" for the unnamed statement
	Shared   string // the name on backends, "" for the unnamed statement
	SQL      string
	OIDs     []uint32 // as the client prescribed
	Rest     []byte   // of its Parse message, behind the text
	Literals []sqltext.Literal
	Plan     *plan.Plan // nil for an empty statement
	// State is the keyspace's state that Plan was made under, for its maker.
	State any
	// Temporary is the session's TemporaryKey that Plan was made under.
	Temporary string
	// Policy is what a hint in the text asks for, where Hinted.
	Hinted bool
	Policy Policy
	// NumParams is the highest number of a parameter in the text.
	NumParams int
	// Types of all parameters, once a backend has described the statement.
	Types []uint32
	shape shape
}

// Deferred says that nothing of the statement is sent before its Execute, which
// runs it as a simple Query would: what the session itself carries out, COPY,
// and what has no rows and may not be prepared across shards.
func (s *Stmt) Deferred() bool {
	if s.Plan == nil {
		return false
	}
	p := s.Plan
	return p.Action != plan.Run && !(p.Action == plan.Local && p.Control.Kind == plan.Show) || p.NotInBlock
}

// Params is how many parameters the statement takes, -1 where only the server knows.
func (s *Stmt) Params() int {
	switch {
	case s.Types != nil:
		return len(s.Types)
	case s.Plan == nil, s.Deferred() && s.Plan.Action != plan.Run:
		return len(s.OIDs)
	case s.Plan.Direct != plan.Pooled:
		return -1
	}
	return max(len(s.OIDs), s.NumParams)
}

// Portal is a bound statement.
type Portal struct {
	Name    string
	Stmt    *Stmt
	Buf     []byte // its Bind message's body: Args and Rest point into it
	Rest    []byte // of it, what follows the names
	Args    plan.Args
	Results []int16
	Shards  []int // where it runs
	// Depth is how many savepoints stood when it was bound: rolling back to one of
	// them ends it.
	Depth int
	// Failed: it was bound in a failed block.
	Failed bool
	many   *manyPortal // nil on one shard
	on     *part       // where it is bound, nil before
	// fetched is what is left of a FETCH over several shards, once it has run.
	fetched *held
	// Ran says that a deferred statement's has run: it does not a second time.
	Ran bool
}

// Reset makes a portal anew for a statement.
func (po *Portal) Reset(s *Stmt) {
	po.Stmt, po.many, po.on, po.fetched, po.Ran = s, nil, nil, nil, false
	po.Shards = po.Shards[:0]
}

// ext is the state of the extended protocol between two Syncs.
type ext struct {
	cur *part // the part that messages go to
	// described is the portal that was described last.
	described *Portal
	opening   opening
	steps     steps
}

// switchTo makes p the part that messages go to; the answers of the one before
// are relayed first, so that the client gets all in order.
func (x *Exec) switchTo(p *part) error {
	if x.ext.cur == p {
		return nil
	}
	if err := x.ExtFlush(); err != nil {
		return err
	}
	x.ext.cur = p
	return nil
}

// Pending says whether answers of an open pipeline have not been asked for yet.
func (x *Exec) Pending() bool {
	return x.ext.cur != nil && x.ext.cur.unit.pending() || x.ext.opening.po != nil
}

// Answer gives the client an answer of the router's own (a message without a
// body), in its place behind those that are due.
//
// made and gone are what the message that it answers makes and closes.
func (x *Exec) Answer(typ byte, made, gone Made) {
	if !x.answerOwn(typ, made, gone) {
		x.ext.steps.add(step{what: answerAgain, typ: typ})
	}
}

// answerOwn is Answer; told says that the client has it already.
func (x *Exec) answerOwn(typ byte, made, gone Made) (told bool) {
	if o := &x.ext.opening; o.po != nil {
		o.tail = appendEmpty(o.tail, typ)
		return false
	}
	if p := x.ext.cur; p != nil && (p.unit.pending() || p.redoable()) {
		p.unit.push(expectation{what: answered, typ: typ, made: made, gone: gone})
		return false
	}
	x.Client.SetOut(appendEmpty(x.Client.OutBuf(), typ))
	return true
}

// need yields the part on shard for extended messages of a statement. A second
// shard in one pipeline makes it a transaction over both.
func (x *Exec) need(shard int, pl *plan.Plan) (*part, error) {
	p := x.find(shard)
	if x.Place.Replicas != nil && pl != nil && (x.txn.block || x.Alone) {
		var err error
		if p, err = x.bindFor(pl, shard); err != nil {
			x.Fail()
			return nil, err
		}
	}
	if p == nil && !x.txn.block && len(x.txn.parts) > 0 {
		if err := x.upgrade(); err != nil {
			return nil, err
		}
	}
	if p == nil {
		var err error
		if p, err = x.bind(shard); err != nil {
			x.Fail()
			return nil, err
		}
	}
	if err := x.switchTo(p); err != nil {
		return nil, err
	}
	x.ownSequences(pl, p)
	p.unit.open = true
	if p.replica != nil && !x.Alone {
		p.settled = true
	}
	return p, nil
}

// ExtPrepare sends a statement's Parse to a shard for the client. Where the
// backend has the statement already, the router answers.
func (x *Exec) ExtPrepare(s *Stmt, shard int) error {
	p, err := x.need(shard, s.Plan)
	if err != nil {
		return err
	}
	told, err := x.parse(p, s, relayed)
	if err != nil {
		return err
	}
	x.ext.steps.once(len(x.ext.steps.list) > 0)
	x.ext.steps.add(step{what: prepareAgain, stmt: s, shard: shard, told: told})
	return nil
}

// parse makes sure that p's server has the statement.
//
// told says that the client has its answer already.
func (x *Exec) parse(p *part, s *Stmt, what expect) (told bool, err error) {
	c := p.conn
	if len(x.Unparsed) > 0 { // once more, elsewhere
		x.Unparsed = slices.DeleteFunc(x.Unparsed, func(u *Stmt) bool { return u == s })
	}
	rest, err := x.parseRest(p, s)
	if err != nil {
		return false, err
	}
	if s.Shared == "" {
		if what == hidden && c.UnnamedOwner == s.ID {
			return false, nil
		}
		c.UnnamedOwner = s.ID
	} else if c.Has(s.Shared) {
		if what == relayed {
			if told = x.answerOwn(pgwire.TypeParseComplete, Made{Stmt: s}, Made{}); !told && p.unit.pending() {
				p.unit.queue[len(p.unit.queue)-1].stmt = s
			}
			return told, nil
		}
		return false, nil
	} else if evict := c.Remember(s.Shared); evict != "" {
		c.SetOut(pgwire.AppendClose(c.OutBuf(), pgwire.KindStatement, evict))
		p.unit.push(expectation{what: hidden})
	}
	c.SetOut(pgwire.AppendParseRest(c.OutBuf(), s.Shared, s.SQL, rest))
	e := expectation{what: what, name: s.Shared, stmt: s}
	if what == relayed {
		e.made.Stmt = s
	}
	p.unit.push(e)
	return false, nil
}

// ExtDescribeStatement relays a Describe of a statement.
func (x *Exec) ExtDescribeStatement(s *Stmt, shard int) error {
	p, err := x.need(shard, s.Plan)
	if err != nil {
		return err
	}
	if _, err := x.parse(p, s, hidden); err != nil {
		return err
	}
	p.conn.SetOut(pgwire.AppendDescribe(p.conn.OutBuf(), pgwire.KindStatement, s.Shared))
	p.unit.push(expectation{what: relayed, stmt: s})
	x.ext.steps.add(step{what: describeAgain, stmt: s, shard: shard})
	return nil
}

// ExtDescribeRows relays what a Describe of a statement says of its rows, and not what
// it says of its parameters.
func (x *Exec) ExtDescribeRows(s *Stmt, shard int) error {
	if err := x.ExtDescribeStatement(s, shard); err != nil {
		return err
	}
	x.ext.steps.off = true
	queue := x.ext.cur.unit.queue
	queue[len(queue)-1].rowsOnly = true
	return nil
}

// ExtBind places a portal. On one shard its Bind is sent; over several, each
// shard's is sent with Execute.
func (x *Exec) ExtBind(po *Portal) error {
	if len(po.Shards) > 1 {
		x.ext.steps.off = true
		return x.bindMany(po)
	}
	p, err := x.need(po.Shards[0], po.Stmt.Plan)
	if err != nil {
		return err
	}
	what := relayed
	if x.hide {
		what = hidden
	}
	var times *plan.Times
	if po.Stmt.Plan != nil && len(po.Stmt.Plan.NowEdits) > 0 && x.sharedNow(p) {
		if times, err = x.timesBetween(po.Stmt.Plan); err != nil {
			return err
		}
		if p, err = x.need(po.Shards[0], po.Stmt.Plan); err != nil {
			return err
		}
	}
	x.ext.steps.once(x.ext.steps.bound() || times != nil)
	x.ext.steps.add(step{what: bindAgain, portal: po, shard: po.Shards[0], hide: x.hide})
	return x.bindOn(p, po, nil, what, times)
}

// bindOn sends a portal's Bind to p, behind the Parse that it needs.
func (x *Exec) bindOn(p *part, po *Portal, rows []int, what expect, times *plan.Times) error {
	s := po.Stmt
	name := s.Shared
	if s.Plan != nil && (rows != nil || len(s.Plan.Edits) > 0 || times != nil) {
		// A text of its own: through the unnamed statement.
		text := x.text(s.Plan, &po.Args, rows, times)
		name = ""
		p.conn.UnnamedOwner = 0
		types, err := x.parameterTypes(p, po.Args.ParamTypes)
		if err != nil {
			return err
		}
		out, err := pgwire.AppendParse(p.conn.OutBuf(), "", text, types)
		if err != nil {
			return pgerr.From(err)
		}
		p.conn.SetOut(out)
		p.unit.push(expectation{what: hidden})
	} else {
		if _, err := x.parse(p, s, hidden); err != nil {
			return err
		}
	}
	rest, err := x.bindRest(p, po)
	if err != nil {
		return err
	}
	p.conn.SetOut(pgwire.AppendBindRest(p.conn.OutBuf(), po.Name, name, rest))
	e := expectation{what: what, stmt: s}
	if what == relayed {
		e.made.Portal = po
	}
	p.unit.push(e)
	po.on, p.unit.bound = p, true
	return nil
}

// Hide is for SQL's EXECUTE, whose messages are the router's own: it keeps the answer
// to ExtBind from the client, and the description of rows until it is known whether
// there are any, since PostgreSQL runs such a statement to its end first.
func (x *Exec) Hide(on bool) { x.hide = on }

// ExtClosePortal relays a Close of a portal.
func (x *Exec) ExtClosePortal(po *Portal) error {
	if po.many != nil {
		return x.closeMany(po)
	}
	if po.on == nil || po.on.conn == nil {
		x.Answer(pgwire.TypeCloseComplete, Made{}, Made{Portal: po})
		return nil
	}
	p, err := x.need(po.Shards[0], po.Stmt.Plan)
	if err != nil {
		return err
	}
	x.ext.steps.off = true
	p.conn.SetOut(pgwire.AppendClose(p.conn.OutBuf(), pgwire.KindPortal, po.Name))
	p.unit.push(expectation{what: relayed, gone: Made{Portal: po}})
	return nil
}

// ExtDescribePortal relays a Describe of a portal.
func (x *Exec) ExtDescribePortal(po *Portal) error {
	if po.many != nil {
		return x.describeMany(po)
	}
	p, err := x.need(po.Shards[0], po.Stmt.Plan)
	if err != nil {
		return err
	}
	p.conn.SetOut(pgwire.AppendDescribe(p.conn.OutBuf(), pgwire.KindPortal, po.Name))
	p.unit.push(expectation{what: relayed, stmt: po.Stmt, portal: true, late: x.hide})
	x.ext.described = po
	x.ext.steps.add(step{what: describePortalAgain, portal: po, hide: x.hide})
	return nil
}

// ExtExecute runs a portal.
func (x *Exec) ExtExecute(po *Portal, maxRows int32) error {
	if err := x.Aborted(); err != nil {
		return err
	}
	if pl := po.Stmt.Plan; pl != nil && pl.CursorAction != plan.NoCursor {
		if done, err := x.executeCursor(po, maxRows); done || err != nil {
			return err
		}
	}
	if po.many != nil {
		if !x.txn.explicit {
			if err := x.wantsBlock(po.Stmt.Plan); err != nil {
				return err
			}
		}
		return x.executeMany(po, maxRows)
	}
	p, err := x.need(po.Shards[0], po.Stmt.Plan)
	if err != nil {
		return err
	}
	if po.Stmt.Plan != nil {
		if err := x.mayWrite(po.Stmt.Plan, p); err != nil {
			return err
		}
		x.op = po.Stmt.Plan.Operation
		x.touch(po.Stmt.Plan, p)
	}
	x.LastShards = append(x.LastShards[:0], po.Shards...)
	p.unit.ran = true
	rows := x.describeRows(p, po)
	p.conn.SetOut(pgwire.AppendExecute(p.conn.OutBuf(), po.Name, maxRows))
	p.unit.push(expectation{what: relayed, rows: rows})
	x.ext.steps.once(x.ext.steps.plan != nil || po.Stmt.Plan == nil)
	x.ext.steps.plan = po.Stmt.Plan
	x.ext.steps.add(step{what: executeAgain, portal: po, maxRows: maxRows})
	if po.Stmt.Plan != nil && changesSession(po.Stmt.Plan) {
		if err := x.closeUnits(); err != nil {
			return err
		}
		return x.learn(po.Stmt.Plan, &po.Args, p)
	}
	if po.Stmt.Plan != nil && po.Stmt.Plan.CursorAction != plan.NoCursor {
		return x.cursorExecuted(po)
	}
	return nil
}

// ExtRun runs a deferred statement's portal.
func (x *Exec) ExtRun(po *Portal) error {
	if err := x.closeUnits(); err != nil {
		return err
	}
	x.inSeries, x.piped = true, true
	defer func() { x.inSeries, x.piped = false, false }()
	_, err := x.Run(po.Stmt.Plan, &po.Args, false)
	return err
}
