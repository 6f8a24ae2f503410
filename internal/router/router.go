// Package router is the data plane: the PostgreSQL listener with its sessions,
// and the HTTP API. Both are mouths of the same executor.
//
// A router keeps nothing that another could not make anew: it can be killed at
// any time, and any number of them can run. What it promises its clients is in
// docs/guide; what it promises the shards is that no transaction is left half
// done which the resolver would not finish.
package router

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/exec"
	"github.com/sharding-system/sharding/internal/loop"
	"github.com/sharding-system/sharding/internal/telemetry"
	"github.com/sharding-system/sharding/internal/twophase"
)

// Options of a router. Zero values of durations and counts take the defaults
// of the configuration's documentation.
type Options struct {
	// ID names the router in the catalog and in the names of transactions; a
	// random one where empty. At most 40 characters.
	ID      string
	Catalog *catalog.Catalog
	Logger  *slog.Logger
	Metrics *telemetry.RouterMetrics // nil: nothing is measured

	// PostgresAddr is host:port of the PostgreSQL listener; HTTPAddr that of the
	// HTTP API, none where empty.
	PostgresAddr, HTTPAddr string
	// TLS for both listeners; nil for none.
	TLS *tls.Config
	// JWTSecret signs the HTTP API's tokens; JWTPrevious are still accepted.
	JWTSecret   string
	JWTPrevious []string
	// InsecureTrust lets every role in without a password, and expects the
	// shards to do the same. For benchmarks on one machine.
	InsecureTrust bool

	// ServiceUser and ServicePassword log the router itself in on shards whose
	// catalog entry names nobody.
	ServiceUser, ServicePassword string

	MaxClients        int
	MaxMessage        int
	IdleClientTimeout time.Duration
	QueryTimeout      time.Duration // of one message of a client; 0: none
	// IdleTransactionTimeout ends a client that leaves a transaction idle for longer; 0: none.
	IdleTransactionTimeout time.Duration
	// SessionPool is sharding.pool_mode: session, unless a session says otherwise.
	SessionPool    bool
	MaxConnections int
	// MinConnections are kept open to each server once somebody has logged in.
	MinConnections int
	ConnectionTTL  time.Duration
	AcquireTimeout time.Duration
	// ReplicaPolicy is where sessions' reads run unless they say otherwise: primary,
	// replica_ok or replica_prefer. MaxReplicaLag bounds how old what a replica shows
	// may be.
	ReplicaPolicy string
	MaxReplicaLag time.Duration
	ReadTimeout   time.Duration
	WriteTimeout  time.Duration
	IdleTimeout   time.Duration
	MaxLoops      int // event loops; the number of processors where 0
	Version       string
}

func (o *Options) withDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ID == "" {
		o.ID = "router-" + randomHex(6)
	}
	if o.MaxClients == 0 {
		o.MaxClients = 10000
	}
	if o.MaxMessage == 0 {
		o.MaxMessage = 256 << 20
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 100
	}
	set(&o.ConnectionTTL, 5*time.Minute)
	set(&o.AcquireTimeout, 5*time.Second)
	set(&o.MaxReplicaLag, 5*time.Second)
	set(&o.ReadTimeout, 30*time.Second)
	set(&o.WriteTimeout, 30*time.Second)
	set(&o.IdleTimeout, 2*time.Minute)
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// Router is one router process's engine.
type Router struct {
	opts Options
	log  *slog.Logger
	view *catalog.View

	group    *loop.Group
	pools    *backend.Pools
	oids     oidCache
	exec     exec.Options
	boot     string
	counter  atomic.Uint64 // of two-phase transactions
	stmtIDs  atomic.Uint64
	clients  atomic.Int64 // sessions, those of HTTP requests too
	web      atomic.Int64 // of these, sessions of HTTP requests
	knocking atomic.Int64 // connections that are no session yet

	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu        sync.Mutex // guards keyspaces
	keyspaces map[string]*keyspace
	watches   replicaWatches

	reads  atomic.Uint32 // the exec.Policy of sessions that have none of their own
	maxLag atomic.Int64  // how old what a replica shows may be, in nanoseconds

	sessions sync.Map      // process id (uint32) -> *session
	entered  atomic.Uint64 // sessions, for their process ids
	cancels  chan struct{} // clients' cancel requests under way
	loops    sync.Map      // loop id -> *loopState, each for its loop only

	http     *httpServer
	httpDown sync.Once
	pgAddr   net.Addr
	draining atomic.Bool
}

// New starts a router: it listens when New returns. It serves as soon as the
// catalog can be read, and goes on with what it knows when the catalog is away.
func New(o Options) (*Router, error) {
	o.withDefaults()
	r := &Router{opts: o, log: o.Logger, boot: randomHex(6), keyspaces: map[string]*keyspace{}, cancels: make(chan struct{}, maxCancels)}
	r.watches = replicaWatches{r: r, shards: map[sharding.ShardID]*replicaWatch{}}
	r.SetReplicas(o.ReplicaPolicy, o.MaxReplicaLag)
	r.ctx, r.stop = context.WithCancel(context.Background())
	var err error
	if r.view, err = o.Catalog.Watch(r.ctx); err != nil {
		return nil, fmt.Errorf("start router: %w", err)
	}
	r.group, err = loop.NewGroup(loop.Options{Logger: o.Logger, MaxLoops: o.MaxLoops})
	if err != nil {
		r.view.Close()
		return nil, fmt.Errorf("start router: %w", err)
	}
	r.pools = backend.New(backend.Options{
		MaxConnections: o.MaxConnections, MinConnections: o.MinConnections,
		ConnectionTTL: o.ConnectionTTL, AcquireTimeout: o.AcquireTimeout, DialTimeout: o.AcquireTimeout,
	})
	if o.Metrics != nil {
		o.Metrics.ShardsAt = r.shardsAt
	}
	r.exec = exec.Options{Pools: r.pools, GID: r.gid, Service: service{r}, MaxMessage: o.MaxMessage, MaxReplicaLag: r.maxReplicaLag, OIDs: r.loadOIDs}
	if err := r.listen(); err != nil {
		r.Close()
		return nil, err
	}
	r.wg.Add(2)
	go func() { defer r.wg.Done(); r.follow() }()
	go func() { defer r.wg.Done(); r.trim() }()
	return r, nil
}

func (r *Router) listen() error {
	lis, err := r.group.Listen("tcp", r.opts.PostgresAddr, r.accept)
	if err != nil {
		return fmt.Errorf("listen for PostgreSQL clients on %s: %w", r.opts.PostgresAddr, err)
	}
	r.pgAddr = lis.Addr()
	if r.opts.HTTPAddr == "" {
		return nil
	}
	r.http, err = newHTTPServer(r)
	return err
}

// PostgresAddr is where the PostgreSQL listener is, with its port.
func (r *Router) PostgresAddr() net.Addr { return r.pgAddr }

// HTTPAddr is where the HTTP API is; nil without one.
func (r *Router) HTTPAddr() net.Addr {
	if r.http == nil {
		return nil
	}
	return r.http.addr
}

// gid names a new two-phase transaction.
func (r *Router) gid() twophase.GID {
	g := twophase.GID{Router: r.opts.ID, Boot: r.boot, Counter: r.counter.Add(1)}
	if inc := r.view.Snapshot().Incarnation; inc != "" {
		g.Incarnation = inc
	}
	return g
}

// follow registers the router and keeps keyspaces in step with the catalog.
func (r *Router) follow() {
	var reg *catalog.Registration
	defer func() {
		if reg != nil {
			reg.Close()
		}
	}()
	for {
		changed := r.view.Changed()
		if reg == nil && r.view.Snapshot().Revision > 0 {
			reg = r.register()
		}
		if m := r.opts.Metrics; m != nil {
			m.Catalog(r.view.Snapshot().Revision)
		}
		snap := r.view.Snapshot()
		for _, ks := range r.known() {
			if err := ks.update(r.ctx, snap); err != nil && r.ctx.Err() == nil {
				r.log.Warn("cannot bring a keyspace up to date; going on as before", "keyspace", ks.name, "err", err)
			}
		}
		if reg != nil {
			reg.Report(r.epochs(snap))
		}
		select {
		case <-r.ctx.Done():
			return
		case <-changed:
		case <-time.After(5 * time.Second):
		}
	}
}

func (r *Router) register() *catalog.Registration {
	addrs := map[string]string{"postgres": advertised(r.pgAddr)}
	if a := r.HTTPAddr(); a != nil {
		addrs["http"] = advertised(a)
	}
	reg, err := r.opts.Catalog.RegisterRouter(r.ctx, catalog.Router{
		ID: r.opts.ID, Boot: r.boot, Addresses: addrs, Release: r.opts.Version, StartedAt: time.Now().UTC(),
	})
	if err != nil {
		if r.ctx.Err() == nil {
			r.log.Warn("cannot register the router", "err", err)
		}
		return nil
	}
	return reg
}

func (r *Router) known() []*keyspace {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*keyspace, 0, len(r.keyspaces))
	for _, k := range r.keyspaces {
		out = append(out, k)
	}
	return out
}

// trim closes connections to shards that have died or aged while idle.
func (r *Router) trim() {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
			for _, l := range r.group.Loops() {
				l.Post(func() { r.tend(l) })
			}
			if m := r.opts.Metrics; m != nil {
				for _, s := range r.pools.Stats() {
					m.Pool(s.Addr, s.Idle, s.Open-s.Idle, s.Waiting)
				}
				m.Clients(int(r.clients.Load()))
			}
		}
	}
}

// tend looks after the connections of one loop, on it.
func (r *Router) tend(l *loop.Loop) {
	r.pools.Trim(l)
	r.pools.TopUp(l, r.serves)
}

// serves says whether a keyspace's rows are where key leads.
func (r *Router) serves(key backend.Key) bool {
	for _, ks := range r.known() {
		st := ks.state.Load()
		if st == nil || st.place.Database != key.Database {
			continue
		}
		for _, tgt := range st.place.Targets[:st.place.Members] {
			if tgt.Addr == key.Addr {
				return true
			}
		}
	}
	return false
}

// Close ends every session and returns when all that New started has ended.
func (r *Router) Close() error {
	r.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	err := r.closeHTTP(ctx)
	cancel()
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	if r.group != nil {
		r.group.Close()
	}
	r.watches.close()
	r.stop()
	r.wg.Wait()
	r.view.Close()
	return err
}

// Ready says whether the router can serve: it has read the catalog once and is
// not draining.
func (r *Router) Ready() error {
	switch {
	case r.draining.Load():
		return errors.New("draining")
	case r.view.Snapshot().Revision == 0:
		return errors.New("the catalog has not been read yet")
	}
	return nil
}

// WaitCatalog waits until the router has taken in the catalog's changes up to a
// revision.
func (r *Router) WaitCatalog(ctx context.Context, revision int64) error {
	return r.view.WaitRevision(ctx, revision)
}
