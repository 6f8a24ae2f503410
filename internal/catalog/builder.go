package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	sharding "github.com/sharding-system/sharding"
)

// builder makes the next snapshot out of one and some changed keys. It copies
// a map when it first changes it and shares all others: the cost is that of
// what changed, not that of the catalog.
type builder struct {
	keys    keys
	base    *Snapshot
	next    Snapshot
	owned   map[string]bool              // maps of next that are copies already
	parts   map[string]*KeyspaceSnapshot // keyspaces that are copies already
	changed bool
}

func newBuilder(k keys, base *Snapshot) *builder {
	return &builder{keys: k, base: base, next: *base, owned: map[string]bool{}, parts: map[string]*KeyspaceSnapshot{}}
}

// own gives a map that may be written: m itself if it is a copy already.
func own[K comparable, V any](b *builder, name string, m map[K]V) map[K]V {
	b.changed = true
	if b.owned[name] {
		return m
	}
	b.owned[name] = true
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// part gives the writable copy of a keyspace's part, empty if there is none.
func (b *builder) part(name string) *KeyspaceSnapshot {
	b.changed = true
	if p, ok := b.parts[name]; ok {
		return p
	}
	p := &KeyspaceSnapshot{}
	if old := b.base.parts[name]; old != nil {
		*p = *old
	}
	b.parts[name] = p
	return p
}

func (b *builder) tables(keyspace string) map[TableName]*Decl {
	p := b.part(keyspace)
	p.Tables = own(b, "tables/"+keyspace, p.Tables)
	return p.Tables
}

func (b *builder) shards(keyspace string) map[sharding.ShardID]*Shard {
	p := b.part(keyspace)
	p.Shards = own(b, "shards/"+keyspace, p.Shards)
	return p.Shards
}

// set takes in the present value of a key.
func (b *builder) set(kv *mvccpb.KeyValue) {
	key := string(kv.Key)
	kind, el, err := b.keys.split(key)
	if err == nil {
		err = b.setEntry(kind, el, kv)
	}
	if err != nil {
		b.next.Problems = own(b, "problems", b.next.Problems)
		b.next.Problems[key] = err.Error()
		return
	}
	b.solved(key)
}

func (b *builder) solved(key string) {
	if _, ok := b.next.Problems[key]; ok {
		b.next.Problems = own(b, "problems", b.next.Problems)
		delete(b.next.Problems, key)
	}
}

func (b *builder) setEntry(kind string, el []string, kv *mvccpb.KeyValue) error {
	if want, known := elements[kind]; !known || len(el) != want {
		return fmt.Errorf("no key of this release: %q", kv.Key)
	}
	switch kind {
	case "incarnation":
		v, err := decode[incarnationJSON](kv, nil)
		if err != nil {
			return err
		}
		b.changed = true
		b.next.Incarnation = v.ID
	case "keyspaces":
		v, err := decode(kv, func(v *Keyspace) error { return checkEntry(el, v.Validate(), v.Name) })
		if err != nil {
			return err
		}
		v.Version = kv.ModRevision
		b.part(el[0]).Keyspace = *v
	case "maps":
		v, err := decode[sharding.Map](kv, nil)
		if err != nil {
			return err
		}
		b.part(el[0]).Map = v
	case "schemas":
		b.part(el[0]).schemaVersion = kv.ModRevision
	case "tables":
		v, err := decode(kv, func(v *sharding.Table) error { return checkEntry(el[1:], v.Validate(), v.Schema, v.Name) })
		if err != nil {
			return err
		}
		b.tables(el[0])[TableName{el[1], el[2]}] = &Decl{Table: *v, Version: kv.ModRevision}
	case "shards":
		return b.setShard(el, kv)
	case "users":
		return b.setUser(el, kv)
	case "routers":
		v, err := decode(kv, func(v *Router) error { return checkEntry(el, v.Validate(), v.ID) })
		if err != nil {
			return err
		}
		v.Version = kv.ModRevision
		b.next.Routers = own(b, "routers", b.next.Routers)
		b.next.Routers[el[0]] = v
	case "leader":
		v, err := decode[Leader](kv, nil)
		if err != nil {
			return err
		}
		b.changed = true
		b.next.Leader = v
	}
	return nil
}

// decode reads an entry and checks it.
func decode[T any](kv *mvccpb.KeyValue, check func(*T) error) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(kv.Value, v); err != nil {
		return nil, err
	}
	if check != nil {
		if err := check(v); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// checkEntry refuses an entry that is invalid or stored under another's key.
func checkEntry(el []string, invalid error, names ...string) error {
	if invalid != nil {
		return invalid
	}
	for i, n := range names {
		if el[i] != n {
			return fmt.Errorf("it is the entry of %q", strings.Join(names, "."))
		}
	}
	return nil
}

// elements is how many elements follow each kind of key. Of those that setEntry
// does not name nothing is kept: they are read where they matter.
var elements = map[string]int{
	"incarnation": 0, "keyspaces": 1, "maps": 1, "schemas": 1, "tables": 3, "shards": 1,
	"users": 1, "routers": 1, "leader": 0, "locks": 2, "election": 1, "term": 0,
}

func (b *builder) setShard(el []string, kv *mvccpb.KeyValue) error {
	v, err := decode(kv, func(v *Shard) error { return checkEntry(el, v.Validate(), string(v.ID)) })
	if err != nil {
		return err
	}
	v.Version = kv.ModRevision
	if old := b.next.Shards[v.ID]; old != nil && old.Keyspace != v.Keyspace {
		delete(b.shards(old.Keyspace), v.ID)
	}
	b.next.Shards = own(b, "shards", b.next.Shards)
	b.next.Shards[v.ID] = v
	b.shards(v.Keyspace)[v.ID] = v
	return nil
}

// setUser drops a user whose entry cannot be read: what it may do could have
// been taken away, and the last state must not live on.
func (b *builder) setUser(el []string, kv *mvccpb.KeyValue) error {
	v, err := decode(kv, func(v *User) error { return checkEntry(el, v.Validate(), v.Name) })
	b.next.Users = own(b, "users", b.next.Users)
	if err != nil {
		delete(b.next.Users, el[0])
		return err
	}
	v.Version = kv.ModRevision
	b.next.Users[el[0]] = v
	return nil
}

// unset takes in that a key is gone.
func (b *builder) unset(key string) {
	b.solved(key)
	kind, el, err := b.keys.split(key)
	if err != nil || len(el) != elements[kind] {
		return // it was never taken in
	}
	switch kind {
	case "incarnation":
		b.changed = true
		b.next.Incarnation = ""
	case "keyspaces":
		b.part(el[0]).Keyspace = Keyspace{}
	case "maps":
		b.part(el[0]).Map = nil
	case "schemas":
		b.part(el[0]).schemaVersion = 0
	case "tables":
		delete(b.tables(el[0]), TableName{el[1], el[2]})
	case "shards":
		if old := b.next.Shards[sharding.ShardID(el[0])]; old != nil {
			b.next.Shards = own(b, "shards", b.next.Shards)
			delete(b.next.Shards, old.ID)
			delete(b.shards(old.Keyspace), old.ID)
		}
	case "users":
		b.next.Users = own(b, "users", b.next.Users)
		delete(b.next.Users, el[0])
	case "routers":
		b.next.Routers = own(b, "routers", b.next.Routers)
		delete(b.next.Routers, el[0])
	case "leader":
		b.changed = true
		b.next.Leader = nil
	}
}

// finish gives the snapshot at revision.
func (b *builder) finish(revision int64) *Snapshot {
	b.next.Revision = revision
	if len(b.parts) > 0 {
		b.next.parts = own(b, "parts", b.next.parts)
		b.next.Keyspaces = own(b, "keyspaces", b.next.Keyspaces)
	}
	for name, p := range b.parts {
		p.SchemaVersion = p.schemaVersion
		if p.Name == "" && p.Map == nil && p.schemaVersion == 0 && len(p.Tables) == 0 && len(p.Shards) == 0 {
			delete(b.next.parts, name)
		} else {
			b.next.parts[name] = p
		}
		if p.Name != "" && p.Map != nil {
			b.next.Keyspaces[name] = p
		} else {
			delete(b.next.Keyspaces, name)
		}
	}
	s := b.next
	return &s
}
