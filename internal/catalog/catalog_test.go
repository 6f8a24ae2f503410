package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	sharding "github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/etcdtest"
)

// open gives a catalog with short intervals, closed with the test.
func open(t *testing.T, endpoints ...string) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(t.Context(), catalog.Config{
		Endpoints: endpoints, LeaseTTL: 2 * time.Second, PollInterval: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func watch(t *testing.T, c *catalog.Catalog) *catalog.View {
	t.Helper()
	v, err := c.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// within gives a context that ends long after anything here should have.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func shard(keyspace, id string) catalog.Shard {
	return catalog.Shard{
		ID: sharding.ShardID(id), Name: id, Keyspace: keyspace, Database: keyspace,
		PrimaryEndpoint: "127.0.0.1:5432", Status: catalog.ShardActive,
	}
}

// create makes a keyspace over the shards K-1 to K-n.
func create(t *testing.T, c *catalog.Catalog, name string, n int) (catalog.Keyspace, *sharding.Map) {
	t.Helper()
	var ids []sharding.ShardID
	var shards []catalog.Shard
	for i := range n {
		s := shard(name, fmt.Sprintf("%s-%d", name, i+1))
		shards = append(shards, s)
		ids = append(ids, s.ID)
	}
	k := catalog.Keyspace{
		Name: name, Hash: sharding.HashPostgres, VnodeCount: 256, HomeShard: ids[0],
		TwoPhaseCommit: catalog.TwoPhaseRequired, Owner: "app", State: catalog.KeyspaceActive,
	}
	m, err := sharding.NewMap(1, k.Hash, k.VnodeCount, ids)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateKeyspace(within(t), k, m, shards); err != nil {
		t.Fatal(err)
	}
	return k, m
}

func table(name string) catalog.Decl {
	return catalog.Decl{Table: sharding.Table{
		Schema: "public", Name: name, Kind: sharding.Sharded, DeclaredBy: sharding.DeclaredByOperator,
		Key: []sharding.KeyColumn{{Name: "id", Type: sharding.KeyInteger}},
	}}
}

func wantKind(t *testing.T, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: error %v, want %v", what, err, kind)
	}
}

func TestEveryEntryRoundTrips(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	ctx := within(t)
	v := watch(t, c)
	k, m := create(t, c, "shop", 4)

	odd := table(`a/b.c%20"d`)
	odd.Schema = "dir/é"
	if _, err := c.PutTable(ctx, "shop", odd); err != nil {
		t.Fatal(err)
	}
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	user := catalog.User{Name: "a/b", Verifier: verifier, CanLogin: true, ConnLimit: -1, ValidUntil: &until, Roles: []string{"writer"}, Keyspaces: []string{"shop"}}
	rev, err := c.PutUser(ctx, user)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WaitRevision(ctx, rev); err != nil {
		t.Fatal(err)
	}
	read, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*catalog.Snapshot{"watched": v.Snapshot(), "read": read} {
		ks := s.Keyspace("shop")
		if ks == nil {
			t.Fatalf("%s: no keyspace shop; problems %v", name, s.Problems)
		}
		if !ks.Map.Equal(m) || ks.Owner != k.Owner || ks.HomeShard != "shop-1" || len(ks.Shards) != 4 || len(s.Shards) != 4 {
			t.Errorf("%s: keyspace %+v with shards %v", name, ks, ks.Shards)
		}
		d := ks.Table("dir/é", odd.Name)
		if d == nil || d.Key[0] != odd.Key[0] || d.Version == 0 {
			t.Fatalf("%s: table %v of %v", name, d, ks.Tables)
		}
		if ks.SchemaVersion != d.Version {
			t.Errorf("%s: schema version %d, want that of the last declaration %d", name, ks.SchemaVersion, d.Version)
		}
		u := s.Users["a/b"]
		if u == nil || u.Verifier != verifier || !u.ValidUntil.Equal(until) || u.Version != rev {
			t.Errorf("%s: user %v", name, u)
		}
		if len(s.Incarnation) != 16 || len(s.Problems) != 0 || s.Revision < rev {
			t.Errorf("%s: incarnation %q, problems %v, revision %d", name, s.Incarnation, s.Problems, s.Revision)
		}
	}
}

const verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$" +
	"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func TestRefusals(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	ctx := within(t)
	k, m := create(t, c, "shop", 2)
	create(t, c, "other", 1)
	stored := func() catalog.Shard {
		s, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return *s.Shards["shop-1"]
	}

	_, err := c.CreateKeyspace(ctx, k, m, []catalog.Shard{shard("shop", "shop-1"), shard("shop", "shop-2")})
	wantKind(t, "a keyspace twice", err, catalog.ErrExists)
	_, err = c.AddShard(ctx, shard("shop", "shop-1"))
	wantKind(t, "a shard twice", err, catalog.ErrExists)
	_, err = c.AddShard(ctx, shard("nowhere", "n1"))
	wantKind(t, "a shard of no keyspace", err, catalog.ErrNotFound)
	_, err = c.RemoveShard(ctx, "shop-1", catalog.AnyVersion)
	wantKind(t, "the home shard removed", err, catalog.ErrInUse)
	_, err = c.RemoveShard(ctx, "shop-2", catalog.AnyVersion)
	wantKind(t, "a shard with vnodes removed", err, catalog.ErrInUse)
	_, err = c.RemoveShard(ctx, "shop-3", catalog.AnyVersion)
	wantKind(t, "an unknown shard removed", err, catalog.ErrNotFound)

	old := stored()
	changed := old
	changed.Status = catalog.ShardReadonly
	if _, err = c.UpdateShard(ctx, changed); err != nil {
		t.Fatal(err)
	}
	_, err = c.UpdateShard(ctx, old)
	wantKind(t, "a shard changed from an old version", err, catalog.ErrConflict)
	if s := stored(); s.Status != catalog.ShardReadonly || !s.CreatedAt.Equal(old.CreatedAt) || s.UpdatedAt.Equal(old.UpdatedAt) {
		t.Errorf("shard after the change: %+v", s)
	}

	next := func(m *sharding.Map, id sharding.ShardID) *sharding.Map {
		n, err := m.WithOwner(id, sharding.VnodeRange{First: 3, Last: 3})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	_, err = c.PutMap(ctx, "shop", m)
	wantKind(t, "a map of the same epoch", err, catalog.ErrConflict)
	_, err = c.PutMap(ctx, "shop", next(m, "other-1"))
	wantKind(t, "a map with another keyspace's shard", err, catalog.ErrInvalid)
	_, err = c.PutMap(ctx, "shop", next(m, "shop-9"))
	wantKind(t, "a map with an unknown shard", err, catalog.ErrNotFound)
	_, err = c.DeleteTable(ctx, "shop", catalog.TableName{Schema: "public", Name: "t"}, catalog.AnyVersion)
	wantKind(t, "an unknown table removed", err, catalog.ErrNotFound)
	_, err = c.DeleteUser(ctx, "nobody", 0)
	wantKind(t, "a user removed at no version", err, catalog.ErrInvalid)

	for _, v := range []string{"secret", "md5a3556571e93b0d20722ba62be61e8c2d", strings.Replace(verifier, "4096", "0", 1), strings.TrimSuffix(verifier, "="), verifier + "\n"} {
		_, err = c.PutUser(ctx, catalog.User{Name: "u", Verifier: v})
		wantKind(t, "the verifier "+v, err, catalog.ErrInvalid)
		if err != nil && strings.Contains(err.Error(), v) {
			t.Errorf("the error shows the verifier: %v", err)
		}
	}
	for _, name := range []string{"", "a/b", "a\x00b", strings.Repeat("x", 64), "\xff"} {
		_, err = c.BumpSchema(ctx, name)
		wantKind(t, fmt.Sprintf("keyspace %q", name), err, catalog.ErrInvalid)
	}
}

func TestShardLeavesMapAndCatalog(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	ctx := within(t)
	_, m := create(t, c, "shop", 2)
	if _, err := c.AddShard(ctx, shard("shop", "spare")); err != nil {
		t.Fatal(err)
	}
	m, err := m.WithOwner("spare")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutMap(ctx, "shop", m); err != nil {
		t.Fatal(err)
	}
	if _, err := c.RemoveShard(ctx, "spare", catalog.AnyVersion); err != nil {
		t.Fatal(err)
	}
	s, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Keyspace("shop").Map; got.Index("spare") >= 0 || got.Epoch() != 3 || s.Shards["spare"] != nil {
		t.Errorf("map at epoch %d with shards %v, catalog's %v", got.Epoch(), got.Shards(), s.Shards)
	}
}

func TestDropKeyspace(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	ctx := within(t)
	v := watch(t, c)
	create(t, c, "shop", 3)
	create(t, c, "shop2", 1)
	if _, err := c.PutTable(ctx, "shop", table("t")); err != nil {
		t.Fatal(err)
	}
	for i := range 110 { // more than one transaction can take
		if _, err := c.AddShard(ctx, shard("shop", fmt.Sprintf("x%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	rev, err := c.DropKeyspace(ctx, "shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.WaitRevision(ctx, rev); err != nil {
		t.Fatal(err)
	}
	s := v.Snapshot()
	if s.Keyspace("shop") != nil || s.Keyspace("shop2") == nil || len(s.Shards) != 1 {
		t.Errorf("after the drop: keyspaces %v, shards %v", s.Keyspaces, s.Shards)
	}
	_, err = c.PutTable(ctx, "shop", table("t"))
	wantKind(t, "a table of a dropped keyspace", err, catalog.ErrNotFound)
	create(t, c, "shop", 2)
	s, err = c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if ks := s.Keyspace("shop"); len(ks.Tables) != 0 || len(ks.Shards) != 2 {
		t.Errorf("created again it has %v and %v", ks.Tables, ks.Shards)
	}
}

// Of all who raise the same epoch exactly one wins, and no epoch is left out.
func TestMapIsComparedAndSwapped(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Endpoint())
	ctx := within(t)
	_, first := create(t, c, "shop", 2)
	const workers, rounds = 8, 10
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[int64]int{}
	for range workers {
		wg.Go(func() {
			for m := first; m.Epoch() <= rounds; {
				next, err := m.WithOwner("shop-1", sharding.VnodeRange{First: int(m.Epoch()), Last: int(m.Epoch())})
				if err != nil {
					t.Error(err)
					return
				}
				_, err = c.PutMap(ctx, "shop", next)
				if err == nil {
					mu.Lock()
					won[next.Epoch()]++
					mu.Unlock()
				} else if !errors.Is(err, catalog.ErrConflict) {
					t.Error(err)
					return
				}
				m = next
			}
		})
	}
	wg.Wait()
	for e := int64(2); e <= rounds+1; e++ {
		if won[e] != 1 {
			t.Errorf("epoch %d was published %d times", e, won[e])
		}
	}
}

func TestSchemaVersionGrowsForAll(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	ctx := within(t)
	create(t, c, "shop", 1)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]bool{}
	for i := range 4 {
		wg.Go(func() {
			last := int64(0)
			for j := range 10 {
				rev, err := c.PutTable(ctx, "shop", table(fmt.Sprintf("t%d_%d", i, j)))
				if j%2 == 1 {
					rev, err = c.BumpSchema(ctx, "shop")
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if rev <= last || seen[rev] {
					t.Errorf("schema version %d after %d, given before: %t", rev, last, seen[rev])
				}
				seen[rev], last = true, rev
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestIncarnationIsMadeOnce(t *testing.T) {
	server := etcdtest.Start(t)
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		c := open(t, server.Endpoint())
		wg.Go(func() {
			id, err := c.Incarnation(within(t))
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || len(id) != 16 {
			t.Fatalf("incarnations %q", ids)
		}
	}
}

func TestOpenReportsAllMistakes(t *testing.T) {
	_, err := catalog.Open(t.Context(), catalog.Config{Prefix: "x/", LeaseTTL: time.Second, Username: "u", Timeout: -1})
	wantKind(t, "a bad configuration", err, catalog.ErrInvalid)
	for _, want := range []string{"endpoint", "prefix", "lease TTL", "password", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
