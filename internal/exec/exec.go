// Package exec carries plans out: it binds a session to the shards that a
// statement needs, sends each its part, relays or merges the answers, and keeps
// transactions one over all of them.
//
// An Exec belongs to one session (one coroutine on one loop) and is used by
// nothing else. It promises that a statement is either carried out on all the
// shards that its plan names or on none, that a connection is given back only
// when it is clean, and that the client is sent whole messages only.
package exec

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
	"github.com/sharding-system/sharding/internal/pgwire"
	"github.com/sharding-system/sharding/internal/plan"
	"github.com/sharding-system/sharding/internal/twophase"
)

var (
	// ErrReported says that the client has been sent the ErrorResponse already.
	ErrReported = errors.New("exec: the error has been sent to the client")
	// ErrClientGone says that the client's connection has ended. It ends the session.
	ErrClientGone = errors.New("exec: the client is gone")
	// ErrCut says that a shard's connection was lost in the middle of a message that
	// the client has the beginning of. It ends the session: nothing can be said in
	// between.
	ErrCut = errors.New("exec: a row was cut off in the middle")
)

// Fatal says whether err ends the session (the client is gone, the router
// stops), as opposed to failing a statement.
func Fatal(err error) bool {
	var e *pgerr.Error
	if errors.As(err, &e) {
		return false // it is for the client, whatever led to it
	}
	return errors.Is(err, ErrClientGone) || errors.Is(err, ErrCut) || errors.Is(err, loop.ErrStopped) || errors.Is(err, loop.ErrClosed)
}

// Place is where a keyspace's data lives, under one epoch. It is immutable and
// shared by all sessions.
type Place struct {
	Keyspace string
	Database string
	Map      *sharding.Map
	Home     int // index into Shards
	// Shards are those of the map, in the map's order, then the home shard if the
	// map does not hold it: these, Members of them, have rows. Behind them come the
	// keyspace's empty shards, which only follow changes of the schema.
	Shards  []sharding.ShardID
	Members int
	Targets []backend.Target
	// Replicas of each shard, at most 32; nil where no shard has one.
	Replicas [][]*backend.Replica
	// TwoPhase is false where the keyspace forbids writes on several shards.
	TwoPhase bool
}

// Options are what a router gives to all its sessions.
type Options struct {
	Pools *backend.Pools
	// GID makes the name of a new two-phase transaction.
	GID func() twophase.GID
	// Service finishes commits in doubt.
	Service Service
	// MaxReplicaLag bounds how old what a replica shows may be.
	MaxReplicaLag time.Duration
	// MaxMessage bounds a client's message during COPY, in bytes.
	MaxMessage int
	// OIDs loads how shards number users' types; nil where nothing is translated.
	OIDs OIDLoader
}

// Recorder takes measurements, for every statement on every shard it ran on and
// for the end of every transaction. It must not block.
type Recorder interface {
	Statement(keyspace string, shard sharding.ShardID, operation string, d time.Duration, failed bool)
	Transaction(multi, committed bool)
}

// Exec is a session's executor.
type Exec struct {
	T      *loop.Task
	Client *loop.Conn
	Opts   *Options
	Role   string
	// PID is what BackendKeyData told the client.
	PID  uint32
	Cred *backend.Credentials

	// Place is the newest that the session has seen. It is replaced only
	// between transactions.
	Place *Place

	// Policy says where reads may run.
	Policy Policy
	// Alone says that the extended messages up to the next Sync are all there and
	// run one portal: a replica may have them. It is the session's to set.
	Alone bool

	// Recorder takes measurements; nil drops them.
	Recorder Recorder

	Settings Settings
	// Commons is of the loop that the session lives on.
	Commons *Commons
	// CancelAll asks the shards at work to stop, without waiting; see Within.
	CancelAll func()

	// Told is what ParameterStatus last told the client. It may be shared: it is replaced, not changed.
	Told map[string]string
	// LastShards are the shards (indexes into Place.Shards) that the last
	// statement ran on.
	LastShards []int

	direct  *Direct // while the session and its backend are put together
	txn     txn
	serial  uint64 // of the transaction or autocommit statement: portals end with it
	lastEnd twophase.State
	ext     ext
	pools   []*backend.Pool // by shard, for Place
	place   *Place          // that pools is for
	// replicas are pools as pools is; wroteAt is when the session last wrote on each
	// shard, nil where it has not.
	replicas [][]*backend.Pool
	wroteAt  []time.Time
	redo     []extOp

	shbuf    []int
	split    plan.RowSplit
	cursors  map[string]cursor
	pinned   []*part // connections that the session keeps
	pinsLost *pgerr.Error
	keepAll  bool // sharding.pool_mode = session
	// custom are the names of custom settings that the session has SET, sorted; made
	// those where it succeeded.
	custom, made []string
	closing      bool
	// temps are the session's temporary relations, on the home shard.
	temps     map[string]struct{}
	tempKey   string
	detached  bool   // a commit is under way: it goes on without the client
	op        string // of the statement that runs, for Observe
	hide      bool   // answers to Bind are the router's own affair
	startPath string
	// start is what a server reported when the session began, before the client's
	// own settings; generation tells whether connections made later start alike.
	start      map[string]string
	generation uint64
	// holdStatus keeps ParameterStatus back in status until the tag has been
	// sent, where PostgreSQL sends it.
	holdStatus bool
	status     []byte
	// What Within set, and whether CancelAll has been called.
	limit    time.Time
	allowed  time.Duration
	overran  bool
	inSeries bool // several statements of one Query share the implicit block
	scratch  []byte
}

// highWater is how much unsent output a client may have before its backend is
// no longer read.
var noDeadline time.Time

const highWater = 256 << 10

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

// lostShard is the error for a connection that ended under a statement.
func (x *Exec) lostShard(p *part, err error) *pgerr.Error {
	p.conn.Lost()
	p.lost = true
	e := pgerr.New(pgerr.ConnectionFailure, "the connection to shard %s was lost", x.Place.Shards[p.shard]).
		WithHint("What the statement did there is rolled back unless its COMMIT had been sent. Run the transaction again.").WithCause(err)
	if p.stands() {
		p.told = true
		e = e.WithDetail("What the session had there is gone: %s.", p.pinned&^plan.PinMode)
	}
	return e
}

// wait suspends the session until p has something to read, or output of p or
// the client can be sent on. It notices a client that goes away.
func (x *Exec) wait(p *part) error {
	t, c := x.T, x.Client
	if c.Queued() > 0 && !x.detached {
		if err := c.Flush(); err != nil && err != loop.ErrWouldBlock {
			return ErrClientGone
		}
	}
	ev := loop.Hangup
	if c.Queued() > 0 {
		ev |= loop.Writable
	}
	if x.detached {
		ev = 0
	}
	t.Want(c, ev)
	var bev loop.Events
	if c.Queued() <= highWater || x.detached {
		bev = loop.Readable
	}
	if p.conn.Queued() > 0 {
		bev |= loop.Writable
	}
	t.Want(p.conn.Conn, bev)
	cause, err := t.Wait(x.limit)
	// A Want stands until it is changed: another part's wait must not be ended by
	// what this one has to read.
	t.Want(p.conn.Conn, 0)
	if err != nil {
		return err
	}
	if c.HupSeen() && !x.detached {
		return ErrClientGone
	}
	if cause&loop.CauseDeadline != 0 && cause&loop.CauseReady == 0 {
		return x.overdue(p)
	}
	if p.conn.Queued() > 0 {
		if err := p.conn.Flush(); err != nil && err != loop.ErrWouldBlock {
			return x.lostShard(p, err)
		}
	}
	return nil
}

// flush sends what is queued for p; what does not go out now goes with wait.
func (x *Exec) flush(p *part) error {
	p.start = time.Now()
	n := p.conn.Queued()
	if err := p.conn.Flush(); err != nil && err != loop.ErrWouldBlock {
		_, encrypted := p.conn.ConnectionState() // then what is queued tells nothing of what was sent
		p.unsent = !p.flushed && !encrypted && p.conn.Queued() == n
		return x.lostShard(p, err)
	}
	p.flushed = true
	return nil
}

// fill reads more from p, waiting for it.
func (x *Exec) fill(p *part) error {
	for {
		_, err := p.conn.Fill()
		switch err {
		case nil:
			return nil
		case loop.ErrWouldBlock:
			if err := x.wait(p); err != nil {
				return err
			}
		default:
			return x.lostShard(p, err)
		}
	}
}

// errBadFrame: a server does not send such lengths; something else speaks there.
var errBadFrame = errors.New("exec: invalid message length from the shard")

// tell says whether the client is to be told a setting's value, and takes it as told.
func (x *Exec) tell(name, value string) bool {
	if have, ok := x.Told[name]; ok && have == value || x.Told == nil {
		return false
	}
	if x.txn.block && x.txn.told == nil {
		x.txn.told = x.Told
	}
	told := maps.Clone(x.Told)
	told[name] = value
	x.Told = told
	return true
}

// frame yields p's next message, whole, waiting for it. It is valid until the
// next call. Answers of injected Queries are swallowed; the first error among
// them is kept in p.skipErr.
func (x *Exec) frame(p *part) (byte, []byte, error) {
	for {
		p.past()
		buf := p.conn.In()
		typ, n, _ := pgwire.Frame(buf)
		if n < 0 {
			return 0, nil, x.lostShard(p, errBadFrame)
		}
		if n == 0 || n > len(buf) {
			if n > 0 {
				p.conn.Reserve(n)
			}
			if err := x.fill(p); err != nil {
				return 0, nil, err
			}
			continue
		}
		p.pend, p.heard = n, true
		if typ == pgwire.TypeParameterStatus {
			x.parameterStatus(p, buf[:n], p.skipZ == 0)
			continue
		}
		if typ == pgwire.TypeNotificationResponse {
			x.notification(buf[:n])
			continue
		}
		if p.skipZ > 0 {
			x.swallow(p, typ, buf[:n])
			continue
		}
		if typ == pgwire.TypeReadyForQuery {
			p.conn.TxStatus = buf[5]
			p.owes = false
		}
		return typ, buf[:n], nil
	}
}

// swallow takes a message that answers an injected Query.
func (x *Exec) swallow(p *part, typ byte, msg []byte) {
	switch typ {
	case pgwire.TypeDataRow:
		if p.guarded {
			p.guardAnswer(msg[5:])
		}
	case pgwire.TypeErrorResponse:
		if p.guarded {
			p.guarded, p.skipErr = false, errNotFresh
			return
		}
		if e, err := pgwire.ParseError(msg[5:]); err == nil && p.skipErr == nil {
			p.skipErr = e
		}
	case pgwire.TypeReadyForQuery:
		p.conn.TxStatus = msg[5]
		p.skipZ--
	}
}

// parameterStatus keeps what the client was told in step with what is true.
func (x *Exec) parameterStatus(p *part, msg []byte, relay bool) {
	name, value, err := pgwire.ParseParameterStatus(msg[5:])
	if err != nil {
		return
	}
	if relay && x.tell(string(name), string(value)) {
		if x.holdStatus {
			x.status = append(x.status, msg...)
		} else {
			x.Client.Write(msg)
		}
	}
	p.conn.Params[string(name)] = string(value)
}

// settle waits until every injected Query of p is answered and yields the first
// error among the answers.
func (x *Exec) settle(p *part) error {
	p.past()
	for p.skipZ > 0 {
		buf := p.conn.In()
		typ, n, _ := pgwire.Frame(buf)
		if n < 0 {
			return x.lostShard(p, errBadFrame)
		}
		if n == 0 || n > len(buf) {
			if n > 0 {
				p.conn.Reserve(n)
			}
			if err := x.fill(p); err != nil {
				return err
			}
			continue
		}
		if typ == pgwire.TypeParameterStatus {
			x.parameterStatus(p, buf[:n], false)
		}
		if typ == pgwire.TypeNotificationResponse {
			x.notification(buf[:n])
		}
		x.swallow(p, typ, buf[:n])
		p.conn.Consume(n)
	}
	if e := p.skipErr; e != nil {
		p.skipErr = nil
		return e
	}
	return nil
}

// query runs sql on p by itself and yields its error, if it failed. Rows are
// passed to row, which may be nil.
func (x *Exec) query(p *part, sql string, row func(*pgwire.Values)) (tag string, err error) {
	x.sendQuery(p, sql)
	if err := x.flush(p); err != nil {
		return "", err
	}
	return x.answer(p, row)
}

func (x *Exec) sendQuery(p *part, sql string) {
	queueQuery(p.conn, sql)
	p.owes = true
}

// answer reads one Query's answers to its ReadyForQuery.
func (x *Exec) answer(p *part, row func(*pgwire.Values)) (tag string, failed error) {
	for {
		typ, msg, err := x.frame(p)
		if err != nil {
			return "", err
		}
		switch typ {
		case pgwire.TypeDataRow:
			if row != nil {
				r, err := pgwire.ParseDataRow(msg[5:])
				if err != nil {
					return "", x.lostShard(p, err)
				}
				vals := r.Values()
				row(&vals)
			}
		case pgwire.TypeCommandComplete:
			tag = string(msg[5 : len(msg)-1])
		case pgwire.TypeErrorResponse:
			if failed == nil {
				failed = x.parseError(p, msg)
			}
		case pgwire.TypeReadyForQuery:
			return tag, failed
		}
	}
}

func (x *Exec) parseError(p *part, msg []byte) error {
	e, err := pgwire.ParseError(msg[5:])
	if err != nil {
		return x.lostShard(p, err)
	}
	if e.IsFatal() {
		return x.farewell(p, e)
	}
	return x.overrun(e)
}

// farewell is for the error with which a server ends its own connection: the
// client's goes on.
func (x *Exec) farewell(p *part, e *pgerr.Error) *pgerr.Error {
	lost := x.lostShard(p, e)
	if lost.Detail != "" {
		lost.Detail = " " + lost.Detail
	}
	return lost.WithDetail("The server said: %s (%s).%s", e.Message, e.Code, lost.Detail)
}

// InMessage says whether the client has been sent a part of a message whose rest
// is outstanding: nothing else may be sent to it.
func (x *Exec) InMessage() bool {
	if x.direct != nil && x.direct.p.big > 0 {
		return true
	}
	for _, p := range x.txn.parts {
		if p.big > 0 {
			return true
		}
	}
	return false
}

// Close ends whatever the session holds on shards: open transactions are rolled
// back, running statements are cancelled. The session is over or failing.
func (x *Exec) Close() {
	x.closing = true
	if d := x.direct; d != nil {
		x.direct = nil
		d.p.conn.Break()
		x.release(d.p)
	}
	for _, p := range x.txn.parts {
		if p.conn != nil {
			if p.conn.TxStatus != 'I' || p.began || p.unit.open {
				p.conn.Break()
			}
			x.release(p)
		}
	}
	x.txn.parts = nil
	x.closePinned()
}

// Move takes up a newer Place; nothing may be bound. A connection that the session
// keeps stays where it is as long as its shard does.
func (x *Exec) Move(to *Place) {
	old, kept := x.Place, x.pinned
	x.Place, x.pinned = to, nil
	x.movedReplicas()
	index := func(shard int) int { return slices.Index(to.Shards, old.Shards[shard]) }
	for name, c := range x.cursors {
		if c.shard = index(c.shard); c.shard < 0 {
			delete(x.cursors, name)
			continue
		}
		x.cursors[name] = c
	}
	for _, p := range kept {
		if i := index(p.shard); i >= 0 && to.Targets[i].Addr == p.conn.Key.Addr {
			p.shard = i
			x.pinned = append(x.pinned, p)
			continue
		}
		x.pinsLost = x.lostMoved(old, p)
		p.told = true
		p.conn.Break()
		x.release(p)
	}
}

// lostMoved is what the next statement says of a kept connection whose shard has
// moved or gone.
func (x *Exec) lostMoved(old *Place, p *part) *pgerr.Error {
	if !p.stands() {
		return nil
	}
	return pgerr.New(pgerr.ConnectionFailure, "shard %s, which this session was bound to, has moved", old.Shards[p.shard]).
		WithDetail("What was there is gone: %s.", p.pinned&^plan.PinMode).WithHint("Make it anew, or reconnect.")
}

// Moved tells the executor that its session lives on another loop now. Nothing
// may be bound.
func (x *Exec) Moved() { x.place = nil }

// Movable says whether the session holds no connection.
func (x *Exec) Movable() bool { return len(x.txn.parts) == 0 && len(x.pinned) == 0 && x.direct == nil }
