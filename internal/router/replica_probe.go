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

// prober asks a shard's servers where their logs stand.
type prober struct {
	r     *Router
	sh    catalog.Shard
	log   *backend.Positions
	every func() time.Duration

	mu sync.Mutex  // guards of
	of backend.Log // the primary's log; zero: unknown
}

func (p *prober) known() backend.Log {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.of
}

// setLog begins a new log where the primary is another one.
func (p *prober) setLog(id backend.Log) {
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
	every := p.every()
	tick := time.NewTicker(every)
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
		if now := p.every(); now != every {
			every = now
			tick.Reset(every)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// primary notes where the primary's log stands.
func (p *prober) primary(ctx context.Context) {
	p.each(ctx, p.sh.PrimaryEndpoint, func(ctx context.Context, conn *pgx.Conn, err error) error {
		if err != nil {
			return err
		}
		before := time.Now()
		is, err := backend.AskStanding(ctx, conn)
		if err != nil {
			return err
		}
		if is.InRecovery {
			p.setLog(backend.Log{}) // it is a replica itself: nothing is known to be fresh
			return nil
		}
		p.setLog(is.Log)
		p.log.Note(before, is.Position)
		return nil
	})
}

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
	is, err := backend.AskStanding(ctx, conn)
	if err != nil {
		return s, err
	}
	if s.Reason = is.Follows(p.known()); s.Reason != "" {
		return s, nil
	}
	at, through, newest, ok := p.log.Reached(is.Position)
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
