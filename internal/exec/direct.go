package exec

import (
	"errors"
	"slices"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// A direct session and its one backend are put together: what the client sends
// goes there as it is, and what the server says comes back as it is. Transactions,
// settings and prepared statements are the server's own then; the session only
// counts answers. It is for keyspaces of one shard.

// Direct is that state.
type Direct struct {
	x *Exec
	p *part
	c *backend.Conn // p's, also while Aside lasts
	// own: the connection was made with the client's startup packet, and so RESET
	// means there what it means to the client. It is never given to others.
	own bool
	// Kept is why the session stays direct after the transaction, "" while it need not.
	Kept string
	// due are the answers that are still to come: one for each Query, Sync and
	// function call, by its message's type; and endOfData among them.
	due []byte
	// Failed says that the last answer that ended was, or had, an error; failed says
	// it of the one that has not ended.
	failed, Failed bool
	// fed: the server asks for COPY data.
	fed bool
	// open: messages have been sent of which no Sync has told the end.
	open bool
	// implicit: the block on the server is a pipeline's that the client has not opened;
	// it ends with the Sync. ending: its end has been sent.
	implicit, ending bool
	// AllDiscarded: what the server completed last is DISCARD ALL.
	AllDiscarded bool
	// over: the server has said that it ends the connection.
	over bool
	// parsed are Parse messages without an answer, in their order, and endOfUnit for
	// each of due.
	parsed []string
	// Prepared are the client's statements that exist on the server, by name.
	Prepared map[string]struct{}
	// shared are the router's prepared statements that the server had when the session
	// became direct; Unsure says that the client's SQL may have dropped them.
	shared backend.Statements
	Unsure bool
	// Refuted is called for a statement that the server did not prepare.
	Refuted func(name string)
}

// IsDirect says whether the session is direct.
func (x *Exec) IsDirect() bool { return x.direct != nil }

// GoDirect makes the session direct. keep: it will stay so. startup are the
// client's own startup parameters. What the session has open goes on where it is.
func (x *Exec) GoDirect(keep bool, startup []pgwire.Param) (*Direct, error) {
	d := &Direct{x: x, Prepared: map[string]struct{}{}}
	home := x.Place.Home
	var p *part
	var err error
	if keep && len(x.txn.parts) == 0 && len(x.pinned) == 0 && x.pinsLost == nil {
		if p, err = x.acquireOwn(home, startup); err == nil && x.txn.block {
			x.beginOn(p)
			x.txn.parts = append(x.txn.parts, p)
		}
		d.own = true
	} else {
		p, err = x.bind(home)
	}
	if err != nil {
		return nil, err
	}
	if d.own && !x.txn.block {
		p.dirty = true // what it does is not looked at
		p.past()
		x.adopt(p.conn.Params)
		d.p, d.c, x.direct = p, p.conn, d
		return d, nil
	}
	if p.replica != nil {
		return nil, pgerr.ReplicaBlock.New("this statement needs shard %s's primary, and the transaction reads from a replica", x.Place.Shards[home])
	}
	p.dirty = true // what it does is not looked at
	if err := x.flush(p); err != nil {
		return nil, err
	}
	if err := x.settle(p); err != nil {
		return nil, err
	}
	if i := slices.Index(x.txn.parts, p); i >= 0 {
		x.txn.parts = slices.Delete(x.txn.parts, i, i+1)
	}
	for _, s := range x.Settings.journal {
		if !s.local {
			d.Kept = "settings" // ROLLBACK may undo them: the server knows
		}
	}
	if p.pinned != 0 {
		d.Kept = p.pinned.String()
	}
	if x.txn.failed && p.conn.TxStatus != pgwire.TxFailed {
		// The router refused something in the block: so must the server from now on.
		if _, err := x.query(p, "SELECT 1/0", nil); err == nil || Fatal(err) || p.conn.Broken() {
			return nil, err
		}
	}
	p.past() // what is there from now on is the client's
	x.adopt(p.conn.Params)
	d.open = p.unit.open
	d.implicit = x.txn.block && !x.txn.explicit
	d.p, d.c, d.shared = p, p.conn, p.conn.SetAside()
	p.wrote = true // or may: what reads from replicas afterwards sees it
	x.txn = txn{parts: x.txn.parts, saves: x.txn.saves[:0]}
	x.Settings.journal = x.Settings.journal[:0]
	x.Settings.endLocal()
	x.direct = d
	return d, nil
}

// acquireOwn makes a connection for this session alone.
func (x *Exec) acquireOwn(shard int, startup []pgwire.Param) (*part, error) {
	tgt := x.Place.Targets[shard]
	pool := x.Opts.Pools.Pool(x.T.Loop(), tgt, backend.Key{Addr: tgt.Addr, Database: x.Place.Database, Role: x.Role})
	x.T.Want(x.Client, 0)
	c, err := pool.AcquireOwn(x.T, x.Cred, startup)
	if err != nil {
		var e *pgerr.Error
		if errors.As(err, &e) {
			return nil, e.WithSeverity(pgerr.SeverityError)
		}
		return nil, err
	}
	p := x.Commons.part()
	p.shard, p.conn, p.tainted, p.wrote = shard, c, true, true
	c.Settings = x.Settings.base
	return p, x.ensureSettings(p)
}

// Status is the server's, of the last ReadyForQuery.
func (d *Direct) Status() byte { return d.p.conn.TxStatus }

// Quiet says whether every answer has come.
func (d *Direct) Quiet() bool { return !d.owed() && !d.open && d.p.big == 0 }

// Idle says whether the server owes nothing: what it waits for is the client's to send.
func (d *Direct) Idle() bool { return !d.owed() && d.p.big == 0 }

// Open says whether a series of extended-protocol messages has no Sync yet.
func (d *Direct) Open() bool { return d.open }

// Full says whether so much waits to be sent to the server that the client is not
// to be read.
func (d *Direct) Full() bool { return d.p.conn.Queued() > highWater }

// Send queues a client's message for the server.
func (d *Direct) Send(typ byte, msg []byte) {
	c := d.p.conn
	switch typ {
	case pgwire.TypeQuery, pgwire.TypeFunctionCall:
		d.await(typ)
		d.open = false
		d.p.start = time.Now()
	case pgwire.TypeSync:
		if d.open = false; !d.fed {
			d.await(typ)
		}
	case pgwire.TypeCopyDone, pgwire.TypeCopyFail:
		d.dataEnds()
	case pgwire.TypeParse, pgwire.TypeBind, pgwire.TypeDescribe, pgwire.TypeExecute, pgwire.TypeClose:
		if !d.open {
			d.p.start = time.Now()
		}
		d.open = true
	}
	if c.Queued() == 0 && len(msg) >= collected {
		_ = c.Send(msg) // what does not go is queued; an error shows with Flush
		return
	}
	c.Write(msg)
}

func (d *Direct) await(typ byte) {
	d.due = append(d.due, typ)
	d.parsed = append(d.parsed, endOfUnit)
}

// Parsing notes that the message sent last was a Parse for that name.
func (d *Direct) Parsing(name string) {
	d.parsed = append(d.parsed, name)
	d.Prepared[name] = struct{}{}
}

// Prepare has the server prepare what the session had before it was direct; its
// answer is not the client's.
func (d *Direct) Prepare(st *Stmt) {
	d.open = true
	d.p.conn.SetOut(pgwire.AppendParseRest(d.p.conn.OutBuf(), st.Name, st.SQL, st.Rest))
	d.Prepared[st.Name] = struct{}{}
	d.parsed = append(d.parsed, hiddenParse)
}

// HasShared says whether the server has a statement that the session had before it was
// direct, under the name that the router gave it, and not under the client's own.
func (d *Direct) HasShared(st *Stmt) bool {
	_, own := d.Prepared[st.Name]
	return !own && !d.Unsure && st.Shared != "" && d.shared.Has(st.Shared)
}

// PrepareApart is Prepare outside any transaction, when every answer has come: its
// failure leaves nothing behind but that the statement does not exist.
func (d *Direct) PrepareApart(st *Stmt) error {
	c := d.p.conn
	c.SetOut(pgwire.AppendSync(pgwire.AppendParseRest(c.OutBuf(), st.Name, st.SQL, st.Rest)))
	d.p.skipZ++
	if err := d.x.flush(d.p); err != nil {
		return err
	}
	err := d.x.settle(d.p)
	if err == nil {
		d.Prepared[st.Name] = struct{}{}
	}
	return err
}

// hiddenParse marks a Parse of the router's own among the parsed.
const hiddenParse = "\x00"

// endOfUnit stands between what comes before a ReadyForQuery and what comes after.
const endOfUnit = "\x01"

// unprepare has the server drop the client's prepared statements before the session is
// direct no more, and the router's own where nobody knows which of them the client's
// SQL has left there. Otherwise those stay: what other clients have prepared is then
// refused after a change of its result, as PostgreSQL does.
func (d *Direct) unprepare() error {
	c := d.p.conn
	switch {
	case d.Unsure && d.shared.Len()+len(d.Prepared) > 0:
		c.SetOut(pgwire.AppendQuery(c.OutBuf(), "DEALLOCATE ALL"))
	case len(d.Prepared) > 0:
		for name := range d.Prepared {
			c.SetOut(pgwire.AppendClose(c.OutBuf(), pgwire.KindStatement, name))
		}
		c.SetOut(pgwire.AppendSync(c.OutBuf()))
	default:
		c.Recall(d.shared)
		return nil
	}
	d.p.skipZ++
	if err := d.x.flush(d.p); err != nil {
		return err
	}
	err := d.x.settle(d.p)
	if err == nil && !d.Unsure {
		c.Recall(d.shared)
	}
	return err
}

// Leave ends the direct state at a moment when nothing is open and nothing keeps it.
func (d *Direct) Leave() error {
	x := d.x
	x.direct = nil
	var err error
	if d.own {
		d.p.conn.Break()
	} else if err = d.unprepare(); err != nil {
		d.p.conn.Break()
	}
	x.release(d.p)
	if Fatal(err) {
		return err
	}
	return nil
}

// Aside ends the direct state for one statement of the router's own, outside a
// transaction and when every answer has come: the connection is one that the session
// keeps. Resume is its counterpart.
func (d *Direct) Aside() {
	d.x.direct = nil
	d.p.pinned |= plan.PinCode
	d.x.pinned = append(d.x.pinned, d.p)
}

// Resume makes the session direct again. It says no where the connection has been lost,
// of which the session then hears with its next statement.
func (d *Direct) Resume() bool {
	x := d.x
	for i, p := range x.pinned {
		if p.conn == d.c {
			x.pinned = slices.Delete(x.pinned, i, i+1)
			p.dirty = true
			d.p, x.direct = p, d
			return true
		}
	}
	return false
}

// Discarded is Leave after the client's DISCARD ALL.
func (d *Direct) Discarded() {
	x := d.x
	x.direct = nil
	d.p.conn.Break()
	x.release(d.p)
	x.Settings.discard()
	clear(x.cursors)
}

// Relay passes on what the server has sent so far. again: more may be there.
func (d *Direct) Relay() (again bool, err error) {
	x, p, c := d.x, d.p, d.p.conn
	switch _, err := c.Fill(); err {
	case nil, loop.ErrWouldBlock:
	default:
		if len(c.In()) == 0 {
			return false, d.lost(err)
		}
	}
	buf := c.In()
	i, start := 0, 0
	if p.big > 0 {
		i = min(p.big, len(buf))
		p.big -= i
	}
	pass := func(to int) {
		if start < to {
			x.Client.Write(buf[start:to])
		}
	}
	for p.big == 0 {
		rest := buf[i:]
		typ, n, _ := pgwire.Frame(rest)
		if n < 0 {
			return false, d.lost(errBadFrame)
		}
		if n == 0 {
			break
		}
		if n > len(rest) {
			if n >= bigFrame && (typ == pgwire.TypeDataRow || typ == pgwire.TypeCopyData) {
				p.big = n - len(rest)
				i = len(buf)
				break
			}
			c.Reserve(n)
			break
		}
		msg := rest[:n]
		keep := true
		switch typ {
		case pgwire.TypeReadyForQuery:
			if d.endsImplicit(msg[5]) {
				keep = false
				break
			}
			d.answered(msg[5])
			if x.Settings.untold {
				pass(i)
				start = i
				x.Report()
			}
		case pgwire.TypeErrorResponse:
			d.error(msg)
		case pgwire.TypeParseComplete:
			if len(d.parsed) > 0 && d.parsed[0] != endOfUnit {
				keep = d.parsed[0] != hiddenParse
				d.parsed = d.parsed[1:]
			}
			d.AllDiscarded = false
		case pgwire.TypeCopyInResponse:
			d.asksForData()
		case pgwire.TypeCommandComplete:
			d.fed = false
			if d.AllDiscarded = string(msg[pgwire.HeaderSize:n-1]) == "DISCARD ALL"; d.AllDiscarded {
				x.adopt(x.greeted) // what the server has for it may be less: see Discarded
			}
			if keep = !d.ending; d.implicit {
				pass(i)
				start = i
				d.completed(string(msg[pgwire.HeaderSize : n-1]))
			}
		case pgwire.TypeNoticeResponse:
			keep = !d.doubts(msg)
		case pgwire.TypeParameterStatus:
			x.parameterStatus(p, msg, !d.AllDiscarded)
			keep = false
		case pgwire.TypeNotificationResponse:
			pass(i)
			x.notification(msg)
			keep, start = false, i+n
			i += n
			continue
		}
		if !keep {
			pass(i)
			start = i + n
		}
		i += n
	}
	pass(i)
	c.Consume(i)
	return i > 0, nil
}

// answered takes a ReadyForQuery.
func (d *Direct) answered(status byte) {
	c := d.p.conn
	c.TxStatus = status
	d.fed, d.ending = false, false
	d.settled()
	d.refute()
	if len(d.parsed) > 0 {
		d.parsed = d.parsed[1:]
	}
	d.Failed, d.failed = d.failed, false
	d.p.unit.reset()
	d.x.observe(d.p, d.Failed)
}

// error takes an ErrorResponse: the server skips to the next Sync.
func (d *Direct) error(msg []byte) {
	d.failed, d.fed = true, false
	d.refute()
	if e, err := pgwire.ParseError(msg[5:]); err == nil && e.IsFatal() {
		d.over = true
	}
}

// refute forgets the statements whose Parse the server has not answered before the
// end of their unit.
func (d *Direct) refute() {
	for len(d.parsed) > 0 && d.parsed[0] != endOfUnit {
		if name := d.parsed[0]; name != hiddenParse {
			delete(d.Prepared, name)
			if d.Refuted != nil {
				d.Refuted(name)
			}
		}
		d.parsed = d.parsed[1:]
	}
}

// lost is the end of the server's connection, and so of the client's: what it had
// there is gone.
func (d *Direct) lost(err error) error {
	d.p.conn.Break()
	if d.p.big > 0 || d.over {
		return ErrCut // it knows, or can be told nothing
	}
	return pgerr.Fatal(pgerr.ConnectionFailure, "the connection to shard %s that this session was bound to was lost", d.x.Place.Shards[d.p.shard]).
		WithHint("Connect again.").WithCause(err)
}

// Flush sends what is queued for either side as far as it goes.
func (d *Direct) Flush() error {
	if err := d.x.Client.Flush(); err != nil && err != loop.ErrWouldBlock {
		return ErrClientGone
	}
	if err := d.p.conn.Flush(); err != nil && err != loop.ErrWouldBlock {
		// The server may have said why before it went.
		if _, err := d.p.conn.Fill(); err == nil {
			return nil
		}
		return d.lost(err)
	}
	return nil
}

// Wait suspends the session until the server has something to say, the client
// too if it is to be read, or something more can be sent.
func (d *Direct) Wait(client bool, deadline time.Time) (loop.Cause, error) {
	x, c := d.x, d.p.conn
	ev := loop.Hangup
	if client {
		ev = loop.Readable
	}
	if x.Client.Queued() > 0 {
		ev |= loop.Writable
	}
	bev := loop.Events(0)
	if x.Client.Queued() <= highWater {
		bev = loop.Readable
	}
	if c.Queued() > 0 {
		bev |= loop.Writable
	}
	x.T.Want(x.Client, ev)
	x.T.Want(c.Conn, bev)
	cause, err := x.T.Wait(deadline)
	x.T.Want(c.Conn, 0)
	return cause, err
}

// Choked says whether the client is so slow that the server is not to be read.
func (d *Direct) Choked() bool { return d.x.Client.Queued() > highWater }

// Keep has the session stay direct.
func (d *Direct) Keep(why plan.Pin, other string) {
	if d.Kept == "" {
		if d.Kept = why.String(); d.Kept == "" {
			d.Kept = other
		}
	}
}

// Begin notes what the message being sent does, for measurements.
func (d *Direct) Begin(operation string) { d.x.op = operation }
