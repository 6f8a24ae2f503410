package manager_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/manager"
	"github.com/sharding-system/sharding/internal/telemetry"
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

// TestReplicaHealth: the prober tells how far a replica is behind, takes several
// failures for a verdict, and says what is wrong with one that was promoted.
func TestReplicaHealth(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics, err := telemetry.NewManagerMetrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, 1)
	m := w.manager("one", func(o *manager.Options) { o.Metrics = metrics })
	w.keyspace(m, "shop", 1)
	primary, r := w.servers[0], w.servers[0].StartReplica(t)
	if _, err := m.ChangeShard(w.ctx, "shop-1", client.ShardChange{Replicas: &[]string{r.Addr()}}, 0); err != nil {
		t.Fatal(refusal(err))
	}
	replica := func() client.EndpointHealth {
		h, err := m.ShardHealth(w.ctx, "shop-1")
		if err != nil {
			t.Fatal(err)
		}
		if len(h.Endpoints) != 2 || h.Status != "up" {
			return client.EndpointHealth{}
		}
		return h.Endpoints[1]
	}
	metric := func(name string) (float64, bool) { return gathered(t, registry, name, "shop-1", r.Addr()) }
	w.eventually("the replica is up and not behind", func() bool {
		e := replica()
		return e.Role == "replica" && e.Status == "up" && e.InRecovery && e.LagBytes != nil && *e.LagBytes == 0 && *e.LagSeconds == 0
	})
	w.eventually("the metrics say so", func() bool {
		up, known := metric("shard_health_status")
		behind, measured := metric("shard_replication_lag_seconds")
		return known && up == 1 && measured && behind == 0
	})
	r.Query(t, "postgres", "SELECT pg_wal_replay_pause()")
	primary.Exec(t, "shop", "CREATE TABLE t AS SELECT generate_series(1, 1000) n")
	w.eventually("the replica is behind", func() bool {
		e := replica()
		behind, _ := metric("shard_replication_lag_seconds")
		return e.Status == "up" && e.LagBytes != nil && *e.LagBytes > 0 && *e.LagSeconds > 3 && behind > 3
	})
	r.Query(t, "postgres", "SELECT pg_wal_replay_resume()")
	w.eventually("it has caught up", func() bool { e := replica(); return e.LagSeconds != nil && *e.LagSeconds == 0 })
	// The primary's end says nothing of the replica, but how far it is behind is not known.
	primary.Kill(t)
	w.eventually("the primary is down, the replica is not", func() bool {
		h, err := m.ShardHealth(w.ctx, "shop-1")
		_, measured := metric("shard_replication_lag_seconds")
		return err == nil && h.Status == "down" && h.Endpoints[1].Status == "up" && h.Endpoints[1].LagSeconds == nil && !measured
	})
	primary.Restart(t)
	w.eventually("all is well", func() bool { e := replica(); return e.LagSeconds != nil && *e.LagSeconds == 0 })
	r.Query(t, "postgres", "SELECT pg_promote()")
	w.eventually("a promoted replica is none", func() bool {
		e := replica()
		up, _ := metric("shard_health_status")
		return e.Status == "down" && e.ConsecutiveFailures >= 3 && strings.Contains(e.LastError, "promoted") && up == 0
	})
	if h, err := m.Health(w.ctx); err != nil || h.Status != "degraded" || !strings.Contains(strings.Join(h.Degraded, ";"), r.Addr()) {
		t.Errorf("health: %+v, %v", h, err)
	}
	if _, err := m.ChangeShard(w.ctx, "shop-1", client.ShardChange{Replicas: &[]string{}}, 0); err != nil {
		t.Fatal(refusal(err))
	}
	w.eventually("it is forgotten", func() bool {
		_, up := metric("shard_health_status")
		_, measured := metric("shard_replication_lag_seconds")
		return !up && !measured
	})
}

// gathered is the value of a shard's metric that one of the labels names a server of.
func gathered(t *testing.T, g prometheus.Gatherer, name, shard, server string) (float64, bool) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			of, at := false, false
			for _, l := range m.GetLabel() {
				of = of || l.GetName() == "shard" && l.GetValue() == shard
				at = at || l.GetValue() == server
			}
			if f.GetName() == name && of && at {
				return m.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

// TestShardReplicasChecked: who cannot be reached or is no replica is refused where a
// shard or a keyspace is made, too, and a wrong version of the shard changes nothing.
func TestShardReplicasChecked(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	r, other, promoted := w.servers[0].StartReplica(t), w.servers[1].StartReplica(t), w.servers[0].StartReplica(t)
	promoted.Query(t, "postgres", "SELECT pg_promote()")
	ask := w.shard(0, "first")
	ask.Replicas = []string{promoted.Addr()}
	_, err := m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: "shop", Shards: []client.NewShard{ask}}, false)
	wantRefused(t, err, 422, "SERVER_UNSUITABLE")
	ask.Replicas = []string{r.Addr()}
	if _, err := m.CreateKeyspace(w.ctx, client.NewKeyspace{Name: "shop", Shards: []client.NewShard{ask}}, false); err != nil {
		t.Fatal(refusal(err))
	}
	second := w.shard(1, "second")
	second.Keyspace, second.Replicas = "shop", []string{r.Addr()} // which has another password
	_, err = m.AddShard(w.ctx, second, false)
	wantRefused(t, err, 503, "SHARD_UNREACHABLE")
	second.Replicas = []string{"127.0.0.1:1"}
	_, err = m.AddShard(w.ctx, second, false)
	wantRefused(t, err, 503, "SHARD_UNREACHABLE")
	second.Replicas = []string{other.Addr()}
	sh, err := m.AddShard(w.ctx, second, false)
	if err != nil {
		t.Fatal(refusal(err))
	}
	if len(sh.Replicas) != 1 || sh.Replicas[0] != other.Addr() {
		t.Errorf("replicas %v", sh.Replicas)
	}
	if same, err := m.ChangeShardReplicas(w.ctx, sh, nil, true); err != nil || len(same.Replicas) != 0 {
		t.Errorf("a dry run: %v, %v", same.Replicas, err)
	}
	if now, err := m.Shard(w.ctx, "second"); err != nil || len(now.Replicas) != 1 {
		t.Errorf("after a dry run: %v, %v", now.Replicas, err)
	}
	old := sh
	old.Version--
	_, err = m.ChangeShardReplicas(w.ctx, old, []string{}, false)
	wantRefused(t, err, 409, "VERSION_CONFLICT")
	_, err = m.ChangeShardReplicas(w.ctx, sh, []string{other.Addr(), other.Addr()}, false)
	wantRefused(t, err, 422, "INVALID")
}
