package router_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestStatementsAfterDirect: a statement that was prepared on a backend before a
// session was put together with it runs there afterwards, and so does another
// session's of the same text.
func TestStatementsAfterDirect(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 1})
	ctx := clustertest.Context(t)
	first, second := c.Connect(t, "app"), c.Connect(t, "app")
	for _, conn := range []*pgx.Conn{first, second} {
		if _, err := conn.Prepare(ctx, "a", "SELECT 40 + $1::int"); err != nil {
			t.Fatal(err)
		}
	}
	for _, direct := range []string{"CREATE TABLE z (i int)", "DROP TABLE z", "SELECT 1; VACUUM", "DEALLOCATE ALL"} {
		for _, conn := range []*pgx.Conn{first, second, first} {
			var n int
			if err := conn.QueryRow(ctx, "a", 2).Scan(&n); err != nil || n != 42 {
				t.Fatalf("before %s: %d, %v", direct, n, err)
			}
		}
		// The error of the third, VACUUM inside a transaction, is PostgreSQL's.
		_, _ = second.Exec(ctx, direct, pgx.QueryExecModeSimpleProtocol)
		if direct == "DEALLOCATE ALL" {
			break
		}
	}
	var n int
	if err := first.QueryRow(ctx, "a", 2).Scan(&n); err != nil || n != 42 {
		t.Fatalf("after another session's DEALLOCATE ALL: %d, %v", n, err)
	}
}
