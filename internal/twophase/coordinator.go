package twophase

import (
	"strings"

	"github.com/sharding-system/sharding/internal/pgerr"
)

// probeSQL asks, on one shard, what COMMIT has to know: whether anything was
// written (w or r), whether the transaction is serializable (s), whether the
// session has temporary tables (t). txid_current_if_assigned exists in every
// version from 10 on; asking for the xid instead of looking at the statements
// finds the SELECT whose function writes.
const probeSQL = "SELECT CASE WHEN pg_catalog.txid_current_if_assigned() IS NULL THEN 'r' ELSE 'w' END" +
	" || CASE WHEN pg_catalog.current_setting('transaction_isolation') = 'serializable' THEN 's' ELSE '' END" +
	" || CASE WHEN pg_catalog.pg_my_temp_schema() <> 0 THEN 't' ELSE '' END"

// The tags that PostgreSQL answers with. COMMIT and PREPARE TRANSACTION say
// ROLLBACK where the transaction had failed.
const (
	tagCommit   = "COMMIT"
	tagPrepare  = "PREPARE TRANSACTION"
	tagRollback = "ROLLBACK"
)

type phase int

const (
	phaseProbe    phase = iota // who wrote?
	phaseReaders               // nobody wrote: COMMIT everywhere
	phaseEarly                 // one writer: the readers that must come before it
	phaseSingle                // one writer, or one participant: its COMMIT
	phaseLate                  // one writer: the other readers
	phasePrepare               // PREPARE on all writers but D, COMMIT of early readers
	phaseDecide                // D's COMMIT
	phaseResolve               // D's answer was lost: ask
	phaseFinish                // COMMIT PREPARED, COMMIT of late readers
	phaseRollback              // ROLLBACK, ROLLBACK PREPARED
	phaseDone
)

// standing is what the coordinator knows of a participant.
type standing int

const (
	open          standing = iota // its transaction is open
	preparing                     // PREPARE was sent
	prepared                      // PREPARE was answered
	maybePrepared                 // the connection was lost during PREPARE
	ended                         // nothing is left to do on its connection
	lost                          // its connection is not used any more
)

type party struct {
	Participant
	writer, serializable, temporary bool
	standing                        standing
	waiting                         bool // an action wants its answer
}

// early says that a reader's COMMIT must come before the decision, because it may
// fail. Any other reader's comes after, so that the locks it holds (an advisory
// lock that other clients use to keep out) outlive the writes, as they do on one
// server.
func (p *party) early() bool { return p.serializable || p.CommitMayFail }

// Coordinator carries one transaction from COMMIT to its outcome. It has no
// connection, no goroutine and no clock: a driver carries out the actions that
// Start and On return and reports each one's answer to On, until Done comes. A
// driver that stops before Done (its process dies) leaves a state that the
// resolver finishes. A driver whose client has gone carries on.
type Coordinator struct {
	gid      GID
	parts    []party
	decider  int // index of D, or of the only writer; -1 before it is chosen
	phase    phase
	waiting  int // answers outstanding
	failure  *pgerr.Error
	rollback bool // the transaction failed before COMMIT: Aborted without an error
	unknown  bool // failure says that the outcome is not known
	writers  int
	// asked: the verdict abort came from asking. Until one ROLLBACK PREPARED
	// proves it (proven), it may stem from asking too late: after the resolver had
	// finished the transaction and forgotten the decision.
	asked, proven bool
	warnings      []*pgerr.Error
	out           []Action
}

// NewCoordinator begins the commit of a transaction that is open on every
// participant. The coordinator sets gid.Decision itself.
func NewCoordinator(gid GID, participants []Participant) *Coordinator {
	c := &Coordinator{gid: gid, parts: make([]party, len(participants)), decider: -1}
	for i, p := range participants {
		c.parts[i].Participant = p
	}
	return c
}

// GID is the transaction's name; its decision shard is set once chosen.
func (c *Coordinator) GID() GID { return c.gid }

// Start returns the first actions.
func (c *Coordinator) Start() []Action {
	switch len(c.parts) {
	case 0:
		c.done(Committed, nil)
	case 1: // nothing to agree on, so nothing to ask
		c.decider, c.phase = 0, phaseSingle
		c.send(0, "COMMIT", PointCommit)
	default:
		c.phase = phaseProbe
		for i := range c.parts {
			c.send(i, probeSQL, PointProbe)
		}
	}
	return c.take()
}

// On takes one answer and returns the actions it leads to, often none. An answer
// that nothing waits for is ignored.
func (c *Coordinator) On(ev Event) []Action {
	if !c.expects(ev) {
		return nil
	}
	c.waiting--
	if ev.Kind != Resolved && ev.Kind != Unresolved {
		c.parts[ev.Participant].waiting = false
		if ev.Kind == Lost {
			c.out = append(c.out, Action{Kind: Discard, Participant: ev.Participant})
		}
	}
	switch c.phase {
	case phaseProbe:
		c.onProbe(ev)
	case phaseReaders, phaseEarly, phasePrepare:
		c.onBefore(ev)
	case phaseSingle:
		c.onSingle(ev)
	case phaseDecide:
		c.onDecide(ev)
	case phaseResolve:
		c.onResolve(ev)
	case phaseFinish, phaseLate:
		c.onFinish(ev)
	case phaseRollback:
		c.onRollback(ev)
	}
	if c.waiting == 0 && c.phase != phaseDone {
		c.next()
	}
	return c.take()
}

func (c *Coordinator) expects(ev Event) bool {
	if c.phase == phaseResolve || ev.Kind == Resolved || ev.Kind == Unresolved {
		return c.phase == phaseResolve && (ev.Kind == Resolved || ev.Kind == Unresolved)
	}
	return ev.Participant >= 0 && ev.Participant < len(c.parts) && c.parts[ev.Participant].waiting
}

// next leaves a phase whose answers are all there.
func (c *Coordinator) next() {
	switch c.phase {
	case phaseProbe:
		c.afterProbe()
	case phaseReaders:
		if c.aborting() {
			c.abort()
			return
		}
		c.done(Committed, nil)
	case phaseEarly:
		if c.aborting() {
			c.abort()
			return
		}
		c.phase = phaseSingle
		c.send(c.decider, "COMMIT", PointCommit)
	case phaseSingle:
		c.afterSingle()
	case phasePrepare:
		if c.aborting() {
			c.abort()
			return
		}
		c.phase = phaseDecide
		c.send(c.decider, c.decideSQL(), PointDecide)
	case phaseDecide:
		c.afterDecide()
	case phaseFinish, phaseLate:
		c.done(Committed, nil)
	case phaseRollback:
		c.afterRollback()
	}
}

func (c *Coordinator) onProbe(ev Event) {
	p := &c.parts[ev.Participant]
	switch {
	case ev.Kind == Answered && ev.Value != "":
		p.writer = ev.Value[0] == 'w'
		p.serializable = strings.Contains(ev.Value, "s")
		p.temporary = strings.Contains(ev.Value, "t")
		if p.writer {
			c.writers++
		}
	case ev.Kind == Answered:
		c.fail(pgerr.New(pgerr.InternalError, "shard %s did not say whether it has written", p.Shard))
	case ev.Kind == Failed && ev.Err.Code == pgerr.InFailedTransaction:
		c.rollback = true
	default:
		c.onBefore(ev)
	}
}

func (c *Coordinator) afterProbe() {
	if c.aborting() {
		c.abort()
		return
	}
	if c.writers == 0 {
		c.phase = phaseReaders
		c.commitReaders(func(*party) bool { return true })
		return
	}
	if err := c.choose(); err != nil {
		c.fail(err)
		c.abort()
		return
	}
	early := func(p *party) bool { return p.early() }
	if c.writers == 1 {
		c.phase = phaseEarly
		c.commitReaders(early)
		if c.waiting == 0 {
			c.next()
		}
		return
	}
	c.phase = phasePrepare
	c.commitReaders(early)
	for i := range c.parts {
		if p := &c.parts[i]; p.writer && i != c.decider {
			p.standing = preparing
			c.send(i, c.prepareSQL(i), PointPrepare)
		}
	}
}

// choose picks the decision shard among the writers: one that cannot be prepared,
// else one that perhaps cannot, else by the counter, so that the rows spread.
func (c *Coordinator) choose() *pgerr.Error {
	var must, should, any []int
	for i := range c.parts {
		p := &c.parts[i]
		switch {
		case !p.writer:
		case p.NoPrepare:
			must = append(must, i)
		case p.temporary:
			should = append(should, i)
		default:
			any = append(any, i)
		}
	}
	switch {
	case len(must) > 1:
		return errUnpreparable(c.parts[must[0]].Shard, c.parts[must[1]].Shard)
	case len(must) == 1:
		c.decider = must[0]
	case len(should) > 0:
		c.decider = should[0]
	default:
		c.decider = any[c.gid.Counter%uint64(len(any))]
	}
	c.gid.Decision = c.parts[c.decider].Shard
	if err := c.gid.Validate(); c.writers > 1 && err != nil {
		return pgerr.New(pgerr.InternalError, "the transaction cannot be named").WithCause(err)
	}
	return nil
}

// onBefore takes an answer that comes before anything is decided: anything but
// success means abort.
func (c *Coordinator) onBefore(ev Event) {
	p := &c.parts[ev.Participant]
	if p.standing == preparing {
		c.onPrepare(p, ev)
		return
	}
	switch {
	case ev.Kind == Lost:
		p.standing = lost
		c.fail(errLost(p.Shard, ev.Err))
	case ev.Kind == Failed:
		p.failed(ev)
		c.fail(ev.Err)
	default:
		p.standing = ended
		c.rollback = c.rollback || ev.Tag == tagRollback
	}
}

func (c *Coordinator) onPrepare(p *party, ev Event) {
	switch {
	case ev.Kind == Failed:
		p.failed(ev)
		c.fail(explainPrepare(ev.Err))
	case ev.Kind == Answered && ev.Tag == tagPrepare:
		p.standing = prepared
	case ev.Kind == Answered && ev.Tag == tagRollback:
		p.standing, c.rollback = ended, true
	default:
		c.distrust(ev)
		p.standing = maybePrepared
		c.fail(errLost(p.Shard, ev.Err))
	}
}

// distrust gives up a connection that gave an answer no PostgreSQL gives. A lost
// one has been given up already.
func (c *Coordinator) distrust(ev Event) {
	if ev.Kind != Lost {
		c.out = append(c.out, Action{Kind: Discard, Participant: ev.Participant})
	}
}

// failed notes an ERROR: PostgreSQL has ended the transaction, or waits for
// ROLLBACK.
func (p *party) failed(ev Event) {
	if p.standing = ended; ev.InTransaction {
		p.standing = open
	}
}

func (c *Coordinator) onSingle(ev Event) {
	p := &c.parts[c.decider]
	switch {
	case ev.Kind == Failed:
		p.failed(ev)
		c.fail(ev.Err)
	case ev.Kind == Answered && ev.Tag == tagCommit:
		p.standing = ended
	case ev.Kind == Answered && ev.Tag == tagRollback:
		p.standing, c.rollback = ended, true
	default:
		c.distrust(ev)
		p.standing, c.unknown = lost, true
		c.fail(errUnknown(p.Shard, ev.Err))
	}
}

func (c *Coordinator) afterSingle() {
	if c.aborting() {
		c.abort()
		return
	}
	c.phase = phaseLate
	c.commitReaders(func(*party) bool { return true })
	if c.waiting == 0 {
		c.next()
	}
}

func (c *Coordinator) onDecide(ev Event) {
	p := &c.parts[c.decider]
	switch {
	case ev.Kind == Failed:
		p.failed(ev)
		c.fail(explainDecide(ev.Err))
	case ev.Kind == Answered && ev.Tag == tagCommit:
		p.standing = ended
	case ev.Kind == Answered && ev.Tag == tagRollback:
		p.standing, c.rollback = ended, true
	default: // decided or not: nobody guesses
		c.distrust(ev)
		p.standing = lost
	}
}

func (c *Coordinator) afterDecide() {
	switch {
	case c.aborting():
		c.abort()
	case c.parts[c.decider].standing == lost:
		c.phase = phaseResolve
		c.waiting++
		c.out = append(c.out, Action{Kind: Resolve, GID: c.gid, Point: PointResolve})
	default:
		c.finish()
	}
}

func (c *Coordinator) onResolve(ev Event) {
	shard := c.parts[c.decider].Shard
	switch {
	case ev.Kind == Resolved && ev.Verdict == VerdictCommit:
		c.finish()
	case ev.Kind == Resolved && ev.Verdict == VerdictAbort:
		c.asked = true
		c.fail(errLost(shard, nil))
		c.abort()
	default:
		c.unknown = true
		c.fail(errUnknown(shard, ev.Err))
		c.rollbackOpen()
	}
}

// finish follows a decision to commit.
func (c *Coordinator) finish() {
	c.phase = phaseFinish
	c.commitReaders(func(*party) bool { return true })
	for i := range c.parts {
		if c.parts[i].standing == prepared {
			c.send(i, "COMMIT PREPARED '"+c.gid.Branch(i)+"'", PointFinish)
		}
	}
	if c.waiting == 0 {
		c.next()
	}
}

// onFinish takes an answer that comes after the decision to commit: nothing can
// fail the transaction any more.
func (c *Coordinator) onFinish(ev Event) {
	p := &c.parts[ev.Participant]
	if ev.Kind == Unfinished {
		c.warnings = append(c.warnings, warnUnfinished(p.Shard, ev.Err))
	}
	if ev.Kind == Finished || ev.Kind == Unfinished {
		return
	}
	done := ev.Kind == Answered || // or the resolver was faster:
		p.standing == prepared && ev.Kind == Failed && ev.Err.Code == pgerr.UndefinedObject
	switch {
	case done:
		p.standing = ended
	case p.standing == prepared: // lost, or refused: the role was SET LOCAL, the disk is full
		p.standing, p.waiting = lost, true
		c.waiting++
		c.out = append(c.out, Action{
			Kind: Finish, Participant: ev.Participant, Branch: c.gid.Branch(ev.Participant),
			Verdict: VerdictCommit, Wait: true, Point: PointFinish,
		})
	default:
		p.standing = lost
		c.warnings = append(c.warnings, warnReader(p.Shard, ev.Err))
	}
}
