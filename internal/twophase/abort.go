package twophase

import "github.com/sharding-system/sharding/internal/pgerr"

// aborting says whether something has failed the transaction.
func (c *Coordinator) aborting() bool { return c.failure != nil || c.rollback }

// fail keeps the first failure: it is the client's.
func (c *Coordinator) fail(err *pgerr.Error) {
	if c.failure == nil {
		c.failure = err
	}
}

// abort undoes the transaction everywhere. It needs no decision row: the decision
// shard's own transaction is open on a connection that will send ROLLBACK, or
// lost with it, or has ended; or the verdict was asked for and stands. So nobody
// can commit it any more.
func (c *Coordinator) abort() {
	c.phase = phaseRollback
	for i := range c.parts {
		switch c.parts[i].standing {
		case open:
			c.send(i, "ROLLBACK", PointRollback)
		case prepared:
			c.send(i, "ROLLBACK PREPARED '"+c.gid.Branch(i)+"'", PointRollback)
		case maybePrepared:
			c.finishLater(i)
		}
	}
	if c.waiting == 0 {
		c.next()
	}
}

// rollbackOpen ends what is still open and leaves what is prepared to the
// resolver, because its verdict is not known.
func (c *Coordinator) rollbackOpen() {
	c.phase = phaseRollback
	for i := range c.parts {
		if c.parts[i].standing == open {
			c.send(i, "ROLLBACK", PointRollback)
		}
	}
	if c.waiting == 0 {
		c.next()
	}
}

func (c *Coordinator) onRollback(ev Event) {
	p := &c.parts[ev.Participant]
	wasPrepared := p.standing == prepared
	switch {
	case ev.Kind == Answered:
		c.proven = c.proven || wasPrepared
		p.standing = ended
	case !wasPrepared && ev.Kind == Failed: // a ROLLBACK that fails: the session cannot be trusted
		p.standing = lost
		c.out = append(c.out, Action{Kind: Discard, Participant: ev.Participant})
	case !wasPrepared:
		p.standing = lost
	case ev.Kind == Failed && ev.Err.Code == pgerr.UndefinedObject:
		p.standing = ended // the resolver was faster
	default:
		p.standing = lost
		c.finishLater(ev.Participant)
	}
}

func (c *Coordinator) finishLater(i int) {
	c.out = append(c.out, Action{
		Kind: Finish, Participant: i, Branch: c.gid.Branch(i), Verdict: VerdictAbort, Point: PointRollback,
	})
}

// afterRollback tells the client. A verdict abort that was asked for is certain
// only if a branch was still prepared afterwards, because a decision to commit is
// forgotten only when none is.
func (c *Coordinator) afterRollback() {
	switch {
	case c.asked && !c.proven:
		c.done(InDoubt, errUnknown(c.parts[c.decider].Shard, nil))
	case c.unknown:
		c.done(InDoubt, c.failure)
	default:
		c.done(Aborted, c.failure)
	}
}

func (c *Coordinator) commitReaders(which func(*party) bool) {
	for i := range c.parts {
		if p := &c.parts[i]; !p.writer && p.standing == open && which(p) && i != c.decider {
			c.send(i, "COMMIT", PointCommit)
		}
	}
}

func (c *Coordinator) send(i int, sql, point string) {
	c.parts[i].waiting = true
	c.waiting++
	c.out = append(c.out, Action{Kind: Send, Participant: i, SQL: sql, Point: point})
}

func (c *Coordinator) done(state State, err *pgerr.Error) {
	c.phase = phaseDone
	c.out = append(c.out, Action{
		Kind: Done, Point: PointDone,
		Outcome: Outcome{State: state, Err: err, Warnings: c.warnings, Writers: c.writers},
	})
}

func (c *Coordinator) take() []Action {
	out := c.out
	c.out = nil
	return out
}
