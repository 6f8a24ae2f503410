package exec

import (
	"errors"
	"time"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// lostShard is the error for a connection that ended under a statement.
func (x *Exec) lostShard(p *part, err error) *pgerr.Error {
	p.conn.Lost()
	p.lost = true
	e := pgerr.New(pgerr.ConnectionFailure, "the connection to shard %s was lost", x.Place.Shards[p.shard]).
		WithHint("What the statement did there is rolled back unless its COMMIT had been sent. Run the transaction again.").WithCause(err)
	if p.stands() {
		p.told = true
		e = e.WithDetail("What the session had there is gone: %s.", p.pinned&^plan.PinMode)
	}
	return e
}

// wait suspends the session until p has something to read, or output of p or
// the client can be sent on. It notices a client that goes away.
func (x *Exec) wait(p *part) error {
	t, c := x.T, x.Client
	if c.Queued() > 0 && !x.detached {
		if err := c.Flush(); err != nil && err != loop.ErrWouldBlock {
			return ErrClientGone
		}
	}
	ev := loop.Hangup
	if c.Queued() > 0 {
		ev |= loop.Writable
	}
	if x.detached {
		ev = 0
	}
	t.Want(c, ev)
	var bev loop.Events
	if c.Queued() <= highWater || x.detached {
		bev = loop.Readable
	}
	if p.conn.Queued() > 0 {
		bev |= loop.Writable
	}
	t.Want(p.conn.Conn, bev)
	cause, err := t.Wait(x.limit)
	// A Want stands until it is changed: another part's wait must not be ended by
	// what this one has to read.
	t.Want(p.conn.Conn, 0)
	if err != nil {
		return err
	}
	if c.HupSeen() && !x.detached {
		return ErrClientGone
	}
	if cause&loop.CauseDeadline != 0 && cause&loop.CauseReady == 0 {
		return x.overdue(p)
	}
	if p.conn.Queued() > 0 {
		if err := p.conn.Flush(); err != nil && err != loop.ErrWouldBlock {
			return x.lostShard(p, err)
		}
	}
	return nil
}

// flush sends what is queued for p; what does not go out now goes with wait.
func (x *Exec) flush(p *part) error {
	p.start = time.Now()
	n := p.conn.Queued()
	if err := p.conn.Flush(); err != nil && err != loop.ErrWouldBlock {
		_, encrypted := p.conn.ConnectionState() // then what is queued tells nothing of what was sent
		p.unsent = !p.flushed && !encrypted && p.conn.Queued() == n
		return x.lostShard(p, err)
	}
	p.flushed = true
	return nil
}

// fill reads more from p, waiting for it.
func (x *Exec) fill(p *part) error {
	for {
		_, err := p.conn.Fill()
		switch err {
		case nil:
			return nil
		case loop.ErrWouldBlock:
			if err := x.wait(p); err != nil {
				return err
			}
		default:
			return x.lostShard(p, err)
		}
	}
}

// errBadFrame: a server does not send such lengths; something else speaks there.
var errBadFrame = errors.New("exec: invalid message length from the shard")

// frame yields p's next message, whole, waiting for it. It is valid until the
// next call. Answers of injected Queries are swallowed; the first error among
// them is kept in p.skipErr.
func (x *Exec) frame(p *part) (byte, []byte, error) {
	for {
		p.past()
		buf := p.conn.In()
		typ, n, _ := pgwire.Frame(buf)
		if n < 0 {
			return 0, nil, x.lostShard(p, errBadFrame)
		}
		if n == 0 || n > len(buf) {
			if n > 0 {
				p.conn.Reserve(n)
			}
			if err := x.fill(p); err != nil {
				return 0, nil, err
			}
			continue
		}
		p.pend, p.heard = n, true
		if typ == pgwire.TypeParameterStatus {
			x.parameterStatus(p, buf[:n], p.skipZ == 0)
			continue
		}
		if typ == pgwire.TypeNotificationResponse {
			x.notification(buf[:n])
			continue
		}
		if p.skipZ > 0 {
			x.swallow(p, typ, buf[:n])
			continue
		}
		if typ == pgwire.TypeRowDescription || p.swap != nil && (typ == pgwire.TypeDataRow || typ == pgwire.TypeCopyData) {
			if err := x.renumberFramed(p, typ, n); err != nil {
				p.conn.Break()
				return 0, nil, err
			}
			buf = p.conn.In()
		}
		if typ == pgwire.TypeReadyForQuery {
			p.conn.TxStatus = buf[5]
			p.owes = false
		}
		return typ, buf[:n], nil
	}
}

// swallow takes a message that answers an injected Query.
func (x *Exec) swallow(p *part, typ byte, msg []byte) {
	switch typ {
	case pgwire.TypeDataRow:
		if p.guarded {
			p.guardAnswer(msg[5:])
		}
	case pgwire.TypeErrorResponse:
		if p.guarded {
			p.guarded, p.skipErr = false, errNotFresh
			return
		}
		if e, err := pgwire.ParseError(msg[5:]); err == nil && p.skipErr == nil {
			p.skipErr = e
		}
	case pgwire.TypeReadyForQuery:
		p.conn.TxStatus = msg[5]
		p.skipZ--
	}
}

// parameterStatus takes a ParameterStatus; own says that it is about the session, not
// about what the router does to the connection on its own.
func (x *Exec) parameterStatus(p *part, msg []byte, own bool) {
	name, value, err := pgwire.ParseParameterStatus(msg[5:])
	if err != nil {
		return
	}
	if own {
		x.note(name, value)
	}
	p.conn.Params[string(name)] = string(value)
}

// settle waits until every injected Query of p is answered and yields the first
// error among the answers.
func (x *Exec) settle(p *part) error {
	p.past()
	for p.skipZ > 0 {
		buf := p.conn.In()
		typ, n, _ := pgwire.Frame(buf)
		if n < 0 {
			return x.lostShard(p, errBadFrame)
		}
		if n == 0 || n > len(buf) {
			if n > 0 {
				p.conn.Reserve(n)
			}
			if err := x.fill(p); err != nil {
				return err
			}
			continue
		}
		if typ == pgwire.TypeParameterStatus {
			x.parameterStatus(p, buf[:n], false)
		}
		if typ == pgwire.TypeNotificationResponse {
			x.notification(buf[:n])
		}
		x.swallow(p, typ, buf[:n])
		p.conn.Consume(n)
	}
	if e := p.skipErr; e != nil {
		p.skipErr = nil
		return e
	}
	return nil
}

// query runs sql on p by itself and yields its error, if it failed. Rows are
// passed to row, which may be nil.
func (x *Exec) query(p *part, sql string, row func(*pgwire.Values)) (tag string, err error) {
	x.sendQuery(p, sql)
	if err := x.flush(p); err != nil {
		return "", err
	}
	return x.answer(p, row)
}

func (x *Exec) sendQuery(p *part, sql string) {
	queueQuery(p.conn, sql)
	p.owes = true
}

// answer reads one Query's answers to its ReadyForQuery.
func (x *Exec) answer(p *part, row func(*pgwire.Values)) (tag string, failed error) {
	for {
		typ, msg, err := x.frame(p)
		if err != nil {
			return "", err
		}
		switch typ {
		case pgwire.TypeDataRow:
			if row != nil {
				r, err := pgwire.ParseDataRow(msg[5:])
				if err != nil {
					return "", x.lostShard(p, err)
				}
				vals := r.Values()
				row(&vals)
			}
		case pgwire.TypeCommandComplete:
			tag = string(msg[5 : len(msg)-1])
		case pgwire.TypeErrorResponse:
			if failed == nil {
				failed = x.parseError(p, msg)
			}
		case pgwire.TypeReadyForQuery:
			return tag, failed
		}
	}
}

func (x *Exec) parseError(p *part, msg []byte) error {
	e, err := pgwire.ParseError(msg[5:])
	if err != nil {
		return x.lostShard(p, err)
	}
	if e.IsFatal() {
		return x.farewell(p, e)
	}
	return x.overrun(e)
}

// farewell is for the error with which a server ends its own connection: the
// client's goes on.
func (x *Exec) farewell(p *part, e *pgerr.Error) *pgerr.Error {
	lost := x.lostShard(p, e)
	if lost.Detail != "" {
		lost.Detail = " " + lost.Detail
	}
	return lost.WithDetail("The server said: %s (%s).%s", e.Message, e.Code, lost.Detail)
}
