package router_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestUnnamedStatementsAtOnce: many clients, some of them with a kept connection, prepare the unnamed statement in one
// unit and run it in the next, each on whatever backend is free then; the answers
// are those of the messages that each of them sent.
func TestUnnamedStatementsAtOnce(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 4})
	ctx := clustertest.Context(t)
	run(t, c.Connect(t, "app"), "CREATE TABLE s (id bigint PRIMARY KEY, n bigint) WITH (sharding.key = 'id')")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			pg, err := pgconn.Connect(ctx, c.DSN("app"))
			if err != nil {
				t.Error(err)
				return
			}
			defer pg.Close(ctx)
			if i%2 == 0 { // some keep a connection between their transactions
				if err := pg.Exec(ctx, "LISTEN news").Close(); err != nil {
					t.Error(err)
				}
			}
			for n := range 60 {
				id := fmt.Sprint(1000*i + n%3)
				d, err := pg.Prepare(ctx, "", "INSERT INTO s VALUES ($1, 0) ON CONFLICT (id) DO UPDATE SET n = s.n + 1", nil)
				if err != nil || len(d.ParamOIDs) != 1 {
					t.Errorf("Prepare: %v, %v", d, err)
					return
				}
				if r := pg.ExecPrepared(ctx, "", [][]byte{[]byte(id)}, nil, nil).Read(); r.Err != nil {
					t.Errorf("execution %d: %v", n, r.Err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if n := one[int64](t, c.Connect(t, "app"), "SELECT count(*) FROM s WHERE n = 19"); n != 24 {
		t.Errorf("%d rows were updated 19 times", n)
	}
}
