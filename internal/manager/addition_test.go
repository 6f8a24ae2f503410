package manager_test

import (
	"fmt"
	"testing"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestAdditionWaitsForOpenTransactions: what a transaction creates that was open when a
// second shard was asked for is on that shard too.
func TestAdditionWaitsForOpenTransactions(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	tx, err := w.servers[0].Connect(t, "shop").Begin(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(w.ctx, "CREATE TABLE late (id int)"); err != nil {
		t.Fatal(err)
	}
	n := w.shard(1, "second")
	n.Keyspace = "shop"
	type answer struct {
		sh  client.Shard
		err error
	}
	done := make(chan answer, 1)
	go func() {
		sh, err := m.AddShard(w.ctx, n, false)
		done <- answer{sh, err}
	}()
	clustertest.Eventually(t, "the addition waits", func() error {
		if len(w.servers[0].Query(t, "shop", "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%virtualtransaction%' AND pid <> pg_backend_pid()")) == 0 {
			select {
			case a := <-done:
				t.Fatalf("it did not wait: %v", a.err)
			default:
			}
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if err := tx.Commit(w.ctx); err != nil {
		t.Fatal(err)
	}
	if a := <-done; a.err != nil {
		t.Fatal(refusal(a.err))
	}
	if rows := w.servers[1].Query(t, "shop", "SELECT to_regclass('late')::text"); rows[0][0] != "late" {
		t.Errorf("the new shard has %q", rows[0][0])
	}
}

// TestAdditionUnderSchemaChanges: tables are made and dropped in transactions of the only
// shard, past the keyspace's lock as by a session that is bound to its backend, while a
// second shard comes. Both have the same tables in the end.
func TestAdditionUnderSchemaChanges(t *testing.T) {
	w := newWorld(t, 2)
	m := w.manager("one")
	w.keyspace(m, "shop", 1)
	n := w.shard(1, "second")
	n.Keyspace = "shop"
	conn := w.servers[0].Connect(t, "shop")
	for i := range 5 {
		stop, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			var err error
			for j := 0; err == nil; j++ {
				// As a session of a router: what it knows of the keyspace it goes by to the
				// transaction's end.
				if _, err = conn.Exec(w.ctx, "BEGIN"); err != nil {
					break
				}
				sh, e := m.Shards(w.ctx, "shop")
				select {
				case <-stop:
					sh = nil
				default:
				}
				if e != nil || len(sh) != 1 {
					_, err = conn.Exec(w.ctx, "ROLLBACK")
					break
				}
				_, err = conn.Exec(w.ctx, fmt.Sprintf("CREATE TABLE r%d_%d (id int); SELECT pg_sleep(0.02); COMMIT", i, j))
			}
			ended <- err
		}()
		_, err := m.AddShard(w.ctx, n, false)
		close(stop)
		if e := <-ended; err != nil || e != nil {
			t.Fatal(refusal(err), e)
		}
		const tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'"
		if a, b := w.servers[0].Query(t, "shop", tables)[0][0], w.servers[1].Query(t, "shop", tables)[0][0]; a != b {
			t.Fatalf("round %d: the home shard has %s, the new one %s", i, a, b)
		}
		sh, err := m.Shard(w.ctx, "second")
		if err != nil {
			t.Fatal(err)
		}
		if err := m.RemoveShard(w.ctx, "second", sh.Version, false); err != nil {
			t.Fatal(refusal(err))
		}
		w.servers[1].Exec(t, "postgres", "DROP DATABASE shop WITH (FORCE)")
	}
}
