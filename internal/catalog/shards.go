package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	sharding "github.com/sharding-system/sharding"
)

func (s *Shard) stamp(now time.Time) {
	if s.CreatedAt.IsZero() {
		s.CreatedAt = now
	}
	s.UpdatedAt = now
}

// AddShard adds a shard to its keyspace; it owns no vnode and is not in the map.
func (c *Catalog) AddShard(ctx context.Context, s Shard, guards ...Guard) (int64, error) {
	op := "add shard " + strconv.Quote(string(s.ID))
	s.stamp(time.Now().UTC())
	if err := s.Validate(); err != nil {
		return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	k, err := c.keyspace(ctx, op, s.Keyspace)
	if err != nil {
		return 0, err
	}
	ch := c.change(op, guards)
	if err := ch.standing(k); err != nil {
		return 0, err
	}
	ch.at(c.keys.shard(s.ID), 0, "shard "+string(s.ID))
	ch.put(c.keys.shard(s.ID), s)
	return ch.commit(ctx)
}

// shard reads a shard that must exist.
func (c *Catalog) shard(ctx context.Context, op string, id sharding.ShardID) (Shard, error) {
	if err := id.Validate(); err != nil {
		return Shard{}, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	kv, err := c.get(ctx, op, c.keys.shard(id))
	if err != nil {
		return Shard{}, err
	}
	if kv == nil {
		return Shard{}, &Error{Op: op, Kind: ErrNotFound, Detail: "shard " + string(id)}
	}
	s := Shard{Version: kv.ModRevision}
	if err := json.Unmarshal(kv.Value, &s); err != nil {
		return Shard{}, fmt.Errorf("%s: read shard %s: %w", op, id, err)
	}
	return s, nil
}

// UpdateShard changes the shard if it is at s.Version (AnyVersion: whatever it
// is). Its keyspace and time of creation stay.
func (c *Catalog) UpdateShard(ctx context.Context, s Shard, guards ...Guard) (int64, error) {
	op := "change shard " + strconv.Quote(string(s.ID))
	old, err := c.shard(ctx, op, s.ID)
	if err != nil {
		return 0, err
	}
	if s.Keyspace != old.Keyspace {
		return 0, invalid(op, "it is of keyspace %q, which cannot change", old.Keyspace)
	}
	s.CreatedAt = old.CreatedAt
	s.stamp(time.Now().UTC())
	if err := s.Validate(); err != nil {
		return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	ch := c.change(op, guards)
	ch.existing(c.keys.shard(s.ID), s.Version, "shard "+string(s.ID))
	ch.put(c.keys.shard(s.ID), s)
	return ch.commit(ctx)
}

// RemoveShard removes a shard at version (AnyVersion: whatever it is) that
// owns no vnode and no pinned key and is no home shard, else ErrInUse. If the map still names
// it, the map's next epoch does not.
func (c *Catalog) RemoveShard(ctx context.Context, id sharding.ShardID, version int64, guards ...Guard) (int64, error) {
	op := "remove shard " + strconv.Quote(string(id))
	s, err := c.shard(ctx, op, id)
	if err != nil {
		return 0, err
	}
	k, err := c.keyspace(ctx, op, s.Keyspace)
	if err != nil {
		return 0, err
	}
	if k.HomeShard == id {
		return 0, &Error{Op: op, Kind: ErrInUse, Detail: "it is the home shard of keyspace " + k.Name}
	}
	m, revision, err := c.shardMap(ctx, op, k.Name)
	if err != nil {
		return 0, err
	}
	if ranges := m.Ranges(id); len(ranges) > 0 {
		return 0, &Error{Op: op, Kind: ErrInUse, Detail: "it owns vnodes " + sharding.FormatVnodes(ranges)}
	}
	if n := m.PinnedKeys(id); n > 0 {
		return 0, &Error{Op: op, Kind: ErrInUse, Detail: fmt.Sprintf("%d keys are pinned to it", n)}
	}
	ch := c.change(op, guards)
	ch.existing(c.keys.shard(id), version, "shard "+string(id))
	ch.existing(c.keys.keyspace(k.Name), k.Version, "keyspace "+k.Name)
	// A map that gives the shard a vnode meanwhile conflicts with this.
	ch.existing(c.keys.shardMap(k.Name), revision, "shard map of keyspace "+k.Name)
	if m.Index(id) >= 0 {
		next, err := m.WithoutShard(id)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", op, err)
		}
		ch.put(c.keys.shardMap(k.Name), next)
	}
	ch.do(clientv3.OpDelete(c.keys.shard(id)))
	return ch.commit(ctx)
}

// shardMap reads a keyspace's map and the revision of its last change.
func (c *Catalog) shardMap(ctx context.Context, op, keyspace string) (*sharding.Map, int64, error) {
	kv, err := c.get(ctx, op, c.keys.shardMap(keyspace))
	if err != nil {
		return nil, 0, err
	}
	if kv == nil {
		return nil, 0, &Error{Op: op, Kind: ErrNotFound, Detail: "shard map of keyspace " + keyspace}
	}
	m := new(sharding.Map)
	if err := json.Unmarshal(kv.Value, m); err != nil {
		return nil, 0, fmt.Errorf("%s: read the shard map of keyspace %s: %w", op, keyspace, err)
	}
	return m, kv.ModRevision, nil
}

// PutMap replaces the keyspace's shard map by the one of the next epoch: it
// fails with ErrConflict unless the map stored is at m.Epoch()-1. Hash
// function and vnode count stay, and every shard of the map is a shard of the
// keyspace.
func (c *Catalog) PutMap(ctx context.Context, keyspace string, m *sharding.Map, guards ...Guard) (int64, error) {
	op := "change the shard map of keyspace " + strconv.Quote(keyspace)
	k, err := c.keyspace(ctx, op, keyspace)
	if err != nil {
		return 0, err
	}
	old, revision, err := c.shardMap(ctx, op, keyspace)
	if err != nil {
		return 0, err
	}
	if m.Epoch() != old.Epoch()+1 {
		return 0, &Error{Op: op, Kind: ErrConflict, Detail: fmt.Sprintf("it is at epoch %d, so the next is %d, not %d", old.Epoch(), old.Epoch()+1, m.Epoch())}
	}
	if m.Hash() != old.Hash() || m.VnodeCount() != old.VnodeCount() {
		return 0, invalid(op, "hash function and vnode count are fixed")
	}
	ch := c.change(op, guards)
	if err := ch.standing(k); err != nil {
		return 0, err
	}
	ch.existing(c.keys.shardMap(keyspace), revision, "shard map of keyspace "+keyspace)
	for _, id := range m.Shards() {
		// A shard that the map names already cannot be removed without a change
		// of the map; only the new ones need a look.
		if old.Index(id) >= 0 {
			continue
		}
		s, err := c.shard(ctx, op, id)
		if err != nil {
			return 0, err
		}
		if s.Keyspace != keyspace {
			return 0, invalid(op, "shard %s is of keyspace %q", id, s.Keyspace)
		}
		ch.existing(c.keys.shard(id), s.Version, "shard "+string(id))
	}
	ch.put(c.keys.shardMap(keyspace), m)
	return ch.commit(ctx)
}
