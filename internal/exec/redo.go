package exec

import (
	"github.com/sharding-system/sharding/internal/pgwire"
)

// extOp is an extended-protocol message that a replica has been sent and whose
// answer the client has not: where the replica does not accept, the primary is sent
// the same.
type extOp struct {
	kind opKind
	stmt *Stmt
	po   *Portal
	max  int32
	hide bool
}

type opKind uint8

const (
	opPrepare opKind = iota
	opBind
	opDescribe
	opExecute
)

// redoable says whether what is sent to p may yet be sent to the primary instead.
func (p *part) redoable() bool { return p.replica != nil && p.unit.open && !p.settled }

// logOp keeps a message for the case that p does not accept.
func (x *Exec) logOp(p *part, op extOp) {
	if p != nil && p.redoable() {
		op.hide = x.hide
		x.redo = append(x.redo, op)
	}
}

// due counts the answers that a part's server owes.
func (u *unit) due() (n int) {
	for _, e := range u.queue[u.head:] {
		if e.what != answered {
			n++
		}
	}
	return n
}

// confirm waits for p's first answers within a pipeline and yields the part that
// goes on: p, or one on the primary.
func (x *Exec) confirm(p *part) (*part, error) {
	want := p.unit.due()
	if want == 0 {
		// Nothing was asked of the server; what the router itself answers is told now.
		x.redo = x.redo[:0]
		return p, nil
	}
	p.conn.SetOut(pgwire.AppendFlush(p.conn.OutBuf()))
	err := x.flush(p)
	if err == nil || !Fatal(err) {
		err = x.accepted(p, want)
	}
	if err == nil {
		x.redo = x.redo[:0]
		return p, nil
	}
	return x.redoOn(p, err)
}

// confirmSync is confirm with the pipeline's Sync: it is sent.
func (x *Exec) confirmSync(p *part) (*part, error) {
	p.synced = true
	p.conn.SetOut(pgwire.AppendSync(p.conn.OutBuf()))
	err := x.flush(p)
	if err == nil || !Fatal(err) {
		err = x.accepted(p, 0)
	}
	if err == nil {
		x.redo = x.redo[:0]
		x.ownAnswers(p)
		return p, nil
	}
	if p, err = x.redoOn(p, err); err != nil {
		return p, err
	}
	x.ownAnswers(p)
	return p, nil
}

// redoOn gives a replica's part up and sends the primary what it was sent.
func (x *Exec) redoOn(p *part, why error) (*part, error) {
	ops := x.redo
	x.redo = nil
	q, err := x.instead(p, why)
	if err != nil {
		return p, err
	}
	x.ext.steps.off = true
	hide := x.hide
	defer func() { x.hide = hide }()
	for _, op := range ops {
		x.hide = op.hide
		switch op.kind {
		case opPrepare:
			err = x.ExtPrepare(op.stmt, q.shard)
		case opBind:
			op.po.on = nil
			err = x.ExtBind(op.po)
		case opDescribe:
			err = x.ExtDescribePortal(op.po)
		case opExecute:
			err = x.ExtExecute(op.po, op.max)
		}
		if err != nil {
			return q, err
		}
	}
	return q, nil
}
