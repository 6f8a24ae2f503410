package exec

import (
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/twophase"
)

// txn is the session's transaction: nothing on any shard until a statement
// needs one, then a block on each shard that one touches.
type txn struct {
	// block: statements run in a transaction block on the shards; explicit: the
	// client opened it. A block that is not explicit ends with the statement,
	// the simple Query or the Sync that opened it.
	block, explicit bool
	failed          bool
	begin           string // "BEGIN ISOLATION LEVEL SERIALIZABLE"
	readOnly        bool
	parts           []*part // in the order of binding
	saves           []savepoint
	before          saved // settings at BEGIN
	listens         []listening
	times           plan.Times // of the transaction, once several shards share them
}

type savepoint struct {
	name     string
	settings saved
	listens  int
}

// Status is what ReadyForQuery tells: 'I' idle, 'T' in a block, 'E' in a failed block.
func (x *Exec) Status() byte {
	switch {
	case x.direct != nil:
		return x.direct.Status()
	case !x.txn.explicit:
		return 'I'
	case x.txn.failed:
		return 'E'
	}
	return 'T'
}

// InBlock says whether the client has opened a transaction block.
func (x *Exec) InBlock() bool { return x.txn.explicit || x.direct != nil && x.direct.Status() != 'I' }

// Bound says whether the transaction holds connections: the session's Place
// must then stay as it is.
func (x *Exec) Bound() bool { return len(x.txn.parts) > 0 || x.direct != nil }

// Failed says whether the open block can only be rolled back.
func (x *Exec) Failed() bool { return x.txn.block && x.txn.failed }

// LastEnd is how the last block ended, since Began was called.
func (x *Exec) LastEnd() twophase.State { return x.lastEnd }

// Began forgets how the last block ended: Aborted until another one has.
func (x *Exec) Began() { x.lastEnd = twophase.Aborted }

// Fail marks the open block as failed: every part must roll back.
func (x *Exec) Fail() {
	if x.txn.block && !x.txn.failed {
		x.txn.failed = true
		x.revert()
	}
}

// openBlock starts a block; nothing is sent before a shard is bound.
func (x *Exec) openBlock(begin string, readOnly, explicit bool) {
	x.txn = txn{block: true, explicit: explicit, begin: begin, readOnly: readOnly,
		parts: x.txn.parts[:0], saves: x.txn.saves[:0], before: x.Settings.save()}
}

// find yields the part that is bound to shard, the one on the primary where there
// is one on a replica too, or nil.
func (x *Exec) find(shard int) *part {
	var found *part
	for _, p := range x.txn.parts {
		if p.shard == shard {
			if p.replica == nil {
				return p
			}
			found = p
		}
	}
	return found
}

// bind yields the transaction's part on shard, making it the first time. Inside
// a block BEGIN, SET LOCALs and savepoints travel in front of the statement.
func (x *Exec) bind(shard int) (*part, error) {
	if p := x.find(shard); p != nil {
		return p, nil
	}
	return x.bindNew(shard)
}

// bindPrimary is bind for what no replica can do.
func (x *Exec) bindPrimary(shard int) (*part, error) {
	if p := x.find(shard); p != nil && p.replica == nil {
		return p, nil
	}
	return x.bindNew(shard)
}

// bindNew adds a part on the shard's primary.
func (x *Exec) bindNew(shard int) (*part, error) {
	p, err := x.acquire(shard)
	if err != nil {
		return nil, err
	}
	if x.txn.block {
		x.beginOn(p)
	}
	x.txn.parts = append(x.txn.parts, p)
	return p, nil
}

// beginOn queues what opens the block on p.
func (x *Exec) beginOn(p *part) {
	x.inject(p, x.txn.begin)
	p.began = true
	local := 0
	for _, s := range x.txn.saves {
		x.injectSets(p, x.Settings.journal[local:s.settings.journal])
		local = s.settings.journal
		x.inject(p, "SAVEPOINT "+quoteIdent(s.name))
	}
	x.injectSets(p, x.Settings.journal[local:])
}

func (x *Exec) injectSets(p *part, sets []setting) {
	for _, s := range sets {
		if s.name == "" {
			x.inject(p, s.value)
			continue
		}
		x.inject(p, setStatement(s.name, s.value, s.local))
	}
}

// inject queues a Query whose answers are swallowed.
func (x *Exec) inject(p *part, sql string) {
	queueQuery(p.conn, sql)
	p.skipZ++
}

// pick yields the shard for a statement that may run anywhere: one already
// bound, else the home shard.
func (x *Exec) pick() int {
	if len(x.txn.parts) > 0 {
		return x.txn.parts[0].shard
	}
	return x.Place.Home
}

// unbindAll gives every connection back. Outside a block this is the end of a
// statement.
func (x *Exec) unbindAll() {
	for _, p := range x.txn.parts {
		if p.look != 0 {
			x.lookEnded(p)
		}
		x.release(p)
	}
	x.txn.parts = x.txn.parts[:0]
	x.serial++
}

// EndImplicit ends a block that the client did not open, at the end of a simple
// Query or at Sync: commits it, or rolls back what failed. The error, if any, is
// to be told to the client.
func (x *Exec) EndImplicit(failed bool) error {
	if x.txn.explicit {
		if failed {
			x.Fail()
		}
		return nil
	}
	if !x.txn.block {
		x.unbindAll()
		return nil
	}
	if failed || x.txn.failed {
		return x.rollback()
	}
	_, err := x.commit()
	return err
}

// rollback ends the block everywhere. Connections that cannot be rolled back
// are closed, which rolls them back too.
func (x *Exec) rollback() error {
	var fatal error
	multi := len(x.txn.parts) > 1
	for _, p := range x.txn.parts {
		if (p.unit.open || p.owes) && !x.hush(p) || p.conn.Broken() || p.big > 0 {
			p.conn.Break()
			continue
		}
		if p.began {
			x.sendQuery(p, "ROLLBACK")
			if err := x.flush(p); err != nil && Fatal(err) {
				fatal = err
			}
		}
	}
	for _, p := range x.txn.parts {
		if fatal != nil {
			p.conn.Break()
		}
		if p.conn.Broken() || !p.began {
			continue
		}
		if _, err := x.answer(p, nil); err != nil {
			p.conn.Break()
			if Fatal(err) {
				fatal = err
			}
		}
	}
	x.Settings.restore(x.txn.before)
	x.ended(multi, false)
	x.lastEnd = twophase.Aborted
	return fatal
}

// ended closes the books on a block.
func (x *Exec) ended(multi, committed bool) {
	if x.Recorder != nil && len(x.txn.parts) > 0 {
		x.Recorder.Transaction(multi, committed)
	}
	x.Settings.journal = x.Settings.journal[:0]
	x.Settings.endLocal()
	x.endCursors(committed)
	if !committed && multi {
		x.dropStray()
	}
	for _, p := range x.txn.parts {
		if committed {
			p.conn.Settings, p.conn.SettingsKey = x.Settings.now, x.Settings.key
		}
		p.began = false
		if p.fresh != 0 {
			p.settlePins(committed)
		}
	}
	x.unbindAll()
	listens := x.txn.listens
	x.txn = txn{parts: x.txn.parts, saves: x.txn.saves[:0]}
	if committed && len(listens) > 0 {
		x.listenElsewhere(listens)
	}
}

// Control carries out transaction control and yields the command's tag.
func (x *Exec) Control(c *plan.Control) (tag string, err error) {
	switch c.Kind {
	case plan.Begin:
		return x.beginBlock(c)
	case plan.Commit:
		return x.commitBlock(c)
	case plan.Rollback:
		return x.rollbackBlock(c)
	case plan.Savepoint, plan.RollbackTo, plan.Release:
		return x.savepoint(c)
	}
	return "", pgerr.New(pgerr.InternalError, "not a transaction statement")
}

func (x *Exec) beginBlock(c *plan.Control) (string, error) {
	switch {
	case x.txn.explicit && x.txn.failed:
		return "", aborted()
	case x.txn.explicit:
		x.notice("WARNING", pgerr.ActiveSQLTransaction, "there is already a transaction in progress")
		if c.Options != "" {
			modes := &plan.Control{Kind: plan.SetTransaction, Options: c.Options, ReadOnly: c.ReadOnly}
			return "BEGIN", x.set(modes, &plan.Args{SQL: "SET TRANSACTION " + c.Options})
		}
		return "BEGIN", nil
	case x.txn.block:
		// BEGIN after other statements of one Query, or of one pipeline: they
		// belong to the block, as in PostgreSQL.
		if c.Options != "" {
			if err := x.everywhere("SET TRANSACTION " + c.Options); err != nil {
				x.Fail()
				return "", err
			}
			x.txn.begin += " " + c.Options
		}
		x.txn.explicit, x.txn.readOnly = true, x.txn.readOnly || c.ReadOnly
		return "BEGIN", nil
	}
	begin := "BEGIN"
	if c.Options != "" {
		begin += " " + c.Options
	}
	x.openBlock(begin, c.ReadOnly, true)
	return "BEGIN", nil
}

func (x *Exec) commitBlock(c *plan.Control) (string, error) {
	if !x.txn.explicit {
		if c.Chain {
			return "", pgerr.New(pgerr.NoActiveSQLTransaction, "COMMIT AND CHAIN can only be used in transaction blocks")
		}
		x.notice("WARNING", pgerr.NoActiveSQLTransaction, "there is no transaction in progress")
		if x.txn.block {
			if _, err := x.commit(); err != nil {
				return "", err
			}
		}
		return "COMMIT", nil
	}
	begin, readOnly := x.txn.begin, x.txn.readOnly
	tag := "COMMIT"
	var err error
	if x.txn.failed {
		tag, err = "ROLLBACK", x.rollback()
	} else {
		tag, err = x.commit()
	}
	if err == nil && c.Chain {
		x.openBlock(begin, readOnly, true)
	}
	return tag, err
}

func (x *Exec) rollbackBlock(c *plan.Control) (string, error) {
	if !x.txn.explicit && c.Chain {
		return "", pgerr.New(pgerr.NoActiveSQLTransaction, "ROLLBACK AND CHAIN can only be used in transaction blocks")
	}
	if !x.txn.explicit && !x.txn.block {
		x.notice("WARNING", pgerr.NoActiveSQLTransaction, "there is no transaction in progress")
		return "ROLLBACK", nil
	}
	if !x.txn.explicit { // the implicit one of a Query or a pipeline ends all the same
		x.notice("WARNING", pgerr.NoActiveSQLTransaction, "there is no transaction in progress")
	}
	begin, readOnly := x.txn.begin, x.txn.readOnly
	if err := x.rollback(); err != nil {
		return "", err
	}
	if c.Chain {
		x.openBlock(begin, readOnly, true)
	}
	return "ROLLBACK", nil
}

// aborted is what every statement but the block's end gets in a failed block.
func aborted() *pgerr.Error {
	return pgerr.New(pgerr.InFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block")
}

// Aborted yields the error that a statement gets in a failed block, or nil.
func (x *Exec) Aborted() error {
	if x.txn.explicit && x.txn.failed || x.direct != nil && x.direct.Status() == 'E' {
		return aborted()
	}
	return nil
}

func (x *Exec) savepoint(c *plan.Control) (string, error) {
	verb := map[plan.ControlKind]string{plan.Savepoint: "SAVEPOINT", plan.RollbackTo: "ROLLBACK TO SAVEPOINT", plan.Release: "RELEASE SAVEPOINT"}[c.Kind]
	if !x.txn.explicit {
		return "", pgerr.New(pgerr.NoActiveSQLTransaction, "%s can only be used in transaction blocks", verb)
	}
	if x.txn.failed && c.Kind != plan.RollbackTo {
		return "", aborted()
	}
	tag := map[plan.ControlKind]string{plan.Savepoint: "SAVEPOINT", plan.RollbackTo: "ROLLBACK", plan.Release: "RELEASE"}[c.Kind]
	at := -1
	if c.Kind != plan.Savepoint {
		for i := len(x.txn.saves) - 1; i >= 0; i-- {
			if x.txn.saves[i].name == c.Name {
				at = i
				break
			}
		}
		if at < 0 {
			x.Fail()
			return "", pgerr.New(pgerr.InvalidSavepointSpecification, "savepoint %q does not exist", c.Name)
		}
	}
	for _, p := range x.txn.parts {
		if p.conn.Broken() || p.owes || p.unit.open {
			p.conn.Break()
			x.Fail()
			return "", pgerr.New(pgerr.ConnectionFailure, "the connection to shard %s was lost in this transaction", x.Place.Shards[p.shard]).
				WithHint("Only ROLLBACK is possible now.")
		}
	}
	if err := x.everywhere(verb + " " + quoteIdent(c.Name)); err != nil {
		x.Fail()
		return "", err
	}
	switch c.Kind {
	case plan.Savepoint:
		x.txn.saves = append(x.txn.saves, savepoint{c.Name, x.Settings.save(), len(x.txn.listens)})
	case plan.RollbackTo:
		x.Settings.restore(x.txn.saves[at].settings)
		x.txn.listens = x.txn.listens[:x.txn.saves[at].listens]
		x.txn.saves = x.txn.saves[:at+1]
		x.txn.failed = false
		x.cutCursors(at)
		for _, p := range x.txn.parts {
			if p.look == 0 {
				continue
			}
			if err := x.look(p); err != nil {
				x.Fail()
				return "", err
			}
		}
	case plan.Release:
		x.txn.saves = x.txn.saves[:at]
		x.keepCursors(at)
	}
	return tag, nil
}

// everywhere runs sql on every bound part and yields the first error.
func (x *Exec) everywhere(sql string) error {
	for _, p := range x.txn.parts {
		x.sendQuery(p, sql)
		if err := x.flush(p); err != nil {
			return err
		}
	}
	var first error
	for _, p := range x.txn.parts {
		if _, err := x.answer(p, nil); err != nil && (first == nil || Fatal(err)) {
			first = err
		}
	}
	return first
}

// notice tells the client something by the way.
func (x *Exec) notice(severity, code, message string) {
	e := pgerr.New(code, "%s", message)
	e.Severity = severity
	x.Client.SetOut(pgwire.AppendNotice(x.Client.OutBuf(), e))
}

// Open says whether a block is open, the client's or a statement's.
func (x *Exec) Open() bool { return x.txn.block }

// Savepoints is how many savepoints stand in the block.
func (x *Exec) Savepoints() int { return len(x.txn.saves) }
