package router_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
	"github.com/sharding-system/sharding/internal/router"
)

// TestRouterCustomSettings: a custom setting exists for the session that has SET it,
// on whatever backend, and for no other, also where connections are scarce.
func TestRouterCustomSettings(t *testing.T) {
	for _, limit := range []int{0, 1} {
		t.Run(fmt.Sprintf("limit %d", limit), func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Options{Router: func(o *router.Options) {
				if limit > 0 {
					o.MaxConnections = limit
				}
			}})
			testCustomSettings(t, c)
		})
	}
}

func testCustomSettings(t *testing.T, c *clustertest.Cluster) {
	const ask = "SELECT current_setting('app.usr', true)"
	a, b := c.Connect(t, "app"), c.Connect(t, "app")
	null := func(conn *pgx.Conn) {
		t.Helper()
		var v *string
		if err := conn.QueryRow(context.Background(), ask, pgx.QueryExecModeSimpleProtocol).Scan(&v); err != nil || v != nil {
			t.Errorf("%v, %v: want NULL", v, describe(err))
		}
	}
	null(a)
	must(t, a, "SET app.usr = 'x'", "SET")
	must(t, a, ask, "x,SELECT 1")
	for range 3 {
		null(b)
		must(t, a, ask, "x,SELECT 1")
	}
	must(t, a, "RESET app.usr", "RESET")
	null(b)
	must(t, a, ask, ",SELECT 1") // as PostgreSQL: '' from then on
	must(t, b, "BEGIN; SET LOCAL app.usr = 'y'", "")
	must(t, b, ask, "y,SELECT 1")
	must(t, b, "COMMIT", "COMMIT")
	must(t, b, ask, ",SELECT 1")
	null(c.Connect(t, "app"))
	must(t, c.Connect(t, "app"), "SELECT set_config('app.usr', 'z', false)", "")
	null(c.Connect(t, "app"))
}
