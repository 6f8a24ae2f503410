package exec

import (
	"errors"
	"time"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/plan"
)

// part is a shard's share in what the session is doing.
type part struct {
	shard      int
	conn       *backend.Conn
	began      bool // inside a transaction block of ours
	wrote      bool // a statement that may write has been sent
	skipZ      int  // answers of injected Queries to be swallowed, counted by their ReadyForQuery
	skipErr    *pgerr.Error
	owes       bool             // an answer is due of which nothing, or not all, has been read
	headerSeen bool             // COPY TO: this part's header is past; COPY FROM: it is sent
	rows       []byte           // COPY FROM: rows for the next CopyData
	tainted    bool             // clean before another session may have it
	cancelled  time.Time        // when a cancel request was last sent for it
	pinned     plan.Pin         // why the session keeps it
	fresh      plan.Pin         // what the open transaction adds to that
	look       plan.Pin         // what of it the server is to be asked about
	said       *pgerr.Error     // with which the server ended it while it was kept, if it said why
	told       bool             // the client knows that the connection is lost
	pend       int              // bytes of the frame that frame() returned last
	heard      bool             // something that it said has been taken
	died       string           // SQLSTATE with which the server ended, if nothing was heard before
	repeated   bool             // it took a lost part's place
	flushed    bool             // something was sent
	unsent     bool             // the connection was lost before anything was
	lost       bool             // its connection ended by itself
	big        int              // bytes of a frame that are still to be passed through
	replica    *backend.Replica // the server is this one, not the shard's primary
	guarded    bool             // the guard's row is due
	synced     bool             // what was sent ends with a ReadyForQuery
	settled    bool             // the replica has accepted
	dirty      bool             // what was sent may have written
	swap       *rowSwap         // what its rows have inside that the client knows by other numbers
	unit       unit
	start      time.Time
}

// past gives up the message that frame returned last.
func (p *part) past() {
	if p.pend > 0 {
		p.conn.Consume(p.pend)
		p.pend = 0
	}
}

// acquire yields a part with a clean connection to shard, with the session's
// settings applied.
func (x *Exec) acquire(shard int) (*part, error) {
	if len(x.pinned) > 0 || x.pinsLost != nil {
		if p, err := x.takePinned(shard); p != nil || err != nil {
			if err == nil {
				err = x.ensureSettings(p)
			}
			return p, err
		}
	}
	pool := x.pool(shard)
	// What the client sends meanwhile must not end a wait for a connection.
	x.T.Want(x.Client, 0)
	c, err := pool.Acquire(x.T, x.Cred, x.custom)
	if err != nil {
		return nil, x.refused(shard, err)
	}
	p := x.partOn(shard, c)
	err = x.ensureSettings(p)
	if err != nil && !Fatal(err) && p.lost {
		// It was dead before anything of the statement was sent.
		if c, err = pool.Acquire(x.T, x.Cred, x.custom); err != nil {
			return nil, x.refused(shard, err)
		}
		p = x.partOn(shard, c)
		err = x.ensureSettings(p)
	}
	if x.keepAll && err == nil {
		p.pinned |= plan.PinMode
	}
	return p, err
}

// partOn is a part on a connection just acquired.
func (x *Exec) partOn(shard int, c *backend.Conn) *part {
	p := x.Commons.part()
	p.shard, p.conn = shard, c
	if c.Generation != x.generation && x.start != nil {
		x.keepStart(c)
	}
	return p
}

// refused is the error for a connection that was not to be had.
func (x *Exec) refused(shard int, err error) error {
	var e *pgerr.Error
	if !errors.As(err, &e) {
		return err
	}
	// What refuses the router's connection does not end the client's.
	e = e.WithSeverity(pgerr.SeverityError)
	if e.Detail == "" {
		e.Detail = "Shard " + string(x.Place.Shards[shard]) + "."
	}
	return e
}

// forPlace makes room for the pools of a new Place.
func (x *Exec) forPlace() {
	if x.place == x.Place {
		return
	}
	x.place, x.replicas = x.Place, nil
	x.pools = make([]*backend.Pool, len(x.Place.Shards))
	if x.Place.Replicas != nil {
		x.replicas = make([][]*backend.Pool, len(x.Place.Shards))
	}
}

// pool is that of a shard's primary.
func (x *Exec) pool(shard int) *backend.Pool {
	x.forPlace()
	pool := x.pools[shard]
	if pool == nil {
		tgt := x.Place.Targets[shard]
		pool = x.Opts.Pools.Pool(x.T.Loop(), tgt, backend.Key{Addr: tgt.Addr, Database: x.Place.Database, Role: x.Role})
		x.pools[shard] = pool
	}
	return pool
}

// ensureSettings brings p's connection to the session's settings; a failure
// gives p up.
func (x *Exec) ensureSettings(p *part) error {
	err := x.applySettings(p)
	if err == nil && x.made != nil {
		err = x.defineCustom(p)
	}
	if err != nil {
		p.conn.Break()
		x.release(p)
	}
	return err
}

// release gives a part's connection back to its pool.
func (x *Exec) release(p *part) {
	if p.conn == nil {
		return
	}
	if p.conn.Broken() {
		p.pend = 0
		if p.look&plan.PinTemporary != 0 && p.shard == x.Place.Home {
			x.setTemps(nil) // the server was not asked what is left: nothing is
		}
	}
	p.past()
	if p.skipZ > 0 || p.big > 0 || p.unit.open || p.owes {
		p.conn.Break()
	}
	if p.dirty && p.replica == nil && x.Place.Replicas != nil {
		x.wrote(p.shard)
	}
	if p.pinned|p.fresh != 0 && x.keepPinned(p) {
		return
	}
	if p.tainted {
		// What a function of a user's left behind is unknown.
		p.conn.Break()
	}
	if x.custom != nil {
		p.conn.MarkCustom(x.custom)
	}
	p.conn.Release()
	p.conn = nil
	x.Commons.spare(p)
}
