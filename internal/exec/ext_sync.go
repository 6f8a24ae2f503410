package exec

import (
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
)

// How pipelines end: by Sync, by Flush, or because something else comes behind them.

// ExtFlush sends what is queued and relays every answer that is due.
func (x *Exec) ExtFlush() error {
	if x.ext.opening.po != nil {
		if err := x.opened(); err != nil {
			return err
		}
	}
	p := x.ext.cur
	if p == nil || !p.unit.pending() {
		return nil
	}
	if p.replica != nil && !p.settled {
		var err error
		if p, err = x.confirm(p); err != nil {
			x.Fail()
			return err
		}
	}
	head := p.unit.head
	x.ownAnswers(p)
	x.ext.steps.once(p.unit.head > head)
	if !p.unit.pending() {
		return nil
	}
	failed, copyIn, err := x.askUnit(p)
	if err != nil && p.lost {
		if p, err = x.repeatUnit(p, err); err == nil {
			failed, copyIn, err = x.askUnit(p)
		}
	}
	if err == nil && copyIn {
		err = pgerr.New(pgerr.InternalError, "a COPY that was not planned as one")
		p.conn.Break()
	}
	if err != nil {
		x.Fail()
		return err
	}
	if failed {
		x.Fail()
		return ErrReported
	}
	return nil
}

// askUnit has p answer what it was sent.
func (x *Exec) askUnit(p *part) (failed, copyIn bool, err error) {
	p.conn.SetOut(pgwire.AppendFlush(p.conn.OutBuf()))
	if err := x.flush(p); err != nil {
		return false, false, err
	}
	return x.relay(p, atPending, false)
}

const beginName = "sharding_begin"

// upgrade opens an implicit block: what the pipeline has done so far without
// one joins it, since PostgreSQL takes a BEGIN inside a pipeline as covering the
// implicit transaction that the pipeline is.
func (x *Exec) upgrade() error {
	parts := x.txn.parts
	x.ext.steps.off = true
	x.txn = txn{block: true, begin: "BEGIN", parts: parts, saves: x.txn.saves[:0], before: x.Settings.save()}
	for _, p := range parts {
		p.began = true
		if !p.unit.open {
			x.inject(p, x.txn.begin)
			continue
		}
		if p.unit.failed {
			continue // the server reads nothing before a Sync, and nothing there can commit
		}
		if err := x.switchTo(p); err != nil {
			return err
		}
		out := p.conn.OutBuf()
		if !p.conn.Has(beginName) {
			if evict := p.conn.Remember(beginName); evict != "" {
				out = pgwire.AppendClose(out, pgwire.KindStatement, evict)
				p.unit.push(expectation{what: hidden})
			}
			out, _ = pgwire.AppendParse(out, beginName, x.txn.begin, nil)
			p.unit.push(expectation{what: hidden, name: beginName})
		}
		out, _ = pgwire.AppendBind(out, &pgwire.Bind{Portal: beginName, Statement: beginName})
		out = pgwire.AppendExecute(out, beginName, 0)
		p.conn.SetOut(out)
		p.unit.push(expectation{what: hidden})
		p.unit.push(expectation{what: hidden})
	}
	return nil
}

// OpenUnits says whether a pipeline is under way on a backend.
func (x *Exec) OpenUnits() bool {
	for _, p := range x.txn.parts {
		if p.unit.open {
			return true
		}
	}
	return false
}

// closeUnits ends the pipelines that are open on backends, without ending the
// implicit transaction that they are: what follows runs by simple Queries.
func (x *Exec) closeUnits() error {
	ran := false
	for _, p := range x.txn.parts {
		ran = ran || p.unit.open && (p.unit.ran || p.unit.bound)
	}
	if ran && !x.txn.block {
		if err := x.upgrade(); err != nil {
			return err
		}
	}
	first := x.ExtFlush()
	x.ext.steps.off = true // what follows is not behind a Sync of the client's
	if Fatal(first) {
		return first
	}
	x.ext.cur = nil
	for _, p := range x.txn.parts {
		if !p.unit.open || p.conn.Broken() {
			continue
		}
		// One that failed is ended too: the server reads nothing else before.
		p.conn.SetOut(pgwire.AppendSync(p.conn.OutBuf()))
		err := x.flush(p)
		if err == nil {
			var copyIn bool
			if _, copyIn, err = x.relay(p, atReady, false); copyIn {
				p.conn.Break() // it waits for data that nobody sends
			}
		}
		if err != nil && (first == nil || Fatal(err)) {
			first = err
		}
	}
	if first != nil {
		x.Fail()
		return first
	}
	if !x.txn.block {
		x.unbindAll()
	}
	return nil
}

// CloseUnits ends open pipelines before the session itself carries something
// out (BEGIN, COMMIT, SET).
func (x *Exec) CloseUnits() error { return x.closeUnits() }

// ExtSync ends a pipeline: its implicit transaction commits, or rolls back when
// something failed. ready says that ReadyForQuery has been passed on; the error
// is to be told to the client before it.
func (x *Exec) ExtSync(failed bool) (ready bool, err error) {
	defer x.undoLost()
	x.ext.cur = nil
	defer x.ext.steps.reset()
	var open []*part
	for _, p := range x.txn.parts {
		if p.unit.open && !p.conn.Broken() {
			open = append(open, p)
		}
	}
	if failed && !x.txn.block {
		for _, p := range open {
			if p.unit.ran && !p.unit.failed && !p.conn.Broken() {
				// Its Sync would commit what a failed pipeline must not.
				if !p.stands() {
					p.conn.Break()
				} else if err := x.upgrade(); err != nil {
					return false, err
				} else {
					break
				}
			}
		}
	}
	sole := len(open) == 1 && (!x.txn.block || x.txn.explicit && !failed && !x.txn.failed)
	for _, p := range open {
		if p.conn.Broken() {
			continue
		}
		if p.replica != nil && !p.settled {
			var err error
			if p, err = x.confirmSync(p); err != nil {
				return false, x.endPipeline(err)
			}
		}
		bad, copyIn, err := x.syncUnit(p, sole)
		if err != nil && p.lost && !failed {
			p, err = x.repeatUnit(p, err)
			if x.ext.cur = nil; err == nil {
				bad, copyIn, err = x.syncUnit(p, sole)
			}
		}
		if err == nil && copyIn {
			p.conn.Break()
			err = pgerr.New(pgerr.InternalError, "a COPY that was not planned as one")
		}
		x.observe(p, bad || err != nil)
		if err != nil {
			return false, x.endPipeline(err)
		}
		failed = failed || bad
		ready = sole
		if bad && !x.txn.block {
			p.settlePins(false)
		}
	}
	return ready, x.EndImplicit(failed)
}

// syncUnit ends the pipeline on p and relays what is left of its answers.
func (x *Exec) syncUnit(p *part, keepReady bool) (failed, copyIn bool, err error) {
	if !p.synced {
		p.conn.SetOut(pgwire.AppendSync(p.conn.OutBuf()))
		if err := x.flush(p); err != nil {
			return false, false, err
		}
	}
	p.synced = false
	return x.relay(p, atReady, keepReady)
}

func (x *Exec) endPipeline(err error) error {
	if Fatal(err) {
		return err
	}
	if e := x.EndImplicit(true); e != nil && Fatal(e) {
		return e
	}
	return err
}
