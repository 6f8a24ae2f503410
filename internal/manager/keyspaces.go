package manager

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/fence"
	"github.com/sharding-system/sharding/internal/twophase"
)

func (s *Server) listKeyspaces(_ context.Context, c *call) (answer, error) {
	var items []client.Keyspace
	for _, k := range s.snapshot().Keyspaces {
		if c.who.sees(k.Name) {
			items = append(items, showKeyspace(k))
		}
	}
	p, err := page(c, items, func(k client.Keyspace) string { return k.Name })
	if err != nil {
		return answer{}, err
	}
	return ok(p)
}

func (s *Server) getKeyspace(_ context.Context, c *call) (answer, error) {
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return answer{}, err
	}
	return versioned(http.StatusOK, showKeyspace(k), k.Version)
}

// keyspace finds a keyspace that the caller may see.
func (s *Server) keyspace(c *call, name string) (*catalog.KeyspaceSnapshot, error) {
	if !c.who.sees(name) {
		return nil, fail(http.StatusForbidden, codeForbidden, "your token does not reach keyspace %q", name)
	}
	k, found := s.snapshot().Keyspaces[name]
	if !found {
		return nil, notFound(codeKeyspaceMissing, "there is no keyspace %q", name)
	}
	return k, nil
}

func showKeyspace(k *catalog.KeyspaceSnapshot) client.Keyspace {
	out := client.Keyspace{
		Name: k.Name, Hash: k.Hash.String(), VnodeCount: k.VnodeCount, HomeShard: string(k.HomeShard), Owner: k.Owner,
		TwoPhaseCommit: k.TwoPhaseCommit, DefaultKey: k.DefaultKey, SchemaVersion: k.SchemaVersion, State: k.State, Shards: []string{},
		CreatedAt: k.CreatedAt, Version: k.Version,
	}
	if k.Map != nil {
		out.Epoch = k.Map.Epoch()
	}
	for _, sh := range sortedShards(k.Shards) {
		out.Shards = append(out.Shards, string(sh.ID))
	}
	return out
}

func (s *Server) getVnodes(_ context.Context, c *call) (answer, error) {
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return answer{}, err
	}
	raw, err := k.Map.MarshalJSON()
	if err != nil {
		return answer{}, fmt.Errorf("writing the shard map: %w", err)
	}
	v := client.Vnodes{Keyspace: k.Name, Epoch: k.Map.Epoch(), Hash: k.Hash.String(), VnodeCount: k.VnodeCount, Map: raw, Ranges: ranges(k.Map)}
	return versioned(http.StatusOK, v, k.Map.Epoch())
}

// ranges are the runs of vnodes with one owner, in order.
func ranges(m *sharding.Map) []client.VnodeRange {
	out := []client.VnodeRange{}
	for v := range m.VnodeCount() {
		owner := string(m.Shards()[m.Owner(v)])
		if n := len(out); n > 0 && out[n-1].Shard == owner {
			out[n-1].Last = v
			continue
		}
		out = append(out, client.VnodeRange{First: v, Last: v, Shard: owner})
	}
	return out
}

// createKeyspace writes the keyspace as "creating", prepares every server, and
// only then makes it "active", so that no router serves half of one. What a
// crash leaves in between is finished by the leader (reconcile).
func (s *Server) createKeyspace(ctx context.Context, c *call) (answer, error) {
	var n client.NewKeyspace
	if err := c.decode(&n); err != nil {
		return answer{}, err
	}
	if !c.who.sees(n.Name) {
		return answer{}, fail(http.StatusForbidden, codeForbidden, "your token does not reach keyspace %q", n.Name)
	}
	k, m, shards, err := s.planKeyspace(n)
	if err != nil {
		return answer{}, err
	}
	loc, err := s.checkNewServers(ctx, k, shards, n.Locale)
	if err != nil {
		return answer{}, err
	}
	for _, sh := range shards {
		if err := s.checkReplicas(ctx, catalog.Shard{}, sh); err != nil {
			return answer{}, err
		}
	}
	if c.dryRun {
		return ok(plannedKeyspace(k, m, shards))
	}
	revision, err := s.catalog.CreateKeyspace(ctx, k, m, shards)
	if err != nil {
		return answer{}, err
	}
	k.Version = revision
	if err := s.prepareKeyspace(ctx, k, shards, loc); err != nil {
		return answer{}, errors.Join(err, s.abandonKeyspace(ctx, k.Name))
	}
	revision, err = s.activate(ctx, k)
	if err != nil {
		return answer{}, err
	}
	if err := s.catchUp(ctx, revision); err != nil {
		return answer{}, err
	}
	made, err := s.keyspace(c, k.Name)
	if err != nil {
		return answer{}, err
	}
	return versioned(http.StatusCreated, showKeyspace(made), made.Version)
}

func (s *Server) activate(ctx context.Context, k catalog.Keyspace) (int64, error) {
	k.State = catalog.KeyspaceActive
	return s.catalog.UpdateKeyspace(ctx, k)
}

// abandonKeyspace takes back a keyspace that could not be made. Databases that
// exist by then stay, empty, and are used by the next attempt.
func (s *Server) abandonKeyspace(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTime)
	defer cancel()
	if _, err := s.catalog.DropKeyspace(ctx, name); err != nil {
		return fmt.Errorf("taking back keyspace %s: %w", name, err)
	}
	return nil
}

func plannedKeyspace(k catalog.Keyspace, m *sharding.Map, shards []catalog.Shard) client.Keyspace {
	state := &catalog.KeyspaceSnapshot{Keyspace: k, Map: m}
	out := showKeyspace(state)
	for _, sh := range shards {
		out.Shards = append(out.Shards, string(sh.ID))
	}
	return out
}

// prepareKeyspace makes the database and our schema on every shard. It is
// idempotent: what is there stays.
func (s *Server) prepareKeyspace(ctx context.Context, k catalog.Keyspace, shards []catalog.Shard, loc locale) error {
	return each(shards, func(sh catalog.Shard) error { return s.prepareShard(ctx, k, sh, loc) })
}

func (s *Server) prepareShard(ctx context.Context, k catalog.Keyspace, sh catalog.Shard, loc locale) error {
	err := s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error {
		for _, u := range s.snapshot().Users {
			if err := ensureRole(ctx, conn, *u); err != nil {
				return err
			}
		}
		return ensureDatabase(ctx, conn, sh.Database, k.Owner, loc)
	})
	if err != nil {
		return fmt.Errorf("shard %s: %w", sh.ID, err)
	}
	return s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error {
		have, err := readLocale(ctx, conn, sh.Database)
		if err != nil {
			return err
		}
		if have != loc {
			return fail(422, codeUnsuitable, "database %s at %s has another locale than its other shards", sh.Database, sh.PrimaryEndpoint).
				withDetail("%s; wanted %s", have, loc)
		}
		if err := twophase.Install(ctx, conn); err != nil {
			return fmt.Errorf("shard %s: %w", sh.ID, err)
		}
		// The home shard's schema may come with fences.
		if err := fence.Install(ctx, conn); err != nil {
			return fmt.Errorf("shard %s: %w", sh.ID, err)
		}
		return nil
	})
}

// dropKeyspace removes the keyspace from the catalog, so that routers let go of
// it, and then the databases that were made for it.
func (s *Server) dropKeyspace(ctx context.Context, c *call) (answer, error) {
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return answer{}, err
	}
	if err := c.atVersion("keyspace "+k.Name, k.Version); err != nil {
		return answer{}, err
	}
	shards := sortedShards(k.Shards)
	// All that could stand in the way is looked at before anything is removed.
	err = each(shards, func(sh catalog.Shard) error {
		return s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error { return refusePrepared(ctx, conn, sh.Database) })
	})
	if err != nil || c.dryRun {
		return answer{status: http.StatusNoContent}, err
	}
	// The lock keeps the leader's loop, which finishes what was cut short, away.
	lock, err := s.lock(ctx, k.Name)
	if err != nil {
		return answer{}, err
	}
	defer s.unlock(ctx, lock)
	revision, err := s.catalog.DropKeyspace(ctx, k.Name, lock)
	if err != nil {
		return answer{}, err
	}
	// From here on it is finished even if the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTime)
	defer cancel()
	err = each(shards, func(sh catalog.Shard) error { return s.dropShardDatabase(ctx, sh) })
	if err != nil {
		e := asAPIError(err)
		return answer{}, e.withHint("The keyspace is gone from the catalog. Drop database %s by hand where it is left.", quoteName(k.Name))
	}
	if err := s.catchUp(ctx, revision); err != nil {
		return answer{}, err
	}
	return noContent()
}

// dropShardDatabase drops the database if it was made for the keyspace, else
// takes only our own schema out of it.
func (s *Server) dropShardDatabase(ctx context.Context, sh catalog.Shard) error {
	var kept bool
	err := s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) (err error) {
		kept, err = dropDatabase(ctx, conn, sh.Database)
		return err
	})
	if err != nil || !kept {
		return err
	}
	return s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error {
		return errors.Join(fence.Uninstall(ctx, conn), twophase.Uninstall(ctx, conn))
	})
}

// reconcileKeyspace finishes what was cut short: one in the making is prepared
// again and becomes active, one being dropped goes with its databases.
func (s *Server) reconcileKeyspace(ctx context.Context, k *catalog.KeyspaceSnapshot) error {
	shards := sortedShards(k.Shards)
	switch {
	case k.State == catalog.KeyspaceActive && k.Map.PendingPin() != nil:
		return s.resumePin(ctx, k.Name)
	case k.State == catalog.KeyspaceDropping:
		return s.finishDropping(ctx, k.Name, shards)
	case k.State != catalog.KeyspaceCreating || time.Since(k.CreatedAt) < requestTime:
		return nil // active, or somebody is at it
	}
	loc, err := s.checkNewServers(ctx, k.Keyspace, shards, "")
	if err != nil {
		return err
	}
	if err := s.prepareKeyspace(ctx, k.Keyspace, shards, loc); err != nil {
		return err
	}
	_, err = s.activate(ctx, k.Keyspace)
	return err
}

// finishDropping goes on with a dropping that nobody is at any more.
func (s *Server) finishDropping(ctx context.Context, name string, shards []catalog.Shard) error {
	wait, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	lock, err := s.catalog.LockKeyspace(wait, name, "manager "+s.id)
	if errors.Is(err, catalog.ErrLocked) {
		return nil // somebody is at it
	}
	if err != nil {
		return err
	}
	defer s.unlock(ctx, lock)
	snap, err := s.view.Linearizable(ctx, name)
	if errors.Is(err, catalog.ErrNotFound) {
		return nil // whoever was at it has finished it
	}
	if err != nil {
		return err
	}
	if k := snap.Keyspace(name); k == nil || k.State != catalog.KeyspaceDropping {
		return nil
	}
	if err := each(shards, func(sh catalog.Shard) error { return s.dropShardDatabase(ctx, sh) }); err != nil {
		return err
	}
	_, err = s.catalog.DropKeyspace(ctx, name, lock)
	return err
}
