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
	"slices"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/pgerr"
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
	// MaxReplicaLag bounds how old what a replica shows may be; it may change.
	MaxReplicaLag func() time.Duration
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
	// Newer is a Place that came while the open transaction was bound to another; nil
	// where there is none. It is the session's to set; Move takes it away.
	Newer *Place

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

	// Owner is told what the server has skipped, the last first; may be nil.
	Owner Owner
	// LastShards are the shards (indexes into Place.Shards) that the last
	// statement ran on.
	LastShards []int

	lost    []expectation // of units that were lost: undoLost
	types   []uint32      // of the last description: describedOIDs's scratch
	direct  *Direct       // while the session and its backend are put together
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

	shbuf    []int
	split    plan.RowSplit
	cursors  map[string]*cursor
	pinned   []*part // connections that the session keeps
	pinsLost *pgerr.Error
	keepAll  bool // sharding.pool_mode = session
	// custom are the names of custom settings that the session has SET, sorted; made
	// those where it succeeded.
	custom, made []string
	closing      bool
	// temps are the session's temporary relations, on the home shard.
	temps    map[string]struct{}
	tempKey  string
	detached bool   // a commit is under way: it goes on without the client
	op       string // of the statement that runs, for Observe
	// Offset is where the statement that runs begins in the client's Query, in
	// characters: positions in a server's errors are counted from there.
	Offset int
	// original carries a position in what the server was sent over to the statement;
	// nil where that is the same.
	original  func(int) int
	hide      bool // SQL's EXECUTE
	startPath string
	// start is what a server reported when the session began, before the client's
	// own settings; generation tells whether connections made later start alike.
	start      map[string]string
	generation uint64
	// told is what ParameterStatus last told the client, greeted what it did at first. They
	// may be shared: they are replaced, not changed.
	told, greeted map[string]string
	// Unparsed are the statements whose first Parse failed, or was skipped since
	// something before it failed: the session, which empties the list, forgets them.
	Unparsed []*Stmt
	// What Within set, and whether CancelAll has been called.
	limit    time.Time
	allowed  time.Duration
	overran  bool
	asks     bool // what is overdue is asked about, not cancelled: see watchCommit
	inSeries bool // several statements of one Query share the implicit block
	piped    bool // and it is a pipeline's
	scratch  []byte
}

var noDeadline time.Time

// highWater is how much unsent output a client may have before its backend is
// no longer read.
const highWater = 256 << 10

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
	x.Place, x.Newer, x.pinned = to, nil, nil
	x.movedReplicas()
	index := func(shard int) int { return slices.Index(to.Shards, old.Shards[shard]) }
	x.moveCursors(index)
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
