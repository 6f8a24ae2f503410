package robustness

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding"
	"github.com/sharding-system/sharding/internal/pgtest"
	"github.com/sharding-system/sharding/internal/twophase"
)

const (
	accounts       = 64
	initialBalance = 1000
	tellers        = 8 // clients at work
	// killEvery is the mean time between two kills.
	killEvery = time.Second
	// hangs is how long a transfer may take at most, whatever is killed.
	hangs = 45 * time.Second
)

// bank is what the clients were told of each transfer, by its id.
type bank struct {
	routers []*daemon
	ids     atomic.Int64
	tried   atomic.Int64

	mu      sync.Mutex // guards what follows
	answers map[int64]told
	slowest time.Duration
	hung    []string
}

// TestChaos moves money between accounts on all shards while a random process is
// killed (-9) every second or so. In the end no money was made or lost, every
// transfer that was told committed is there once with both its halves, and none
// that was told aborted.
func TestChaos(t *testing.T) {
	lasts := lasting(t, "SHARDING_CHAOS", 12*time.Second)
	w := newWorld(t, 4, 2)
	w.openBank(t)
	b := &bank{routers: w.routers, answers: map[int64]told{}}
	for _, r := range w.routers {
		r.start("")
	}
	stopResolver := w.resolveForever(t, lasts)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for i := range tellers {
		wg.Go(func() { b.teller(ctx, i) })
	}
	kills := w.killAtRandom(t, time.Now().Add(lasts))
	stop()
	wg.Wait()
	stopResolver()
	for _, r := range w.routers {
		r.kill()
		if race := r.raced(); race != "" {
			t.Error(race)
		}
	}
	w.settle(t)
	b.audit(t, w)
	t.Logf("kills: %v; slowest transfer %v", kills, b.slowest)
}

func (w *world) openBank(t *testing.T) {
	t.Helper()
	r := w.routers[0]
	r.start("")
	conn := connect(t, r.dsn())
	mustExec(t, conn, "CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL) WITH (sharding.key = 'id')")
	mustExec(t, conn, "CREATE TABLE transfers (id bigint PRIMARY KEY, a bigint, b bigint, amount bigint) WITH (sharding.key = 'id')")
	for id := range accounts {
		mustExec(t, conn, fmt.Sprintf("INSERT INTO accounts VALUES (%d, %d)", id, initialBalance))
	}
	r.kill()
}

// resolveForever runs what finishes commits in doubt: in the long form a manager
// of its own, which is killed like everything else; else a resolver that
// interferes as early as it can.
func (w *world) resolveForever(t *testing.T, lasts time.Duration) (stop func()) {
	t.Helper()
	if lasts >= time.Minute {
		m := newDaemon(t, "sharding-manager", w.Etcd.Endpoint(), pgtest.User, w.Servers[0].Password)
		m.start("")
		w.manager = m
		return func() {
			m.kill()
			if race := m.raced(); race != "" {
				t.Error(race)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := twophase.NewResolver(twophase.Options{
		Incarnation: w.inc, Grace: 500 * time.Millisecond, DeadGrace: 500 * time.Millisecond,
		Blocked: 500 * time.Millisecond, Retention: time.Second, ForgetEvery: time.Second,
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer r.Close()
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				// What it cannot reach is in its report, and tried again.
				_, _ = r.Resolve(ctx, w.endpoints)
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// killAtRandom kills and starts again until the deadline.
func (w *world) killAtRandom(t *testing.T, deadline time.Time) map[string]int {
	t.Helper()
	kills := map[string]int{}
	pause := time.NewTimer(0)
	defer pause.Stop()
	wait := func(d time.Duration) { pause.Reset(d); <-pause.C }
	<-pause.C
	for {
		wait(killEvery/2 + rand.N(killEvery))
		if time.Now().After(deadline) {
			return kills
		}
		switch n := rand.IntN(10); {
		case n < 4:
			s := w.Servers[rand.IntN(len(w.Servers))]
			s.Kill(t)
			wait(rand.N(killEvery))
			s.Restart(t)
			kills["server"]++
		case n == 4 && w.manager != nil:
			w.manager.kill()
			wait(rand.N(killEvery))
			w.manager.start("")
			kills["manager"]++
		case n == 5 && w.manager != nil:
			w.Etcd.Stop()
			wait(rand.N(killEvery))
			w.Etcd.Restart()
			kills["etcd"]++
		default:
			r := w.routers[rand.IntN(len(w.routers))]
			r.kill()
			wait(rand.N(killEvery))
			r.start("")
			kills["router"]++
		}
	}
}

// teller makes transfers, one after another, until ctx ends.
func (b *bank) teller(ctx context.Context, n int) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.Background())
		}
	}()
	for ctx.Err() == nil {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = pgx.Connect(ctx, b.routers[rand.IntN(len(b.routers))].dsn()); err != nil {
				select { // it may be dead right now
				case <-ctx.Done():
				case <-time.After(20 * time.Millisecond):
				}
				conn = nil
				continue
			}
			if _, err := conn.Exec(ctx, "SET lock_timeout = '1s'"); err != nil {
				continue
			}
		}
		b.transfer(conn, n)
	}
}

// transfer moves money once and notes what was told of it.
func (b *bank) transfer(conn *pgx.Conn, teller int) {
	id := b.ids.Add(1)
	from, to := rand.Int64N(accounts), rand.Int64N(accounts)
	if from == to {
		return
	}
	// The lower account first: fewer deadlocks.
	amounts := map[int64]int64{from: -(1 + rand.Int64N(9))}
	amounts[to] = -amounts[from]
	lo, hi := min(from, to), max(from, to)
	// Not the test's context: at its end a transfer still gets its answer.
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	b.tried.Add(1)
	begun := time.Now()
	var err error
	if teller%2 == 0 {
		err = b.conversation(ctx, conn, id, lo, hi, amounts)
	} else {
		batch := &pgx.Batch{}
		batch.Queue("UPDATE accounts SET balance = balance + $2 WHERE id = $1", lo, amounts[lo])
		batch.Queue("UPDATE accounts SET balance = balance + $2 WHERE id = $1", hi, amounts[hi])
		batch.Queue("INSERT INTO transfers VALUES ($1, $2, $3, $4)", id, lo, hi, amounts[hi])
		err = conn.SendBatch(ctx, batch).Close()
	}
	b.note(id, err, time.Since(begun), ctx.Err())
}

// conversation is a transfer statement by statement.
func (b *bank) conversation(ctx context.Context, conn *pgx.Conn, id, lo, hi int64, amounts map[int64]int64) error {
	pc := conn.PgConn()
	for _, sql := range []string{
		"BEGIN",
		fmt.Sprintf("UPDATE accounts SET balance = balance + %d WHERE id = %d", amounts[lo], lo),
		fmt.Sprintf("UPDATE accounts SET balance = balance + %d WHERE id = %d", amounts[hi], hi),
		fmt.Sprintf("INSERT INTO transfers VALUES (%d, %d, %d, %d)", id, lo, hi, amounts[hi]),
	} {
		if _, err := pc.Exec(ctx, sql).ReadAll(); err != nil {
			// A transaction that never got to its COMMIT is not there.
			_, _ = pc.Exec(ctx, "ROLLBACK").ReadAll()
			return errRolledBack
		}
	}
	res, err := pc.Exec(ctx, "COMMIT").ReadAll()
	if err == nil && res[0].CommandTag.String() != "COMMIT" {
		return errRolledBack
	}
	return err
}

func (b *bank) note(id int64, err error, took time.Duration, timeout error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[id] = read(err)
	b.slowest = max(b.slowest, took)
	if timeout != nil {
		b.hung = append(b.hung, fmt.Sprintf("transfer %d: no answer within %v: %v", id, hangs, err))
	}
}

// audit checks the books.
func (b *bank) audit(t *testing.T, w *world) {
	t.Helper()
	for _, h := range b.hung {
		t.Error(h)
	}
	balance := map[int64]int64{}
	for id := range int64(accounts) {
		balance[id] = initialBalance
	}
	seen := map[int64]bool{}
	for i, s := range w.Servers {
		for _, row := range s.Query(t, "app", "SELECT id, a, b, amount FROM transfers") {
			n := numbers(t, row)
			if seen[n[0]] {
				t.Errorf("transfer %d is there twice", n[0])
			}
			if w.keys.ShardOf(sharding.Int(n[0])) != i {
				t.Errorf("transfer %d is on server %d", n[0], i+1)
			}
			seen[n[0]] = true
			balance[n[1]] -= n[3]
			balance[n[2]] += n[3]
		}
	}
	found := map[int64]int64{}
	for _, s := range w.Servers {
		for _, row := range s.Query(t, "app", "SELECT id, balance FROM accounts") {
			n := numbers(t, row)
			found[n[0]] = n[1]
		}
	}
	if !maps.Equal(balance, found) {
		t.Errorf("the balances are %v\nby the transfers they are %v", found, balance)
	}
	count := map[told]int{}
	for id, a := range b.answers {
		count[a]++
		if a == committed && !seen[id] || a == aborted && seen[id] {
			t.Errorf("transfer %d: the client was told %s; there: %t", id, a, seen[id])
		}
	}
	t.Logf("%d transfers tried: %v; %d are there", b.tried.Load(), count, len(seen))
	if count[committed] < 10*tellers {
		t.Errorf("only %d transfers were made", count[committed])
	}
}

func numbers(t *testing.T, row []string) []int64 {
	t.Helper()
	out := make([]int64, len(row))
	for i, v := range row {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = n
	}
	return out
}
