package exec

import "github.com/sharding-system/sharding/internal/pgwire"

// A pipeline that a replica does not accept is taken again by the primary, step by step
// (see again.go): nothing that it was sent has been answered to the client.

// redoable says whether what is sent to p may yet be sent to the primary instead.
func (p *part) redoable() bool { return p.replica != nil && p.unit.open && !p.settled }

// Noted says whether everything that came since the last Sync is noted, to be taken again
// if need be, and nothing has come yet.
func (x *Exec) Noted() bool { return !x.ext.steps.off && len(x.ext.steps.list) == 0 }

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
		x.ext.steps.list, x.ext.steps.off = x.ext.steps.list[:0], true
		return p, nil
	}
	p.conn.SetOut(pgwire.AppendFlush(p.conn.OutBuf()))
	err := x.flush(p)
	if err == nil || !Fatal(err) {
		err = x.accepted(p, want)
	}
	if err == nil {
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
	q, err := x.instead(p, why)
	if err != nil {
		return p, err
	}
	return q, x.takeAgain()
}
