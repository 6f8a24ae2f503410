package exec

import (
	"strconv"

	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// A cursor is a portal of its name on its servers, which the extended protocol can
// describe, execute and close too (PostgreSQL manual, "DECLARE", and drivers that
// describe the cursor they have declared).

// ExtDescribeCursor relays a Describe of a portal that is a declared cursor.
func (x *Exec) ExtDescribeCursor(name string) error {
	if err := x.Aborted(); err != nil {
		return err
	}
	p, err := x.need(x.cursors[name].shards[0], nil)
	if err != nil {
		return err
	}
	x.ext.steps.off = true
	p.conn.SetOut(pgwire.AppendDescribe(p.conn.OutBuf(), pgwire.KindPortal, name))
	p.unit.push(expectation{what: relayed})
	return nil
}

// ExtExecuteCursor runs a portal that is a declared cursor, as FETCH would.
func (x *Exec) ExtExecuteCursor(name string, maxRows int32) error {
	if err := x.Aborted(); err != nil {
		return err
	}
	x.ext.steps.off = true
	c := x.cursors[name]
	if c.spread == nil {
		p, err := x.need(c.shards[0], nil)
		if err != nil {
			return err
		}
		p.unit.ran = true
		p.conn.SetOut(pgwire.AppendExecute(p.conn.OutBuf(), name, maxRows))
		p.unit.push(expectation{what: relayed})
		return nil
	}
	if err := x.ExtFlush(); err != nil {
		return err
	}
	x.op, x.ext.cur = "select", nil
	f := fetcher{x: x, c: c.spread} // text, also of a BINARY cursor, as PostgreSQL has it
	q := plan.Fetch{Count: plan.FetchAll}
	if maxRows > 0 {
		q.Count = int64(maxRows)
	}
	n, err := f.fetch(&q)
	f.executed(err)
	if err != nil {
		return err
	}
	if !c.spread.atEnd {
		x.Client.SetOut(appendEmpty(x.Client.OutBuf(), pgwire.TypePortalSuspended))
		return nil
	}
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), "SELECT "+strconv.FormatInt(n, 10)))
	return nil
}

// ExtCloseCursor closes a portal that is a declared cursor.
func (x *Exec) ExtCloseCursor(name string) error {
	if err := x.ExtFlush(); err != nil {
		return err
	}
	x.ext.steps.off = true
	c := x.cursors[name]
	for _, shard := range c.shards {
		p, err := x.bind(shard)
		if err != nil {
			return err
		}
		p.unit.open = true
		p.conn.SetOut(pgwire.AppendClose(p.conn.OutBuf(), pgwire.KindPortal, name))
		p.unit.push(expectation{what: hidden})
	}
	x.ext.cur = nil
	x.closed(name, c)
	x.Client.SetOut(appendEmpty(x.Client.OutBuf(), pgwire.TypeCloseComplete))
	return nil
}
