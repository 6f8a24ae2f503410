package catalog_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/etcdtest"
)

// until waits for a condition of the view, woken by its changes.
func until(t *testing.T, v *catalog.View, what string, ok func(*catalog.Snapshot) bool) {
	t.Helper()
	ctx := within(t)
	for {
		changed := v.Changed()
		if ok(v.Snapshot()) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("in vain waited for: %s; at revision %d with problems %v", what, v.Snapshot().Revision, v.Snapshot().Problems)
		}
	}
}

// untilStale waits until the view's staleness is want; it changes with the
// clock alone, so it is polled.
func untilStale(t *testing.T, v *catalog.View, want bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, stale := v.Stale(); stale == want {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the view did not get stale=%t", want)
		}
	}
}

func hasTable(name string) func(*catalog.Snapshot) bool {
	return func(s *catalog.Snapshot) bool {
		return s.Keyspace("shop") != nil && s.Keyspace("shop").Table("public", name) != nil
	}
}

func declare(t *testing.T, c *catalog.Catalog, name string) int64 {
	t.Helper()
	rev, err := c.PutTable(within(t), "shop", table(name))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestSnapshotsShareWhatDidNotChange(t *testing.T) {
	c := open(t, etcdtest.Start(t).Endpoint())
	v := watch(t, c)
	create(t, c, "shop", 2)
	create(t, c, "other", 1)
	declare(t, c, "a")
	until(t, v, "table a", hasTable("a"))
	before := v.Snapshot()
	declare(t, c, "b")
	until(t, v, "table b", hasTable("b"))
	after := v.Snapshot()

	if before.Keyspace("shop").Table("public", "b") != nil {
		t.Error("a snapshot changed after it was published")
	}
	if before.Keyspace("other") != after.Keyspace("other") {
		t.Error("a keyspace that did not change was copied")
	}
	if before.Keyspace("shop") == after.Keyspace("shop") {
		t.Error("a keyspace that changed is the same")
	}
	if before.Keyspace("shop").Map != after.Keyspace("shop").Map || before.Keyspace("shop").Table("public", "a") != after.Keyspace("shop").Table("public", "a") {
		t.Error("a map and a table that did not change were made anew")
	}
}

func TestViewThroughProxyCuts(t *testing.T) {
	server := etcdtest.Start(t)
	proxy := etcdtest.StartProxy(t, server.Endpoint())
	direct := open(t, server.Endpoint())
	v := watch(t, open(t, proxy.Addr()))
	create(t, direct, "shop", 2)
	declare(t, direct, "t0")
	until(t, v, "table t0", hasTable("t0"))
	untilStale(t, v, false)

	for i := 1; i <= 3; i++ {
		proxy.Drop()
		name := fmt.Sprintf("t%d", i)
		declare(t, direct, name)
		until(t, v, "a table after a dropped connection", hasTable(name))
	}

	proxy.Cut()
	declare(t, direct, "while_cut")
	untilStale(t, v, true)
	if since, _ := v.Stale(); since.IsZero() {
		t.Error("a view that heard from etcd does not say when")
	}
	if !hasTable("t3")(v.Snapshot()) || hasTable("while_cut")(v.Snapshot()) {
		t.Error("while cut off the view has not the last snapshot")
	}
	// What the watch needs next is compacted away meanwhile.
	if _, err := direct.DeleteTable(within(t), "shop", catalog.TableName{Schema: "public", Name: "t1"}, catalog.AnyVersion); err != nil {
		t.Fatal(err)
	}
	server.Compact(within(t))
	proxy.Heal()
	until(t, v, "the table of the time of the cut", hasTable("while_cut"))
	if hasTable("t1")(v.Snapshot()) {
		t.Error("a table that was removed during the cut is still there")
	}
	declare(t, direct, "afterwards")
	until(t, v, "a table after all", hasTable("afterwards"))
	untilStale(t, v, false)
}

func TestViewStartsBeforeEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	create(t, open(t, server.Endpoint()), "shop", 2)
	server.Stop()

	c := open(t, server.Endpoint())
	v := watch(t, c)
	if _, stale := v.Stale(); !stale || v.Snapshot().Revision != 0 {
		t.Error("a view without etcd is not stale or not empty")
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	wantKind(t, "waiting without etcd", v.WaitRevision(short, 1), catalog.ErrUnavailable)
	_, err := c.PutTable(short, "shop", table("t"))
	wantKind(t, "a change without etcd", err, catalog.ErrUnavailable)

	server.Restart()
	if err := v.WaitRevision(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if v.Snapshot().Keyspace("shop") == nil {
		t.Error("the first snapshot has no keyspace")
	}
	// Away again, and back with changes.
	server.Stop()
	untilStale(t, v, true)
	if v.Snapshot().Keyspace("shop") == nil {
		t.Error("the snapshot was not kept")
	}
	server.Restart()
	declare(t, c, "t")
	until(t, v, "a table after the outage", hasTable("t"))
}

func TestViewThroughLeaderChanges(t *testing.T) {
	members := etcdtest.Cluster(t, 3)
	c := open(t, etcdtest.Endpoints(members)...)
	v := watch(t, c)
	create(t, c, "shop", 2)
	for i := range 2 {
		leader := etcdtest.Leader(t, members)
		leader.Stop()
		name := fmt.Sprintf("t%d", i)
		ctx := within(t)
		for version := int64(0); ; {
			d := table(name)
			d.Version = version
			_, err := c.PutTable(ctx, "shop", d)
			if err == nil {
				break
			}
			// An answer lost with the leader: the change may have happened.
			version = catalog.AnyVersion
			if ctx.Err() != nil {
				t.Fatal(err)
			}
		}
		until(t, v, "a table under the new leader", hasTable(name))
		leader.Restart()
	}
}

func TestLinearizableSeesWhatWasAcknowledged(t *testing.T) {
	server := etcdtest.Start(t)
	writer := open(t, server.Endpoint())
	v := watch(t, open(t, server.Endpoint()))
	create(t, writer, "shop", 1)
	ctx := within(t)
	for i := range 20 {
		name := fmt.Sprintf("t%d", i)
		declare(t, writer, name)
		s, err := v.Linearizable(ctx, "shop")
		if err != nil {
			t.Fatal(err)
		}
		if !hasTable(name)(s) {
			t.Fatalf("table %s was acknowledged and is not seen", name)
		}
		if i%2 == 0 {
			continue
		}
		if _, err := writer.DeleteTable(ctx, "shop", catalog.TableName{Schema: "public", Name: name}, catalog.AnyVersion); err != nil {
			t.Fatal(err)
		}
		if s, err = v.Linearizable(ctx, "shop"); err != nil || hasTable(name)(s) {
			t.Fatalf("table %s was removed and is seen; error %v", name, err)
		}
	}
	_, err := v.Linearizable(ctx, "nowhere")
	wantKind(t, "an unknown keyspace", err, catalog.ErrNotFound)
	server.Stop()
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = v.Linearizable(short, "shop")
	wantKind(t, "without etcd", err, catalog.ErrUnavailable)
}

func TestUnreadableEntriesAreReported(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Endpoint())
	v := watch(t, c)
	create(t, c, "shop", 1)
	declare(t, c, "t")
	until(t, v, "the table", hasTable("t"))
	etcd := server.Client()
	ctx := within(t)
	put := func(key, value string) {
		t.Helper()
		if _, err := etcd.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("/sharding/maps/shop", `{"epoch":2,"from_the_future":true}`)
	put("/sharding/novelty/x", `{}`)
	until(t, v, "two problems", func(s *catalog.Snapshot) bool { return len(s.Problems) == 2 })
	if ks := v.Snapshot().Keyspace("shop"); ks == nil || ks.Map.Epoch() != 1 {
		t.Error("the last readable map was not kept")
	}
	_, m := create(t, c, "other", 1)
	b, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	put("/sharding/maps/shop", string(b))
	if _, err := etcd.Delete(ctx, "/sharding/novelty/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	until(t, v, "no problem", func(s *catalog.Snapshot) bool { return len(s.Problems) == 0 })
}

func TestRouterRegistration(t *testing.T) {
	server := etcdtest.Start(t)
	c := open(t, server.Endpoint())
	v := watch(t, c)
	boot := func(id string) func(*catalog.Snapshot) bool {
		return func(s *catalog.Snapshot) bool { return s.Routers["r1"] != nil && s.Routers["r1"].Boot == id }
	}
	first, err := c.RegisterRouter(t.Context(), catalog.Router{ID: "r1", Boot: "b1", Addresses: map[string]string{"postgres": "127.0.0.1:6432"}})
	if err != nil {
		t.Fatal(err)
	}
	until(t, v, "the router", boot("b1"))

	// The lease vanishes, as after a long pause: the router comes back by itself.
	etcd := server.Client()
	kv, err := etcd.Get(within(t), "/sharding/routers/r1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := etcd.Revoke(within(t), clientv3.LeaseID(kv.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	until(t, v, "the router's absence", func(s *catalog.Snapshot) bool { return s.Routers["r1"] == nil })
	until(t, v, "the router again", boot("b1"))

	second, err := c.RegisterRouter(t.Context(), catalog.Router{ID: "r1", Boot: "b2"})
	if err != nil {
		t.Fatal(err)
	}
	until(t, v, "its next start", boot("b2"))
	first.Close()
	if !boot("b2")(v.Snapshot()) {
		t.Error("the end of the earlier start removed the later one")
	}
	second.Close()
	until(t, v, "no router", func(s *catalog.Snapshot) bool { return len(s.Routers) == 0 })
}
