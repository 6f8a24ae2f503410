package exec

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
)

// Reads from replicas: docs/decisions/0004-replica-reads.md.

// Policy says where reads outside a write transaction may run.
type Policy uint8

const (
	PolicyPrimary       Policy = iota // primaries only
	PolicyReplicaOK                   // whichever is less busy
	PolicyReplicaPrefer               // replicas, a primary where none can be used
)

var policies = [...]string{"primary", "replica_ok", "replica_prefer"}

// ParsePolicy reads a policy's name.
func ParsePolicy(name string) (Policy, bool) {
	i := slices.Index(policies[:], strings.ToLower(name))
	return Policy(max(i, 0)), i >= 0
}

// String is the name that ParsePolicy reads.
func (p Policy) String() string { return policies[p] }

// timesPlan stands for the question what time it is.
var timesPlan = plan.Plan{Replica: plan.ReplicaJoin}

// readable says whether a replica of shard may run the statement now.
func (x *Exec) readable(pl *plan.Plan, shard int) bool {
	if x.Place.Replicas == nil || x.Policy == PolicyPrimary || len(x.Place.Replicas[shard]) == 0 {
		return false
	}
	if x.txn.block {
		if pl.Replica < plan.ReplicaJoin || !x.txn.forReplica() {
			return false
		}
	} else if pl.Replica != plan.ReplicaOK {
		return false
	}
	for _, p := range x.pinned {
		if p.shard == shard {
			return false // what the session has there, the statement may use
		}
	}
	// A server in recovery knows no serializable transactions, and what undoes
	// read-only sessions is not for it.
	if v, ok := x.Settings.Get("default_transaction_isolation"); ok && strings.EqualFold(v, "serializable") && !strings.Contains(x.txn.begin, "ISOLATION") {
		return false
	}
	v, ok := x.Settings.Get("default_transaction_read_only")
	return !ok || v == "on"
}

// forReplica says whether a block may have its statements run by replicas.
func (t *txn) forReplica() bool {
	return t.readOnly && !strings.Contains(t.begin, "SERIALIZABLE") && !strings.Contains(t.begin, "READ WRITE")
}

// bindFor is bind for a statement: its part may be on a replica of the shard. A
// transaction that is on a replica goes on there; a statement that is not for
// replicas gets a part on the primary beside it.
func (x *Exec) bindFor(pl *plan.Plan, shard int) (*part, error) {
	if x.Place.Replicas == nil {
		return x.bind(shard)
	}
	p := x.find(shard)
	switch {
	case p != nil && (p.replica == nil || pl.Replica != plan.ReplicaNever):
		return p, nil
	case p != nil:
		if strings.Contains(x.txn.begin, "REPEATABLE READ") && len(pl.Tables) > 0 {
			return nil, pgerr.ReplicaBlock.New("this statement needs shard %s's primary, and the transaction reads from a replica", x.Place.Shards[shard])
		}
		return x.bindNew(shard)
	case x.readable(pl, shard):
		if p, err := x.bindReplica(shard); p != nil || err != nil {
			return p, err
		}
	}
	return x.bindNew(shard)
}

// bindMember is bind for a portal over several shards: in a block, as bindFor; by
// itself a shard's primary.
func (x *Exec) bindMember(pl *plan.Plan, shard int) (*part, error) {
	if x.txn.block {
		return x.bindFor(pl, shard)
	}
	return x.bind(shard)
}

// OpenForReplicas opens a block for a portal over several shards that is alone in
// its pipeline and only reads: its parts may be on replicas.
func (x *Exec) OpenForReplicas() {
	if !x.txn.block {
		x.openBlock("BEGIN", true, false)
	}
}

// bindReplica yields a part on a replica of shard that shows all that the session
// may rely on, nil where there is none. In a block the replica has said so, and the
// block is open; outside one the question is in front of what is sent next: see
// accepted.
func (x *Exec) bindReplica(shard int) (*part, error) {
	var tried uint32
	for {
		r, i, through := x.choose(shard, tried)
		if r == nil {
			return nil, nil
		}
		tried |= 1 << i
		p, err := x.acquireReplica(shard, i, r)
		if err == nil {
			x.guard(p, through)
			if !x.txn.block {
				x.txn.parts = append(x.txn.parts, p)
				return p, nil
			}
			x.beginOn(p)
			if err = x.flush(p); err == nil {
				err = x.settle(p)
			}
			if err == nil {
				x.txn.parts = append(x.txn.parts, p)
				return p, nil
			}
			p.conn.Break()
			p.began = false
			x.release(p)
		}
		if Fatal(err) {
			return nil, err
		}
		r.Failed(err)
	}
}

// choose picks the least busy replica that may be used and was not tried; with
// PolicyReplicaOK none where the primary is less busy. Among equals chance decides.
func (x *Exec) choose(shard int, tried uint32) (best *backend.Replica, at int, through backend.LSN) {
	x.forPlace()
	var since time.Time
	if x.wroteAt != nil {
		since = x.wroteAt[shard]
	}
	busy, equal := 0, 0
	if x.Policy == PolicyReplicaOK {
		busy, equal, at = x.pool(shard).Busy(), 1, -1
	}
	for i, r := range x.Place.Replicas[shard] {
		lsn, ok := r.Fresh(since, x.Opts.MaxReplicaLag())
		if !ok || tried&(1<<i) != 0 {
			continue
		}
		b := x.replicaPool(shard, i).Busy()
		switch {
		case equal == 0 || b < busy:
			equal = 1
		case b > busy:
			continue
		default:
			if equal++; rand.IntN(equal) > 0 {
				continue
			}
		}
		best, at, through, busy = r, i, lsn, b
	}
	return best, at, through
}

// acquireReplica yields a part with a connection to a replica.
func (x *Exec) acquireReplica(shard, i int, r *backend.Replica) (*part, error) {
	x.T.Want(x.Client, 0)
	c, err := x.replicaPool(shard, i).Acquire(x.T, x.Cred, x.custom)
	if err != nil {
		return nil, err
	}
	p := x.Commons.part()
	p.shard, p.conn, p.replica = shard, c, r
	if c.Generation != x.generation && x.start != nil {
		x.keepStart(c)
	}
	return p, x.ensureSettings(p)
}

func (x *Exec) replicaPool(shard, i int) *backend.Pool {
	if x.replicas[shard] == nil {
		x.replicas[shard] = make([]*backend.Pool, len(x.Place.Replicas[shard]))
	}
	p := x.replicas[shard][i]
	if p == nil {
		tgt := x.Place.Replicas[shard][i].Target
		p = x.Opts.Pools.Pool(x.T.Loop(), tgt, backend.Key{Addr: tgt.Addr, Database: x.Place.Database, Role: x.Role, ReadOnly: true})
		x.replicas[shard][i] = p
	}
	return p
}

const (
	guardName = "sharding_guard"
	guardSQL  = "SELECT pg_catalog.pg_is_in_recovery() AND pg_catalog.pg_last_wal_replay_lsn() OPERATOR(pg_catalog.>=) $1"
	oidLSN    = 3220
)

// errNotFresh: a replica is none any more, or shows less than it did.
var errNotFresh = pgerr.New(pgerr.InternalError, "the replica does not show what it should")

// guard asks p's server whether it is a replica that has replayed the log up to
// through, in front of whatever follows in the same packet. Its answer is swallowed;
// anything but yes is the error of the injected queries.
func (x *Exec) guard(p *part, through backend.LSN) {
	c := p.conn
	out := c.OutBuf()
	if !c.Has(guardName) {
		if evict := c.Remember(guardName); evict != "" {
			out = pgwire.AppendClose(out, pgwire.KindStatement, evict)
		}
		out, _ = pgwire.AppendParse(out, guardName, guardSQL, []uint32{oidLSN})
	}
	x.scratch = append(x.scratch[:0], through.String()...)
	out, _ = pgwire.AppendBind(out, &pgwire.Bind{Portal: guardName, Statement: guardName, Params: [][]byte{x.scratch}})
	out = pgwire.AppendExecute(out, guardName, 0)
	out = pgwire.AppendClose(out, pgwire.KindPortal, guardName)
	c.SetOut(pgwire.AppendSync(out))
	p.skipZ++
	p.guarded = true
}

// guardAnswer looks at the guard's row.
func (p *part) guardAnswer(row []byte) {
	p.guarded = false
	r, err := pgwire.ParseDataRow(row)
	if err == nil {
		vals := r.Values()
		if v, ok := vals.Next(); ok && string(v) == "t" {
			return
		}
	}
	if p.skipErr == nil {
		p.skipErr = errNotFresh
	}
}

// accepted waits until a replica's first answer has begun: nil when it is to be
// relayed. An error says that the primary is to run the statement: the client has
// been told nothing of that replica. want is how many of the extended protocol's answers are
// due; 0 for a simple Query, which is decided by its first row or tag.
func (x *Exec) accepted(p *part, want int) error {
	p.settled = true
	if err := x.settle(p); err != nil {
		return err
	}
	seen, at := 0, 0
	for {
		buf := p.conn.In()
		typ, n, _ := pgwire.Frame(buf[at:])
		if n < 0 {
			return x.lostShard(p, errBadFrame)
		}
		if n > 0 {
			switch typ {
			case pgwire.TypeDataRow, pgwire.TypeCommandComplete, pgwire.TypeEmptyQueryResponse, pgwire.TypePortalSuspended,
				pgwire.TypeCopyData, pgwire.TypeCopyDone, pgwire.TypeCopyInResponse, pgwire.TypeReadyForQuery:
				return nil
			}
		}
		if n == 0 || at+n > len(buf) {
			if n > 0 {
				p.conn.Reserve(at + n)
			}
			if err := x.fill(p); err != nil {
				return err
			}
			continue
		}
		switch typ {
		case pgwire.TypeErrorResponse:
			return x.rejected(p, buf[at:at+n])
		case pgwire.TypeParseComplete, pgwire.TypeBindComplete, pgwire.TypeCloseComplete, pgwire.TypeRowDescription, pgwire.TypeNoData:
			if seen++; seen == want {
				return nil
			}
		}
		at += n
	}
}

// rejected is an error that a replica begins its answer with. Whatever it is, the
// primary is asked: it gives the same error if the statement is to blame, and none
// if it was the replica (a function that writes, a conflict with the recovery, a
// table that has not arrived). Only what was stopped on purpose stays stopped.
func (x *Exec) rejected(p *part, msg []byte) error {
	e, err := pgwire.ParseError(msg[5:])
	switch {
	case err != nil:
		return x.lostShard(p, err)
	case !p.cancelled.IsZero() || e.Code == pgerr.QueryCanceled:
		return nil // it is relayed
	case e.IsFatal():
		return x.farewell(p, e)
	}
	return e
}

// giveUp is for a part whose replica did not accept: the primary takes over. An
// error is the session's end.
func (x *Exec) giveUp(p *part, why error) error {
	if Fatal(why) {
		return why
	}
	switch {
	case errors.Is(why, errNotFresh):
		p.replica.Suspect("it does not show what it did")
		p.conn.Break() // the answer may be long
	case p.conn.Broken():
		p.replica.Failed(why)
	case p.unit.open && !p.synced:
		p.conn.Break()
	default:
		x.unitGone(p)
		if err := x.drain(p); err != nil {
			if Fatal(err) {
				return err
			}
			p.conn.Break()
		}
	}
	p.began, p.owes = false, false
	p.unit.reset()
	if x.ext.cur == p {
		x.ext.cur = nil
	}
	x.txn.parts = slices.DeleteFunc(x.txn.parts, func(q *part) bool { return q == p })
	x.release(p)
	return nil
}

// offer sends a statement to a replica's part and waits until it accepts; then
// synced says that it is sent. Otherwise the part that is yielded is the primary's,
// which has not been sent anything.
func (x *Exec) offer(p *plan.Plan, a *plan.Args, on *part, times *plan.Times) (*part, error) {
	on.owes, on.synced = true, true
	queueQuery(on.conn, x.text(p, a, nil, times))
	err := x.flush(on)
	if err == nil || !Fatal(err) {
		if err = x.accepted(on, 0); err == nil {
			return on, nil
		}
	}
	q, err := x.instead(on, err)
	if err == nil {
		x.touch(p, q)
	}
	return q, err
}

// instead yields a part on the primary for one whose replica did not accept.
func (x *Exec) instead(p *part, why error) (*part, error) {
	shard := p.shard
	if err := x.giveUp(p, why); err != nil {
		return nil, err
	}
	q, err := x.bindNew(shard)
	if err == nil {
		q.dirty = true // a write may be why
	}
	return q, err
}

// drain reads to the end of an answer.
func (x *Exec) drain(p *part) error {
	for {
		typ, _, err := x.frame(p)
		if err != nil || typ == pgwire.TypeReadyForQuery {
			return err
		}
	}
}

// endReplicas ends the block on its replicas: nothing of it can fail that the
// client has not seen.
func (x *Exec) endReplicas() {
	kept := x.txn.parts[:0]
	for _, p := range x.txn.parts {
		if p.replica != nil && !p.conn.Broken() {
			x.sendQuery(p, "COMMIT")
			if err := x.flush(p); err != nil {
				p.conn.Break()
			}
		}
	}
	for _, p := range x.txn.parts {
		if p.replica == nil {
			kept = append(kept, p)
			continue
		}
		if !p.conn.Broken() {
			if _, err := x.answer(p, nil); err != nil {
				p.conn.Break()
			}
		}
		p.conn.Settings, p.conn.SettingsKey = x.Settings.now, x.Settings.key
		p.began = false
		x.release(p)
	}
	clear(x.txn.parts[len(kept):])
	x.txn.parts = kept
}

// wrote notes that the session may have written on a shard: what it reads from
// replicas from now on must show it.
func (x *Exec) wrote(shard int) {
	if x.wroteAt == nil {
		x.wroteAt = make([]time.Time, len(x.Place.Shards))
	}
	x.wroteAt[shard] = time.Now()
}

// moved is for a new Place: what was written under the old one was not noted for
// its shards.
func (x *Exec) movedReplicas() {
	x.wroteAt = nil
	if x.Place.Replicas == nil {
		return
	}
	for i := range x.Place.Shards {
		x.wrote(i)
	}
}

// targetOf is how p's server is reached.
func (x *Exec) targetOf(p *part) backend.Target {
	if p.replica != nil {
		return p.replica.Target
	}
	return x.Place.Targets[p.shard]
}
