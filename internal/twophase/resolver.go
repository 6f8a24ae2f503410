package twophase

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/sharding-system/sharding"
)

// The failpoints before the resolver's steps, in the process that runs it.
const (
	PointResolverAsk    = "resolver.ask"    // asking for a verdict
	PointResolverFinish = "resolver.finish" // COMMIT PREPARED, ROLLBACK PREPARED
	PointResolverForget = "resolver.forget" // deleting decisions to commit
)

// Options are a resolver's. Durations of zero take the default. None of them
// matters for correctness: they choose when to ask, never what the answer is.
type Options struct {
	Incarnation string // of the cluster; other clusters' transactions are left alone
	// Alive says whether a router's boot is registered; nil counts all as dead.
	Alive func(router, boot string) bool
	// Grace is how long a prepared transaction of a living router is left to it;
	// default 30 s. It bounds how long such a transaction may take from its first
	// PREPARE to its decision.
	Grace time.Duration
	// DeadGrace is the same for a router that is not registered; default 2 s.
	DeadGrace time.Duration
	// Blocked is how long a decision that is being committed may hold up the
	// question for its verdict; default 2 s.
	Blocked time.Duration
	// Retention is how long a verdict is kept at least; default 60 s. A coordinator
	// that has lost its answer and asks later may have to report 08007.
	Retention time.Duration
	// ForgetEvery is how often verdicts are cleared away; default 10 s.
	ForgetEvery time.Duration
	// Timeout bounds connecting to one shard; default 5 s.
	Timeout time.Duration
	// Batch is how many verdicts of one shard are cleared away at a time; default
	// 10000.
	Batch int
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.Grace, 30 * time.Second}, {&o.DeadGrace, 2 * time.Second}, {&o.Blocked, 2 * time.Second},
		{&o.Retention, time.Minute}, {&o.ForgetEvery, 10 * time.Second}, {&o.Timeout, 5 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.Alive == nil {
		o.Alive = func(string, string) bool { return false }
	}
	if o.Batch == 0 {
		o.Batch = 10000
	}
	return o
}

// Transaction is one branch of a transaction that is not finished.
type Transaction struct {
	GID      GID
	Branch   string // the prepared transaction's name; "" if there is none any more
	Shard    sharding.ShardID
	Verdict  Verdict // "" if it is not known
	Prepared time.Time
	Owner    string
	Reason   string // why it is not finished
}

// Report is what one pass did and found.
type Report struct {
	Committed, RolledBack int // branches finished by this pass
	Forgotten             int // verdicts cleared away
	// Waiting will be finished by a later pass: too young, or a shard is away.
	Waiting []Transaction
	// InDoubt needs a person: part of it was lost by a failover, or forged.
	InDoubt []Transaction
	// Unreachable are the shards that could not be asked, and why.
	Unreachable map[sharding.ShardID]error
}

// Names says whether a transaction that is not finished names the shard, which
// then cannot be removed.
func (r Report) Names(shard sharding.ShardID) bool {
	for _, list := range [][]Transaction{r.Waiting, r.InDoubt} {
		for _, t := range list {
			if t.Shard == shard || t.GID.Decision == shard {
				return true
			}
		}
	}
	return false
}

// Resolver finishes what coordinators have left. Any number may run at once, here
// and in other processes: every action is idempotent, and PostgreSQL decides who
// comes first. Its methods may be called concurrently; passes run one at a time.
type Resolver struct {
	opts Options
	turn chan struct{} // holds one token: whose pass it is owns conns and forgot

	conns  map[string]*pgx.Conn
	forgot map[sharding.ShardID]time.Time

	mu     sync.Mutex // guards doubts
	doubts map[string]Transaction
}

// NewResolver makes a resolver; Close ends it.
func NewResolver(o Options) *Resolver {
	return &Resolver{
		opts: o.withDefaults(), turn: make(chan struct{}, 1), conns: map[string]*pgx.Conn{},
		forgot: map[sharding.ShardID]time.Time{}, doubts: map[string]Transaction{},
	}
}

// Close ends the resolver's connections.
func (r *Resolver) Close() {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	for key, conn := range r.conns {
		_ = conn.Close(context.Background())
		delete(r.conns, key)
	}
}

// InDoubt lists the transactions that the newest passes could not decide, in the
// order of their names.
func (r *Resolver) InDoubt() []Transaction {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Transaction, 0, len(r.doubts))
	for _, t := range r.doubts {
		list = append(list, t)
	}
	sort.Slice(list, func(i, j int) bool { return doubtKey(list[i]) < doubtKey(list[j]) })
	return list
}

func doubtKey(t Transaction) string { return string(t.Shard) + "\x00" + t.GID.String() }

// Resolve makes one pass over the shards of one keyspace: all of them, also those
// that cannot be reached or own nothing, since a transaction on one may be decided
// on any other. A shard that is away is in the
// report and holds up only what needs it. The error is ctx's.
func (r *Resolver) Resolve(ctx context.Context, shards []Endpoint) (Report, error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
	defer func() { <-r.turn }()
	p := &pass{
		opts: r.opts, shards: map[sharding.ShardID]*shard{},
		report: Report{Unreachable: map[sharding.ShardID]error{}},
	}
	r.open(ctx, p, shards)
	p.list(ctx)
	p.finishDue(ctx)
	p.forget(ctx, r.forgot)
	r.keep(ctx, p)
	return p.report, ctx.Err()
}

// shard is one shard within a pass.
type shard struct {
	Endpoint
	key      string
	conn     *pgx.Conn
	err      error // why it is out of this pass
	branches []branch
}

// branch is one of our prepared transactions on a shard.
type branch struct {
	name     string
	gid      GID
	owner    string
	prepared time.Time
	age      time.Duration
}

// open connects to the shards, or takes the connection of the pass before.
func (r *Resolver) open(ctx context.Context, p *pass, endpoints []Endpoint) {
	var wg sync.WaitGroup
	for _, e := range endpoints {
		if p.shards[e.Shard] != nil {
			continue // named twice
		}
		key := string(e.Shard)
		if c := e.Config; c != nil {
			key += fmt.Sprintf("@%s:%d/%s?%s", c.Host, c.Port, c.Database, c.User)
		}
		s := &shard{Endpoint: e, key: key, conn: r.conns[key]}
		delete(r.conns, key)
		p.shards[e.Shard] = s
		p.order = append(p.order, s)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
			defer cancel()
			if s.conn != nil {
				if checkPrimary(ctx, s.conn, e) == nil {
					return
				}
				_ = s.conn.Close(ctx)
			}
			s.conn, s.err = connect(ctx, e)
		})
	}
	wg.Wait()
}

// keep puts the good connections back and remembers the doubts, dropping those of
// shards that this pass has seen without them.
func (r *Resolver) keep(ctx context.Context, p *pass) {
	for _, s := range p.order {
		switch {
		case s.err != nil:
			p.report.Unreachable[s.Shard] = s.err
			if s.conn != nil {
				_ = s.conn.Close(context.WithoutCancel(ctx))
			}
		case !s.conn.IsClosed():
			r.conns[s.key] = s.conn
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, t := range r.doubts {
		if p.settled(t) {
			delete(r.doubts, key)
		}
	}
	for _, t := range p.report.InDoubt {
		r.doubts[doubtKey(t)] = t
	}
}
