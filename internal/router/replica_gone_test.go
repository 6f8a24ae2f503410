package router_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestReplicaPromoted: what was promoted is no replica any more, at once.
func TestReplicaPromoted(t *testing.T) {
	c := replicated(t, 1, 1, time.Minute)
	var conns []*pgx.Conn
	for range 4 {
		conn := c.Connect(t, "app")
		run(t, conn, "SET sharding.replica_policy = replica_prefer")
		reach(t, conn, true)
		conns = append(conns, conn)
	}
	r := c.Replicas[0][0]
	r.Query(t, "postgres", "SELECT pg_promote()")
	r.Exec(t, "app", "UPDATE counters SET n = 99")
	for i := range 40 {
		for name, mode := range modes {
			for _, conn := range conns {
				if n := one[int](t, conn, "SELECT n FROM counters WHERE id = $1", mode, i); n != 0 {
					t.Fatalf("%s: a read of the fork", name)
				}
			}
		}
	}
}

// TestReplicaKilled: reads go on without a replica that dies, and come back to it.
func TestReplicaKilled(t *testing.T) {
	c := replicated(t, 2, 1, time.Minute)
	conn := c.Connect(t, "app")
	run(t, conn, "SET sharding.replica_policy = replica_prefer")
	all(t, c, conn)
	for range 2 {
		for _, r := range c.Replicas {
			r[0].Kill(t)
		}
		for i := range 40 {
			for name, mode := range modes {
				if n := one[int](t, conn, "SELECT n FROM counters WHERE id = $1", mode, i); n != 0 {
					t.Errorf("%s: %d", name, n)
				}
				if n := one[int](t, conn, "SELECT count(*) FROM counters", mode); n != 40 {
					t.Errorf("%s: %d rows", name, n)
				}
			}
		}
		for _, r := range c.Replicas {
			r[0].Restart(t)
		}
		all(t, c, conn)
		reach(t, conn, true)
	}
}

// TestReplicaSchema: a plan of a new schema does not run on a replica that does not
// have it.
func TestReplicaSchema(t *testing.T) {
	c := replicated(t, 2, 1, time.Minute)
	conn, other := c.Connect(t, "app"), c.Connect(t, "app")
	for _, x := range []*pgx.Conn{conn, other} {
		run(t, x, "SET sharding.replica_policy = replica_prefer")
	}
	all(t, c, conn)
	pause(t, c.Replicas[0][0], c.Replicas[1][0])
	run(t, other, "CREATE TABLE late (id bigint PRIMARY KEY) WITH (sharding.key = 'id')")
	run(t, other, "ALTER TABLE counters ADD COLUMN more int DEFAULT 5")
	for name, mode := range modes {
		if n := one[int](t, conn, "SELECT count(*) FROM late", mode); n != 0 {
			t.Errorf("%s: %d", name, n)
		}
		run(t, conn, "BEGIN READ ONLY")
		if n := one[int](t, conn, "SELECT more FROM counters WHERE id = $1", mode, 1); n != 5 {
			t.Errorf("%s: %d", name, n)
		}
		run(t, conn, "COMMIT")
	}
	resume(t, c.Replicas[0][0], c.Replicas[1][0])
	reach(t, conn, true)
}
