package exec

import (
	"strconv"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// spread is where a cursor over several shards stands. Its rows are those of the
// first shard, then those of the second, and so on, in either direction: a shard
// behind the one that it stands on is at its end, one before it at its start. Where
// rows are made of all shards' (aggregates), all stand alike, as one.
//
// Nothing is read ahead and nothing is kept: a server gives what is asked for, and
// says itself when its cursor does not go backwards.
type spread struct {
	*cursor
	name   string
	rows   plan.Merge
	binary bool
	lost   bool // one of its connections is gone
	at     int  // of shards
	// PostgreSQL's own account of a portal's position (portal.h).
	pos            int64
	atStart, atEnd bool
}

// groups is how many steps the cursor's rows are on.
func (c *spread) groups() int {
	if c.rows.Kind == plan.Aggregate {
		return 1
	}
	return len(c.shards)
}

// group are the shards that are asked at step i.
func (c *spread) group(i int) []int {
	if c.rows.Kind == plan.Aggregate {
		return c.shards
	}
	return c.shards[i : i+1]
}

// spread yields the cursor over several shards that FETCH or MOVE is about, or nil.
func (x *Exec) spread(p *plan.Plan) *spread {
	if p.Fetch == nil {
		return nil
	}
	if c := x.cursors[p.Cursor]; c != nil {
		return c.spread
	}
	return nil
}

// fetcher carries one FETCH or MOVE out.
type fetcher struct {
	x *Exec
	c *spread
	// simple: by simple Queries; else within an open pipeline, with formats.
	simple    bool
	formats   []int16
	hold      *held // takes the rows instead of the client
	described bool
	parts     []*part
}

// fetchQuery is FETCH or MOVE over several shards, of a simple Query: everything
// up to CommandComplete.
func (x *Exec) fetchQuery(q *plan.Fetch, c *spread) error {
	f := fetcher{x: x, c: c, simple: true}
	if c.binary {
		f.formats = []int16{1}
	}
	tag, err := f.run(q)
	for _, p := range f.parts {
		x.observe(p, err != nil)
	}
	if err != nil {
		x.Fail()
		if !x.txn.block {
			x.abandon()
		}
		return err
	}
	if !x.txn.block {
		x.unbindAll()
	}
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
	return nil
}

// run moves the cursor and yields the command tag.
func (f *fetcher) run(q *plan.Fetch) (tag string, err error) {
	x := f.x
	x.LastShards = x.LastShards[:0]
	if f.c.lost {
		return "", pgerr.New(pgerr.ConnectionFailure, "a connection that cursor %q had rows on was lost", f.c.name).WithHint("CLOSE it and declare it anew.")
	}
	n, err := f.fetch(q)
	if err != nil {
		return "", err
	}
	verb := "FETCH "
	if q.Move {
		verb = "MOVE "
	}
	return verb + strconv.FormatInt(n, 10), nil
}

// fetch is PostgreSQL's PortalRunFetch: each way to move, as steps forward and
// backward from where the cursor is.
func (f *fetcher) fetch(q *plan.Fetch) (int64, error) {
	n, to := q.Count, !q.Move
	switch q.Direction {
	case plan.Absolute:
		return f.absolute(n, to)
	case plan.Relative:
		return f.relative(n, to)
	}
	forward := q.Direction == plan.Forward
	if n < 0 {
		forward, n = !forward, -n
	}
	switch {
	case n == 0:
		return f.again(to)
	case !forward && n == plan.FetchAll && !to:
		passed := f.c.pos
		if passed > 0 && !f.c.atEnd {
			passed--
		}
		return passed, f.rewind()
	}
	return f.scan(forward, n, to)
}

// relative makes steps whose rows nobody sees, then one that is seen.
func (f *fetcher) relative(n int64, to bool) (int64, error) {
	if n == 0 {
		return f.again(to)
	}
	forward := n > 0
	if n < 0 {
		n = -n
	}
	if n > 1 {
		if _, err := f.scan(forward, n-1, false); err != nil {
			return 0, err
		}
	}
	return f.scan(forward, 1, to)
}

// absolute goes to row n, from where it is nearer.
func (f *fetcher) absolute(n int64, to bool) (int64, error) {
	c := f.c
	switch {
	case n < 0:
		if _, err := f.scan(true, plan.FetchAll, false); err != nil {
			return 0, err
		}
		return f.relative(n, to)
	case n == 0:
		if err := f.rewind(); err != nil {
			return 0, err
		}
		return f.again(to)
	}
	var err error
	if n-1 <= c.pos/2 {
		if err = f.rewind(); err == nil && n > 1 {
			_, err = f.scan(true, n-1, false)
		}
	} else {
		pos := c.pos
		if c.atEnd {
			pos++
		}
		if n <= pos {
			_, err = f.scan(false, pos-n+1, false)
		} else if n > pos+1 {
			_, err = f.scan(true, n-pos-1, false)
		}
	}
	if err != nil {
		return 0, err
	}
	return f.scan(true, 1, to)
}

// again gives the row that the cursor stands on once more, if it stands on one.
func (f *fetcher) again(to bool) (int64, error) {
	return f.ask(f.c.at, "RELATIVE 0", to)
}

// rewind brings the cursor to its start.
func (f *fetcher) rewind() error {
	c := f.c
	if c.atStart && !c.atEnd {
		return nil
	}
	for i := c.at; i >= 0; i-- {
		if _, err := f.ask(i, "ABSOLUTE 0", false); err != nil {
			return err
		}
	}
	c.at, c.pos, c.atStart, c.atEnd = 0, 0, true, false
	return nil
}

// scan is PostgreSQL's PortalRunSelect: n rows on or back, FetchAll for all. At
// least one server is asked, for the description of the rows and for what it has to
// say against the direction.
func (f *fetcher) scan(forward bool, n int64, to bool) (got int64, err error) {
	c := f.c
	word, step, last := "FORWARD ", 1, c.groups()-1
	if !forward {
		word, step, last = "BACKWARD ", -1, 0
	}
	stuck := forward && c.atEnd || !forward && c.atStart
	all := n == plan.FetchAll
	for {
		count := "ALL"
		if !all {
			count = strconv.FormatInt(n-got, 10)
		}
		k, err := f.ask(c.at, word+count, to)
		if err != nil {
			return 0, err
		}
		got += k
		if !all && got >= n || c.at == last {
			break
		}
		c.at += step
	}
	if stuck {
		return got, nil
	}
	if forward {
		c.atStart = c.atStart && got == 0
		c.atEnd = all || got < n
		c.pos += got
		return got, nil
	}
	if got > 0 && c.atEnd {
		c.atEnd = false
		c.pos++
	}
	if c.pos -= got; all || got < n {
		c.atStart, c.pos = true, 0
	}
	return got, nil
}

// ask sends FETCH, or MOVE where nobody is to see the rows, to the shards of one step.
func (f *fetcher) ask(step int, what string, to bool) (n int64, err error) {
	x, c := f.x, f.c
	verb := "FETCH "
	if !to {
		verb = "MOVE "
	}
	sql := verb + what + " FROM " + quoteIdent(c.name)
	m := merger{x: x, plan: &plan.Plan{Multi: c.rows}, simple: f.simple, formats: f.formats, hold: f.hold, described: f.described}
	if c.rows.Kind == plan.Aggregate {
		m.agg = newAggregator(c.rows.Columns, f.formats)
	}
	for _, shard := range c.group(step) {
		p, err := f.part(shard)
		if err != nil {
			return 0, err
		}
		m.parts = append(m.parts, p)
	}
	for _, p := range m.parts {
		if err := f.send(p, sql); err != nil {
			return 0, err
		}
	}
	err = f.answers(&m)
	f.described = m.described
	if err != nil {
		return 0, err
	}
	for i, t := range m.tags {
		k, err := strconv.ParseInt(t[len(verb):], 10, 64)
		if err != nil || i > 0 && k != n {
			return 0, pgerr.New(pgerr.InternalError, "shard %s answered %q to %q", x.Place.Shards[m.parts[i].shard], t, sql)
		}
		n = k
	}
	if m.agg != nil && to && n > 0 {
		row, err := m.agg.row(nil)
		if err == nil {
			err = m.send(row)
		}
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// part yields the part that has the shard's cursor.
func (f *fetcher) part(shard int) (*part, error) {
	x := f.x
	p := x.find(shard)
	if p == nil {
		var err error
		if p, err = x.bind(shard); err != nil {
			return nil, err
		}
	}
	for _, q := range f.parts {
		if q == p {
			return p, nil
		}
	}
	f.parts = append(f.parts, p)
	x.LastShards = append(x.LastShards, shard)
	return p, nil
}

// fetchPortal is the portal on a server that a FETCH of ours runs in.
const fetchPortal = "sharding_fetch"

func (f *fetcher) send(p *part, sql string) error {
	x := f.x
	p.owes = true
	if f.simple {
		queueQuery(p.conn, sql)
		return x.flush(p)
	}
	p.unit.open, p.unit.ran = true, true
	p.conn.UnnamedOwner = 0
	out, err := pgwire.AppendParse(p.conn.OutBuf(), "", sql, nil)
	if err != nil {
		return pgerr.From(err)
	}
	bind := pgwire.Bind{Portal: fetchPortal, Results: f.formats}
	if out, err = pgwire.AppendBind(out, &bind); err != nil {
		return pgerr.From(err)
	}
	out = pgwire.AppendExecute(out, fetchPortal, 0)
	out = pgwire.AppendClose(out, pgwire.KindPortal, fetchPortal)
	p.conn.SetOut(pgwire.AppendFlush(out))
	p.unit.push(expectation{what: hidden})
	p.unit.push(expectation{what: hidden})
	return x.flush(p)
}

// answers reads what all the parts say, whichever fails.
func (f *fetcher) answers(m *merger) error {
	var first error
	for i, p := range m.parts {
		var err error
		if !f.simple {
			if err = f.x.hiddenAnswers(p, nil); err != nil {
				p.owes = false
			}
		}
		if err == nil {
			err = m.read(i, p, first != nil)
		}
		if err == nil && !f.simple {
			p.unit.push(expectation{what: hidden}) // to Close
			err = f.x.hiddenAnswers(p, nil)
		}
		if Fatal(err) {
			return err
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// executeCursor is Execute of a statement about cursors. done says that nothing is
// left to do.
func (x *Exec) executeCursor(po *Portal, maxRows int32) (done bool, err error) {
	pl := po.Stmt.Plan
	c := x.spread(pl)
	if c == nil {
		return false, x.mayDeclare(pl, true)
	}
	if err := x.ExtFlush(); err != nil {
		return true, err
	}
	x.op, x.ext.cur, x.ext.steps.off = pl.Operation, nil, true
	if !pl.Returns || maxRows < 0 {
		maxRows = 0
	}
	if po.fetched != nil {
		return true, x.deal(po.fetched, maxRows)
	}
	f := fetcher{x: x, c: c, formats: po.Results}
	h := &held{}
	if maxRows > 0 {
		f.hold = h
	}
	tag, err := f.run(pl.Fetch)
	f.executed(err)
	if err != nil {
		return true, err
	}
	// Executed once more it has no more rows.
	h.verb, po.fetched = tagVerb(tag), h
	if maxRows > 0 {
		return true, x.deal(h, maxRows)
	}
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
	return true, nil
}

// executed closes the books on a FETCH within a pipeline.
func (f *fetcher) executed(err error) {
	x := f.x
	for _, p := range f.parts {
		x.observe(p, err != nil)
		if err != nil {
			x.unitFailed(p)
			if p.owes && !x.hush(p) {
				p.conn.Break()
			}
		}
	}
	if err != nil {
		x.Fail()
	}
}

// cursorExecuted notes what a statement about cursors on one shard has done, once
// its server has said so.
func (x *Exec) cursorExecuted(po *Portal) error {
	pl := po.Stmt.Plan
	if pl.CursorAction == plan.UseCursor {
		return nil
	}
	x.ext.steps.off = true
	if err := x.ExtFlush(); err != nil {
		return err
	}
	x.cursorRan(pl, po.Shards)
	return nil
}
