package manager

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/fence"
)

const (
	// pinTime bounds a change of a pin; what is left then is the leader's.
	pinTime = time.Minute
	// routersTime bounds the wait for routers to take up a map. A router that has
	// died is out of the catalog within a lease's time.
	routersTime = 20 * time.Second
	// resumeTime bounds one attempt of the leader's.
	resumeTime = 5 * time.Second
)

// pinning is a change of one key's pin, under the keyspace's lock.
type pinning struct {
	s        *Server
	keyspace string
	lock     *catalog.Lock
	key      fence.Key
}

// keyOf is a key with the tables that it is in.
func keyOf(k *catalog.KeyspaceSnapshot, value []sharding.Value) fence.Key {
	key := fence.Key{Value: value}
	for _, d := range k.Tables {
		same := func(c sharding.KeyColumn, v sharding.Value) bool { return c.Type == v.Type() }
		if d.Kind == sharding.Sharded && slices.EqualFunc(d.Key, value, same) {
			key.Tables = append(key.Tables, d.Table)
		}
	}
	return key
}

func isLocked(err error) bool { return errors.Is(err, catalog.ErrLocked) }

// checkEmpty says whether the key has rows where they are not to be.
func (p pinning) checkEmpty(ctx context.Context, k *catalog.KeyspaceSnapshot, m *sharding.Map) error {
	if m.ShardOf(p.key.Value...) == k.Map.ShardOf(p.key.Value...) {
		return nil
	}
	return each(sortedShards(k.Shards), func(sh catalog.Shard) error {
		return p.s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error { return keyError(sh, p.key.Empty(ctx, conn)) })
	})
}

// change moves an empty key. What a failure leaves is taken back here, or by the
// leader.
func (p pinning) change(ctx context.Context, k *catalog.KeyspaceSnapshot, to sharding.ShardID, key []sharding.Value) error {
	if err := p.checkEmpty(ctx, k, mustPin(k.Map, to, key)); err != nil {
		return err // the usual refusal, before anything is touched
	}
	if err := each(sortedShards(k.Shards), func(sh catalog.Shard) error {
		return p.s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error { return fence.Install(ctx, conn) })
	}); err != nil {
		return err
	}
	begun, err := k.Map.WithPinChange(to, key...)
	if err != nil {
		return invalid("%s", err)
	}
	if _, err := p.s.catalog.PutMap(ctx, p.keyspace, begun, p.lock); err != nil {
		return err
	}
	err = p.moveEmpty(ctx, k, begun)
	// Forward or back, as the catalog has it.
	if undo := p.s.finishPin(ctx, p.keyspace, p.lock); err == nil {
		err = undo
	} else if undo != nil {
		p.s.log.Warn("a change of a pin was not undone; the leader goes on", "keyspace", p.keyspace, "error", undo)
	}
	return err
}

// mustPin is the map with the pin, which checkRepin has seen to be possible.
func mustPin(m *sharding.Map, to sharding.ShardID, key []sharding.Value) *sharding.Map {
	next, err := m.WithPin(to, key...)
	if err != nil {
		return m
	}
	return next
}

// moveEmpty closes every shard to the key, its present place last, and then puts
// it in its new place.
func (p pinning) moveEmpty(ctx context.Context, k *catalog.KeyspaceSnapshot, begun *sharding.Map) error {
	// Routers that do not follow would not learn of the new place either.
	if err := p.s.awaitRouters(ctx, p.keyspace, begun.Epoch()); err != nil {
		return err
	}
	place := begun.Shards()[begun.ShardOf(p.key.Value...)]
	shards := sortedShards(k.Shards)
	slices.SortStableFunc(shards, func(a, b catalog.Shard) int { return boolOrder(a.ID == place) - boolOrder(b.ID == place) })
	for _, sh := range shards {
		err := p.s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error {
			return keyError(sh, p.key.Close(ctx, conn, begun.Epoch()))
		})
		if err != nil {
			return err
		}
	}
	moved, err := begun.WithPinPhase(sharding.PinOpen)
	if err != nil {
		return err
	}
	_, err = p.s.catalog.PutMap(ctx, p.keyspace, moved, p.lock)
	return err
}

func boolOrder(b bool) int {
	if b {
		return 1
	}
	return 0
}

// keyError turns what a fence says of a shard into an answer.
func keyError(sh catalog.Shard, err error) error {
	var rows *fence.RowsError
	switch {
	case errors.As(err, &rows):
		return conflict(codeKeyNotEmpty, "the key has rows in table %s on shard %s", rows.Table, sh.ID).
			withHint("Only a key without rows can change its shard: pin it before it is used, or delete its rows first.")
	case errors.Is(err, fence.ErrStale):
		return conflict(codeConflict, "somebody else has changed the pins of this keyspace").because(err)
	case err != nil && isCode(err, "55P03"):
		return conflict(codeInUse, "a table of the key is being written to on shard %s by a long transaction", sh.ID).
			withHint("Try again when its writers are done.").because(err)
	}
	return err
}

// finishPin brings a change of a pin to its end, from wherever it stands: a key
// that has not moved stays, one that has moved is opened in its new place. The
// keyspace's lock is held.
func (s *Server) finishPin(ctx context.Context, name string, lock *catalog.Lock) error {
	for {
		k, err := s.freshKeyspace(ctx, name)
		if err != nil {
			return err
		}
		change := k.Map.PendingPin()
		if change == nil {
			return nil
		}
		to := sharding.PinPhase("")
		if change.Phase == sharding.PinFence {
			to = sharding.PinUndo
		} else if err := s.openPinned(ctx, k, change); err != nil {
			return err
		}
		next, err := k.Map.WithPinPhase(to)
		if err != nil {
			return err
		}
		revision, err := s.catalog.PutMap(ctx, name, next, lock)
		if err != nil {
			return err
		}
		if err := s.catchUp(ctx, revision); err != nil {
			return err
		}
	}
}

// openPinned opens a key's place to its rows: where it is new, not before every
// router knows.
func (s *Server) openPinned(ctx context.Context, k *catalog.KeyspaceSnapshot, change *sharding.PinChange) error {
	if change.Phase == sharding.PinOpen {
		if err := s.awaitRouters(ctx, k.Name, k.Map.Epoch()); err != nil {
			return err
		}
	}
	sh := *k.Shards[k.Map.Shards()[k.Map.ShardOf(change.Key...)]]
	return s.with(ctx, sh, sh.Database, func(conn *pgx.Conn) error {
		return keyError(sh, keyOf(k, change.Key).Open(ctx, conn, k.Map.Epoch()))
	})
}

// awaitRouters waits until every registered router goes by a map of this epoch, or
// is registered no longer.
func (s *Server) awaitRouters(ctx context.Context, keyspace string, epoch int64) error {
	wait, cancel := context.WithTimeout(ctx, routersTime)
	defer cancel()
	snap, err := s.view.Linearizable(ctx, keyspace)
	if err != nil {
		return err
	}
	for {
		changed := s.view.Changed()
		if now := s.view.Snapshot(); now.Revision > snap.Revision {
			snap = now
		}
		behind := routersBehind(snap, keyspace, epoch)
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-wait.Done():
			return conflict(codeRouterBehind, "routers do not take up the shard map of epoch %d: %s", epoch, strings.Join(behind, ", ")).
				withHint("A router that has died is forgotten within seconds; restart one that hangs. See shardctl pin list for what is under way.")
		}
	}
}

func routersBehind(snap *catalog.Snapshot, keyspace string, epoch int64) (behind []string) {
	for id, r := range snap.Routers {
		if r.Epochs[keyspace] < epoch {
			behind = append(behind, id)
		}
	}
	slices.Sort(behind)
	return behind
}
