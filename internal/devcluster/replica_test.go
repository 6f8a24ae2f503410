package devcluster_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/client"
	"github.com/sharding-system/sharding/internal/devcluster"
)

// TestReplicas: reads that may go to replicas do, also after a replica was killed,
// after a start on other ports, and on replicas that a later start has added.
func TestReplicas(t *testing.T) {
	o := options(dataDir(t))
	o.SpareShards, o.Replicas = 0, 1
	c := start(t, o)
	r := c.Ready()
	query(t, r, "CREATE TABLE t (id int PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	query(t, r, "INSERT INTO t SELECT 1, 'a'; INSERT INTO t VALUES (2, 'b'), (3, 'c'), (4, 'd')")
	readFromReplicas(t, r)

	pid := replicaPids(r)[0]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	readFromReplicas(t, r)
	healthy(t, r, 2)
	stop(t, c)

	o.Replicas = 0 // as many as there are
	c = start(t, o)
	readFromReplicas(t, c.Ready())
	stop(t, c)

	o.Replicas = 2
	c = start(t, o)
	r = c.Ready()
	if n := len(replicaPids(r)); n != 4 {
		t.Errorf("%d replicas, want 4", n)
	}
	readFromReplicas(t, r)
	healthy(t, r, 4)
	stop(t, c)

	o.Replicas = 1
	if _, err := devcluster.Start(context.Background(), o, devcluster.Watcher{}); err == nil || !strings.Contains(err.Error(), "not fewer") {
		t.Errorf("a start with fewer replicas: %v", err)
	}
}

func replicaPids(r devcluster.Ready) (pids []int) {
	for _, p := range r.Processes {
		if p.Kind == "replica" {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// soon waits until ok has nothing to say.
func soon(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.NewTicker(50 * time.Millisecond); ; <-tick.C {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// readFromReplicas waits until each key is read, rightly, on a replica.
func readFromReplicas(t *testing.T, r devcluster.Ready) {
	t.Helper()
	for id, v := range []string{"a", "b", "c", "d"} {
		soon(t, "a read from a replica", func() error {
			conn, err := pgx.Connect(t.Context(), r.PostgresURL)
			if err != nil {
				return err
			}
			defer conn.Close(context.Background())
			if _, err := conn.Exec(t.Context(), "SET sharding.replica_policy = 'replica_prefer'"); err != nil {
				return err
			}
			var got string
			err = conn.QueryRow(t.Context(), "SELECT v || pg_is_in_recovery() FROM t WHERE id = $1", id+1).Scan(&got)
			if err == nil && got != v+"true" {
				err = fmt.Errorf("%q", got)
			}
			return err
		})
	}
}

// healthy waits until the manager has found that many replicas well and not behind.
func healthy(t *testing.T, r devcluster.Ready, want int) {
	t.Helper()
	m, err := client.NewManager(r.ManagerURL, client.WithToken(r.AdminToken))
	if err != nil {
		t.Fatal(err)
	}
	soon(t, "healthy replicas", func() error {
		shards, err := m.Shards(t.Context(), "")
		if err != nil {
			return err
		}
		n := 0
		for _, sh := range shards {
			h, err := m.ShardHealth(t.Context(), sh.ID)
			if err != nil {
				return err
			}
			for _, e := range h.Endpoints {
				if e.Role == "replica" && e.Status == "up" && e.LagSeconds != nil {
					n++
				}
			}
		}
		if n != want {
			return fmt.Errorf("%d of %d", n, want)
		}
		return nil
	})
}
