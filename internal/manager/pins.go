package manager

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
)

func (s *Server) listPins(_ context.Context, c *call) (answer, error) {
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return answer{}, err
	}
	var items []client.Pin
	change := k.Map.PendingPin()
	for _, p := range k.Map.Pins() {
		if change == nil || !slices.Equal(change.Key, p.Key) {
			items = append(items, showPin(k.Map, p.Key))
		}
	}
	if change != nil {
		items = append(items, showPin(k.Map, change.Key))
	}
	p, err := page(c, items, func(p client.Pin) string { return strings.Join(p.Types, ",") + "\x00" + strings.Join(p.Key, "\x00") })
	if err != nil {
		return answer{}, err
	}
	return ok(p)
}

// showPin is a key's place as a map has it.
func showPin(m *sharding.Map, key []sharding.Value) client.Pin {
	p := client.Pin{State: "active", Epoch: m.Epoch(),
		Shard: string(m.Shards()[m.ShardOf(key...)]), VnodeShard: string(m.Shards()[m.Owner(m.Vnode(key...))])}
	for _, v := range key {
		p.Key, p.Types = append(p.Key, v.String()), append(p.Types, v.Type().String())
	}
	if c := m.PendingPin(); c != nil && slices.Equal(c.Key, key) {
		p.State = string(c.Phase)
	}
	return p
}

// pinKey reads a key as that of a table.
func pinKey(k *catalog.KeyspaceSnapshot, table string, parts []string) ([]sharding.Value, error) {
	name, err := splitTableName(table)
	if err != nil {
		return nil, err
	}
	d := k.Tables[name]
	if d == nil {
		return nil, notFound(codeTableMissing, "table %s is not declared in keyspace %s", name, k.Name)
	}
	if d.Kind != sharding.Sharded {
		return nil, invalid("table: %s is a %s table, which has no shard key", name, d.Kind)
	}
	if len(parts) != len(d.Key) {
		return nil, invalid("key: %s has a key of %d columns, and %d values are given", name, len(d.Key), len(parts))
	}
	key := make([]sharding.Value, len(parts))
	for i, c := range d.Key {
		if key[i], err = sharding.ParseValue(c.Type, []byte(parts[i])); err != nil {
			return nil, invalid("key: column %s: %s", sharding.QuoteIdentifier(c.Name), err)
		}
	}
	return key, nil
}

func (s *Server) setPin(ctx context.Context, c *call) (answer, error) {
	var n client.NewPin
	if err := c.decode(&n); err != nil {
		return answer{}, err
	}
	if n.Shard == "" {
		return answer{}, invalid("shard: is needed")
	}
	m, key, err := s.repin(ctx, c, n.Table, n.Key, sharding.ShardID(n.Shard))
	if err != nil {
		return answer{}, err
	}
	status := http.StatusCreated
	if c.dryRun {
		status = http.StatusOK
	}
	return versioned(status, showPin(m, key), m.Epoch())
}

func (s *Server) removePin(ctx context.Context, c *call) (answer, error) {
	q := c.URL.Query()
	if _, _, err := s.repin(ctx, c, q.Get("table"), q["key"], ""); err != nil {
		return answer{}, err
	}
	return noContent()
}

// repin changes where a key is pinned to, empty for nowhere, and yields the map
// with that (docs/decisions/0005 has the steps and who may die between them).
func (s *Server) repin(ctx context.Context, c *call, table string, parts []string, to sharding.ShardID) (*sharding.Map, []sharding.Value, error) {
	k, err := s.keyspace(c, c.PathValue("keyspace"))
	if err != nil {
		return nil, nil, err
	}
	lock, err := s.lock(ctx, k.Name)
	if err != nil {
		return nil, nil, err
	}
	defer s.unlock(ctx, lock)
	if k, err = s.freshKeyspace(ctx, k.Name); err != nil {
		return nil, nil, err
	}
	if k.Map.PendingPin() != nil {
		// Whoever was at it is not: we have the lock.
		if err := s.finishPin(ctx, k.Name, lock); err != nil {
			return nil, nil, err
		}
		if k, err = s.freshKeyspace(ctx, k.Name); err != nil {
			return nil, nil, err
		}
	}
	key, err := pinKey(k, table, parts)
	if err != nil {
		return nil, nil, err
	}
	if err := c.atVersion("the shard map", k.Map.Epoch()); err != nil {
		return nil, nil, err
	}
	m, err := checkRepin(k, to, key)
	if err != nil || m == k.Map {
		return m, key, err
	}
	p := pinning{s: s, keyspace: k.Name, lock: lock, key: keyOf(k, key)}
	if c.dryRun {
		return m, key, p.checkEmpty(ctx, k, m)
	}
	if m.ShardOf(key...) == k.Map.ShardOf(key...) {
		// No row's place changes: it is only written down.
		revision, err := s.catalog.PutMap(ctx, k.Name, m, lock)
		if err != nil {
			return nil, nil, err
		}
		return m, key, s.catchUp(ctx, revision)
	}
	// From here on it is finished, or undone, even if the client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pinTime)
	defer cancel()
	if err := p.change(ctx, k, to, key); err != nil {
		return nil, nil, err
	}
	if k, err = s.freshKeyspace(ctx, k.Name); err != nil {
		return nil, nil, err
	}
	return k.Map, key, nil
}

// checkRepin yields the map with the key's new place: the old one where that is its
// place already.
func checkRepin(k *catalog.KeyspaceSnapshot, to sharding.ShardID, key []sharding.Value) (*sharding.Map, error) {
	at, pinned := k.Map.PinnedTo(key...)
	switch {
	case to == "" && !pinned:
		return nil, notFound(codePinMissing, "the key is not pinned")
	case to != "" && pinned && k.Map.Shards()[at] == to:
		return k.Map, nil
	case to != "" && k.Shards[to] == nil:
		return nil, notFound(codeShardMissing, "there is no shard %q in keyspace %s", to, k.Name)
	case to != "" && len(k.Map.Ranges(to)) == 0 && k.Map.PinnedKeys(to) == 0 && k.Map.Index(to) < 0:
		return nil, conflict(codeInUse, "shard %s has no part in the keyspace's data yet", to).
			withHint("A key can be pinned to a shard that owns vnodes.")
	}
	m, err := k.Map.WithPin(to, key...)
	if err != nil {
		return nil, invalid("%s", err)
	}
	return m, nil
}

// resumePin finishes a change of a pin that nobody is at any more.
func (s *Server) resumePin(ctx context.Context, name string) error {
	wait, cancel := context.WithTimeout(ctx, leaderPatience)
	defer cancel()
	lock, err := s.catalog.LockKeyspace(wait, name, "manager "+s.id)
	if isLocked(err) {
		return nil // somebody is at it
	}
	if err != nil {
		return err
	}
	defer s.unlock(ctx, lock)
	// The leader has more to do: what does not go at once is tried again.
	ctx, cancelWork := context.WithTimeout(ctx, resumeTime)
	defer cancelWork()
	if err := s.finishPin(ctx, name, lock); err != nil {
		return fmt.Errorf("finishing the change of a pin: %w", err)
	}
	return nil
}
