package manager

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
)

const (
	probeEvery = 2 * time.Second
	probeTime  = 2 * time.Second
	// failuresDown is how many probes in a row must fail before a server counts
	// as down: one lost packet is no verdict.
	failuresDown = 3
	// probesAtOnce bounds the connections that a round opens side by side.
	probesAtOnce = 64
)

// The verdicts about a server.
const (
	healthUp      = "up"
	healthDown    = "down"
	healthUnknown = "unknown"
)

// verdict is what the probes of one server have shown. It is a value: observe
// gives the next.
type verdict struct {
	status     string
	failures   int
	inRecovery bool
	at         time.Time
	latency    time.Duration
	lastError  string
}

// observation is the outcome of one probe.
type observation struct {
	at         time.Time
	latency    time.Duration
	inRecovery bool
	err        string // empty if it succeeded
}

// observe takes one probe into account: one success is up, failuresDown
// failures in a row are down, fewer leave the verdict as it was.
func (v verdict) observe(o observation) verdict {
	v.at, v.latency = o.at, o.latency
	if o.err == "" {
		return verdict{status: healthUp, inRecovery: o.inRecovery, at: o.at, latency: o.latency}
	}
	v.failures++
	v.lastError = o.err
	if v.status == "" {
		v.status = healthUnknown
	}
	if v.failures >= failuresDown {
		v.status = healthDown
	}
	return v
}

// prober asks every server whether it answers. Each manager keeps its own
// picture, in memory.
type prober struct {
	credentials Credentials

	mu       sync.RWMutex // guards verdicts
	verdicts map[string]verdict

	// conns are used by one round at a time.
	conns map[string]*pgx.Conn
}

func newProber(c Credentials) *prober {
	return &prober{credentials: c, verdicts: map[string]verdict{}, conns: map[string]*pgx.Conn{}}
}

// round probes every server of the shards once, and forgets those that are
// gone. report hears of each server's verdict.
func (p *prober) round(ctx context.Context, shards []catalog.Shard, report func(sh catalog.Shard, v verdict)) {
	byEndpoint := map[string]catalog.Shard{}
	for _, sh := range shards {
		byEndpoint[sh.PrimaryEndpoint] = sh
	}
	p.forget(ctx, byEndpoint)
	var (
		mu    sync.Mutex // guards kept
		kept  = map[string]*pgx.Conn{}
		group errgroup.Group
	)
	group.SetLimit(probesAtOnce)
	for endpoint, sh := range byEndpoint {
		conn := p.conns[endpoint]
		group.Go(func() error {
			o, conn := p.probe(ctx, sh, conn)
			if conn != nil {
				mu.Lock()
				kept[endpoint] = conn
				mu.Unlock()
			}
			if ctx.Err() == nil { // a probe cut short by our own end proves nothing
				p.note(endpoint, o)
			}
			return nil
		})
	}
	_ = group.Wait() // no goroutine gives an error
	p.conns = kept
	for _, sh := range shards {
		report(sh, p.of(sh.PrimaryEndpoint))
	}
}

// probe asks over the connection of the last round, or over a new one. It
// gives back the connection to keep, nil if it is of no more use.
func (p *prober) probe(ctx context.Context, sh catalog.Shard, conn *pgx.Conn) (observation, *pgx.Conn) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	start := time.Now()
	o := observation{at: start}
	if conn == nil {
		a, err := p.credentials.accountOf(sh)
		if err == nil {
			var cfg *pgx.ConnConfig
			if cfg, err = a.config(maintenanceDatabase); err == nil {
				conn, err = pgx.ConnectConfig(ctx, cfg)
			}
		}
		if err != nil {
			o.latency, o.err = time.Since(start), causeText(err)
			return o, nil
		}
	}
	err := conn.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&o.inRecovery)
	o.latency = time.Since(start)
	if err != nil {
		o.err = causeText(err)
		closeConn(ctx, conn)
		return o, nil
	}
	return o, conn
}

func (p *prober) note(endpoint string, o observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verdicts[endpoint] = p.verdicts[endpoint].observe(o)
}

func (p *prober) of(endpoint string) verdict {
	p.mu.RLock()
	defer p.mu.RUnlock()
	v := p.verdicts[endpoint]
	if v.status == "" {
		v.status = healthUnknown
	}
	return v
}

func (p *prober) forget(ctx context.Context, known map[string]catalog.Shard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for endpoint := range p.verdicts {
		if _, ok := known[endpoint]; !ok {
			delete(p.verdicts, endpoint)
		}
	}
	for endpoint, conn := range p.conns {
		if _, ok := known[endpoint]; !ok {
			closeConn(ctx, conn)
			delete(p.conns, endpoint)
		}
	}
}

func (p *prober) close(ctx context.Context) {
	p.forget(ctx, nil)
}

// health is what the API shows of a shard.
func (p *prober) health(sh catalog.Shard) client.ShardHealth {
	v := p.of(sh.PrimaryEndpoint)
	e := client.EndpointHealth{
		Endpoint: sh.PrimaryEndpoint, Role: "primary", Status: v.status, InRecovery: v.inRecovery,
		ConsecutiveFailures: v.failures, LatencyMS: float64(v.latency.Microseconds()) / 1000, LastError: v.lastError,
	}
	if !v.at.IsZero() {
		e.LastProbe = &v.at
	}
	return client.ShardHealth{ShardID: string(sh.ID), Status: v.status, Endpoints: []client.EndpointHealth{e}}
}
