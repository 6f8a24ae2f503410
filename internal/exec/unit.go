package exec

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"

	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// expect is what the session does with an answer that ends the effect of one
// extended-protocol message (ParseComplete, BindComplete, RowDescription or
// NoData, CommandComplete, ...), in the order in which they were sent.
type expect uint8

const (
	relayed  expect = iota // pass it to the client
	hidden                 // swallow it: the message was the router's own
	answered               // nothing comes from the server; the router's own answer is due: synth
)

// unit is the extended-protocol messages sent to a part since its last Sync.
type unit struct {
	open   bool // a Sync is owed
	failed bool // the server skips to the next Sync
	bound  bool // a portal was bound
	ran    bool // something was executed
	queue  []expectation
	head   int
	late   []byte // a description of rows that waits for them
}

type expectation struct {
	what expect
	typ  byte   // for answered: the message type to send (all of them are empty)
	name string // for a Parse: the shared statement it makes
	stmt *Stmt  // for a Parse or a Describe: of what
	// portal: it is a Describe of a portal; rows: it is an Execute with one in front
	// of it that describes its rows.
	portal, rows bool
	// late: the description waits for the first row, or for the end.
	late bool
	// rowsOnly: what is said of parameters is not the client's.
	rowsOnly bool
	// made is what the message makes of the client's own, gone what it closes: neither
	// is so where the server skips it.
	made, gone Made
}

// Owner keeps the client's statements and portals.
type Owner interface {
	// Undo takes back that a message has made or closed something.
	Undo(made, gone Made)
}

// Made is a statement or a portal of the client's.
type Made struct {
	Stmt   *Stmt
	Portal *Portal
}

func (u *unit) push(e expectation) { u.queue = append(u.queue, e) }

func (u *unit) pending() bool { return u.head < len(u.queue) }

func (u *unit) reset() {
	u.open, u.failed, u.bound, u.ran, u.head, u.queue, u.late = false, false, false, false, 0, u.queue[:0], nil
}

// stop says where relay stops.
type stop uint8

const (
	atReady   stop = iota // after the ReadyForQuery, which is relayed if keepReady
	atPending             // when every expectation of the unit is met
)

// bigFrame is the size from which a row is passed through in pieces rather than
// held whole.
const bigFrame = 4 << 10

// relay passes p's answers to the client as bytes, framed but not decoded. With
// atReady it returns after ReadyForQuery; keepReady passes that on too. It
// reports whether an ErrorResponse went to the client, and whether the server
// asks for COPY data ('G' relayed: the caller takes over).
func (x *Exec) relay(p *part, until stop, keepReady bool) (failed, copyIn bool, err error) {
	c := p.conn
	p.past()
	if p.swap != nil && !p.swap.copy {
		p.swap = nil
	}
	for {
		if until == atPending && !p.unit.pending() && p.big == 0 {
			return failed, false, nil
		}
		buf := c.In()
		i, start := 0, 0 // buf[start:i] is to be relayed
		done := false
		if p.big > 0 {
			i = min(p.big, len(buf))
			p.big -= i
		}
	frames:
		for p.big == 0 && !done && !copyIn {
			rest := buf[i:]
			typ, n, _ := pgwire.Frame(rest)
			if n < 0 {
				return failed, false, x.lostShard(p, errBadFrame)
			}
			if n == 0 {
				break
			}
			if n > len(rest) {
				if n >= bigFrame && p.skipZ == 0 && p.swap == nil && p.unit.late == nil && (typ == pgwire.TypeDataRow || typ == pgwire.TypeCopyData) {
					p.big = n - len(rest)
					i = len(buf)
					break
				}
				c.Reserve(n)
				break
			}
			msg := rest[:n]
			if p.skipZ > 0 {
				switch typ {
				case pgwire.TypeParameterStatus:
					x.parameterStatus(p, msg, false)
				case pgwire.TypeNotificationResponse:
					x.notification(msg)
				}
				if typ == pgwire.TypeErrorResponse {
					if e, perr := pgwire.ParseError(msg[5:]); perr == nil && e.IsFatal() {
						x.diedOf(p, e, i)
						return failed, false, x.farewell(p, e)
					}
				}
				x.swallow(p, typ, msg)
				if p.skipZ == 0 && p.skipErr != nil {
					return failed, false, x.beginFailed(p)
				}
				i += n
				start = i
				continue
			}
			if typ == pgwire.TypeRowDescription || typ == pgwire.TypeParameterDescription || p.swap != nil && (typ == pgwire.TypeDataRow || typ == pgwire.TypeCopyData) {
				err := x.renumber(p, typ, i, n)
				buf = c.In() // the session may have been suspended
				msg = buf[i : i+n]
				if err != nil {
					x.Client.Write(buf[start:i])
					c.Break()
					return failed, false, err
				}
			}
			if p.unit.late != nil {
				switch typ {
				case pgwire.TypeDataRow, pgwire.TypeCommandComplete, pgwire.TypePortalSuspended, pgwire.TypeEmptyQueryResponse:
					x.Client.Write(buf[start:i])
					x.Client.Write(p.unit.late)
					p.unit.late, start = nil, i
				}
			}
			keep := true
			switch typ {
			case pgwire.TypeDataRow, pgwire.TypeCopyData:
				i += n
				continue frames
			case pgwire.TypeReadyForQuery:
				c.TxStatus = msg[5]
				p.owes = false
				p.unit.reset()
				done, keep = true, keepReady
				if keepReady && x.Settings.untold {
					x.Client.Write(buf[start:i])
					x.Report()
					start = i
				}
			case pgwire.TypeErrorResponse:
				failed = true
				e, perr := pgwire.ParseError(msg[5:])
				if perr == nil && e.IsFatal() {
					x.unitLost(p)
					x.Client.Write(buf[start:i])
					x.diedOf(p, e, i)
					return failed, false, x.farewell(p, e)
				}
				said := e
				if perr == nil {
					e = x.placed(x.overrun(clientName(p, e)))
				}
				x.unitFailed(p)
				if e != said {
					x.Client.Write(buf[start:i])
					x.Client.SetOut(pgwire.AppendError(x.Client.OutBuf(), e))
					start, keep = i, false
				}
				if until == atPending {
					done = true
				}
			case pgwire.TypeParameterStatus:
				x.parameterStatus(p, msg, true)
				keep = false
			case pgwire.TypeParseComplete, pgwire.TypeBindComplete, pgwire.TypeCloseComplete, pgwire.TypeNoData,
				pgwire.TypeRowDescription, pgwire.TypeCommandComplete, pgwire.TypeEmptyQueryResponse, pgwire.TypePortalSuspended:
				if typ == pgwire.TypeCommandComplete || typ == pgwire.TypePortalSuspended {
					p.swap = nil
				}
				if p.unit.pending() {
					e := &p.unit.queue[p.unit.head]
					if typ == pgwire.TypeNoData {
						e.stmt.learnRows(true)
					}
					p.unit.head++
					keep = e.what == relayed
					if e.late && typ == pgwire.TypeRowDescription {
						p.unit.late, keep = append([]byte(nil), msg...), false
					}
					e.name = ""
					if p.unit.pending() && p.unit.queue[p.unit.head].what == answered {
						// The router's own answer comes right behind this one.
						if keep {
							i += n
						}
						x.Client.Write(buf[start:i])
						if !keep {
							i += n
						}
						start = i
						x.ownAnswers(p)
						continue frames
					}
				}
			case pgwire.TypeNotificationResponse:
				x.Client.Write(buf[start:i])
				x.notification(msg)
				keep, start = false, i
			case pgwire.TypeParameterDescription:
				keep = !p.unit.pending() || !p.unit.queue[p.unit.head].rowsOnly
			case pgwire.TypeCopyInResponse:
				copyIn = true
			}
			if !keep {
				if start < i {
					x.Client.Write(buf[start:i])
				}
				start = i + n
			}
			i += n
			if until == atPending && !p.unit.pending() {
				done = true
			}
		}
		if start < i {
			// More may come for this client at once: then small pieces go together.
			if err := x.pass(buf[start:i], done || copyIn || c.Readable()); err != nil {
				return failed, false, err
			}
		}
		c.Consume(i)
		p.heard = p.heard || i > 0
		if done || copyIn || until == atPending && !p.unit.pending() && p.big == 0 {
			return failed, copyIn, nil
		}
		if x.Client.Queued() > highWater {
			if err := x.drainClient(); err != nil {
				return failed, false, err
			}
		}
		if err := x.fill(p); err != nil {
			if p.big > 0 && !errors.Is(err, loop.ErrStopped) {
				err = ErrCut
			}
			return failed, false, err
		}
	}
}

// collected is how much of an answer waits for more of it before it is sent on. It
// is less than the loop's buffers hold, so that collecting makes none grow.
const collected = 8 << 10

// pass sends the client a piece of an answer, or keeps it where more is to come.
func (x *Exec) pass(b []byte, more bool) error {
	c := x.Client
	queued := c.Queued()
	if queued+len(b) <= collected && (more || queued > 0) {
		c.Write(b)
		return nil
	}
	if queued > 0 {
		_ = c.Flush() // a broken connection's Send fails too
	}
	if err := c.Send(b); err != nil && err != loop.ErrWouldBlock && !x.detached {
		return ErrClientGone
	}
	return nil
}

// clientName gives a statement the client's name for it in an error: the server knows
// it by another.
func clientName(p *part, e *pgerr.Error) *pgerr.Error {
	if !p.unit.pending() {
		return e
	}
	st := p.unit.queue[p.unit.head].stmt
	if st == nil || st.Shared == "" {
		return e
	}
	named := strings.Replace(e.Message, strconv.Quote(st.Shared), `"`+st.Name+`"`, 1)
	if named == e.Message {
		return e
	}
	c := *e
	c.Message = named
	return &c
}

// placed is e with its position in the client's text, of which the server may have
// had another form, and a part.
func (x *Exec) placed(e *pgerr.Error) *pgerr.Error {
	if e.Position == 0 || x.Offset == 0 && x.original == nil {
		return e
	}
	at := e.Position
	if x.original != nil {
		at = x.original(at)
	}
	return e.WithPosition(at + x.Offset)
}

// ownAnswers writes the router's own answers that are due now.
func (x *Exec) ownAnswers(p *part) {
	u := &p.unit
	for u.pending() && u.queue[u.head].what == answered {
		x.Client.SetOut(appendEmpty(x.Client.OutBuf(), u.queue[u.head].typ))
		u.head++
	}
}

func appendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

// unitFailed notes that the server skips the rest of the unit: statements whose
// Parse is still unanswered do not exist.
func (x *Exec) unitFailed(p *part) {
	u := &p.unit
	for i := len(u.queue) - 1; i >= u.head && x.Owner != nil; i-- {
		if e := &u.queue[i]; e.made != (Made{}) || e.gone != (Made{}) {
			x.Owner.Undo(e.made, e.gone)
		}
	}
	x.unitGone(p)
}

// unitLost is unitFailed for a unit whose server has ended: it may be sent again.
// What it made and closed is taken back by undoLost only.
func (x *Exec) unitLost(p *part) {
	u := &p.unit
	for i := len(u.queue) - 1; i >= u.head && x.Owner != nil; i-- {
		if e := &u.queue[i]; e.made != (Made{}) || e.gone != (Made{}) {
			x.lost = append(x.lost, *e)
		}
	}
	x.unitGone(p)
}

// undoLost takes back what units made that were lost and not sent again.
func (x *Exec) undoLost() {
	for i := range x.lost {
		x.Owner.Undo(x.lost[i].made, x.lost[i].gone)
		x.lost[i] = expectation{}
	}
	x.lost = x.lost[:0]
}

// unitGone is unitFailed for a unit that is sent again elsewhere.
func (x *Exec) unitGone(p *part) {
	u := &p.unit
	for ; u.head < len(u.queue); u.head++ {
		e := &u.queue[u.head]
		if e.name != "" {
			p.conn.Forget(e.name)
		}
		if e.stmt != nil && (e.what == relayed && e.name != "" || e.what == answered) {
			x.Unparsed = append(x.Unparsed, e.stmt)
		}
	}
	u.failed = u.open
	p.conn.UnnamedOwner = 0
}

// beginFailed is for the case that the block could not be opened on p although
// statements follow it: what they did is unknown, so the connection is closed
// before anything more is sent.
func (x *Exec) beginFailed(p *part) error {
	e := p.skipErr
	p.skipErr = nil
	p.conn.Break()
	return pgerr.New(e.Code, "shard %s could not open the transaction: %s", x.Place.Shards[p.shard], e.Message)
}

// drainClient waits until the client has taken most of what is queued for it.
func (x *Exec) drainClient() error {
	for x.Client.Queued() > highWater/4 {
		switch err := x.Client.Flush(); err {
		case nil:
			return nil
		case loop.ErrWouldBlock:
		default:
			return ErrClientGone
		}
		x.T.Want(x.Client, loop.Writable|loop.Hangup)
		if _, err := x.T.Wait(noDeadline); err != nil {
			return err
		}
		if x.Client.HupSeen() {
			return ErrClientGone
		}
	}
	return nil
}

// throttle waits for room when much is queued for a part of a COPY. What the server
// says meanwhile is taken at once: one that is not read may not read either.
func (x *Exec) throttle(p *part) error {
	for p.owes && p.conn.Queued() > highWater {
		if err := p.conn.Flush(); err != nil && err != loop.ErrWouldBlock {
			return x.lostShard(p, err)
		}
		if p.conn.Queued() <= highWater/4 {
			return nil
		}
		if err := x.early(p); err != nil {
			return err
		}
		if !p.owes {
			return nil
		}
		if err := x.wait(p); err != nil {
			return err
		}
	}
	return nil
}

func putUint16(dst []byte, v int) []byte { return binary.BigEndian.AppendUint16(dst, uint16(v)) }
