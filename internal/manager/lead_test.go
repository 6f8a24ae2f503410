package manager_test

import (
	"testing"
	"time"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/catalog"
	"github.com/sharding-system/sharding/internal/twophase"
)

// longAgo is before any maker of a keyspace could still be at it.
var longAgo = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func leads(t *testing.T, w *world, n *node) (bool, int64) {
	t.Helper()
	h, err := n.Health(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	return *h.Leader, h.Term
}

func TestTwoManagersOneLeader(t *testing.T) {
	w := newWorld(t, 1)
	one := w.manager("one")
	w.eventually("the first leads", func() bool { is, _ := leads(t, w, one); return is })
	_, term := leads(t, w, one)
	two := w.manager("two")
	w.keyspace(two, "shop", 1) // one that does not lead serves changes too
	if is, _ := leads(t, w, two); is {
		t.Error("both lead")
	}
	w.eventually("the other sees the change", func() bool {
		_, err := one.Keyspace(w.ctx, "shop")
		return err == nil
	})
	one.stop()
	w.eventually("the second leads", func() bool { is, _ := leads(t, w, two); return is })
	if _, next := leads(t, w, two); next <= term {
		t.Errorf("term %d follows %d", next, term)
	}
}

func TestReadsGoOnWithoutTheCatalog(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	w.etcd.Stop()
	w.eventually("the manager says that it is degraded", func() bool {
		h, err := m.Health(w.ctx)
		return err == nil && h.Status == "degraded"
	})
	if _, err := m.Keyspace(w.ctx, "shop"); err != nil {
		t.Errorf("reading: %s", refusal(err))
	}
	_, err := m.AddUser(w.ctx, client.NewUser{Name: "ada"})
	wantRefused(t, err, 503, "CATALOG_UNAVAILABLE")
	w.etcd.Restart()
	w.eventually("changes work again", func() bool {
		_, err := m.AddUser(w.ctx, client.NewUser{Name: "ada"})
		return err == nil || client.IsConflict(err)
	})
}

// What a router leaves prepared, the leader's resolver finishes: nobody
// decided, so it is rolled back.
func TestLeaderResolvesWhatIsLeftPrepared(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 2)
	conn := w.servers[1].Connect(t, "shop")
	gid := twophase.GID{Incarnation: m.view.Snapshot().Incarnation, Decision: sharding.ShardID("shop-1"), Router: "gone", Boot: "b", Counter: 1}
	w.servers[1].Exec(t, "shop", "CREATE TABLE t (a int)")
	for _, sql := range []string{"BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION '" + gid.Branch(1) + "'"} {
		if _, err := conn.Exec(w.ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("nothing is prepared", func() bool {
		return w.servers[1].Query(t, "shop", "SELECT count(*) FROM pg_prepared_xacts")[0][0] == "0"
	})
	if rows := w.servers[1].Query(t, "shop", "SELECT count(*) FROM t"); rows[0][0] != "0" {
		t.Errorf("an undecided transaction left %v rows", rows)
	}
}

// begun is a keyspace that somebody began to make or to drop and left.
func (w *world) begun(name, state string) {
	w.t.Helper()
	ask := w.shard(0, name+"-1")
	id := sharding.ShardID(ask.ID)
	shards, err := sharding.NewMap(1, sharding.HashPostgres, 16, []sharding.ShardID{id})
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := catalog.Open(w.ctx, catalog.Config{Endpoints: []string{w.etcd.Endpoint()}})
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	k := catalog.Keyspace{Name: name, Hash: sharding.HashPostgres, VnodeCount: 16, HomeShard: id,
		TwoPhaseCommit: catalog.TwoPhaseRequired, State: state, CreatedAt: longAgo}
	shard := catalog.Shard{ID: id, Name: ask.ID, Keyspace: name, Database: name, PrimaryEndpoint: ask.PrimaryEndpoint,
		Status: catalog.ShardActive, Username: ask.Username, PasswordFile: ask.PasswordFile}
	if _, err := c.CreateKeyspace(w.ctx, k, shards, []catalog.Shard{shard}); err != nil {
		w.t.Fatal(err)
	}
}

// A keyspace whose maker was killed becomes active by the leader's hand.
func TestLeaderFinishesAKeyspace(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.begun("late", catalog.KeyspaceCreating)
	w.eventually("the keyspace is active", func() bool {
		k, err := m.Keyspace(w.ctx, "late")
		return err == nil && k.State == "active"
	})
	if rows := w.servers[0].Query(t, "late", "SELECT to_regclass('sharding.decision')::text"); rows[0][0] != "sharding.decision" {
		t.Errorf("its database holds %v", rows)
	}
}

// So does one that was being dropped go, with the database that was made for
// it.
func TestLeaderFinishesADropping(t *testing.T) {
	w := newWorld(t, 1)
	m := w.manager("one")
	w.servers[0].Exec(t, "postgres", "CREATE DATABASE gone TEMPLATE template0")
	w.servers[0].Exec(t, "postgres", "COMMENT ON DATABASE gone IS 'made by the sharding system for keyspace gone'")
	w.begun("gone", catalog.KeyspaceDropping)
	w.eventually("the keyspace is gone", func() bool {
		_, err := m.Keyspace(w.ctx, "gone")
		return client.IsNotFound(err) && len(w.servers[0].Query(t, "postgres", "SELECT FROM pg_database WHERE datname = 'gone'")) == 0
	})
}
