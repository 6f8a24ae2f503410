package manager

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/catalog"
)

const (
	// reconcileEvery is how often the leader compares the servers with the
	// catalog, beside every change of the catalog.
	reconcileEvery = 10 * time.Second
	resolveEvery   = time.Second
	resignTime     = 2 * time.Second
	// leaderPatience is how long the leader's loop waits for a keyspace's lock
	// before it does something else first.
	leaderPatience = time.Second
)

// leadLoop campaigns, does the leader's work while it leads, and campaigns
// again.
func (s *Server) leadLoop(ctx context.Context) {
	for ctx.Err() == nil {
		s.leads(0)
		lead, err := s.catalog.Campaign(ctx, s.id)
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("the campaign for the lead failed", "error", err)
			}
			continue
		}
		s.leads(lead.Term())
		s.log.Info("this manager leads", "term", lead.Term())
		s.lead(ctx, lead)
		s.leads(0)
		resign, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignTime)
		if err := lead.Resign(resign); err != nil {
			s.log.Warn("the lead ends by itself", "error", err)
		}
		cancel()
	}
}

func (s *Server) leads(term int64) {
	s.term.Store(term)
	s.metrics.Leader(term != 0)
}

// lead works until the lead is lost or ctx ends. All that it does is
// idempotent: a leader that was paused and wakes late repeats, at worst, what
// its successor does too.
func (s *Server) lead(ctx context.Context, lead *catalog.Leadership) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resolve, reconcile := time.NewTicker(resolveEvery), time.NewTicker(reconcileEvery)
	defer resolve.Stop()
	defer reconcile.Stop()
	go func() {
		select {
		case <-lead.Done():
			cancel() // also what is under way
		case <-ctx.Done():
		}
	}()
	if err := s.view.WaitRevision(ctx, 1); err != nil {
		return // the lead is over before the catalog could be read
	}
	resolver := s.newResolver(s.snapshot().Incarnation)
	defer resolver.Close()
	changed := s.view.Changed()
	s.reconcile(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-resolve.C:
			s.resolve(ctx, resolver)
		case <-reconcile.C:
			s.reconcile(ctx)
		case <-changed:
			changed = s.view.Changed()
			s.reconcile(ctx)
		}
	}
}

// reconcile makes the servers what the catalog says, as far as they answer.
func (s *Server) reconcile(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	snap := s.snapshot()
	for _, k := range snap.Keyspaces {
		if err := s.reconcileKeyspace(ctx, k); err != nil && ctx.Err() == nil {
			s.log.Error("a keyspace cannot be finished", "keyspace", k.Name, "error", err)
		}
	}
	if len(snap.Users) == 0 {
		return
	}
	_, err := s.onServers(ctx, snap, func(sh catalog.Shard) error {
		return s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error {
			var failed []error
			for _, u := range s.snapshot().Users { // as it is now: a router may have changed it
				// One that stands in the way (a superuser, say) does not keep the others.
				if err := ensureRole(ctx, conn, *u); err != nil && !isConflict(err) {
					failed = append(failed, err)
				}
			}
			return errors.Join(failed...)
		})
	})
	if err != nil && ctx.Err() == nil {
		s.log.Error("a user cannot be brought to a server", "error", err)
	}
}
