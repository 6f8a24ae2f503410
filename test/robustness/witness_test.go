package robustness

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/pgtest"
)

// tolerated is how much longer than a direct client a well-behaved one may wait
// for an answer while others misbehave.
const tolerated = time.Second

// witness is a well-behaved client that works all the time beside those of a
// test, and must notice nothing of them.
type witness struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	errs    []string
	slowest time.Duration
	control time.Duration // the slowest step without a router, on the same machine
	done    int
}

// watch starts a witness that uses table witness; stop judges.
func watch(t *testing.T, dsn string, direct *pgtest.Server) *witness {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &witness{cancel: cancel}
	conn, err := pgx.Connect(clustertest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	control := direct.Connect(t, direct.CreateDatabase(t))
	mustExec(t, control, "CREATE TABLE control AS SELECT 0 AS n")
	w.wg.Go(func() {
		defer conn.Close(context.Background())
		for i := int64(0); ctx.Err() == nil; i++ {
			w.step(func() error { return w.query(conn, i) }, &w.slowest)
		}
	})
	w.wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			w.step(func() error { return alone(control, i) }, &w.control)
			<-time.After(time.Millisecond)
		}
	})
	return w
}

func (w *witness) step(do func() error, slowest *time.Duration) {
	begun := time.Now()
	err := do()
	took := time.Since(begun)
	w.mu.Lock()
	defer w.mu.Unlock()
	*slowest = max(*slowest, took)
	w.done++
	if err != nil && len(w.errs) < 10 {
		w.errs = append(w.errs, err.Error())
	}
}

// query is one statement of the witness; its answer must be its own.
func (w *witness) query(conn *pgx.Conn, i int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	<-time.After(time.Millisecond)
	if i%10 == 0 {
		if _, err := conn.Exec(ctx, "UPDATE witness SET n = n + 1"); err != nil {
			return fmt.Errorf("update on all shards: %w", err)
		}
		return nil
	}
	var got int64
	if err := conn.QueryRow(ctx, "SELECT id + $2 FROM witness WHERE id = $1", i%8, i).Scan(&got); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if got != i%8+i {
		return fmt.Errorf("an answer that is not its own: %d, not %d", got, i%8+i)
	}
	return nil
}

// alone is one statement of the control: what the witness does, as far as one server
// can, so that a machine which is slow to let processes run is slow to both.
func alone(conn *pgx.Conn, i int) error {
	steps := []string{"SELECT n FROM control"}
	if i%10 == 0 {
		steps = []string{"BEGIN", "UPDATE control SET n = n + 1", "PREPARE TRANSACTION 'control'", "COMMIT PREPARED 'control'"}
	}
	for _, sql := range steps {
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			return fmt.Errorf("the control: %s: %w", sql, err)
		}
	}
	return nil
}

// stop ends the witness and fails the test for what it noticed.
func (w *witness) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	w.wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.errs {
		t.Errorf("the witness: %s", e)
	}
	if w.slowest > tolerated+w.control {
		t.Errorf("the witness waited %v for an answer (a direct client %v)", w.slowest, w.control)
	}
	t.Logf("the witness: %d steps, the slowest %v (a direct client's %v)", w.done, w.slowest, w.control)
}
