package exec

import (
	"github.com/sharding-system/sharding/internal/copydata"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// copyChunk is how many bytes of rows go into one CopyData message to a shard.
const copyChunk = 16 << 10

// copyFrom carries out COPY ... FROM STDIN for a table whose rows go to several
// shards: sharded tables by their key, reference tables to all.
func (x *Exec) copyFrom(p *plan.Plan, a *plan.Args, shards []int) error {
	if len(shards) == 1 {
		_, err := x.runOne(p, a, shards[0], false)
		return err
	}
	if len(shards) > 1 && !x.Place.TwoPhase {
		return pgerr.New(pgerr.FeatureNotSupported, "keyspace %q forbids writes on several shards", x.Place.Keyspace).
			WithHint("Its two_phase_commit is off: COPY into one shard's tables only, or set it to required.")
	}
	own := !x.txn.block
	if own {
		x.openBlock("BEGIN", false, false)
	}
	tag, err := x.copyRows(p, a, shards)
	if err != nil {
		x.Fail()
		return err
	}
	if own && !x.inSeries {
		if _, err := x.commit(); err != nil {
			return err
		}
	}
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
	return nil
}

// copyRows runs the COPY on every shard and deals the client's rows out.
func (x *Exec) copyRows(p *plan.Plan, a *plan.Args, shards []int) (string, error) {
	c := copier{x: x, plan: p.Copy}
	if !p.Copy.Reference {
		first, err := x.bind(shards[0])
		if err != nil {
			return "", err
		}
		if err := c.cut(majorVersion(first.conn.Params["server_version"])); err != nil {
			return "", err
		}
	}
	for _, s := range shards {
		part, err := x.bind(s)
		if err != nil {
			return "", err
		}
		if err := x.copyTypes(part, p.Copy); err != nil {
			return "", err
		}
		part.wrote, part.dirty, part.headerSeen = true, true, false
		queueQuery(part.conn, x.text(p, a, nil, nil))
		part.owes = true
		if err := x.flush(part); err != nil {
			return "", err
		}
		c.parts = append(c.parts, part)
	}
	c.cutCopies()
	if err := c.begin(); err != nil {
		return "", err
	}
	if err := c.deal(); err != nil {
		if Fatal(err) {
			return "", err
		}
		c.end(pgwire.AppendCopyFail(nil, "the router stopped the COPY"))
		_, _ = c.answers()
		return "", err
	}
	return c.answers()
}

// copier deals the rows of one COPY FROM out to shards.
type copier struct {
	x     *Exec
	plan  *plan.CopyPlan
	parts []*part
	split splitter // nil: every row goes to every shard
	// format of the rows' fields: 0 text, 1 binary.
	format int16
}

// splitter cuts the client's rows, in whichever format they are.
type splitter interface {
	Feed(p []byte, row copydata.RowFunc) error
	Close(row copydata.RowFunc) error
}

// cut makes the splitter.
func (c *copier) cut(server int) error {
	if c.plan.Options.Format == "binary" {
		c.format = 1
		c.split = copydata.NewBinary(c.plan.Table.Name, c.plan.KeyFields, c.plan.Columns, copydata.DefaultMaxRow)
		return nil
	}
	f, err := copyFormat(c.plan, server)
	if err != nil {
		return err
	}
	c.split = copydata.NewSplitter(f, c.plan.KeyFields, c.plan.Columns)
	return nil
}

// begin reads every shard's CopyInResponse and passes the first on.
func (c *copier) begin() error {
	var failed error
	for i, p := range c.parts {
		for waiting := true; waiting; {
			typ, msg, err := c.x.frame(p)
			if err != nil {
				return err
			}
			switch typ {
			case pgwire.TypeCopyInResponse:
				if i == 0 && failed == nil {
					c.x.Client.Write(msg)
				}
				waiting = false
			case pgwire.TypeErrorResponse:
				if failed == nil {
					failed = c.x.shardError(p, msg)
				}
			case pgwire.TypeReadyForQuery:
				p.owes = false
				waiting = false
			}
		}
	}
	if failed != nil {
		c.end(pgwire.AppendCopyFail(nil, "another shard refused the COPY"))
		_, _ = c.answers()
	}
	return failed
}

// deal reads the client's CopyData until CopyDone or CopyFail.
func (c *copier) deal() error {
	x := c.x
	for {
		typ, msg, err := x.clientFrame(c.parts)
		if err != nil {
			return err
		}
		switch typ {
		case pgwire.TypeCopyData:
			err = c.data(msg[5:])
		case pgwire.TypeCopyDone:
			if c.split != nil {
				err = c.split.Close(c.row)
			}
			if err == nil {
				x.Client.Consume(len(msg))
				for _, p := range c.parts {
					if c.binary() {
						c.head(p)
						p.rows = append(p.rows, copydata.BinaryTrailer...)
					}
					c.push(p)
				}
				return c.end(pgwire.AppendCopyDone(nil))
			}
		case pgwire.TypeCopyFail:
			fail := append([]byte(nil), msg...)
			x.Client.Consume(len(msg))
			return c.end(fail)
		case pgwire.TypeFlush, pgwire.TypeSync:
		default:
			err = pgerr.New(pgerr.ProtocolViolation, "unexpected message type 0x%02X during COPY from stdin", typ)
		}
		x.Client.Consume(len(msg))
		if err != nil {
			return err
		}
		for _, p := range c.parts {
			if err := x.throttle(p); err != nil {
				return err
			}
		}
		if x.T.Spend(1) {
			x.T.Yield()
		}
	}
}

func (c *copier) data(b []byte) error {
	if c.split != nil {
		return c.split.Feed(b, c.row)
	}
	for _, p := range c.parts {
		p.conn.SetOut(pgwire.AppendCopyData(p.conn.OutBuf(), b))
	}
	return nil
}

// row sends one row to its shard.
func (c *copier) row(raw []byte, key [][]byte) error {
	if key == nil {
		// A header line: every shard skips its own.
		for _, p := range c.parts {
			p.rows = append(p.rows, raw...)
		}
		return nil
	}
	if c.plan.Reference {
		for _, p := range c.parts {
			c.put(p, raw)
		}
		return nil
	}
	shard, err := c.plan.ShardOf(key, c.format, c.x.Place.Map)
	if err != nil {
		return err
	}
	if shard < 0 {
		shard = 0 // PostgreSQL will refuse the value, on whichever shard
	}
	c.put(c.parts[shard], raw)
	return nil
}

// put adds a row to what p gets.
func (c *copier) put(p *part, raw []byte) {
	if c.binary() {
		c.head(p)
	}
	at := len(p.rows)
	p.rows = append(p.rows, raw...)
	if p.swap != nil {
		p.swap.inward(p.rows[at:])
	}
	if len(p.rows) >= copyChunk {
		c.push(p)
	}
}

// cutCopies makes the splitter for a reference table whose rows are not the same
// bytes on every shard.
func (c *copier) cutCopies() {
	for _, p := range c.parts {
		if c.plan.Reference && p.swap != nil {
			c.format = 1
			c.split = copydata.NewBinary(c.plan.Table.Name, nil, c.plan.Columns, copydata.DefaultMaxRow)
			return
		}
	}
}

// binary says whether every shard's stream needs a header and a trailer of its own.
func (c *copier) binary() bool { return c.format == 1 }

// head begins p's stream.
func (c *copier) head(p *part) {
	if !p.headerSeen {
		p.headerSeen = true
		p.rows = append(p.rows, copydata.BinaryHeader...)
	}
}

func (c *copier) push(p *part) {
	if len(p.rows) > 0 {
		p.conn.SetOut(pgwire.AppendCopyData(p.conn.OutBuf(), p.rows))
		p.rows = p.rows[:0]
	}
}

// end sends the last message of the COPY to every shard that still expects one.
func (c *copier) end(msg []byte) error {
	for _, p := range c.parts {
		p.rows = nil
		if p.owes && !p.conn.Broken() {
			p.conn.Write(msg)
			if err := c.x.flush(p); err != nil && Fatal(err) {
				return err
			}
		}
	}
	return nil
}

// answers reads every shard's end of the COPY.
func (c *copier) answers() (string, error) {
	var first error
	var tags []string
	for _, p := range c.parts {
		if !p.owes || p.conn.Broken() {
			continue
		}
		tag, err := c.x.answer(p, nil)
		p.owes = err != nil && p.conn.Broken()
		if err != nil {
			if Fatal(err) {
				return "", err
			}
			if first == nil {
				first = err
			}
			continue
		}
		tags = append(tags, tag)
	}
	if first != nil {
		return "", first
	}
	if c.plan.Reference && len(tags) > 0 {
		return tags[0], nil
	}
	return addTags(tags), nil
}

// clientFrame yields the client's next message, whole, while it watches the
// shards: one that fails early ends the COPY. The message is to be Consumed.
func (x *Exec) clientFrame(parts []*part) (byte, []byte, error) {
	c := x.Client
	for {
		for _, p := range parts {
			if err := x.early(p); err != nil {
				return 0, nil, err
			}
		}
		buf := c.In()
		typ, n, err := pgwire.FrontendFrame(buf)
		if err != nil {
			return 0, nil, err
		}
		if n > 0 && n <= len(buf) {
			return typ, buf[:n], nil
		}
		if n > x.Opts.MaxMessage {
			return 0, nil, pgerr.New(pgerr.ProgramLimitExceeded, "a message of %d bytes is larger than the %d that this router takes", n, x.Opts.MaxMessage)
		}
		if n > 0 {
			c.Reserve(n)
		}
		switch _, err := c.Fill(); err {
		case nil:
		case loop.ErrWouldBlock:
			if err := x.waitClient(parts); err != nil {
				return 0, nil, err
			}
		default:
			return 0, nil, ErrClientGone
		}
	}
}

// early takes what a shard says while the client still sends COPY data.
func (x *Exec) early(p *part) error {
	p.past()
	for p.owes && !p.conn.Broken() {
		if len(p.conn.In()) == 0 {
			if !p.conn.Readable() {
				return nil
			}
			if _, err := p.conn.Fill(); err == loop.ErrWouldBlock {
				return nil
			} else if err != nil {
				return x.lostShard(p, err)
			}
		}
		typ, n, _ := pgwire.Frame(p.conn.In())
		if n < 0 {
			return x.lostShard(p, errBadFrame)
		}
		if n == 0 || n > len(p.conn.In()) {
			p.conn.Reserve(max(n, 5))
			if !p.conn.Readable() {
				return nil
			}
			if _, err := p.conn.Fill(); err == loop.ErrWouldBlock {
				return nil
			} else if err != nil {
				return x.lostShard(p, err)
			}
			continue
		}
		msg := p.conn.In()[:n]
		switch typ {
		case pgwire.TypeErrorResponse:
			failed := x.shardError(p, msg)
			p.conn.Consume(n)
			if _, err := x.answer(p, nil); err != nil && Fatal(err) {
				return err
			}
			p.owes = false
			return failed
		case pgwire.TypeNoticeResponse:
			x.Client.Write(msg)
		}
		p.conn.Consume(n)
		if x.Client.Queued() > highWater {
			if err := x.drainClient(); err != nil {
				return err
			}
		}
	}
	return nil
}

// waitClient suspends until the client or a shard has something to say, or
// output can go on.
func (x *Exec) waitClient(parts []*part) error {
	ev := loop.Readable | loop.Hangup
	if err := x.Client.Flush(); err == loop.ErrWouldBlock {
		ev |= loop.Writable
	} else if err != nil {
		return ErrClientGone
	}
	x.T.Want(x.Client, ev)
	for _, p := range parts {
		if p.conn.Broken() {
			continue
		}
		bev := loop.Readable
		if err := p.conn.Flush(); err == loop.ErrWouldBlock {
			bev |= loop.Writable
		} else if err != nil {
			return x.lostShard(p, err)
		}
		x.T.Want(p.conn.Conn, bev)
	}
	_, err := x.T.Wait(noDeadline)
	for _, p := range parts {
		x.T.Want(p.conn.Conn, 0)
	}
	return err
}

// copyThrough passes the client's COPY data on to the one shard that asked for
// it, and its answer back.
func (x *Exec) copyThrough(p *part, keepReady bool) (failed bool, err error) {
	p.owes = true
	parts := []*part{p}
	for {
		typ, msg, err := x.clientFrame(parts)
		n := len(msg)
		if err == nil {
			switch typ {
			case pgwire.TypeCopyData, pgwire.TypeCopyDone, pgwire.TypeCopyFail:
				p.conn.Write(msg)
			case pgwire.TypeFlush, pgwire.TypeSync:
			default:
				x.Client.Consume(n)
				err = pgerr.New(pgerr.ProtocolViolation, "unexpected message type 0x%02X during COPY from stdin", typ)
			}
		}
		if err != nil {
			if Fatal(err) || !p.owes || p.conn.Broken() {
				return false, err
			}
			p.conn.SetOut(pgwire.AppendCopyFail(p.conn.OutBuf(), "the router stopped the COPY"))
			if _, e := x.answer(p, nil); Fatal(e) {
				return false, e
			}
			return false, err
		}
		x.Client.Consume(n)
		if typ == pgwire.TypeCopyDone || typ == pgwire.TypeCopyFail {
			if err := x.flush(p); err != nil {
				return false, err
			}
			failed, _, err = x.relay(p, atReady, keepReady)
			return failed, err
		}
		if err := x.throttle(p); err != nil {
			return false, err
		}
		if x.T.Spend(1) {
			x.T.Yield()
		}
	}
}
