package router

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/backend"
	"github.com/sharding-system/sharding/internal/catalog"
)

// probeTime bounds one probe, a new connection included.
const probeTime = 3 * time.Second

// probeInterval is how often servers are asked: often enough for the lag that is
// allowed.
func probeInterval(maxLag time.Duration) time.Duration {
	return min(max(maxLag/8, 50*time.Millisecond), 500*time.Millisecond)
}

// logIdentity tells one primary's log from another's.
type logIdentity struct {
	system   string // pg_control_system's system_identifier
	timeline uint32
}

// prober asks a shard's servers where their logs stand.
type prober struct {
	r     *Router
	sh    catalog.Shard
	log   *backend.Positions
	every time.Duration

	mu sync.Mutex  // guards of
	of logIdentity // whose log it is; zero: unknown
}

func (p *prober) known() logIdentity {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of
}

// setIdentity begins a new log where the primary is another one.
func (p *prober) setIdentity(id logIdentity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of != id {
		p.of = id
		p.log.Forget()
	}
}

// each runs probe over a kept connection to endpoint every now and then, until ctx
// ends. A probe that fails gives the connection up.
func (p *prober) each(ctx context.Context, endpoint string, probe func(ctx context.Context, conn *pgx.Conn, err error) error) {
	at := p.sh
	at.PrimaryEndpoint = endpoint
	var conn *pgx.Conn
	drop := func() {
		if conn != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = conn.Close(ctx) // the socket is gone in any case
			conn = nil
		}
	}
	defer drop()
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		func() {
			ctx, cancel := context.WithTimeout(ctx, probeTime)
			defer cancel()
			var err error
			if conn == nil {
				conn, err = p.r.serviceConn(ctx, at)
			}
			if err = probe(ctx, conn, err); err != nil {
				drop()
			}
		}()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

const primarySQL = `SELECT CASE WHEN r THEN '' ELSE pg_current_wal_insert_lsn()::text END,
	CASE WHEN r THEN '' ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END,
	(SELECT system_identifier::text FROM pg_control_system())
FROM pg_is_in_recovery() r`

// primary notes where the primary's log stands.
func (p *prober) primary(ctx context.Context) {
	p.each(ctx, p.sh.PrimaryEndpoint, func(ctx context.Context, conn *pgx.Conn, err error) error {
		if err != nil {
			return err
		}
		before := time.Now()
		var place, timeline string
		var id logIdentity
		if err := conn.QueryRow(ctx, primarySQL).Scan(&place, &timeline, &id.system); err != nil {
			return err
		}
		if place == "" {
			p.setIdentity(logIdentity{}) // it is a replica itself: nothing is known to be fresh
			return nil
		}
		lsn, err := backend.ParseLSN(place)
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(timeline, "%X", &id.timeline); err != nil {
			return fmt.Errorf("timeline %q: %w", timeline, err)
		}
		p.setIdentity(id)
		p.log.Note(before, lsn)
		return nil
	})
}

// A replica's timeline is the one that it receives; without a stream, that of the
// last restart point.
const replicaSQL = `SELECT pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn()::text, '0/0'),
	(SELECT system_identifier::text FROM pg_control_system()),
	coalesce((SELECT nullif(received_tli, 0) FROM pg_stat_wal_receiver),
		(SELECT greatest(c.timeline_id, r.min_recovery_end_timeline) FROM pg_control_checkpoint() c, pg_control_recovery() r))`

// replica keeps the state of one replica.
func (p *prober) replica(ctx context.Context, endpoint string, rep *backend.Replica) {
	p.each(ctx, endpoint, func(ctx context.Context, conn *pgx.Conn, err error) error {
		was := rep.State()
		s, err := p.look(ctx, conn, err)
		if ctx.Err() != nil && err != nil {
			err = fmt.Errorf("no answer in time: %w", err)
		}
		if err != nil {
			s = backend.ReplicaState{Reason: err.Error()}
		}
		if !s.Up && !was.FreshAt.IsZero() {
			s.Lag = time.Since(was.FreshAt)
		}
		rep.Report(s)
		p.tell(endpoint, was, s)
		return err
	})
}

// look asks a replica and judges its answer.
func (p *prober) look(ctx context.Context, conn *pgx.Conn, err error) (s backend.ReplicaState, _ error) {
	if err != nil {
		return s, err
	}
	var recovering bool
	var place string
	var id logIdentity
	if err := conn.QueryRow(ctx, replicaSQL).Scan(&recovering, &place, &id.system, &id.timeline); err != nil {
		return s, fmt.Errorf("it cannot be asked: %w", err)
	}
	replayed, err := backend.ParseLSN(place)
	if err != nil {
		return s, err
	}
	of := p.known()
	switch {
	case !recovering:
		s.Reason = "it is not in recovery: it was promoted, or never was a replica"
		return s, nil
	case of == logIdentity{}:
		s.Reason = "the primary has not been reached"
		return s, nil
	case of.system != id.system:
		s.Reason = "it is not a copy of this shard's primary"
		return s, nil
	case of.timeline != id.timeline:
		s.Reason = fmt.Sprintf("it follows timeline %d, and the primary is on %d", id.timeline, of.timeline)
		return s, nil
	}
	at, through, newest, ok := p.log.Reached(replayed)
	if !ok {
		s.Reason = "how far it is behind is not known yet"
		return s, nil
	}
	s.Up, s.FreshAt, s.Through = true, at, through
	if !newest {
		s.Lag = time.Since(at)
	}
	return s, nil
}

// tell logs and measures what has become of a replica.
func (p *prober) tell(endpoint string, was, is backend.ReplicaState) {
	if m := p.r.opts.Metrics; m != nil {
		m.Replica(string(p.sh.ID), endpoint, is.Up, is.Lag)
	}
	switch {
	case p.r.ctx.Err() != nil:
	case is.Up && !was.Up:
		p.r.log.Info("a replica is in use", "shard", p.sh.ID, "replica", endpoint)
	case !is.Up && (was.Up || was.Reason != is.Reason):
		p.r.log.Warn("a replica is not in use", "shard", p.sh.ID, "replica", endpoint, "reason", is.Reason)
	}
}
