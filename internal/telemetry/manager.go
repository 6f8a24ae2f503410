package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	healthDesc = prometheus.NewDesc("shard_health_status", "Whether a shard's server answers: 1 up, 0 down.",
		[]string{"shard", "role", "endpoint"}, nil)
	leaderDesc = prometheus.NewDesc("manager_is_leader", "Whether this manager leads: 1 yes, 0 no.", nil, nil)
)

// ManagerMetrics are the manager's figures: a prometheus.Collector.
type ManagerMetrics struct {
	leads, catalog atomic.Int64

	mu     sync.Mutex // guards what follows
	health map[serverKey]bool
	lag    map[serverKey]time.Duration
}

type serverKey struct{ shard, role, endpoint string }

// NewManagerMetrics makes the figures, all zero, and registers them.
func NewManagerMetrics(r prometheus.Registerer) (*ManagerMetrics, error) {
	m := &ManagerMetrics{health: map[serverKey]bool{}, lag: map[serverKey]time.Duration{}}
	if err := r.Register(m); err != nil {
		return nil, err
	}
	return m, nil
}

// ShardHealth sets whether a server of a shard is up; role is "primary" or "replica".
func (m *ManagerMetrics) ShardHealth(shard, role, endpoint string, up bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.health[serverKey{shard, role, endpoint}] = up
}

// ForgetShard drops a server that is no shard's any more: no alert on it.
func (m *ManagerMetrics) ForgetShard(shard, role, endpoint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.health, serverKey{shard, role, endpoint})
	delete(m.lag, serverKey{shard, role, endpoint})
}

// ReplicationLag sets how far a shard's replica is behind; less than 0: not known.
func (m *ManagerMetrics) ReplicationLag(shard, endpoint string, behind time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := serverKey{shard, "replica", endpoint}
	if behind < 0 {
		delete(m.lag, key)
		return
	}
	m.lag[key] = behind
}

// Leader sets whether this manager leads.
func (m *ManagerMetrics) Leader(leads bool) { m.leads.Store(int64(index(leads))) }

// CatalogAt sets the catalog's revision.
func (m *ManagerMetrics) CatalogAt(revision int64) { m.catalog.Store(revision) }

// Describe is prometheus.Collector's.
func (m *ManagerMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- healthDesc
	ch <- lagDesc
	ch <- leaderDesc
	ch <- catalogDesc
}

// Collect is prometheus.Collector's.
func (m *ManagerMetrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	health, lag := maps.Clone(m.health), maps.Clone(m.lag)
	m.mu.Unlock()
	for k, up := range health {
		gauge(ch, healthDesc, float64(index(up)), k.shard, k.role, k.endpoint)
	}
	for k, behind := range lag {
		gauge(ch, lagDesc, behind.Seconds(), k.shard, k.endpoint)
	}
	gauge(ch, leaderDesc, float64(m.leads.Load()))
	gauge(ch, catalogDesc, float64(m.catalog.Load()))
}
