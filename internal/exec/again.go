package exec

import (
	"slices"

	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// A pooled connection may have died unseen a moment before it is used. What was
// sent on it is sent again on another, once, where that cannot do anything twice and
// the client has been told nothing (docs/decisions/0003). A replica may also refuse what it
// was sent: see confirm.go. In the extended protocol both take the pipeline's steps again.

// mayRepeat says whether what was sent on p, whose connection is lost, may be sent
// again. pl is nil where nothing was executed.
func (x *Exec) mayRepeat(p *part, pl *plan.Plan) bool {
	if p.conn == nil || !p.lost || p.heard || p.repeated || p.pinned != 0 || p.tainted || x.detached {
		return false
	}
	if pl == nil || p.unsent {
		return true
	}
	if pl.Action != plan.Run || !pl.Repeatable || pl.NotInBlock || pl.Taints || pl.SetConfig != nil ||
		pl.Pins != 0 || pl.Look != 0 || pl.CursorAction != plan.NoCursor {
		return false
	}
	switch {
	case x.txn.block, pl.Access < plan.Write:
		// Without a COMMIT nothing that it did there stands.
		return true
	case !slices.Contains([]string{"insert", "update", "delete", "merge"}, pl.Operation):
		return false
	}
	// A server that dies of these has not committed: it looks for them where it
	// waits for a command and while it runs one, never between a commit and the
	// answer that tells of it, which would have come first.
	return p.died == pgerr.AdminShutdown || p.died == pgerr.IdleSessionTimeout
}

// diedOf notes with what p's server ended, behind bytes of its that are whole
// messages not yet taken.
func (x *Exec) diedOf(p *part, e *pgerr.Error, bytes int) {
	p.heard = p.heard || bytes > 0
	if !p.heard {
		p.died = e.Code
	}
}

// another replaces p, whose connection is lost, by a part on a good one.
func (x *Exec) another(p *part) (*part, error) {
	shard := p.shard
	if i := slices.Index(x.txn.parts, p); i >= 0 {
		x.txn.parts = slices.Delete(x.txn.parts, i, i+1)
	}
	if x.ext.cur == p {
		x.ext.cur = nil
	}
	x.release(p)
	q, err := x.bind(shard)
	if err == nil {
		q.repeated = true
	}
	return q, err
}

// step is one message of the extended protocol that a part was sent.
type step struct {
	what    func(x *Exec, s *step) error
	stmt    *Stmt
	portal  *Portal
	shard   int
	maxRows int32
	typ     byte
	hide    bool
	told    bool // the client has its answer
}

// steps are those of the pipeline that is under way, while it is one that can be
// sent again.
type steps struct {
	list []step
	off  bool
	plan *plan.Plan // of the portal that was executed
}

// maxSteps: a long pipeline is not kept. One that is alone (aloneInPipeline in the router)
// has no more.
const maxSteps = 8

func (s *steps) reset() {
	clear(s.list)
	s.list, s.off, s.plan = s.list[:0], false, nil
}

func (s *steps) add(st step) {
	if s.off {
		return
	}
	if len(s.list) == maxSteps {
		s.off = true
		return
	}
	s.list = append(s.list, st)
}

// once ends the keeping where a step cannot be taken again: sessions reuse what
// the unnamed statement and the unnamed portal are kept in.
func (s *steps) once(taken bool) { s.off = s.off || taken }

// bound says whether a portal has been bound.
func (s *steps) bound() bool {
	for i := range s.list {
		if s.list[i].portal != nil {
			return true
		}
	}
	return false
}

// repeatUnit sends the pipeline on p again after its connection was lost, where that
// is right, and yields the part that has it now. Otherwise the error is cause.
func (x *Exec) repeatUnit(p *part, cause error) (*part, error) {
	s := &x.ext.steps
	if Fatal(cause) || s.off || len(s.list) == 0 || !x.mayRepeat(p, s.plan) {
		return p, cause
	}
	for _, q := range x.txn.parts {
		if q != p && q.unit.open {
			return p, cause
		}
	}
	q, err := x.another(p)
	if err != nil {
		return nil, err // p may be another session's by now
	}
	return q, x.takeAgain()
}

// takeAgain takes the steps that are noted again, on the part that now has their shard.
func (x *Exec) takeAgain() error {
	s := &x.ext.steps
	s.off = true // steps taken again are not noted
	// What failed is nothing to take back: it is made now.
	clear(x.lost)
	x.lost = x.lost[:0]
	clear(x.Unparsed)
	x.Unparsed = x.Unparsed[:0]
	hide := x.hide
	defer func() { x.hide = hide }()
	for i := range s.list {
		x.hide = s.list[i].hide
		if err := s.list[i].what(x, &s.list[i]); err != nil {
			return err
		}
	}
	return nil
}

func prepareAgain(x *Exec, s *step) error {
	p, err := x.need(s.shard, s.stmt.Plan)
	if err != nil {
		return err
	}
	what := relayed
	if s.told {
		what = hidden
	}
	_, err = x.parse(p, s.stmt, what)
	return err
}

func describeAgain(x *Exec, s *step) error { return x.ExtDescribeStatement(s.stmt, s.shard) }

func bindAgain(x *Exec, s *step) error { return x.ExtBind(s.portal) }

func describePortalAgain(x *Exec, s *step) error { return x.ExtDescribePortal(s.portal) }

func executeAgain(x *Exec, s *step) error { return x.ExtExecute(s.portal, s.maxRows) }

func answerAgain(x *Exec, s *step) error {
	x.answerOwn(s.typ, Made{}, Made{})
	return nil
}
