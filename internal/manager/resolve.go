package manager

import (
	"context"
	"sort"
	"strings"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/twophase"
)

// newResolver makes this leadership's resolver. The catalog's incarnation must
// be known: only transactions of this cluster are touched.
func (s *Server) newResolver(incarnation string) *twophase.Resolver {
	return twophase.NewResolver(twophase.Options{
		Incarnation: incarnation,
		Alive: func(router, boot string) bool {
			r := s.snapshot().Routers[router]
			return r != nil && r.Boot == boot
		},
	})
}

// resolve makes one pass over every keyspace and keeps what it left.
func (s *Server) resolve(ctx context.Context, r *twophase.Resolver) {
	snap := s.snapshot()
	left := map[string]*client.Transaction{}
	for _, k := range snap.Keyspaces {
		if k.State != catalog.KeyspaceActive {
			continue
		}
		report, err := r.Resolve(ctx, s.endpoints(k))
		if err != nil {
			return // the pass was cut short: what the last one found stays
		}
		if report.Committed+report.RolledBack > 0 {
			s.log.Info("finished transactions that their routers had left", "keyspace", k.Name,
				"committed", report.Committed, "rolled_back", report.RolledBack)
		}
		collect(left, k.Name, "in_doubt", report.Waiting)
		collect(left, k.Name, "lost", report.InDoubt)
	}
	list := make([]client.Transaction, 0, len(left))
	for _, x := range left {
		list = append(list, *x)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].GID < list[j].GID })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtful = list
}

// endpoints are the shards of a keyspace as the resolver reaches them; one
// whose login cannot be made up is left out and logged.
func (s *Server) endpoints(k *catalog.KeyspaceSnapshot) []twophase.Endpoint {
	var out []twophase.Endpoint
	for _, sh := range sortedShards(k.Shards) {
		a, err := s.credentials.accountOf(sh)
		if err != nil {
			s.log.Error("the resolver cannot log in on a shard", "shard", sh.ID, "error", err)
			continue
		}
		cfg, err := a.config(sh.Database)
		if err != nil {
			s.log.Error("the resolver cannot log in on a shard", "shard", sh.ID, "error", err)
			continue
		}
		out = append(out, twophase.Endpoint{Shard: sh.ID, Config: cfg})
	}
	return out
}

// collect puts the branches of each transaction together. A verdict that is
// known is the state.
func collect(into map[string]*client.Transaction, keyspace, state string, branches []twophase.Transaction) {
	for _, b := range branches {
		gid := b.GID.String()
		x := into[gid]
		if x == nil {
			x = &client.Transaction{GID: gid, Keyspace: keyspace, State: state, Shards: []string{}, Since: b.Prepared.UTC()}
			into[gid] = x
		}
		if b.Prepared.Before(x.Since) {
			x.Since = b.Prepared.UTC()
		}
		if b.Verdict != "" && state != "lost" {
			x.State = string(b.Verdict)
		}
		x.Shards = addOnce(x.Shards, b.Shard)
		x.Shards = addOnce(x.Shards, b.GID.Decision)
		if b.Reason != "" && !strings.Contains(x.Detail, b.Reason) {
			x.Detail = strings.TrimPrefix(x.Detail+"; "+b.Reason, "; ")
		}
	}
}

func addOnce(list []string, id sharding.ShardID) []string {
	for _, have := range list {
		if have == string(id) {
			return list
		}
	}
	return append(list, string(id))
}

// inDoubt is what the last pass of this manager's resolver left; only the
// leader makes passes.
func (s *Server) inDoubt() []client.Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]client.Transaction(nil), s.doubtful...)
}
