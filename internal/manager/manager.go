package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/auth"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/telemetry"
)

// lockPatience is how long a change waits for another one of the same keyspace.
const lockPatience = 10 * time.Second

// Defaults are what a new keyspace gets where its request is silent.
type Defaults struct {
	Hash       sharding.HashFunction
	VnodeCount int
	// TwoPhaseCommit is catalog.TwoPhaseRequired or catalog.TwoPhaseOff.
	TwoPhaseCommit string
}

// Options are what a manager is made of. Catalog, View and Signer are
// required; the caller closes them after Run has returned.
type Options struct {
	ID      string // names this manager to the others; required
	Release string
	Catalog *catalog.Catalog
	View    *catalog.View
	Signer  *auth.Signer
	// Credentials are DB_USERNAME and DB_PASSWORD.
	Credentials Credentials
	Defaults    Defaults
	// CheckRoles is security.enable_rbac: off, every valid token may do all.
	CheckRoles bool
	// TokenTTL is how long a token from auth/login is good for.
	TokenTTL time.Duration
	// Rate and Burst bound one client's requests per second; 0 does not.
	Rate  float64
	Burst int
	// PGBin is where pg_dump is; empty searches.
	PGBin     string
	AuditPath string
	Metrics   *telemetry.ManagerMetrics // nil keeps none
	Logger    *slog.Logger
}

// Server is one manager.
type Server struct {
	id, release string
	catalog     *catalog.Catalog
	view        *catalog.View
	signer      *auth.Signer
	credentials Credentials
	defaults    Defaults
	checkRoles  bool
	tokenTTL    time.Duration
	pgBin       string
	metrics     *telemetry.ManagerMetrics
	log         *slog.Logger

	prober  *prober
	audit   *auditLog
	logins  *rate.Limiter // of all clients together
	overall limits

	term atomic.Int64 // of our leadership; 0 while we do not lead

	mu       sync.Mutex           // guards doubtful
	doubtful []client.Transaction // what the last pass of the resolver left
}

// New makes a manager; Run makes it work, Handler serves its API.
func New(o Options) (*Server, error) {
	switch {
	case o.ID == "":
		return nil, errors.New("manager: no id is given")
	case o.Catalog == nil || o.View == nil || o.Signer == nil:
		return nil, errors.New("manager: catalog, view and signer are needed")
	}
	audit, err := openAudit(o.AuditPath)
	if err != nil {
		return nil, fmt.Errorf("manager: %w", err)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		// Registered nowhere, they count for nobody.
		if o.Metrics, err = telemetry.NewManagerMetrics(prometheus.NewRegistry()); err != nil {
			return nil, fmt.Errorf("manager: %w", err)
		}
	}
	if o.Defaults.VnodeCount == 0 {
		o.Defaults = Defaults{Hash: sharding.HashPostgres, VnodeCount: 256, TwoPhaseCommit: catalog.TwoPhaseRequired}
	}
	if o.TokenTTL == 0 {
		o.TokenTTL = time.Hour
	}
	s := &Server{
		id: o.ID, release: o.Release, catalog: o.Catalog, view: o.View, signer: o.Signer, credentials: o.Credentials,
		defaults: o.Defaults, checkRoles: o.CheckRoles, tokenTTL: o.TokenTTL, pgBin: o.PGBin, metrics: o.Metrics, log: o.Logger,
		prober: newProber(o.Credentials), audit: audit,
		// A guess at a password costs 4096 rounds of SHA-256 here, and must not
		// be had without end.
		logins: rate.NewLimiter(10, 20),
	}
	s.overall.set(o.Rate, o.Burst)
	return s, nil
}

// SetRateLimit changes the bound on one client's requests; 0 takes it away.
func (s *Server) SetRateLimit(perSecond float64, burst int) { s.overall.set(perSecond, burst) }

// Run probes the shards, and while this manager leads, does the leader's work.
// It returns when ctx has ended and all that it started has.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, loop := range []func(context.Context){s.probeLoop, s.leadLoop} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			loop(ctx)
		}()
	}
	wg.Wait()
	s.prober.close(ctx)
	return s.audit.close()
}

func (s *Server) snapshot() *catalog.Snapshot { return s.view.Snapshot() }

// catchUp waits until this manager's own view has a change, so that whoever
// asks it next sees it.
func (s *Server) catchUp(ctx context.Context, revision int64) error {
	return s.view.WaitRevision(ctx, revision)
}

// freshKeyspace is a keyspace as the catalog has it at this instant.
func (s *Server) freshKeyspace(ctx context.Context, name string) (*catalog.KeyspaceSnapshot, error) {
	snap, err := s.view.Linearizable(ctx, name)
	if errors.Is(err, catalog.ErrNotFound) {
		return nil, notFound(codeKeyspaceMissing, "there is no keyspace %q", name)
	}
	if err != nil {
		return nil, err
	}
	k := snap.Keyspaces[name]
	if k == nil || k.State != catalog.KeyspaceActive {
		return nil, conflict(codeInUse, "keyspace %q is not active", name).withHint("It is being made or dropped: try again in a moment.")
	}
	return k, nil
}

func (s *Server) probeLoop(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	type place struct {
		shard string
		server
	}
	known := map[place]bool{}
	for {
		snap := s.snapshot()
		shards := make([]catalog.Shard, 0, len(snap.Shards))
		for _, sh := range snap.Shards {
			shards = append(shards, *sh)
		}
		seen := map[place]bool{}
		s.prober.round(ctx, shards, func(sh catalog.Shard, sv server, v verdict) {
			seen[place{string(sh.ID), sv}] = true
			s.measure(string(sh.ID), sv, v)
		})
		for at := range known {
			if !seen[at] {
				s.metrics.ForgetShard(at.shard, at.role(), at.endpoint)
			}
		}
		known = seen
		s.metrics.CatalogAt(snap.Revision)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.view.Changed():
			// A shard that was just added is looked at now, once.
		}
	}
}

// measure puts a verdict into the metrics.
func (s *Server) measure(shard string, sv server, v verdict) {
	if v.status != healthUnknown {
		s.metrics.ShardHealth(shard, sv.role(), sv.endpoint, v.status == healthUp)
	}
	if sv.role() == "replica" {
		behind := time.Duration(-1)
		if v.lag != nil {
			behind = v.lag.time
		}
		s.metrics.ReplicationLag(shard, sv.endpoint, behind)
	}
}
