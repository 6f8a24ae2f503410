package manager

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/backend"
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
	lag        *lag // of a replica, where it is known
}

// observation is the outcome of one probe.
type observation struct {
	at         time.Time
	latency    time.Duration
	inRecovery bool
	err        string // empty if it succeeded
	lag        *lag
}

// observe takes one probe into account: one success is up, failuresDown
// failures in a row are down, fewer leave the verdict as it was.
func (v verdict) observe(o observation) verdict {
	v.at, v.latency, v.lag = o.at, o.latency, o.lag
	if o.err == "" {
		return verdict{status: healthUp, inRecovery: o.inRecovery, at: o.at, latency: o.latency, lag: o.lag}
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

// server is one of a shard's, by the addresses of its primary and of itself.
type server struct{ primary, endpoint string }

func (sv server) role() string {
	if sv.primary == sv.endpoint {
		return "primary"
	}
	return "replica"
}

// serversOf are a shard's servers, the primary first.
func serversOf(sh catalog.Shard) []server {
	out := []server{{sh.PrimaryEndpoint, sh.PrimaryEndpoint}}
	for _, endpoint := range sh.Replicas {
		out = append(out, server{sh.PrimaryEndpoint, endpoint})
	}
	return out
}

// prober asks every server whether it answers, and replicas how far behind they
// are. Each manager keeps its own picture, in memory.
type prober struct {
	credentials Credentials

	mu       sync.RWMutex // guards verdicts
	verdicts map[server]verdict

	// What follows is used by one round at a time.
	conns map[server]*pgx.Conn
	logs  map[string]*primaryLog // by the primary's endpoint
}

func newProber(c Credentials) *prober {
	return &prober{credentials: c, verdicts: map[server]verdict{}, conns: map[server]*pgx.Conn{}, logs: map[string]*primaryLog{}}
}

// round probes every server of the shards once, primaries first, and forgets those
// that are gone. report hears of each server's verdict.
func (p *prober) round(ctx context.Context, shards []catalog.Shard, report func(sh catalog.Shard, sv server, v verdict)) {
	known := map[server]catalog.Shard{}
	for _, sh := range shards {
		for _, sv := range serversOf(sh) {
			known[sv] = sh
		}
	}
	p.forget(ctx, known)
	for _, role := range []string{"primary", "replica"} {
		p.probeAll(ctx, known, role)
	}
	for _, sh := range shards {
		for _, sv := range serversOf(sh) {
			report(sh, sv, p.of(sv))
		}
	}
}

// probeAll probes the servers of one role side by side.
func (p *prober) probeAll(ctx context.Context, known map[server]catalog.Shard, role string) {
	var (
		mu    sync.Mutex // guards conns
		group errgroup.Group
	)
	group.SetLimit(probesAtOnce)
	for sv, sh := range known {
		if sv.role() != role {
			continue
		}
		log := p.logs[sv.primary]
		if log == nil {
			log = &primaryLog{}
			p.logs[sv.primary] = log
		}
		mu.Lock()
		conn := p.conns[sv]
		mu.Unlock()
		group.Go(func() error {
			o, conn := p.probe(ctx, sh, sv, conn, log)
			mu.Lock()
			defer mu.Unlock()
			delete(p.conns, sv)
			if conn != nil {
				p.conns[sv] = conn
			}
			if ctx.Err() == nil { // a probe cut short by our own end proves nothing
				p.note(sv, o)
			}
			return nil
		})
	}
	_ = group.Wait() // no goroutine gives an error
}

// probe asks over the connection of the last round, or over a new one. It
// gives back the connection to keep, nil if it is of no more use.
func (p *prober) probe(ctx context.Context, sh catalog.Shard, sv server, conn *pgx.Conn, log *primaryLog) (observation, *pgx.Conn) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	o := observation{at: time.Now()}
	fail := func(err error) (observation, *pgx.Conn) {
		o.latency, o.err = time.Since(o.at), causeText(err)
		if conn != nil {
			closeConn(ctx, conn)
		}
		if sv.role() == "primary" {
			log.unknown()
		}
		return o, nil
	}
	if conn == nil {
		sh.PrimaryEndpoint = sv.endpoint
		a, err := p.credentials.accountOf(sh)
		if err != nil {
			return fail(err)
		}
		cfg, err := a.config(maintenanceDatabase)
		if err != nil {
			return fail(err)
		}
		if conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
			conn = nil
			return fail(err)
		}
	}
	asked := time.Now()
	is, err := backend.AskStanding(ctx, conn)
	if err != nil {
		return fail(err)
	}
	o.latency, o.inRecovery = time.Since(o.at), is.InRecovery
	if sv.role() == "primary" {
		log.note(asked, is)
		return o, conn
	}
	o.err, o.lag = log.judge(time.Now(), is)
	return o, conn
}

func (p *prober) note(sv server, o observation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verdicts[sv] = p.verdicts[sv].observe(o)
}

func (p *prober) of(sv server) verdict {
	p.mu.RLock()
	defer p.mu.RUnlock()
	v := p.verdicts[sv]
	if v.status == "" {
		v.status = healthUnknown
	}
	return v
}

// primary is the verdict about a shard's primary.
func (p *prober) primary(sh *catalog.Shard) verdict {
	return p.of(server{sh.PrimaryEndpoint, sh.PrimaryEndpoint})
}

func (p *prober) forget(ctx context.Context, known map[server]catalog.Shard) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for sv := range p.verdicts {
		if _, ok := known[sv]; !ok {
			delete(p.verdicts, sv)
		}
	}
	for sv, conn := range p.conns {
		if _, ok := known[sv]; !ok {
			closeConn(ctx, conn)
			delete(p.conns, sv)
		}
	}
	for endpoint := range p.logs {
		if _, ok := known[server{endpoint, endpoint}]; !ok {
			delete(p.logs, endpoint)
		}
	}
}

func (p *prober) close(ctx context.Context) {
	p.forget(ctx, nil)
}

// health is what the API shows of a shard.
func (p *prober) health(sh catalog.Shard) client.ShardHealth {
	h := client.ShardHealth{ShardID: string(sh.ID), Status: p.primary(&sh).status}
	for _, sv := range serversOf(sh) {
		v := p.of(sv)
		e := client.EndpointHealth{
			Endpoint: sv.endpoint, Role: sv.role(), Status: v.status, InRecovery: v.inRecovery,
			ConsecutiveFailures: v.failures, LatencyMS: float64(v.latency.Microseconds()) / 1000, LastError: v.lastError,
		}
		if !v.at.IsZero() {
			e.LastProbe = &v.at
		}
		if v.lag != nil {
			seconds := v.lag.time.Seconds()
			e.LagSeconds, e.LagBytes = &seconds, &v.lag.bytes
		}
		h.Endpoints = append(h.Endpoints, e)
	}
	return h
}
