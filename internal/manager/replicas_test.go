package manager_test

import (
	"testing"

	"github.com/sharding-system/sharding/client"
)

// TestShardReplicas: only what is a replica of a shard's primary becomes one of its
// replicas.
func TestShardReplicas(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 2)
	own, promoted := w.servers[0].StartReplica(t), w.servers[0].StartReplica(t)
	promoted.Query(t, "postgres", "SELECT pg_promote()")
	_, err := m.ChangeShard(w.ctx, "shop-1", client.ShardChange{Replicas: &[]string{own.Addr(), promoted.Addr()}}, 0)
	wantRefused(t, err, 422, "SERVER_UNSUITABLE")
	sh, err := m.ChangeShard(w.ctx, "shop-1", client.ShardChange{Replicas: &[]string{own.Addr()}}, 0)
	if err != nil {
		t.Fatal(refusal(err))
	}
	if len(sh.Replicas) != 1 || sh.Replicas[0] != own.Addr() {
		t.Errorf("replicas %v", sh.Replicas)
	}
	if sh, err = m.ChangeShard(w.ctx, "shop-1", client.ShardChange{Replicas: &[]string{}}, sh.Version); err != nil || len(sh.Replicas) != 0 {
		t.Errorf("replicas %v, %v", sh.Replicas, err)
	}
}
