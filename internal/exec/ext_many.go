package exec

import (
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

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

// executeMany runs a portal on several shards and merges their answers.
func (x *Exec) executeMany(po *Portal, maxRows int32) error {
	pl := po.Stmt.Plan
	if maxRows != 0 && pl.Returns {
		return pgerr.New(pgerr.FeatureNotSupported, "a row limit on Execute is not supported for a statement over several shards").
			WithHint("Set the driver's fetch size to 0, or name one shard key.")
	}
	if pl.Access >= plan.Lock && !x.Place.TwoPhase {
		return pgerr.New(pgerr.FeatureNotSupported, "keyspace %q forbids writes on several shards", x.Place.Keyspace).
			WithHint("Its two_phase_commit is off: name one shard key, or set it to required.")
	}
	if err := x.ExtFlush(); err != nil {
		return err
	}
	if !x.txn.block && (pl.Access >= plan.Lock || len(pl.NowEdits) > 0) {
		if err := x.upgrade(); err != nil {
			return err
		}
		if err := x.ExtFlush(); err != nil {
			return err
		}
	}
	if po.on == nil {
		var err error
		if po.times, err = x.timesBetween(pl); err != nil {
			return err
		}
	}
	m := merger{x: x, plan: pl, formats: po.Results}
	var tag string
	err := x.executeOn(&m, po)
	if err == nil {
		x.ext.cur = nil
		x.LastShards = append(x.LastShards[:0], po.Shards...)
		tag, err = m.run()
	}
	for _, p := range m.parts {
		x.observe(p, err != nil)
		if err == nil {
			p.unit.head, p.unit.queue = 0, p.unit.queue[:0]
		} else {
			x.unitFailed(p)
			if p.owes && !x.hush(p) {
				p.conn.Break() // or what it still says would reach the client
			}
		}
	}
	if err != nil {
		x.Fail()
		return err
	}
	x.Client.SetOut(pgwire.AppendCommandComplete(x.Client.OutBuf(), tag))
	return nil
}

// executeOn sends a portal's Bind and Execute to all its shards, which become
// m's parts: all are bound before anything is sent.
func (x *Exec) executeOn(m *merger, po *Portal) error {
	pl := po.Stmt.Plan
	for _, shard := range po.Shards {
		if _, err := x.bind(shard); err != nil {
			return err
		}
	}
	for _, shard := range po.Shards {
		p := x.find(shard)
		m.parts = append(m.parts, p)
		m.frags = append(m.frags, fragment{shard: shard, rows: x.rowsFor(po, shard)})
		p.unit.open, p.unit.ran = true, true
		x.touch(pl, p)
		if on := po.on; on != p {
			if err := x.bindOn(p, po, m.frags[len(m.frags)-1].rows, hidden, po.times); err != nil {
				return err
			}
			po.on = on
		}
		out := pgwire.AppendExecute(p.conn.OutBuf(), po.Name, 0)
		p.conn.SetOut(pgwire.AppendFlush(out))
		p.owes = true
		if err := x.flush(p); err != nil {
			return err
		}
	}
	return nil
}

// DescribeTypes asks shard for a statement's parameter types, by itself: nothing
// of it reaches the client. It must not run inside an open pipeline.
func (x *Exec) DescribeTypes(s *Stmt, shard int) ([]uint32, error) {
	own := x.find(shard) == nil
	p, err := x.bind(shard)
	if err != nil {
		return nil, err
	}
	c := p.conn
	out := pgwire.AppendParseRest(c.OutBuf(), "", s.SQL, s.Rest)
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
