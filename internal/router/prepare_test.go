package router_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sharding-system/sharding/internal/clustertest"
)

// TestRouterPrepareKeepsItsText: a statement prepared by SQL is the session's own copy.
func TestRouterPrepareKeepsItsText(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Servers: 2})
	conn := c.Connect(t, "app")
	ctx := clustertest.Context(t)
	exec := func(sql string) string {
		t.Helper()
		rs, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			t.Fatalf("%.60s: %v", sql, err)
		}
		var out []string
		for _, r := range rs {
			for _, row := range r.Rows {
				out = append(out, string(row[0]))
			}
		}
		return strings.Join(out, ",")
	}
	exec("CREATE TABLE t (id bigint PRIMARY KEY, v text) WITH (sharding.key = 'id')")
	exec("PREPARE p AS SELECT 'the text' FROM t WHERE id = $1")
	for id := range 8 {
		exec(fmt.Sprintf("INSERT INTO t VALUES (%d, 'x')", id))
	}
	for id := range 8 {
		if got := exec(fmt.Sprintf("EXECUTE p(%d)", id)); got != "the text" {
			t.Errorf("EXECUTE p(%d) gave %q", id, got)
		}
	}
}
