package catalog

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	sharding "github.com/sharding-system/sharding"
)

// render writes all of a snapshot but its revision in a form in which two that
// say the same are the same.
func render(s *Snapshot) string {
	type entry struct {
		Keyspace             Keyspace
		Version, Schema      int64
		Map                  *sharding.Map
		Tables               []string
		Shards               []string
		Complete, InSnapshot bool
	}
	all := map[string]any{"incarnation": s.Incarnation, "leader": s.Leader, "problems": slices.Sorted(maps.Keys(s.Problems))}
	for name, p := range s.parts {
		e := entry{Keyspace: p.Keyspace, Version: p.Version, Schema: p.SchemaVersion, Map: p.Map, InSnapshot: s.Keyspaces[name] == p}
		for n, d := range p.Tables {
			e.Tables = append(e.Tables, fmt.Sprint(n, d.Kind, d.Version))
		}
		for id, sh := range p.Shards {
			e.Shards = append(e.Shards, fmt.Sprint(id, sh.Keyspace, sh.Version, s.Shards[id] == sh))
		}
		slices.Sort(e.Tables)
		slices.Sort(e.Shards)
		all["keyspace "+name] = e
	}
	var rest []string
	for id, sh := range s.Shards {
		rest = append(rest, fmt.Sprint("shard ", id, sh.Keyspace, sh.Version))
	}
	for n, u := range s.Users {
		rest = append(rest, fmt.Sprint("user ", n, u.Version))
	}
	for n, r := range s.Routers {
		rest = append(rest, fmt.Sprint("router ", n, r.Boot, r.Version))
	}
	for n := range s.Keyspaces {
		rest = append(rest, "complete "+n)
	}
	slices.Sort(rest)
	all["rest"] = rest
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		panic(err)
	}
	return string(b)
}

// entries are keys with valid values, of few names so that they meet.
func drawEntry(t *rapid.T, k keys) (key string, value any) {
	name := rapid.SampledFrom([]string{"a", "b", "c/d"}).Draw(t, "name")
	keyspace := rapid.SampledFrom([]string{"shop", "blog"}).Draw(t, "keyspace")
	switch rapid.IntRange(0, 8).Draw(t, "kind") {
	case 0:
		return k.keyspace(keyspace), Keyspace{Name: keyspace, VnodeCount: 256, HomeShard: "a", TwoPhaseCommit: TwoPhaseOff, State: KeyspaceActive}
	case 1:
		m, err := sharding.NewMap(int64(rapid.IntRange(1, 5).Draw(t, "epoch")), sharding.HashPostgres, 16, []sharding.ShardID{"a"})
		if err != nil {
			t.Fatal(err)
		}
		return k.shardMap(keyspace), m
	case 2:
		return k.schema(keyspace), struct{}{}
	case 3:
		tab := sharding.Table{Schema: "public", Name: name, Kind: sharding.Reference, DeclaredBy: sharding.DeclaredByDDL}
		return k.table(keyspace, TableName{"public", name}), tab
	case 4:
		return k.shard("s" + sharding.ShardID(name[:1])), Shard{ID: "s" + sharding.ShardID(name[:1]), Keyspace: keyspace, Database: keyspace, PrimaryEndpoint: "h:1", Status: ShardActive}
	case 5:
		return k.user(name), User{Name: name}
	case 6:
		return k.router("r1"), Router{ID: "r1", Boot: name[:1]}
	case 7:
		return k.leader(), Leader{ID: name, Term: 1}
	default:
		return k.locks(keyspace) + "1", "holder"
	}
}

// However the changes are cut into batches, the snapshot made step by step is
// the one made at once, and no earlier snapshot changes.
func TestBuiltByStepsIsBuiltAtOnce(t *testing.T) {
	k := keys{"/sharding"}
	rapid.Check(t, func(t *rapid.T) {
		store := map[string]*mvccpb.KeyValue{}
		s := emptySnapshot()
		revision := int64(0)
		type past struct {
			snapshot *Snapshot
			text     string
		}
		var history []past
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			revision++
			b := newBuilder(k, s)
			for range rapid.IntRange(1, 6).Draw(t, "changes") {
				key, value := drawEntry(t, k)
				if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
					delete(store, key)
					b.unset(key)
					continue
				}
				raw, err := json.Marshal(value)
				if err != nil {
					t.Fatal(err)
				}
				kv := &mvccpb.KeyValue{Key: []byte(key), Value: raw, ModRevision: revision}
				store[key] = kv
				b.set(kv)
			}
			s = b.finish(revision)
			history = append(history, past{s, render(s)})
		}
		once := newBuilder(k, emptySnapshot())
		for _, key := range slices.Sorted(maps.Keys(store)) {
			once.set(store[key])
		}
		if got, want := render(s), render(once.finish(revision)); got != want {
			t.Fatalf("by steps:\n%s\nat once:\n%s", got, want)
		}
		for i, h := range history {
			if got := render(h.snapshot); got != h.text {
				t.Fatalf("snapshot %d changed from\n%s\nto\n%s", i, h.text, got)
			}
		}
	})
}

func FuzzBuilder(f *testing.F) {
	f.Add("tables/shop/public/t", []byte(`{}`), "keyspaces/shop")
	f.Add("maps/shop", []byte(`{"epoch":1}`), "maps/shop")
	f.Add("shards/%zz", []byte(`[]`), "shards//")
	f.Fuzz(func(t *testing.T, key string, value []byte, gone string) {
		b := newBuilder(keys{"/sharding"}, emptySnapshot())
		b.set(&mvccpb.KeyValue{Key: []byte("/sharding/" + key), Value: value, ModRevision: 1})
		b.unset("/sharding/" + gone)
		b.set(&mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: 2})
		for name, ks := range b.finish(2).Keyspaces {
			if ks.Map == nil || ks.Name != name {
				t.Fatalf("keyspace %q is %+v", name, ks)
			}
		}
	})
}
