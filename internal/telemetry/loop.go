package telemetry

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	sharding "github.com/sharding-system/sharding"
)

// Operation is what a statement does, as the label operation says it.
type Operation uint8

// The operations.
const (
	Select Operation = iota
	Insert
	Update
	Delete
	Copy
	DDL
	Other
	operations
)

var operationNames = [operations]string{"select", "insert", "update", "delete", "copy", "ddl", "other"}

// String gives the label's value.
func (o Operation) String() string {
	if o >= operations {
		o = Other
	}
	return operationNames[o]
}

// ParseOperation gives the operation that a label names, Other for any other
// word, so that the number of series stays bounded.
func ParseOperation(s string) Operation {
	for o, name := range operationNames {
		if s == name {
			return Operation(o)
		}
	}
	return Other
}

// bounds are the upper bounds of the histogram's buckets; from what a local
// point query takes to what nobody waits for.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// ShardStats counts one loop's statements on one shard of one keyspace. Only
// its loop writes it; a scrape reads it at any time.
type ShardStats struct {
	ok, failed [operations]atomic.Uint64
	buckets    [len(bounds) + 1]atomic.Uint64 // not cumulative; the last has no bound
	nanos      atomic.Int64                   // the sum of all durations
}

// Observe counts a statement that took d.
func (s *ShardStats) Observe(op Operation, d time.Duration, failed bool) {
	if op >= operations {
		op = Other
	}
	if failed {
		s.failed[op].Add(1)
	} else {
		s.ok[op].Add(1)
	}
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	s.buckets[i].Add(1)
	s.nanos.Add(int64(d))
}

type shardKey struct {
	keyspace string
	shard    sharding.ShardID
}

// Loop is what one event loop counts. Any goroutine may call its methods; they
// are cheap as long as one does.
type Loop struct {
	shards       atomic.Pointer[map[shardKey]*ShardStats] // replaced, never changed
	adding       sync.Mutex                               // guards the replacing of shards
	hits, misses atomic.Uint64
	transactions [2][2]atomic.Uint64 // by multi, by committed
	_            [64]byte            // keeps two loops' counters on different cache lines
}

func newLoop() *Loop {
	l := &Loop{}
	l.shards.Store(&map[shardKey]*ShardStats{})
	return l
}

// Shard gives the counters of a shard, to keep where the shard stays the same.
func (l *Loop) Shard(keyspace string, shard sharding.ShardID) *ShardStats {
	key := shardKey{keyspace, shard}
	if s := (*l.shards.Load())[key]; s != nil {
		return s
	}
	l.adding.Lock()
	defer l.adding.Unlock()
	old := *l.shards.Load()
	if s := old[key]; s != nil {
		return s
	}
	next := maps.Clone(old)
	s := &ShardStats{}
	next[key] = s
	l.shards.Store(&next)
	return s
}

// Statement counts a statement on a shard that took d.
func (l *Loop) Statement(keyspace string, shard sharding.ShardID, operation string, d time.Duration, failed bool) {
	l.Shard(keyspace, shard).Observe(ParseOperation(operation), d, failed)
}

// Transaction counts the end of a transaction that touched one shard or several.
func (l *Loop) Transaction(multi, committed bool) {
	l.transactions[index(multi)][index(committed)].Add(1)
}

// PlanCache counts look-ups in the plan cache.
func (l *Loop) PlanCache(hits, misses int) {
	l.hits.Add(uint64(hits))
	l.misses.Add(uint64(misses))
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}
