package catalog

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	sharding "github.com/sharding-system/sharding"
)

// maxInitialShards is how many shards one transaction can create with a
// keyspace; more are added one by one.
const maxInitialShards = 100

// get reads one key, linearizably; nil if it is absent.
func (c *Catalog) get(ctx context.Context, op, key string) (*mvccpb.KeyValue, error) {
	client, err := c.connected()
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := client.Get(bounded, key)
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return resp.Kvs[0], nil
}

// keyspace reads a keyspace that must exist.
func (c *Catalog) keyspace(ctx context.Context, op, name string) (Keyspace, error) {
	if err := checkPlainName("keyspace", name); err != nil {
		return Keyspace{}, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	kv, err := c.get(ctx, op, c.keys.keyspace(name))
	if err != nil {
		return Keyspace{}, err
	}
	if kv == nil {
		return Keyspace{}, &Error{Op: op, Kind: ErrNotFound, Detail: "keyspace " + name}
	}
	k := Keyspace{Version: kv.ModRevision}
	if err := json.Unmarshal(kv.Value, &k); err != nil {
		return Keyspace{}, fmt.Errorf("%s: read keyspace %s: %w", op, name, err)
	}
	return k, nil
}

// standing adds the condition that the keyspace is as just read and is not
// being dropped.
func (ch *change) standing(k Keyspace) error {
	if k.State == KeyspaceDropping {
		return &Error{Op: ch.op, Kind: ErrInUse, Detail: "keyspace " + k.Name + " is being dropped"}
	}
	ch.existing(ch.c.keys.keyspace(k.Name), k.Version, "keyspace "+k.Name)
	return nil
}

// CreateKeyspace creates the keyspace, its shard map (at any epoch from 1) and
// its shards, all or nothing. The map's hash function and number of vnodes are
// the keyspace's; every shard of the map is among shards, and so is the home
// shard. Times that are zero become now.
func (c *Catalog) CreateKeyspace(ctx context.Context, k Keyspace, m *sharding.Map, shards []Shard, guards ...Guard) (int64, error) {
	op := "create keyspace " + strconv.Quote(k.Name)
	now := time.Now().UTC()
	if k.CreatedAt.IsZero() {
		k.CreatedAt = now
	}
	if err := checkNewKeyspace(op, k, m, shards); err != nil {
		return 0, err
	}
	ch := c.change(op, guards)
	ch.at(c.keys.keyspace(k.Name), 0, "keyspace "+k.Name)
	ch.put(c.keys.keyspace(k.Name), k)
	ch.put(c.keys.shardMap(k.Name), m)
	ch.put(c.keys.schema(k.Name), struct{}{})
	for _, s := range shards {
		s.stamp(now)
		if err := s.Validate(); err != nil {
			return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
		}
		ch.at(c.keys.shard(s.ID), 0, "shard "+string(s.ID))
		ch.put(c.keys.shard(s.ID), s)
	}
	return ch.commit(ctx)
}

func checkNewKeyspace(op string, k Keyspace, m *sharding.Map, shards []Shard) error {
	if err := k.Validate(); err != nil {
		return &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	if m == nil || m.Hash() != k.Hash || m.VnodeCount() != k.VnodeCount {
		return invalid(op, "the shard map's hash function and vnode count are not the keyspace's")
	}
	if len(shards) > maxInitialShards {
		return invalid(op, "%d shards: at most %d at once, add the others afterwards", len(shards), maxInitialShards)
	}
	given := map[sharding.ShardID]bool{}
	for _, s := range shards {
		if s.Keyspace != k.Name {
			return invalid(op, "shard %s is of keyspace %q", s.ID, s.Keyspace)
		}
		if given[s.ID] {
			return invalid(op, "shard %s is given twice", s.ID)
		}
		given[s.ID] = true
	}
	for _, id := range m.Shards() {
		if !given[id] {
			return invalid(op, "the shard map names shard %s, which is not given", id)
		}
	}
	if !given[k.HomeShard] {
		return invalid(op, "home shard %s is not given", k.HomeShard)
	}
	return nil
}

// UpdateKeyspace changes the keyspace if it is at k.Version. Name, hash
// function, vnode count, home shard and time of creation stay; dropping is
// DropKeyspace's.
func (c *Catalog) UpdateKeyspace(ctx context.Context, k Keyspace, guards ...Guard) (int64, error) {
	op := "change keyspace " + strconv.Quote(k.Name)
	old, err := c.keyspace(ctx, op, k.Name)
	if err != nil {
		return 0, err
	}
	k.CreatedAt = old.CreatedAt
	if k.Hash != old.Hash || k.VnodeCount != old.VnodeCount || k.HomeShard != old.HomeShard {
		return 0, invalid(op, "hash function, vnode count and home shard are fixed")
	}
	if k.State == KeyspaceDropping {
		return 0, invalid(op, "a keyspace is dropped by DropKeyspace")
	}
	if err := k.Validate(); err != nil {
		return 0, &Error{Op: op, Kind: ErrInvalid, Err: err}
	}
	ch := c.change(op, guards)
	if k.Version != AnyVersion && k.Version != old.Version {
		return 0, &Error{Op: op, Kind: ErrConflict, Detail: fmt.Sprintf("keyspace %s is at version %d, not %d", k.Name, old.Version, k.Version)}
	}
	if err := ch.standing(old); err != nil {
		return 0, err
	}
	ch.put(c.keys.keyspace(k.Name), k)
	return ch.commit(ctx)
}

// DropKeyspace removes the keyspace with its map, tables and shards from the
// catalog (from nothing else). It marks the keyspace as being dropped first,
// so that nothing is added any more, and is continued by calling it again.
func (c *Catalog) DropKeyspace(ctx context.Context, name string, guards ...Guard) (int64, error) {
	op := "drop keyspace " + strconv.Quote(name)
	k, err := c.keyspace(ctx, op, name)
	if err != nil {
		return 0, err
	}
	if k.State != KeyspaceDropping {
		ch := c.change(op, guards)
		if err := ch.standing(k); err != nil {
			return 0, err
		}
		k.State = KeyspaceDropping
		ch.put(c.keys.keyspace(name), k)
		if k.Version, err = ch.commit(ctx); err != nil {
			return 0, err
		}
	}
	ids, err := c.shardsOf(ctx, op, name)
	if err != nil {
		return 0, err
	}
	for len(ids) > maxInitialShards {
		ch := c.change(op, guards)
		ch.existing(c.keys.keyspace(name), k.Version, "keyspace "+name)
		for _, id := range ids[:maxInitialShards] {
			ch.do(clientv3.OpDelete(c.keys.shard(id)))
		}
		if _, err := ch.commit(ctx); err != nil {
			return 0, err
		}
		ids = ids[maxInitialShards:]
	}
	ch := c.change(op, guards)
	ch.existing(c.keys.keyspace(name), k.Version, "keyspace "+name)
	for _, id := range ids {
		ch.do(clientv3.OpDelete(c.keys.shard(id)))
	}
	ch.do(clientv3.OpDelete(c.keys.tables(name), clientv3.WithPrefix()), clientv3.OpDelete(c.keys.shardMap(name)),
		clientv3.OpDelete(c.keys.schema(name)), clientv3.OpDelete(c.keys.keyspace(name)))
	return ch.commit(ctx)
}

// shardsOf lists the shards of a keyspace.
func (c *Catalog) shardsOf(ctx context.Context, op, keyspace string) ([]sharding.ShardID, error) {
	client, err := c.connected()
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := client.Get(bounded, c.keys.shards(), clientv3.WithPrefix())
	if err != nil {
		return nil, failed(ctx, op, err)
	}
	var ids []sharding.ShardID
	for _, kv := range resp.Kvs {
		var s Shard
		if err := json.Unmarshal(kv.Value, &s); err != nil {
			return nil, fmt.Errorf("%s: read %s: %w", op, kv.Key, err)
		}
		if s.Keyspace == keyspace {
			ids = append(ids, sharding.ShardID(strings.TrimPrefix(string(kv.Key), c.keys.shards())))
		}
	}
	return ids, nil
}
