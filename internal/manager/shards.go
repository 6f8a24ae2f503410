package manager

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/twophase"
)

func (s *Server) listShards(_ context.Context, c *call) (answer, error) {
	keyspace := c.URL.Query().Get("keyspace")
	var items []client.Shard
	snap := s.snapshot()
	for _, sh := range snap.Shards {
		if c.who.sees(sh.Keyspace) && (keyspace == "" || sh.Keyspace == keyspace) {
			items = append(items, showShard(snap, *sh))
		}
	}
	p, err := page(c, items, func(sh client.Shard) string { return sh.ID })
	if err != nil {
		return answer{}, err
	}
	return ok(p)
}

func (s *Server) getShard(_ context.Context, c *call) (answer, error) {
	sh, err := s.shard(c)
	if err != nil {
		return answer{}, err
	}
	return versioned(http.StatusOK, showShard(s.snapshot(), sh), sh.Version)
}

func (s *Server) shardHealth(_ context.Context, c *call) (answer, error) {
	sh, err := s.shard(c)
	if err != nil {
		return answer{}, err
	}
	return ok(s.prober.health(sh))
}

// shard finds the shard that the path names and the caller may see.
func (s *Server) shard(c *call) (catalog.Shard, error) {
	id := c.PathValue("shard")
	sh, found := s.snapshot().Shards[sharding.ShardID(id)]
	if !found {
		return catalog.Shard{}, notFound(codeShardMissing, "there is no shard %q", id)
	}
	if !c.who.sees(sh.Keyspace) {
		return catalog.Shard{}, fail(http.StatusForbidden, codeForbidden, "your token does not reach keyspace %q", sh.Keyspace)
	}
	return *sh, nil
}

func showShard(snap *catalog.Snapshot, sh catalog.Shard) client.Shard {
	out := client.Shard{
		ID: string(sh.ID), Name: sh.Name, Keyspace: sh.Keyspace, Database: sh.Database, PrimaryEndpoint: sh.PrimaryEndpoint,
		Replicas: sh.Replicas, Status: sh.Status, Vnodes: []int{}, CreatedAt: sh.CreatedAt, UpdatedAt: sh.UpdatedAt, Version: sh.Version,
	}
	if out.Replicas == nil {
		out.Replicas = []string{}
	}
	if k := snap.Keyspaces[sh.Keyspace]; k != nil && k.Map != nil && k.Map.Index(sh.ID) >= 0 {
		out.Vnodes = append(out.Vnodes, k.Map.Vnodes(sh.ID)...)
	}
	return out
}

// addShard brings the home shard's schema to an empty server and registers it
// without vnodes. It holds the keyspace's lock, so that no DDL falls between
// the copy and the registration; see addition for keyspaces of one shard.
func (s *Server) addShard(ctx context.Context, c *call) (answer, error) {
	var n client.NewShard
	if err := c.decode(&n); err != nil {
		return answer{}, err
	}
	k, err := s.keyspace(c, n.Keyspace)
	if err != nil {
		return answer{}, err
	}
	if k.State != catalog.KeyspaceActive {
		return answer{}, conflict(codeInUse, "keyspace %s is %s", k.Name, k.State)
	}
	shards, err := s.planShards(k.Name, []client.NewShard{n})
	if err != nil {
		return answer{}, err
	}
	sh := shards[0]
	for _, other := range k.Shards {
		if other.PrimaryEndpoint == sh.PrimaryEndpoint {
			return answer{}, conflict(codeExists, "shard %s of keyspace %s is on %s already", other.ID, k.Name, sh.PrimaryEndpoint)
		}
	}
	home := *k.Shards[k.HomeShard]
	loc, err := s.checkAddition(ctx, k.Keyspace, home, sh)
	if err != nil {
		return answer{}, err
	}
	if err := s.checkReplicas(ctx, catalog.Shard{}, sh); err != nil {
		return answer{}, err
	}
	if c.dryRun {
		return ok(showShard(s.snapshot(), sh))
	}
	lock, err := s.lock(ctx, k.Name)
	if err != nil {
		return answer{}, err
	}
	defer s.unlock(ctx, lock)
	a := addition{s: s, lock: lock, k: k.Keyspace, home: home, shard: sh, locale: loc, second: len(k.Shards) == 1}
	revision, err := a.run(ctx)
	if err != nil {
		return answer{}, err
	}
	return s.shardNow(ctx, sh.ID, revision, http.StatusCreated)
}

// checkAddition refuses a server that cannot take the shard, and gives the
// locale that its database must have.
func (s *Server) checkAddition(ctx context.Context, k catalog.Keyspace, home, sh catalog.Shard) (locale, error) {
	var loc locale
	err := s.with(ctx, home, maintenanceDatabase, func(conn *pgx.Conn) (err error) {
		loc, err = readLocale(ctx, conn, home.Database)
		return err
	})
	if err != nil {
		return loc, err
	}
	var exists bool
	err = s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) (err error) {
		if err := checkServer(ctx, conn, sh.PrimaryEndpoint, k.TwoPhaseCommit == catalog.TwoPhaseRequired); err != nil {
			return err
		}
		exists, _, err = databaseExists(ctx, conn, sh.Database)
		return err
	})
	if err != nil || !exists {
		return loc, err
	}
	tables, err := s.tablesIn(ctx, sh)
	if err != nil {
		return loc, err
	}
	if len(tables) > 0 {
		return loc, conflict(codeInUse, "database %s on %s holds tables already", sh.Database, sh.PrimaryEndpoint).
			withDetail("%s", tables[0]).withHint("A new shard begins empty: drop that database or choose another server.")
	}
	return loc, nil
}

// shardNow waits until this manager's own view has the change, then shows it.
func (s *Server) shardNow(ctx context.Context, id sharding.ShardID, revision int64, status int) (answer, error) {
	if err := s.catchUp(ctx, revision); err != nil {
		return answer{}, err
	}
	snap := s.snapshot()
	sh, found := snap.Shards[id]
	if !found {
		return answer{}, notFound(codeShardMissing, "shard %s was removed meanwhile", id)
	}
	return versioned(status, showShard(snap, *sh), sh.Version)
}

// lock takes the keyspace's DDL lock, or refuses after lockPatience.
func (s *Server) lock(ctx context.Context, keyspace string) (*catalog.Lock, error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	return s.catalog.LockKeyspace(ctx, keyspace, "manager "+s.id)
}

func (s *Server) unlock(ctx context.Context, lock *catalog.Lock) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTime)
	defer cancel()
	if err := lock.Unlock(ctx); err != nil {
		s.log.Warn("a keyspace's lock was not released and will run out", "error", err)
	}
}

// changeShard changes what an operator may change of a shard.
func (s *Server) changeShard(ctx context.Context, c *call) (answer, error) {
	sh, err := s.shard(c)
	if err != nil {
		return answer{}, err
	}
	var change client.ShardChange
	if err := c.decode(&change); err != nil {
		return answer{}, err
	}
	if err := c.atVersion(fmt.Sprintf("shard %s", sh.ID), sh.Version); err != nil {
		return answer{}, err
	}
	old := sh
	set(&sh.Name, change.Name)
	set(&sh.Status, change.Status)
	set(&sh.PrimaryEndpoint, change.PrimaryEndpoint)
	set(&sh.Username, change.Username)
	set(&sh.PasswordFile, change.PasswordFile)
	set(&sh.TLSMode, change.TLSMode)
	set(&sh.TLSRootCert, change.TLSRootCert)
	if change.Replicas != nil {
		sh.Replicas = *change.Replicas
	}
	if err := sh.Validate(); err != nil {
		return answer{}, invalid("%s", oneLine(err))
	}
	if err := s.checkChange(ctx, old, sh); err != nil {
		return answer{}, err
	}
	if c.dryRun {
		return ok(showShard(s.snapshot(), sh))
	}
	revision, err := s.catalog.UpdateShard(ctx, sh)
	if err != nil {
		return answer{}, err
	}
	return s.shardNow(ctx, sh.ID, revision, http.StatusOK)
}

func set(field, value *string) {
	if value != nil {
		*field = *value
	}
}

// checkChange refuses a status that would take rows away, and a server that is
// not this shard's.
func (s *Server) checkChange(ctx context.Context, old, sh catalog.Shard) error {
	k := s.snapshot().Keyspaces[sh.Keyspace]
	owns := k != nil && k.Map != nil && k.Map.Index(sh.ID) >= 0 && (len(k.Map.Vnodes(sh.ID)) > 0 || k.Map.PinnedKeys(sh.ID) > 0)
	switch {
	case sh.Status == old.Status:
	case sh.Status == catalog.ShardMigrating:
		return invalid("status: migrating is set by a workflow")
	case sh.Status == catalog.ShardReadonly:
		return invalid("status: readonly is not supported yet")
	case sh.Status == catalog.ShardInactive && (owns || (k != nil && k.HomeShard == sh.ID)):
		return conflict(codeInUse, "shard %s owns vnodes or pinned keys, or is the home shard: it cannot be inactive", sh.ID)
	}
	if err := s.checkReplicas(ctx, old, sh); err != nil {
		return err
	}
	if sh.PrimaryEndpoint == old.PrimaryEndpoint {
		return nil
	}
	// The same data under another address: it has our schema already.
	return s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error {
		var ours bool
		if err := conn.QueryRow(ctx, `SELECT to_regclass('sharding.component') IS NOT NULL AND NOT pg_is_in_recovery()`).Scan(&ours); err != nil {
			return fmt.Errorf("inspecting the server at %s: %w", sh.PrimaryEndpoint, err)
		}
		if !ours {
			return fail(422, codeUnsuitable, "the server at %s is not a primary with the data of shard %s", sh.PrimaryEndpoint, sh.ID)
		}
		return twophase.Install(ctx, conn)
	})
}

// removeShard unregisters a shard that owns nothing. Its database stays.
func (s *Server) removeShard(ctx context.Context, c *call) (answer, error) {
	sh, err := s.shard(c)
	if err != nil {
		return answer{}, err
	}
	if err := c.atVersion(fmt.Sprintf("shard %s", sh.ID), sh.Version); err != nil {
		return answer{}, err
	}
	k := s.snapshot().Keyspaces[sh.Keyspace]
	if k != nil && k.HomeShard == sh.ID {
		return answer{}, conflict(codeInUse, "shard %s is the home shard of keyspace %s", sh.ID, k.Name)
	}
	if k != nil && k.Map != nil && k.Map.Index(sh.ID) >= 0 && len(k.Map.Vnodes(sh.ID)) > 0 {
		return answer{}, conflict(codeInUse, "shard %s owns vnodes %s", sh.ID, sharding.FormatVnodes(k.Map.Ranges(sh.ID)))
	}
	if k != nil && k.Map != nil && k.Map.PinnedKeys(sh.ID) > 0 {
		return answer{}, conflict(codeInUse, "%d keys are pinned to shard %s", k.Map.PinnedKeys(sh.ID), sh.ID).withHint("See shardctl pin list.")
	}
	if err := s.refuseLiveTransactions(ctx, sh); err != nil {
		return answer{}, err
	}
	if c.dryRun {
		return noContent()
	}
	revision, err := s.catalog.RemoveShard(ctx, sh.ID, sh.Version)
	if err != nil {
		return answer{}, err
	}
	if err := s.catchUp(ctx, revision); err != nil {
		return answer{}, err
	}
	return noContent()
}

// refuseLiveTransactions keeps a shard that a two-phase transaction still
// names: whoever finishes it must find the shard (PROTOCOLS i, 6).
func (s *Server) refuseLiveTransactions(ctx context.Context, sh catalog.Shard) error {
	err := s.with(ctx, sh, maintenanceDatabase, func(conn *pgx.Conn) error { return refusePrepared(ctx, conn, sh.Database) })
	if err != nil {
		return err
	}
	var decisions int
	err = s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT count(*) FROM sharding.decision`).Scan(&decisions)
	})
	if err != nil {
		return fmt.Errorf("looking for decisions on shard %s: %w", sh.ID, err)
	}
	doubtful := slices.ContainsFunc(s.inDoubt(), func(x client.Transaction) bool { return slices.Contains(x.Shards, string(sh.ID)) })
	if decisions > 0 || doubtful {
		return conflict(codeInUse, "transactions that shard %s takes part in are not finished everywhere", sh.ID).
			withHint("The resolver finishes them within seconds: try again.")
	}
	return nil
}
