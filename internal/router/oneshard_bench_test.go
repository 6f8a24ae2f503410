package router_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// BenchmarkOneShardDDL makes and drops a table, on the server and through the
// router, in turn.
func BenchmarkOneShardDDL(b *testing.B) {
	c := clustertest.Start(b, clustertest.Options{Servers: 1})
	ctx := clustertest.Context(b)
	for name, conn := range map[string]*pgx.Conn{"direct": c.Servers[0].Connect(b, "app"), "router": c.Connect(b, "app")} {
		b.Run(name, func(b *testing.B) {
			for i := range b.N {
				for _, sql := range []string{"CREATE TABLE b%s%d (id int PRIMARY KEY)", "DROP TABLE b%s%d"} {
					if _, err := conn.Exec(ctx, fmt.Sprintf(sql, name, i)); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
