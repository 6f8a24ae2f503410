package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

const (
	soakers  = 8 // well-behaved clients
	breakers = 4 // clients that go away in every bad manner
	soakRows = 400
	// slack is what the counts of goroutines and descriptors may be above those
	// at the beginning: a further loop and its helpers.
	slack = 8
)

// soak is what the clients of a soak share.
type soak struct {
	dsn  string
	done atomic.Int64
	gone atomic.Int64

	mu   sync.Mutex // guards errs
	errs []string
}

func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) < 20 {
		s.errs = append(s.errs, fmt.Sprintf(format, args...))
	}
}

func (s *soak) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.errs) > 0
}

// TestSoak mixes every kind of work with clients that are killed in the middle of
// it, and then finds the router and the shards as clean as they were.
func TestSoak(t *testing.T) {
	lasts := lasting(t, "SHARDING_SOAK", 20*time.Second)
	c := clustertest.Start(t, clustertest.Options{Servers: 3, Router: func(o *router.Options) {
		// A busy machine's server may take long to start a backend.
		o.MaxConnections, o.ConnectionTTL, o.AcquireTimeout = 40, 3*time.Second, 30*time.Second
	}})
	prepareSoak(t, c)
	s := &soak{dsn: c.DSN("app")}
	warm(t, s)
	before := takeStock(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var wg sync.WaitGroup
	for i := range soakers {
		wg.Go(func() { s.soaker(ctx, i) })
	}
	for i := range breakers {
		wg.Go(func() { s.breaker(ctx, i) })
	}
	wg.Wait()
	for _, e := range s.errs {
		t.Error(e)
	}
	t.Logf("%d pieces of work, %d clients killed", s.done.Load(), s.gone.Load())
	if s.done.Load() < 100 || s.gone.Load() < 10 {
		t.Error("too little was done to mean anything")
	}
	checkClean(t, c, before)
	if log := c.Log.String(); strings.Contains(log, "panic") || strings.Contains(log, "internal error") {
		t.Errorf("the router's log tells of a panic or an internal error:\n%s", c.Log.Tail(100))
	}
}

func prepareSoak(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	conn := c.Connect(t, "app")
	mustExec(t, conn, "CREATE TABLE soak (id bigint PRIMARY KEY, owner bigint, v text) WITH (sharding.key = 'id')")
	mustExec(t, conn, "CREATE TABLE fixed (id bigint PRIMARY KEY, v text NOT NULL) WITH (sharding.key = 'id')")
	mustExec(t, conn, "CREATE TABLE countries (code text PRIMARY KEY, name text) WITH (sharding.kind = 'reference')")
	mustExec(t, conn, "INSERT INTO countries VALUES ('de', 'Germany'), ('fr', 'France')")
	var rows []string
	for i := range soakRows {
		rows = append(rows, fmt.Sprintf("(%d, 'v%d')", i, i))
	}
	mustExec(t, conn, "INSERT INTO fixed VALUES "+strings.Join(rows, ", "))
	_ = conn.Close(context.Background())
}

// warm lets every helper that stays be there before they are counted.
func warm(t *testing.T, s *soak) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range soakers {
		wg.Go(func() { s.soaker(ctx, i) })
	}
	wg.Wait()
	s.done.Store(0)
}

// stock is what a process has.
type stock struct{ goroutines, descriptors int }

// takeStock counts once all clients have left. Connections to shards that are
// idle in their pool do not count.
func takeStock(t *testing.T, c *clustertest.Cluster) stock {
	t.Helper()
	clustertest.Eventually(t, "every connection to a shard is idle", func() error { return poolsAtRest(c) })
	return count(t, c)
}

func poolsAtRest(c *clustertest.Cluster) error {
	for _, s := range c.Router.PoolStats() {
		if s.Open != s.Idle || s.Waiting != 0 {
			return fmt.Errorf("pool %+v", s)
		}
	}
	return nil
}

func count(t *testing.T, c *clustertest.Cluster) stock {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc: descriptors cannot be counted")
	}
	n := stock{runtime.NumGoroutine() - unusedCoroutines(t), len(fds)}
	for _, s := range c.Router.PoolStats() {
		n.descriptors -= s.Idle
	}
	return n
}

// unusedCoroutines counts those that the loops keep for the next task: they run
// nothing, and how many there are is what was at work at once, up to a bound.
func unusedCoroutines(t *testing.T) (n int) {
	t.Helper()
	var b strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&b, 1); err != nil {
		t.Fatal(err)
	}
	for stack := range strings.SplitSeq(b.String(), "\n\n") {
		count, frames, _ := strings.Cut(stack, " @ ")
		if !unusedCoroutine.MatchString(frames) {
			continue
		}
		count = count[strings.LastIndexByte(count, '\n')+1:] // the first has a title
		k, err := strconv.Atoi(count)
		if err != nil {
			t.Fatalf("a profile that starts with %q", count)
		}
		n += k
	}
	return n
}

// unusedCoroutine is the stack of a coroutine that has yielded between two tasks.
var unusedCoroutine = regexp.MustCompile(`^[^\n]*\n#\s+\S+\s+iter\.Pull\S+\s[^\n]*\n#\s+\S+\s+\S+/internal/loop\.\(\*runner\)\.main\+`)

// checkClean: nothing of the clients is left, here or on the shards.
func checkClean(t *testing.T, c *clustertest.Cluster, before stock) {
	t.Helper()
	after := takeStock(t, c)
	deadline := time.Now().Add(20 * time.Second)
	for after.goroutines > before.goroutines+slack || after.descriptors > before.descriptors+slack {
		if time.Now().After(deadline) {
			var b strings.Builder
			_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
			t.Errorf("left over: %+v before, %+v after\n%s", before, after, b.String())
			break
		}
		<-time.After(50 * time.Millisecond)
		after = count(t, c)
	}
	t.Logf("before %+v, after %+v", before, after)
	open := map[string]int{}
	for _, s := range c.Router.PoolStats() {
		open[s.Addr] = s.Open
	}
	for i, s := range c.Servers {
		clustertest.Eventually(t, fmt.Sprintf("server %d is at rest", i+1), func() error {
			return empty(s.Query(t, "app", `SELECT pid, state, query FROM pg_stat_activity
				WHERE datname = 'app' AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND state <> 'idle'`))
		})
		clustertest.Eventually(t, fmt.Sprintf("server %d has no more backends than the pool", i+1), func() error {
			n := len(s.Query(t, "app", `SELECT 1 FROM pg_stat_activity WHERE datname = 'app' AND backend_type = 'client backend'
				AND pid <> pg_backend_pid() AND application_name <> 'sharding-resolver'`))
			max := 0
			for _, p := range c.Router.PoolStats() {
				if p.Addr == s.Addr() {
					max = p.Open
				}
			}
			if n > max {
				return fmt.Errorf("%d backends, %d connections in the pool", n, max)
			}
			return nil
		})
		// All of a transaction's rows carry its nonce: five, or none.
		halves := map[string]int{}
		for _, srv := range c.Servers {
			for _, row := range srv.Query(t, "app", "SELECT v FROM soak WHERE v LIKE 'five-%'") {
				halves[row[0]]++
			}
		}
		for v, n := range halves {
			if n != 5 {
				t.Errorf("%d of five rows of transaction %s", n, v)
			}
		}
	}
	c.NothingPrepared(t)
}

// breaker logs in, begins something, and goes away with a reset.
func (s *soak) breaker(ctx context.Context, n int) {
	rnd := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(n)))
	for ctx.Err() == nil && !s.failed() {
		r, err := login(ctx, s.dsn)
		if err != nil {
			// The dialer has a timer of its own for the deadline, which may be first.
			if end, _ := ctx.Deadline(); time.Now().Before(end) {
				s.fail("breaker %d cannot log in: %v", n, err)
			}
			return
		}
		endings[rnd.IntN(len(endings))](r, rnd)
		r.abort()
		s.gone.Add(1)
	}
}
