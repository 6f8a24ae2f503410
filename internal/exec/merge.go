package exec

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// merger makes one answer of the answers of several shards, which it reads one
// after the other (they compute side by side; what is not read yet waits in the
// sockets).
type merger struct {
	x     *Exec
	plan  *plan.Plan
	parts []*part
	frags []fragment
	// simple: answers end with ReadyForQuery and RowDescription goes to the
	// client; otherwise (extended) they end with CommandComplete and the caller
	// has described the rows.
	simple bool
	// binary: result columns that the client asked for in binary (extended).
	formats []int16

	// limit is how many rows there may be, where limited: the rest is thrown away.
	limit   int64
	limited bool

	// hold takes the rows instead of the client; nil for the client.
	hold *held
	// whole: PostgreSQL runs the statement to its end before it says anything of its
	// rows, so nothing of them is passed on where one shard fails.
	whole bool
	// head describes the rows, where that waits for them (SQL's EXECUTE).
	head []byte
	// sql is the statement's text and times what replaced now() in it, where the parts
	// were sent what AppendText makes of it: errors point into that.
	sql   string
	times *plan.Times
	// failed is an error from before: answers are read and thrown away.
	failed error

	tags      []string
	rows      int  // that were passed on
	suspended bool // the last part has more: its row limit is reached
	described bool
	copyOut   bool
	headed    bool // COPY TO in binary: the header has been passed on
	agg       *aggregator
	// again sends fragment i to its shard's primary, where a replica did not accept it.
	again func(i int, p *part) error
	held  [][][]byte // InOrder: rows of each part
	early []early    // what each part said first, if whole
}

// early is a message that was read before its turn.
type early struct {
	typ byte
	msg []byte
	err error
}

// run reads everything. The first error of any shard is returned once all have
// been read to their end, so that their connections stay usable.
func (m *merger) run() (tag string, err error) {
	if m.plan.Multi.Kind == plan.Aggregate {
		m.agg = newAggregator(m.plan.Multi.Columns, m.formats)
	}
	first := m.failed
	if Fatal(first) {
		return "", first
	}
	failing := first != nil
	if m.whole && !failing {
		if failing, err = m.listen(); err != nil {
			return "", err
		}
	}
	if !failing {
		m.x.Client.Write(m.head)
	}
	for i, p := range m.parts {
		if first != nil && (p.unit.failed || p.conn.Broken()) {
			p.owes = false // what it had to say has been read
			continue
		}
		if p.replica != nil && !p.settled && m.again != nil {
			if err = m.x.accepted(p, 0); err != nil {
				if p, err = m.x.instead(p, err); err == nil {
					m.parts[i] = p
					err = m.again(i, p)
				}
				if err != nil {
					return "", err
				}
			}
		}
		if err := m.read(i, p, first != nil || failing); err != nil {
			if Fatal(err) {
				return "", err
			}
			if first == nil {
				first = err
			}
		}
	}
	if first != nil {
		return "", first
	}
	return m.finish()
}

// listen reads what each part says first, but for notices, and yields whether one of
// them failed: what writes and returns rows says so, or else describes them, once it
// has run to its end (PostgreSQL's PortalRun).
func (m *merger) listen() (failing bool, err error) {
	m.early = make([]early, len(m.parts))
	for i, p := range m.parts {
		e := &m.early[i]
		for e.typ == 0 && e.err == nil {
			typ, msg, err := m.x.frame(p)
			switch {
			case Fatal(err):
				return false, err
			case err != nil:
				e.err = err
			case typ == pgwire.TypeNoticeResponse:
				m.notice(i, msg)
			default:
				e.typ, e.msg = typ, append([]byte(nil), msg...)
			}
		}
		failing = failing || e.err != nil || e.typ == pgwire.TypeErrorResponse
	}
	return failing, nil
}

// next is part i's next message.
func (m *merger) next(i int, p *part) (byte, []byte, error) {
	if m.early != nil {
		if e := m.early[i]; e.typ != 0 || e.err != nil {
			m.early[i] = early{}
			return e.typ, e.msg, e.err
		}
	}
	return m.x.frame(p)
}

// notice passes a part's notice on; that of a statement that every shard runs alike
// comes once.
func (m *merger) notice(i int, msg []byte) {
	if i == 0 || m.plan.Multi.Kind != plan.Same {
		m.x.Client.Write(msg)
	}
}

// read takes one part's answers; drop: a part failed, rows are read and thrown away.
func (m *merger) read(i int, p *part, drop bool) error {
	x := m.x
	var failed error
	for {
		typ, msg, err := m.next(i, p)
		if err != nil {
			return err
		}
		switch typ {
		case pgwire.TypeRowDescription:
			if m.simple && !m.described && !drop {
				m.described = true
				if msg, err = x.describe(p, typ, msg); err != nil {
					return err
				}
				x.Client.Write(msg)
			}
		case pgwire.TypeDataRow:
			if !drop && failed == nil {
				if err := m.row(i, msg); err != nil {
					failed = err
				}
			}
		case pgwire.TypeCopyOutResponse:
			if !m.copyOut && !drop {
				m.copyOut = true
				x.Client.Write(msg)
			}
		case pgwire.TypeCopyData:
			if !drop {
				if err := m.copyRow(i, p, msg); err != nil {
					return err
				}
			}
		case pgwire.TypeCopyDone:
		case pgwire.TypeNoticeResponse:
			m.notice(i, msg)
		case pgwire.TypePortalSuspended:
			p.owes, m.suspended = false, true
			return failed
		case pgwire.TypeCommandComplete:
			m.tags = append(m.tags, string(msg[5:len(msg)-1]))
			if !m.simple {
				p.owes = false
				return failed
			}
		case pgwire.TypeErrorResponse:
			if failed == nil {
				failed = x.shardError(p, msg)
				if e, ok := failed.(*pgerr.Error); ok && e.Position > 0 && m.sql != "" {
					failed = e.WithPosition(m.plan.Original(m.sql, m.frags[i].rows, m.times, e.Position))
				}
			}
			if !m.simple {
				x.unitFailed(p)
				p.owes = false
				return failed
			}
		case pgwire.TypeReadyForQuery:
			p.owes = false
			if p.skipErr != nil {
				return x.beginFailed(p)
			}
			return failed
		}
		if x.Client.Queued() > highWater {
			if err := x.drainClient(); err != nil {
				return err
			}
		}
	}
}

// shardError is an ErrorResponse of one of several shards: its own words, with
// the shard named in the detail where there is room for it.
func (x *Exec) shardError(p *part, msg []byte) error {
	e, err := pgwire.ParseError(msg[5:])
	if err != nil {
		return x.lostShard(p, err)
	}
	if e.IsFatal() {
		return x.farewell(p, e)
	}
	e = x.overrun(clientName(p, e))
	where := fmt.Sprintf("On shard %s.", x.Place.Shards[p.shard])
	if e.Detail == "" {
		e.Detail = where
	}
	return e
}

func (m *merger) row(i int, msg []byte) error {
	switch m.plan.Multi.Kind {
	case plan.Aggregate:
		if m.agg == nil {
			break
		}
		return m.agg.add(msg)
	case plan.Same:
		if i > 0 {
			return nil
		}
	case plan.InOrder:
		if m.held == nil {
			m.held = make([][][]byte, len(m.parts))
		}
		m.held[i] = append(m.held[i], append([]byte(nil), msg...))
		return nil
	}
	return m.send(msg)
}

// send passes a row on.
func (m *merger) send(msg []byte) error {
	if m.limited && int64(m.rows) >= m.limit {
		return nil
	}
	m.rows++
	if m.hold == nil {
		m.x.Client.Write(msg)
		return nil
	}
	if len(m.hold.rows)+len(msg) > maxHeld {
		return pgerr.New(pgerr.ProgramLimitExceeded, "the rows that a row limit holds back are more than %d bytes", maxHeld).
			WithHint("Set the driver's fetch size to 0, or name one shard key.")
	}
	m.hold.rows = append(m.hold.rows, msg...)
	return nil
}

// finish sends what was held back and makes the tag.
func (m *merger) finish() (string, error) {
	x := m.x
	switch {
	case m.agg != nil:
		row, err := m.agg.row(nil)
		if err == nil {
			err = m.send(row)
		}
		if err != nil {
			return "", err
		}
		return "SELECT " + strconv.Itoa(m.rows), nil
	case m.held != nil:
		if err := m.interleave(); err != nil {
			return "", err
		}
	case m.copyOut:
		m.endCopy()
		x.Client.SetOut(appendEmpty(x.Client.OutBuf(), pgwire.TypeCopyDone))
	}
	if m.plan.Multi.Kind == plan.Same {
		for _, t := range m.tags[1:] {
			if t != m.tags[0] {
				return "", pgerr.New(pgerr.InternalError, "shards disagree: %q on %s, %q on another", m.tags[0], x.Place.Shards[m.parts[0].shard], t).
					WithHint("The copies of a reference table differ. Nothing was changed.")
			}
		}
		return m.tags[0], nil
	}
	if m.limited {
		return "SELECT " + strconv.Itoa(m.rows), nil
	}
	return addTags(m.tags), nil
}

// interleave sends RETURNING rows in the order of VALUES.
func (m *merger) interleave() error {
	total := 0
	for i := range m.parts {
		if len(m.held[i]) != len(m.frags[i].rows) {
			return pgerr.New(pgerr.InternalError, "a shard returned %d rows for %d inserted", len(m.held[i]), len(m.frags[i].rows))
		}
		total += len(m.held[i])
	}
	next := make([]int, len(m.parts))
	for n := range total {
		for i := range m.parts {
			if k := next[i]; k < len(m.frags[i].rows) && m.frags[i].rows[k] == n {
				if err := m.send(m.held[i][k]); err != nil {
					return err
				}
				next[i]++
				break
			}
		}
	}
	return nil
}

// addTags adds up the row counts of command tags of the same verb.
func addTags(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	var total int64
	var verb string
	for _, t := range tags {
		cut := strings.LastIndexByte(t, ' ')
		n, err := strconv.ParseInt(t[cut+1:], 10, 64)
		if cut < 0 || err != nil {
			return tags[0]
		}
		verb = t[:cut]
		total += n
	}
	return verb + " " + strconv.FormatInt(total, 10)
}
