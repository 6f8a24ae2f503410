package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	queriesDesc = prometheus.NewDesc("shard_queries_total", "Statements run on a shard.",
		[]string{"shard", "keyspace", "operation", "status"}, nil)
	durationDesc = prometheus.NewDesc("shard_query_duration_seconds", "Time from sending a statement to a shard to the end of its answer.",
		[]string{"shard", "keyspace"}, nil)
	poolDesc = prometheus.NewDesc("shard_pool_connections", "Connections to a server, and clients that wait for one.",
		[]string{"shard", "endpoint", "state"}, nil)
	clientsDesc      = prometheus.NewDesc("router_clients", "Clients connected to the PostgreSQL listener.", nil, nil)
	hitsDesc         = prometheus.NewDesc("router_plan_cache_hits_total", "Statements whose plan was in the cache.", nil, nil)
	missesDesc       = prometheus.NewDesc("router_plan_cache_misses_total", "Statements that had to be planned.", nil, nil)
	transactionsDesc = prometheus.NewDesc("router_transactions_total", "Transactions ended, by the number of shards they touched.",
		[]string{"kind", "outcome"}, nil)
	lagDesc = prometheus.NewDesc("shard_replication_lag_seconds", "How far a replica was behind its primary when it was last asked.",
		[]string{"shard", "replica"}, nil)
	epochDesc   = prometheus.NewDesc("router_epoch", "Epoch of the shard map that the router routes by.", []string{"keyspace"}, nil)
	catalogDesc = prometheus.NewDesc("catalog_version", "Revision of the catalog that the process has seen.", nil, nil)
)

// RouterMetrics are the router's figures: a prometheus.Collector that adds up
// its loops' counters at each scrape. Its own Statement, Transaction and
// PlanCache count on a loop that all share; a busy caller takes one by NewLoop.
type RouterMetrics struct {
	*Loop // shared
	// ShardsAt names the shards whose primary is at an endpoint, for the label
	// shard of shard_pool_connections; nil leaves the label empty. Set before
	// the first scrape.
	ShardsAt func(endpoint string) string

	clients, catalog atomic.Int64

	mu     sync.Mutex // guards what follows
	loops  []*Loop
	pools  map[string]poolState
	epochs map[string]int64
	// replicas by shard and endpoint.
	replicas map[[2]string]replicaState
}

type replicaState struct {
	up  bool
	lag time.Duration
}

type poolState struct{ idle, active, waiting int }

// NewRouterMetrics makes the figures, all zero, and registers them.
func NewRouterMetrics(r prometheus.Registerer) (*RouterMetrics, error) {
	m := &RouterMetrics{pools: map[string]poolState{}, epochs: map[string]int64{}, replicas: map[[2]string]replicaState{}}
	m.Loop = m.NewLoop()
	if err := r.Register(m); err != nil {
		return nil, err
	}
	return m, nil
}

// NewLoop gives counters for one event loop, which stay for good.
func (m *RouterMetrics) NewLoop() *Loop {
	l := newLoop()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loops = append(m.loops, l)
	return l
}

// Clients sets the number of clients.
func (m *RouterMetrics) Clients(n int) { m.clients.Store(int64(n)) }

// Catalog sets the catalog's revision.
func (m *RouterMetrics) Catalog(revision int64) { m.catalog.Store(revision) }

// Pool sets the state of the connections to an endpoint.
func (m *RouterMetrics) Pool(endpoint string, idle, active, waiting int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pools[endpoint] = poolState{idle, active, waiting}
}

// Epoch sets the epoch of a keyspace's map; 0 forgets the keyspace.
func (m *RouterMetrics) Epoch(keyspace string, epoch int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch == 0 {
		delete(m.epochs, keyspace)
		return
	}
	m.epochs[keyspace] = epoch
}

// Replica sets whether a shard's replica may be read, and how far behind it was when
// last asked.
func (m *RouterMetrics) Replica(shard, endpoint string, up bool, lag time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replicas[[2]string{shard, endpoint}] = replicaState{up, lag}
}

// ForgetReplica drops one that is no shard's any more.
func (m *RouterMetrics) ForgetReplica(shard, endpoint string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.replicas, [2]string{shard, endpoint})
}

// Describe is prometheus.Collector's.
func (m *RouterMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queriesDesc, durationDesc, poolDesc, clientsDesc, hitsDesc, missesDesc, transactionsDesc, epochDesc, catalogDesc, lagDesc, healthDesc} {
		ch <- d
	}
}

// Collect is prometheus.Collector's.
func (m *RouterMetrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	loops := m.loops[:len(m.loops):len(m.loops)]
	pools, epochs, replicas := maps.Clone(m.pools), maps.Clone(m.epochs), maps.Clone(m.replicas)
	m.mu.Unlock()

	collectShards(ch, loops)
	collectLoops(ch, loops)
	gauge(ch, clientsDesc, float64(m.clients.Load()))
	gauge(ch, catalogDesc, float64(m.catalog.Load()))
	for k, e := range epochs {
		gauge(ch, epochDesc, float64(e), k)
	}
	for at, s := range replicas {
		gauge(ch, healthDesc, float64(index(s.up)), at[0], "replica", at[1])
		gauge(ch, lagDesc, s.lag.Seconds(), at[0], at[1])
	}
	for endpoint, p := range pools {
		shards := ""
		if m.ShardsAt != nil {
			shards = m.ShardsAt(endpoint)
		}
		gauge(ch, poolDesc, float64(p.idle), shards, endpoint, "idle")
		gauge(ch, poolDesc, float64(p.active), shards, endpoint, "active")
		gauge(ch, poolDesc, float64(p.waiting), shards, endpoint, "waiting")
	}
}

// shardSums are one shard's counters added over all loops.
type shardSums struct {
	ok, failed [operations]uint64
	buckets    [len(bounds) + 1]uint64
	nanos      int64
}

func (t *shardSums) add(s *ShardStats) {
	for i := range t.ok {
		t.ok[i] += s.ok[i].Load()
		t.failed[i] += s.failed[i].Load()
	}
	for i := range t.buckets {
		t.buckets[i] += s.buckets[i].Load()
	}
	t.nanos += s.nanos.Load()
}

func collectShards(ch chan<- prometheus.Metric, loops []*Loop) {
	sums := map[shardKey]*shardSums{}
	for _, l := range loops {
		for k, s := range *l.shards.Load() {
			if sums[k] == nil {
				sums[k] = &shardSums{}
			}
			sums[k].add(s)
		}
	}
	for k, t := range sums {
		shard := string(k.shard)
		for op := range operations {
			// A series starts with its first statement; status error starts
			// with it too, so that rate() sees its first rise.
			if t.ok[op]+t.failed[op] > 0 {
				counter(ch, queriesDesc, t.ok[op], shard, k.keyspace, op.String(), "ok")
				counter(ch, queriesDesc, t.failed[op], shard, k.keyspace, op.String(), "error")
			}
		}
		cumulative, n := make(map[float64]uint64, len(bounds)), uint64(0)
		for i, b := range bounds {
			n += t.buckets[i]
			cumulative[b.Seconds()] = n
		}
		n += t.buckets[len(bounds)]
		ch <- prometheus.MustNewConstHistogram(durationDesc, n, float64(t.nanos)/1e9, cumulative, shard, k.keyspace)
	}
}

func collectLoops(ch chan<- prometheus.Metric, loops []*Loop) {
	var hits, misses uint64
	var transactions [2][2]uint64
	for _, l := range loops {
		hits += l.hits.Load()
		misses += l.misses.Load()
		for i := range transactions {
			for j := range transactions[i] {
				transactions[i][j] += l.transactions[i][j].Load()
			}
		}
	}
	counter(ch, hitsDesc, hits)
	counter(ch, missesDesc, misses)
	for i, kind := range []string{"single", "multi"} {
		for j, outcome := range []string{"rollback", "commit"} {
			counter(ch, transactionsDesc, transactions[i][j], kind, outcome)
		}
	}
}

func counter(ch chan<- prometheus.Metric, d *prometheus.Desc, v uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}
