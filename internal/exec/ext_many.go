package exec

import (
	"strconv"
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// manyPortal is what a portal over several shards is made of. Each shard has a
// portal of the client's name, bound when the client binds: so that later changes
// by the same transaction are not seen by it, as on one server.
type manyPortal struct {
	serial uint64 // of the transaction that it lives in
	at     int    // of Shards: the one whose rows come next
	held   *held  // what is left of an answer that has been read whole
}

// held is an answer that was read to its end before the client took all of it: of
// what writes, and of rows that are made of several shards'.
type held struct {
	rows []byte // DataRow messages
	verb string // "INSERT 0"
}

// maxHeld bounds the rows that are held for a portal, in bytes.
const maxHeld = 64 << 20

// opening is a portal over several shards whose Binds have been sent and whose
// answers have not been read: what follows may go in the same packet.
type opening struct {
	po        *Portal
	shards    []int
	tell      bool   // BindComplete is due to the client
	described bool   // and what the first shard says of its rows
	tail      []byte // and then this
	head      []byte // what was said of its rows, where that waits for them
}

// Opening says whether a portal's Bind on several shards has not been answered.
func (x *Exec) Opening() bool { return x.ext.opening.po != nil }

// timesBetween is timesFor within a pipeline: the question goes to a shard by a
// simple Query, so pipelines that are open there are brought to a stop first.
func (x *Exec) timesBetween(p *plan.Plan) (*plan.Times, error) {
	if len(p.NowEdits) == 0 {
		return nil, nil
	}
	if !x.txn.block {
		if err := x.upgrade(); err != nil {
			return nil, err
		}
	}
	if err := x.closeUnits(); err != nil {
		return nil, err
	}
	return x.timesFor(p, true)
}

func (x *Exec) rowsFor(po *Portal, shard int) []int {
	if po.Stmt.Plan.Route.Kind != plan.Rows {
		return nil
	}
	if err := po.Stmt.Plan.BindRows(&x.split, &po.Args, x.Place.Map); err != nil {
		return nil // it was bound before without one
	}
	return x.split.Rows(nil, shard)
}

// bindMany sends a portal's Bind to all its shards, which are all bound to the
// transaction before anything is sent.
func (x *Exec) bindMany(po *Portal) error {
	pl := po.Stmt.Plan
	if _, _, err := pl.Multi.RowLimit(&po.Args); err != nil {
		return err
	}
	if pl.Access >= plan.Lock && !x.Place.TwoPhase {
		return pgerr.New(pgerr.FeatureNotSupported, "keyspace %q forbids writes on several shards", x.Place.Keyspace).
			WithHint("Its two_phase_commit is off: name one shard key, or set it to required.")
	}
	if err := x.ExtFlush(); err != nil {
		return err
	}
	if (pl.Access >= plan.Lock || pl.Declare != nil) && !x.txn.block {
		if err := x.upgrade(); err != nil {
			return err
		}
		if err := x.ExtFlush(); err != nil {
			return err
		}
	}
	times, err := x.timesBetween(pl)
	if err != nil {
		return err
	}
	for _, shard := range po.Shards {
		if _, err := x.bindMember(pl, shard); err != nil {
			x.Fail()
			return err
		}
	}
	x.ext.cur = nil
	po.many = &manyPortal{serial: x.serial}
	o := &x.ext.opening
	o.po, o.tell, o.described, o.tail = po, !x.hide, false, o.tail[:0]
	o.shards = append(o.shards[:0], po.Shards...)
	for _, shard := range po.Shards {
		p := x.find(shard)
		p.unit.open = true
		if err := x.bindOn(p, po, x.rowsFor(po, shard), hidden, times); err != nil {
			o.tell = false
			return err
		}
	}
	return nil
}

// opened reads what the shards say to an opening portal and tells the client. The
// shards may have been sent more behind the Binds. All are read, whichever fails.
func (x *Exec) opened() error {
	o := &x.ext.opening
	if o.po == nil {
		return nil
	}
	o.po = nil
	var first error
	var columns []byte
	for _, shard := range o.shards {
		p := x.find(shard)
		if p == nil || p.conn.Broken() {
			continue
		}
		p.conn.SetOut(pgwire.AppendFlush(p.conn.OutBuf()))
		err := x.flush(p)
		if err == nil {
			err = x.hiddenAnswers(p, &columns)
		}
		if err != nil {
			if Fatal(err) {
				return err
			}
			if first == nil {
				first = err
			}
		}
	}
	if first != nil {
		x.Fail()
		return first
	}
	if o.tell {
		x.Client.SetOut(appendEmpty(x.Client.OutBuf(), pgwire.TypeBindComplete))
	}
	if o.head = nil; x.hide {
		o.head = columns
	} else {
		x.Client.Write(columns)
	}
	x.Client.Write(o.tail)
	return nil
}

// hiddenAnswers reads the answers that p's unit expects. Those that are the
// client's are added to keep.
func (x *Exec) hiddenAnswers(p *part, keep *[]byte) error {
	u := &p.unit
	for u.pending() {
		typ, msg, err := x.frame(p)
		if err != nil {
			return err
		}
		if p.skipErr != nil {
			return x.beginFailed(p)
		}
		switch typ {
		case pgwire.TypeParseComplete, pgwire.TypeBindComplete, pgwire.TypeCloseComplete, pgwire.TypeNoData,
			pgwire.TypeRowDescription, pgwire.TypeCommandComplete, pgwire.TypeEmptyQueryResponse, pgwire.TypePortalSuspended:
			if typ == pgwire.TypeRowDescription {
				if msg, err = x.describe(p, typ, msg); err != nil {
					return err
				}
			}
			if u.queue[u.head].what == relayed {
				*keep = append(*keep, msg...)
			}
			u.queue[u.head].name = ""
			u.head++
		case pgwire.TypeNoticeResponse:
			x.Client.Write(msg)
		case pgwire.TypeErrorResponse:
			failed := x.shardError(p, msg)
			x.unitFailed(p)
			return failed
		}
	}
	return nil
}

// describeMany asks the first shard what a portal's rows are.
func (x *Exec) describeMany(po *Portal) error {
	if x.gone(po) {
		return noPortal(po)
	}
	var p *part
	if o := &x.ext.opening; o.po == po && !o.described && len(o.tail) == 0 {
		p, o.described = x.find(po.Shards[0]), true
	} else {
		var err error
		if p, err = x.need(po.Shards[0], po.Stmt.Plan); err != nil {
			return err
		}
	}
	p.conn.SetOut(pgwire.AppendDescribe(p.conn.OutBuf(), pgwire.KindPortal, po.Name))
	p.unit.push(expectation{what: relayed, stmt: po.Stmt})
	return nil
}

// closeMany closes a portal on all its shards.
func (x *Exec) closeMany(po *Portal) error {
	if err := x.ExtFlush(); err != nil {
		return err
	}
	for _, shard := range po.Shards {
		if p := x.find(shard); p != nil && !x.gone(po) && !p.conn.Broken() {
			p.unit.open = true
			p.conn.SetOut(pgwire.AppendClose(p.conn.OutBuf(), pgwire.KindPortal, po.Name))
			p.unit.push(expectation{what: hidden})
		}
	}
	x.ext.cur = nil
	x.Client.SetOut(appendEmpty(x.Client.OutBuf(), pgwire.TypeCloseComplete))
	return nil
}

// gone says whether the transaction that a portal lived in has ended.
func (x *Exec) gone(po *Portal) bool { return po.many.serial != x.serial }

func noPortal(po *Portal) error {
	return pgerr.New(pgerr.InvalidCursorName, "portal %q does not exist", po.Name)
}

// executeMany runs a portal on several shards and merges their answers. With a row
// limit, rows that are simply put together come from one shard after the other,
// each of which is asked for what is still wanted.
func (x *Exec) executeMany(po *Portal, maxRows int32) error {
	pl := po.Stmt.Plan
	if x.gone(po) {
		return noPortal(po)
	}
	if x.ext.opening.po != po || len(x.ext.opening.tail) > 0 {
		if err := x.ExtFlush(); err != nil {
			return err
		}
	}
	if !pl.Returns || maxRows < 0 {
		maxRows = 0
	}
	x.op = pl.Operation
	x.ext.cur = nil
	x.LastShards = append(x.LastShards[:0], po.Shards...)
	switch {
	case po.many.held != nil:
		if err := x.opened(); err != nil {
			return err
		}
		return x.deal(po.many.held, maxRows)
	case maxRows == 0:
		return x.executeAll(po, nil)
	case pl.Multi.Kind == plan.Concat && pl.Access < plan.Write && pl.Multi.Limit == nil:
		return x.executeSome(po, maxRows)
	}
	h := &held{}
	if err := x.executeAll(po, h); err != nil {
		return err
	}
	return x.deal(h, maxRows)
}

// executeAll runs a portal to its end on all the shards that it has not been run to
// its end on. The answer goes to the client, or to h.
func (x *Exec) executeAll(po *Portal, h *held) error {
	pl := po.Stmt.Plan
	m := merger{x: x, plan: pl, formats: po.Results, hold: h}
	m.limit, m.limited, _ = pl.Multi.RowLimit(&po.Args) // it was read before
	for _, shard := range po.Shards[po.many.at:] {
		p := x.find(shard)
		m.parts = append(m.parts, p)
		m.frags = append(m.frags, fragment{shard: shard, rows: x.rowsFor(po, shard)})
		p.unit.open, p.unit.ran, p.owes = true, true, true
		x.touch(pl, p)
		p.swap = nil
		x.describeRows(p, po)
		out := pgwire.AppendExecute(p.conn.OutBuf(), po.Name, 0)
		p.conn.SetOut(pgwire.AppendFlush(out))
		if err := x.flush(p); err != nil {
			x.executed(&m, err)
			return err
		}
	}
	m.whole = pl.Returns && (pl.Access == plan.Write || x.hide)
	m.failed = x.openedBefore(m.parts)
	m.head, x.ext.opening.head = x.ext.opening.head, nil
	tag, err := m.run()
	x.executed(&m, err)
	if err != nil {
		return err
	}
	x.cursorRan(pl, po.Shards)
	verb := tagVerb(tag)
	if pl.Returns {
		// Executed once more it has no more rows.
		po.many.held = &held{verb: verb}
	}
	if h == nil {
		x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
		return nil
	}
	h.verb, po.many.held = verb, h
	return nil
}

// openedBefore reads what is due before the answers to Execute.
func (x *Exec) openedBefore(parts []*part) error {
	first := x.opened()
	for _, p := range parts {
		if p.conn.Broken() || p.unit.failed {
			continue
		}
		// A Close of another portal may be among them.
		if err := x.hiddenAnswers(p, nil); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// executed closes the books on an Execute over several shards.
func (x *Exec) executed(m *merger, err error) {
	for _, p := range m.parts {
		x.observe(p, err != nil)
		if err == nil {
			continue
		}
		x.unitFailed(p)
		if p.owes && !x.hush(p) {
			p.conn.Break() // or what it still says would reach the client
		}
	}
	if err != nil {
		x.Fail()
	}
}

// executeSome passes on at most maxRows rows of a portal.
func (x *Exec) executeSome(po *Portal, maxRows int32) error {
	left := maxRows
	for ; ; po.many.at++ {
		p := x.find(po.Shards[po.many.at])
		m := merger{x: x, plan: po.Stmt.Plan, parts: []*part{p}}
		p.unit.open, p.unit.ran, p.owes = true, true, true
		x.touch(po.Stmt.Plan, p)
		p.swap = nil
		x.describeRows(p, po)
		out := pgwire.AppendExecute(p.conn.OutBuf(), po.Name, left)
		p.conn.SetOut(pgwire.AppendFlush(out))
		err := x.flush(p)
		if err == nil {
			err = x.openedBefore(m.parts)
		}
		if err == nil {
			err = m.read(0, p, false)
		}
		x.executed(&m, err)
		if err != nil {
			return err
		}
		if left -= int32(m.rows); m.suspended {
			x.Client.SetOut(appendEmpty(x.Client.OutBuf(), pgwire.TypePortalSuspended))
			return nil
		}
		if po.many.at == len(po.Shards)-1 {
			tag := tagVerb(m.tags[0]) + " " + strconv.Itoa(int(maxRows-left))
			x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
			return nil
		}
	}
}

// deal passes on at most maxRows rows of what is held, 0 for all.
func (x *Exec) deal(h *held, maxRows int32) error {
	n := 0
	for ; len(h.rows) > 0 && (maxRows == 0 || n < int(maxRows)); n++ {
		_, size, _ := pgwire.Frame(h.rows)
		x.Client.Write(h.rows[:size])
		h.rows = h.rows[size:]
		if x.Client.Queued() > highWater {
			if err := x.drainClient(); err != nil {
				return err
			}
		}
	}
	if maxRows != 0 && n == int(maxRows) {
		x.Client.SetOut(appendEmpty(x.Client.OutBuf(), pgwire.TypePortalSuspended))
		return nil
	}
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), h.verb+" "+strconv.Itoa(n)))
	return nil
}

// tagVerb is a command tag without its row count.
func tagVerb(tag string) string {
	if cut := strings.LastIndexByte(tag, ' '); cut >= 0 {
		return tag[:cut]
	}
	return tag
}

// DescribeTypes asks shard for a statement's parameter types, by itself: nothing
// of it reaches the client. It must not run inside an open pipeline.
func (x *Exec) DescribeTypes(s *Stmt, shard int) ([]uint32, error) {
	own := x.find(shard) == nil
	p, err := x.bind(shard)
	if err != nil {
		return nil, err
	}
	rest, err := x.parseRest(p, s)
	if err != nil {
		return nil, err
	}
	c := p.conn
	out := pgwire.AppendParseRest(c.OutBuf(), "", s.SQL, rest)
	out = pgwire.AppendDescribe(out, pgwire.KindStatement, "")
	c.SetOut(pgwire.AppendSync(out))
	c.UnnamedOwner = 0
	p.owes = true
	if err := x.flush(p); err != nil {
		return nil, err
	}
	var types []uint32
	var failed error
	for {
		typ, msg, err := x.frame(p)
		if err != nil {
			return nil, err
		}
		switch typ {
		case pgwire.TypeParameterDescription:
			if msg, err = x.describe(p, typ, msg); err != nil {
				return nil, err
			}
			d, err := pgwire.ParseParameterDescription(msg[5:])
			if err != nil {
				return nil, x.lostShard(p, err)
			}
			for i := range d.Len() {
				types = append(types, d.At(i))
			}
		case pgwire.TypeErrorResponse:
			failed = x.parseError(p, msg)
		case pgwire.TypeReadyForQuery:
			p.owes = false
			if own && !x.txn.block {
				x.unbindAll()
			}
			if failed != nil {
				x.Fail()
			}
			return types, failed
		}
	}
}
